//! All Raft groups of one node: start, checkpoints, purging, leader balance.

mod balance;
pub(crate) mod neighbours;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use base::limits::MIB;
use base::{Env, GroupId, NodeId, TaskGroup};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Config, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};
use wal::{SyncMode, Wal};

use self::balance::Handovers;
use self::neighbours::KeepingUp;
use crate::birth::{Birth, SlotReset};
use crate::group::{Group, GroupRef, Groups};
use crate::identity::{IdentityError, NodeFile};
use crate::machine::StateMachine;
use crate::net::Link;
use crate::net::tcp::{PeerAddress, TcpPeers};
use crate::raft::checkpoint::CheckpointDir;
use crate::raft::group::{Growing, NodeLimits, RaftGroup};
use crate::raft::host::{Host, Shared};
use crate::raft::network::Factory;
use crate::raft::serve::Server;
use crate::raft::silence::Silence;
use crate::raft::snapshot::clear_staging;
use crate::raft::store::LogStore;
use crate::raft::types::{Raft, to_pos};
use crate::sled_store::SledDb;
use crate::table::{RowsReader, TableStore};

/// Bytes of commands between proposal and reply, per node.
pub(crate) const BUDGET_BYTES: usize = 64 * MIB;
/// A group whose log grew by this much is checkpointed at once. A node that starts reads all log
/// that it keeps, and applies again what came after the checkpoint.
const CHECKPOINT_BYTES: u64 = 64 * MIB as u64;
/// How long a group's log gets to let go of what it may.
const PURGE_PATIENCE: Duration = Duration::from_millis(200);
/// How often a group looks whether a checkpoint is due.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(250);
/// How often a node makes checkpoints whose disk is below its reserve.
const LOW_DISK_EVERY: Duration = Duration::from_secs(5);
/// How often a node looks whether it keeps too much log.
const PURGE_LOOK: Duration = Duration::from_secs(1);

/// What a node's groups need to know.
pub struct ClusterOptions {
    /// The node's data directory.
    pub data_dir: PathBuf,
    /// This node's slot.
    pub node: NodeId,
    /// Where every node listens for peers, this one included.
    pub addresses: BTreeMap<NodeId, PeerAddress>,
    /// Number of data groups; fixed at birth.
    pub data_groups: u16,
    /// Heartbeat interval in milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest and longest election timeout in milliseconds.
    pub election_ms: (u64, u64),
    /// When writes are synced.
    pub sync: SyncMode,
    /// Size of a file of the write-ahead log.
    pub wal_file_bytes: u64,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// Log kept for followers that are away, in bytes; past it they get a snapshot.
    pub keep_log_bytes: u64,
    /// Below this many free bytes, growing commands are refused.
    pub reserve_bytes: u64,
    /// Which commands grow the disk.
    pub growing: Growing,
}

/// Makes the state machines of a group, by tag.
pub type MakeMachines<'a> = dyn Fn(GroupId) -> Vec<(u8, Box<dyn StateMachine>)> + 'a;

/// Makes the empty table store of a group.
pub type MakeTables<'a> = dyn Fn(GroupId) -> io::Result<Arc<dyn TableStore>> + 'a;

/// What the groups of a node stand on. [`Cluster::start`] makes the real things; simulations
/// bring their own.
pub struct Ground<'a> {
    /// The node's identity, already saved.
    pub file: NodeFile,
    /// The open log; whoever opened it also drives it.
    pub wal: Wal,
    /// The other nodes; must not deliver before the cluster is started.
    pub link: Arc<dyn Link>,
    /// Table stores.
    pub tables: &'a MakeTables<'a>,
}

/// Why a node's groups cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is not this node's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The write-ahead log cannot be opened.
    #[error("write-ahead log: {0}")]
    Wal(#[from] wal::WalError),
    /// A disk or socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The group's checkpoint is there, its log is not: its vote and what it acknowledged are lost,
    /// and under its old name the node would break what it promised.
    #[error(
        "group {group} has a checkpoint, but {} holds nothing of it; put that directory back, or \
         remove the whole data directory so that the other nodes bring this one up again",
        wal.display()
    )]
    LogMissing {
        /// The group.
        group: GroupId,
        /// Directory of the write-ahead log.
        wal: PathBuf,
    },
    /// Raft refuses to start.
    #[error("group {group}: {reason}")]
    Raft {
        /// The group.
        group: GroupId,
        /// What it says.
        reason: String,
    },
}

/// State of a group on this node, for people.
#[derive(Clone, Debug, serde::Serialize)]
pub struct GroupStatus {
    /// `m0`, `fs`, `d0`…
    pub group: String,
    /// leader, follower, candidate or learner.
    pub role: String,
    /// Slot of the leader.
    pub leader: Option<NodeId>,
    /// Raft term.
    pub term: u64,
    /// Last log index.
    pub last_log: u64,
    /// Last applied index.
    pub applied: u64,
    /// Index of the last checkpoint.
    pub checkpoint: u64,
    /// Last index that left the log.
    pub purged: u64,
    /// On the leader: entries each node lacks, by slot.
    pub lag: BTreeMap<u16, u64>,
}

struct Running {
    group: Arc<RaftGroup>,
    store: Arc<dyn TableStore>,
    last_checkpoint: AtomicU64,
    /// WAL bytes of the group at the last checkpoint.
    bytes_then: AtomicU64,
    /// While this node leads the group.
    keeping_up: Mutex<Option<KeepingUp>>,
    /// A checkpoint took rows and has not stored them yet.
    unfinished: AtomicBool,
    handovers: Mutex<Handovers>,
}

/// The groups of this node.
pub struct Cluster {
    env: Env,
    options: ClusterOptions,
    peers: Arc<dyn Link>,
    wal: Wal,
    birth: Arc<Birth>,
    groups: BTreeMap<GroupId, Running>,
    /// Until when this node keeps what leads it has.
    keeps_leads: Mutex<Option<tokio::time::Instant>>,
    /// See [`NodeLimits::disk_low`].
    disk_low: Arc<AtomicU16>,
    own_disk_low: Arc<AtomicBool>,
    /// Leaders have been where they should be, or that was waited for long enough.
    balanced: AtomicBool,
    failure: watch::Sender<Option<String>>,
    wal_thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Cluster {
    /// Opens the data directory that `file` describes, replays what was applied, and joins or
    /// awaits the cluster. Returns before the groups have leaders.
    pub async fn start(
        env: &Env,
        options: ClusterOptions,
        file: NodeFile,
        listeners: Vec<TcpListener>,
        machines: &MakeMachines<'_>,
        tasks: &TaskGroup,
    ) -> Result<Arc<Self>, StartError> {
        let dir = options.data_dir.clone();
        file.save(env, &dir)?;
        let (wal, thread) = Wal::open(env, wal_options(&options))?;
        let wal_thread = base::task::thread("wal", move || thread.run());
        let peers = TcpPeers::start(env, file.identity(), options.addresses.clone(), tasks);
        let sled = SledDb::open_blank(&dir.join("meta.sled"))?;
        let tables = |id: GroupId| -> io::Result<Arc<dyn TableStore>> {
            Ok(Arc::new(sled.store(&id.to_string())?))
        };
        let ground = Ground { file, wal, link: peers.clone(), tables: &tables };
        let this = Self::start_on(env, options, ground, machines, tasks).await?;
        *this.wal_thread.lock() = Some(wal_thread);
        for listener in listeners {
            peers.serve(listener);
        }
        Ok(this)
    }

    /// As [`Self::start`], on given ground.
    pub async fn start_on(
        env: &Env,
        options: ClusterOptions,
        ground: Ground<'_>,
        machines: &MakeMachines<'_>,
        tasks: &TaskGroup,
    ) -> Result<Arc<Self>, StartError> {
        let Ground { file, wal, link: peers, tables } = ground;
        let raft_id = file.raft_id;
        let birth = Birth::new(env, options.data_dir.clone(), file, peers.clone(), tasks);
        let disk_low = Arc::new(AtomicU16::new(0));
        let own_disk_low = Arc::new(AtomicBool::new(false));
        let limits = NodeLimits {
            budget: Arc::new(Semaphore::new(BUDGET_BYTES / 1024)),
            disk_low: disk_low.clone(),
            growing: options.growing.clone(),
        };
        let parts = Parts {
            env,
            options: &options,
            wal: &wal,
            peers: &peers,
            limits,
            tasks,
            started: tokio::time::Instant::now(),
        };
        let mut groups = BTreeMap::new();
        let ids = [GroupId::M0, GroupId::FS].into_iter();
        for id in ids.chain((0..options.data_groups).map(GroupId::data)) {
            let running = parts.start_group(id, tables(id)?, raft_id, machines(id)).await?;
            groups.insert(id, running);
        }
        let by_id: BTreeMap<_, _> = groups.iter().map(|(id, r)| (*id, r.group.clone())).collect();
        birth.set_groups(by_id.clone());
        peers.register_raft(Arc::new(Server {
            groups: by_id,
            birth: birth.clone(),
            own_disk_low: own_disk_low.clone(),
        }));
        let this = Arc::new(Self {
            env: env.clone(),
            options,
            peers,
            wal,
            birth,
            groups,
            keeps_leads: Mutex::new(None),
            disk_low,
            own_disk_low,
            balanced: AtomicBool::new(false),
            failure: watch::Sender::new(None),
            wal_thread: Mutex::new(None),
        });
        this.check_own_disk();
        for (number, id) in (0u32..).zip(this.groups.keys()) {
            tasks.spawn("checkpoints", this.clone().run_checkpoints(*id, number));
        }
        tasks.spawn("purge", this.clone().run_purge());
        tasks.spawn("leader balance", this.clone().run_balance());
        tasks.spawn("watch", this.clone().run_watch());
        Ok(this)
    }

    /// Begins birth or joining. `reset` is told before a blank node takes a slot.
    pub fn settle(&self, reset: Arc<dyn SlotReset>, tasks: &TaskGroup) {
        self.birth.set_reset(reset);
        tasks.spawn("birth", self.birth.clone().run());
    }

    /// The groups, for services.
    pub fn groups(&self) -> Groups {
        let get = |id: GroupId| -> GroupRef { self.groups[&id].group.clone() };
        Groups {
            m0: get(GroupId::M0),
            fs: get(GroupId::FS),
            data: (0..self.options.data_groups).map(|n| get(GroupId::data(n))).collect(),
        }
    }

    /// A group with its Raft, for tests that look at what no service may see.
    #[cfg(test)]
    pub(crate) fn raft_group(&self, id: GroupId) -> Arc<RaftGroup> {
        self.groups[&id].group.clone()
    }

    /// The other nodes.
    pub fn peers(&self) -> Arc<dyn Link> {
        self.peers.clone()
    }

    /// Reads the rows of a service in a group.
    pub fn reader(&self, group: GroupId, tag: u8) -> RowsReader {
        RowsReader::new(self.groups[&group].store.clone(), tag)
    }

    /// Becomes the reason once this node cannot go on; the process must then end.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    /// Whether this node's disk is below its reserve.
    pub fn disk_low(&self) -> bool {
        self.own_disk_low.load(Ordering::Relaxed)
    }

    /// A node whose disk is below its reserve: growing commands are refused everywhere.
    pub fn low_node(&self) -> Option<NodeId> {
        let node = self.disk_low.load(Ordering::Relaxed);
        (node != 0).then_some(NodeId(node))
    }

    /// Whether leaders were spread over the nodes since this node started, or that was waited for
    /// long enough. They move later when a node dies or comes back, or was slower than that.
    pub fn has_balanced(&self) -> bool {
        self.balanced.load(Ordering::Relaxed)
    }

    /// Whether this node votes in every group and every group has a leader that can lead.
    pub fn is_ready(&self) -> bool {
        self.birth.is_settled() && self.groups.values().all(|g| self.leader(g).is_some())
    }

    /// Who leads a group. Raft goes on naming the last leader when that is gone and nobody can be
    /// elected, and a leader that lost its followers goes on calling itself one.
    fn leader(&self, running: &Running) -> Option<NodeId> {
        let nodes = self.peers.all();
        let alive = nodes.iter().filter(|node| self.peers.is_alive(**node)).count();
        let leader = running.group.leadership().leader?;
        (alive > nodes.len() / 2 && self.peers.is_alive(leader)).then_some(leader)
    }

    /// The cluster's id as hex; `None` before birth.
    pub fn cluster_id(&self) -> Option<String> {
        let cluster = self.peers.identity().cluster;
        (cluster != [0; 16]).then(|| format!("{:032x}", u128::from_be_bytes(cluster)))
    }

    /// State of every group on this node.
    pub fn status(&self) -> Vec<GroupStatus> {
        self.groups.values().map(|g| group_status(g, self.leader(g))).collect()
    }

    /// Figures of the write-ahead log.
    pub fn wal_stats(&self) -> wal::WalStats {
        self.wal.stats()
    }

    /// The latest slow flushes of the write-ahead log, oldest first.
    pub fn slow_flushes(&self) -> Vec<wal::SlowFlush> {
        self.wal.slow_flushes()
    }

    /// Bytes of log files in use.
    pub fn wal_bytes(&self) -> u64 {
        self.wal.live_bytes()
    }

    /// Files of offered snapshots that came damaged and were refused.
    pub fn damaged_copies(&self) -> u64 {
        let of = |r: &Running| r.group.shared.damaged_copies.load(Ordering::Relaxed);
        self.groups.values().map(of).sum()
    }

    /// Applied index and digest of every group on this node, after a read barrier each.
    pub async fn digests(&self) -> Result<BTreeMap<String, (u64, u32)>, String> {
        let mut digests = BTreeMap::new();
        for (id, running) in &self.groups {
            running.group.read_barrier().await.map_err(|e| e.to_string())?;
            let digest = running
                .group
                .raft
                .with_state_machine(|host| Box::pin(std::future::ready(host.digest())))
                .await
                .map_err(|e| e.to_string())?
                .map_err(|e| e.to_string())?;
            digests.insert(id.to_string(), digest);
        }
        Ok(digests)
    }

    /// Hands leadership away, writes last checkpoints and stops Raft and the WAL.
    pub async fn stop(&self) {
        self.hand_over().await;
        for id in self.groups.keys() {
            if let Err(e) = self.checkpoint(*id).await {
                warn!(group = %id, "no last checkpoint: {e}");
            }
        }
        for running in self.groups.values() {
            if running.group.raft.shutdown().await.is_err() {
                warn!(group = %running.group.id(), "raft did not stop cleanly");
            }
        }
        self.wal.stop();
        let thread = self.wal_thread.lock().take();
        if let Some(thread) = thread {
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
    }

    /// Ends everything as a crash would: nothing is handed over, nothing written on purpose.
    /// For simulations, after the disk of the node died.
    pub async fn halt(&self) {
        self.wal.stop();
        for running in self.groups.values() {
            // A group that failed with its disk has ended already.
            drop(running.group.raft.shutdown().await);
        }
    }

    async fn hand_over(&self) {
        for running in self.groups.values() {
            if running.group.leadership().ready_here
                && let Some(target) = running.group.best_follower(|_| true)
            {
                // Best effort: without it an election follows.
                drop(running.group.raft.trigger().transfer_leader(target).await);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    fn fail(&self, reason: String) {
        self.failure.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(reason);
            }
            first
        });
    }

    /// Checkpoints of one group. Groups take turns within the interval, so that the disk does
    /// not get the work of all at once.
    async fn run_checkpoints(self: Arc<Self>, id: GroupId, number: u32) {
        let every = self.options.checkpoint_every;
        let groups = u32::try_from(self.groups.len()).unwrap_or(1);
        let mut last = tokio::time::Instant::now();
        let mut due = last + every * (number + 1) / groups;
        let running = &self.groups[&id];
        loop {
            tokio::time::sleep(CHECKPOINT_LOOK).await;
            let bytes = self.wal.live_bytes_of(id);
            let grown = bytes.saturating_sub(running.bytes_then.load(Ordering::Relaxed));
            let now = tokio::time::Instant::now();
            // What was deleted goes with the next checkpoints: sooner where room is short.
            let low = self.own_disk_low.load(Ordering::Relaxed);
            let is_due = now >= if low { due.min(last + LOW_DISK_EVERY) } else { due };
            if !is_due && grown <= CHECKPOINT_BYTES {
                continue;
            }
            (last, due) = (now, now + every);
            if let Err(e) = self.checkpoint(id).await {
                self.fail(format!("checkpoint of group {id}: {e}"));
                return;
            }
        }
    }

    async fn run_purge(self: Arc<Self>) {
        loop {
            tokio::time::sleep(PURGE_LOOK).await;
            // Room is worth more than sparing a follower that is away a snapshot.
            let low = self.own_disk_low.load(Ordering::Relaxed);
            let keep = if low { 0 } else { self.options.keep_log_bytes };
            if self.wal.live_bytes() <= keep {
                continue;
            }
            // A group that is seldom written to must not keep the log of all the others.
            for id in self.wal.late_checkpoints(keep / 2) {
                if let Err(e) = self.checkpoint(id).await {
                    self.fail(format!("checkpoint of group {id}: {e}"));
                    return;
                }
            }
            self.purge().await;
        }
    }

    /// Writes a checkpoint of a group, if anything was applied since the last one. Apply waits
    /// only while the state is taken, not for the disk. Not cancel-safe: after one that was
    /// dropped half way there is no other, for it would lack rows.
    pub async fn checkpoint(&self, id: GroupId) -> io::Result<()> {
        let running = &self.groups[&id];
        let _alone = running.group.checkpointing.lock().await;
        if running.unfinished.swap(true, Ordering::SeqCst) {
            return Err(io::Error::other("a checkpoint was abandoned half way"));
        }
        let last = running.last_checkpoint.load(Ordering::Relaxed);
        let taken = running
            .group
            .raft
            .with_state_machine(move |host| Box::pin(std::future::ready(host.checkpoint(last))))
            .await
            .map_err(io::Error::other)??;
        let Some(mut taken) = taken else {
            running.unfinished.store(false, Ordering::SeqCst);
            return Ok(());
        };
        let index = taken.position.applied_index();
        let taken = blocking(move || taken.sync_files(id).map(|()| taken)).await?;
        // Raft applies what a majority has synced, which may be ahead of this node's own disk.
        // A checkpoint beyond the synced log would leave a hole after power loss.
        while self.wal.durable_index(id) < index {
            if let Some(e) = self.wal.failed() {
                return Err(io::Error::other(e.to_string()));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let shared = running.group.shared.clone();
        blocking(move || shared.checkpoints.add(taken.position, taken.changes)).await?;
        running.unfinished.store(false, Ordering::SeqCst);
        running.last_checkpoint.store(index, Ordering::Relaxed);
        running.bytes_then.store(self.wal.live_bytes_of(id), Ordering::Relaxed);
        self.wal.set_checkpointed(id, index);
        debug!(group = %id, index, "checkpoint");
        // Entries come again without the snapshot that was under way.
        if index > last
            && let Ok(_none_comes) = running.group.installing.try_lock()
        {
            let shared = running.group.shared.clone();
            blocking(move || clear_staging(&shared).map(drop)).await?;
        }
        let shared = running.group.shared.clone();
        blocking(move || shared.checkpoints.compact()).await
    }

    /// Lets go of all log that is checkpointed.
    async fn purge(&self) {
        for (id, running) in &self.groups {
            let checkpoint = running.last_checkpoint.load(Ordering::Relaxed);
            let raft = &running.group.raft;
            let purged = raft.metrics().borrow_watched().purged.map_or(0, |p| p.index);
            if checkpoint <= purged {
                running.bytes_then.store(0, Ordering::Relaxed);
                continue;
            }
            // openraft purges up to its last snapshot only, and ours is the checkpoint.
            if raft.trigger().snapshot().await.is_err() {
                continue;
            }
            let reached = raft.wait(Some(Duration::from_secs(5)));
            let seen = |m: &openraft::RaftMetrics<crate::raft::types::Types>| {
                m.snapshot.is_some_and(|s| s.index >= checkpoint)
            };
            if reached.metrics(seen, "snapshot").await.is_err() {
                continue;
            }
            match raft.trigger().purge_log(checkpoint).await {
                Ok(()) => {
                    // It waits for followers that still need what is to go.
                    let gone = raft.wait(Some(PURGE_PATIENCE));
                    let seen = |m: &openraft::RaftMetrics<crate::raft::types::Types>| {
                        m.purged.is_some_and(|p| p.index >= checkpoint)
                    };
                    if gone.metrics(seen, "purge").await.is_ok() {
                        // What is left came after the checkpoint.
                        running.bytes_then.store(0, Ordering::Relaxed);
                    }
                }
                Err(e) => debug!(group = %id, "no purge: {e}"),
            }
        }
    }
}

/// Runs disk work on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn group_status(running: &Running, leader: Option<NodeId>) -> GroupStatus {
    let metrics = running.group.raft.metrics();
    let metrics = metrics.borrow_watched();
    let last_log = metrics.last_log_index.unwrap_or(0);
    let slot = |id: &u64| metrics.membership_config.get_node(id).map(|m| m.slot);
    let lag = metrics.replication.iter().flatten().filter_map(|(id, matched)| {
        Some((slot(id)?, last_log.saturating_sub(matched.map_or(0, |m| m.index))))
    });
    GroupStatus {
        group: running.group.id().to_string(),
        role: match metrics.state {
            ServerState::Leader => "leader",
            ServerState::Follower => "follower",
            ServerState::Candidate => "candidate",
            ServerState::Learner => "learner",
            ServerState::Shutdown => "stopped",
        }
        .to_owned(),
        leader,
        term: metrics.current_term,
        last_log,
        applied: metrics.last_applied.map_or(0, |a| a.index),
        checkpoint: running.last_checkpoint.load(Ordering::Relaxed),
        purged: metrics.purged.map_or(0, |p| p.index),
        lag: lag.collect(),
    }
}

fn wal_options(options: &ClusterOptions) -> wal::Options {
    let (sync, file_bytes) = (options.sync, options.wal_file_bytes);
    wal::Options { sync, file_bytes, ..wal::Options::new(options.data_dir.join("wal")) }
}

struct Parts<'a> {
    env: &'a Env,
    options: &'a ClusterOptions,
    wal: &'a Wal,
    peers: &'a Arc<dyn Link>,
    limits: NodeLimits,
    tasks: &'a TaskGroup,
    started: tokio::time::Instant,
}

impl Parts<'_> {
    async fn start_group(
        &self,
        id: GroupId,
        store: Arc<dyn TableStore>,
        raft_id: u64,
        machines: Vec<(u8, Box<dyn StateMachine>)>,
    ) -> Result<Running, StartError> {
        let checkpoints = CheckpointDir::open(self.env, &self.options.data_dir, id)?;
        let checkpointed = checkpoints.current().and_then(|c| c.position.applied_id());
        if checkpointed.is_some() && self.wal.vote(id).is_none() {
            return Err(StartError::LogMissing { group: id, wal: wal_options(self.options).dir });
        }
        let shared = Arc::new(Shared {
            group: id,
            env: self.env.clone(),
            data_dir: self.options.data_dir.clone(),
            store: store.clone(),
            checkpoints,
            applied: watch::Sender::new((0, 0)),
            damaged_copies: AtomicU64::new(0),
        });
        let host = Host::open(shared.clone(), machines.into_iter().collect())?;
        let index = checkpointed.map_or(0, |c| c.index);
        self.wal.set_checkpointed(id, index);
        let link = self.peers.clone();
        let silence = match self.wal.vote(id) {
            None => Silence::none(),
            Some(_) => {
                let lease = Duration::from_millis(self.options.election_ms.1);
                Silence::after_restart(self.started, lease)
            }
        };
        let factory = Factory { link: link.clone(), group: id, silence };
        let log = LogStore { wal: self.wal.clone(), group: id };
        debug_assert!(checkpointed.is_none_or(|c| to_pos(&c).index == index));
        let config = Arc::new(raft_config(self.options, id)?);
        let raft = Raft::new(raft_id, config, factory, log, host).await;
        let raft = raft.map_err(|e| StartError::Raft { group: id, reason: e.to_string() })?;
        let group = RaftGroup::start(
            raft,
            shared,
            link,
            silence,
            self.limits.clone(),
            self.wal.clone(),
            self.tasks,
        );
        Ok(Running {
            group,
            store,
            last_checkpoint: AtomicU64::new(index),
            bytes_then: AtomicU64::new(self.wal.live_bytes_of(id)),
            unfinished: AtomicBool::new(false),
            handovers: Mutex::default(),
            keeping_up: Mutex::new(None),
        })
    }
}

fn raft_config(options: &ClusterOptions, group: GroupId) -> Result<Config, StartError> {
    let config = Config {
        cluster_name: group.to_string(),
        heartbeat_interval: options.heartbeat_ms,
        election_timeout_min: options.election_ms.0,
        election_timeout_max: options.election_ms.1,
        // Snapshots and purging are ours: by bytes, at checkpoints.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        install_snapshot_timeout: 3_600_000,
        enable_pre_vote: Some(true),
        // A leader may lose entries that it never synced and that the two others have committed.
        // Were it to go on in its old term, it would give their log ids to other entries.
        enable_leader_restore: Some(false),
        // A follower may come back without what it had: by `wal.sync = interval`, by a disk that
        // did not do what it said, from a copy. Its leader would offer it the same entry for ever.
        allow_log_reversion: Some(true),
        ..Config::default()
    };
    let valid = config.validate();
    valid.map_err(|e| StartError::Raft { group, reason: e.to_string() })
}
