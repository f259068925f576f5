//! Who leads and how far the others are: what only the leader of a group knows or can change.

use std::collections::BTreeSet;
use std::time::Duration;

use base::NodeId;
use bytes::Bytes;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use prost::Message as _;
use tokio::time::Instant;

use super::group::RaftGroup;
use super::types::LogId;
use crate::group::{Group, LogState, ReadError, ReplicaLog, TransferError};
use crate::net::{methods, proto};
use crate::peer::{Lane, Message};

/// Time for leadership to arrive, and for asking the leader.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An attempt to hand over that has not worked after so long is made again.
const AGAIN: Duration = Duration::from_millis(500);
/// Another node is asked this often how far the replicas are.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// A follower this many entries behind does not get the lead.
const TRANSFER_LAG: u64 = 64;

impl RaftGroup {
    /// The Raft id of a wanted voter that is nearly caught up; `None` unless this node leads.
    pub(crate) fn best_follower(&self, wanted: impl Fn(NodeId) -> bool) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let membership = &metrics.membership_config;
        let voters: Vec<u64> = membership.voter_ids().collect();
        let replication = metrics.replication.as_ref()?;
        let near = |matched: &Option<_>| {
            matched.as_ref().is_some_and(|m: &LogId| m.index + TRANSFER_LAG >= last)
        };
        let candidates = replication.iter().filter(|(id, matched)| {
            let slot = membership.get_node(id).map(|m| NodeId(m.slot));
            **id != metrics.id && voters.contains(id) && near(matched) && slot.is_some_and(&wanted)
        });
        candidates.max_by_key(|(_, m)| m.map_or(0, |m| m.index)).map(|(id, _)| *id)
    }

    /// See [`Group::behind`].
    pub(crate) fn set_behind(&self, behind: BTreeSet<NodeId>) {
        *self.behind.lock() = behind;
    }

    /// Index of the last entry in this node's log.
    pub(crate) fn last_log_index(&self) -> u64 {
        self.raft.metrics().borrow_watched().last_log_index.unwrap_or(0)
    }

    /// Waits as long as no replica is behind; see [`Group::reach_all`].
    pub(super) async fn wait_for_all(&self, index: u64) -> bool {
        let mut metrics = self.raft.metrics();
        loop {
            let Ok(state) = self.state_of_log().await else { return false };
            let mut voters = state.replicas.iter().filter(|replica| replica.votes);
            if voters.all(|replica| replica.last_index >= index) {
                return true;
            }
            if !self.behind().is_empty() {
                return false;
            }
            // Woken by what replicas answer to this node; another leader is asked again.
            drop(tokio::time::timeout(ASK_AGAIN, metrics.changed()).await);
        }
    }

    /// Tells a follower to take over. Best effort: whether it does is seen by watching.
    pub(crate) async fn hand_over_here(&self, to: NodeId) -> bool {
        match self.best_follower(|node| node == to) {
            Some(target) => self.raft.trigger().transfer_leader(target).await.is_ok(),
            None => false,
        }
    }

    /// How far the replicas are; `None` unless this node leads.
    pub(crate) fn log_state_here(&self) -> Option<LogState> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let voters: Vec<u64> = membership.voter_ids().collect();
        let replication = metrics.replication.as_ref()?;
        let own = metrics.last_log_index.unwrap_or(0);
        let replicas = replication.iter().filter_map(|(id, matched)| {
            let node = membership.get_node(id).map(|m| NodeId(m.slot))?;
            let matched = matched.as_ref().map_or(0, |m: &LogId| m.index);
            let last_index = if *id == metrics.id { own } else { matched };
            Some(ReplicaLog { node, last_index, votes: voters.contains(id) })
        });
        let mut replicas: Vec<ReplicaLog> = replicas.collect();
        replicas.sort_by_key(|replica| replica.node);
        if metrics.state != ServerState::Leader {
            return None;
        }
        Some(LogState {
            leader: Some(self.link.me()),
            term: metrics.current_term,
            committed: metrics.last_applied.map_or(0, |id| id.index),
            replicas,
        })
    }

    pub(super) async fn transfer_to(&self, to: NodeId) -> Result<(), TransferError> {
        let until = Instant::now() + TIMEOUT;
        let mut watch = self.watch();
        loop {
            let leader = watch.borrow_and_update().leader;
            match leader {
                Some(leader) if leader == to => return Ok(()),
                Some(leader) if leader == self.link.me() => {
                    self.hand_over_here(to).await;
                }
                Some(leader) => {
                    let (group, to) = (u32::from(self.id().0), u32::from(to.0));
                    let head = proto::HandOverRequest { group, to }.encode_to_vec();
                    // The outcome is watched; a lost request is made again below.
                    drop(self.ask(leader, methods::HAND_OVER, head).await);
                }
                None => {}
            }
            if Instant::now() >= until {
                return Err(TransferError { group: self.id(), to });
            }
            drop(tokio::time::timeout(AGAIN, watch.changed()).await);
        }
    }

    pub(super) async fn state_of_log(&self) -> Result<LogState, ReadError> {
        let until = Instant::now() + TIMEOUT;
        let mut watch = self.watch();
        loop {
            let leader = watch.borrow_and_update().leader;
            let state = match leader {
                Some(leader) if leader == self.link.me() => self.log_state_here(),
                Some(leader) => self.log_state_there(leader).await,
                None => None,
            };
            if let Some(state) = state {
                return Ok(state);
            }
            if Instant::now() >= until {
                return Err(ReadError { group: self.id() });
            }
            drop(tokio::time::timeout(AGAIN, watch.changed()).await);
        }
    }

    async fn log_state_there(&self, leader: NodeId) -> Option<LogState> {
        let head = proto::LogStateRequest { group: u32::from(self.id().0) }.encode_to_vec();
        let answer = self.ask(leader, methods::LOG_STATE, head).await?;
        let reply = proto::LogStateReply::decode(answer).ok().filter(|reply| reply.leads)?;
        let replicas = reply.replicas.iter().filter_map(|replica| {
            let node = NodeId(u16::try_from(replica.node).ok()?);
            Some(ReplicaLog { node, last_index: replica.last, votes: replica.votes })
        });
        Some(LogState {
            leader: Some(leader),
            term: reply.term,
            committed: reply.committed,
            replicas: replicas.collect(),
        })
    }

    async fn ask(&self, node: NodeId, method: u16, head: Vec<u8>) -> Option<Bytes> {
        let request = Message::head(head);
        let answer = self.link.call(node, Lane::Control, method, request, TIMEOUT).await;
        answer.ok().map(|message| message.head)
    }
}

/// The answer of a leader to another node.
pub(crate) fn log_state_reply(state: Option<LogState>) -> proto::LogStateReply {
    let leads = state.is_some();
    let state = state.unwrap_or_default();
    let replicas = state.replicas.iter().map(|replica| proto::log_state_reply::Replica {
        node: u32::from(replica.node.0),
        last: replica.last_index,
        votes: replica.votes,
    });
    proto::LogStateReply {
        leads,
        term: state.term,
        committed: state.committed,
        replicas: replicas.collect(),
    }
}
