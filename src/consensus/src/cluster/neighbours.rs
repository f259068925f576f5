//! What nodes look at twice a second and tell each other: room on their disks, replicas that do
//! not keep up, failures that end the process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::{GroupId, NodeId};
use openraft::async_runtime::watch::WatchReceiver as _;
use prost::Message as _;
use tracing::{info, warn};

use super::{Cluster, Running};
use crate::group::{Group as _, LogState, ReplicaLog};
use crate::net::{methods, proto};
use crate::peer::{Lane, Message};
use crate::raft::group::RaftGroup;
use crate::raft::network::group_id;

const WATCH_EVERY: Duration = Duration::from_millis(500);

impl Cluster {
    pub(super) async fn run_watch(self: Arc<Self>) {
        let mut without_room = BTreeSet::new();
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            self.check_own_disk();
            self.look_at_replicas();
            self.ask_others(&mut without_room).await;
            if let Some(error) = self.wal.failed() {
                self.fail(format!("write-ahead log: {error}"));
            }
            for (id, running) in &self.groups {
                let state = running.group.raft.metrics().borrow_watched().running_state.clone();
                if let Err(e) = state {
                    self.fail(format!("group {id}: {e}"));
                }
            }
            if let Some(node) = self.peers.foreign() {
                self.fail(format!(
                    "node {node} belongs to another cluster than this data directory"
                ));
            }
        }
    }

    pub(super) fn check_own_disk(&self) {
        let space = match self.env.disk.space(&self.options.data_dir) {
            Ok(space) => space,
            Err(e) => return warn!("cannot tell the free disk space: {e}"),
        };
        let low = space.free_bytes < self.options.reserve_bytes;
        if self.own_disk_low.swap(low, Ordering::Relaxed) != low {
            let (free, reserve) = (space.free_bytes, self.options.reserve_bytes);
            if low {
                warn!(free, reserve, "disk is below its reserve: writes are refused");
            } else {
                info!(free, reserve, "disk is above its reserve again");
            }
        }
        if low {
            self.disk_low.store(self.peers.me().0, Ordering::Relaxed);
        }
    }

    fn look_at_replicas(&self) {
        for Running { group, keeping_up, .. } in self.groups.values() {
            let mut keeping_up = keeping_up.lock();
            match group.log_state_here() {
                Some(state) => {
                    let known = others(&state, self.peers.me())
                        .map(|r| (r.node, self.peers.is_alive(r.node).then_some(r.last_index)));
                    let last = group.last_log_index();
                    // A new leader begins with what the one before it told.
                    let now = keeping_up.get_or_insert_with(|| KeepingUp::new(group.behind()));
                    group.set_behind(now.look(last, known));
                }
                None => *keeping_up = None,
            }
        }
    }

    /// Asks the other nodes whether they have room, and who does not keep up with them. What one
    /// said about its room counts until it says otherwise; one that is gone writes nothing.
    async fn ask_others(&self, without_room: &mut BTreeSet<NodeId>) {
        let mut behind: BTreeMap<GroupId, BTreeSet<NodeId>> = BTreeMap::new();
        for node in self.peers.all() {
            if node == self.peers.me() {
                continue;
            }
            if !self.peers.is_alive(node) {
                without_room.remove(&node);
                continue;
            }
            let asked = self.peers.call(
                node,
                Lane::Control,
                methods::WATCH,
                Message::default(),
                WATCH_EVERY,
            );
            let Ok(answer) = asked.await else { continue };
            let Ok(reply) = proto::WatchReply::decode(answer.head) else { continue };
            match reply.below_reserve {
                true => without_room.insert(node),
                false => without_room.remove(&node),
            };
            for told in reply.behind {
                if let (Ok(group), Ok(node)) = (group_id(told.group), u16::try_from(told.node)) {
                    behind.entry(group).or_default().insert(NodeId(node));
                }
            }
        }
        for (id, running) in &self.groups {
            if running.keeping_up.lock().is_none() {
                running.group.set_behind(behind.remove(id).unwrap_or_default());
            }
        }
        let low = match self.disk_low() {
            true => self.peers.me().0,
            false => without_room.first().map_or(0, |node| node.0),
        };
        if self.disk_low.swap(low, Ordering::Relaxed) != low {
            match low {
                0 => info!("every node has room on its disk"),
                node => warn!(node, "a node's disk is below its reserve: writes are refused"),
            }
        }
    }
}

/// The replicas that count, this node's own excepted. One that does not vote may be of a life of
/// its node that is over, and would never keep up.
fn others(state: &LogState, me: NodeId) -> impl Iterator<Item = &ReplicaLog> {
    state.replicas.iter().filter(move |replica| replica.votes && replica.node != me)
}

/// The answer of this node to the others' questions.
pub(crate) fn watch_reply(
    groups: &BTreeMap<GroupId, Arc<RaftGroup>>,
    own_disk_low: &AtomicBool,
) -> proto::WatchReply {
    let led = groups.values().filter(|group| group.log_state_here().is_some());
    let behind = led.flat_map(|group| {
        let number = u32::from(group.id().0);
        group.behind().into_iter().map(move |node| (number, u32::from(node.0)))
    });
    proto::WatchReply {
        below_reserve: own_disk_low.load(Ordering::Relaxed),
        behind: behind.map(|(group, node)| proto::watch_reply::Behind { group, node }).collect(),
    }
}

/// Which replicas keep up with the leader of a group: Kafka's in-sync replicas.
#[derive(Debug, Default)]
pub(super) struct KeepingUp {
    /// Index of the leader's last entry at the latest looks, oldest first.
    looks: VecDeque<u64>,
    behind: BTreeSet<NodeId>,
}

impl KeepingUp {
    /// Looks within Kafka's `replica.lag.time.max.ms`, 30 s.
    const LOOKS: usize = 60;

    fn new(behind: BTreeSet<NodeId>) -> Self {
        Self { behind, ..Self::default() }
    }

    /// One look: the leader's last entry, and what each other replica is known to have, `None`
    /// for one that does not answer. A replica falls behind when it does not answer or lacks what
    /// the leader had 30 s ago, and is back when it has what the leader had at the look before.
    fn look(
        &mut self,
        last: u64,
        replicas: impl Iterator<Item = (NodeId, Option<u64>)>,
    ) -> BTreeSet<NodeId> {
        let long_ago = self.looks.front().filter(|_| self.looks.len() >= Self::LOOKS).copied();
        let before = self.looks.back().copied();
        for (node, has) in replicas {
            let Some(has) = has.filter(|has| *has >= long_ago.unwrap_or(0)) else {
                self.behind.insert(node);
                continue;
            };
            if before.is_some_and(|before| has >= before) {
                self.behind.remove(&node);
            }
        }
        if self.looks.len() >= Self::LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(last);
        self.behind.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(keeping: &mut KeepingUp, last: u64, two: Option<u64>) -> bool {
        !keeping.look(last, [(NodeId(2), two)].into_iter()).contains(&NodeId(2))
    }

    #[test]
    fn a_replica_that_is_silent_is_behind_until_it_caught_up() {
        let mut keeping = KeepingUp::default();
        assert!(look(&mut keeping, 10, Some(3)), "it has 30 s");
        assert!(!look(&mut keeping, 20, None));
        assert!(!look(&mut keeping, 30, Some(19)));
        assert!(look(&mut keeping, 40, Some(30)));
    }

    #[test]
    fn a_replica_that_lags_is_behind_after_half_a_minute() {
        let mut keeping = KeepingUp::default();
        for at in 1..=60 {
            assert!(look(&mut keeping, at * 100, Some(50)), "{at}");
        }
        assert!(!look(&mut keeping, 6100, Some(50)), "the leader had 100 for 30 s");
        assert!(!look(&mut keeping, 6200, Some(6099)));
        assert!(look(&mut keeping, 6300, Some(6200)));
        let mut busy = KeepingUp::default();
        for at in 100..300 {
            assert!(look(&mut busy, at * 100, Some((at - 50) * 100)), "25 s late is in time");
        }
    }

    #[test]
    fn a_replica_that_does_not_vote_does_not_count() {
        let replica =
            |node, last_index, votes| ReplicaLog { node: NodeId(node), last_index, votes };
        let replicas = vec![replica(1, 9, true), replica(2, 8, true), replica(2, 0, false)];
        let state = LogState { replicas, ..LogState::default() };
        let counted: Vec<_> = others(&state, NodeId(1)).copied().collect();
        assert_eq!(counted, [replica(2, 8, true)]);
    }

    #[test]
    fn a_new_leader_begins_with_what_the_last_one_told() {
        let mut keeping = KeepingUp::new([NodeId(2)].into());
        assert!(!look(&mut keeping, 10, Some(9)));
        assert!(!look(&mut keeping, 12, Some(9)));
        assert!(look(&mut keeping, 12, Some(12)));
    }
}
