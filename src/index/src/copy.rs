//! A shard as this node holds it: the translog, what was applied but is not searchable yet, and
//! the Tantivy index.
//!
//! The machine of the data group appends to it, the feeder moves it into Tantivy, the leader's
//! writer and readers look documents up. A look-up first asks `recent` (operations applied since
//! the searcher was opened), then the searcher; the feeder forgets recent operations only after
//! it has opened a searcher that has them. A copy that follows and falls far behind forgets them
//! before that, because its translog has them too: it then cannot look documents up, and hence
//! not lead, until its searcher is past that point.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use base::GroupId;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use segment::Stream;
use tokio::sync::watch;

use crate::budget::NodeLag;
use crate::command::{LoggedOp, MarkChange, OpsCommand, OpsReply};
use crate::limits::{COPY_LAG_BYTES, FAIR_LAG_BYTES, NODE_LAG_BYTES, RECENT_OP_BYTES};
use crate::model::ShardId;

/// How long a deleted document's version is remembered, in milliseconds (`index.gc_deletes`).
const KEEP_DELETES_MS: i64 = 60_000;

/// The newest state of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocState {
    /// Number of the operation that made it.
    pub seq_no: u64,
    /// Primary term of that operation.
    pub primary_term: u64,
    /// Its version.
    pub version: u64,
    /// Whether that operation removed it.
    pub deleted: bool,
    /// Its routing.
    pub routing: Option<String>,
    /// Its source; empty when deleted.
    pub source: Bytes,
}

#[derive(Default)]
pub(crate) struct Live {
    pub(crate) next_seq_no: u64,
    pub(crate) primary_term: u64,
    pub(crate) raft_term: u64,
    pub(crate) marks: BTreeMap<(String, u32), u64>,
    recent: HashMap<String, DocState>,
    /// Numbers of `recent`, with their documents. Old operations may come after newer ones.
    order: BTreeMap<u64, String>,
    recent_bytes: usize,
    /// Deleted documents that Tantivy no longer knows: state and time.
    tombstones: HashMap<String, (DocState, i64)>,
    last_time_ms: i64,
}

/// One shard on this node.
pub struct ShardCopy {
    /// Which shard.
    pub id: ShardId,
    /// Its data group.
    pub group: GroupId,
    /// Its translog.
    pub stream: Stream,
    /// What the searcher must have before this copy serves: numbers below it were in the
    /// translog when the node started.
    pub restored_to: u64,
    live: Mutex<Live>,
    appended: watch::Sender<u64>,
    searchable: watch::Sender<u64>,
    wanted: AtomicU64,
    closed: AtomicBool,
    engine: RwLock<Option<Arc<search::shard::Shard>>>,
    waker: Mutex<Option<SyncSender<()>>>,
    /// Look-ups miss operations below it that the searcher does not have.
    forgotten_to: AtomicU64,
    /// The latest term in which this node wrote as the shard's leader.
    led_term: AtomicU64,
    node_lag: Arc<NodeLag>,
}

impl ShardCopy {
    pub(crate) fn new(
        id: ShardId,
        group: GroupId,
        stream: Stream,
        live: Live,
        node_lag: Arc<NodeLag>,
    ) -> Self {
        let restored_to = live.next_seq_no;
        Self {
            id,
            group,
            stream,
            restored_to,
            appended: watch::Sender::new(live.next_seq_no),
            live: Mutex::new(live),
            searchable: watch::Sender::new(0),
            wanted: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            engine: RwLock::new(None),
            waker: Mutex::new(None),
            forgotten_to: AtomicU64::new(0),
            led_term: AtomicU64::new(0),
            node_lag,
        }
    }

    /// Changes what is known, and keeps count of the node's memory.
    fn change<T>(&self, act: impl FnOnce(&mut Live) -> T) -> T {
        let mut live = self.live.lock();
        let before = live.recent_bytes;
        let result = act(&mut live);
        self.node_lag.change(before, live.recent_bytes);
        result
    }

    /// Checks an applied command against the shard's state; `None` when it may be appended.
    pub(crate) fn refusal(&self, command: &OpsCommand, term: u64) -> Option<OpsReply> {
        let live = self.live.lock();
        if command.term != term || command.base_seq_no != live.next_seq_no {
            return Some(OpsReply::Stale);
        }
        let mark = command.mark.as_ref()?;
        let found = live.marks.get(&(mark.pipeline.clone(), mark.partition)).copied();
        (found != mark.expected).then_some(OpsReply::MarkMismatch { found })
    }

    /// The primary term of an operation applied in this Raft term: it grows when another leader
    /// writes first.
    pub(crate) fn enter_term(&self, raft_term: u64) -> u64 {
        let mut live = self.live.lock();
        if live.raft_term != raft_term {
            live.primary_term += 1;
            live.raft_term = raft_term;
        }
        live.primary_term
    }

    pub(crate) fn set_mark(&self, mark: &MarkChange) {
        let key = (mark.pipeline.clone(), mark.partition);
        self.live.lock().marks.insert(key, mark.new);
    }

    /// Takes note of operations that were appended to the translog.
    pub(crate) fn note(&self, ops: Vec<(u64, LoggedOp)>, primary_term: u64, time_ms: i64) {
        let next = self.change(|live| {
            live.last_time_ms = time_ms;
            for (seq_no, op) in ops {
                let (id, state) = state_of(seq_no, primary_term, op);
                live.remember(id, state);
                live.next_seq_no = seq_no + 1;
            }
            live.next_seq_no
        });
        self.forget_when_behind();
        self.appended.send_replace(next);
        self.wake();
    }

    /// A leader's writer waits for its searcher. Whoever follows cannot make anybody wait, so it
    /// forgets instead.
    fn forget_when_behind(&self) {
        let (bytes, led) = {
            let live = self.live.lock();
            (live.recent_bytes, live.raft_term == self.led_term.load(Ordering::Relaxed))
        };
        let node_full = self.node_lag.bytes() > 2 * NODE_LAG_BYTES && bytes > FAIR_LAG_BYTES;
        if bytes > 2 * COPY_LAG_BYTES || node_full && !led {
            self.change(|live| {
                live.forget_documents();
                self.forgotten_to.store(live.next_seq_no, Ordering::Release);
            });
        }
    }

    /// This node writes as the shard's leader in this term.
    pub(crate) fn set_led(&self, raft_term: u64) {
        self.led_term.store(raft_term, Ordering::Relaxed);
    }

    /// Whether new writes must wait for this copy's searcher.
    pub(crate) fn is_full(&self) -> bool {
        let bytes = self.lag_bytes();
        let node_full = self.node_lag.bytes() > NODE_LAG_BYTES;
        bytes > COPY_LAG_BYTES || node_full && bytes > FAIR_LAG_BYTES
    }

    /// Takes note of operations that look-ups do not know: they were in the translog already
    /// when the node started, or were forgotten. A newer one of the same document stays.
    pub(crate) fn note_old(&self, ops: Vec<(u64, LoggedOp)>, primary_term: u64) {
        self.change(|live| {
            for (seq_no, op) in ops {
                let (id, state) = state_of(seq_no, primary_term, op);
                if live.recent.get(&id).is_none_or(|known| known.seq_no < seq_no) {
                    live.remember(id, state);
                }
            }
        });
    }

    /// Operations below this number are unknown to look-ups until the searcher has them.
    pub(crate) fn unknown_below(&self) -> u64 {
        self.restored_to.max(self.forgotten_to.load(Ordering::Acquire))
    }

    /// Whether look-ups see every applied operation.
    pub(crate) fn knows_all(&self) -> bool {
        self.is_started() && self.searchable_to() >= self.unknown_below()
    }

    /// What the checkpoint stores.
    pub(crate) fn with_live<T>(&self, read: impl FnOnce(&Live) -> T) -> T {
        read(&self.live.lock())
    }

    /// The number that the next operation gets.
    pub fn next_seq_no(&self) -> u64 {
        *self.appended.borrow()
    }

    /// Operations below this number are in the searcher.
    pub fn searchable_to(&self) -> u64 {
        *self.searchable.borrow()
    }

    /// Bytes applied that are not searchable yet.
    pub fn lag_bytes(&self) -> usize {
        self.live.lock().recent_bytes
    }

    /// Follows [`Self::searchable_to`].
    pub fn watch_searchable(&self) -> watch::Receiver<u64> {
        self.searchable.subscribe()
    }

    /// Follows [`Self::next_seq_no`].
    pub fn watch_appended(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }

    /// Whether the searcher has everything that was in the translog at start.
    pub fn is_started(&self) -> bool {
        self.engine.read().is_some() && self.searchable_to() >= self.restored_to
    }

    /// Marks of a pipeline: partition and mark.
    pub fn marks(&self, pipeline: &str) -> BTreeMap<u32, u64> {
        let live = self.live.lock();
        let of_pipeline = live.marks.iter().filter(|((name, _), _)| name == pipeline);
        of_pipeline.map(|((_, partition), mark)| (*partition, *mark)).collect()
    }

    /// The newest state of a document among those the searcher does not have, tombstones
    /// included.
    pub fn recent(&self, id: &str) -> Option<DocState> {
        let live = self.live.lock();
        if let Some(state) = live.recent.get(id) {
            return Some(state.clone());
        }
        let (state, time_ms) = live.tombstones.get(id)?;
        (live.last_time_ms - time_ms < KEEP_DELETES_MS).then(|| state.clone())
    }

    /// The engine, once the feeder has opened it.
    pub fn engine(&self) -> Option<Arc<search::shard::Shard>> {
        self.engine.read().clone()
    }

    pub(crate) fn set_engine(&self, engine: Option<Arc<search::shard::Shard>>) {
        *self.engine.write() = engine;
    }

    /// The searcher has everything below `next` now. One that was opened anew may have less than
    /// the one before: look-ups no longer know what it had, as nobody kept that.
    pub(crate) fn set_searchable(&self, next: u64) {
        let before = self.searchable_to();
        if next < before {
            self.forgotten_to.fetch_max(before, Ordering::AcqRel);
        }
        self.change(|live| live.forget_below(next));
        self.searchable.send_replace(next);
    }

    /// Asks the feeder to make everything below `next` searchable soon.
    pub fn want_searchable(&self, next: u64) {
        if self.wanted.fetch_max(next, Ordering::AcqRel) < next {
            self.wake();
        }
    }

    pub(crate) fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::Acquire)
    }

    pub(crate) fn set_waker(&self, waker: SyncSender<()>) {
        *self.waker.lock() = Some(waker);
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.lock() {
            // A full channel means the feeder is about to look anyway.
            let _ = waker.try_send(());
        }
    }

    /// The shard is gone: the feeder ends. The translog stays open, for a checkpoint that speaks
    /// of it may be on its way to disk.
    pub(crate) fn retire(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake();
    }

    /// The shard is gone and no checkpoint needs its translog, or a snapshot replaces it.
    pub(crate) fn close(&self) {
        self.stream.close();
        self.retire();
    }

    /// Whether the copy was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

fn state_of(seq_no: u64, primary_term: u64, op: LoggedOp) -> (String, DocState) {
    let LoggedOp { delete, version, id, routing, source } = op;
    (id, DocState { seq_no, primary_term, version, deleted: delete, routing, source })
}

impl Drop for ShardCopy {
    fn drop(&mut self) {
        self.node_lag.change(self.live.get_mut().recent_bytes, 0);
    }
}

fn weight(id: &str, state: &DocState) -> usize {
    RECENT_OP_BYTES + 2 * id.len() + state.source.len()
}

impl Live {
    /// A shard at these numbers, with nothing recent.
    pub(crate) fn at(next_seq_no: u64, primary_term: u64, raft_term: u64) -> Self {
        Self { next_seq_no, primary_term, raft_term, ..Self::default() }
    }

    fn remember(&mut self, id: String, state: DocState) {
        self.recent_bytes += weight(&id, &state);
        self.order.insert(state.seq_no, id.clone());
        self.tombstones.remove(&id);
        if let Some(old) = self.recent.insert(id.clone(), state) {
            self.recent_bytes = self.recent_bytes.saturating_sub(weight(&id, &old));
        }
    }

    /// Drops documents; what was deleted stays, for Tantivy would not know its version.
    fn forget_documents(&mut self) {
        self.recent.retain(|_, state| state.deleted);
        let recent = &self.recent;
        self.order.retain(|seq_no, id| recent.get(id).is_some_and(|s| s.seq_no == *seq_no));
        self.recent_bytes = recent.iter().map(|(id, state)| weight(id, state)).sum();
        self.recent.shrink_to_fit();
    }

    fn forget_below(&mut self, next: u64) {
        while let Some(first) = self.order.first_entry()
            && *first.key() < next
        {
            let (seq_no, id) = first.remove_entry();
            if self.recent.get(&id).is_none_or(|state| state.seq_no != seq_no) {
                continue;
            }
            let Some(state) = self.recent.remove(&id) else { continue };
            self.recent_bytes = self.recent_bytes.saturating_sub(weight(&id, &state));
            if state.deleted {
                self.tombstones.insert(id, (state, self.last_time_ms));
            }
        }
        let oldest = self.last_time_ms - KEEP_DELETES_MS;
        self.tombstones.retain(|_, (_, time_ms)| *time_ms > oldest);
    }
}

#[cfg(test)]
mod tests {
    use base::Env;
    use base::env::sim_disk::SimDisk;
    use segment::{SegmentWriter, WriterOptions};

    use super::*;
    use crate::model::IndexUuid;
    use crate::translog::parse_header;

    fn copy(lag: &Arc<NodeLag>) -> ShardCopy {
        let env = Env { disk: Arc::new(SimDisk::new(1)), ..Env::real() };
        let writer = SegmentWriter::start(&env, WriterOptions::default());
        let stream = Stream::create(&writer, "/translog".into(), parse_header);
        let id = ShardId { index: IndexUuid([1; 16]), number: 0 };
        ShardCopy::new(id, GroupId::data(0), stream, Live::at(0, 1, 1), lag.clone())
    }

    fn put(id: &str, len: usize) -> LoggedOp {
        let source = vec![b' '; len].into();
        LoggedOp { delete: false, version: 1, id: id.to_owned(), routing: None, source }
    }

    #[test]
    fn a_copy_far_behind_forgets_documents_but_no_deletions() {
        let lag = Arc::new(NodeLag::default());
        let copy = copy(&lag);
        let piece = COPY_LAG_BYTES / 4;
        copy.note(vec![(0, LoggedOp { delete: true, ..put("gone", 0) })], 1, 1);
        for n in 1..=9u64 {
            copy.note(vec![(n, put(&n.to_string(), piece))], 1, 1);
            assert!(copy.lag_bytes() <= 2 * COPY_LAG_BYTES);
            assert_eq!(lag.bytes(), copy.lag_bytes(), "the node's count");
        }
        assert!(copy.recent("gone").is_some_and(|state| state.deleted));
        assert!(copy.recent("3").is_none() && copy.recent("9").is_some());
        assert_eq!(copy.unknown_below(), 9, "look-ups wait until the searcher has these");
        // The feeder reads them again, and the searcher gets them.
        copy.note_old(vec![(3, put("3", 10))], 1);
        assert!(copy.recent("3").is_some());
        copy.set_searchable(10);
        assert!(copy.recent("3").is_none() && copy.searchable_to() >= copy.unknown_below());
        assert!(copy.recent("gone").is_some(), "a tombstone");
        drop(copy);
        assert_eq!(lag.bytes(), 0);
    }

    #[test]
    fn what_a_searcher_loses_when_it_is_opened_anew_is_not_known() {
        let copy = copy(&Arc::new(NodeLag::default()));
        for n in 0..6u64 {
            copy.note(vec![(n, put(&n.to_string(), 10))], 1, 1);
        }
        copy.set_searchable(4);
        assert_eq!(copy.unknown_below(), 0);
        // Its last commit knew less.
        copy.set_searchable(1);
        assert!(copy.searchable_to() < copy.unknown_below(), "look-ups wait for the feeder");
        copy.note_old(vec![(2, put("2", 10))], 1);
        assert!(copy.recent("2").is_some() && copy.recent("5").is_some());
        copy.set_searchable(4);
        assert!(copy.searchable_to() >= copy.unknown_below());
    }

    #[test]
    fn a_leader_that_waits_for_its_searcher_forgets_nothing() {
        let lag = Arc::new(NodeLag::default());
        let copy = copy(&lag);
        copy.set_led(1);
        lag.change(0, 3 * NODE_LAG_BYTES);
        copy.note(vec![(0, put("a", 2 * FAIR_LAG_BYTES))], 1, 1);
        assert!(copy.is_full() && copy.recent("a").is_some());
        copy.set_led(0);
        copy.note(vec![(1, put("b", 10))], 1, 1);
        assert!(copy.recent("a").is_none(), "one that follows does");
    }
}
