//! The one who writes: takes batches from the queue, writes and syncs them, calls back.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::broken::{self, Broken};
use base::sys::AlignedBuf;
use base::{DiskFile, GroupId, Random};
use parking_lot::MutexGuard;

use crate::SyncMode;
use crate::format::{BLOCK, FlushHeader, FlushKind, HEADER_BYTES, Lsn, Record, Salt, What};
use crate::index::Slot;
use crate::limits::{BUFFER_BYTES, MAX_FLUSH_BYTES};
use crate::state::{Batch, Effect, Inner, LiveFile, Places, State};
use crate::store::{Prepared, WriteMode};
use crate::written::Written;

/// The file that is written.
pub(crate) struct Current {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) salt: Salt,
    /// Where the next flush goes.
    pub(crate) offset: u32,
    /// Whether it holds the state of the groups only.
    pub(crate) fresh: bool,
}

/// Tells who waits that the batch is durable.
fn call_back(batch: &mut Batch) {
    for item in &mut batch.items {
        if let Some(done) = item.done.take() {
            done(Ok(()));
        }
    }
}

/// Writes the log. Production gives [`WalThread::run`] a thread of its own; simulations and
/// tests call [`WalThread::step`], or run [`WalThread::drive`] as a task.
pub struct WalThread {
    pub(crate) inner: Arc<Inner>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) mode: WriteMode,
    pub(crate) sync: SyncMode,
    pub(crate) file_bytes: u64,
    pub(crate) current: Current,
    pub(crate) written: Written,
    pub(crate) buffer: AlignedBuf,
    /// Everything before this place is durable.
    pub(crate) synced: Lsn,
    pub(crate) last_sync: Duration,
    /// What the records written since the last sync change.
    pub(crate) effects: Vec<Effect>,
}

/// Why the writer woke up.
enum Wake {
    Work,
    SyncDue,
    Stop,
    Failed,
}

impl WalThread {
    /// Writes until [`crate::Wal::stop`], then flushes what is queued and returns; returns at
    /// once when the log fails. Blocking; starts a second thread for the upkeep of files.
    pub fn run(mut self) {
        let inner = self.inner.clone();
        let upkeep = base::task::thread("wal-upkeep", move || inner.upkeep_loop());
        loop {
            match self.wait() {
                Wake::Work => drop(self.flush()),
                Wake::SyncDue => self.sync_if_due(),
                Wake::Stop => break self.close(),
                Wake::Failed => break,
            }
        }
        self.end();
        if upkeep.join().is_err() {
            tracing::error!("the upkeep of the write-ahead log panicked");
        }
    }

    /// Flushes everything queued, callbacks included, and does the upkeep of files. Returns
    /// the number of flushes.
    pub fn step(&mut self) -> usize {
        let mut flushes = 0;
        while self.flush() {
            flushes += 1;
        }
        self.sync_if_due();
        if self.inner.state.lock().failed.is_none() {
            self.inner.upkeep_now();
        }
        flushes
    }

    /// As [`WalThread::run`], as a task of a simulation: blocks the runtime while it writes,
    /// and takes at least `flush_time` of tokio's time for a step.
    pub async fn drive(mut self, flush_time: Duration) {
        loop {
            let due = self.sync_due_in().unwrap_or(Duration::from_secs(3600));
            tokio::select! {
                () = self.inner.work_async.notified() => {}
                () = tokio::time::sleep(due) => {}
            }
            tokio::time::sleep(flush_time).await;
            self.step();
            let (stopping, failed) = {
                let state = self.inner.state.lock();
                (state.stopping, state.failed.is_some())
            };
            if stopping && !failed {
                self.close();
            }
            if stopping || failed {
                return self.end();
            }
        }
    }

    fn end(&self) {
        self.inner.state.lock().ended = true;
        self.inner.chores.notify_all();
        self.inner.report_progress();
    }

    fn wait(&self) -> Wake {
        let mut state = self.inner.state.lock();
        loop {
            if state.failed.is_some() {
                return Wake::Failed;
            }
            if !state.queue.is_empty() {
                return Wake::Work;
            }
            if state.stopping {
                return Wake::Stop;
            }
            match self.sync_due_in() {
                Some(Duration::ZERO) => return Wake::SyncDue,
                Some(due) => drop(self.inner.work.wait_for(&mut state, due)),
                None => self.inner.work.wait(&mut state),
            }
        }
    }

    fn here(&self) -> Lsn {
        Lsn { file: self.current.salt.file, offset: self.current.offset }
    }

    fn sync_due_in(&self) -> Option<Duration> {
        match self.sync {
            SyncMode::Interval(every) if self.synced < self.here() => {
                Some((self.last_sync + every).saturating_sub(self.inner.clock.monotonic()))
            }
            SyncMode::Interval(_) | SyncMode::EveryFlush => None,
        }
    }

    fn sync_if_due(&mut self) {
        if self.sync_due_in() == Some(Duration::ZERO)
            && let Err(e) = self.sync_now()
        {
            self.inner.fail(&e, Batch::default());
        }
    }

    /// Makes everything written durable.
    fn sync_now(&mut self) -> io::Result<()> {
        if self.synced < self.here() {
            self.current.file.sync()?;
            let inner = self.inner.clone();
            self.note_synced(inner.state.lock());
            inner.report_progress();
        }
        Ok(())
    }

    fn note_synced(&mut self, mut state: MutexGuard<'_, State>) {
        state.synced(&mut self.effects);
        let retired = !state.retired.is_empty();
        drop(state);
        self.synced = self.here();
        self.last_sync = self.inner.clock.monotonic();
        if retired {
            self.inner.chores.notify_one();
        }
    }

    /// Writes one batch and calls back. False when nothing was queued.
    fn flush(&mut self) -> bool {
        let mut batch = self.inner.state.lock().take_batch();
        if batch.items.is_empty() {
            return false;
        }
        if broken::is(Broken::AckBeforeWrite) {
            call_back(&mut batch);
            std::thread::sleep(Duration::from_millis(50));
        }
        if batch.has_records()
            && let Err(e) = self.write(&batch)
        {
            self.inner.fail(&e, batch);
            return true;
        }
        call_back(&mut batch);
        self.inner.report_progress();
        true
    }

    /// Writes a batch, with sync where flushes are synced, and publishes where its entries lie.
    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        let start = self.inner.clock.monotonic();
        let records = batch.items.iter().filter_map(|item| item.record.as_ref());
        let records: Vec<&Record> = records.chain(&batch.committed).collect();
        let length = flush_length(records.iter().copied());
        let padded = length.next_multiple_of(BLOCK);
        // A flush that no file takes goes behind the state of a fresh one, over its end.
        let fits = u64::from(self.current.offset) + padded as u64 <= self.file_bytes;
        if !fits && !self.current.fresh {
            self.roll()?;
        }
        let offset = self.current.offset;
        let offsets = self.put(FlushKind::Records, &records, length)?;
        // A vote that is forgotten could be given twice in one term, to two candidates.
        let votes = records.iter().any(|record| matches!(record.what, What::Vote(_)));
        let synced = votes || self.sync == SyncMode::EveryFlush;
        if synced && self.sync != SyncMode::EveryFlush {
            self.current.file.sync()?;
        }
        self.current.fresh = false;
        for record in &records {
            self.written.apply(record);
            self.effects.extend(effect(record, self.current.salt.file));
        }
        let places = self.places(batch, &offsets, offset);
        let took = self.inner.clock.monotonic().saturating_sub(start);
        let inner = self.inner.clone();
        let mut state = inner.state.lock();
        state.written(batch, &places);
        state.count_flush((records.len(), padded), took, inner.clock.unix_ms());
        if let Some(file) = state.files.get_mut(&self.current.salt.file) {
            file.end = self.current.offset;
        }
        state.evict(inner.cache_limit);
        if synced {
            self.note_synced(state);
        }
        Ok(())
    }

    fn places(&self, batch: &Batch, offsets: &[usize], flush: u32) -> Places {
        let with_record = batch.items.iter().enumerate().filter(|(_, i)| i.record.is_some());
        let mut places = Places::new();
        for ((number, item), offset) in with_record.zip(offsets) {
            if let Some(Record { what: What::Entry(_, body), .. }) = &item.record {
                let (offset, len) = (flush + *offset as u32, body.len() as u32);
                places.push((number, Slot { file: self.current.salt.file, offset, len }));
            }
        }
        places
    }

    /// Encodes and writes one flush at the end of the current file; synced on return where
    /// flushes are synced. Returns where in the flush each record begins.
    fn put(
        &mut self,
        kind: FlushKind,
        records: &[&Record],
        length: usize,
    ) -> io::Result<Vec<usize>> {
        let padded = length.next_multiple_of(BLOCK);
        self.fit_buffer(padded);
        let salt = self.current.salt;
        let buffer = self.buffer.get_mut(..padded).ok_or_else(too_large)?;
        let header = FlushHeader {
            kind,
            salt,
            offset: self.current.offset,
            length: u32::try_from(length).map_err(|_| too_large())?,
            records: u32::try_from(records.len()).map_err(|_| too_large())?,
            synced: self.synced,
        };
        let offsets = encode(&header, records, buffer);
        self.current.file.write_all_at(buffer, u64::from(self.current.offset))?;
        if self.mode == WriteMode::Buffered && self.sync == SyncMode::EveryFlush {
            self.current.file.sync()?;
        }
        self.current.offset += u32::try_from(padded).map_err(|_| too_large())?;
        Ok(offsets)
    }

    fn fit_buffer(&mut self, len: usize) {
        let wasteful = self.buffer.len() > 2 * MAX_FLUSH_BYTES && len <= MAX_FLUSH_BYTES;
        if self.buffer.len() < len || wasteful {
            // Doubling spares a growing load many allocations; idle nodes stay small.
            let grown = len.next_power_of_two().min(2 * MAX_FLUSH_BYTES).max(len);
            self.buffer = AlignedBuf::zeroed(grown.max(BUFFER_BYTES));
        }
    }

    /// Goes on in the next file, whose first flush is the state of every group. Returns when
    /// both the file that ends and that state are durable.
    fn roll(&mut self) -> io::Result<()> {
        self.sync_now()?;
        let prepared = self.inner.take_prepared()?;
        self.inner.chores.notify_one();
        self.begin(prepared)
    }

    /// Begins a file.
    pub(crate) fn begin(&mut self, prepared: Prepared) -> io::Result<()> {
        let salt = Salt { file: prepared.seq, id: self.random.next_u64() };
        self.current = Current { file: prepared.writer, salt, offset: 0, fresh: true };
        let state = self.written.state_records();
        let records: Vec<&Record> = state.iter().collect();
        let length = flush_length(records.iter().copied());
        self.put(FlushKind::State, &records, length)?;
        self.current.file.sync()?;
        let file = LiveFile {
            salt,
            reader: prepared.reader,
            end: self.current.offset,
            highest: std::collections::BTreeMap::new(),
        };
        let inner = self.inner.clone();
        let mut state = inner.state.lock();
        state.files.insert(salt.file, file);
        state.current = salt.file;
        self.note_synced(state);
        Ok(())
    }

    /// Attests that everything is synced, so that damage to the last flush shows at the next
    /// start. Without room in the file it is left out.
    fn close(&mut self) {
        let fits = u64::from(self.current.offset) + BLOCK as u64 <= self.file_bytes;
        let closed = self.sync_now().and_then(|()| {
            if !fits {
                return Ok(());
            }
            self.put(FlushKind::Closed, &[], HEADER_BYTES)?;
            self.current.file.sync()
        });
        if let Err(e) = closed {
            self.inner.fail(&e, Batch::default());
        }
    }
}

/// Bytes of a flush of these records without its padding.
fn flush_length<'a>(records: impl Iterator<Item = &'a Record>) -> usize {
    HEADER_BYTES + records.map(Record::encoded_len).sum::<usize>()
}

/// Encodes a flush into all of `buffer`; returns where in it each record begins.
fn encode(header: &FlushHeader, records: &[&Record], buffer: &mut [u8]) -> Vec<usize> {
    let mut offsets = Vec::with_capacity(records.len());
    let mut at = HEADER_BYTES;
    for record in records {
        offsets.push(at);
        at += record.encode(header.salt, &mut buffer[at..]);
    }
    assert_eq!(at, header.length as usize, "records have the lengths that they said");
    buffer[at..].fill(0);
    header.encode(buffer);
    offsets
}

fn effect(record: &Record, file: u32) -> Option<Effect> {
    let group: GroupId = record.group;
    match record.what {
        What::Entry(pos, _) => Some(Effect::Entry { file, group, index: pos.index }),
        What::TruncateAfter(index) => Some(Effect::Truncate { group, index }),
        What::Purge(pos) => Some(Effect::Purge { group, index: pos.index }),
        What::Vote(_) | What::Committed(_) => None,
    }
}

fn too_large() -> io::Error {
    io::Error::other("a flush is larger than the format takes")
}
