//! The bench: three nodes, each in its own folder of one temporary directory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::crc::crc32c;
use base::{Env, GroupId, NodeId, OpenMode, TaskGroup};
use bytes::Bytes;
use consensus::identity::{NodeFile, Owner};
use consensus::net::tcp::PeerAddress;
use consensus::{
    ApplyAt, Cluster, ClusterOptions, DiskWork, Fatal, GroupStatus, Rows, SlotReset, SnapshotFile,
    StartError, StateMachine,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::gate::Gate;

pub(crate) const TAG: u8 = 9;
/// A value that counts as freeing space.
pub(crate) const SHRINKS: &str = "frees space";
/// Each file is written once before it is used, which a slow disk needs long for.
const WAL_FILE_BYTES: u64 = 4 << 20;
/// A machine that has just compiled everything may take seconds for a sync.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// Row key of the value with this number.
pub(crate) fn key(number: u64) -> Vec<u8> {
    [b"v".as_slice(), &number.to_be_bytes()].concat()
}

/// Remembers every value it was given, in order, in rows and in a file: an apply that is lost,
/// doubled or reordered shows in both.
struct List {
    env: Env,
    data_dir: PathBuf,
    group: GroupId,
    len: u64,
    content: Vec<u8>,
    /// Bytes of `content` that the file has.
    synced: usize,
}

impl List {
    pub(crate) fn file(&self) -> SnapshotFile {
        let path = format!("parts/{}/list.log", self.group);
        SnapshotFile { path, len: self.content.len() as u64, crc: crc32c(&self.content) }
    }
}

impl StateMachine for List {
    fn apply(
        &mut self,
        _at: &ApplyAt,
        command: Bytes,
        rows: &mut Rows<'_>,
    ) -> Result<Bytes, Fatal> {
        self.content.extend_from_slice(&command);
        rows.put(&key(self.len), command);
        self.len += 1;
        Ok(Bytes::copy_from_slice(&(self.len - 1).to_be_bytes()))
    }

    fn capture(&mut self, rows: &mut Rows<'_>) -> Result<(), Fatal> {
        rows.put(b"bytes", (self.content.len() as u64).to_be_bytes().to_vec());
        Ok(())
    }

    fn begin_checkpoint(&mut self) -> DiskWork {
        let path = self.data_dir.join(self.file().path);
        let from = std::mem::replace(&mut self.synced, self.content.len());
        let (disk, bytes) = (self.env.disk.clone(), self.content[from..].to_vec());
        Box::new(move || {
            disk.create_dir_all(path.parent().unwrap())?;
            let file = disk.open(&path, OpenMode::ReadWrite)?;
            file.write_all_at(&bytes, from as u64)?;
            file.sync()?;
            disk.sync_dir(path.parent().unwrap())?;
            Ok(())
        })
    }

    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        self.len = rows.scan(b"v")?.len() as u64;
        self.content.clear();
        if let Some(len) = rows.get(b"bytes")? {
            let len = u64::from_be_bytes(len[..].try_into().unwrap());
            self.content.resize(usize::try_from(len).unwrap(), 0);
            let path = self.data_dir.join(self.file().path);
            if len > 0 {
                let file = self.env.disk.open(&path, OpenMode::ReadWrite)?;
                file.read_exact_at(&mut self.content, 0)?;
            }
        }
        self.synced = self.content.len();
        let values: Vec<u8> = rows.scan(b"v")?.into_iter().flat_map(|(_, v)| v).collect();
        let equal = values == self.content;
        if equal { Ok(()) } else { Err(Fatal("rows and file differ".to_owned())) }
    }

    fn files(&self) -> Vec<SnapshotFile> {
        vec![self.file()]
    }

    fn digest(&mut self, add: &mut dyn FnMut(&[u8])) -> Result<(), Fatal> {
        add(&self.content);
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct Resets(pub(crate) Mutex<Vec<NodeId>>);

#[async_trait]
impl SlotReset for Resets {
    async fn reset_slot(&self, node: NodeId) -> Result<(), String> {
        self.0.lock().push(node);
        Ok(())
    }
}

pub(crate) struct Node {
    pub(crate) cluster: Arc<Cluster>,
    tasks: TaskGroup,
}

pub(crate) struct Bench {
    dir: tempfile::TempDir,
    addresses: BTreeMap<NodeId, PeerAddress>,
    pub(crate) nodes: BTreeMap<u16, Node>,
    pub(crate) resets: Arc<Resets>,
    pub(crate) keep_log_bytes: u64,
    /// What holds up syncs of node 1's disk.
    pub(crate) gate: Gate,
}

impl Drop for Bench {
    /// What nodes still write while they end would be left behind by a single attempt.
    fn drop(&mut self) {
        for (_, node) in std::mem::take(&mut self.nodes) {
            node.tasks.stop();
        }
        for _ in 0..500 {
            match std::fs::remove_dir_all(self.dir.path()) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                _ => break,
            }
        }
    }
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut addresses = BTreeMap::new();
        let mut held = Vec::new();
        for node in 1..=3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let raft = listener.local_addr().unwrap().to_string();
            addresses.insert(NodeId(node), PeerAddress { bulk: raft.clone(), raft });
            held.push(listener);
        }
        let resets = Arc::new(Resets::default());
        Self {
            dir,
            addresses,
            nodes: BTreeMap::new(),
            resets,
            keep_log_bytes: 1 << 30,
            gate: Gate::default(),
        }
    }

    pub(crate) fn path(&self, node: u16) -> PathBuf {
        self.dir.path().join(format!("n{node}"))
    }

    pub(crate) async fn start(&mut self, node: u16) {
        let node_started = self.try_start(node).await.unwrap();
        self.nodes.insert(node, node_started);
    }

    pub(crate) async fn try_start(&self, node: u16) -> Result<Node, StartError> {
        let options = ClusterOptions {
            data_dir: self.path(node),
            node: NodeId(node),
            addresses: self.addresses.clone(),
            data_groups: 2,
            heartbeat_ms: 100,
            election_ms: (500, 750),
            sync: wal::SyncMode::EveryFlush,
            wal_file_bytes: WAL_FILE_BYTES,
            checkpoint_every: Duration::from_millis(500),
            keep_log_bytes: self.keep_log_bytes,
            reserve_bytes: 1,
            growing: Arc::new(|_, _, command| command != SHRINKS.as_bytes()),
        };
        let tasks = TaskGroup::new();
        let address = &self.addresses[&NodeId(node)].raft;
        let listener = loop {
            // The port of a node that was just stopped may linger for a moment.
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let mut env = Env::real();
        if node == 1 {
            env.disk = Arc::new(self.gate.disk());
        }
        let machines = |group: GroupId| -> Vec<(u8, Box<dyn StateMachine>)> {
            let (env, data_dir) = (env.clone(), self.path(node));
            vec![(TAG, Box::new(List { env, data_dir, group, len: 0, content: vec![], synced: 0 }))]
        };
        let owner = Owner {
            cluster: "bench".to_owned(),
            node: options.node,
            data_groups: options.data_groups,
        };
        let file = NodeFile::load_or_mint(&env, &options.data_dir, &owner)?;
        let cluster =
            Cluster::start(&env, options, file, vec![listener], &machines, &tasks).await?;
        cluster.settle(self.resets.clone(), &tasks);
        Ok(Node { cluster, tasks })
    }

    pub(crate) async fn stop(&mut self, node: u16) {
        let node = self.nodes.remove(&node).unwrap();
        node.cluster.stop().await;
        node.tasks.shutdown(PATIENCE).await;
        let led = |group: GroupStatus| group.leader.is_some_and(|n| self.nodes.contains_key(&n.0));
        let all_led = |cluster: &Cluster| cluster.status().into_iter().all(led);
        if self.nodes.len() > 1 {
            until("others lead", || self.nodes.values().all(|n| all_led(&n.cluster))).await;
        }
    }

    pub(crate) fn cluster(&self, node: u16) -> &Arc<Cluster> {
        &self.nodes[&node].cluster
    }

    /// Waits until every node that runs is ready and leads what it should: the outcome of a
    /// proposal whose leader moves may be unknown.
    pub(crate) async fn ready(&self) {
        let nodes = (1..=3).cycle();
        let leads = |(group, node): (GroupStatus, u16)| {
            !self.nodes.contains_key(&node) || group.leader == Some(NodeId(node))
        };
        let spread = |cluster: &Cluster| cluster.status().into_iter().zip(nodes.clone()).all(leads);
        let ready = |cluster: &Cluster| cluster.is_ready() && spread(cluster);
        until("every node is ready", || self.nodes.values().all(|n| ready(&n.cluster))).await;
    }

    pub(crate) async fn put(&self, node: u16, group: usize, value: String) -> u64 {
        let groups = self.cluster(node).groups();
        let applied = groups.data[group].propose(TAG, value.into()).await.unwrap();
        u64::from_be_bytes(applied.reply[..].try_into().unwrap())
    }

    pub(crate) async fn equal_digests(&self) {
        let mut all = BTreeMap::new();
        for (node, running) in &self.nodes {
            all.insert(*node, running.cluster.digests().await.unwrap());
        }
        let first = all.values().next().unwrap().clone();
        for (node, digests) in all {
            for (group, (index, crc)) in digests {
                let (at, expected) = first[&group];
                assert!(at != index || crc == expected, "node {node} group {group} differs");
                assert_eq!(crc, expected, "node {node} group {group} at {index}, first at {at}");
            }
        }
    }
}

pub(crate) async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn three() -> Bench {
    let mut bench = Bench::new().await;
    for node in 1..=3 {
        bench.start(node).await;
    }
    bench.ready().await;
    bench
}
