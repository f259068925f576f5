//! Files are taken out of use, and prepared for use, beside the flushes.

use std::io;
use std::time::Duration;

use tracing::warn;

use crate::state::{Batch, Inner};
use crate::store::{Pace, Prepared};

/// After a disk without room, preparing is tried again this often.
const RETRY: Duration = Duration::from_secs(1);

impl Inner {
    /// Does what there is to do: recycles retired files, prepares the next file, makes spares.
    pub(crate) fn upkeep(&self, pace: Pace) -> io::Result<()> {
        while let Some(seq) = self.oldest_retired() {
            self.store.lock().recycle(seq)?;
            self.state.lock().retired.pop_front();
        }
        let mut store = self.store.lock();
        let (ready, seq) = {
            let state = self.state.lock();
            (state.prepared.is_some(), state.taken + 1)
        };
        if !ready {
            // `taken` only changes under the lock of the store while nothing is prepared.
            let prepared = store.prepare(seq, pace)?;
            self.state.lock().prepared = Some(prepared);
        }
        store.fill_spares(pace)
    }

    fn oldest_retired(&self) -> Option<u32> {
        self.state.lock().retired.front().copied()
    }

    /// The next file for the writer, which makes it itself when the upkeep is behind.
    pub(crate) fn take_prepared(&self) -> io::Result<Prepared> {
        if let Some(prepared) = self.pop_prepared() {
            return Ok(prepared);
        }
        let mut store = self.store.lock();
        if let Some(prepared) = self.pop_prepared() {
            return Ok(prepared);
        }
        let seq = self.state.lock().taken + 1;
        let prepared = store.prepare(seq, Pace::Full)?;
        self.state.lock().taken = seq;
        Ok(prepared)
    }

    fn pop_prepared(&self) -> Option<Prepared> {
        let mut state = self.state.lock();
        let prepared = state.prepared.take()?;
        state.taken = prepared.seq;
        Some(prepared)
    }

    /// Runs the upkeep until the writer ends.
    pub(crate) fn upkeep_loop(&self) {
        loop {
            match self.upkeep(Pace::Gentle) {
                Ok(()) => {}
                Err(e) if is_full(&e) => {
                    warn!("cannot prepare a write-ahead log file, trying again: {e}");
                    let mut state = self.state.lock();
                    if !state.ended {
                        self.chores.wait_for(&mut state, RETRY);
                    }
                }
                Err(e) => self.fail(&e, Batch::default()),
            }
            let mut state = self.state.lock();
            loop {
                if state.ended || state.failed.is_some() {
                    return;
                }
                if !state.retired.is_empty() || state.prepared.is_none() {
                    break;
                }
                self.chores.wait(&mut state);
            }
        }
    }

    /// As one round of the loop, for a log that is driven step by step.
    pub(crate) fn upkeep_now(&self) {
        match self.upkeep(Pace::Full) {
            Ok(()) => {}
            Err(e) if is_full(&e) => warn!("cannot prepare a write-ahead log file: {e}"),
            Err(e) => self.fail(&e, Batch::default()),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
