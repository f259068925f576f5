//! Feeders: one thread per shard moves the translog into Tantivy and keeps the searcher fresh.
//!
//! Tantivy's commit carries the number of the next operation; a restart goes on from there. As a
//! commit is also what makes documents searchable, a refresh is a commit: every
//! `index.refresh_interval` when something changed, at once when somebody waits for it.
//!
//! Memory: a feeder leases its writer's share of the node's memory (see [`crate::budget`]) and
//! commits before Tantivy's queue grows large. When others wait for a share, it gives its own
//! back after a turn.
//!
//! A translog shorter than what Tantivy holds (the node lost its latest checkpoint and replays
//! its log) is no damage: the feeder waits until the translog has grown past that point.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use base::task::thread;
use tracing::{error, warn};

use crate::budget::WriterLease;
use crate::copy::ShardCopy;
use crate::engine;
use crate::error::EsError;
use crate::limits::{FEED_BYTES, UNCOMMITTED_BYTES, WRITER_TURN_MS};
use crate::model::IndexMeta;
use crate::shared::IndexShared;
use crate::translog::Frame;

/// How long to wait before trying again what failed, and for a mapping that is on its way.
const RETRY: Duration = Duration::from_millis(20);
const RETRY_AFTER_ERROR: Duration = Duration::from_secs(2);

/// Starts the feeder of a copy. It ends when the copy is closed.
pub(crate) fn start(shared: Arc<IndexShared>, copy: Arc<ShardCopy>) {
    let (waker, woken) = sync_channel(1);
    copy.set_waker(waker);
    thread("index-feed", move || {
        let feeder = Feeder { shared, copy, woken, fed: 0, refreshed_ms: 0, lease: None };
        feeder.run();
    });
}

struct Feeder {
    shared: Arc<IndexShared>,
    copy: Arc<ShardCopy>,
    woken: Receiver<()>,
    /// Operations below it were handed to Tantivy.
    fed: u64,
    refreshed_ms: u64,
    /// Held while there is a writer, with the moment it was taken.
    lease: Option<(WriterLease, u64)>,
}

impl Feeder {
    fn run(mut self) {
        while !self.copy.is_closed() {
            match self.live() {
                Ok(()) => break,
                Err(failure) => {
                    if self.copy.is_closed() {
                        break;
                    }
                    error!(shard = ?self.copy.id, "a search copy failed, opening again: {failure}");
                    self.copy.set_engine(None);
                    // The writer went with the shard.
                    self.lease = None;
                    self.wait(RETRY_AFTER_ERROR);
                }
            }
        }
        self.copy.set_engine(None);
    }

    fn wait(&self, time: Duration) {
        match self.woken.recv_timeout(time) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            // The copy, and its sender, live as long as this feeder.
            Err(RecvTimeoutError::Disconnected) => {}
        }
    }

    fn meta(&self) -> Option<Arc<IndexMeta>> {
        self.shared.catalog().by_uuid(self.copy.id.index).cloned()
    }

    /// Waits for the catalog to know the index, with at least this version of its mapping.
    fn wait_for_meta(&self, mapping_version: u64) -> Option<Arc<IndexMeta>> {
        while !self.copy.is_closed() {
            match self.meta() {
                Some(meta) if meta.row.mapping_version >= mapping_version => return Some(meta),
                _ => self.wait(RETRY),
            }
        }
        None
    }

    fn live(&mut self) -> Result<(), EsError> {
        let Some(meta) = self.wait_for_meta(0) else { return Ok(()) };
        let dir = self.shared.engine_dir(self.copy.id);
        let (shard, committed) = engine::open(&self.shared, &dir, &meta)?;
        self.fed = committed;
        let shard = Arc::new(shard);
        // In this order: who sees the engine sees how much it has.
        self.copy.set_searchable(committed.min(self.copy.next_seq_no()));
        self.copy.set_engine(Some(shard.clone()));
        let mut indexer = engine::Indexer::new(shard, self.now_ms());
        while !self.copy.is_closed() {
            let moved = self.feed(&mut indexer)?;
            let dirty = self.fed > self.copy.searchable_to();
            if dirty && self.refresh_due(&indexer) {
                indexer.refresh(self.fed, self.now_ms())?;
                self.copy.set_searchable(self.fed);
                self.refreshed_ms = self.now_ms();
                self.end_turn(&indexer)?;
            } else if !moved {
                self.idle(&mut indexer, dirty)?;
            }
        }
        // Only a deleted or replaced shard gets here; its index is not worth a sync.
        Ok(())
    }

    /// Takes the share of memory that a writer needs; false when the copy was closed meanwhile.
    fn take_lease(&mut self, indexer: &engine::Indexer) -> bool {
        if self.lease.is_none() {
            let lease = self.shared.writers.lease(|| self.copy.is_closed());
            let Some(lease) = lease else { return false };
            indexer.set_writer_bytes(lease.bytes);
            self.lease = Some((lease, self.now_ms()));
        }
        true
    }

    /// Whether others wait for memory and this feeder has had its turn.
    fn turn_is_over(&self) -> bool {
        let since = self.lease.as_ref().map(|(_, since)| *since);
        since.is_some_and(|since| self.now_ms() >= since + WRITER_TURN_MS)
            && self.shared.writers.is_wanted()
    }

    /// Right after a commit: gives the writer up when its turn is over.
    fn end_turn(&mut self, indexer: &engine::Indexer) -> Result<(), EsError> {
        if self.turn_is_over() && indexer.rest()? {
            self.lease = None;
        }
        Ok(())
    }

    /// Nothing to feed: syncs when that is due, else waits.
    fn idle(&mut self, indexer: &mut engine::Indexer, dirty: bool) -> Result<(), EsError> {
        if !dirty {
            self.end_turn(indexer)?;
        }
        let mut pause = self.pause(dirty);
        if self.lease.is_some() {
            pause = pause.min(Duration::from_millis(WRITER_TURN_MS));
        }
        let Some(due) = indexer.checkpoint_due_ms() else {
            self.wait(pause);
            return Ok(());
        };
        let now = self.now_ms();
        if now < due {
            self.wait(pause.min(Duration::from_millis(due - now)));
            return Ok(());
        }
        // A commit needs a writer.
        if !self.take_lease(indexer) {
            return Ok(());
        }
        indexer.checkpoint(self.fed, now)?;
        self.copy.set_searchable(self.fed);
        if indexer.rest()? {
            self.lease = None;
        }
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.shared.env.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    fn interval_ms(&self) -> Option<u64> {
        self.meta().map_or(Some(1_000), |meta| meta.refresh_interval_ms())
    }

    fn refresh_due(&self, indexer: &engine::Indexer) -> bool {
        let searchable = self.copy.searchable_to();
        if indexer.uncommitted_bytes() >= UNCOMMITTED_BYTES || self.turn_is_over() {
            return true;
        }
        // Whoever waits, waits for all of it: feed first.
        let wanted = self.copy.wanted().min(self.copy.next_seq_no());
        if wanted > searchable {
            return self.fed >= wanted;
        }
        let unknown = self.copy.unknown_below();
        if searchable < unknown && self.fed >= unknown {
            return true;
        }
        self.interval_ms().is_some_and(|interval| self.now_ms() >= self.refreshed_ms + interval)
    }

    fn pause(&self, dirty: bool) -> Duration {
        let hour = Duration::from_secs(3600);
        match self.interval_ms() {
            _ if !dirty => hour,
            Some(interval) => {
                let due = (self.refreshed_ms + interval).saturating_sub(self.now_ms());
                Duration::from_millis(due.max(1))
            }
            None => hour,
        }
    }

    /// Hands the next frames to Tantivy; whether there were any.
    fn feed(&mut self, indexer: &mut engine::Indexer) -> Result<bool, EsError> {
        let next = self.copy.next_seq_no();
        if self.fed >= next {
            return Ok(false);
        }
        if !self.take_lease(indexer) {
            return Ok(true);
        }
        let frames = self.copy.stream.read(self.fed, FEED_BYTES);
        let frames = frames.map_err(|e| EsError::internal(format!("translog: {e}")))?;
        for bytes in &frames {
            let frame = Frame::decode(bytes.clone())
                .map_err(|e| EsError::internal(format!("translog of {:?}: {e}", self.copy.id)))?;
            let Some(meta) = self.wait_for_meta(frame.mapping_version) else { return Ok(true) };
            indexer.set_schema(&meta.schema);
            self.feed_frame(indexer, &frame)?;
        }
        Ok(!frames.is_empty())
    }

    fn feed_frame(&mut self, indexer: &mut engine::Indexer, frame: &Frame) -> Result<(), EsError> {
        let ops = frame.read_ops().map_err(|e| EsError::internal(e.to_string()))?;
        // What was there at start, or was forgotten, is not known to look-ups.
        if frame.base_seq_no < self.copy.unknown_below() {
            let unseen = ops.iter().filter(|(seq_no, _)| *seq_no >= self.fed).cloned();
            self.copy.note_old(unseen.collect(), frame.primary_term);
        }
        for (seq_no, op) in ops {
            if seq_no < self.fed {
                continue;
            }
            if let Err(failure) = indexer.apply(seq_no, frame.primary_term, &op) {
                if failure.status >= 500 {
                    return Err(failure);
                }
                // The coordinator checked the document against a mapping that only grew since;
                // one document must not stop the shard on every node.
                warn!(shard = ?self.copy.id, seq_no, "a document cannot be indexed: {failure}");
            }
            self.fed = seq_no + 1;
        }
        Ok(())
    }
}
