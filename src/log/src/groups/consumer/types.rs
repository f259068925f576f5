//! What goes into a group of the consumer protocol and what comes out.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::super::types::GroupError;
use crate::types::PartKey;

/// Member epoch of a member that joins.
pub const JOINS: i32 = 0;
/// Member epoch of a member that leaves for good.
pub const LEAVES: i32 = -1;
/// Member epoch of a static member that leaves and will be back within its session.
pub const LEAVES_FOR_A_WHILE: i32 = -2;

/// A topic as far as groups care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicShape {
    /// Its id.
    pub id: Uuid,
    /// How many partitions it has.
    pub partitions: u32,
}

/// The topics that a coordinator's node knows.
pub trait TopicView {
    /// Another number after each change of topics.
    fn version(&self) -> u64;
    /// A topic by its name.
    fn shape(&self, topic: &str) -> Option<TopicShape>;
    /// Names of the topics that whoever asks may describe: all that a regular expression finds.
    fn visible(&self) -> Vec<String>;
}

/// A refusal: the error and what Kafka says beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the member should do about it.
    pub error: GroupError,
    /// For people; `None` where the error has words of its own.
    pub message: Option<String>,
}

impl Refusal {
    pub(in crate::groups) fn new(error: GroupError, message: impl Into<String>) -> Self {
        Self { error, message: Some(message.into()) }
    }
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        Self { error, message: None }
    }
}

/// ConsumerGroupHeartbeat (KIP-848): joining, staying, confirming and leaving are all one
/// request. `None` where the member did not say, because nothing changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The group.
    pub group: String,
    /// Member id; empty for a new member that leaves the choice to the coordinator.
    pub member: String,
    /// [`JOINS`], [`LEAVES`], [`LEAVES_FOR_A_WHILE`], or the epoch that the member was told.
    pub epoch: i32,
    /// Static name.
    pub instance: Option<String>,
    /// Where the member is.
    pub rack: Option<String>,
    /// How long the member may take to give partitions up, in milliseconds.
    pub rebalance_timeout_ms: Option<i32>,
    /// Topics subscribed to by name.
    pub topics: Option<Vec<String>>,
    /// Topics subscribed to by a regular expression; empty for none.
    pub regex: Option<String>,
    /// The assignor that the member wants.
    pub assignor: Option<String>,
    /// What the member owns.
    pub owned: Option<BTreeSet<PartKey>>,
    /// The client's name for itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Whether the member has to bring its own id (version 1; KIP-1082).
    pub brings_id: bool,
}

/// Answer to a [`Beat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeatReply {
    /// Member id.
    pub member: String,
    /// The epoch that the member is in.
    pub epoch: i32,
    /// When to send the next heartbeat, in milliseconds.
    pub interval_ms: i32,
    /// What the member may own, if there is news.
    pub assignment: Option<BTreeSet<PartKey>>,
}

/// Settings of one group, its own or the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeatSettings {
    /// Silence that removes a member, in milliseconds.
    pub session_ms: i64,
    /// How often members send heartbeats, in milliseconds.
    pub interval_ms: i32,
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerState {
    /// No members.
    Empty,
    /// The target assignment is behind the group.
    Assigning,
    /// Members are on their way to the target assignment.
    Reconciling,
    /// Every member has its target assignment.
    Stable,
}

impl ConsumerState {
    /// The state's name in ConsumerGroupDescribe and ListGroups.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// A member in ConsumerGroupDescribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerMemberDescription {
    /// Member id.
    pub id: String,
    /// Static name.
    pub instance: Option<String>,
    /// Where it is.
    pub rack: Option<String>,
    /// The epoch that it is in.
    pub epoch: i32,
    /// The client's name for itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Topics subscribed to by name.
    pub topics: Vec<String>,
    /// Regular expression subscribed to.
    pub regex: Option<String>,
    /// What it may own.
    pub assigned: BTreeSet<PartKey>,
    /// What it shall own.
    pub target: BTreeSet<PartKey>,
}

/// A group in ConsumerGroupDescribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerDescription {
    /// Where it stands.
    pub state: ConsumerState,
    /// Counts changes of members, subscriptions and topics.
    pub epoch: i32,
    /// The group's epoch that the target assignment is for.
    pub target_epoch: i32,
    /// Name of the assignor.
    pub assignor: &'static str,
    /// Members, by id.
    pub members: Vec<ConsumerMemberDescription>,
}
