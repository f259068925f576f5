//! Checkpoints: the durable copy of a group's rows.
//!
//! A group's folder holds one *base* (all rows), *deltas* (rows changed since, oldest first) and
//! `CURRENT`, which names them and says where they stand. Every file is synced before `CURRENT`
//! names it, and `CURRENT` is replaced by rename, so a crash leaves the old state or the new.
//! When the deltas outgrow half of the base, both are merged into a new base; files of the
//! previous state stay for one more round, because a peer may be copying them.
//!
//! Row file: `magic: 8 bytes`, then frames `len: u32 | crc32c: u32 | rows`, little endian, each
//! row `key_len: u32 | value_len: u32 (0xffff_ffff deletes) | key | value`; an empty frame ends
//! the file, so a cut file is noticed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base::codec;
use base::crc::crc32c;
use base::env::{DiskFile, OpenMode};
use base::limits::MIB;
use base::{Env, GroupId};
use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};

use super::types::{LogId, Membership, MembershipRow, SnapshotMeta, StoredMembership, invalid};
use crate::machine::SnapshotFile;
use crate::table::Change;

const MAGIC: &[u8; 8] = b"trnrows1";
const CURRENT: &str = "CURRENT";
const FRAME_BYTES: usize = 256 * 1024;
const MAX_FRAME_BYTES: usize = 32 * MIB;
const DELETED: u32 = u32::MAX;
const MAX_CURRENT_BYTES: u64 = 64 * MIB as u64;
/// Deltas below this are not worth a new base.
const MIN_COMPACTION_BYTES: u64 = MIB as u64;
/// Many small deltas make a slow start even when they are short.
const MAX_DELTAS: usize = 64;

/// Where a checkpoint stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Term and index of the last applied entry; `None` before the first.
    pub(crate) applied: Option<(u64, u64)>,
    membership_at: Option<(u64, u64)>,
    membership: MembershipRow,
    /// Latest time stamp applied, in milliseconds since the epoch.
    pub(crate) time_ms: i64,
    /// Files that the rows speak of, with the lengths that belong to this state.
    pub(crate) files: Vec<SnapshotFile>,
}

impl Position {
    pub(crate) fn new(
        applied: Option<LogId>,
        membership: &StoredMembership,
        time_ms: i64,
        files: Vec<SnapshotFile>,
    ) -> Self {
        let pair = |id: LogId| (id.leader_id.term, id.index);
        Self {
            applied: applied.map(pair),
            membership_at: membership.log_id().map(pair),
            membership: membership.membership().into(),
            time_ms,
            files,
        }
    }

    pub(crate) fn applied_id(&self) -> Option<LogId> {
        self.applied.map(|(term, index)| LogId::new_term_index(term, index))
    }

    pub(crate) fn applied_index(&self) -> u64 {
        self.applied.map_or(0, |(_, index)| index)
    }

    pub(crate) fn stored_membership(&self) -> io::Result<StoredMembership> {
        let at = self.membership_at.map(|(term, index)| LogId::new_term_index(term, index));
        let membership: Membership = self.membership.clone().into_membership()?;
        Ok(StoredMembership::new(at, membership))
    }

    pub(crate) fn meta(&self) -> io::Result<SnapshotMeta> {
        Ok(SnapshotMeta {
            last_log_id: self.applied_id(),
            last_membership: self.stored_membership()?,
        })
    }
}

/// What `CURRENT` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Current {
    pub(crate) position: Position,
    /// Base first, then deltas, oldest first.
    pub(crate) rows: Vec<SnapshotFile>,
}

/// The checkpoint folder of one group.
pub(crate) struct CheckpointDir {
    env: Env,
    dir: PathBuf,
    /// The folder's path below the data directory, for peers that copy from it.
    relative: String,
    current: Option<Current>,
    /// Row files of the state before, removed with the next one.
    previous: Vec<String>,
}

impl CheckpointDir {
    /// Opens or creates the folder, checks `CURRENT` and removes files it does not name.
    pub(crate) fn open(env: &Env, data_dir: &Path, group: GroupId) -> io::Result<Self> {
        let relative = format!("ckpt/{group}");
        let dir = data_dir.join(&relative);
        env.disk.create_dir_all(&dir)?;
        let path = dir.join(CURRENT);
        let current = if env.disk.exists(&path)? {
            Some(decode_current(&env.disk.read(&path, MAX_CURRENT_BYTES)?)?)
        } else {
            None
        };
        let this = Self { env: env.clone(), dir, relative, current, previous: Vec::new() };
        this.remove_unknown()?;
        Ok(this)
    }

    fn remove_unknown(&self) -> io::Result<()> {
        let known: Vec<PathBuf> = self.row_paths();
        for path in self.env.disk.read_dir(&self.dir)? {
            let is_current = path.file_name().is_some_and(|n| n == CURRENT);
            if !is_current && !known.contains(&path) {
                self.env.disk.remove_file(&path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn current(&self) -> Option<&Current> {
        self.current.as_ref()
    }

    fn row_paths(&self) -> Vec<PathBuf> {
        let rows = self.current.iter().flat_map(|c| &c.rows);
        rows.map(|f| self.dir.join(file_name(&f.path))).collect()
    }

    /// All rows of the current state.
    pub(crate) fn load(&self) -> io::Result<BTreeMap<Vec<u8>, Bytes>> {
        let mut rows = BTreeMap::new();
        for path in self.row_paths() {
            read_rows(&self.env, &path, &mut |key, value| {
                match value {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
            })?;
        }
        Ok(rows)
    }

    /// Adds a checkpoint: the rows changed since the last one, and where they bring the state.
    /// Durable on return. Blocking; run it off the apply path.
    pub(crate) fn add(
        &mut self,
        position: Position,
        changes: &BTreeMap<Vec<u8>, Option<Bytes>>,
    ) -> io::Result<()> {
        let mut rows = self.current.as_ref().map_or_else(Vec::new, |c| c.rows.clone());
        if !changes.is_empty() || rows.is_empty() {
            let kind = if rows.is_empty() { "base" } else { "delta" };
            let changes = changes.iter().map(|(k, v)| (k.clone(), v.clone()));
            rows.push(self.write_rows(position.applied_index(), kind, changes)?);
        }
        self.switch(Current { position, rows })?;
        if self.wants_compaction() { self.compact() } else { Ok(()) }
    }

    fn wants_compaction(&self) -> bool {
        let Some(current) = &self.current else { return false };
        let base = current.rows.first().map_or(0, |f| f.len);
        let deltas: u64 = current.rows.iter().skip(1).map(|f| f.len).sum();
        current.rows.len() > MAX_DELTAS || deltas > (base / 2).max(MIN_COMPACTION_BYTES)
    }

    fn compact(&mut self) -> io::Result<()> {
        let Some(current) = self.current.clone() else { return Ok(()) };
        let rows = self.load()?.into_iter().map(|(k, v)| (k, Some(v)));
        let base = self.write_rows(current.position.applied_index(), "base", rows)?;
        self.switch(Current { position: current.position, rows: vec![base] })
    }

    fn write_rows(
        &self,
        index: u64,
        kind: &str,
        rows: impl Iterator<Item = Change>,
    ) -> io::Result<SnapshotFile> {
        let name = format!("{index:020}.{kind}");
        let path = self.dir.join(&name);
        if self.env.disk.exists(&path)? {
            self.env.disk.remove_file(&path)?;
        }
        let file = self.env.disk.open(&path, OpenMode::ReadWrite)?;
        let len = write_rows(&*file, rows)?;
        file.sync()?;
        self.env.disk.sync_dir(&self.dir)?;
        Ok(SnapshotFile { path: format!("{}/{name}", self.relative), len })
    }

    fn switch(&mut self, next: Current) -> io::Result<()> {
        let body = codec::encode(&next);
        let mut bytes = crc32c(&body).to_le_bytes().to_vec();
        bytes.extend_from_slice(&body);
        self.env.disk.write_durably(&self.dir.join(CURRENT), &bytes)?;
        for name in std::mem::take(&mut self.previous) {
            let kept = next.rows.iter().any(|f| file_name(&f.path) == name);
            if !kept && self.env.disk.exists(&self.dir.join(&name))? {
                self.env.disk.remove_file(&self.dir.join(&name))?;
            }
        }
        let old = self.current.replace(next);
        let old_rows = old.iter().flat_map(|c| &c.rows);
        self.previous = old_rows.map(|f| file_name(&f.path).to_owned()).collect();
        Ok(())
    }

    /// Takes over the row files that lie in `staged` under their own names. Durable on return.
    pub(crate) fn install(
        &mut self,
        position: Position,
        rows: &[SnapshotFile],
        staged: &Path,
    ) -> io::Result<()> {
        let mut ours = Vec::new();
        for (number, file) in rows.iter().enumerate() {
            // An own name, so that a file of the state before is never overwritten.
            let index = position.applied_index();
            let name = format!("{index:020}.{number:03}.installed");
            self.env.disk.rename(&staged.join(file_name(&file.path)), &self.dir.join(&name))?;
            ours.push(SnapshotFile { path: format!("{}/{name}", self.relative), len: file.len });
        }
        self.env.disk.sync_dir(&self.dir)?;
        self.switch(Current { position, rows: ours })
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn decode_current(bytes: &[u8]) -> io::Result<Current> {
    let (crc, body) = bytes.split_at_checked(4).ok_or_else(|| invalid("CURRENT is too short"))?;
    if crc != crc32c(body).to_le_bytes() {
        return Err(invalid("CURRENT has a wrong checksum"));
    }
    codec::decode(body).map_err(|e| invalid(&e.to_string()))
}

fn write_rows(file: &dyn DiskFile, rows: impl Iterator<Item = Change>) -> io::Result<u64> {
    let mut at = 0;
    let mut put = |bytes: &[u8]| -> io::Result<()> {
        file.write_all_at(bytes, at)?;
        at += bytes.len() as u64;
        Ok(())
    };
    put(MAGIC)?;
    let mut frame = Vec::with_capacity(FRAME_BYTES + FRAME_BYTES / 4);
    for (key, value) in rows {
        push_row(&mut frame, &key, value.as_deref())?;
        if frame.len() >= FRAME_BYTES {
            put(&frame_head(&frame)?)?;
            put(&frame)?;
            frame.clear();
        }
    }
    if !frame.is_empty() {
        put(&frame_head(&frame)?)?;
        put(&frame)?;
    }
    put(&frame_head(&[])?)?;
    Ok(at)
}

fn frame_head(frame: &[u8]) -> io::Result<[u8; 8]> {
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let mut head = [0; 8];
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[4..].copy_from_slice(&crc32c(frame).to_le_bytes());
    Ok(head)
}

fn push_row(frame: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
    frame.put_u32_le(u32::try_from(key.len()).map_err(io::Error::other)?);
    let value_len = value.map_or(Ok(DELETED), |v| u32::try_from(v.len()));
    frame.put_u32_le(value_len.map_err(io::Error::other)?);
    frame.put_slice(key);
    frame.put_slice(value.unwrap_or_default());
    Ok(())
}

fn read_rows(
    env: &Env,
    path: &Path,
    take: &mut dyn FnMut(Vec<u8>, Option<Bytes>),
) -> io::Result<()> {
    let file = env.disk.open(path, OpenMode::Read)?;
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, 0).map_err(named)?;
    if &magic != MAGIC {
        return Err(named(invalid("not a row file of this version")));
    }
    let mut at = MAGIC.len() as u64;
    loop {
        let mut head = [0; 8];
        file.read_exact_at(&mut head, at).map_err(named)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if len == 0 {
            return Ok(());
        }
        if len > MAX_FRAME_BYTES {
            return Err(named(invalid("row frame is longer than any that is written")));
        }
        let mut frame = vec![0; len];
        file.read_exact_at(&mut frame, at + 8).map_err(named)?;
        if frame_head(&frame)? != head {
            return Err(named(invalid("row frame has a wrong checksum")));
        }
        decode_frame(frame.into(), take).map_err(named)?;
        at += 8 + len as u64;
    }
}

/// Decodes the rows of one frame; the fuzz target of the table format.
pub(crate) fn decode_frame(
    mut frame: Bytes,
    take: &mut dyn FnMut(Vec<u8>, Option<Bytes>),
) -> io::Result<()> {
    while !frame.is_empty() {
        if frame.len() < 8 {
            return Err(invalid("row head is cut"));
        }
        let key_len = frame.get_u32_le() as usize;
        let value_len = frame.get_u32_le();
        let stored = if value_len == DELETED { 0 } else { value_len as usize };
        if frame.len() < key_len.saturating_add(stored) {
            return Err(invalid("row is longer than its frame"));
        }
        let key = frame.split_to(key_len).to_vec();
        let value = frame.split_to(stored);
        take(key, (value_len != DELETED).then_some(value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base::env::SeededRandom;
    use base::env::sim_disk::{Crash, SimDisk};

    use super::*;

    fn env(disk: &SimDisk) -> Env {
        let mut env = Env::real();
        env.disk = Arc::new(disk.clone());
        env.random = Arc::new(SeededRandom::new(1));
        env
    }

    fn changes(rows: &[(&str, Option<&str>)]) -> BTreeMap<Vec<u8>, Option<Bytes>> {
        let own = |v: &Option<&str>| v.map(|v| Bytes::copy_from_slice(v.as_bytes()));
        rows.iter().map(|(k, v)| (k.as_bytes().to_vec(), own(v))).collect()
    }

    fn at(index: u64) -> Position {
        Position { applied: Some((1, index)), ..Position::default() }
    }

    fn reopen(disk: &SimDisk) -> CheckpointDir {
        CheckpointDir::open(&env(disk), Path::new("/data"), GroupId::FS).unwrap()
    }

    #[test]
    fn rows_survive_power_loss_once_added() {
        let disk = SimDisk::new(3);
        let mut dir = reopen(&disk);
        dir.add(at(5), &changes(&[("a", Some("1")), ("b", Some("2"))])).unwrap();
        dir.add(at(9), &changes(&[("a", None), ("c", Some("3"))])).unwrap();
        disk.crash(Crash::LoseUnsynced);
        let dir = reopen(&disk);
        let rows = dir.load().unwrap();
        assert_eq!(
            rows,
            BTreeMap::from([(b"b".to_vec(), "2".into()), (b"c".to_vec(), "3".into())])
        );
        assert_eq!(dir.current().unwrap().position.applied_index(), 9);
    }

    #[test]
    fn deltas_are_merged_when_they_outgrow_the_base() {
        let disk = SimDisk::new(3);
        let mut dir = reopen(&disk);
        for index in 1..=3 * MAX_DELTAS as u64 {
            dir.add(at(index), &changes(&[("k", Some(&index.to_string()))])).unwrap();
        }
        assert!(dir.current().unwrap().rows.len() <= MAX_DELTAS + 1);
        disk.crash(Crash::TearUnsynced);
        assert_eq!(reopen(&disk).load().unwrap()[&b"k"[..]], "192");
    }

    #[test]
    fn a_flipped_bit_is_reported() {
        let disk = SimDisk::new(3);
        let mut dir = reopen(&disk);
        dir.add(at(5), &changes(&[("key", Some("value"))])).unwrap();
        let path = dir.row_paths().remove(0);
        disk.flip_bit(&path, 25).unwrap();
        assert!(dir.load().unwrap_err().to_string().contains("checksum"));
    }

    #[test]
    fn cut_frames_are_errors() {
        let mut frame = Vec::new();
        push_row(&mut frame, b"key", Some(b"value")).unwrap();
        for cut in 1..frame.len() {
            assert!(decode_frame(frame[..cut].to_vec().into(), &mut |_, _| ()).is_err());
        }
    }
}
