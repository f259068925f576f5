//! What callers of the log give and get.

use std::collections::BTreeMap;

use base::{GroupId, NodeId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::batch::BatchHeader;
use crate::configs::TopicSettings;
use crate::transactions::AbortedTxn;

/// A partition by the id of its topic; survives nothing: a topic made anew has a new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartKey {
    /// The topic.
    pub topic: Uuid,
    /// Number of the partition, from 0.
    pub partition: u32,
}

/// A topic as callers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRef<'a> {
    /// By name.
    Name(&'a str),
    /// By id.
    Id(Uuid),
}

/// Whose settings, other than a topic's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SettingsOf {
    /// All brokers together.
    Cluster,
    /// One broker.
    Broker(NodeId),
    /// A group, by its name.
    Group(String),
}

/// A topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// Name.
    pub name: String,
    /// Id.
    pub id: Uuid,
    /// The data group of each partition.
    pub partitions: Vec<GroupId>,
    /// Replication factor as it was asked for; data is always stored on all nodes.
    pub replication_factor: i16,
    /// The replicas of partitions whose nodes were named when they were made, in that order. What
    /// clients are told; data is always stored on all nodes.
    pub replicas: BTreeMap<u32, Vec<NodeId>>,
    /// Settings that were set explicitly.
    pub configs: BTreeMap<String, String>,
    /// All settings that the log acts on.
    pub settings: TopicSettings,
}

impl Topic {
    /// The data group of a partition.
    pub fn group_of(&self, partition: i32) -> Option<GroupId> {
        self.partitions.get(usize::try_from(partition).ok()?).copied()
    }
}

/// A topic to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name.
    pub name: String,
    /// Partitions; −1 for the default.
    pub partitions: i32,
    /// Replication factor; −1 for the default.
    pub replication_factor: i16,
    /// Settings.
    pub configs: Vec<(String, String)>,
}

/// Whether a change is made or only checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Make it.
    Apply,
    /// Only say whether it could be made.
    ValidateOnly,
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Offset of its first record. For a repeated batch that of the first time.
    pub base_offset: i64,
    /// The time stamped on it, −1 unless the topic has `LogAppendTime`.
    pub log_append_time_ms: i64,
    /// First offset of the partition.
    pub log_start_offset: i64,
}

/// What to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchSpec<'a> {
    /// The topic.
    pub topic: TopicRef<'a>,
    /// The partition.
    pub partition: i32,
    /// First offset wanted.
    pub offset: i64,
    /// Bytes wanted; at least one batch is returned when there is one. 0 asks for no records.
    pub max_bytes: usize,
    /// The leader epoch that the client knows; −1 when it knows none.
    pub current_leader_epoch: i32,
    /// The epoch of the last record that the client has; −1 when it does not say.
    pub last_fetched_epoch: i32,
    /// Which records are wanted.
    pub isolation: Isolation,
}

/// Which records a reader wants to see, as Kafka's `isolation.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All up to the high watermark.
    #[default]
    Uncommitted,
    /// Those below the last stable offset; the reader skips aborted ones.
    Committed,
}

/// What was fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Offset after the last committed record.
    pub high_watermark: i64,
    /// First offset of the oldest open transaction; the high watermark when there is none.
    pub last_stable_offset: i64,
    /// First offset of the partition.
    pub log_start_offset: i64,
    /// Whole record batches; the first may begin before the offset asked for.
    pub records: Vec<Bytes>,
    /// Set when the client's log has gone another way: its epoch's (epoch, end offset) here.
    pub diverging: Option<(i32, i64)>,
    /// With [`Isolation::Committed`]: transactions whose records among these were aborted.
    pub aborted: Vec<AbortedTxn>,
}

impl Fetched {
    /// Whether the records of a batch must not be taken for data by a reader of committed
    /// records: they were aborted, or are markers.
    pub fn hides(&self, batch: &BatchHeader) -> bool {
        let aborts = |txn: &AbortedTxn| {
            txn.producer_id == batch.producer_id
                && (txn.first_offset..txn.last_offset).contains(&batch.base_offset)
        };
        batch.is_control() || batch.is_transactional() && self.aborted.iter().any(aborts)
    }
}

/// Which offset to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The log's start (Kafka's −2; also −4, as nothing is tiered).
    Earliest,
    /// The high watermark (−1).
    Latest,
    /// The record with the newest timestamp (−3).
    MaxTimestamp,
    /// The first record at least that new.
    Time(i64),
}

/// An answer to [`OffsetQuery`]; −1 and −1 where no record matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset.
    pub offset: i64,
    /// Timestamp of the record there; −1 for the ends of the log.
    pub timestamp_ms: i64,
    /// Leader epoch of the record there.
    pub leader_epoch: i32,
}

/// A partition's state, for describing and for tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub key: PartKey,
    /// Its data group.
    pub group: GroupId,
    /// First offset.
    pub log_start_offset: i64,
    /// Offset after the last record applied here.
    pub end_offset: i64,
    /// First offset of the oldest open transaction, or the end.
    pub last_stable_offset: i64,
    /// Bytes of its segments.
    pub bytes: u64,
    /// Segments.
    pub segments: usize,
}

/// An offset that a consumer group commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Next offset to be consumed.
    pub offset: i64,
    /// Epoch of the last record consumed; −1 when unknown.
    pub leader_epoch: i32,
    /// Free text of the client.
    pub metadata: String,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Next offset to be consumed; −1 when none was committed.
    pub offset: i64,
    /// Epoch of the last record consumed.
    pub leader_epoch: i32,
    /// Free text of the client.
    pub metadata: String,
    /// When it was committed.
    pub commit_time_ms: i64,
}

/// One file's record in a conditional append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnceFile {
    /// The file inside its source.
    pub file_key: Bytes,
    /// The version of the file that the record is made of.
    pub version: Bytes,
    /// One record batch, as [`crate::batch::build`] makes it.
    pub batch: Bytes,
}

/// What became of one file of a conditional append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnceOutcome {
    /// Appended now, at this offset.
    Appended(i64),
    /// This version was appended before, at this offset.
    Already(i64),
    /// The source has a newer lister, of this epoch; nothing was appended.
    Fenced(u64),
    /// The partition is not there (yet).
    NoPartition,
    /// The batch is not acceptable.
    BadBatch,
}

/// A file in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The version that was appended last.
    pub version: Bytes,
    /// Where its record is.
    pub offset: i64,
    /// Free for the collector: what happened to the file after it was logged. 0 at first.
    pub state: u8,
    /// When it was appended.
    pub time_ms: i64,
}
