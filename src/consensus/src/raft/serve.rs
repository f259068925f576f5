//! Answers Raft messages of other nodes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base::{GroupId, NodeId};
use bytes::Bytes;
use openraft::errors::RaftError;
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use prost::Message as _;

use super::group::RaftGroup;
use super::leading::log_state_reply;
use super::network::{decode_append, encode_append_reply, group_id};
use super::snapshot::{Offer, check_ground, clear_staging, pull, serve_range};
use super::types::{Types, invalid};
use crate::birth::Birth;
use crate::cluster::neighbours::watch_reply;
use crate::group::{Group, ProposeError};
use crate::net::{RaftHandler, Reply, methods, proto};
use crate::peer::Message;

/// Answers for all groups of this node.
pub(crate) struct Server {
    pub(crate) groups: BTreeMap<GroupId, Arc<RaftGroup>>,
    pub(crate) birth: Arc<Birth>,
    /// Whether this node's own disk is below its reserve.
    pub(crate) own_disk_low: Arc<AtomicBool>,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn head<M: prost::Message + Default>(bytes: Bytes) -> Result<M, String> {
    M::decode(bytes).map_err(text)
}

fn raft_text<E: std::error::Error>(error: RaftError<Types, E>) -> String {
    error.to_string()
}

impl RaftHandler for Server {
    fn answer(&self, from: NodeId, method: u16, request: Message) -> Reply {
        match method {
            methods::APPEND => self.append(request),
            methods::VOTE => self.vote(request),
            methods::TRANSFER => self.transfer(request),
            methods::PROPOSE => self.propose(request),
            methods::READ_INDEX => self.read_index(request),
            methods::SNAPSHOT => self.snapshot(from, request),
            methods::READ_FILE => self.read_file(request),
            methods::WATCH => {
                let reply = watch_reply(&self.groups, &self.own_disk_low);
                Box::pin(std::future::ready(Ok(Message::head(reply.encode_to_vec()))))
            }
            methods::HAND_OVER => self.hand_over(request),
            methods::LOG_STATE => self.log_state(request),
            methods::IDENTITY | methods::ADOPT | methods::JOIN => {
                let birth = self.birth.clone();
                Box::pin(async move { birth.answer(method, request).await })
            }
            _ => Box::pin(async move { Err(format!("unknown method {method}")) }),
        }
    }
}

impl Server {
    fn group(&self, id: GroupId) -> io::Result<Arc<RaftGroup>> {
        let group = self.groups.get(&id).cloned();
        group.ok_or_else(|| invalid(&format!("this node has no group {id}")))
    }

    fn numbered(&self, number: u32) -> Result<Arc<RaftGroup>, String> {
        self.group(group_id(number).map_err(text)?).map_err(text)
    }

    /// The group, if the message is for this holder of the slot.
    fn group_for(&self, id: GroupId, target: u64) -> io::Result<Arc<RaftGroup>> {
        let group = self.group(id)?;
        if *group.raft.node_id() == target {
            return Ok(group);
        }
        Err(invalid(&format!("the message is for raft id {target}, which is gone")))
    }

    fn append(&self, request: Message) -> Reply {
        let decoded = decode_append(request)
            .and_then(|(id, target, rpc)| Ok((self.group_for(id, target)?, rpc)));
        Box::pin(async move {
            let (group, rpc) = decoded.map_err(text)?;
            let reply = group.raft.append_entries(rpc).await.map_err(raft_text)?;
            Ok(encode_append_reply(&reply))
        })
    }

    fn vote(&self, request: Message) -> Reply {
        let decoded = head::<proto::VoteRequest>(request.head).and_then(|head| {
            let id = group_id(head.group).map_err(text)?;
            Ok((self.group_for(id, head.target).map_err(text)?, head))
        });
        Box::pin(async move {
            let (group, head) = decoded?;
            let vote = head.vote.ok_or("vote request without a vote")?.into();
            let mut rpc = VoteRequest::new(vote, head.last.map(Into::into));
            rpc.leadership_transfer = head.leadership_transfer;
            let reply = if head.pre_vote {
                group.raft.pre_vote(rpc).await
            } else {
                // A leader that hands over has given up its lease.
                if !head.leadership_transfer {
                    group.silence.over().await;
                }
                group.raft.vote(rpc).await
            };
            let reply = reply.map_err(raft_text)?;
            let reply = proto::VoteReply {
                vote: Some((&reply.vote).into()),
                last: reply.last_log_id.as_ref().map(Into::into),
                granted: reply.vote_granted,
            };
            Ok(Message::head(reply.encode_to_vec()))
        })
    }

    fn transfer(&self, request: Message) -> Reply {
        let decoded = head::<proto::TransferRequest>(request.head).and_then(|head| {
            let id = group_id(head.group).map_err(text)?;
            Ok((self.group_for(id, head.to).map_err(text)?, head))
        });
        Box::pin(async move {
            let (group, head) = decoded?;
            let from = head.from.ok_or("transfer request without a vote")?.into();
            let rpc = TransferLeaderRequest::new(from, head.to, head.last.map(Into::into));
            let accepted = group.raft.handle_transfer_leader(rpc).await.map_err(text)?.is_ok();
            Ok(Message::head(proto::TransferReply { accepted }.encode_to_vec()))
        })
    }

    fn propose(&self, request: Message) -> Reply {
        let decoded = head::<proto::ProposeRequest>(request.head)
            .and_then(|head| Ok((self.numbered(head.group)?, head)));
        Box::pin(async move {
            let (group, head) = decoded?;
            let tag = u8::try_from(head.tag).map_err(text)?;
            let result = group.propose_here(tag, request.payload, None).await;
            let (reply, payload) = match result {
                Ok(applied) => (outcome_applied(applied.index), applied.reply),
                Err(e) => (outcome_error(&e), Bytes::new()),
            };
            Ok(Message { head: reply.encode_to_vec().into(), payload })
        })
    }

    fn read_index(&self, request: Message) -> Reply {
        let decoded = head::<proto::ReadIndexRequest>(request.head)
            .and_then(|head| self.numbered(head.group));
        Box::pin(async move {
            let index = decoded?.read_index_here().await;
            let reply = proto::ReadIndexReply {
                confirmed: index.is_some(),
                index: index.unwrap_or_default(),
            };
            Ok(Message::head(reply.encode_to_vec()))
        })
    }

    fn hand_over(&self, request: Message) -> Reply {
        let decoded = head::<proto::HandOverRequest>(request.head)
            .and_then(|head| Ok((self.numbered(head.group)?, head.to)));
        Box::pin(async move {
            let (group, to) = decoded?;
            let begun = group.hand_over_here(NodeId(u16::try_from(to).map_err(text)?)).await;
            Ok(Message::head(proto::HandOverReply { begun }.encode_to_vec()))
        })
    }

    fn log_state(&self, request: Message) -> Reply {
        let decoded =
            head::<proto::LogStateRequest>(request.head).and_then(|head| self.numbered(head.group));
        Box::pin(async move {
            let reply = log_state_reply(decoded?.log_state_here());
            Ok(Message::head(reply.encode_to_vec()))
        })
    }

    fn snapshot(&self, from: NodeId, request: Message) -> Reply {
        let decoded = Offer::decode(request.head)
            .and_then(|offer| Ok((self.group_for(offer.group, offer.target)?, offer)));
        Box::pin(async move {
            let (group, mut offer) = decoded.map_err(text)?;
            // Two offers at once would share the staging folder.
            let _one_at_a_time = group.installing.lock().await;
            pull(&group.shared, &group.link, from, &mut offer.manifest).await.map_err(text)?;
            let meta = offer.meta().map_err(text)?;
            let _no_checkpoint = group.checkpointing.lock().await;
            check_ground(&group.shared, &offer.manifest).map_err(text)?;
            let snapshot = openraft::Snapshot { meta, snapshot: offer.manifest };
            let reply =
                group.raft.install_full_snapshot(offer.vote, snapshot).await.map_err(text)?;
            // What came too late is not installed, and would stay.
            let shared = group.shared.clone();
            let cleared = tokio::task::spawn_blocking(move || clear_staging(&shared)).await;
            match cleared.map_err(text)?.map_err(text)? {
                false => tracing::info!(group = %group.shared.group, %from, "installed a snapshot"),
                true => tracing::info!(group = %group.shared.group, %from, "a snapshot came late"),
            }
            let reply = proto::SnapshotReply { vote: Some((&reply.vote).into()) };
            Ok(Message::head(reply.encode_to_vec()))
        })
    }

    fn read_file(&self, request: Message) -> Reply {
        let shared = self.groups.values().next().map(|g| g.shared.clone());
        Box::pin(async move {
            let shared = shared.ok_or("no groups")?;
            let read = move || serve_range(&shared.env, &shared.data_dir, request.head);
            tokio::task::spawn_blocking(read).await.map_err(text)?.map_err(text)
        })
    }
}

fn outcome_applied(index: u64) -> proto::ProposeReply {
    let outcome = proto::propose_reply::Outcome::Applied.into();
    proto::ProposeReply { outcome, index, node: 0 }
}

fn outcome_error(error: &ProposeError) -> proto::ProposeReply {
    use proto::propose_reply::Outcome;
    let (outcome, node) = match error {
        ProposeError::NotLeader { leader, .. } => (Outcome::NotLeader, leader.map_or(0, |n| n.0)),
        ProposeError::Unknown { .. } => (Outcome::Unknown, 0),
        ProposeError::DiskReserve { node } => (Outcome::DiskReserve, node.0),
        ProposeError::TooLarge { .. } => (Outcome::TooLarge, 0),
    };
    proto::ProposeReply { outcome: outcome.into(), index: 0, node: u32::from(node) }
}
