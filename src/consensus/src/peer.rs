//! Calls between nodes.
//!
//! A message is a small `head` (a service's own encoding) and a `payload` that is never copied
//! into another encoding. Methods are numbered per service: high byte the service's tag, low
//! byte its own number.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::NodeId;
use bytes::Bytes;

/// Which of the three connections to a peer carries a call, so that bulk never delays a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Votes, heartbeats, read index, small calls.
    Control,
    /// Raft log replication.
    Append,
    /// Snapshots, segment ranges, blocks, search results.
    Bulk,
}

/// Request or answer between nodes; at most [`base::limits::MAX_PEER_MESSAGE_BYTES`] together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The service's own encoding of what is asked or answered.
    pub head: Bytes,
    /// Bulk bytes, may be empty.
    pub payload: Bytes,
}

impl Message {
    /// A message without payload.
    pub fn head(head: impl Into<Bytes>) -> Self {
        Self { head: head.into(), payload: Bytes::new() }
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The peer cannot be reached, or did not answer in time; the outcome is unknown.
    #[error("node {to} cannot be reached: {reason}")]
    Unreachable {
        /// The peer.
        to: NodeId,
        /// What failed.
        reason: String,
    },
    /// The peer's handler answered with an error.
    #[error("node {to}: {reason}")]
    Refused {
        /// The peer.
        to: NodeId,
        /// The handler's text.
        reason: String,
    },
}

/// Answers calls of one service.
#[async_trait]
pub trait PeerHandler: Send + Sync {
    /// Answers one call; the error text travels to the caller as [`PeerError::Refused`].
    async fn handle(&self, from: NodeId, method: u16, request: Message) -> Result<Message, String>;
}

/// The other nodes. A call to oneself works and skips the network.
#[async_trait]
pub trait Peers: Send + Sync {
    /// This node.
    fn me(&self) -> NodeId;

    /// Every node of the cluster, this one included, in order.
    fn all(&self) -> Vec<NodeId>;

    /// Whether the node answered within the last second or is this one.
    fn is_alive(&self, node: NodeId) -> bool;

    /// For how long the node has not answered; counted from this node's start when it never has.
    fn silent_for(&self, node: NodeId) -> Duration {
        if self.is_alive(node) { Duration::ZERO } else { Duration::MAX }
    }

    /// Registers the handler of a service tag. Call before the node serves.
    fn register(&self, tag: u8, handler: Arc<dyn PeerHandler>);

    /// Calls `method` of `to`.
    async fn call(
        &self,
        to: NodeId,
        lane: Lane,
        method: u16,
        request: Message,
        timeout: Duration,
    ) -> Result<Message, PeerError>;
}

/// Shared peers.
pub type PeersRef = Arc<dyn Peers>;
