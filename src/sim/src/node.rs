//! A node: hardware that lasts, and one life after the other on it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::env::life_disk::LifeDisk;
use base::env::sim_disk::{Crash, SimDisk};
use base::env::{Clock, Random, SeededRandom, TokioClock};
use base::limits::KIB;
use base::{Env, GroupId, NodeId, TaskGroup};
use consensus::identity::{NodeFile, Owner};
use consensus::net::sim_net::{SimNet, SimPort};
use consensus::{
    Cluster, ClusterOptions, Ground, MemStore, SledDb, SlotReset, StateMachine, TableStore, tags,
};
use log::groups::GroupService;
use log::{LogOptions, LogService, LogShared};
use segment::{SegmentWriter, WriterOptions, Writing};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use wal::{SyncMode, Wal};

use crate::groups;
use crate::list::{self, List};

/// Data groups of the simulated cluster.
pub const DATA_GROUPS: u16 = 2;
/// 2026-01-01.
pub const EPOCH_MS: i64 = 1_767_225_600_000;
/// Small, so that files are recycled often.
const WAL_FILE_BYTES: u64 = 256 * KIB as u64;
/// Time for the remains of a crashed node to end.
const HALT_PATIENCE: Duration = Duration::from_secs(5);

/// What a node keeps through all its lives.
pub struct Hardware {
    /// The slot.
    pub node: NodeId,
    /// The disk.
    pub disk: SimDisk,
    clock: Arc<dyn Clock>,
    random: SeededRandom,
    keep_log_bytes: u64,
    /// Where sled keeps its image, on a real disk; without it rows are in memory.
    sled: Option<TempDir>,
}

impl Hardware {
    /// A blank machine. Its clock differs from the others' by up to two seconds.
    pub fn new(node: NodeId, seed: u64) -> Self {
        let random = SeededRandom::new(seed ^ (u64::from(node.0) << 48));
        let skew_ms = i64::try_from(random.below(2_000)).unwrap_or(0);
        // Small logs make nodes that were away need a snapshot.
        let keep_log_bytes = [0, 256 << 10, 1 << 30][usize::from(seed.to_le_bytes()[0] % 3)];
        let sled = (seed % 5 == 3).then(|| tempfile::tempdir().expect("a real disk for sled"));
        Self {
            node,
            disk: SimDisk::new(random.next_u64()),
            clock: Arc::new(TokioClock::new(EPOCH_MS + skew_ms)),
            random,
            keep_log_bytes,
            sled,
        }
    }

    fn options(&self) -> ClusterOptions {
        ClusterOptions {
            data_dir: "/data".into(),
            node: self.node,
            addresses: std::collections::BTreeMap::new(),
            data_groups: DATA_GROUPS,
            heartbeat_ms: 100,
            election_ms: (500, 750),
            sync: SyncMode::EveryFlush,
            wal_file_bytes: WAL_FILE_BYTES,
            checkpoint_every: Duration::from_millis(500 + self.random.below(3_000)),
            keep_log_bytes: self.keep_log_bytes,
            reserve_bytes: 0,
            growing: Arc::new(|_, _, _| true),
        }
    }

    fn wal_options(&self) -> wal::Options {
        wal::Options {
            file_bytes: WAL_FILE_BYTES,
            tail_cache_bytes: 128 * KIB,
            keep_spare_files: 1,
            most_spare_files: 2,
            ..wal::Options::new("/data/wal".into())
        }
    }

    /// The rows' image after a crash: whatever sled left is damaged before it is opened.
    fn open_sled(&self) -> std::io::Result<Option<SledDb>> {
        let Some(dir) = &self.sled else { return Ok(None) };
        let path = dir.path().join("meta.sled");
        damage(&path, &self.random)?;
        SledDb::open_blank(&path).map(Some)
    }

    /// Starts a life on `disk`. `drivers` holds the tasks that write the logs; they end by
    /// themselves.
    pub async fn boot(
        &self,
        net: &Arc<SimNet>,
        disk: LifeDisk,
        drivers: &TaskGroup,
        tasks: TaskGroup,
    ) -> Result<Life, String> {
        let text = |e: std::io::Error| e.to_string();
        let env = Env {
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(self.random.next_u64())),
            disk: Arc::new(disk.clone()),
        };
        let dir = Path::new("/data");
        env.disk.create_dir_all(dir).map_err(text)?;
        let owner = Owner { cluster: "sim".to_owned(), node: self.node, data_groups: DATA_GROUPS };
        let file = NodeFile::load_or_mint(&env, dir, &owner);
        let file = file.map_err(|e| e.to_string())?;
        file.save(&env, dir).map_err(text)?;
        let (wal, thread) = Wal::open(&env, self.wal_options()).map_err(|e| e.to_string())?;
        let flush_time = Duration::from_micros(200 + self.random.below(8_000));
        drivers.spawn("sim wal", thread.drive(flush_time));
        let port = SimPort::new(net, file.identity(), &tasks);
        let writer = WriterOptions {
            chunk_bytes: 16 * KIB,
            stream_cache_bytes: 32 * KIB,
            writing: Writing::Inline,
            ..WriterOptions::default()
        };
        let writer = SegmentWriter::start(&env, writer);
        let shared = LogShared::new(env.clone(), dir, writer.clone()).map_err(text)?;
        let machines = |group| machines(&shared, group);
        let sled = self.open_sled().map_err(text)?;
        let tables = |id: GroupId| -> std::io::Result<Arc<dyn TableStore>> {
            match &sled {
                Some(db) => Ok(Arc::new(db.store(&id.to_string())?)),
                None => Ok(Arc::new(MemStore::default())),
            }
        };
        let ground = Ground { file, wal: wal.clone(), link: port.clone(), tables: &tables };
        let started = Cluster::start_on(&env, self.options(), ground, &machines, &tasks).await;
        let cluster = started.map_err(|e| {
            wal.stop();
            e.to_string()
        })?;
        let readers = (0..DATA_GROUPS).map(|n| cluster.reader(GroupId::data(n), tags::LOG));
        let options = LogOptions {
            default_partitions: 2,
            retention_every: Duration::from_millis(200 + self.random.below(2_000)),
            compaction_every: Duration::from_millis(200 + self.random.below(2_000)),
            ..LogOptions::default()
        };
        let groups = cluster.groups();
        let log =
            LogService::start(shared, groups, cluster.peers(), readers.collect(), &tasks, options);
        let store = Arc::new(log.clone());
        let groups = GroupService::start(store, groups::config(), env, &tasks);
        cluster.settle(Arc::new(NoCredit), &tasks);
        net.attach(port);
        let ended = CancellationToken::new();
        Ok(Life { node: self.node, cluster, log, groups, disk, ended, tasks, writer })
    }
}

/// Cuts files short, overwrites their beginnings and removes some, as chance has it.
fn damage(dir: &Path, random: &SeededRandom) -> std::io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        match random.below(4) {
            0 => std::fs::remove_file(&path)?,
            1 => std::fs::write(&path, random.next_u64().to_le_bytes())?,
            2 => {
                let file = std::fs::OpenOptions::new().write(true).open(&path)?;
                file.set_len(random.below(file.metadata()?.len() + 1))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn machines(shared: &LogShared, group: GroupId) -> Vec<(u8, Box<dyn StateMachine>)> {
    match group {
        GroupId::M0 => vec![(tags::LOG, shared.machine_m0())],
        GroupId::FS => Vec::new(),
        data => {
            vec![(tags::LOG, shared.machine_data(data)), (list::TAG, Box::new(List::default()))]
        }
    }
}

/// Nothing here counts which node holds what.
struct NoCredit;

#[async_trait]
impl SlotReset for NoCredit {
    async fn reset_slot(&self, _node: NodeId) -> Result<(), String> {
        Ok(())
    }
}

/// A running node, from start to crash.
pub struct Life {
    /// The slot.
    pub node: NodeId,
    /// Its groups.
    pub cluster: Arc<Cluster>,
    /// Its log.
    pub log: LogService,
    /// The consumer groups that it coordinates.
    pub groups: Arc<GroupService>,
    /// Its disk.
    pub disk: LifeDisk,
    /// Cancelled when it crashes.
    pub ended: CancellationToken,
    tasks: TaskGroup,
    writer: SegmentWriter,
}

impl Life {
    /// Takes the node off the network and its disk away, at once.
    pub fn crash(&self, net: &SimNet, how: Crash) {
        net.detach(self.node);
        self.disk.crash(how);
        self.ended.cancel();
        self.tasks.stop();
    }

    /// Ends what still runs of a crashed node.
    pub async fn bury(&self) -> Result<(), String> {
        let halted = tokio::time::timeout(HALT_PATIENCE, self.cluster.halt()).await;
        self.writer.stop();
        halted.map_err(|_| format!("the remains of node {} do not end", self.node))
    }
}
