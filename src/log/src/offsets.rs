//! The stored form of a committed offset.

use serde::{Deserialize, Serialize};

use crate::command::OffsetEntry;

/// A committed offset as its row holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OffsetRow {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
    pub(crate) commit_time_ms: i64,
}

impl OffsetRow {
    pub(crate) fn of(entry: &OffsetEntry, commit_time_ms: i64) -> Self {
        Self {
            offset: entry.offset,
            leader_epoch: entry.leader_epoch,
            metadata: entry.metadata.clone(),
            commit_time_ms,
        }
    }
}
