//! The shards' state machine of one data group.
//!
//! Rows: `s` + shard → where its translog stands ([`ShardRow`]), written at checkpoints;
//! `m` + shard + partition + pipeline → mark, written with the command that sets it.
//! Translogs stand below `index/translog/<group>/<shard>.<index of the entry that made it>/`.
//!
//! Invariants: numbers of a shard are contiguous, for a command whose first number is not the
//! next one is refused; a command is refused when it was evaluated in another term than it is
//! applied in. A removed shard's translog stays open until the next checkpoint begins and its
//! files until the second one, because the durable checkpoint still speaks of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use base::GroupId;
use base::codec::{decode, encode};
use bytes::Bytes;
use consensus::machine::{ApplyAt, DiskWork, Fatal, SnapshotFile, StateMachine};
use consensus::table::Rows;
use segment::{SegmentInfo, Stream};
use serde::{Deserialize, Serialize};

use crate::command::{OpsCommand, OpsReply, ShardCommand};
use crate::copy::{Live, ShardCopy};
use crate::limits::TRANSLOG_SEGMENT_BYTES;
use crate::model::{IndexUuid, ShardId};
use crate::shared::IndexShared;
use crate::translog::{Frame, parse_header};

/// A shard at a checkpoint.
#[derive(Serialize, Deserialize)]
struct ShardRow {
    /// Name of the translog's directory, which no other shard ever has.
    dir: String,
    next_seq_no: u64,
    primary_term: u64,
    raft_term: u64,
    segments: Vec<SegmentInfo>,
}

/// See the module's documentation.
pub(crate) struct ShardsMachine {
    shared: Arc<IndexShared>,
    group: GroupId,
    shards: BTreeMap<ShardId, Arc<ShardCopy>>,
    /// Rows as captured last.
    captured: BTreeMap<ShardId, Vec<u8>>,
    /// Files of the state captured last.
    files: Vec<SnapshotFile>,
    /// Captured, and awaiting the checkpoint's sync.
    unsynced: BTreeMap<ShardId, Stream>,
    /// Deleted since the latest checkpoint began, and before it.
    removed: Vec<Arc<ShardCopy>>,
    removed_before: Vec<Arc<ShardCopy>>,
}

impl ShardsMachine {
    pub(crate) fn new(shared: Arc<IndexShared>, group: GroupId) -> Self {
        Self {
            shared,
            group,
            shards: BTreeMap::new(),
            captured: BTreeMap::new(),
            files: Vec::new(),
            unsynced: BTreeMap::new(),
            removed: Vec::new(),
            removed_before: Vec::new(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.shared.data_dir.join(IndexShared::translog_path(self.group))
    }

    fn create(&mut self, id: ShardId, at: &ApplyAt, rows: &mut Rows<'_>) {
        if self.shards.contains_key(&id) {
            return;
        }
        let dir = self.dir().join(format!("{}.{}", id.dir_name(), at.index));
        let stream = Stream::create(&self.shared.writer, dir, parse_header);
        let live = Live::at(0, 1, at.term);
        let copy = Arc::new(ShardCopy::new(id, self.group, stream, live, self.shared.lag.clone()));
        rows.put(&row_key(id), encode(&row_of(&copy)));
        self.shards.insert(id, copy.clone());
        self.shared.put_copy(copy);
    }

    fn delete(&mut self, id: ShardId, rows: &mut Rows<'_>) -> Result<(), Fatal> {
        let Some(copy) = self.shards.remove(&id) else { return Ok(()) };
        copy.retire();
        self.captured.remove(&id);
        self.removed.push(copy);
        self.shared.remove_copy(id);
        rows.delete(&row_key(id));
        for (key, _) in rows.scan(&marks_key(id))? {
            rows.delete(&key);
        }
        Ok(())
    }

    fn append(
        &self,
        at: &ApplyAt,
        command: OpsCommand,
        rows: &mut Rows<'_>,
    ) -> Result<OpsReply, Fatal> {
        let Some(copy) = self.shards.get(&command.shard) else { return Ok(OpsReply::NoShard) };
        if let Some(refusal) = copy.refusal(&command, at.term) {
            return Ok(refusal);
        }
        let primary_term = copy.enter_term(at.term);
        if command.count > 0 {
            let frame = Frame {
                base_seq_no: command.base_seq_no,
                count: command.count,
                time_ms: at.time_ms,
                primary_term,
                mapping_version: command.mapping_version,
                ops: command.ops,
            };
            // Proposers send what they encoded; anything else is damage.
            let ops = frame.read_ops().map_err(|e| Fatal(e.to_string()))?;
            // The same on every node and after every restart: the length is in the checkpoint,
            // and none falls between roll and append.
            if copy.stream.active_len() >= TRANSLOG_SEGMENT_BYTES {
                copy.stream.roll();
            }
            let next = frame.base_seq_no + u64::from(frame.count);
            copy.stream.wait_for_room()?;
            copy.stream.append(frame.base_seq_no, next, at.time_ms, frame.encode())?;
            copy.note(ops, primary_term, at.time_ms);
        }
        if let Some(mark) = &command.mark {
            copy.set_mark(mark);
            let key = mark_key(command.shard, &mark.pipeline, mark.partition);
            rows.put(&key, encode(&mark.new));
        }
        Ok(OpsReply::Done { primary_term })
    }

    fn open_shard(&self, id: ShardId, row: ShardRow, rows: &Rows<'_>) -> Result<ShardCopy, Fatal> {
        let dir = self.dir().join(&row.dir);
        let stream = Stream::open(&self.shared.writer, dir, &row.segments, parse_header)?;
        let mut marks = BTreeMap::new();
        for (key, value) in rows.scan(&marks_key(id))? {
            let (pipeline, partition) = parse_mark_key(&key)?;
            marks.insert((pipeline, partition), decode(&value)?);
        }
        let mut live = Live::at(row.next_seq_no, row.primary_term, row.raft_term);
        live.marks = marks;
        Ok(ShardCopy::new(id, self.group, stream, live, self.shared.lag.clone()))
    }

    fn remove_unknown_dirs(&self) -> Result<(), Fatal> {
        let (disk, dir) = (&self.shared.env.disk, self.dir());
        disk.create_dir_durably(&dir)?;
        let known: Vec<_> = self.shards.values().map(|copy| copy.stream.dir()).collect();
        for path in disk.read_dir(&dir)? {
            if !known.contains(&path.as_path()) {
                disk.remove_dir_all(&path)?;
            }
        }
        Ok(())
    }
}

impl StateMachine for ShardsMachine {
    fn apply(&mut self, at: &ApplyAt, command: Bytes, rows: &mut Rows<'_>) -> Result<Bytes, Fatal> {
        let reply = match ShardCommand::decode(command).map_err(|e| Fatal(e.to_string()))? {
            ShardCommand::Create(id) => {
                self.create(id, at, rows);
                OpsReply::Done { primary_term: 1 }
            }
            ShardCommand::Delete(id) => {
                self.delete(id, rows)?;
                OpsReply::Done { primary_term: 1 }
            }
            ShardCommand::Ops(ops) => self.append(at, ops, rows)?,
        };
        Ok(encode(&reply).into())
    }

    fn capture(&mut self, rows: &mut Rows<'_>) -> Result<(), Fatal> {
        self.files.clear();
        for (id, copy) in &self.shards {
            let row = row_of(copy);
            self.files.extend(files_of(self.group, &row));
            let bytes = encode(&row);
            if self.captured.get(id) != Some(&bytes) {
                rows.put(&row_key(*id), bytes.clone());
                self.captured.insert(*id, bytes);
                self.unsynced.insert(*id, copy.stream.clone());
            }
        }
        Ok(())
    }

    fn begin_checkpoint(&mut self) -> DiskWork {
        let streams: Vec<_> = std::mem::take(&mut self.unsynced).into_values().collect();
        let all = self.shards.values();
        let trimmed: Vec<_> = all.flat_map(|copy| copy.stream.begin_checkpoint()).collect();
        // The checkpoint that has their last bytes is durable.
        self.removed.iter().for_each(|copy| copy.close());
        let gone = std::mem::replace(&mut self.removed_before, std::mem::take(&mut self.removed));
        let shared = self.shared.clone();
        Box::new(move || {
            streams.iter().try_for_each(Stream::sync)?;
            shared.writer.delete(trimmed);
            for copy in gone {
                shared.env.disk.remove_dir_all(copy.stream.dir())?;
            }
            Ok(())
        })
    }

    fn waits_for_checkpoint(&self) -> bool {
        !(self.removed.is_empty() && self.removed_before.is_empty())
            || self.shards.values().any(|copy| copy.stream.waits_to_delete())
    }

    fn release(&mut self) -> Result<(), Fatal> {
        for (id, copy) in std::mem::take(&mut self.shards) {
            copy.close();
            self.shared.remove_copy(id);
        }
        self.removed.iter().chain(&self.removed_before).for_each(|copy| copy.close());
        Ok(())
    }

    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        self.release()?;
        self.captured.clear();
        self.unsynced.clear();
        self.removed.clear();
        self.removed_before.clear();
        self.files.clear();
        for (key, value) in rows.scan(b"s")? {
            let id = parse_row_key(&key)?;
            let row: ShardRow = decode(&value)?;
            self.files.extend(files_of(self.group, &row));
            self.captured.insert(id, value.to_vec());
            let copy = Arc::new(self.open_shard(id, row, rows)?);
            self.shards.insert(id, copy.clone());
            self.shared.put_copy(copy);
        }
        self.remove_unknown_dirs()
    }

    fn files(&self) -> Vec<SnapshotFile> {
        self.files.clone()
    }

    fn digest(&mut self, add: &mut dyn FnMut(&[u8])) -> Result<(), Fatal> {
        for (id, copy) in &self.shards {
            add(&id.key());
            add(&encode(&row_of(copy)));
            for (key, mark) in copy.with_live(|live| live.marks.clone()) {
                add(&encode(&(key, mark)));
            }
        }
        Ok(())
    }
}

fn files_of(group: GroupId, row: &ShardRow) -> impl Iterator<Item = SnapshotFile> + use<'_> {
    let base = IndexShared::translog_path(group);
    row.segments.iter().map(move |segment| SnapshotFile {
        path: format!("{base}/{}/{}", row.dir, segment.file_name()),
        len: segment.len,
        crc: segment.crc,
    })
}

fn row_of(copy: &ShardCopy) -> ShardRow {
    let dir = copy.stream.dir().file_name().map(|name| name.to_string_lossy().into_owned());
    copy.with_live(|live| ShardRow {
        dir: dir.unwrap_or_default(),
        next_seq_no: live.next_seq_no,
        primary_term: live.primary_term,
        raft_term: live.raft_term,
        segments: copy.stream.segments(),
    })
}

fn row_key(id: ShardId) -> Vec<u8> {
    [b"s".as_slice(), &id.key()].concat()
}

fn parse_row_key(key: &[u8]) -> Result<ShardId, Fatal> {
    let bad = || Fatal("a shard row has a malformed key".to_owned());
    let (uuid, number) = key.get(1..).and_then(|k| k.split_at_checked(16)).ok_or_else(bad)?;
    let uuid = uuid.try_into().map_err(|_| bad())?;
    let number = number.try_into().map_err(|_| bad())?;
    Ok(ShardId { index: IndexUuid(uuid), number: u16::from_be_bytes(number) })
}

fn marks_key(id: ShardId) -> Vec<u8> {
    [b"m".as_slice(), &id.key()].concat()
}

fn mark_key(id: ShardId, pipeline: &str, partition: u32) -> Vec<u8> {
    [&marks_key(id), partition.to_be_bytes().as_slice(), pipeline.as_bytes()].concat()
}

fn parse_mark_key(key: &[u8]) -> Result<(String, u32), Fatal> {
    let bad = || Fatal("a mark row has a malformed key".to_owned());
    let rest = key.get(19..).and_then(|k| k.split_at_checked(4)).ok_or_else(bad)?;
    let partition = rest.0.try_into().map_err(|_| bad())?;
    let pipeline = String::from_utf8(rest.1.to_vec()).map_err(|_| bad())?;
    Ok((pipeline, u32::from_be_bytes(partition)))
}
