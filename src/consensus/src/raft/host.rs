//! Runs the state machines of one group behind openraft's apply.
//!
//! Rows go to the table store with every entry; RAM state and files are made durable by
//! checkpoints. A checkpoint has two halves: [`Host::checkpoint`] runs between two entries and
//! takes what changed; the machines' disk work and [`super::checkpoint::CheckpointDir::add`]
//! bring it to disk while apply goes on.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use base::crc::crc32c_append;
use base::{Env, GroupId};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::batch;
use super::checkpoint::{CheckpointDir, Position};
use super::types::{
    Commands, Entry, LogId, Replies, SnapshotMeta, StoredMembership, Types, invalid,
};
use crate::machine::{ApplyAt, DiskWork, Fatal, SnapshotFile, StateMachine};
use crate::table::{Rows, TableStore};

/// Rows put into the table store at once at start.
const LOAD_ROWS: usize = 4096;

type Pending = BTreeMap<Vec<u8>, Option<Bytes>>;

/// A snapshot: row files of a checkpoint and the files they speak of, by path below the data
/// directory.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) position: Position,
    pub(crate) rows: Vec<SnapshotFile>,
    /// Where the row files and the missing file ranges were copied to; `None` at the sender.
    pub(crate) staged: Option<Staged>,
}

/// What was pulled from the sender.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    pub(crate) dir: PathBuf,
    pub(crate) pieces: Vec<Piece>,
}

/// The tail of a file that this node lacked.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Path of the file below the data directory.
    pub(crate) path: String,
    /// Offset of the piece in that file, in bytes.
    pub(crate) offset: u64,
    /// Name in the staging folder.
    pub(crate) name: String,
}

/// What the host shares with the rest of the group.
pub(crate) struct Shared {
    pub(crate) group: GroupId,
    pub(crate) env: Env,
    pub(crate) data_dir: PathBuf,
    pub(crate) store: Arc<dyn TableStore>,
    pub(crate) checkpoints: CheckpointDir,
    /// Term and index of the last applied entry.
    pub(crate) applied: watch::Sender<(u64, u64)>,
    /// Files of offered snapshots that came damaged.
    pub(crate) damaged_copies: AtomicU64,
}

impl Taken {
    /// Second half, before the log is waited for: makes files durable.
    pub(crate) fn sync_files(&mut self, group: GroupId) -> io::Result<()> {
        std::mem::take(&mut self.work)
            .into_iter()
            .try_for_each(|work| work().map_err(|e| fatal(group, &e)))
    }
}

/// The state machines of one group.
pub(crate) struct Host {
    shared: Arc<Shared>,
    /// The mutex is never contended: openraft wants the host to be `Sync`, machines need not be.
    machines: BTreeMap<u8, Mutex<Box<dyn StateMachine>>>,
    /// Rows changed since the last checkpoint.
    dirty: Pending,
    applied: Option<LogId>,
    membership: StoredMembership,
    time_ms: i64,
}

/// First half of a checkpoint: what was taken between two entries.
pub(crate) struct Taken {
    pub(crate) position: Position,
    /// To be written by [`CheckpointDir::add`], after the work.
    pub(crate) changes: Pending,
    /// To be done off the apply path.
    pub(crate) work: Vec<DiskWork>,
}

fn fatal(group: GroupId, error: &Fatal) -> io::Error {
    io::Error::other(format!("group {group}: {error}"))
}

impl Host {
    /// Loads the last checkpoint into the table store and the machines.
    pub(crate) fn open(
        shared: Arc<Shared>,
        machines: BTreeMap<u8, Box<dyn StateMachine>>,
    ) -> io::Result<Self> {
        let machines = machines.into_iter().map(|(tag, m)| (tag, Mutex::new(m))).collect();
        let membership = StoredMembership::default();
        let dirty = Pending::new();
        let mut host = Self { shared, machines, dirty, applied: None, membership, time_ms: 0 };
        host.load()?;
        Ok(host)
    }

    fn load(&mut self) -> io::Result<()> {
        let current = self.shared.checkpoints.current();
        let position = current.map(|c| c.position.clone()).unwrap_or_default();
        self.shared.store.clear()?;
        let mut rows = self.shared.checkpoints.load()?.peekable();
        while rows.peek().is_some() {
            let part = rows.by_ref().take(LOAD_ROWS).collect::<io::Result<Vec<_>>>()?;
            self.shared.store.write_batch(position.applied_index(), &part)?;
        }
        self.dirty.clear();
        self.applied = position.applied_id();
        self.membership = position.stored_membership()?;
        self.time_ms = position.time_ms;
        let mut pending = Pending::new();
        for (tag, machine) in &mut self.machines {
            let rows = Rows::new(&*self.shared.store, &mut pending, *tag);
            machine.get_mut().restore(&rows).map_err(|e| fatal(self.shared.group, &e))?;
        }
        self.shared.applied.send_replace(position.applied.unwrap_or_default());
        Ok(())
    }

    /// Between two entries: moves everything into rows and takes what changed. `None` when
    /// nothing was applied since `last`, unless files wait to go: a disk that is full must not
    /// wait for writes that are refused because it is full.
    pub(crate) fn checkpoint(&mut self, last: u64) -> io::Result<Option<Taken>> {
        let Some(applied) = self.applied else { return Ok(None) };
        if applied.index == last
            && !self.machines.values_mut().any(|m| m.get_mut().waits_for_checkpoint())
        {
            return Ok(None);
        }
        self.capture()?;
        let files = self.machines.values_mut().flat_map(|m| m.get_mut().files()).collect();
        let position = Position::new(self.applied, &self.membership, self.time_ms, files);
        let work = self.machines.values_mut().map(|m| m.get_mut().begin_checkpoint()).collect();
        Ok(Some(Taken { position, changes: std::mem::take(&mut self.dirty), work }))
    }

    /// Moves all RAM state into rows.
    fn capture(&mut self) -> io::Result<()> {
        let mut pending = Pending::new();
        for (tag, machine) in &mut self.machines {
            let mut rows = Rows::new(&*self.shared.store, &mut pending, *tag);
            machine.get_mut().capture(&mut rows).map_err(|e| fatal(self.shared.group, &e))?;
        }
        self.commit(pending)
    }

    /// Applied index and a checksum over all replicated state, equal on every node.
    pub(crate) fn digest(&mut self) -> io::Result<(u64, u32)> {
        self.capture()?;
        let mut crc = 0;
        let mut add = |bytes: &[u8]| crc = crc32c_append(crc, bytes);
        for (tag, machine) in &mut self.machines {
            let mut from = vec![*tag];
            let mut bound = std::ops::Bound::Included(&from[..]);
            loop {
                let rows = self.shared.store.scan(&[*tag], bound, 1024)?;
                for (key, value) in &rows {
                    add(key);
                    add(value);
                }
                let Some((last, _)) = rows.last() else { break };
                from.clone_from(last);
                bound = std::ops::Bound::Excluded(&from[..]);
            }
            machine.get_mut().digest(&mut add).map_err(|e| fatal(self.shared.group, &e))?;
        }
        Ok((self.applied.map_or(0, |id| id.index), crc))
    }

    fn commit(&mut self, pending: Pending) -> io::Result<()> {
        if pending.is_empty() {
            return Ok(());
        }
        let changes: Vec<_> = pending.into_iter().collect();
        self.shared.store.write_batch(self.applied.map_or(0, |id| id.index), &changes)?;
        self.dirty.extend(changes);
        Ok(())
    }

    fn apply_entry(&mut self, entry: Entry) -> io::Result<Replies> {
        let id = entry.log_id;
        self.applied = Some(id);
        let replies = match entry.payload {
            EntryPayload::Blank => Replies::default(),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership);
                Replies::default()
            }
            EntryPayload::Normal(commands) => self.apply_commands(id, commands)?,
        };
        self.shared.applied.send_replace((id.leader_id.term, id.index));
        Ok(replies)
    }

    fn apply_commands(&mut self, id: LogId, commands: Commands) -> io::Result<Replies> {
        let group = self.shared.group;
        let (time_ms, items) = batch::decode(commands.0)?;
        // Clocks of successive leaders differ; replicated time never goes back.
        self.time_ms = self.time_ms.max(time_ms);
        let at = ApplyAt { group, index: id.index, term: id.leader_id.term, time_ms: self.time_ms };
        let mut pending = Pending::new();
        let mut replies = Vec::with_capacity(items.len());
        for item in items {
            let machine = self.machines.get_mut(&item.tag).ok_or_else(|| {
                invalid(&format!("group {group}: entry {} has unknown tag {}", id.index, item.tag))
            })?;
            let mut rows = Rows::new(&*self.shared.store, &mut pending, item.tag);
            replies.push(
                machine.get_mut().apply(&at, item.body, &mut rows).map_err(|e| fatal(group, &e))?,
            );
        }
        self.commit(pending)?;
        Ok(Replies(replies))
    }

    fn install(&mut self, manifest: &Manifest) -> io::Result<()> {
        let group = self.shared.group;
        let staged = manifest.staged.as_ref();
        let staged = staged.ok_or_else(|| invalid("a snapshot arrived without its files"))?;
        for machine in self.machines.values_mut() {
            machine.get_mut().release().map_err(|e| fatal(group, &e))?;
        }
        super::snapshot::place(&self.shared, staged)?;
        let position = manifest.position.clone();
        self.shared.checkpoints.install(position, &manifest.rows, &staged.dir)?;
        self.shared.env.disk.remove_dir_all(&staged.dir)?;
        self.load()
    }
}

impl RaftStateMachine<Types> for Host {
    type SnapshotData = Manifest;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let replies = self.apply_entry(entry)?;
            if let Some(responder) = responder {
                responder.send(replies);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(self.shared.clone())
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: Manifest,
    ) -> Result<(), io::Error> {
        base::task::may_wait(|| self.install(&snapshot))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf>, io::Error> {
        latest(&self.shared)
    }
}

type SnapshotOf = openraft::type_config::alias::SnapshotOf<Types, Manifest>;

fn latest(shared: &Shared) -> io::Result<Option<SnapshotOf>> {
    let Some(current) = shared.checkpoints.current() else { return Ok(None) };
    let snapshot =
        Manifest { position: current.position.clone(), rows: current.rows.clone(), staged: None };
    Ok(Some(Snapshot { meta: current.position.meta()?, snapshot }))
}

/// "Builds" a snapshot: the latest checkpoint already is one.
pub(crate) struct Builder(Arc<Shared>);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Manifest;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf, io::Error> {
        latest(&self.0)?.ok_or_else(|| io::Error::other("no checkpoint was written yet"))
    }
}
