//! What the flow needs of log, block store and index. Behind traits, because the exactly-once
//! tests break every call, before and after it takes effect.

use async_trait::async_trait;
use base::GroupId;
use bytes::Bytes;
use collect::ident::FileKey;
use collect::sink::SinkError;

use crate::error::FlowError;

/// A topic as the flow needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// Its id.
    pub id: [u8; 16],
    /// The data group of each partition.
    pub groups: Vec<GroupId>,
}

/// A record as the processor reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRecord {
    /// Its offset.
    pub offset: u64,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<(String, Bytes)>,
}

/// Records of one read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicBatch {
    /// Records from the offset asked for on.
    pub records: Vec<TopicRecord>,
    /// Where the next read begins.
    pub next: u64,
    /// End of the partition.
    pub end: u64,
    /// Batches that cannot be decoded: offset and why.
    pub damaged: Vec<(u64, String)>,
}

/// Why a read brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFailure {
    /// The offset was removed by retention; reading goes on here.
    #[error("records before {start} are gone")]
    Trimmed {
        /// First offset that is there.
        start: u64,
    },
    /// Try again, perhaps on another node.
    #[error("{0}")]
    Retry(String),
}

/// A record that goes into a partition once.
#[derive(Clone, Debug)]
pub struct OnceRecord {
    /// The file.
    pub key: FileKey,
    /// Its version token.
    pub version: Vec<u8>,
    /// The record.
    pub record: collect::record::Record,
}

/// The log.
#[async_trait]
pub trait LogPort: Send + Sync {
    /// The topic, made with this many partitions when it is missing.
    async fn ensure_topic(&self, name: &str, partitions: u32) -> Result<TopicFacts, FlowError>;

    /// The topic as this node knows it.
    fn topic(&self, name: &str) -> Option<TopicFacts>;

    /// A page of a source's ledger in one partition, after `after`: key and version token, with
    /// everything acknowledged before the call.
    async fn ledger(
        &self,
        topic: &str,
        partition: u32,
        source: &str,
        after: Option<FileKey>,
    ) -> Result<Vec<(FileKey, Bytes)>, SinkError>;

    /// Makes every data group refuse older epochs of a source.
    async fn fence(&self, source: &str, epoch: u64) -> Result<(), SinkError>;

    /// Appends records whose version the ledger has not. One result per record.
    async fn append_once(
        &self,
        topic: &str,
        partition: u32,
        source: &str,
        epoch: u64,
        records: Vec<OnceRecord>,
    ) -> Result<Vec<Result<collect::sink::Appended, SinkError>>, SinkError>;

    /// Committed records from an offset on; at the end, none.
    async fn read(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
        max_bytes: usize,
    ) -> Result<TopicBatch, ReadFailure>;

    /// End of a partition, as this node knows it.
    fn end(&self, topic: &str, partition: u32) -> Option<u64>;
}

/// A file for the block store.
#[derive(Clone, Debug)]
pub struct PutFile {
    /// Absolute path.
    pub path: String,
    /// Version token.
    pub version: Vec<u8>,
    /// Content.
    pub bytes: Bytes,
    /// Modification time to show.
    pub mtime_ms: i64,
}

/// The block store.
#[async_trait]
pub trait BlockPort: Send + Sync {
    /// Makes the store refuse older epochs of a source.
    async fn fence(&self, source: &str, epoch: u64) -> Result<(), SinkError>;

    /// Stores whole files of a source; repeating it changes nothing. One result per file.
    async fn put(
        &self,
        source: &str,
        epoch: u64,
        files: Vec<PutFile>,
    ) -> Result<Vec<Result<(), SinkError>>, SinkError>;

    /// The first bytes of a file, at most `limit`; `None` when it is not there.
    async fn read_head(&self, path: &str, limit: u64) -> Result<Option<Bytes>, String>;
}

/// A document for the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexDoc {
    /// Its id.
    pub id: String,
    /// Its source, JSON.
    pub source: Bytes,
}

/// Why marked documents were not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkFailure {
    /// The mark there is another one.
    Mismatch(Option<u64>),
    /// These are refused for good, by number; remember them and leave them out.
    Refused(Vec<(usize, String)>),
    /// Try again.
    Retry(String),
}

/// The index.
#[async_trait]
pub trait IndexPort: Send + Sync {
    /// Makes the index unless it exists.
    async fn ensure(&self, index: &str, shards: u16, replicas: u16) -> Result<(), FlowError>;

    /// Number of shards; `None` when there is no such index here.
    fn shards(&self, index: &str) -> Option<u16>;

    /// Identity of the index: a name used again is another index.
    fn identity(&self, index: &str) -> Option<String>;

    /// The shard of a document.
    fn shard_of(&self, id: &str, shards: u16) -> u16;

    /// Marks of a pipeline in a partition, by shard.
    async fn marks(
        &self,
        index: &str,
        pipeline: &str,
        partition: u32,
    ) -> Result<Vec<Option<u64>>, String>;

    /// Writes documents of one shard together with the mark: all of them, or nothing.
    async fn apply_marked(
        &self,
        index: &str,
        shard: u16,
        mark: Mark<'_>,
        docs: Vec<IndexDoc>,
    ) -> Result<(), MarkFailure>;
}

/// A change of a mark.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'a> {
    /// The pipeline.
    pub pipeline: &'a str,
    /// The partition.
    pub partition: u32,
    /// What must be there.
    pub expected: Option<u64>,
    /// What is there afterwards.
    pub new: u64,
}
