//! Nodes that hear nothing, whose disk fails, or that do not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::env::sim_disk::Crash;
use base::limits::MIB;
use base::{GroupId, NodeId};
use bytes::Bytes;

use super::{Bench, GROUPS, NODES, TAG, set, simulate, until};
use crate::cluster::BUDGET_BYTES;
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
        let asked = bench.net.sent(NodeId(1), methods::VOTE);
        for other in [1, 2] {
            bench.net.cut(NodeId(other), NodeId(3));
        }
        for other in mute {
            bench.net.cut(NodeId(3), NodeId(*other));
        }
        tokio::time::sleep(LONG).await;
        let more = bench.net.sent(NodeId(1), methods::VOTE) - asked;
        assert!(more > 10, "node 3 does not try to lead");
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

/// A leader that is cut off writes some of what it is asked, and the rest waits.
#[test]
fn what_a_leader_was_asked_while_it_was_cut_off_never_comes_behind_what_others_wrote() {
    simulate(async {
        let bench = Bench::three(1).await;
        let m0 = |node: u16| bench.group(node, GroupId::M0);
        assert_eq!(m0(2).leadership().leader, Some(NodeId(1)));
        for other in [2, 3] {
            bench.net.cut(NodeId(1), NodeId(other));
            bench.net.cut(NodeId(other), NodeId(1));
        }
        let ask = |number: u16| {
            let (group, command) = (m0(1), set("key", &format!("old {number}")));
            async move { group.propose_here(TAG, command, None).await }
        };
        let asked = futures::future::join_all((0..50).map(ask));
        let others = async {
            until("another leads", || m0(2).leadership().leader.is_some_and(|l| l.0 != 1)).await;
            bench.propose(2, GroupId::M0, set("key", "new")).await.unwrap();
            bench.net.heal();
            // The first node leads again, as it should.
            until("every node is ready", || bench.is_ready()).await;
            assert_eq!(m0(2).leadership().leader, Some(NodeId(1)));
        };
        let (answers, ()) = tokio::join!(asked, others);
        assert!(answers.iter().all(Result::is_err));
        tokio::time::sleep(LONG).await;
        for node in NODES {
            assert_eq!(bench.rows(node, GroupId::M0).await, [("key".into(), "new".into())]);
        }
    });
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
        bench.net.stall(NodeId(3));
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
        bench.net.stall(NodeId(3));
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

/// A command that counts its bytes for as long as anything holds them.
struct Counted {
    bytes: Vec<u8>,
    held: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len(), Ordering::SeqCst);
    }
}

/// Has a leader asked for `count` commands of `len` bytes at once, until nobody waits any more;
/// how many were acknowledged.
async fn ask_at_once(bench: &Bench, held: &Arc<AtomicUsize>, count: usize, len: usize) -> usize {
    let ask = |_| {
        let bytes = set("key", &"x".repeat(len - 4)).to_vec();
        held.fetch_add(bytes.len(), Ordering::SeqCst);
        let command = Bytes::from_owner(Counted { bytes, held: held.clone() });
        let group = bench.group(1, GroupId::M0);
        async move { group.propose_here(TAG, command, None).await.is_ok() }
    };
    let answers = futures::future::join_all((0..count).map(ask)).await;
    answers.iter().filter(|acknowledged| **acknowledged).count()
}

#[test]
fn a_leader_without_followers_holds_a_bounded_number_of_bytes() {
    simulate(async {
        let mut bench = Bench::three(1).await;
        assert_eq!(bench.group(1, GroupId::M0).leadership().leader, Some(NodeId(1)));
        bench.crash(&[2, 3], Crash::Process).await;
        let held = Arc::new(AtomicUsize::new(0));
        // Nobody waits longer than a proposal may take: what is held then, the node holds.
        for round in 0..2 {
            assert_eq!(ask_at_once(&bench, &held, 3 * BUDGET_BYTES / MIB / 2, MIB).await, 0);
            let bytes = held.load(Ordering::SeqCst);
            assert!(bytes <= BUDGET_BYTES, "round {round}: {bytes} bytes");
            assert!(bytes > BUDGET_BYTES - 2 * MIB, "round {round}: {bytes} bytes are not all");
        }
        bench.start_all().await;
        until("all is given back", || held.load(Ordering::SeqCst) == 0).await;
        assert_eq!(ask_at_once(&bench, &held, 4, MIB).await, 4);
        bench.equal_digests().await;
    });
}
