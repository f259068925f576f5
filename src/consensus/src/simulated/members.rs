//! A change of members that its leader does not live to finish.

use std::collections::BTreeSet;
use std::time::Duration;

use base::env::sim_disk::{Crash, SimDisk};
use base::{GroupId, NodeId};

use super::{Bench, GROUPS, NODES, blank_disk, set, simulate, until};

/// Fewer changes of a leader's disk than taking a node in makes.
const FEWEST_STEPS: usize = 10;

fn is_joint(bench: &Bench, node: u16, group: GroupId) -> bool {
    bench.membership(node, group).membership().get_joint_config().len() > 1
}

/// Node 3 comes back blank, and node 1, which leads `m0`, dies between the two steps in which it
/// takes the new node in: the others have the first one in their logs, and it does not know yet.
async fn half_way(how: Crash) -> Bench {
    let mut bench = Bench::three(1).await;
    bench.propose(1, GroupId::M0, set("before", "kept")).await.unwrap();
    bench.crash(&[3], Crash::Process).await;
    bench.disks.insert(3, blank_disk(7));
    bench.start(3).await.unwrap();
    assert_eq!(bench.group(1, GroupId::M0).leadership().leader, Some(NodeId(1)));
    until("the first step arrives", || is_joint(&bench, 2, GroupId::M0)).await;
    assert!(is_joint(&bench, 1, GroupId::M0), "the second step is not begun");
    bench.crash(&[1], how).await;
    assert!(is_joint(&bench, 2, GroupId::M0));
    bench
}

fn is_finished_by_the_next_leader(how: Crash) {
    simulate(async {
        let mut bench = half_way(how).await;
        let old: BTreeSet<u64> = bench.membership(2, GroupId::M0).voter_ids().collect();
        bench.start_all().await;
        until("the change is finished", || bench.members_are_settled()).await;
        assert!(old.len() == 4 && bench.raft_ids().is_subset(&old), "the replaced node is out");
        // The new holder of the slot counts: with one other it is a majority.
        bench.crash(&[1], Crash::LoseUnsynced).await;
        until("others lead", || bench.lives.values().all(|life| life.cluster.is_ready())).await;
        bench.propose(3, GroupId::M0, set("after", "new")).await.unwrap();
        bench.start_all().await;
        for node in NODES {
            let rows = bench.rows(node, GroupId::M0).await;
            let keys: Vec<&str> = rows.iter().map(|(key, _)| key.as_str()).collect();
            assert_eq!(keys, ["after", "before"], "node {node}");
        }
        bench.equal_digests().await;
    });
}

#[test]
fn a_change_of_members_left_half_way_by_a_power_loss_is_finished() {
    is_finished_by_the_next_leader(Crash::LoseUnsynced);
}

#[test]
fn a_change_of_members_left_half_way_by_a_killed_leader_is_finished() {
    is_finished_by_the_next_leader(Crash::Process);
}

/// Whether the power of node 1 failed before the blank node was taken in everywhere.
async fn is_taken_in_in_spite_of(step: u64) -> bool {
    let mut bench = Bench::three(1).await;
    bench.propose(1, GroupId::M0, set("before", "kept")).await.unwrap();
    bench.crash(&[3], Crash::Process).await;
    bench.disks.insert(3, blank_disk(step));
    bench.disks[&1].power_off_in(step);
    bench.start(3).await.unwrap();
    let taken_in = || bench.members_are_settled() && bench.is_ready();
    until("the power fails or it is in", || !bench.has_power(1) || taken_in()).await;
    if bench.has_power(1) {
        return false;
    }
    bench.crash(&[1], Crash::LoseUnsynced).await;
    bench.start_all().await;
    until("members are settled", || bench.members_are_settled()).await;
    assert!(bench.resets.0.lock().iter().all(|node| *node == NodeId(3)), "step {step}");
    for node in NODES {
        let rows = bench.rows(node, GroupId::M0).await;
        assert_eq!(rows, [("before".to_owned(), "kept".to_owned())], "step {step} node {node}");
    }
    bench.equal_digests().await;
    true
}

#[test]
fn a_blank_node_is_taken_in_whenever_a_leaders_power_fails() {
    let steps = (1..).take_while(|step| simulate(is_taken_in_in_spite_of(*step))).count();
    assert!(steps > FEWEST_STEPS, "only {steps} steps");
}

/// Node 3 came back blank and is gone again as soon as node 1, which leads `m0`, has it as a
/// learner there. Returns the disk of its first life.
async fn gone_as_a_learner(bench: &mut Bench) -> SimDisk {
    bench.propose(1, GroupId::M0, set("before", "kept")).await.unwrap();
    bench.crash(&[3], Crash::Process).await;
    let first = bench.disks.insert(3, blank_disk(7)).unwrap();
    bench.start(3).await.unwrap();
    let known = || bench.membership(1, GroupId::M0).nodes().count();
    until("it is a learner", || known() == 4).await;
    assert!(!is_joint(bench, 1, GroupId::M0), "it votes already");
    bench.crash(&[3], Crash::Process).await;
    first
}

#[test]
fn a_node_that_is_wiped_again_while_it_is_taken_in_gets_in_and_leaves_no_learner() {
    simulate(async {
        let mut bench = Bench::three(1).await;
        gone_as_a_learner(&mut bench).await;
        bench.disks.insert(3, blank_disk(8));
        bench.start_all().await;
        until("members are settled", || bench.members_are_settled()).await;
        for (node, group) in NODES.into_iter().flat_map(|node| GROUPS.map(|group| (node, group))) {
            let membership = bench.membership(node, group);
            let known: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
            assert_eq!(known, bench.raft_ids(), "node {node} group {group}");
        }
        bench.equal_digests().await;
    });
}

#[test]
fn a_learner_of_a_life_that_is_over_does_not_put_its_node_behind() {
    simulate(async {
        let mut bench = Bench::three(1).await;
        // The disk was only away: the node votes as before, and nobody replaces it.
        let first = gone_as_a_learner(&mut bench).await;
        bench.disks.insert(3, first);
        bench.start_all().await;
        assert_eq!(bench.membership(1, GroupId::M0).nodes().count(), 4);
        // Longer than a replica may lag.
        tokio::time::sleep(Duration::from_secs(40)).await;
        bench.propose(1, GroupId::M0, set("after", "new")).await.unwrap();
        let in_sync = |node: &u16| bench.group(*node, GroupId::M0).behind().is_empty();
        until("everybody keeps up", || NODES.iter().all(in_sync)).await;
    });
}

#[test]
fn a_disk_that_comes_back_after_a_blank_one_took_its_slot_gets_it_again() {
    simulate(async {
        let mut bench = Bench::three(1).await;
        bench.propose(1, GroupId::M0, set("before", "kept")).await.unwrap();
        bench.crash(&[3], Crash::Process).await;
        let first = bench.disks.insert(3, blank_disk(7)).unwrap();
        bench.start(3).await.unwrap();
        until("the blank one votes", || bench.members_are_settled()).await;
        bench.propose(1, GroupId::M0, set("meanwhile", "kept")).await.unwrap();
        bench.crash(&[3], Crash::Process).await;
        // Its own log says that it votes; the leaders know better, and nobody sends it anything.
        bench.disks.insert(3, first);
        bench.start(3).await.unwrap();
        until("it is in again", || bench.members_are_settled() && bench.is_ready()).await;
        bench.crash(&[1], Crash::LoseUnsynced).await;
        until("others lead", || bench.lives.values().all(|life| life.cluster.is_ready())).await;
        bench.propose(3, GroupId::M0, set("after", "new")).await.unwrap();
        bench.start_all().await;
        for node in NODES {
            let rows = bench.rows(node, GroupId::M0).await;
            let keys: Vec<&str> = rows.iter().map(|(key, _)| key.as_str()).collect();
            assert_eq!(keys, ["after", "before", "meanwhile"], "node {node}");
        }
        bench.equal_digests().await;
    });
}
