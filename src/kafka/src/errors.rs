//! Error codes of the Kafka protocol, and which code an error of the services becomes.

use log::groups::GroupError;

/// An error code as it stands on the wire.
pub type Code = i16;

/// Success.
pub const NONE: Code = 0;
/// The server met something it did not expect.
pub const UNKNOWN_SERVER_ERROR: Code = -1;
/// No such topic or partition.
pub const UNKNOWN_TOPIC_OR_PARTITION: Code = 3;
/// No leader at the moment.
pub const LEADER_NOT_AVAILABLE: Code = 5;
/// Another node leads.
pub const NOT_LEADER_OR_FOLLOWER: Code = 6;
/// Not done in the time given.
pub const REQUEST_TIMED_OUT: Code = 7;
/// The coordinator is not ready yet.
pub const COORDINATOR_LOAD_IN_PROGRESS: Code = 14;
/// No coordinator at the moment.
pub const COORDINATOR_NOT_AVAILABLE: Code = 15;
/// Another node coordinates.
pub const NOT_COORDINATOR: Code = 16;
/// The topic's name is not legal.
pub const INVALID_TOPIC_EXCEPTION: Code = 17;
/// Acks other than −1, 0 and 1.
pub const INVALID_REQUIRED_ACKS: Code = 21;
/// The client may not do this to the topic.
pub const TOPIC_AUTHORIZATION_FAILED: Code = 29;
/// The client may not do this to the group.
pub const GROUP_AUTHORIZATION_FAILED: Code = 30;
/// The client may not do this to the cluster.
pub const CLUSTER_AUTHORIZATION_FAILED: Code = 31;
/// The SASL mechanism is not offered.
pub const UNSUPPORTED_SASL_MECHANISM: Code = 33;
/// A SASL request at a time when none is expected.
pub const ILLEGAL_SASL_STATE: Code = 34;
/// The version is not served.
pub const UNSUPPORTED_VERSION: Code = 35;
/// The directory is not one of this node's.
pub const LOG_DIR_NOT_FOUND: Code = 57;
/// Nobody who may lead is there.
pub const PREFERRED_LEADER_NOT_AVAILABLE: Code = 80;
/// Nobody of the replicas is there.
pub const ELIGIBLE_LEADERS_NOT_AVAILABLE: Code = 83;
/// The wanted leader leads already.
pub const ELECTION_NOT_NEEDED: Code = 84;
/// Nothing is being reassigned.
pub const NO_REASSIGNMENT_IN_PROGRESS: Code = 85;
/// The type of endpoint does not exist.
pub const UNSUPPORTED_ENDPOINT_TYPE: Code = 115;
/// The replica assignment is not possible.
pub const INVALID_REPLICA_ASSIGNMENT: Code = 39;
/// A setting is not possible.
pub const INVALID_CONFIG: Code = 40;
/// The request is not possible.
pub const INVALID_REQUEST: Code = 42;
/// A newer instance of the producer is at work.
pub const INVALID_PRODUCER_EPOCH: Code = 47;
/// Another part of the request failed, so that this one was not tried.
pub const OPERATION_NOT_ATTEMPTED: Code = 55;
/// The client may not use the transactional id.
pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Code = 53;
/// Access is not controlled.
pub const SECURITY_DISABLED: Code = 54;
/// The client is not who it says.
pub const SASL_AUTHENTICATION_FAILED: Code = 58;
/// No such group.
pub const GROUP_ID_NOT_FOUND: Code = 69;
/// No such fetch session.
pub const FETCH_SESSION_ID_NOT_FOUND: Code = 70;
/// A fetch session's next request has another epoch.
pub const INVALID_FETCH_SESSION_EPOCH: Code = 71;
/// What is to be changed does not exist.
pub const RESOURCE_NOT_FOUND: Code = 91;
/// One thing twice in a request.
pub const DUPLICATE_RESOURCE: Code = 92;
/// A credential is not possible.
pub const UNACCEPTABLE_CREDENTIAL: Code = 93;
/// No topic has this id.
pub const UNKNOWN_TOPIC_ID: Code = 100;
/// The topic's name belongs to another id by now.
pub const INCONSISTENT_TOPIC_ID: Code = 103;
/// A fetch session does not change between topic names and topic ids.
pub const FETCH_SESSION_TOPIC_ID_ERROR: Code = 106;
/// The batch is compressed in a way that the version does not know.
pub const UNSUPPORTED_COMPRESSION_TYPE: Code = 76;
/// The records are not what the version allows.
pub const INVALID_RECORD: Code = 87;
/// A transaction under way may change the offset.
pub const UNSTABLE_OFFSET_COMMIT: Code = 88;
/// The member is in another epoch.
pub const STALE_MEMBER_EPOCH: Code = 113;
/// The endpoint type is not served.
pub const MISMATCHED_ENDPOINT_TYPE: Code = 114;

/// Kafka's name of a code.
pub fn name(code: Code) -> &'static str {
    let at = usize::try_from(code).unwrap_or(usize::MAX);
    NAMES.get(at).copied().unwrap_or("UNKNOWN_SERVER_ERROR")
}

/// The code of a group error.
pub fn group_code(error: GroupError) -> Code {
    match error {
        GroupError::CoordinatorNotAvailable => COORDINATOR_NOT_AVAILABLE,
        GroupError::NotCoordinator => NOT_COORDINATOR,
        GroupError::IllegalGeneration => 22,
        GroupError::InconsistentGroupProtocol => 23,
        GroupError::InvalidGroupId => 24,
        GroupError::UnknownMemberId => 25,
        GroupError::InvalidSessionTimeout => 26,
        GroupError::RebalanceInProgress => 27,
        GroupError::NonEmptyGroup => 68,
        GroupError::GroupIdNotFound => GROUP_ID_NOT_FOUND,
        GroupError::MemberIdRequired => 79,
        GroupError::GroupMaxSizeReached => 81,
        GroupError::FencedInstanceId => 82,
        GroupError::GroupSubscribedToTopic => 86,
        GroupError::InvalidRequest => INVALID_REQUEST,
        GroupError::UnsupportedVersion => UNSUPPORTED_VERSION,
        GroupError::FencedMemberEpoch => 110,
        GroupError::UnreleasedInstanceId => 111,
        GroupError::UnsupportedAssignor => 112,
        GroupError::StaleMemberEpoch => STALE_MEMBER_EPOCH,
        GroupError::InvalidRegularExpression => 128,
    }
}

/// The code of a result of the group coordinator.
pub fn group_result<T>(result: &Result<T, GroupError>) -> Code {
    result.as_ref().err().map_or(NONE, |error| group_code(*error))
}

/// What Kafka says of a code where the service has no words of its own.
pub fn message(code: Code) -> &'static str {
    match code {
        UNKNOWN_TOPIC_OR_PARTITION => "This server does not host this topic-partition.",
        LEADER_NOT_AVAILABLE => {
            "There is no leader for this topic-partition as we are in the middle of a leadership \
             election."
        }
        NOT_LEADER_OR_FOLLOWER => {
            "For requests intended only for the leader, this error indicates that the broker is \
             not the current leader. For requests intended for any replica, this error indicates \
             that the broker is not a replica of the topic partition."
        }
        REQUEST_TIMED_OUT => "The request timed out.",
        COORDINATOR_NOT_AVAILABLE => "The coordinator is not available.",
        UNKNOWN_TOPIC_ID => "This server does not host this topic ID.",
        INVALID_TOPIC_EXCEPTION => {
            "The request attempted to perform an operation on an invalid topic."
        }
        PREFERRED_LEADER_NOT_AVAILABLE => "The preferred leader was not available.",
        ELIGIBLE_LEADERS_NOT_AVAILABLE => "Eligible topic partition leaders are not available.",
        ELECTION_NOT_NEEDED => "Leader election not needed for topic partition.",
        NO_REASSIGNMENT_IN_PROGRESS => "No partition reassignment is in progress.",
        TOPIC_AUTHORIZATION_FAILED => "Topic authorization failed.",
        GROUP_AUTHORIZATION_FAILED => "Group authorization failed.",
        CLUSTER_AUTHORIZATION_FAILED => "Cluster authorization failed.",
        TRANSACTIONAL_ID_AUTHORIZATION_FAILED => "Transactional Id authorization failed.",
        _ => "The server experienced an unexpected error when processing the request.",
    }
}

/// Names of the codes from 0 on.
const NAMES: [&str; 130] = [
    "NONE",
    "OFFSET_OUT_OF_RANGE",
    "CORRUPT_MESSAGE",
    "UNKNOWN_TOPIC_OR_PARTITION",
    "INVALID_FETCH_SIZE",
    "LEADER_NOT_AVAILABLE",
    "NOT_LEADER_OR_FOLLOWER",
    "REQUEST_TIMED_OUT",
    "BROKER_NOT_AVAILABLE",
    "REPLICA_NOT_AVAILABLE",
    "MESSAGE_TOO_LARGE",
    "STALE_CONTROLLER_EPOCH",
    "OFFSET_METADATA_TOO_LARGE",
    "NETWORK_EXCEPTION",
    "COORDINATOR_LOAD_IN_PROGRESS",
    "COORDINATOR_NOT_AVAILABLE",
    "NOT_COORDINATOR",
    "INVALID_TOPIC_EXCEPTION",
    "RECORD_LIST_TOO_LARGE",
    "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    "INVALID_REQUIRED_ACKS",
    "ILLEGAL_GENERATION",
    "INCONSISTENT_GROUP_PROTOCOL",
    "INVALID_GROUP_ID",
    "UNKNOWN_MEMBER_ID",
    "INVALID_SESSION_TIMEOUT",
    "REBALANCE_IN_PROGRESS",
    "INVALID_COMMIT_OFFSET_SIZE",
    "TOPIC_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
    "INVALID_TIMESTAMP",
    "UNSUPPORTED_SASL_MECHANISM",
    "ILLEGAL_SASL_STATE",
    "UNSUPPORTED_VERSION",
    "TOPIC_ALREADY_EXISTS",
    "INVALID_PARTITIONS",
    "INVALID_REPLICATION_FACTOR",
    "INVALID_REPLICA_ASSIGNMENT",
    "INVALID_CONFIG",
    "NOT_CONTROLLER",
    "INVALID_REQUEST",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT",
    "POLICY_VIOLATION",
    "OUT_OF_ORDER_SEQUENCE_NUMBER",
    "DUPLICATE_SEQUENCE_NUMBER",
    "INVALID_PRODUCER_EPOCH",
    "INVALID_TXN_STATE",
    "INVALID_PRODUCER_ID_MAPPING",
    "INVALID_TRANSACTION_TIMEOUT",
    "CONCURRENT_TRANSACTIONS",
    "TRANSACTION_COORDINATOR_FENCED",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    "SECURITY_DISABLED",
    "OPERATION_NOT_ATTEMPTED",
    "KAFKA_STORAGE_ERROR",
    "LOG_DIR_NOT_FOUND",
    "SASL_AUTHENTICATION_FAILED",
    "UNKNOWN_PRODUCER_ID",
    "REASSIGNMENT_IN_PROGRESS",
    "DELEGATION_TOKEN_AUTH_DISABLED",
    "DELEGATION_TOKEN_NOT_FOUND",
    "DELEGATION_TOKEN_OWNER_MISMATCH",
    "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED",
    "DELEGATION_TOKEN_AUTHORIZATION_FAILED",
    "DELEGATION_TOKEN_EXPIRED",
    "INVALID_PRINCIPAL_TYPE",
    "NON_EMPTY_GROUP",
    "GROUP_ID_NOT_FOUND",
    "FETCH_SESSION_ID_NOT_FOUND",
    "INVALID_FETCH_SESSION_EPOCH",
    "LISTENER_NOT_FOUND",
    "TOPIC_DELETION_DISABLED",
    "FENCED_LEADER_EPOCH",
    "UNKNOWN_LEADER_EPOCH",
    "UNSUPPORTED_COMPRESSION_TYPE",
    "STALE_BROKER_EPOCH",
    "OFFSET_NOT_AVAILABLE",
    "MEMBER_ID_REQUIRED",
    "PREFERRED_LEADER_NOT_AVAILABLE",
    "GROUP_MAX_SIZE_REACHED",
    "FENCED_INSTANCE_ID",
    "ELIGIBLE_LEADERS_NOT_AVAILABLE",
    "ELECTION_NOT_NEEDED",
    "NO_REASSIGNMENT_IN_PROGRESS",
    "GROUP_SUBSCRIBED_TO_TOPIC",
    "INVALID_RECORD",
    "UNSTABLE_OFFSET_COMMIT",
    "THROTTLING_QUOTA_EXCEEDED",
    "PRODUCER_FENCED",
    "RESOURCE_NOT_FOUND",
    "DUPLICATE_RESOURCE",
    "UNACCEPTABLE_CREDENTIAL",
    "INCONSISTENT_VOTER_SET",
    "INVALID_UPDATE_VERSION",
    "FEATURE_UPDATE_FAILED",
    "PRINCIPAL_DESERIALIZATION_FAILURE",
    "SNAPSHOT_NOT_FOUND",
    "POSITION_OUT_OF_RANGE",
    "UNKNOWN_TOPIC_ID",
    "DUPLICATE_BROKER_REGISTRATION",
    "BROKER_ID_NOT_REGISTERED",
    "INCONSISTENT_TOPIC_ID",
    "INCONSISTENT_CLUSTER_ID",
    "TRANSACTIONAL_ID_NOT_FOUND",
    "FETCH_SESSION_TOPIC_ID_ERROR",
    "INELIGIBLE_REPLICA",
    "NEW_LEADER_ELECTED",
    "OFFSET_MOVED_TO_TIERED_STORAGE",
    "FENCED_MEMBER_EPOCH",
    "UNRELEASED_INSTANCE_ID",
    "UNSUPPORTED_ASSIGNOR",
    "STALE_MEMBER_EPOCH",
    "MISMATCHED_ENDPOINT_TYPE",
    "UNSUPPORTED_ENDPOINT_TYPE",
    "UNKNOWN_CONTROLLER_ID",
    "UNKNOWN_SUBSCRIPTION_ID",
    "TELEMETRY_TOO_LARGE",
    "INVALID_REGISTRATION",
    "TRANSACTION_ABORTABLE",
    "INVALID_RECORD_STATE",
    "SHARE_SESSION_NOT_FOUND",
    "INVALID_SHARE_SESSION_EPOCH",
    "FENCED_STATE_EPOCH",
    "INVALID_VOTER_KEY",
    "DUPLICATE_VOTER",
    "VOTER_NOT_FOUND",
    "INVALID_REGULAR_EXPRESSION",
    "REBOOTSTRAP_REQUIRED",
];
