//! Three nodes in one process, on real disks and sockets: birth, proposals from any node,
//! restart, a wiped node, a follower past the purge point, equal digests.

#![allow(clippy::unwrap_used, reason = "a test")]
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{Env, GroupId, NodeId, TaskGroup};
use bytes::Bytes;
use consensus::net::tcp::PeerAddress;
use consensus::{
    ApplyAt, Cluster, ClusterOptions, Fatal, Rows, SlotReset, StartError, StateMachine,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;

const TAG: u8 = 9;
const PATIENCE: Duration = Duration::from_secs(60);

/// Remembers every value it was given, in order: an apply that is lost, doubled or reordered
/// shows in the rows.
struct List {
    len: u64,
}

impl StateMachine for List {
    fn apply(
        &mut self,
        _at: &ApplyAt,
        command: Bytes,
        rows: &mut Rows<'_>,
    ) -> Result<Bytes, Fatal> {
        rows.put(&self.len.to_be_bytes(), command);
        self.len += 1;
        Ok(Bytes::copy_from_slice(&(self.len - 1).to_be_bytes()))
    }

    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        self.len = rows.scan(b"")?.len() as u64;
        Ok(())
    }
}

#[derive(Default)]
struct Resets(Mutex<Vec<NodeId>>);

#[async_trait]
impl SlotReset for Resets {
    async fn reset_slot(&self, node: NodeId) -> Result<(), String> {
        self.0.lock().push(node);
        Ok(())
    }
}

struct Node {
    cluster: Arc<Cluster>,
    tasks: TaskGroup,
}

struct Bench {
    dir: tempfile::TempDir,
    addresses: BTreeMap<NodeId, PeerAddress>,
    nodes: BTreeMap<u16, Node>,
    resets: Arc<Resets>,
    keep_log_bytes: u64,
}

impl Bench {
    async fn new() -> Self {
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
        Self { dir, addresses, nodes: BTreeMap::new(), resets, keep_log_bytes: 1 << 30 }
    }

    fn path(&self, node: u16) -> PathBuf {
        self.dir.path().join(format!("n{node}"))
    }

    async fn start(&mut self, node: u16) {
        let node_started = self.try_start(node).await.unwrap();
        self.nodes.insert(node, node_started);
    }

    async fn try_start(&self, node: u16) -> Result<Node, StartError> {
        let options = ClusterOptions {
            data_dir: self.path(node),
            node: NodeId(node),
            addresses: self.addresses.clone(),
            data_groups: 2,
            heartbeat_ms: 100,
            election_ms: (500, 750),
            sync: wal::SyncMode::EveryFlush,
            checkpoint_every: Duration::from_millis(500),
            keep_log_bytes: self.keep_log_bytes,
            reserve_bytes: 0,
            growing: Arc::new(|_, _, _| true),
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
        let machines = |_: GroupId| -> Vec<(u8, Box<dyn StateMachine>)> {
            vec![(TAG, Box::new(List { len: 0 }))]
        };
        let env = Env::real();
        let cluster = Cluster::start(&env, options, vec![listener], &machines, &tasks).await?;
        cluster.settle(self.resets.clone(), &tasks);
        Ok(Node { cluster, tasks })
    }

    async fn stop(&mut self, node: u16) {
        let node = self.nodes.remove(&node).unwrap();
        node.cluster.stop().await;
        node.tasks.shutdown(PATIENCE).await;
    }

    fn cluster(&self, node: u16) -> &Arc<Cluster> {
        &self.nodes[&node].cluster
    }

    async fn ready(&self) {
        until("every node is ready", || self.nodes.values().all(|n| n.cluster.is_ready())).await;
    }

    async fn put(&self, node: u16, group: usize, value: String) -> u64 {
        let groups = self.cluster(node).groups();
        let applied = groups.data[group].propose(TAG, value.into()).await.unwrap();
        u64::from_be_bytes(applied.reply[..].try_into().unwrap())
    }

    async fn equal_digests(&self) {
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

async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn three() -> Bench {
    let mut bench = Bench::new().await;
    for node in 1..=3 {
        bench.start(node).await;
    }
    bench.ready().await;
    bench
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_from_any_node_are_applied_once_and_survive_restart() {
    let mut bench = three().await;
    let mut slots = BTreeSet::new();
    for n in 0..60 {
        let node = n % 3 + 1;
        assert!(slots.insert(bench.put(node, 0, format!("value {n}")).await), "applied twice");
    }
    assert_eq!(slots, (0..60).collect());
    bench.equal_digests().await;
    for node in 1..=3 {
        bench.stop(node).await;
    }
    for node in 1..=3 {
        bench.start(node).await;
    }
    bench.ready().await;
    assert_eq!(bench.put(2, 0, "after".into()).await, 60);
    let groups = bench.cluster(3).groups();
    groups.data[0].read_barrier().await.unwrap();
    let reader = bench.cluster(3).reader(GroupId::data(0), TAG);
    assert_eq!(reader.get(&60u64.to_be_bytes()).unwrap().unwrap(), "after");
    assert_eq!(reader.get(&7u64.to_be_bytes()).unwrap().unwrap(), "value 7");
    bench.equal_digests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_spread_over_the_nodes() {
    let bench = three().await;
    let spread = || {
        let leaders: BTreeSet<_> = bench.cluster(1).status().iter().map(|g| g.leader).collect();
        leaders.len() == 3 && !leaders.contains(&None)
    };
    until("each node leads a group", spread).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_it_is_asked_to_go() {
    let bench = three().await;
    let index = bench.put(1, 0, "before".into()).await;
    // Every node asks: for itself, and from elsewhere.
    for (asked, to) in [(1, 2), (2, 2), (3, 1), (1, 3), (2, 1)] {
        let group = bench.cluster(asked).groups().data[0].clone();
        // The balance may move it back at once, so only the call itself says that it went.
        group.transfer(NodeId(to)).await.unwrap();
    }
    let state = bench.cluster(2).groups().data[0].log_state().await.unwrap();
    assert!(state.committed > index && state.term > 1, "{state:?}");
    let nodes: Vec<u16> = state.replicas.iter().map(|replica| replica.node.0).collect();
    assert_eq!(nodes, [1, 2, 3]);
    let leader = state.replicas.iter().find(|r| Some(r.node) == state.leader).unwrap();
    assert!(leader.votes && leader.last_index >= state.committed, "{state:?}");
    // Nothing is lost on the way.
    bench.put(3, 0, "after".into()).await;
    bench.equal_digests().await;
    let nobody = bench.cluster(1).groups().data[0].transfer(NodeId(9)).await;
    assert!(nobody.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_go_on_and_the_third_catches_up() {
    let mut bench = three().await;
    bench.put(1, 1, "a".into()).await;
    bench.stop(1).await;
    for n in 0..20 {
        bench.put(2, 1, format!("b{n}")).await;
    }
    until("silence is noticed", || !bench.cluster(2).peers().is_alive(NodeId(1))).await;
    bench.start(1).await;
    bench.ready().await;
    assert_eq!(bench.put(1, 1, "c".into()).await, 21);
    bench.equal_digests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_is_replaced_and_its_slot_reset() {
    let mut bench = three().await;
    for n in 0..20 {
        bench.put(1, 0, format!("v{n}")).await;
    }
    bench.stop(3).await;
    std::fs::remove_dir_all(bench.path(3)).unwrap();
    for n in 20..40 {
        bench.put(1, 0, format!("v{n}")).await;
    }
    bench.start(3).await;
    bench.ready().await;
    assert!(bench.resets.0.lock().contains(&NodeId(3)));
    bench.equal_digests().await;
    // The new holder counts: with it and one other, writes go on.
    bench.stop(2).await;
    assert_eq!(bench.put(3, 0, "more".into()).await, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_away_past_the_purge_point_gets_a_snapshot() {
    let mut bench = Bench::new().await;
    bench.keep_log_bytes = 0;
    for node in 1..=3 {
        bench.start(node).await;
    }
    bench.ready().await;
    bench.put(1, 0, "first".into()).await;
    bench.stop(3).await;
    for n in 0..50 {
        bench.put(1, 0, format!("v{n}")).await;
    }
    // Both others let go of the log that node 3 lacks.
    let purged = || {
        let mine = |node| bench.cluster(node).status();
        [1, 2].iter().all(|n| mine(*n).iter().any(|g| g.group == "d0" && g.purged >= 50))
    };
    until("the log is purged", purged).await;
    bench.start(3).await;
    bench.ready().await;
    bench.equal_digests().await;
    let reader = bench.cluster(3).reader(GroupId::data(0), TAG);
    assert_eq!(reader.get(&50u64.to_be_bytes()).unwrap().unwrap(), "v49");
    assert_eq!(bench.put(3, 0, "after".into()).await, 51);
    // What was installed survives a restart of its own.
    bench.stop(3).await;
    bench.start(3).await;
    bench.ready().await;
    bench.equal_digests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_sled_directory_is_rebuilt() {
    let mut bench = three().await;
    for n in 0..20 {
        bench.put(1, 0, format!("v{n}")).await;
    }
    bench.stop(2).await;
    scribble(&bench.path(2).join("meta.sled"));
    bench.start(2).await;
    bench.ready().await;
    bench.put(2, 0, "after".into()).await;
    bench.equal_digests().await;
}

fn scribble(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(&path, b"nonsense").unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_of_another_cluster_is_refused() {
    let mut bench = three().await;
    let mut other = three().await;
    bench.stop(3).await;
    other.stop(3).await;
    std::fs::remove_dir_all(bench.path(3)).unwrap();
    std::fs::rename(other.path(3), bench.path(3)).unwrap();
    bench.start(3).await;
    let mut failure = bench.cluster(3).failure();
    let told = tokio::time::timeout(PATIENCE, failure.wait_for(Option::is_some)).await;
    let reason = told.unwrap().unwrap().clone().unwrap();
    assert!(reason.contains("another cluster"), "{reason}");
}
