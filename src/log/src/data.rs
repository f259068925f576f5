//! The log's machine in a data group.
//!
//! Rows: `R` + topic id + partition: a replica at the latest checkpoint; `S` + topic id +
//! partition + number: its later segments, where it has many; `C` + topic id + partition: when it
//! was made; `P` + topic id + partition + number: its producers; `H` + topic id + partition: the
//! highest id of those it has forgotten; `h`: the highest that deleted replicas knew; `T`, as `P`:
//! their transactions; `A` + topic id + partition + offset of the marker: a transaction aborted
//! there; `O` + group + topic id + partition: a committed offset; `F` + source: a fence; `L` +
//! topic id + partition + source + file key: a ledger entry; `gr…`: consumer groups; `t`, `x`,
//! `y`: transactions (see [`crate::transactions`]). Numbers are big-endian; group and source have a
//! u16 length before them. `R`, `S`, `C`, `P`, `H`, `T` and `A` rows are written at checkpoints
//! only, the others in apply.
//!
//! Invariant: files that a durable checkpoint speaks of exist, with all that belongs to it, until
//! a later checkpoint is durable. A checkpoint syncs files while apply goes on, so a deleted
//! replica keeps its stream open until the next checkpoint begins, when the one before is
//! durable; its directory goes at the second, when no peer copies from it any more.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use base::codec;
use bytes::Bytes;
use consensus::{ApplyAt, DiskWork, Fatal, Rows, SnapshotFile, StateMachine};
use parking_lot::Mutex;
use segment::{SegmentInfo, Stream};

use crate::batch::{self, frame_info};
use crate::command::{self, Control, ControlReply, DataCommand, OnceEntry, OnceHead, ProduceReply};
use crate::groups;
use crate::limits::{PRODUCERS_PER_ROW, SEGMENTS_PER_ROW, SYNC_THREADS};
use crate::offsets::OffsetRow;
use crate::partition::{Born, PartRow, PartState, Partition};
use crate::producers::Producer;
use crate::shared::{GroupView, LogShared};
use crate::transactions::{self, Claim};
use crate::types::{LedgerRow, OnceOutcome, PartKey};

/// Keys of rows, also used by readers.
pub(crate) mod keys {
    use super::PartKey;

    pub(crate) fn part(kind: u8, key: &PartKey) -> Vec<u8> {
        [&[kind], &key.topic.as_bytes()[..], &key.partition.to_be_bytes()].concat()
    }

    pub(crate) fn part_of(bytes: &[u8]) -> Option<PartKey> {
        let (topic, partition) = bytes.split_first_chunk::<16>()?;
        let partition = u32::from_be_bytes(partition.first_chunk::<4>().copied()?);
        Some(PartKey { topic: uuid::Uuid::from_bytes(*topic), partition })
    }

    fn sized(text: &[u8]) -> Vec<u8> {
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
        [&len.to_be_bytes()[..], text].concat()
    }

    pub(crate) fn fence(source: &str) -> Vec<u8> {
        [b"F", source.as_bytes()].concat()
    }

    pub(crate) fn ledger(key: &PartKey, source: &str, file: &[u8]) -> Vec<u8> {
        [part(b'L', key), sized(source.as_bytes()), file.to_vec()].concat()
    }

    pub(crate) fn offsets(group: &str) -> Vec<u8> {
        [vec![b'O'], sized(group.as_bytes())].concat()
    }

    /// The group's name and the partition of a committed offset's key.
    pub(crate) fn group_and_part(key: &[u8]) -> Option<(&[u8], PartKey)> {
        let (len, rest) = key.get(1..)?.split_first_chunk::<2>()?;
        let (group, part) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        Some((group, part_of(part)?))
    }

    pub(crate) fn offset(group: &str, key: &PartKey) -> Vec<u8> {
        let part = part(b'O', key);
        [offsets(group), part.get(1..).unwrap_or_default().to_vec()].concat()
    }
}

/// Key of the highest producer id that deleted replicas knew.
const DELETED: &[u8] = b"h";

/// The machine of one data group.
pub(crate) struct DataMachine {
    shared: LogShared,
    view: Arc<GroupView>,
    /// Deleted since the latest checkpoint began, and before it.
    removed: Vec<Arc<Partition>>,
    removed_before: Vec<Arc<Partition>>,
    /// Files of the state captured last.
    files: BTreeMap<PartKey, Vec<SnapshotFile>>,
    /// Streams that were captured and await the checkpoint's sync.
    unsynced: BTreeMap<PartKey, Stream>,
}

impl DataMachine {
    pub(crate) fn new(shared: LogShared, view: Arc<GroupView>) -> Self {
        let (removed, removed_before, files, unsynced) = Default::default();
        Self { shared, view, removed, removed_before, files, unsynced }
    }

    fn produce(
        &self,
        at: &ApplyAt,
        key: &PartKey,
        batch: &Bytes,
        claim: Claim,
    ) -> Result<ProduceReply, Fatal> {
        match self.view.get(key) {
            Some(part) => part.append(at, batch, claim),
            None => Ok(ProduceReply::UnknownPartition),
        }
    }

    fn once(
        &self,
        at: &ApplyAt,
        head: &OnceHead,
        mut batches: Bytes,
        rows: &mut Rows<'_>,
    ) -> Result<Vec<OnceOutcome>, Fatal> {
        let fence = read_fence(rows, &head.source)?;
        if head.epoch < fence {
            return Ok(vec![OnceOutcome::Fenced(fence); head.files.len()]);
        }
        if head.epoch > fence {
            rows.put(&keys::fence(&head.source), codec::encode(&head.epoch));
        }
        let mut outcomes = Vec::with_capacity(head.files.len());
        for file in &head.files {
            let len = usize::try_from(file.batch_len).unwrap_or(usize::MAX);
            if len > batches.len() {
                outcomes.push(OnceOutcome::BadBatch);
                continue;
            }
            let batch = batches.split_to(len);
            outcomes.push(self.once_file(at, head, file, &batch, rows)?);
        }
        Ok(outcomes)
    }

    fn once_file(
        &self,
        at: &ApplyAt,
        head: &OnceHead,
        file: &OnceEntry,
        batch: &Bytes,
        rows: &mut Rows<'_>,
    ) -> Result<OnceOutcome, Fatal> {
        let key = keys::ledger(&head.key, &head.source, &file.file_key);
        if let Some(value) = rows.get(&key)? {
            let row: LedgerRow = codec::decode(&value)?;
            if row.version == file.version {
                return Ok(OnceOutcome::Already(row.offset));
            }
        }
        // Only what a plain produce could not do: the batch must be acceptable in apply too,
        // as the proposer may be another node.
        if batch::validate(batch).is_err() {
            return Ok(OnceOutcome::BadBatch);
        }
        match self.produce(at, &head.key, batch, Claim::Plain)? {
            ProduceReply::Done { base_offset, .. } => {
                let version = file.version.clone();
                let row = LedgerRow { version, offset: base_offset, state: 0, time_ms: at.time_ms };
                rows.put(&key, codec::encode(&row));
                Ok(OnceOutcome::Appended(base_offset))
            }
            ProduceReply::UnknownPartition => Ok(OnceOutcome::NoPartition),
            ProduceReply::Corrupt
            | ProduceReply::OutOfOrder
            | ProduceReply::OldEpoch
            | ProduceReply::NotInTransaction => Ok(OnceOutcome::BadBatch),
        }
    }

    fn control(
        &mut self,
        at: &ApplyAt,
        command: Control,
        rows: &mut Rows<'_>,
    ) -> Result<ControlReply, Fatal> {
        match command {
            Control::CreateReplica { key, settings } => {
                if self.view.get(&key).is_none() {
                    let forgotten = read_producer_id(rows, DELETED)?;
                    let born = Born { term: at.term, at_ms: at.time_ms };
                    let state = PartState::new(settings, forgotten, born);
                    let dir = format!("{}-{}.{}", key.topic.simple(), key.partition, at.index);
                    let stream = self.stream(&dir, &[])?;
                    self.add(Partition::new(key, at.group, dir, stream, state));
                }
                Ok(ControlReply::Done)
            }
            Control::DeleteReplica { key } => self.delete_replica(&key, rows),
            Control::ConfigureReplica { key, settings } => Ok(self.with(&key, |part| {
                let mut state = part.state.lock();
                state.settings = settings;
                state.dirty = true;
                ControlReply::Done
            })),
            Control::SetLogStart { key, offset } => {
                Ok(self.with(&key, |part| match part.set_log_start(offset) {
                    Ok(start) => ControlReply::LogStart(start),
                    Err((start, end)) => ControlReply::OutOfRange { start, end },
                }))
            }
            Control::ExpireProducers { key, before_ms } => Ok(self.with(&key, |part| {
                part.expire_producers(before_ms);
                ControlReply::Done
            })),
            Control::Fence { source, epoch } => {
                let fence = read_fence(rows, &source)?.max(epoch);
                rows.put(&keys::fence(&source), codec::encode(&fence));
                Ok(ControlReply::Fence(fence))
            }
            Control::MarkLedger { key, source, file_key, version, state } => {
                let key = keys::ledger(&key, &source, &file_key);
                let row = rows.get(&key)?.map(|v| codec::decode::<LedgerRow>(&v)).transpose()?;
                let Some(mut row) = row.filter(|row| row.version == version) else {
                    return Ok(ControlReply::OtherVersion);
                };
                row.state = state;
                rows.put(&key, codec::encode(&row));
                Ok(ControlReply::Done)
            }
            Control::CommitOffsets { group, offsets } => {
                for entry in offsets {
                    let row = OffsetRow::of(&entry, at.time_ms);
                    rows.put(&keys::offset(&group, &entry.key), codec::encode(&row));
                }
                Ok(ControlReply::Done)
            }
            Control::DeleteOffsets { group, keys } => delete_offsets(&group, keys, rows),
            Control::ExpireOffsets { group, empty_since_ms, offsets } => {
                expire_offsets(&group, empty_since_ms, &offsets, rows)
            }
            Control::Compact { key, plan } => {
                let reply = self.with(&key, |part| match part.plan(plan) {
                    true => ControlReply::Done,
                    false => ControlReply::StalePlan,
                });
                self.shared.0.compactions.notify_one();
                Ok(reply)
            }
        }
    }

    fn with(&self, key: &PartKey, act: impl FnOnce(&Partition) -> ControlReply) -> ControlReply {
        self.view.get(key).map_or(ControlReply::UnknownPartition, |part| act(&part))
    }

    fn stream(&self, dir: &str, segments: &[SegmentInfo]) -> io::Result<Stream> {
        let path = self.shared.group_dir(self.view.group).join(dir);
        Stream::open(&self.shared.0.writer, path, segments, frame_info)
    }

    fn add(&self, part: Partition) {
        self.view.parts.write().insert(part.key, Arc::new(part));
        self.view.changes.send_modify(|n| *n += 1);
    }

    fn delete_replica(
        &mut self,
        key: &PartKey,
        rows: &mut Rows<'_>,
    ) -> Result<ControlReply, Fatal> {
        let part = self.view.parts.write().remove(key);
        let Some(part) = part else { return Ok(ControlReply::Done) };
        part.waiters.alarm();
        // A topic made anew under this name has its partitions in this group, and its producers go
        // on where they are, as with Kafka.
        let known = part.state.lock().producers.highest();
        if let Some(highest) = known.max(read_producer_id(rows, DELETED)?) {
            rows.put(DELETED, codec::encode(&highest));
        }
        for kind in [b'R', b'S', b'C', b'P', b'H', b'L', b'T', b'A'] {
            for (row, _) in rows.scan(&keys::part(kind, key))? {
                rows.delete(&row);
            }
        }
        self.removed.push(part);
        self.view.changes.send_modify(|n| *n += 1);
        Ok(ControlReply::Done)
    }

    fn write_rows(&mut self, part: &Partition, rows: &mut Rows<'_>) {
        let mut state = part.state.lock();
        let all: Vec<(i64, &Producer)> = state.producers.iter().map(|(id, p)| (*id, p)).collect();
        let chunks = all.chunks(PRODUCERS_PER_ROW);
        let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        for (number, chunk) in (0u32..).zip(chunks) {
            rows.put(&producers_key(&part.key, number), codec::encode(&chunk));
        }
        for number in count..state.producer_rows {
            rows.delete(&producers_key(&part.key, number));
        }
        state.producer_rows = count;
        if let Some(forgotten) = state.producers.forgotten() {
            rows.put(&keys::part(b'H', &part.key), codec::encode(&forgotten));
        }
        write_txns(&part.key, &mut state, rows);
        rows.put(&keys::part(b'C', &part.key), codec::encode(&state.created_ms));
        let mut row = part.row(&state);
        self.files.insert(part.key, self.snapshot_files(&row));
        write_segments(&part.key, &mut state, &mut row, rows);
        rows.put(&keys::part(b'R', &part.key), codec::encode(&row));
        self.unsynced.insert(part.key, part.stream.clone());
        state.dirty = false;
    }

    fn snapshot_files(&self, row: &PartRow) -> Vec<SnapshotFile> {
        let group = self.view.group;
        let path = |name: String| format!("parts/{group}/{}/{name}", row.dir);
        let file = |s: &SegmentInfo| {
            let (path, len, crc) = (path(s.file_name()), s.len, s.crc);
            SnapshotFile { path, len, crc }
        };
        row.segments.iter().map(file).collect()
    }
}

fn producers_key(key: &PartKey, number: u32) -> Vec<u8> {
    [keys::part(b'P', key), number.to_be_bytes().to_vec()].concat()
}

fn segments_key(key: &PartKey, number: u32) -> Vec<u8> {
    [keys::part(b'S', key), number.to_be_bytes().to_vec()].concat()
}

/// Leaves the oldest segments in the replica's row; of later ones there may be more than one row
/// has room for.
fn write_segments(key: &PartKey, state: &mut PartState, row: &mut PartRow, rows: &mut Rows<'_>) {
    let later = row.segments.split_off(row.segments.len().min(SEGMENTS_PER_ROW));
    let chunks = later.chunks(SEGMENTS_PER_ROW);
    let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    for (number, chunk) in (0u32..).zip(chunks) {
        rows.put(&segments_key(key, number), codec::encode(&chunk));
    }
    for number in count..state.segment_rows {
        rows.delete(&segments_key(key, number));
    }
    state.segment_rows = count;
}

fn txns_key(key: &PartKey, number: u32) -> Vec<u8> {
    [keys::part(b'T', key), number.to_be_bytes().to_vec()].concat()
}

fn aborted_key(key: &PartKey, marker: i64) -> Vec<u8> {
    [keys::part(b'A', key), marker.to_be_bytes().to_vec()].concat()
}

fn write_txns(key: &PartKey, state: &mut PartState, rows: &mut Rows<'_>) {
    let held = state.txns.held_rows(PRODUCERS_PER_ROW);
    let count = u32::try_from(held.len()).unwrap_or(u32::MAX);
    for (number, row) in (0u32..).zip(&held) {
        rows.put(&txns_key(key, number), codec::encode(row));
    }
    for number in count..state.txn_rows {
        rows.delete(&txns_key(key, number));
    }
    state.txn_rows = count;
    for txn in state.txns.store_aborted() {
        rows.put(&aborted_key(key, txn.last_offset), codec::encode(&txn));
    }
    for marker in state.txns.take_gone() {
        rows.delete(&aborted_key(key, marker));
    }
}

fn restore_txns(rows: &Rows<'_>, key: &PartKey, state: &mut PartState) -> Result<(), Fatal> {
    for (_, value) in rows.scan(&keys::part(b'T', key))? {
        state.txns.take_held(codec::decode(&value)?);
        state.txn_rows += 1;
    }
    for (_, value) in rows.scan(&keys::part(b'A', key))? {
        state.txns.take_aborted(codec::decode(&value)?);
    }
    Ok(())
}

fn read_producer_id(rows: &Rows<'_>, key: &[u8]) -> Result<Option<i64>, Fatal> {
    Ok(rows.get(key)?.map(|value| codec::decode(&value)).transpose()?)
}

fn read_fence(rows: &Rows<'_>, source: &str) -> Result<u64, Fatal> {
    let value = rows.get(&keys::fence(source))?;
    Ok(value.map(|v| codec::decode(&v)).transpose()?.unwrap_or(0))
}

/// Forgets offsets that were not committed anew and whose group has not changed meanwhile.
fn expire_offsets(
    group: &str,
    empty_since_ms: Option<i64>,
    offsets: &[(PartKey, i64)],
    rows: &mut Rows<'_>,
) -> Result<ControlReply, Fatal> {
    let since = rows.get(&groups::empty_key(group))?;
    let since = since.map(|value| codec::decode::<i64>(&value)).transpose()?;
    if since != empty_since_ms {
        return Ok(ControlReply::Done);
    }
    for (key, commit_time_ms) in offsets {
        let row = keys::offset(group, key);
        let held = rows.get(&row)?.map(|value| codec::decode::<OffsetRow>(&value)).transpose()?;
        if held.is_some_and(|held| held.commit_time_ms == *commit_time_ms) {
            rows.delete(&row);
        }
    }
    Ok(ControlReply::Done)
}

fn delete_offsets(
    group: &str,
    keys: Option<Vec<PartKey>>,
    rows: &mut Rows<'_>,
) -> Result<ControlReply, Fatal> {
    match keys {
        Some(keys) => {
            keys.iter().for_each(|key| rows.delete(&keys::offset(group, key)));
            transactions::offsets::forget_parts(group, &keys.into_iter().collect(), rows)?;
        }
        None => {
            for (row, _) in rows.scan(&keys::offsets(group))? {
                rows.delete(&row);
            }
            transactions::offsets::forget_group(group, rows)?;
        }
    }
    Ok(ControlReply::Done)
}

/// Syncs streams, several at a time: a sync of one file is mostly waiting.
fn sync_all(streams: Vec<Stream>, threads: usize) -> io::Result<()> {
    if streams.len() < 2 || threads < 2 {
        return streams.iter().try_for_each(Stream::sync);
    }
    let work = Arc::new(Mutex::new(streams));
    let failure = Arc::new(Mutex::new(Ok(())));
    let workers: Vec<_> = (0..threads.min(work.lock().len()))
        .map(|_| {
            let (work, failure) = (work.clone(), failure.clone());
            base::task::thread("checkpoint", move || {
                loop {
                    let Some(stream) = work.lock().pop() else { return };
                    if let Err(error) = stream.sync() {
                        *failure.lock() = Err(error);
                        return;
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        if worker.join().is_err() {
            return Err(io::Error::other("a checkpoint thread panicked"));
        }
    }
    std::mem::replace(&mut *failure.lock(), Ok(()))
}

impl StateMachine for DataMachine {
    fn apply(&mut self, at: &ApplyAt, command: Bytes, rows: &mut Rows<'_>) -> Result<Bytes, Fatal> {
        match command::decode(&command) {
            Ok(DataCommand::Produce { key, claim, batch }) => {
                Ok(self.produce(at, &key, &batch, claim)?.encode())
            }
            Ok(DataCommand::Once { head, batches }) => {
                Ok(codec::encode(&self.once(at, &head, batches, rows)?).into())
            }
            Ok(DataCommand::Control(control)) => {
                Ok(codec::encode(&self.control(at, control, rows)?).into())
            }
            Ok(DataCommand::Groups(command)) => {
                groups::apply_command(command, at.time_ms, rows)?;
                Ok(codec::encode(&ControlReply::Done).into())
            }
            Ok(DataCommand::Txns(command)) => {
                Ok(codec::encode(&transactions::apply(&self.view, at, &command, rows)?).into())
            }
            // Nothing decodes from an empty reply: the proposer sees an error.
            Err(_) => Ok(Bytes::new()),
        }
    }

    fn capture(&mut self, rows: &mut Rows<'_>) -> Result<(), Fatal> {
        self.files.retain(|key, _| self.view.parts.read().contains_key(key));
        let parts = self.view.all();
        for part in parts.into_iter().filter(|p| p.state.lock().dirty) {
            self.write_rows(&part, rows);
        }
        Ok(())
    }

    fn begin_checkpoint(&mut self) -> DiskWork {
        let streams: Vec<_> = std::mem::take(&mut self.unsynced).into_values().collect();
        let trimmed = self.view.all().iter().flat_map(|p| p.stream.begin_checkpoint()).collect();
        // The checkpoint that has their last bytes is durable.
        self.removed.iter().for_each(|part| part.stream.close());
        let gone = std::mem::replace(&mut self.removed_before, std::mem::take(&mut self.removed));
        let writer = self.shared.0.writer.clone();
        Box::new(move || {
            sync_all(streams, SYNC_THREADS)?;
            writer.delete(trimmed);
            for part in gone {
                if let Err(error) = part.stream.clone().remove() {
                    let dir = &part.dir;
                    tracing::warn!(%dir, "a deleted replica stays until restart: {error}");
                }
            }
            Ok(())
        })
    }

    fn waits_for_checkpoint(&self) -> bool {
        !(self.removed.is_empty() && self.removed_before.is_empty())
            || self.view.all().iter().any(|part| part.stream.waits_to_delete())
    }

    fn release(&mut self) -> Result<(), Fatal> {
        let parts = self.view.all();
        let removed = self.removed.iter().chain(&self.removed_before);
        parts.iter().chain(removed).for_each(|part| part.release());
        Ok(())
    }

    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        self.release()?;
        let old = std::mem::take(&mut *self.view.parts.write());
        old.values().for_each(|part| part.waiters.alarm());
        self.removed.clear();
        self.removed_before.clear();
        self.unsynced.clear();
        self.files.clear();
        let disk = &self.shared.0.env.disk;
        let dir = self.shared.group_dir(self.view.group);
        disk.create_dir_durably(&dir)?;
        let mut known = Vec::new();
        for (key, value) in rows.scan(b"R")? {
            let mut row: PartRow = codec::decode(&value)?;
            let key = keys::part_of(key.get(1..).unwrap_or_default())
                .ok_or_else(|| Fatal("a replica row with a damaged key".to_owned()))?;
            let later = rows.scan(&keys::part(b'S', &key))?;
            for (_, value) in &later {
                let segments: Vec<SegmentInfo> = codec::decode(value)?;
                row.segments.extend(segments);
            }
            let forgotten = read_producer_id(rows, &keys::part(b'H', &key))?;
            let mut state = PartState::from_row(&row, forgotten);
            state.segment_rows = u32::try_from(later.len()).unwrap_or(u32::MAX);
            if let Some(value) = rows.get(&keys::part(b'C', &key))? {
                state.created_ms = codec::decode(&value)?;
            }
            for (_, value) in rows.scan(&keys::part(b'P', &key))? {
                state.producers.extend(codec::decode(&value)?);
            }
            restore_txns(rows, &key, &mut state)?;
            let stream = self.stream(&row.dir, &row.segments)?;
            known.push(dir.join(&row.dir));
            self.files.insert(key, self.snapshot_files(&row));
            self.add(Partition::new(key, self.view.group, row.dir, stream, state));
        }
        transactions::restore(&self.view, rows)?;
        for path in disk.read_dir(&dir)? {
            if !known.contains(&path) {
                disk.remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    fn files(&self) -> Vec<SnapshotFile> {
        self.files.values().flatten().cloned().collect()
    }

    fn digest(&mut self, add: &mut dyn FnMut(&[u8])) -> Result<(), Fatal> {
        for part in self.view.all() {
            let state = part.state.lock();
            let mut row = part.row(&state);
            // How many rows hold the producers depends on when this node made a checkpoint.
            row.producer_rows = 0;
            let segments = std::mem::take(&mut row.segments);
            add(&codec::encode(&(part.key, row)));
            segments.iter().for_each(|segment| add(&codec::encode(segment)));
            add(&codec::encode(&state.producers.forgotten()));
            for producer in state.producers.iter() {
                add(&codec::encode(&producer));
            }
            for held in state.txns.held_rows(PRODUCERS_PER_ROW) {
                add(&codec::encode(&held));
            }
            for txn in state.txns.all_aborted() {
                add(&codec::encode(txn));
            }
        }
        Ok(())
    }
}
