//! How a cluster comes to be, and how a blank node takes the place of a lost one.
//!
//! Birth: when every node of the peer list answers and all are blank, the lowest node mints the
//! cluster's id, lets the others adopt it, notes in `node.json` that it gives birth, and
//! initialises every group. Each step may be repeated after a crash.
//!
//! Rebirth: a blank node that meets a born cluster adopts its id and asks the leader of every
//! group for its slot, again and again until it votes. The leader first clears what the old holder
//! of that slot was credited with, then adds the node as a learner under its new Raft id. A
//! request that finds it caught up lets it vote in place of the old id, and every other id that
//! the slot ever had goes. The leader waits for no node: one that is wiped again meanwhile comes
//! back under yet another id.
//!
//! A node that votes goes on asking, seldom: what it believes of itself may be out of date, as when
//! its disk was only away and its slot was given to a blank one meanwhile. The leaders know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::{Env, GroupId, NodeId};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::OnceCell;
use tracing::{debug, info, warn};

use crate::group::Group;
use crate::identity::NodeFile;
use crate::net::{Link, methods, proto};
use crate::peer::{Lane, Message};
use crate::raft::group::RaftGroup;
use crate::raft::network::group_id;
use crate::raft::types::{LogId, Member, StoredMembership};

const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// A node that votes asks this often whether it does.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Told when a slot gets a new, blank holder, before that holder counts for anything.
#[async_trait]
pub trait SlotReset: Send + Sync {
    /// Clears what the previous holder of the slot was credited with.
    async fn reset_slot(&self, node: NodeId) -> Result<(), String>;
}

/// The part of a node that is born or joins.
pub(crate) struct Birth {
    env: Env,
    dir: PathBuf,
    file: Mutex<NodeFile>,
    peers: Arc<dyn Link>,
    groups: OnceCell<BTreeMap<GroupId, Arc<RaftGroup>>>,
    reset: OnceCell<Arc<dyn SlotReset>>,
    /// A leader said that this node does not vote, whatever its own log says.
    outside: AtomicBool,
    tasks: base::TaskGroup,
}

/// The voters that an unfinished change of members leads to.
fn goal(membership: &StoredMembership) -> Option<BTreeSet<u64>> {
    match &membership.membership().get_joint_config()[..] {
        [_, .., last] => Some(last.clone()),
        _ => None,
    }
}

/// The change after which `raft_id` votes for `node`, and the slot has no other holder. It starts
/// from where an unfinished change of members leads to.
fn succession(
    membership: &StoredMembership,
    node: NodeId,
    raft_id: u64,
) -> ChangeMembers<u64, Member> {
    let of_slot = membership.nodes().filter(|(_, member)| member.slot == node.0);
    let others: BTreeSet<u64> = of_slot.map(|(id, _)| *id).filter(|id| *id != raft_id).collect();
    let mut voters = membership.get_joint_config().last().cloned().unwrap_or_default();
    voters.retain(|id| !others.contains(id));
    voters.insert(raft_id);
    // Those that vote now go with the change of voters.
    let now: BTreeSet<u64> = membership.voter_ids().collect();
    let learners = others.difference(&now).copied().collect();
    let changes = [ChangeMembers::ReplaceAllVoters(voters), ChangeMembers::RemoveNodes(learners)];
    ChangeMembers::Batch(changes.into())
}

/// Whether a learner has nearly all of the leader's log. One that has not shown any yet has not,
/// however short the log is.
fn has_caught_up(group: &RaftGroup, raft_id: u64) -> bool {
    let most_lag = group.raft.config().replication_lag_threshold;
    let metrics = group.raft.metrics();
    let metrics = metrics.borrow_watched();
    let matched: Option<&LogId> =
        metrics.replication.as_ref().and_then(|replicas| replicas.get(&raft_id)?.as_ref());
    let last = metrics.last_log_index.unwrap_or(0);
    matched.is_some_and(|id| id.index.saturating_add(most_lag) >= last)
}

fn members(group: &RaftGroup) -> Arc<StoredMembership> {
    group.raft.server_metrics().borrow_watched().membership_config.clone()
}

/// Gives a change of members up after a while. Then it is as a change that lost its leader half
/// way: it may still come, and what it left is found later.
async fn in_time<T, E: std::fmt::Display>(
    change: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(JOIN_TIMEOUT, change).await {
        Ok(done) => done.map_err(|e| e.to_string()),
        Err(_) => Err("not done in time".to_owned()),
    }
}

impl Birth {
    pub(crate) fn new(
        env: &Env,
        dir: PathBuf,
        file: NodeFile,
        peers: Arc<dyn Link>,
        tasks: &base::TaskGroup,
    ) -> Arc<Self> {
        let (groups, reset) = (OnceCell::new(), OnceCell::new());
        let (env, file, tasks) = (env.clone(), Mutex::new(file), tasks.clone());
        let outside = AtomicBool::new(false);
        Arc::new(Self { env, dir, file, peers, groups, reset, outside, tasks })
    }

    pub(crate) fn set_groups(&self, groups: BTreeMap<GroupId, Arc<RaftGroup>>) {
        // Set once by the cluster, before anything runs.
        drop(self.groups.set(groups));
    }

    pub(crate) fn set_reset(&self, reset: Arc<dyn SlotReset>) {
        drop(self.reset.set(reset));
    }

    fn groups(&self) -> impl Iterator<Item = &Arc<RaftGroup>> {
        self.groups.get().into_iter().flat_map(BTreeMap::values)
    }

    fn raft_id(&self) -> u64 {
        self.file.lock().raft_id
    }

    async fn is_blank(&self) -> bool {
        for group in self.groups() {
            if group.raft.is_initialized().await.unwrap_or(true) {
                return false;
            }
        }
        true
    }

    fn votes_in(&self, group: &RaftGroup) -> bool {
        let id = self.raft_id();
        let metrics = group.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.voter_ids().any(|v| v == id)
    }

    /// Whether this node votes in every group, as far as it knows.
    pub(crate) fn is_settled(&self) -> bool {
        self.groups.get().is_some()
            && !self.outside.load(Ordering::Relaxed)
            && self.groups().all(|g| self.votes_in(g))
    }

    /// Sees to it that this node votes in every group.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut settled = false;
        loop {
            if self.is_settled() != settled {
                settled = !settled;
                match settled {
                    true => info!("this node votes in every group"),
                    false => warn!("this node does not vote in every group any more"),
                }
            }
            if settled {
                tokio::time::sleep(ASK_AGAIN).await;
                self.join(|_| true).await;
                continue;
            }
            if let Err(reason) = self.step().await {
                debug!("not settled yet: {reason}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn step(&self) -> Result<(), String> {
        let giving_birth = self.file.lock().giving_birth.clone();
        if let Some(members) = giving_birth {
            return self.give_birth(&members).await;
        }
        let outside = self.outside.load(Ordering::Relaxed);
        if !outside && !self.is_blank().await && !self.knows_membership_without_me() {
            return Ok(()); // Replication brings the rest.
        }
        let others = self.ask_identities().await;
        let born = others.values().find(|i| !i.blank && !i.cluster.is_empty());
        if let Some(born) = born {
            let cluster = born.cluster[..].try_into().map_err(|_| "bad cluster id")?;
            self.adopt(cluster)?;
            self.join(|group| outside || !self.votes_in(group)).await;
            return Ok(());
        }
        let everyone = others.len() + 1 == self.peers.all().len();
        let lowest = self.peers.all().first() == Some(&self.peers.me());
        if everyone && lowest && others.values().all(|i| i.blank) {
            return self.conceive(&others).await;
        }
        Err(format!("{} of {} peers answer", others.len(), self.peers.all().len() - 1))
    }

    fn knows_membership_without_me(&self) -> bool {
        self.groups().any(|g| !self.votes_in(g))
    }

    async fn ask_identities(&self) -> BTreeMap<NodeId, proto::IdentityReply> {
        let others = self.peers.all().into_iter().filter(|n| *n != self.peers.me());
        let asked = others.map(|to| async move {
            let request = Message::default();
            let call =
                self.peers.call(to, Lane::Control, methods::IDENTITY, request, ASK_TIMEOUT).await;
            let reply = proto::IdentityReply::decode(call.ok()?.head).ok()?;
            Some((to, reply))
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    async fn conceive(
        &self,
        others: &BTreeMap<NodeId, proto::IdentityReply>,
    ) -> Result<(), String> {
        let adopted = self.file.lock().cluster_bytes();
        let cluster = adopted.unwrap_or_else(|| self.env.random.uuid_bytes());
        let data_groups = u32::from(self.file.lock().data_groups);
        for to in others.keys() {
            let head = proto::AdoptRequest { cluster: cluster.to_vec().into(), data_groups };
            let request = Message::head(head.encode_to_vec());
            let call = self.peers.call(*to, Lane::Control, methods::ADOPT, request, JOIN_TIMEOUT);
            let reply = call.await.map_err(|e| e.to_string())?;
            let reply = proto::AdoptReply::decode(reply.head).map_err(|e| e.to_string())?;
            if !reply.adopted {
                warn!(node = %to, "peer refuses to be born: {}", reply.reason);
                return Err(reply.reason);
            }
        }
        let me = (self.peers.me().0, self.raft_id());
        let members: Vec<(u16, u64)> = std::iter::once(me)
            .chain(others.iter().map(|(node, identity)| (node.0, identity.raft_id)))
            .collect();
        self.change_file(|file| {
            file.set_cluster(cluster);
            file.giving_birth = Some(members.clone());
        })?;
        self.peers.set_cluster(cluster);
        info!("all nodes are blank: giving birth to the cluster");
        self.give_birth(&members).await
    }

    async fn give_birth(&self, members: &[(u16, u64)]) -> Result<(), String> {
        let members: BTreeMap<u64, Member> =
            members.iter().map(|(slot, id)| (*id, Member { slot: *slot })).collect();
        // Raft does not wait until the first entries are synced. They are before anyone hears of
        // them, as all groups share one log that is synced in order: until then every other node is
        // blank, and what follows may happen a second time under the same ids.
        for group in self.groups() {
            if !group.raft.is_initialized().await.map_err(|e| e.to_string())? {
                group.raft.initialize(members.clone()).await.map_err(|e| e.to_string())?;
            }
        }
        self.change_file(|file| file.giving_birth = None)
    }

    fn change_file(&self, change: impl FnOnce(&mut NodeFile)) -> Result<(), String> {
        let mut file = self.file.lock();
        let mut next = file.clone();
        change(&mut next);
        if next != *file {
            next.save(&self.env, &self.dir).map_err(|e| e.to_string())?;
            *file = next;
        }
        Ok(())
    }

    fn adopt(&self, cluster: [u8; 16]) -> Result<(), String> {
        self.change_file(|file| file.set_cluster(cluster))?;
        self.peers.set_cluster(cluster);
        Ok(())
    }

    /// Asks the leaders of these groups whether this node votes, and to be taken in if not.
    async fn join(&self, which: impl Fn(&RaftGroup) -> bool) {
        use proto::join_reply::State;
        let mut outside = false;
        for group in self.groups().filter(|group| which(group)) {
            let head = proto::JoinRequest {
                group: u32::from(group.id().0),
                node: u32::from(self.peers.me().0),
                raft_id: self.raft_id(),
            };
            for to in self.peers.all().into_iter().filter(|n| *n != self.peers.me()) {
                let request = Message::head(head.encode_to_vec());
                let call = self.peers.call(to, Lane::Control, methods::JOIN, request, JOIN_TIMEOUT);
                // A peer that is down or does not lead is no reason to stop asking.
                let Ok(reply) = call.await else { continue };
                let Ok(reply) = proto::JoinReply::decode(reply.head) else { continue };
                outside |= reply.state() == State::Working;
                if reply.state() != State::NotLeader {
                    break;
                }
            }
        }
        self.outside.store(outside, Ordering::Relaxed);
    }

    /// Answers a peer's question about birth or joining.
    pub(crate) async fn answer(
        self: Arc<Self>,
        method: u16,
        request: Message,
    ) -> Result<Message, String> {
        let head = match method {
            methods::IDENTITY => self.tell_identity().await.encode_to_vec(),
            methods::ADOPT => {
                let request = proto::AdoptRequest::decode(request.head);
                self.be_adopted(request.map_err(|e| e.to_string())?).await.encode_to_vec()
            }
            _ => {
                let request = proto::JoinRequest::decode(request.head);
                self.take_in(&request.map_err(|e| e.to_string())?)?.encode_to_vec()
            }
        };
        Ok(Message::head(head))
    }

    async fn tell_identity(&self) -> proto::IdentityReply {
        let blank = self.is_blank().await;
        let file = self.file.lock();
        proto::IdentityReply {
            node: u32::from(file.node),
            raft_id: file.raft_id,
            cluster: file.cluster_bytes().map_or_else(Vec::new, |c| c.to_vec()).into(),
            blank: blank && file.giving_birth.is_none(),
        }
    }

    async fn be_adopted(&self, request: proto::AdoptRequest) -> proto::AdoptReply {
        let refuse = |reason: String| proto::AdoptReply { adopted: false, reason };
        if !self.is_blank().await {
            return refuse("this node already has data".to_owned());
        }
        let own = u32::from(self.file.lock().data_groups);
        if own != request.data_groups {
            let theirs = request.data_groups;
            return refuse(format!(
                "raft.data_groups is {own} here and {theirs} at the first node"
            ));
        }
        let Ok(cluster) = request.cluster[..].try_into() else {
            return refuse("bad cluster id".to_owned());
        };
        match self.adopt(cluster) {
            Ok(()) => proto::AdoptReply { adopted: true, reason: String::new() },
            Err(reason) => refuse(reason),
        }
    }

    fn take_in(self: &Arc<Self>, request: &proto::JoinRequest) -> Result<proto::JoinReply, String> {
        use proto::join_reply::State;
        let reply = |state: State| Ok(proto::JoinReply { state: state.into() });
        let id = group_id(request.group).map_err(|e| e.to_string())?;
        let group = self.groups.get().and_then(|g| g.get(&id)).ok_or("no such group")?;
        let node = NodeId(u16::try_from(request.node).map_err(|e| e.to_string())?);
        if !self.peers.all().contains(&node) || node == self.peers.me() {
            return Err(format!("node {node} cannot join here"));
        }
        if !group.leadership().ready_here {
            return reply(State::NotLeader);
        }
        if members(group).voter_ids().any(|v| v == request.raft_id) {
            return reply(State::Voter);
        }
        let (this, group, raft_id) = (self.clone(), group.clone(), request.raft_id);
        self.tasks.spawn("raft join", async move {
            // A second request while the first is carried out has nothing to do.
            let Ok(_guard) = group.joining.try_lock() else { return };
            if let Err(reason) = this.replace(&group, node, raft_id).await {
                warn!(group = %group.id(), %node, "cannot take the node in yet: {reason}");
            }
        });
        reply(State::Working)
    }

    /// Ends changes of members that lost their leader half way. Until then a group needs a
    /// majority of the old members beside one of the new.
    pub(crate) async fn finish_changes(&self) {
        for group in self.groups().filter(|g| g.leadership().ready_here) {
            let Some(voters) = goal(&members(group)) else { continue };
            // Who changes them right now holds this.
            let Ok(_guard) = group.joining.try_lock() else { continue };
            info!(group = %group.id(), ?voters, "finishing a change of members");
            let change = ChangeMembers::ReplaceAllVoters(voters);
            // Given up in the middle it is as before, and the next look finds it.
            if let Err(reason) = in_time(group.raft.change_membership(change, false)).await {
                warn!(group = %group.id(), "the change is not finished yet: {reason}");
            }
        }
    }

    /// Goes as far as it can without waiting for the node; its next request goes on from there.
    async fn replace(&self, group: &RaftGroup, node: NodeId, raft_id: u64) -> Result<(), String> {
        if members(group).get_node(&raft_id).is_none() {
            self.begin_learning(group, node, raft_id).await?;
        }
        if !has_caught_up(group, raft_id) {
            debug!(group = %group.id(), %node, raft_id, "the node has not caught up yet");
            return Ok(());
        }
        let change = succession(&members(group), node, raft_id);
        in_time(group.raft.change_membership(change, false)).await?;
        info!(group = %group.id(), %node, raft_id, "the node votes");
        Ok(())
    }

    async fn begin_learning(
        &self,
        group: &RaftGroup,
        node: NodeId,
        raft_id: u64,
    ) -> Result<(), String> {
        if group.id() == GroupId::FS
            && let Some(reset) = self.reset.get()
        {
            reset.reset_slot(node).await?;
        }
        info!(group = %group.id(), %node, raft_id, "taking a node in as learner");
        let member = Member { slot: node.0 };
        in_time(group.raft.add_learner(raft_id, member, false)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::Membership;

    #[test]
    fn a_change_that_was_left_half_way_has_a_goal() {
        let member = |slot| Member { slot };
        let nodes = BTreeMap::from([(10, member(1)), (20, member(2)), (30, member(3))]);
        let stored = |configs: Vec<BTreeSet<u64>>| {
            let membership = Membership::new(configs, nodes.clone()).unwrap();
            StoredMembership::new(None, membership)
        };
        let (old, new) = (BTreeSet::from([10, 20]), BTreeSet::from([10, 20, 30]));
        assert_eq!(goal(&stored(vec![old.clone()])), None);
        assert_eq!(goal(&stored(vec![old, new.clone()])), Some(new));
    }

    /// Node 3 comes under the id 32, after a life as 31 in which it did not get as far as to vote.
    fn check_succession(configs: &[&[u64]], voters: [u64; 3]) {
        let slots = [(10, 1), (20, 2), (21, 2), (30, 3), (31, 3), (32, 3)];
        let nodes: BTreeMap<u64, Member> = slots.map(|(id, slot)| (id, Member { slot })).into();
        let configs: Vec<BTreeSet<u64>> =
            configs.iter().map(|config| config.iter().copied().collect()).collect();
        let membership = StoredMembership::new(None, Membership::new(configs, nodes).unwrap());
        let expected = ChangeMembers::Batch(vec![
            ChangeMembers::ReplaceAllVoters(voters.into()),
            ChangeMembers::RemoveNodes([31].into()),
        ]);
        assert_eq!(succession(&membership, NodeId(3), 32), expected);
    }

    #[test]
    fn who_takes_a_slot_is_its_only_holder() {
        check_succession(&[&[10, 20, 30]], [10, 20, 32]);
        // The change of node 2 was left half way; its old id does not come back.
        check_succession(&[&[10, 20, 30], &[10, 21, 30]], [10, 21, 32]);
    }
}
