//! The handle that the owners of groups hold.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::sys::AlignedBuf;
use base::{Env, GroupId};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use crate::format::{Lsn, Record, Salt, What};
use crate::limits::{BUFFER_BYTES, MAX_BODY_BYTES};
use crate::recover::{Tail, recover};
use crate::state::{Inner, State};
use crate::store::{Pace, Store};
use crate::writer::Current;
use crate::written::Written;
use crate::{Done, LogPos, Options, SlowFlush, WalEntry, WalError, WalStats, WalThread, io_error};

/// The write-ahead log of a node. Cloning shares it. No method blocks on the disk, except
/// [`Wal::read`] when it misses the cache.
#[derive(Clone)]
pub struct Wal {
    inner: Arc<Inner>,
}

impl Wal {
    /// Opens or creates a log: recovers, cuts a torn tail, fails with [`WalError::Damaged`]
    /// when synced bytes are gone. Nothing is written until the thread runs or is stepped.
    /// Blocking.
    pub fn open(env: &Env, options: Options) -> Result<(Self, WalThread), WalError> {
        options.check()?;
        let opened = Store::open(env, &options);
        let (mut store, found) = opened.map_err(io_error("open the write-ahead log"))?;
        let recovered = recover(&store, &found)?;
        for seq in recovered.void.iter().rev() {
            store.recycle(*seq).map_err(io_error("free an unused write-ahead log file"))?;
        }
        let mut state = State::default();
        let written = recovered.replay.into_state(&mut state);
        let first_free = recovered.void.first().copied().unwrap_or(1);
        state.taken = recovered.tail.map_or(first_free - 1, |tail| tail.salt.file);
        state.current = state.taken;
        let inner = Arc::new(Inner {
            state: Mutex::new(state),
            work: Condvar::new(),
            chores: Condvar::new(),
            work_async: Notify::new(),
            progress: watch::Sender::new(0),
            store: Mutex::new(store),
            clock: env.clock.clone(),
            cache_limit: options.tail_cache_bytes,
        });
        let thread = start(env, &options, inner.clone(), recovered.tail, written);
        let thread = thread.map_err(io_error("start the write-ahead log"))?;
        Ok((Self { inner }, thread))
    }

    /// The last saved vote.
    pub fn vote(&self, group: GroupId) -> Option<Bytes> {
        self.inner.state.lock().groups.get(&group)?.vote.clone()
    }

    /// The committed position; after a restart possibly an older one.
    pub fn committed(&self, group: GroupId) -> Option<LogPos> {
        self.inner.state.lock().groups.get(&group)?.committed
    }

    /// The last purged entry.
    pub fn purged(&self, group: GroupId) -> Option<LogPos> {
        self.inner.state.lock().groups.get(&group)?.purged
    }

    /// The last entry, or the last purged one when there is none.
    pub fn last(&self, group: GroupId) -> Option<LogPos> {
        self.inner.state.lock().groups.get(&group)?.last()
    }

    /// Index of the first entry.
    pub fn first_index(&self, group: GroupId) -> Option<u64> {
        self.inner.state.lock().groups.get(&group)?.first()
    }

    /// The groups that the log knows.
    pub fn groups(&self) -> Vec<GroupId> {
        self.inner.state.lock().groups.keys().copied().collect()
    }

    /// Appends entries, which are readable on return; `done` is called once they are durable,
    /// for each group in the order of its calls. Panics when the entries do not continue the
    /// log. Refused as a whole, through `done`, when a body exceeds [`MAX_BODY_BYTES`].
    pub fn append(&self, group: GroupId, entries: Vec<WalEntry>, done: Done) {
        if entries.iter().any(|entry| entry.body.len() > MAX_BODY_BYTES) {
            let text = format!("an entry is larger than {MAX_BODY_BYTES} bytes");
            return done(Err(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let mut state = self.inner.state.lock();
        if let Some(refusal) = state.refusal() {
            drop(state);
            return done(Err(refusal));
        }
        let mut done = Some(done);
        let count = entries.len();
        for (number, WalEntry { pos, body }) in entries.into_iter().enumerate() {
            let serial = state.next_serial;
            state.log(group).push(pos, body.clone(), serial);
            let record = Record { group, what: What::Entry(pos, body) };
            let done = if number + 1 == count { done.take() } else { None };
            state.enqueue(Some(record), done);
        }
        if done.is_some() {
            // No entries: called when everything before is durable.
            state.enqueue(None, done);
        }
        drop(state);
        self.inner.wake_writer();
    }

    /// Saves a vote in the same queue; [`Wal::vote`] gives it from now on.
    pub fn save_vote(&self, group: GroupId, vote: Bytes, done: Done) {
        if vote.len() > MAX_BODY_BYTES {
            let text = format!("a vote is larger than {MAX_BODY_BYTES} bytes");
            return done(Err(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let mut state = self.inner.state.lock();
        if let Some(refusal) = state.refusal() {
            drop(state);
            return done(Err(refusal));
        }
        state.log(group).vote = Some(vote.clone());
        state.enqueue(Some(Record { group, what: What::Vote(vote) }), Some(done));
        drop(state);
        self.inner.wake_writer();
    }

    /// Removes the entries above `index`; `None`: all entries. Takes effect at once in memory,
    /// on disk before any later append.
    pub fn truncate_after(&self, group: GroupId, index: Option<u64>) {
        self.change(group, What::TruncateAfter(index), |log| {
            let next = log.first().and(log.next()).unwrap_or(0);
            let cuts = index.map_or(0, |index| index.saturating_add(1)) < next;
            log.truncate_after(index);
            cuts
        });
    }

    /// Removes the entries up to and including `upto`, which may lie above the last entry.
    pub fn purge(&self, group: GroupId, upto: LogPos) {
        self.change(group, What::Purge(upto), |log| {
            let rises = log.purged.is_none_or(|purged| purged.index < upto.index);
            log.purge(upto);
            rises
        });
    }

    fn change(
        &self,
        group: GroupId,
        what: What,
        apply: impl FnOnce(&mut crate::index::GroupLog) -> bool,
    ) {
        let mut state = self.inner.state.lock();
        // A log that failed or stops is never written again; its owner hears of it elsewhere.
        if state.refusal().is_none() && apply(state.log(group)) {
            state.enqueue(Some(Record { group, what }), None);
            drop(state);
            self.inner.wake_writer();
        }
    }

    /// Notes a committed position. It is written along with a later flush and causes none.
    pub fn set_committed(&self, group: GroupId, pos: LogPos) {
        self.inner.state.lock().set_committed(group, pos);
    }

    /// Notes up to which index the applied state is durable elsewhere. Kept in memory only: to
    /// be said again after each start, or the group holds all its files. Files go when their
    /// entries are both purged and checkpointed.
    pub fn set_checkpointed(&self, group: GroupId, index: u64) {
        let mut state = self.inner.state.lock();
        let log = state.log(group);
        log.checkpointed = log.checkpointed.max(Some(index));
        state.retire();
        let retired = !state.retired.is_empty();
        drop(state);
        if retired {
            self.inner.chores.notify_one();
        }
    }

    /// Reads consecutive entries from `from` on, below `to_exclusive`: at least one when
    /// `from` is in the log, no further once `max_bytes` of bodies would be exceeded. Empty
    /// when `from` is not in the log. Blocking when it misses the cache.
    pub fn read(
        &self,
        group: GroupId,
        from: u64,
        to_exclusive: u64,
        max_bytes: usize,
    ) -> io::Result<Vec<WalEntry>> {
        let plan = {
            let mut state = self.inner.state.lock();
            if let Some(reason) = &state.failed {
                return Err(io::Error::other(reason.to_string()));
            }
            state.plan(group, from, to_exclusive, max_bytes)
        };
        match plan.read(group) {
            // The file may have been recycled under the read.
            Err(_) if self.first_index(group).is_none_or(|first| first > from) => Ok(Vec::new()),
            entries => entries,
        }
    }

    /// Position of an entry, or of the last purged one.
    pub fn pos_at(&self, group: GroupId, index: u64) -> Option<LogPos> {
        self.inner.state.lock().groups.get(&group)?.pos_at(index)
    }

    /// The first entry of `from..=to_inclusive`, the first of each term in it, and the last.
    pub fn key_positions(&self, group: GroupId, from: u64, to_inclusive: u64) -> Vec<LogPos> {
        let state = self.inner.state.lock();
        let log = state.groups.get(&group);
        log.map(|log| log.key_positions(from, to_inclusive)).unwrap_or_default()
    }

    /// The highest index that is synced, 0 when there is none; [`Wal::is_durable`] tells an
    /// empty log from a synced entry 0.
    pub fn durable_index(&self, group: GroupId) -> u64 {
        let state = self.inner.state.lock();
        state.groups.get(&group).map_or(0, |log| log.durable_next.saturating_sub(1))
    }

    /// Whether all entries up to `index` are synced.
    pub fn is_durable(&self, group: GroupId, index: u64) -> bool {
        let state = self.inner.state.lock();
        state.groups.get(&group).is_some_and(|log| log.durable_next > index)
    }

    /// Waits until all entries up to `index` are synced, or the log fails. Cancel-safe.
    pub async fn wait_durable(&self, group: GroupId, index: u64) -> io::Result<()> {
        self.wait_until(|state| {
            state.groups.get(&group).is_some_and(|log| log.durable_next > index)
        })
        .await
    }

    /// Waits until fewer than `bytes` wait for a flush, or the log fails. Cancel-safe.
    pub async fn wait_queue_below(&self, bytes: usize) -> io::Result<()> {
        self.wait_until(|state| state.queue_bytes < bytes).await
    }

    async fn wait_until(&self, reached: impl Fn(&State) -> bool) -> io::Result<()> {
        let mut progress = self.inner.progress.subscribe();
        loop {
            {
                let state = self.inner.state.lock();
                if let Some(reason) = &state.failed {
                    return Err(io::Error::other(reason.to_string()));
                }
                if reached(&state) {
                    return Ok(());
                }
                if state.ended {
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the log was stopped"));
                }
            }
            progress.changed().await.map_err(io::Error::other)?;
        }
    }

    /// Bytes in the files in use.
    pub fn live_bytes(&self) -> u64 {
        self.inner.state.lock().live_bytes()
    }

    /// Bytes of the bodies of a group's entries.
    pub fn live_bytes_of(&self, group: GroupId) -> u64 {
        self.inner.state.lock().groups.get(&group).map_or(0, |log| log.bytes)
    }

    /// The groups that keep the oldest file from being recycled, each with the index that must
    /// be purged and checkpointed. Empty when nothing is kept.
    pub fn oldest_needed(&self) -> Vec<(GroupId, u64)> {
        self.inner.state.lock().oldest_needed()
    }

    /// The groups with entries that are not checkpointed in files before the newest ones, which
    /// hold at most `newest_bytes`.
    pub fn late_checkpoints(&self, newest_bytes: u64) -> Vec<GroupId> {
        self.inner.state.lock().late_checkpoints(newest_bytes)
    }

    /// Figures for metrics.
    pub fn stats(&self) -> WalStats {
        self.inner.state.lock().stats()
    }

    /// The latest flushes that were slow, oldest first.
    pub fn slow_flushes(&self) -> Vec<SlowFlush> {
        self.inner.state.lock().slow.iter().copied().collect()
    }

    /// Why the log failed, if it did. It then refuses everything, and the process must end:
    /// what a failed sync left on the disk is unknown.
    pub fn failed(&self) -> Option<Arc<str>> {
        self.inner.state.lock().failed.clone()
    }

    /// Calls `hook` with the reason when the log fails, on the thread that found out; at once
    /// when it has failed already.
    pub fn on_failure(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        let mut state = self.inner.state.lock();
        match state.failed.clone() {
            Some(reason) => {
                drop(state);
                hook(&reason);
            }
            None => state.hook = Some(Arc::new(Box::new(hook))),
        }
    }

    /// Refuses new requests; the thread flushes what is queued and ends.
    pub fn stop(&self) {
        self.inner.state.lock().stopping = true;
        self.inner.work.notify_all();
        self.inner.work_async.notify_one();
    }
}

/// Makes the writer, on the recovered tail or in a first file.
fn start(
    env: &Env,
    options: &Options,
    inner: Arc<Inner>,
    tail: Option<Tail>,
    written: Written,
) -> io::Result<WalThread> {
    let mode = inner.store.lock().mode();
    let (prepared, current) = match tail {
        Some(Tail { salt, offset }) => {
            let file = inner.store.lock().writer(salt.file)?;
            // A killed process may have left the end in the page cache only.
            file.sync()?;
            (None, Current { file, salt, offset, fresh: false })
        }
        None => {
            let seq = inner.state.lock().taken + 1;
            let prepared = inner.store.lock().prepare(seq, Pace::Full)?;
            inner.state.lock().taken = seq;
            let (salt, file) = (Salt { file: seq, id: 0 }, prepared.writer.clone());
            (Some(prepared), Current { file, salt, offset: 0, fresh: true })
        }
    };
    let mut thread = WalThread {
        random: env.random.clone(),
        mode,
        sync: options.sync,
        file_bytes: options.file_bytes,
        synced: Lsn { file: current.salt.file, offset: current.offset },
        current,
        written,
        buffer: AlignedBuf::zeroed(BUFFER_BYTES),
        last_sync: Duration::ZERO,
        effects: Vec::new(),
        inner,
    };
    if let Some(prepared) = prepared {
        thread.begin(prepared)?;
    }
    thread.inner.state.lock().retire();
    Ok(thread)
}
