//! Three nodes in one process on paused time: the real log and the real groups over simulated
//! disks and a network in memory. For faults that have to hit one exact moment; the simulator of
//! crate `sim` draws its own.

mod birth;
mod failures;
mod members;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::env::life_disk::LifeDisk;
use base::env::sim_disk::{Crash, SimDisk};
use base::env::{OpenMode, Random, SeededRandom, TokioClock};
use base::limits::KIB;
use base::{Disk as _, Env, GroupId, NodeId, TaskGroup};
use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver as _;
use parking_lot::Mutex;
use wal::{SyncMode, Wal};

use crate::birth::SlotReset;
use crate::cluster::{Cluster, ClusterOptions, Ground};
use crate::group::{GroupRef, ProposeError};
use crate::identity::{NodeFile, Owner};
use crate::machine::{ApplyAt, Fatal, StateMachine};
use crate::net::sim_net::{SimNet, SimPort, Weather};
use crate::raft::group::RaftGroup;
use crate::raft::types::StoredMembership;
use crate::sled_store::SledDb;
use crate::table::{MemStore, Rows, TableStore};

const TAG: u8 = 9;
/// 2026-01-01.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// Simulated time for whatever is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time of a flush: a write is seen by others before it is durable here.
const FLUSH: Duration = Duration::from_millis(4);
/// Messages take long enough to catch a cluster between two steps. After a second the sender of a
/// lost one learns that its connection broke.
const STEADY: Weather =
    Weather { delay_us: (4_000, 4_000), loss_one_in: 0, silence_ms: (1_000, 1_000) };
/// A file that is always there, to ask a disk whether it has power.
const PROBE: &str = "/probe";
const NODES: [u16; 3] = [1, 2, 3];
const D0: GroupId = GroupId(2);
/// Every group, in the order of the nodes that lead them.
const GROUPS: [GroupId; 3] = [GroupId::M0, GroupId::FS, D0];

/// Rows that clients set and delete; a copy in memory, as services keep one, must agree.
#[derive(Default)]
struct Map(BTreeMap<Vec<u8>, Bytes>);

fn set(key: &str, value: &str) -> Bytes {
    format!("{key}={value}").into()
}

fn delete(key: &str) -> Bytes {
    Bytes::copy_from_slice(key.as_bytes())
}

impl StateMachine for Map {
    fn apply(&mut self, _: &ApplyAt, command: Bytes, rows: &mut Rows<'_>) -> Result<Bytes, Fatal> {
        let mut parts = command.splitn(2, |byte| *byte == b'=');
        let key = parts.next().unwrap_or_default();
        match parts.next() {
            Some(value) => {
                let value = Bytes::copy_from_slice(value);
                self.0.insert(key.to_vec(), value.clone());
                rows.put(key, value);
            }
            None => {
                self.0.remove(key);
                rows.delete(key);
            }
        }
        Ok(Bytes::new())
    }

    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        self.0 = rows.scan(b"")?.into_iter().collect();
        Ok(())
    }

    fn digest(&mut self, add: &mut dyn FnMut(&[u8])) -> Result<(), Fatal> {
        for (key, value) in &self.0 {
            add(key);
            add(value);
        }
        Ok(())
    }
}

/// Slots that got a new holder.
#[derive(Default)]
struct Resets(Mutex<Vec<NodeId>>);

#[async_trait]
impl SlotReset for Resets {
    async fn reset_slot(&self, node: NodeId) -> Result<(), String> {
        self.0.lock().push(node);
        Ok(())
    }
}

/// A node from start to crash.
struct Life {
    cluster: Arc<Cluster>,
    disk: LifeDisk,
    tasks: TaskGroup,
}

struct Bench {
    net: Arc<SimNet>,
    disks: BTreeMap<u16, SimDisk>,
    lives: BTreeMap<u16, Life>,
    resets: Arc<Resets>,
    random: SeededRandom,
    /// They write the logs and end by themselves.
    drivers: TaskGroup,
    keep_log_bytes: u64,
    /// Where rows lie; without it they are in memory.
    sled: Option<tempfile::TempDir>,
}

fn blank_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new("/")).unwrap();
    disk.open(Path::new(PROBE), OpenMode::ReadWrite).unwrap().sync().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

/// Runs a test on time that passes only while nothing is left to do.
fn simulate<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).max_blocking_threads(2).build().unwrap();
    let result = runtime.block_on(test);
    runtime.shutdown_background();
    result
}

async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Bench {
    fn new(seed: u64) -> Self {
        let random = SeededRandom::new(seed);
        let net = SimNet::new(seed, NODES.map(NodeId).into());
        net.set_weather(STEADY);
        Self {
            net,
            disks: NODES.map(|node| (node, blank_disk(random.next_u64()))).into(),
            lives: BTreeMap::new(),
            resets: Arc::default(),
            random,
            drivers: TaskGroup::new(),
            keep_log_bytes: 1 << 30,
            sled: None,
        }
    }

    async fn three(seed: u64) -> Self {
        let mut bench = Self::new(seed);
        bench.start_all().await;
        bench
    }

    /// Starts every node that is down and waits until leaders are where they stay.
    async fn start_all(&mut self) {
        for node in NODES {
            if !self.lives.contains_key(&node) {
                self.start(node).await.unwrap();
            }
        }
        until("every node is ready", || self.is_ready()).await;
    }

    fn options(&self, node: u16) -> ClusterOptions {
        ClusterOptions {
            data_dir: "/data".into(),
            node: NodeId(node),
            addresses: BTreeMap::new(),
            data_groups: 1,
            heartbeat_ms: 100,
            election_ms: (500, 750),
            sync: SyncMode::EveryFlush,
            wal_file_bytes: 256 * KIB as u64,
            checkpoint_every: Duration::from_secs(2),
            keep_log_bytes: self.keep_log_bytes,
            reserve_bytes: 0,
            growing: Arc::new(|_, _, _| true),
        }
    }

    async fn start(&mut self, node: u16) -> Result<(), String> {
        let disk = LifeDisk::new(&self.disks[&node]);
        let tasks = TaskGroup::new();
        let booted = self.boot(node, &disk, &tasks).await;
        let failed = booted.as_ref().err().cloned();
        match booted {
            Ok(cluster) => drop(self.lives.insert(node, Life { cluster, disk, tasks })),
            Err(_) => tasks.stop(),
        }
        failed.map_or(Ok(()), Err)
    }

    async fn boot(
        &self,
        node: u16,
        disk: &LifeDisk,
        tasks: &TaskGroup,
    ) -> Result<Arc<Cluster>, String> {
        let env = Env {
            clock: Arc::new(TokioClock::new(EPOCH_MS)),
            random: Arc::new(SeededRandom::new(self.random.next_u64())),
            disk: Arc::new(disk.clone()),
        };
        let options = self.options(node);
        let owner = Owner { cluster: "sim".to_owned(), node: options.node, data_groups: 1 };
        let dir = options.data_dir.clone();
        let file = NodeFile::load_or_mint(&env, &dir, &owner).map_err(|e| e.to_string())?;
        file.save(&env, &dir).map_err(|e| e.to_string())?;
        let wal = wal::Options {
            file_bytes: options.wal_file_bytes,
            tail_cache_bytes: 128 * KIB,
            keep_spare_files: 1,
            most_spare_files: 2,
            ..wal::Options::new(dir.join("wal"))
        };
        let (wal, thread) = Wal::open(&env, wal).map_err(|e| e.to_string())?;
        self.drivers.spawn("wal", thread.drive(FLUSH));
        let port = SimPort::new(&self.net, file.identity(), tasks);
        let sled = self.open_sled(node);
        let tables = |id: GroupId| -> std::io::Result<Arc<dyn TableStore>> {
            match &sled {
                Some(db) => Ok(Arc::new(db.store(&id.to_string())?)),
                None => Ok(Arc::new(MemStore::default())),
            }
        };
        let machines =
            |_: GroupId| -> Vec<(u8, Box<dyn StateMachine>)> { vec![(TAG, Box::<Map>::default())] };
        let ground = Ground { file, wal: wal.clone(), link: port.clone(), tables: &tables };
        let cluster = Cluster::start_on(&env, options, ground, &machines, tasks).await;
        let cluster = cluster.map_err(|e| {
            wal.stop();
            e.to_string()
        })?;
        cluster.settle(self.resets.clone(), tasks);
        self.net.attach(port);
        Ok(cluster)
    }

    fn open_sled(&self, node: u16) -> Option<SledDb> {
        let dir = self.sled.as_ref()?;
        // The life before may not have let go of its own yet.
        let name = format!("{node}-{}", self.random.next_u64());
        Some(SledDb::open_blank(&dir.path().join(name)).unwrap())
    }

    /// Crashes nodes at the same moment, also those that did not get as far as to run.
    async fn crash(&mut self, nodes: &[u16], how: Crash) {
        let mut ended = Vec::new();
        for node in nodes {
            self.net.detach(NodeId(*node));
            match self.lives.remove(node) {
                Some(life) => {
                    life.disk.crash(how);
                    life.tasks.stop();
                    ended.push(life);
                }
                None => self.disks[node].crash(how),
            }
        }
        for life in ended {
            let halted = tokio::time::timeout(PATIENCE, life.cluster.halt()).await;
            halted.expect("the remains of a node end");
        }
    }

    fn has_power(&self, node: u16) -> bool {
        self.disks[&node].open(Path::new(PROBE), OpenMode::Read).is_ok()
    }

    fn cluster(&self, node: u16) -> &Arc<Cluster> {
        &self.lives[&node].cluster
    }

    /// Whether all three vote everywhere and every group is led by the node that should lead it.
    fn is_ready(&self) -> bool {
        let led = |life: &Life| life.cluster.is_ready() && life.cluster.is_balanced();
        self.lives.len() == NODES.len() && self.lives.values().all(led)
    }

    fn raft(&self, node: u16, group: GroupId) -> Arc<RaftGroup> {
        self.cluster(node).raft_group(group)
    }

    fn group(&self, node: u16, group: GroupId) -> GroupRef {
        self.raft(node, group)
    }

    fn membership(&self, node: u16, group: GroupId) -> Arc<StoredMembership> {
        let metrics = self.raft(node, group).raft.server_metrics();
        metrics.borrow_watched().membership_config.clone()
    }

    /// The Raft ids that the nodes have now.
    fn raft_ids(&self) -> BTreeSet<u64> {
        self.lives.values().map(|life| life.cluster.peers().identity().raft_id).collect()
    }

    /// Whether every node knows of every group that exactly the nodes of today vote in it, and
    /// that no change is under way.
    fn members_are_settled(&self) -> bool {
        let ids = self.raft_ids();
        let settled = |node: &u16, group: GroupId| {
            *self.membership(*node, group).membership().get_joint_config() == [ids.clone()]
        };
        self.lives.keys().all(|node| GROUPS.iter().all(|group| settled(node, *group)))
    }

    async fn propose(&self, node: u16, group: GroupId, command: Bytes) -> Result<(), ProposeError> {
        self.group(node, group).propose(TAG, command).await.map(drop)
    }

    /// The rows of a group on a node, behind a read barrier.
    async fn rows(&self, node: u16, group: GroupId) -> Vec<(String, String)> {
        self.group(node, group).read_barrier().await.unwrap();
        let rows = self.cluster(node).reader(group, TAG).scan(b"", None, usize::MAX).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        rows.iter().map(|(key, value)| (text(key), text(value))).collect()
    }

    async fn equal_digests(&self) {
        let mut all = Vec::new();
        for life in self.lives.values() {
            all.push(life.cluster.digests().await.unwrap());
        }
        assert!(all.iter().all(|digests| *digests == all[0]), "{all:?}");
    }
}
