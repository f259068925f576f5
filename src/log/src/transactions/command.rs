//! What is asked of a data group about transactions, and what it answers.

use serde::{Deserialize, Serialize};

use super::marker::Marker;
use crate::command::OffsetEntry;
use crate::error::LogError;
use crate::types::PartKey;

/// A producer id and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerEpoch {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// How a client speaks the protocol of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnVersion {
    /// Partitions are added by requests of their own, and the epoch stays.
    V1,
    /// KIP-890: writing adds the partition, and every end gives a new epoch.
    V2,
}

/// Commands about one transactional id, for its coordinator. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum IdCommand {
    /// A producer begins, or goes on after an error as `expected`.
    Init { timeout_ms: i32, expected: Option<ProducerEpoch>, fresh_id: Option<i64> },
    /// Partitions and groups join the transaction, which begins if there is none.
    Add {
        producer: ProducerEpoch,
        parts: Vec<PartKey>,
        groups: Vec<String>,
        /// The transaction meant, where the epoch does not tell: a command that is applied late
        /// must not begin another one.
        number: Option<u64>,
    },
    /// The producer commits or aborts.
    End {
        producer: ProducerEpoch,
        commit: bool,
        version: TxnVersion,
        fresh_id: Option<i64>,
        /// The transaction meant, where the epoch does not tell.
        number: Option<u64>,
    },
    /// The transaction took longer than its producer allowed.
    TimeOut { number: u64 },
    /// Every marker is written.
    Complete { number: u64 },
    /// Forgets an id that nothing happened to since `update_ms`.
    Expire { update_ms: i64 },
}

/// Commands of a data group about transactions. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TxnCommand {
    /// To the coordinator of a transactional id.
    Id { id: String, command: IdCommand },
    /// Ends a transaction in partitions and consumer groups of this data group.
    Mark { marker: Marker, parts: Vec<PartKey>, groups: Vec<String> },
    /// Offsets that count once the transaction commits.
    CommitOffsets {
        group: String,
        producer: ProducerEpoch,
        // Of the transaction.
        number: u64,
        offsets: Vec<OffsetEntry>,
    },
    /// Forgets what groups remember of producers whose transactions ended before.
    ExpireOffsets { before_ms: i64 },
}

/// Why something about a transaction was refused. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TxnError {
    InvalidProducerIdMapping,
    ProducerFenced,
    ConcurrentTransactions,
    InvalidTxnState,
    InvalidProducerEpoch,
    /// The bound of partitions or groups is reached.
    TooMany,
}

/// Replies to [`TxnCommand`]. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TxnReply {
    /// The producer as it stands now, and the number of its newest transaction.
    Done {
        producer: ProducerEpoch,
        number: u64,
        epoch_since_ms: i64,
    },
    Failed(TxnError),
    /// Ask again with a fresh producer id.
    NeedsProducerId,
    /// Markers are written, but not in these partitions, which are not here.
    Marked {
        missing: Vec<PartKey>,
    },
}

impl From<TxnError> for LogError {
    fn from(error: TxnError) -> Self {
        match error {
            TxnError::InvalidProducerIdMapping => Self::InvalidProducerIdMapping,
            TxnError::ProducerFenced => Self::ProducerFenced,
            TxnError::ConcurrentTransactions => Self::ConcurrentTransactions,
            TxnError::InvalidTxnState => Self::InvalidTxnState,
            TxnError::InvalidProducerEpoch => Self::InvalidProducerEpoch,
            TxnError::TooMany => {
                Self::InvalidRequest("the transaction has too many partitions".to_owned())
            }
        }
    }
}
