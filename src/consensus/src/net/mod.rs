//! Transport between nodes: framed TCP, three connections per peer.
//!
//! Why not gRPC: sockets are half of what a replicated byte costs, and a gRPC stream was measured
//! at one and a half to three times the CPU of plain framing (see docs/decisions). Heads are
//! protobuf, so that they can grow fields; payloads stay raw. Simulations have [`sim_net`] instead.

pub mod frame;
pub mod sim_net;
pub mod tcp;

use std::pin::Pin;

use async_trait::async_trait;
use base::NodeId;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::peer::{Lane, Message, Peers};

#[allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
/// Heads of peer messages, generated from `proto/peer.proto`.
pub(crate) mod proto {
    include!(concat!(env!("OUT_DIR"), "/trine.peer.rs"));
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It never left this node; it may be sent again.
    #[error("{0}")]
    NotSent(String),
    /// The connection broke or the time ran out: the peer may have carried it out.
    #[error("{0}")]
    Lost(String),
    /// The peer answered with an error.
    #[error("{0}")]
    Refused(String),
}

/// The answer to come. Dropping it abandons the request.
pub type Answer = oneshot::Receiver<Result<Message, CallError>>;

/// A boxed future of an answer.
pub type Reply = Pin<Box<dyn Future<Output = Result<Message, String>> + Send>>;

/// Answers Raft messages. The future is polled once before the next message of the same
/// connection is looked at, so messages enter Raft in the order they were sent.
pub trait RaftHandler: Send + Sync {
    /// Starts answering one message.
    fn answer(&self, from: NodeId, method: u16, request: Message) -> Reply;
}

/// What Raft needs of a transport beyond [`Peers`]: ordered, pipelined requests, and identity.
#[async_trait]
pub trait Link: Peers {
    /// Queues a request; requests of one lane leave in the order of these calls. The payload
    /// parts travel back to back without being copied together.
    async fn begin(
        &self,
        to: NodeId,
        lane: Lane,
        method: u16,
        head: Bytes,
        payload: Vec<Bytes>,
    ) -> Result<Answer, CallError>;

    /// Sets who answers Raft messages. Call before the node serves.
    fn register_raft(&self, handler: std::sync::Arc<dyn RaftHandler>);

    /// Who this node says it is.
    fn identity(&self) -> Identity;

    /// Sets the cluster at birth.
    fn set_cluster(&self, cluster: [u8; 16]);

    /// A peer that belongs to another cluster, if one was met.
    fn foreign(&self) -> Option<NodeId>;
}

/// Who a node is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its slot.
    pub node: NodeId,
    /// The id minted for its data directory.
    pub raft_id: u64,
    /// The cluster it belongs to; zero before birth.
    pub cluster: [u8; 16],
}

/// Methods of consensus itself, under tag 0.
pub mod methods {
    /// AppendEntries.
    pub const APPEND: u16 = 1;
    /// Vote and pre-vote.
    pub const VOTE: u16 = 2;
    /// Leadership transfer.
    pub const TRANSFER: u16 = 3;
    /// Propose on behalf of another node.
    pub const PROPOSE: u16 = 4;
    /// Read index.
    pub const READ_INDEX: u16 = 5;
    /// A snapshot is offered; the answer comes when it is installed.
    pub const SNAPSHOT: u16 = 6;
    /// Reads a range of a file of a snapshot.
    pub const READ_FILE: u16 = 7;
    /// Who are you.
    pub const IDENTITY: u16 = 8;
    /// Belong to this cluster.
    pub const ADOPT: u16 = 9;
    /// Let me take a slot.
    pub const JOIN: u16 = 10;
    /// What there is to tell of disk and replicas.
    pub const WATCH: u16 = 11;
    /// Give leadership to a node.
    pub const HAND_OVER: u16 = 12;
    /// How far the replicas are.
    pub const LOG_STATE: u16 = 13;
}
