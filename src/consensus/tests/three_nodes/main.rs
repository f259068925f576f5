//! Three nodes in one process, on real disks and sockets: birth, proposals from any node,
//! restart, a wiped node, a follower past the purge point, equal digests.

#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;
mod checkpoints;
mod gate;

use std::collections::BTreeSet;
use std::path::Path;

use base::{GroupId, NodeId};
use consensus::ProposeError;

use crate::bench::{Bench, PATIENCE, SHRINKS, TAG, key, three, until};

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
    assert_eq!(reader.get(&key(60)).unwrap().unwrap(), "after");
    assert_eq!(reader.get(&key(7)).unwrap().unwrap(), "value 7");
    bench.equal_digests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_reads_what_was_acknowledged_anywhere() {
    let bench = three().await;
    for n in 0..60u64 {
        let writer = u16::try_from(n % 3).unwrap() + 1;
        let at = bench.put(writer, 0, format!("value {n}")).await;
        for reader in 1..=3 {
            bench.cluster(reader).groups().data[0].read_barrier().await.unwrap();
            let rows = bench.cluster(reader).reader(GroupId::data(0), TAG);
            let found = rows.get(&key(at)).unwrap().expect("acknowledged before the read");
            assert_eq!(found, format!("value {n}"), "node {reader}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_neither_acknowledges_nor_answers_reads() {
    let mut bench = three().await;
    bench.put(1, 0, "before".into()).await;
    bench.stop(2).await;
    bench.stop(3).await;
    let groups = bench.cluster(1).groups();
    let write = groups.data[0].propose(TAG, "alone".into());
    assert!(write.await.is_err(), "nobody else has it");
    assert!(groups.data[0].read_barrier().await.is_err(), "others may have gone on");
    bench.start(2).await;
    until("a leader is found", || bench.nodes.values().all(|n| n.cluster.is_ready())).await;
    bench.put(1, 0, "after".into()).await;
    bench.start(3).await;
    bench.ready().await;
    bench.equal_digests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_one_node_refuses_growth_everywhere() {
    let bench = three().await;
    bench.put(1, 0, "before".into()).await;
    bench.gate.set_free_bytes(Some(0));
    let refused = async |node| {
        let groups = bench.cluster(node).groups();
        matches!(
            groups.data[0].propose(TAG, "more".into()).await,
            Err(ProposeError::DiskReserve { node: NodeId(1) })
        )
    };
    let low = || (1..=3).all(|n| bench.cluster(n).low_node() == Some(NodeId(1)));
    until("every node knows", low).await;
    for node in 1..=3 {
        assert!(refused(node).await, "node {node}");
    }
    // What frees space goes on.
    let groups = bench.cluster(2).groups();
    groups.data[0].propose(TAG, SHRINKS.into()).await.unwrap();
    groups.data[0].read_barrier().await.unwrap();
    bench.gate.set_free_bytes(None);
    until("there is room", || (1..=3).all(|n| bench.cluster(n).low_node().is_none())).await;
    bench.put(2, 0, "after".into()).await;
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
    assert_eq!(reader.get(&key(50)).unwrap().unwrap(), "v49");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_log_does_not_vote_under_its_old_name() {
    let mut bench = three().await;
    for n in 0..20 {
        bench.put(1, 0, format!("v{n}")).await;
    }
    // An orderly stop writes a checkpoint.
    bench.stop(2).await;
    let (log, aside) = (bench.path(2).join("wal"), bench.path(2).join("aside"));
    std::fs::rename(&log, &aside).unwrap();
    let Err(error) = bench.try_start(2).await else { panic!("it starts") };
    let text = error.to_string();
    assert!(text.contains("has a checkpoint") && text.contains("wal holds nothing"), "{text}");
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(&aside, &log).unwrap();
    bench.start(2).await;
    bench.ready().await;
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
