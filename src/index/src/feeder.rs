//! Feeders: one thread per shard moves the translog into Tantivy and keeps the searcher fresh.
//!
//! Tantivy's commit carries the number of the next operation; a restart goes on from there. As a
//! commit is also what makes documents searchable, a refresh is a commit: every
//! `index.refresh_interval` when something changed, at once when somebody waits for it.
//!
//! A translog shorter than what Tantivy holds (the node lost its latest checkpoint and replays
//! its log) is no damage: the feeder waits until the translog has grown past that point.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use base::task::thread;
use tracing::{error, warn};

use crate::copy::ShardCopy;
use crate::engine;
use crate::error::EsError;
use crate::limits::FEED_BYTES;
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
        let feeder = Feeder { shared, copy, woken, fed: 0, refreshed_ms: 0 };
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
        self.copy.set_engine(Some(shard.clone()));
        self.copy.set_searchable(committed.min(self.copy.next_seq_no()));
        let mut indexer = engine::Indexer::new(shard, self.now_ms());
        while !self.copy.is_closed() {
            let moved = self.feed(&mut indexer)?;
            let dirty = self.fed > self.copy.searchable_to();
            if dirty && self.refresh_due() {
                indexer.refresh(self.fed, self.now_ms())?;
                self.copy.set_searchable(self.fed);
                self.refreshed_ms = self.now_ms();
            } else if !moved {
                self.idle(&mut indexer, dirty)?;
            }
        }
        // Only a deleted or replaced shard gets here; its index is not worth a sync.
        Ok(())
    }

    /// Nothing to feed: syncs when that is due, else waits.
    fn idle(&self, indexer: &mut engine::Indexer, dirty: bool) -> Result<(), EsError> {
        let pause = self.pause(dirty);
        let Some(due) = indexer.checkpoint_due_ms() else {
            self.wait(pause);
            return Ok(());
        };
        let now = self.now_ms();
        if now < due {
            self.wait(pause.min(Duration::from_millis(due - now)));
            return Ok(());
        }
        indexer.checkpoint(self.fed, now)?;
        self.copy.set_searchable(self.fed);
        indexer.rest()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.shared.env.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    fn interval_ms(&self) -> Option<u64> {
        self.meta().map_or(Some(1_000), |meta| meta.refresh_interval_ms())
    }

    fn refresh_due(&self) -> bool {
        let searchable = self.copy.searchable_to();
        let asked = self.copy.wanted() > searchable || searchable < self.copy.restored_to;
        // Whoever waits, waits for all of it: feed first.
        if asked {
            return self.fed >= self.copy.wanted().min(self.copy.next_seq_no());
        }
        // Memory of operations not searchable yet is bounded, whatever the interval.
        let heavy = self.copy.lag_bytes() > crate::limits::COPY_LAG_BYTES / 2;
        heavy
            || self
                .interval_ms()
                .is_some_and(|interval| self.now_ms() >= self.refreshed_ms + interval)
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
        // What was there at start is not known to look-ups yet.
        if frame.base_seq_no < self.copy.restored_to {
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
