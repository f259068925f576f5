//! What goes into the coordinator and what comes out.

use bytes::Bytes;

use super::consumer::ConsumerDescription;

/// Names one waiting request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Why a group request failed; the names are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Retry: the coordinator is loading or could not save.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// Look the coordinator up again.
    #[error("this node does not coordinate the group")]
    NotCoordinator,
    /// Fix the request.
    #[error("the group id is invalid")]
    InvalidGroupId,
    /// The generation is over; join again.
    #[error("the generation is not the group's")]
    IllegalGeneration,
    /// The member is not in the group; join again without an id.
    #[error("the member is not in the group")]
    UnknownMemberId,
    /// Fix the request.
    #[error("the session timeout is out of bounds")]
    InvalidSessionTimeout,
    /// Join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// No protocol that all members speak, or not the group's protocol type.
    #[error("the member's protocols do not fit the group's")]
    InconsistentGroupProtocol,
    /// Join again with the member id in the reply.
    #[error("the member must join with the id given to it")]
    MemberIdRequired,
    /// Another member took over this static name.
    #[error("another member took over the static name")]
    FencedInstanceId,
    /// The group is full.
    #[error("the group has as many members as it may have")]
    GroupMaxSizeReached,
    /// The group has members.
    #[error("the group is not empty")]
    NonEmptyGroup,
    /// There is no such group.
    #[error("there is no such group")]
    GroupIdNotFound,
    /// The group consumes this topic.
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// Fix the request.
    #[error("the request is not possible")]
    InvalidRequest,
    /// Give up all partitions and join again.
    #[error("the member's epoch is not the one that the coordinator knows")]
    FencedMemberEpoch,
    /// Try again with the epoch of the last heartbeat.
    #[error("the member's epoch is over")]
    StaleMemberEpoch,
    /// Another member has this static name and has not left.
    #[error("the static name is in use")]
    UnreleasedInstanceId,
    /// Fix the request.
    #[error("there is no such assignor")]
    UnsupportedAssignor,
    /// Fix the request.
    #[error("the regular expression is not valid")]
    InvalidRegularExpression,
    /// Use a newer version of the API.
    #[error("members of the consumer protocol cannot use this version")]
    UnsupportedVersion,
}

/// Settings of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_ms: i64,
    /// `group.max.session.timeout.ms`
    pub max_session_ms: i64,
    /// `group.initial.rebalance.delay.ms`: how long the first generation waits for more members.
    pub initial_delay_ms: i64,
    /// `group.max.size`
    pub max_members: usize,
    /// `group.consumer.session.timeout.ms`
    pub consumer_session_ms: i64,
    /// `group.consumer.heartbeat.interval.ms`
    pub consumer_interval_ms: i32,
    /// `offsets.retention.minutes`, in milliseconds
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_check_ms: u64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            min_session_ms: 6_000,
            max_session_ms: 1_800_000,
            // Kafka's default is 3 s; a start is quick here, and one more rebalance is cheap.
            initial_delay_ms: 100,
            max_members: 10_000,
            consumer_session_ms: 45_000,
            consumer_interval_ms: 5_000,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offsets_check_ms: 600_000,
        }
    }
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// No members.
    Empty,
    /// Waiting for all members to join the next generation.
    PreparingRebalance,
    /// Waiting for the leader's assignment.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
}

impl GroupState {
    /// The state's name in DescribeGroups and ListGroups.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A request to join.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// The group.
    pub group: String,
    /// Empty for a new member.
    pub member: String,
    /// Static name, if the member has one.
    pub instance: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Silence that removes the member.
    pub session_timeout_ms: i64,
    /// How long a rebalance waits for this member.
    pub rebalance_timeout_ms: i64,
    /// `consumer` for consumers.
    pub protocol_type: String,
    /// Assignors with their subscription, best first.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether a new dynamic member is first told its id (JoinGroup 4 and later).
    pub require_known_id: bool,
    /// Whether a static leader that returned can be told to keep the assignment (JoinGroup 9).
    pub can_skip_assignment: bool,
}

/// A member as the leader of a generation sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinMember {
    /// Member id.
    pub id: String,
    /// Static name.
    pub instance: Option<String>,
    /// Subscription under the chosen protocol.
    pub metadata: Bytes,
}

/// Reply to [`Join`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinReply {
    /// Why it failed, if it did.
    pub error: Option<GroupError>,
    /// The generation, −1 on failure.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// Member id of the leader.
    pub leader: String,
    /// The id of the member that joined.
    pub member: String,
    /// Everybody, when the member that joined leads.
    pub members: Vec<JoinMember>,
    /// Whether the leader shall keep the assignment.
    pub skip_assignment: bool,
}

impl JoinReply {
    /// A failed join.
    pub fn failed(member: &str, error: GroupError) -> Self {
        Self {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            member: member.to_owned(),
            members: Vec::new(),
            skip_assignment: false,
        }
    }
}

/// A request for one's assignment, which the leader's brings along for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sync {
    /// The group.
    pub group: String,
    /// The generation joined.
    pub generation: i32,
    /// Member id.
    pub member: String,
    /// Static name.
    pub instance: Option<String>,
    /// Protocol type, checked where given.
    pub protocol_type: Option<String>,
    /// Protocol, checked where given.
    pub protocol: Option<String>,
    /// Member id → assignment, from the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// Reply to [`Sync`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncReply {
    /// Protocol type of the group.
    pub protocol_type: Option<String>,
    /// Protocol of the generation.
    pub protocol: Option<String>,
    /// The member's assignment.
    pub assignment: Bytes,
}

/// A sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// The group.
    pub group: String,
    /// The member's generation.
    pub generation: i32,
    /// Member id.
    pub member: String,
    /// Static name.
    pub instance: Option<String>,
}

/// A member by id, static name or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberName {
    /// Member id; may be empty when the static name is given.
    pub id: String,
    /// Static name.
    pub instance: Option<String>,
}

/// Members that leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// The group.
    pub group: String,
    /// Who leaves.
    pub members: Vec<MemberName>,
}

/// What became of one leaving member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveResult {
    /// Who.
    pub member: MemberName,
    /// Why it could not leave.
    pub error: Option<GroupError>,
}

/// How offsets are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitVia {
    /// OffsetCommit before version 9, which knows nothing of the consumer protocol.
    OldOffsetCommit,
    /// OffsetCommit.
    OffsetCommit,
    /// TxnOffsetCommit.
    Transaction,
}

/// Who commits offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitCheck {
    /// The group.
    pub group: String,
    /// How.
    pub via: CommitVia,
    /// The member's generation or epoch; negative for commits from outside a group.
    pub generation: i32,
    /// Member id; empty for commits from outside a group.
    pub member: String,
    /// Static name.
    pub instance: Option<String>,
}

/// Who reads committed offsets (OffsetFetch 9 and later).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchCheck {
    /// The group.
    pub group: String,
    /// Member id, if the reader says it.
    pub member: Option<String>,
    /// The member's epoch; negative if the reader says none.
    pub epoch: i32,
}

/// A member in DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// Member id.
    pub id: String,
    /// Static name.
    pub instance: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Subscription under the chosen protocol.
    pub metadata: Bytes,
    /// Assignment.
    pub assignment: Bytes,
}

/// A group in DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// State.
    pub state: GroupState,
    /// Protocol type, empty when unknown.
    pub protocol_type: String,
    /// The chosen protocol; empty unless stable.
    pub protocol: String,
    /// Members.
    pub members: Vec<MemberDescription>,
}

/// A group of either kind as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Described {
    /// Of the classic protocol.
    Classic(GroupDescription),
    /// Of the consumer protocol.
    Consumer(ConsumerDescription),
}

/// What metrics say of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStats {
    /// Group id.
    pub id: String,
    /// Members.
    pub members: usize,
    /// Generations that were completed; the epoch of a group of the consumer protocol.
    pub generation: i32,
}

/// A group in ListGroups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupListing {
    /// Group id.
    pub id: String,
    /// Protocol type, empty for a group that only has offsets.
    pub protocol_type: String,
    /// Name of the state.
    pub state: &'static str,
    /// `classic` or `consumer`: which protocol it speaks.
    pub group_type: &'static str,
}
