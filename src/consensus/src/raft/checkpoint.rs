//! Checkpoints: the durable copy of a group's rows.
//!
//! A group's folder holds one *base* (all rows), *deltas* (rows changed since, oldest first) and
//! `CURRENT`, which names them and says where they stand. Every file is synced before `CURRENT`
//! names it, and `CURRENT` is replaced by rename, so a crash leaves the old state or the new.
//! When the deltas outgrow half of the base, both are merged into a new base; files of the
//! previous state stay for one more round, because a peer may be copying them.
//!
//! Apply never waits here: whoever writes holds the writer's lock for as long as it takes, but
//! what `CURRENT` says is read under a lock of its own that is never held during I/O.
//!
//! `CURRENT`: `magic: 8 bytes | crc32c: u32 | body`; row files: see [`super::rows`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::codec;
use base::crc::crc32c;
use base::env::OpenMode;
use base::limits::MIB;
use base::{Env, GroupId};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::rows::{self, Merge};
use super::types::{LogId, Membership, MembershipRow, SnapshotMeta, StoredMembership, invalid};
use crate::machine::SnapshotFile;
use crate::table::Change;

const MAGIC: &[u8; 8] = b"trncurr1";
const CURRENT: &str = "CURRENT";
/// `CURRENT` names every file of the group, in about a hundred bytes each.
const MAX_CURRENT_BYTES: u64 = 512 * MIB as u64;
/// Magic and checksum before it.
const HEAD_BYTES: u64 = 64;
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

/// The checkpoint folder of one group. Any thread may read what is current.
pub(crate) struct CheckpointDir {
    env: Env,
    dir: PathBuf,
    /// The folder's path below the data directory, for peers that copy from it.
    relative: String,
    /// What `CURRENT` says. Held for moments only, never during I/O.
    current: Mutex<Option<Arc<Current>>>,
    /// Held by whoever writes, for as long as it takes.
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Writer {
    /// Row files of the state before, removed with the next one.
    previous: Vec<String>,
    /// The index of the newest row file, and how many were written at it before. Names have both:
    /// none is used again for other bytes, which a peer that copies from an older state would take
    /// for damaged ones.
    newest: Option<(u64, u32)>,
}

impl CheckpointDir {
    /// Opens or creates the folder, checks `CURRENT` and removes files it does not name.
    pub(crate) fn open(env: &Env, data_dir: &Path, group: GroupId) -> io::Result<Self> {
        let relative = format!("ckpt/{group}");
        let dir = data_dir.join(&relative);
        env.disk.create_dir_durably(&dir)?;
        let path = dir.join(CURRENT);
        let current = if env.disk.exists(&path)? {
            Some(Arc::new(decode_current(&env.disk.read(&path, MAX_CURRENT_BYTES + HEAD_BYTES)?)?))
        } else {
            None
        };
        let (current, writer) = (Mutex::new(current), Mutex::default());
        let this = Self { env: env.clone(), dir, relative, current, writer };
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

    /// The latest durable checkpoint. Never waits for a writer.
    pub(crate) fn current(&self) -> Option<Arc<Current>> {
        self.current.lock().clone()
    }

    fn row_paths(&self) -> Vec<PathBuf> {
        let current = self.current();
        let rows = current.iter().flat_map(|c| &c.rows);
        rows.map(|f| self.dir.join(file_name(&f.path))).collect()
    }

    /// All rows of the current state, in key order, read as they are taken.
    pub(crate) fn load(&self) -> io::Result<Merge> {
        Merge::open(&self.env, &self.row_paths())
    }

    /// Adds a checkpoint: the rows changed since the last one, and where they bring the state.
    /// Durable on return. Blocking; run it off the apply path.
    pub(crate) fn add(
        &self,
        position: Position,
        changes: BTreeMap<Vec<u8>, Option<Bytes>>,
    ) -> io::Result<()> {
        let mut writer = self.writer.lock();
        let current = self.current();
        // A state that is older than what is durable must never take its place.
        let stands_at = current.as_ref().map_or(0, |c| c.position.applied_index());
        assert!(position.applied_index() >= stands_at, "a checkpoint goes back");
        let mut rows = current.map_or_else(Vec::new, |c| c.rows.clone());
        if !changes.is_empty() || rows.is_empty() {
            let kind = if rows.is_empty() { "base" } else { "delta" };
            let changes = changes.into_iter().map(Ok);
            rows.push(self.write_rows(&mut writer, position.applied_index(), kind, changes)?);
        }
        self.switch(&mut writer, Current { position, rows })
    }

    /// Merges base and deltas into a new base when the deltas have outgrown it. Blocking, and
    /// long for a large group: run it off the apply path.
    pub(crate) fn compact(&self) -> io::Result<()> {
        let mut writer = self.writer.lock();
        let Some(current) = self.current().filter(|c| wants_compaction(c)) else { return Ok(()) };
        let index = current.position.applied_index();
        let base = self.write_rows(&mut writer, index, "base", self.load()?)?;
        let position = current.position.clone();
        self.switch(&mut writer, Current { position, rows: vec![base] })
    }

    fn write_rows(
        &self,
        writer: &mut Writer,
        index: u64,
        kind: &str,
        rows: impl Iterator<Item = io::Result<Change>>,
    ) -> io::Result<SnapshotFile> {
        // A checkpoint may follow one at the same index, also after a restart.
        let name = loop {
            let before = writer.newest.filter(|(at, _)| *at == index).map_or(0, |(_, n)| n + 1);
            writer.newest = Some((index, before));
            let name = match before {
                0 => format!("{index:020}.{kind}"),
                _ => format!("{index:020}-{before}.{kind}"),
            };
            if !self.env.disk.exists(&self.dir.join(&name))? {
                break name;
            }
        };
        let path = self.dir.join(&name);
        let file = self.env.disk.open(&path, OpenMode::ReadWrite)?;
        let written = rows::write(&*file, rows)?;
        file.sync()?;
        self.env.disk.sync_dir(&self.dir)?;
        let path = format!("{}/{name}", self.relative);
        Ok(SnapshotFile { path, len: written.len, crc: written.crc })
    }

    fn switch(&self, writer: &mut Writer, next: Current) -> io::Result<()> {
        let body = codec::encode_file(&next, MAX_CURRENT_BYTES)?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        self.env.disk.write_durably(&self.dir.join(CURRENT), &bytes)?;
        for name in std::mem::take(&mut writer.previous) {
            let kept = next.rows.iter().any(|f| file_name(&f.path) == name);
            if !kept && self.env.disk.exists(&self.dir.join(&name))? {
                self.env.disk.remove_file(&self.dir.join(&name))?;
            }
        }
        let old = self.current.lock().replace(Arc::new(next));
        let old_rows = old.iter().flat_map(|c| &c.rows);
        writer.previous = old_rows.map(|f| file_name(&f.path).to_owned()).collect();
        Ok(())
    }

    /// Takes over the row files that lie in `staged` under their own names. Durable on return.
    pub(crate) fn install(
        &self,
        position: Position,
        rows: &[SnapshotFile],
        staged: &Path,
    ) -> io::Result<()> {
        let mut writer = self.writer.lock();
        let mut ours = Vec::new();
        for (number, file) in rows.iter().enumerate() {
            // An own name, so that a file of the state before is never overwritten.
            let index = position.applied_index();
            let name = format!("{index:020}.{number:03}.installed");
            self.env.disk.rename(&staged.join(file_name(&file.path)), &self.dir.join(&name))?;
            ours.push(SnapshotFile { path: format!("{}/{name}", self.relative), ..file.clone() });
        }
        self.env.disk.sync_dir(&self.dir)?;
        self.switch(&mut writer, Current { position, rows: ours })
    }
}

fn wants_compaction(current: &Current) -> bool {
    let base = current.rows.first().map_or(0, |f| f.len);
    let deltas: u64 = current.rows.iter().skip(1).map(|f| f.len).sum();
    current.rows.len() > MAX_DELTAS || deltas > (base / 2).max(MIN_COMPACTION_BYTES)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn decode_current(bytes: &[u8]) -> io::Result<Current> {
    let body = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(4));
    let (crc, body) = body.ok_or_else(|| invalid("CURRENT is not of this version"))?;
    if crc != crc32c(body).to_le_bytes() {
        return Err(invalid("CURRENT has a wrong checksum"));
    }
    codec::decode_file(body, MAX_CURRENT_BYTES).map_err(|e| invalid(&e.to_string()))
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

    fn rows_of(dir: &CheckpointDir) -> BTreeMap<Vec<u8>, Bytes> {
        dir.load().unwrap().map(|row| row.unwrap()).map(|(k, v)| (k, v.unwrap())).collect()
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
        let dir = reopen(&disk);
        dir.add(at(5), changes(&[("a", Some("1")), ("b", Some("2"))])).unwrap();
        dir.add(at(9), changes(&[("a", None), ("c", Some("3"))])).unwrap();
        disk.crash(Crash::LoseUnsynced);
        let dir = reopen(&disk);
        assert_eq!(
            rows_of(&dir),
            BTreeMap::from([(b"b".to_vec(), "2".into()), (b"c".to_vec(), "3".into())])
        );
        assert_eq!(dir.current().unwrap().position.applied_index(), 9);
    }

    #[test]
    fn checkpoints_at_one_index_are_each_durable() {
        let disk = SimDisk::new(3);
        let dir = reopen(&disk);
        for value in ["1", "2", "3"] {
            dir.add(at(5), changes(&[("k", Some(value)), (value, Some("x"))])).unwrap();
            assert_eq!(rows_of(&dir)[&b"k"[..]], value);
        }
        disk.crash(Crash::LoseUnsynced);
        let rows = rows_of(&reopen(&disk));
        assert_eq!((rows.len(), &rows[&b"k"[..]]), (4, &Bytes::from("3")));
    }

    #[test]
    fn deltas_are_merged_when_they_outgrow_the_base() {
        let disk = SimDisk::new(3);
        let dir = reopen(&disk);
        for index in 1..=3 * MAX_DELTAS as u64 {
            dir.add(at(index), changes(&[("k", Some(&index.to_string()))])).unwrap();
            dir.compact().unwrap();
        }
        assert!(dir.current().unwrap().rows.len() <= MAX_DELTAS + 1);
        disk.crash(Crash::TearUnsynced);
        assert_eq!(rows_of(&reopen(&disk))[&b"k"[..]], "192");
    }

    #[test]
    fn a_flipped_bit_is_reported() {
        let disk = SimDisk::new(3);
        let dir = reopen(&disk);
        dir.add(at(5), changes(&[("key", Some("value"))])).unwrap();
        let path = dir.row_paths().remove(0);
        disk.flip_bit(&path, 25).unwrap();
        assert!(dir.load().err().unwrap().to_string().contains("checksum"));
    }
}
