//! Nodes that hear nothing, whose disk fails, or that do not answer.

use std::time::Duration;

use base::env::sim_disk::Crash;
use base::{GroupId, NodeId};

use super::{Bench, GROUPS, NODES, set, simulate, until};
use crate::net::methods;
use crate::raft::network::{PIPELINE, PIPELINE_BYTES};
use crate::raft::store::REPLICATION_BYTES;

/// Many election timeouts.
const LONG: Duration = Duration::from_secs(20);

/// Leader and term of the groups that node 3 does not lead, as every node has them.
fn leaders(bench: &Bench) -> Vec<(Option<NodeId>, u64)> {
    let of = |node: u16, group: GroupId| {
        let now = bench.group(node, group).leadership();
        (now.leader, now.term)
    };
    [GroupId::M0, GroupId::FS].into_iter().flat_map(|g| NODES.map(|node| of(node, g))).collect()
}

/// Node 3 hears nothing for long, and neither do those in `mute` hear it. Then it comes back.
fn deposes_nobody(mute: &[u16]) {
    simulate(async {
        let bench = Bench::three(1).await;
        let before = leaders(&bench);
        let asked = bench.net.sent(1, methods::VOTE);
        for other in [1, 2] {
            bench.net.cut(other, 3);
        }
        for other in mute {
            bench.net.cut(3, *other);
        }
        tokio::time::sleep(LONG).await;
        assert!(bench.net.sent(1, methods::VOTE) > asked + 10, "node 3 does not try to lead");
        let terms = |leaders: Vec<(Option<NodeId>, u64)>| -> Vec<u64> {
            leaders.iter().map(|(_, term)| *term).collect()
        };
        assert_eq!(terms(leaders(&bench)), terms(before.clone()), "nobody would vote for it");
        bench.net.heal();
        until("every node is ready", || bench.is_ready()).await;
        tokio::time::sleep(LONG).await;
        assert_eq!(leaders(&bench), before);
        for (node, group) in NODES.into_iter().zip([GroupId::FS, GroupId::M0, GroupId::M0]) {
            bench.propose(node, group, set(&format!("by {node}"), "x")).await.unwrap();
        }
        bench.equal_digests().await;
    });
}

#[test]
fn a_node_that_was_cut_off_deposes_no_leader() {
    deposes_nobody(&[1, 2]);
}

#[test]
fn a_node_that_hears_nothing_and_is_heard_deposes_no_leader() {
    deposes_nobody(&[]);
}

/// Proposes in every group at nodes 1 and 2; whether any proposal was acknowledged.
async fn is_any_acknowledged(bench: &Bench, key: &str) -> bool {
    let everywhere = [1, 2].into_iter().flat_map(|node| GROUPS.map(|group| (node, group)));
    let proposed = everywhere.map(|(node, group)| bench.propose(node, group, set(key, "lost")));
    futures::future::join_all(proposed).await.iter().any(Result::is_ok)
}

#[test]
fn a_failed_sync_ends_the_node_and_nothing_is_acknowledged_after_it() {
    simulate(async {
        let mut bench = Bench::new(1);
        // A direct write is its own sync and could not fail alone.
        bench.disks.values().for_each(base::env::sim_disk::SimDisk::refuse_direct);
        bench.start_all().await;
        bench.crash(&[3], Crash::Process).await;
        until("others lead", || bench.lives.values().all(|life| life.cluster.is_ready())).await;
        for group in GROUPS {
            bench.propose(2, group, set("before", "kept")).await.unwrap();
        }
        // Of three nodes two are left: without the disk of node 1 nothing has a majority.
        let disk = bench.lives[&1].disk.clone();
        disk.fail_next_sync("/wal/");
        assert!(!is_any_acknowledged(&bench, "at the failure").await);
        assert!(!disk.will_fail(), "no sync failed");
        let ended = || bench.cluster(1).failure().borrow().is_some();
        until("the node ends", ended).await;
        // The disk would take syncs again: the kernel may have dropped what it could not write.
        assert!(!is_any_acknowledged(&bench, "after the failure").await);
        assert_eq!(*bench.cluster(2).failure().borrow(), None);
        bench.crash(&[1], Crash::LoseUnsynced).await;
        bench.start_all().await;
        for (node, group) in NODES.into_iter().flat_map(|node| GROUPS.map(|group| (node, group))) {
            let rows = bench.rows(node, group).await;
            assert!(rows.contains(&("before".to_owned(), "kept".to_owned())), "{node} {group}");
        }
        bench.equal_digests().await;
    });
}

#[test]
fn a_follower_that_does_not_answer_holds_a_bounded_number_of_bytes() {
    simulate(async {
        let bench = Bench::three(1).await;
        bench.net.stall(3);
        let value = "x".repeat(16 << 10);
        for number in 0..3 * PIPELINE {
            let command = set(&format!("key {}", number % 10), &value);
            bench.propose(1, GroupId::M0, command).await.unwrap();
            let awaited = bench.net.awaited(GroupId::M0);
            assert!(awaited.len() <= PIPELINE, "{} requests after {number}", awaited.len());
            assert!(awaited.iter().all(|bytes| *bytes <= REPLICATION_BYTES), "{awaited:?}");
        }
        assert_eq!(bench.net.awaited(GroupId::M0).len(), PIPELINE, "as many as may be");
        // What is given up for want of an answer is sent again, and no more at once.
        let taken = bench.net.held();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let awaited = bench.net.awaited(GroupId::M0);
            assert!(awaited.len() <= PIPELINE, "{} requests", awaited.len());
            assert!(awaited.iter().all(|bytes| *bytes <= REPLICATION_BYTES), "{awaited:?}");
        }
        assert!(bench.net.held() > taken, "nothing was sent again");
        bench.net.release();
        bench.equal_digests().await;
    });
}

#[test]
fn large_entries_for_a_follower_that_does_not_answer_wait_for_each_other() {
    simulate(async {
        let bench = Bench::three(1).await;
        bench.net.stall(3);
        let value = "x".repeat(2 * REPLICATION_BYTES);
        let most = PIPELINE_BYTES / value.len();
        for number in 0..most + 4 {
            bench.propose(1, GroupId::M0, set("key", &value)).await.unwrap();
            let awaited: usize = bench.net.awaited(GroupId::M0).iter().sum();
            assert!(awaited <= PIPELINE_BYTES, "{awaited} bytes after {number}");
        }
        let awaited: usize = bench.net.awaited(GroupId::M0).iter().sum();
        assert!(awaited > PIPELINE_BYTES / 2, "{awaited} bytes: nothing was held back");
    });
}
