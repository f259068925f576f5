//! What the handles, the writer and the upkeep of a log share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::env::Clock;
use base::{DiskFile, GroupId};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use crate::format::{Record, Salt, What};
use crate::index::{GroupLog, Slot};
use crate::limits::{MAX_FLUSH_BYTES, MAX_FLUSH_RECORDS, SLOW_FLUSH_US, SLOW_FLUSHES_KEPT};
use crate::store::{Prepared, Store};
use crate::{Done, LogPos, SlowFlush, WalStats};

/// Called once with the reason when the log fails.
pub(crate) type Hook = Box<dyn Fn(&str) + Send + Sync>;

/// A file in use.
pub(crate) struct LiveFile {
    pub(crate) salt: Salt,
    pub(crate) reader: Arc<dyn DiskFile>,
    /// Where its flushes end.
    pub(crate) end: u32,
    /// The highest index of each group in it, truncated entries aside.
    pub(crate) highest: BTreeMap<GroupId, u64>,
}

/// A request in the queue. Without a record it only waits for its turn.
pub(crate) struct Queued {
    pub(crate) serial: u64,
    pub(crate) record: Option<Record>,
    pub(crate) done: Option<Done>,
}

impl Queued {
    fn bytes(&self) -> usize {
        self.record.as_ref().map_or(0, Record::encoded_len)
    }
}

/// What one flush takes.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) items: Vec<Queued>,
    /// Committed positions that may be written at its end.
    pub(crate) committed: Vec<Record>,
}

impl Batch {
    pub(crate) fn has_records(&self) -> bool {
        self.items.iter().any(|item| item.record.is_some())
    }
}

/// What a written record changes for the files, in order; counts once it is synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect {
    Entry { file: u32, group: GroupId, index: u64 },
    Truncate { group: GroupId, index: Option<u64> },
    Purge { group: GroupId, index: u64 },
}

/// Where a flush put the entries of its batch: number of the item and place.
pub(crate) type Places = Vec<(usize, Slot)>;

/// The shared state; behind one lock that is never held during I/O or callbacks.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) groups: BTreeMap<GroupId, GroupLog>,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) queue_bytes: usize,
    pub(crate) next_serial: u64,
    pub(crate) files: BTreeMap<u32, LiveFile>,
    /// The file that is written; begun with a synced state of all groups.
    pub(crate) current: u32,
    /// The highest number given to a file that was taken into use.
    pub(crate) taken: u32,
    pub(crate) prepared: Option<Prepared>,
    /// Files that nothing needs any more, oldest first.
    pub(crate) retired: VecDeque<u32>,
    pub(crate) stats: WalStats,
    /// The latest slow flushes, oldest first.
    pub(crate) slow: VecDeque<SlowFlush>,
    pub(crate) failed: Option<Arc<str>>,
    pub(crate) hook: Option<Arc<Hook>>,
    pub(crate) stopping: bool,
    pub(crate) ended: bool,
    purged: BTreeMap<GroupId, u64>,
}

impl State {
    /// The group's log.
    pub(crate) fn log(&mut self, group: GroupId) -> &mut GroupLog {
        self.groups.entry(group).or_default()
    }

    /// Queues a request.
    pub(crate) fn enqueue(&mut self, record: Option<Record>, done: Option<Done>) {
        let item = Queued { serial: self.next_serial, record, done };
        self.next_serial += 1;
        self.queue_bytes += item.bytes();
        self.queue.push_back(item);
    }

    /// Why a request cannot be taken.
    pub(crate) fn refusal(&self) -> Option<io::Error> {
        match &self.failed {
            Some(reason) => Some(io::Error::other(reason.to_string())),
            None if self.stopping => {
                Some(io::Error::new(io::ErrorKind::BrokenPipe, "the log was stopped"))
            }
            None => None,
        }
    }

    /// Takes from the queue what the next flush writes.
    pub(crate) fn take_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(item) = self.queue.front() {
            let more = item.bytes();
            let full = bytes + more > MAX_FLUSH_BYTES || batch.items.len() >= MAX_FLUSH_RECORDS;
            if full && !batch.items.is_empty() {
                break;
            }
            bytes += more;
            batch.items.extend(self.queue.pop_front());
        }
        self.queue_bytes -= bytes;
        if batch.has_records() {
            let end = batch.items.last().map_or(0, |item| item.serial + 1);
            batch.committed = self.take_committed(end);
        }
        batch
    }

    /// Committed positions that were set before a request with a serial from `end` on.
    fn take_committed(&mut self, end: u64) -> Vec<Record> {
        let mut records = Vec::new();
        for (group, log) in &mut self.groups {
            if log.committed_dirty
                && log.committed_serial <= end
                && let Some(pos) = log.committed
            {
                log.committed_dirty = false;
                records.push(Record { group: *group, what: What::Committed(pos) });
            }
        }
        records
    }

    /// Notes that the items of a batch were written.
    pub(crate) fn written(&mut self, batch: &Batch, places: &Places) {
        for (number, place) in places {
            if let Some(item) = batch.items.get(*number)
                && let Some(Record { group, what: What::Entry(pos, _) }) = &item.record
            {
                let (serial, group) = (item.serial, *group);
                self.log(group).written(pos.index, serial, *place);
            }
        }
        for item in &batch.items {
            if let Some(Record { group, what: What::Purge(pos) }) = &item.record {
                let log = self.log(*group);
                log.written_next = log.written_next.max(pos.index + 1);
            }
        }
    }

    /// Notes that everything written so far is durable.
    pub(crate) fn synced(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            self.settle(effect);
        }
        for log in self.groups.values_mut() {
            log.durable_next = log.written_next;
        }
        self.retire();
    }

    pub(crate) fn settle(&mut self, effect: Effect) {
        match effect {
            Effect::Entry { file, group, index } => {
                if let Some(file) = self.files.get_mut(&file) {
                    file.highest.insert(group, index);
                }
            }
            Effect::Truncate { group, index } => {
                for file in self.files.values_mut() {
                    match (file.highest.get_mut(&group), index) {
                        (Some(highest), Some(index)) => *highest = index.min(*highest),
                        (Some(_), None) => drop(file.highest.remove(&group)),
                        (None, _) => {}
                    }
                }
            }
            Effect::Purge { group, index } => {
                let purged = self.purged.entry(group).or_default();
                *purged = index.max(*purged);
            }
        }
    }

    /// Moves the files that nothing needs, oldest first, from use to `retired`.
    pub(crate) fn retire(&mut self) {
        while let Some((&seq, file)) = self.files.first_key_value() {
            let needed = file.highest.iter().any(|(group, index)| self.needs(*group, *index));
            if seq >= self.current || needed {
                return;
            }
            self.files.remove(&seq);
            self.retired.push_back(seq);
        }
    }

    /// Whether a group needs its entries up to this index on disk.
    fn needs(&self, group: GroupId, index: u64) -> bool {
        let purged = self.purged.get(&group).copied();
        let checkpointed = self.groups.get(&group).and_then(|log| log.checkpointed);
        purged.is_none_or(|p| p < index) || checkpointed.is_none_or(|c| c < index)
    }

    /// Which groups keep the oldest file, and up to which index; empty when only one is in use.
    pub(crate) fn oldest_needed(&self) -> Vec<(GroupId, u64)> {
        let oldest = self.files.first_key_value().filter(|(seq, _)| **seq < self.current);
        let highest = oldest.iter().flat_map(|(_, file)| &file.highest);
        highest.map(|(g, i)| (*g, *i)).filter(|(g, i)| self.needs(*g, *i)).collect()
    }

    /// Which groups have entries that are not checkpointed in files before the newest ones, which
    /// hold at most so many bytes.
    pub(crate) fn late_checkpoints(&self, newest_bytes: u64) -> Vec<GroupId> {
        let mut newest = 0;
        let is_old = |file: &&LiveFile| {
            newest += u64::from(file.end);
            newest > newest_bytes
        };
        let late = |group: &GroupId, index: u64| {
            let checkpointed = self.groups.get(group).and_then(|log| log.checkpointed);
            checkpointed.is_none_or(|c| c < index)
        };
        let old = self.files.values().rev().filter(is_old).flat_map(|file| &file.highest);
        let groups: BTreeSet<GroupId> =
            old.filter(|(group, index)| late(group, **index)).map(|(group, _)| *group).collect();
        groups.into_iter().collect()
    }

    /// Drops the oldest cached bodies until at most `limit` bytes are left, or only unwritten.
    pub(crate) fn evict(&mut self, limit: usize) {
        let mut cached: usize = self.groups.values().map(|log| log.cache_bytes).sum();
        while cached > limit {
            let logs = self.groups.values_mut();
            let oldest = logs.filter_map(|log| Some((log.oldest_cached()?, log)));
            let Some((_, log)) = oldest.min_by_key(|(age, _)| *age) else { return };
            let before = log.cache_bytes;
            log.evict();
            cached -= before - log.cache_bytes;
        }
    }

    /// Counts a flush.
    pub(crate) fn count_flush(
        &mut self,
        (records, bytes): (usize, usize),
        took: Duration,
        ended_ms: i64,
    ) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let stats = &mut self.stats;
        stats.flushes += 1;
        stats.records += records as u64;
        stats.bytes += bytes as u64;
        stats.last_flush_us = us;
        stats.max_flush_us = stats.max_flush_us.max(us);
        if us > SLOW_FLUSH_US {
            stats.slow_flushes += 1;
            if self.slow.len() == SLOW_FLUSHES_KEPT {
                self.slow.pop_front();
            }
            self.slow.push_back(SlowFlush { ended_ms, took_us: us });
        }
    }

    /// The figures now.
    pub(crate) fn stats(&self) -> WalStats {
        WalStats {
            queue_bytes: self.queue_bytes,
            queue_records: self.queue.len(),
            files: self.files.len(),
            live_bytes: self.live_bytes(),
            cache_bytes: self.groups.values().map(|log| log.cache_bytes).sum(),
            failed: self.failed.is_some(),
            ..self.stats
        }
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.files.values().map(|file| u64::from(file.end)).sum()
    }

    /// Sets the committed position; it may be written after what is queued now.
    pub(crate) fn set_committed(&mut self, group: GroupId, pos: LogPos) {
        let serial = self.next_serial;
        let log = self.log(group);
        if log.committed != Some(pos) {
            log.committed = Some(pos);
            log.committed_serial = serial;
            log.committed_dirty = true;
        }
    }
}

/// A log: shared state, signals, files.
pub(crate) struct Inner {
    pub(crate) state: Mutex<State>,
    /// Wakes the writer thread.
    pub(crate) work: Condvar,
    /// Wakes the upkeep thread.
    pub(crate) chores: Condvar,
    /// Wakes the writer where it is driven by a task.
    pub(crate) work_async: Notify,
    /// Changes with every flush and with a failure.
    pub(crate) progress: watch::Sender<u64>,
    /// Locked before `state` where both are.
    pub(crate) store: Mutex<Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cache_limit: usize,
}

impl Inner {
    /// Wakes who writes.
    pub(crate) fn wake_writer(&self) {
        self.work.notify_one();
        self.work_async.notify_one();
    }

    /// Tells waiting tasks to look again.
    pub(crate) fn report_progress(&self) {
        self.progress.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Takes the log out of service for good: answers everything that waits with an error.
    pub(crate) fn fail(&self, error: &io::Error, batch: Batch) {
        let (queue, reason, hook) = {
            let mut state = self.state.lock();
            let reason: Arc<str> = format!("the write-ahead log failed: {error}").into();
            let first = state.failed.is_none();
            let reason = state.failed.get_or_insert(reason).clone();
            state.queue_bytes = 0;
            let hook = if first { state.hook.clone() } else { None };
            (std::mem::take(&mut state.queue), reason, hook)
        };
        tracing::error!("{reason}");
        for item in batch.items.into_iter().chain(queue) {
            if let Some(done) = item.done {
                done(Err(io::Error::other(reason.to_string())));
            }
        }
        if let Some(hook) = hook {
            hook(&reason);
        }
        self.report_progress();
        self.work.notify_all();
        self.work_async.notify_one();
        self.chores.notify_all();
    }
}
