//! The replicated form of a transactional id. Row key: `t`, transactional id.

use serde::{Deserialize, Serialize};

use crate::types::PartKey;

/// First byte of the rows' keys.
pub(crate) const PREFIX: &[u8] = b"t";

/// No producer id or epoch, as in the protocol.
pub(crate) const NONE: i64 = -1;

/// Where a transactional id stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnState {
    /// It never had a transaction, or its producer has just begun.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// It will commit; markers are being written.
    PrepareCommit,
    /// It will abort; markers are being written.
    PrepareAbort,
    /// Every marker of a commit is written.
    CompleteCommit,
    /// Every marker of an abort is written.
    CompleteAbort,
}

impl TxnState {
    /// Every state, for filters by name.
    pub const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// The state's name in DescribeTransactions and ListTransactions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// Whether markers are being written.
    pub(crate) fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// A transactional id as it is stored. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TxnRow {
    V1(Txn),
}

/// A transactional id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Txn {
    pub(crate) producer_id: i64,
    /// The producer id before the latest rotation.
    pub(crate) previous_id: i64,
    /// The producer id after the transaction that is ending, when epochs are used up.
    pub(crate) next_id: i64,
    pub(crate) epoch: i16,
    /// The epoch that a repeated request may still have; −1 when the producer was fenced.
    pub(crate) last_epoch: i16,
    /// `transaction.timeout.ms` of the producer.
    pub(crate) timeout_ms: i32,
    pub(crate) state: TxnState,
    /// Number of the newest transaction; 0 before the first.
    pub(crate) number: u64,
    /// Partitions of the transaction.
    pub(crate) parts: Vec<PartKey>,
    /// Consumer groups of the transaction.
    pub(crate) groups: Vec<String>,
    /// When the transaction began; −1 before the first.
    pub(crate) start_ms: i64,
    pub(crate) update_ms: i64,
    /// When the epoch was handed out.
    pub(crate) epoch_since_ms: i64,
    /// Whether the newest end came from a client that gets a new epoch with each (KIP-890).
    pub(crate) bumps: bool,
}

pub(crate) fn key(id: &str) -> Vec<u8> {
    [PREFIX, id.as_bytes()].concat()
}
