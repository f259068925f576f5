//! Birth with the power of one node failing at every change of its disk in turn.

use std::collections::BTreeSet;
use std::time::Duration;

use base::GroupId;
use base::env::sim_disk::Crash;

use super::{Bench, GROUPS, NODES, set, simulate, until};

/// Fewer changes of a disk than any birth makes: a test that hits less tests nothing.
const FEWEST_STEPS: u64 = 20;
/// Time for the survivors to show what they acknowledge without the node that crashed.
const SURVIVAL: Duration = Duration::from_secs(4);

/// A birth that is interrupted.
#[derive(Clone, Copy, Debug)]
struct Interrupted {
    /// Whose power fails.
    victim: u16,
    /// At which change of its disk.
    step: u64,
    /// What becomes of what it did not sync.
    how: Crash,
    /// Who crashes with it, itself included.
    crashed: &'static [u16],
}

/// Lets survivors acknowledge what they can; returns the groups in which they did.
async fn acknowledged(bench: &Bench) -> Vec<GroupId> {
    let Some(node) = bench.lives.keys().next() else { return Vec::new() };
    let proposed = GROUPS.map(|group| async move {
        let proposal = bench.propose(*node, group, set("early", "kept"));
        let done = tokio::time::timeout(SURVIVAL, proposal).await;
        matches!(done, Ok(Ok(()))).then_some(group)
    });
    futures::future::join_all(proposed).await.into_iter().flatten().collect()
}

/// The cluster is one: one id, the same members everywhere, nobody's slot given away, everything
/// acknowledged still there.
async fn check(bench: &Bench, what: Interrupted, early: &[GroupId]) {
    let ids: BTreeSet<_> = NODES.iter().map(|node| bench.cluster(*node).cluster_id()).collect();
    assert!(ids.len() == 1 && !ids.contains(&None), "{what:?}: {ids:?}");
    for node in NODES {
        let failure = bench.cluster(node).failure().borrow().clone();
        assert_eq!(failure, None, "{what:?}: node {node}");
    }
    until("members are settled", || bench.members_are_settled()).await;
    let resets = bench.resets.0.lock().clone();
    assert_eq!(resets, [], "{what:?}: a node came back as another");
    for (node, group) in NODES.into_iter().zip(GROUPS) {
        bench.propose(node, group, set("late", "new")).await.unwrap();
    }
    for (node, group) in NODES.into_iter().flat_map(|node| GROUPS.map(|group| (node, group))) {
        let rows = bench.rows(node, group).await;
        let has = |key: &str| rows.iter().any(|(k, _)| k == key);
        assert!(has("late"), "{what:?}: node {node} group {group}: {rows:?}");
        assert!(has("early") || !early.contains(&group), "{what:?}: {group} lost its history");
    }
    bench.equal_digests().await;
}

/// Whether the power failed before the cluster was complete.
async fn is_born_in_spite_of(what: Interrupted) -> bool {
    let mut bench = Bench::new(what.step);
    bench.disks[&what.victim].power_off_in(what.step);
    for node in NODES {
        if let Err(reason) = bench.start(node).await {
            assert!(!bench.has_power(node), "{what:?}: node {node} does not start: {reason}");
        }
    }
    let hit = || !bench.has_power(what.victim);
    until("the power fails or the cluster is born", || hit() || bench.is_ready()).await;
    if !hit() {
        return false;
    }
    bench.crash(what.crashed, what.how).await;
    let early = acknowledged(&bench).await;
    let id = bench.lives.values().next().and_then(|life| life.cluster.cluster_id());
    bench.start_all().await;
    check(&bench, what, &early).await;
    assert!(early.is_empty() || id == bench.cluster(what.victim).cluster_id(), "{what:?}");
    true
}

fn is_born_whenever(victim: u16, ways: &[(Crash, &'static [u16])]) {
    for (how, crashed) in ways {
        let hit = |step| Interrupted { victim, step, how: *how, crashed };
        let steps = (1..).take_while(|step| simulate(is_born_in_spite_of(hit(*step)))).count();
        assert!(steps as u64 > FEWEST_STEPS, "only {steps} steps");
    }
}

#[test]
fn a_cluster_is_born_once_whenever_the_mothers_power_fails() {
    is_born_whenever(1, &[(Crash::LoseUnsynced, &[1]), (Crash::TearUnsynced, &[1])]);
}

#[test]
fn a_cluster_is_born_once_whenever_the_mother_is_killed() {
    is_born_whenever(1, &[(Crash::Process, &[1])]);
}

#[test]
fn a_cluster_is_born_once_whenever_the_power_of_all_fails() {
    is_born_whenever(1, &[(Crash::LoseUnsynced, &NODES)]);
}

#[test]
fn a_cluster_is_born_once_whenever_another_nodes_power_fails() {
    is_born_whenever(2, &[(Crash::LoseUnsynced, &[2]), (Crash::Process, &[2])]);
}

/// A third of the nodes is missing for as long as it takes to be sure.
const MISSING: Duration = Duration::from_secs(60);

#[test]
fn two_blank_nodes_of_three_wait_for_the_third() {
    for [first, second, late] in [[1, 2, 3], [2, 3, 1]] {
        simulate(async {
            let mut bench = Bench::new(1);
            bench.start(first).await.unwrap();
            bench.start(second).await.unwrap();
            tokio::time::sleep(MISSING).await;
            for node in [first, second] {
                assert_eq!(bench.cluster(node).cluster_id(), None, "node {node} without {late}");
                assert!(!bench.cluster(node).is_ready());
                for group in GROUPS {
                    let begun = bench.raft(node, group).raft.is_initialized().await.unwrap();
                    assert!(!begun, "group {group} of node {node} without {late}");
                    assert_eq!(bench.group(node, group).leadership().leader, None);
                }
            }
            bench.start_all().await;
            let none = Interrupted { victim: late, step: 0, how: Crash::Process, crashed: &[] };
            check(&bench, none, &[]).await;
        });
    }
}
