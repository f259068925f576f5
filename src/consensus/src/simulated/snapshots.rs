//! Snapshots over live state, in sled: what the snapshot does not have must be gone.

use base::env::sim_disk::Crash;
use base::{GroupId, NodeId};

use super::{Bench, NODES, blank_disk, delete, set, simulate, until};
use crate::net::methods;

/// The groups whose state is rows alone.
const OF_ROWS: [GroupId; 2] = [GroupId::M0, GroupId::FS];

async fn bench() -> Bench {
    let mut bench = Bench::new(1);
    // All that is checkpointed leaves the log, whoever is away.
    bench.keep_log_bytes = 0;
    bench.sled = Some(tempfile::tempdir().unwrap());
    bench.start_all().await;
    for group in OF_ROWS {
        for command in [set("changed", "old"), set("deleted", "old"), set("kept", "old")] {
            bench.propose(1, group, command).await.unwrap();
        }
    }
    bench
}

/// Rows are changed while node 3 is away, until the others have let go of the log of it.
async fn change_until_purged(bench: &Bench) {
    for group in OF_ROWS {
        for command in [set("changed", "new"), delete("deleted"), set("added", "new")] {
            bench.propose(1, group, command).await.unwrap();
        }
        bench.group(2, group).read_barrier().await.unwrap();
    }
    let of_rows = |name: &str| OF_ROWS.iter().any(|group| group.to_string() == name);
    let purged = |node: &u16| {
        let mut groups = bench.cluster(*node).status();
        groups.retain(|group| of_rows(&group.group));
        groups.iter().all(|group| group.purged >= group.applied)
    };
    until("the log is purged", || [1, 2].iter().all(purged)).await;
}

async fn check(bench: &Bench) {
    let expected = [("added", "new"), ("changed", "new"), ("kept", "old")];
    for (node, group) in NODES.into_iter().flat_map(|node| OF_ROWS.map(|group| (node, group))) {
        let rows = bench.rows(node, group).await;
        let rows: Vec<_> = rows.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(rows, expected, "node {node} group {group}");
    }
    // The machines' own copies are part of them.
    bench.equal_digests().await;
}

#[test]
fn a_snapshot_replaces_the_live_rows_of_a_follower_that_was_cut_off() {
    simulate(async {
        let mut bench = bench().await;
        for group in OF_ROWS {
            assert_eq!(bench.rows(3, group).await.len(), 3);
        }
        for other in [1, 2] {
            bench.net.cut(NodeId(other), NodeId(3));
            bench.net.cut(NodeId(3), NodeId(other));
        }
        change_until_purged(&bench).await;
        for group in OF_ROWS {
            let reader = bench.cluster(3).reader(group, super::TAG);
            assert_eq!(reader.get(b"deleted").unwrap().unwrap(), "old", "it stands where it was");
        }
        let before = bench.net.sent(NodeId(3), methods::SNAPSHOT);
        bench.net.heal();
        until("every node is ready", || bench.is_ready()).await;
        check(&bench).await;
        assert!(bench.net.sent(NodeId(3), methods::SNAPSHOT) >= before + 2, "the log sufficed");
        // What was installed is durable.
        bench.crash(&[3], Crash::LoseUnsynced).await;
        bench.start_all().await;
        check(&bench).await;
    });
}

#[test]
fn a_blank_node_gets_the_rows_of_today_by_a_snapshot() {
    simulate(async {
        let mut bench = bench().await;
        bench.crash(&[3], Crash::LoseUnsynced).await;
        bench.disks.insert(3, blank_disk(7));
        until("others lead", || bench.lives.values().all(|life| life.cluster.is_ready())).await;
        change_until_purged(&bench).await;
        let before = bench.net.sent(NodeId(3), methods::SNAPSHOT);
        bench.start_all().await;
        check(&bench).await;
        assert!(bench.net.sent(NodeId(3), methods::SNAPSHOT) >= before + 2, "the log sufficed");
        until("members are settled", || bench.members_are_settled()).await;
    });
}
