//! What a service sees of a Raft group.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use base::{GroupId, NodeId};
use bytes::Bytes;
use tokio::sync::watch;

/// Who leads a group, as this node knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Raft term; Kafka sees it as leader epoch.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// The leader, or the last that this node knew of.
    pub last_leader: Option<NodeId>,
    /// Whether this node leads and has applied an entry of its own term, so that its state
    /// holds everything acknowledged before.
    pub ready_here: bool,
}

/// A reply together with where its command was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Raft index.
    pub index: u64,
    /// What [`crate::StateMachine::apply`] returned.
    pub reply: Bytes,
}

/// Why a command has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was proposed: another node leads. Retry there.
    #[error("group {group} is led by {}", name_of(*.leader))]
    NotLeader {
        /// The group.
        group: GroupId,
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The outcome is unknown: the command may be applied, now or later. Retry only what is
    /// idempotent.
    #[error("group {group} did not confirm the command in time; its outcome is unknown")]
    Unknown {
        /// The group.
        group: GroupId,
    },
    /// Nothing was proposed: the disk is below its reserve.
    #[error("node {node} is below its disk reserve")]
    DiskReserve {
        /// The node that refused.
        node: NodeId,
    },
    /// Nothing was proposed: the command is larger than a group takes.
    #[error("command of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

fn name_of(leader: Option<NodeId>) -> String {
    leader.map_or("nobody".to_owned(), |node| format!("node {node}"))
}

/// Why a read barrier failed; nothing may be served as linearizable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group {group} has no leader that a majority confirms")]
pub struct ReadError {
    /// The group.
    pub group: GroupId,
}

/// Leadership did not get where it was to go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {to} did not become leader of group {group}")]
pub struct TransferError {
    /// The group.
    pub group: GroupId,
    /// The node that was to lead.
    pub to: NodeId,
}

/// One replica of a group, as its leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaLog {
    /// Where it is.
    pub node: NodeId,
    /// Index of the last entry that it is known to have.
    pub last_index: u64,
    /// Whether it votes.
    pub votes: bool,
}

/// How far the log of a group is on each node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// Who says so: the leader.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: u64,
    /// Index of the last entry that is committed and applied there.
    pub committed: u64,
    /// The replicas, by node.
    pub replicas: Vec<ReplicaLog>,
}

/// One Raft group as its services see it. All futures may be dropped at any await point: a
/// dropped `propose` has an unknown outcome.
#[async_trait]
pub trait Group: Send + Sync {
    /// Which group.
    fn id(&self) -> GroupId;

    /// Who leads now, as this node knows it.
    fn leadership(&self) -> Leadership {
        *self.watch().borrow()
    }

    /// Follows changes of leadership.
    fn watch(&self) -> watch::Receiver<Leadership>;

    /// Proposes a command for the service `tag`, on the leader wherever it is, and waits until it
    /// is committed (fsynced on a majority) and applied. When forwarded, it is applied on the
    /// leader on return, and here after [`Self::read_barrier`]. Deadline: 10 s.
    async fn propose(&self, tag: u8, command: Bytes) -> Result<Applied, ProposeError>;

    /// As [`Self::propose`], but only when this node leads (in `term`, where given; the entry is
    /// then applied in that term or the call fails as `NotLeader` or `Unknown`).
    async fn propose_here(
        &self,
        tag: u8,
        command: Bytes,
        term: Option<u64>,
    ) -> Result<Applied, ProposeError>;

    /// Returns once this node has applied everything acknowledged before the call. From any
    /// node. Deadline: 5 s.
    async fn read_barrier(&self) -> Result<(), ReadError>;

    /// Makes `to` the leader, asked from any node; returns once this node sees it lead. Nothing
    /// happens when it leads already. Deadline: 5 s.
    async fn transfer(&self, to: NodeId) -> Result<(), TransferError>;

    /// How far the replicas are, asked of the leader from any node. Deadline: 5 s.
    async fn log_state(&self) -> Result<LogState, ReadError>;

    /// Nodes whose replica does not keep up with the leader or does not answer it, as the leader
    /// told half a second ago or less.
    fn behind(&self) -> BTreeSet<NodeId>;

    /// A node whose disk is below its reserve, as far as this node knows.
    fn disk_low(&self) -> Option<NodeId> {
        None
    }

    /// Waits until every follower is known to have synced the committed entry `index`, which the
    /// leader has in its log; false when one does not keep up. Deadline: 10 s, then false.
    async fn reach_all(&self, index: u64) -> bool;
}

/// A shared group.
pub type GroupRef = Arc<dyn Group>;

/// All groups of the cluster, as seen from this node.
#[derive(Clone)]
pub struct Groups {
    /// The metadata group.
    pub m0: GroupRef,
    /// The namespace group.
    pub fs: GroupRef,
    /// The data groups, by number.
    pub data: Vec<GroupRef>,
}

impl Groups {
    /// The group with this id.
    pub fn get(&self, id: GroupId) -> Option<&GroupRef> {
        match (id, id.data_number()) {
            (GroupId::M0, _) => Some(&self.m0),
            (GroupId::FS, _) => Some(&self.fs),
            (_, Some(number)) => self.data.get(usize::from(number)),
            (_, None) => None,
        }
    }

    /// Every group: `m0`, `fs`, then the data groups.
    pub fn all(&self) -> impl Iterator<Item = &GroupRef> {
        [&self.m0, &self.fs].into_iter().chain(&self.data)
    }
}
