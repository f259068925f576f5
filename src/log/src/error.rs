//! Errors as Kafka clients know them.

use base::NodeId;
use consensus::{ProposeError, ReadError};

use crate::batch::BatchError;

/// A record of a batch that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRecord {
    /// Its number in the batch, from 0.
    pub index: i32,
    /// Why.
    pub message: String,
}

/// Why the log refused. Each variant has one error code of the Kafka protocol, and the words
/// that Kafka has for it where it has some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Another node leads the partition or coordinates the group. Retry there.
    #[error("led by {}", leader.map_or("nobody yet".to_owned(), |n| format!("node {n}")))]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// No such topic or partition here.
    #[error("This server does not host this topic-partition.")]
    UnknownTopicOrPartition,
    /// No topic has this id.
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    /// The offset lies before the log's start or after its end.
    #[error("offset {offset} is outside {start}..={end}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: i64,
        /// First offset.
        start: i64,
        /// High watermark.
        end: i64,
    },
    /// A producer's batch does not follow its previous one.
    #[error("The broker received an out of order sequence number.")]
    OutOfOrderSequence,
    /// A newer instance of the producer is at work.
    #[error("Producer attempted to produce with an old epoch.")]
    InvalidProducerEpoch,
    /// The producer's state is gone.
    #[error(
        "This exception is raised by the broker if it could not locate the producer metadata \
         associated with the producerId in question. This could happen if, for instance, the \
         producer's records were deleted because their retention time had elapsed. Once the \
         last records of the producerId are removed, the producer's metadata is removed from \
         the broker, and future appends by the producer will return this exception."
    )]
    UnknownProducerId,
    /// The batch fits no transaction that its producer has here.
    #[error("The producer attempted a transactional operation in an invalid state.")]
    InvalidTxnState,
    /// The transactional id's previous transaction is not complete yet. Retry.
    #[error(
        "The producer attempted to update a transaction while another concurrent operation on \
         the same transaction was ongoing."
    )]
    ConcurrentTransactions,
    /// The producer id is not the transactional id's.
    #[error(
        "The producer attempted to use a producer id which is not currently assigned to its \
         transactional id."
    )]
    InvalidProducerIdMapping,
    /// A newer producer with the same transactional id is at work.
    #[error(
        "There is a newer producer with the same transactionalId which fences the current \
         one."
    )]
    ProducerFenced,
    /// The timeout of transactions is longer than `transaction.max.timeout.ms`.
    #[error(
        "The transaction timeout is larger than the maximum value allowed by the broker (as \
         configured by transaction.max.timeout.ms)."
    )]
    InvalidTransactionTimeout,
    /// The partition was not added to the transaction: abort it and go on.
    #[error(
        "The server encountered an error with the transaction. The client can abort the \
         transaction to continue using this transactional ID."
    )]
    TransactionAbortable,
    /// A newer coordinator wrote markers already.
    #[error(
        "Indicates that the transaction coordinator sending a WriteTxnMarker is no longer the \
         current coordinator for a given producer."
    )]
    CoordinatorFenced,
    /// Offsets of a transaction that may still commit are under way.
    #[error("There are unstable offsets that need to be cleared.")]
    UnstableOffsetCommit,
    /// No such transactional id.
    #[error("The transactionalId could not be found.")]
    TransactionalIdNotFound,
    /// The batch is larger than `max.message.bytes`.
    #[error(
        "The record batch size in the append is {bytes} bytes which exceeds the maximum configured \
         value of {limit}."
    )]
    MessageTooLarge {
        /// Its size.
        bytes: usize,
        /// The topic's limit.
        limit: usize,
    },
    /// The batch is damaged.
    #[error("corrupt message: {0}")]
    CorruptMessage(String),
    /// The batch is well-formed and still not acceptable.
    #[error("invalid record: {0}")]
    InvalidRecord(String),
    /// Single records of the batch are not acceptable; nothing was written.
    #[error("{message}")]
    RejectedRecords {
        /// INVALID_RECORD (87) or INVALID_TIMESTAMP (32).
        code: i16,
        /// What is wrong with all of them.
        message: String,
        /// Which they are.
        records: Vec<RejectedRecord>,
    },
    /// The message format is older than v2.
    #[error("The message format version on the broker does not support the request.")]
    UnsupportedForMessageFormat,
    /// The compression is not one that is known.
    #[error("The requesting client does not support the compression type of given partition.")]
    UnsupportedCompression,
    /// The timestamp lies outside what the topic takes.
    #[error("The timestamp of the message is out of acceptable range.")]
    InvalidTimestamp,
    /// A topic of that name exists.
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    /// The name is not a legal topic name.
    #[error("{0}")]
    InvalidTopic(String),
    /// The number of partitions is not possible.
    #[error("{0}")]
    InvalidPartitions(String),
    /// The replication factor is not possible.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// A setting is unknown or its value not possible.
    #[error("{0}")]
    InvalidConfig(String),
    /// The request is not possible.
    #[error("{0}")]
    InvalidRequest(String),
    /// The topic's settings do not allow it. POLICY_VIOLATION.
    #[error("{0}")]
    PolicyViolation(String),
    /// Fewer replicas keep up than `min.insync.replicas` asks for; nothing was written.
    #[error("Messages are rejected since there are fewer in-sync replicas than required.")]
    NotEnoughReplicas,
    /// Written, but fewer replicas keep up than `min.insync.replicas` asks for.
    #[error("Messages are written to the log, but to fewer in-sync replicas than required.")]
    NotEnoughReplicasAfterAppend,
    /// The leader epoch of the request is older than the partition's.
    #[error("The leader epoch in the request is older than the epoch on the broker.")]
    FencedLeaderEpoch,
    /// The leader epoch of the request is newer than what this node knows.
    #[error("The leader epoch in the request is newer than the epoch on the broker.")]
    UnknownLeaderEpoch,
    /// A committed offset's metadata text is too long.
    #[error("The metadata field of the offset request was too large.")]
    OffsetMetadataTooLarge,
    /// The node is below its disk reserve, or a file cannot be read. KAFKA_STORAGE_ERROR.
    #[error("storage: {0}")]
    Storage(String),
    /// The outcome is unknown: it may have happened, or may happen yet. REQUEST_TIMED_OUT.
    #[error("The request timed out.")]
    Timeout,
    /// Something this node did not expect. UNKNOWN_SERVER_ERROR.
    #[error("internal: {0}")]
    Internal(String),
}

impl LogError {
    /// Whether producers send a batch again that was refused so.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::NotLeader { .. }
                | Self::Timeout
                | Self::Storage(_)
                | Self::NotEnoughReplicas
                | Self::ConcurrentTransactions
        )
    }

    /// The error code of the Kafka protocol.
    pub fn code(&self) -> i16 {
        match self {
            Self::OffsetOutOfRange { .. } => 1,
            Self::CorruptMessage(_) => 2,
            Self::UnknownTopicOrPartition => 3,
            Self::NotLeader { .. } => 6,
            Self::Timeout => 7,
            Self::MessageTooLarge { .. } => 10,
            Self::OffsetMetadataTooLarge => 12,
            Self::InvalidTopic(_) => 17,
            Self::NotEnoughReplicas => 19,
            Self::NotEnoughReplicasAfterAppend => 20,
            Self::InvalidTimestamp => 32,
            Self::TopicExists(_) => 36,
            Self::InvalidPartitions(_) => 37,
            Self::InvalidReplicationFactor(_) => 38,
            Self::InvalidConfig(_) => 40,
            Self::InvalidRequest(_) => 42,
            Self::UnsupportedForMessageFormat => 43,
            Self::PolicyViolation(_) => 44,
            Self::OutOfOrderSequence => 45,
            Self::InvalidProducerEpoch => 47,
            Self::InvalidTxnState => 48,
            Self::InvalidProducerIdMapping => 49,
            Self::InvalidTransactionTimeout => 50,
            Self::ConcurrentTransactions => 51,
            Self::CoordinatorFenced => 52,
            Self::Storage(_) => 56,
            Self::UnknownProducerId => 59,
            Self::FencedLeaderEpoch => 74,
            Self::UnknownLeaderEpoch => 75,
            Self::UnsupportedCompression => 76,
            Self::InvalidRecord(_) => 87,
            Self::UnstableOffsetCommit => 88,
            Self::ProducerFenced => 90,
            Self::RejectedRecords { code, .. } => *code,
            Self::UnknownTopicId => 100,
            Self::TransactionalIdNotFound => 105,
            Self::TransactionAbortable => 120,
            Self::Internal(_) => -1,
        }
    }
}

impl From<ProposeError> for LogError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader, .. } => Self::NotLeader { leader },
            ProposeError::Unknown { .. } => Self::Timeout,
            ProposeError::DiskReserve { .. } => Self::Storage(error.to_string()),
            ProposeError::TooLarge { bytes, limit } => Self::MessageTooLarge { bytes, limit },
        }
    }
}

impl From<ReadError> for LogError {
    fn from(_: ReadError) -> Self {
        Self::Timeout
    }
}

impl From<base::codec::TooLarge> for LogError {
    fn from(error: base::codec::TooLarge) -> Self {
        Self::InvalidRequest(format!("The request cannot be carried out at once: {error}"))
    }
}

impl From<std::io::Error> for LogError {
    fn from(error: std::io::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<base::codec::DecodeError> for LogError {
    fn from(error: base::codec::DecodeError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<BatchError> for LogError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::OldFormat => Self::UnsupportedForMessageFormat,
            BatchError::UnknownCompression(_) => Self::UnsupportedCompression,
            BatchError::Damaged(_) | BatchError::Checksum | BatchError::Length { .. } => {
                Self::CorruptMessage(error.to_string())
            }
            BatchError::Refused(_) => Self::InvalidRecord(error.to_string()),
        }
    }
}
