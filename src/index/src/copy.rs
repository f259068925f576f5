//! A shard as this node holds it: the translog, what was applied but is not searchable yet, and
//! the Tantivy index.
//!
//! The machine of the data group appends to it, the feeder moves it into Tantivy, the leader's
//! writer and readers look documents up. A look-up first asks `recent` (operations applied since
//! the searcher was opened), then the searcher; the feeder forgets recent operations only after
//! it has opened a searcher that has them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use base::GroupId;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use segment::Stream;
use tokio::sync::watch;

use crate::command::{LoggedOp, MarkChange, OpsCommand, OpsReply};
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
    order: VecDeque<(u64, String)>,
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
}

impl ShardCopy {
    pub(crate) fn new(id: ShardId, group: GroupId, stream: Stream, live: Live) -> Self {
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
        }
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
        let mut live = self.live.lock();
        live.last_time_ms = time_ms;
        for (seq_no, op) in ops {
            let (id, state) = state_of(seq_no, primary_term, op);
            live.remember(id, state);
            live.next_seq_no = seq_no + 1;
        }
        let next = live.next_seq_no;
        drop(live);
        self.appended.send_replace(next);
        self.wake();
    }

    /// Takes note of operations that were in the translog already when the node started, unless
    /// a newer one of the same document is known.
    pub(crate) fn note_old(&self, ops: Vec<(u64, LoggedOp)>, primary_term: u64) {
        let mut live = self.live.lock();
        for (seq_no, op) in ops {
            let (id, state) = state_of(seq_no, primary_term, op);
            if live.recent.get(&id).is_none_or(|known| known.seq_no < seq_no) {
                live.remember(id, state);
            }
        }
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

    /// The searcher has everything below `next` now.
    pub(crate) fn set_searchable(&self, next: u64) {
        self.live.lock().forget_below(next);
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

    /// The shard is gone, or a snapshot replaces it: the feeder ends.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.stream.close();
        self.wake();
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

impl Live {
    /// A shard at these numbers, with nothing recent.
    pub(crate) fn at(next_seq_no: u64, primary_term: u64, raft_term: u64) -> Self {
        Self { next_seq_no, primary_term, raft_term, ..Self::default() }
    }

    fn remember(&mut self, id: String, state: DocState) {
        self.recent_bytes += state.source.len() + id.len();
        self.order.push_back((state.seq_no, id.clone()));
        self.tombstones.remove(&id);
        if let Some(old) = self.recent.insert(id.clone(), state) {
            self.recent_bytes = self.recent_bytes.saturating_sub(old.source.len() + id.len());
        }
    }

    fn forget_below(&mut self, next: u64) {
        while self.order.front().is_some_and(|(seq_no, _)| *seq_no < next) {
            let Some((seq_no, id)) = self.order.pop_front() else { break };
            if self.recent.get(&id).is_none_or(|state| state.seq_no != seq_no) {
                continue;
            }
            let Some(state) = self.recent.remove(&id) else { continue };
            self.recent_bytes = self.recent_bytes.saturating_sub(state.source.len() + id.len());
            if state.deleted {
                self.tombstones.insert(id, (state, self.last_time_ms));
            }
        }
        let oldest = self.last_time_ms - KEEP_DELETES_MS;
        self.tombstones.retain(|_, (_, time_ms)| *time_ms > oldest);
    }
}
