//! The ports over the real services.

use std::sync::Arc;

use async_trait::async_trait;
use blocks::{BlockError, BlockService, Caller, FsErrorKind, Putter};
use bytes::{Bytes, BytesMut};
use collect::ident::FileKey;
use collect::record::Record;
use collect::sink::{Appended, SinkError};
use futures::TryStreamExt;
use index::IndexService;
use index::admin::CreateSpec;
use index::command::MarkChange;
use index::docs::MarkedError;
use index::model::IndexMeta;
use index::write::{WriteKind, WriteOp};
use log::batch::{self, BatchHeader};
use log::records::{self, RecordRef};
use log::{LogError, LogService, Mode, OnceFile, OnceOutcome, TopicRef, TopicSpec};

use crate::error::FlowError;
use crate::ports::{
    BlockPort, IndexDoc, IndexPort, LogPort, Mark, MarkFailure, OnceRecord, PutFile, ReadFailure,
    TopicBatch, TopicFacts, TopicRecord,
};
use crate::spec::index_mapping;

/// Rows of the ledger read at once.
const LEDGER_PAGE: usize = 1_000;

/// The log of this node.
pub(crate) struct RealLog(pub(crate) LogService);

fn facts(topic: &log::Topic) -> TopicFacts {
    TopicFacts { id: *topic.id.as_bytes(), groups: topic.partitions.clone() }
}

fn retry(error: impl std::fmt::Display) -> SinkError {
    SinkError::Retry(error.to_string())
}

fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

fn offset_of(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or_default()
}

/// A batch of one record. Its time is now, not the file's: retention would delete the records of
/// old files before anybody read them.
fn batch_of(record: &Record, now_ms: i64) -> Bytes {
    batch::build(&[RecordRef {
        key: Some(record.key.as_slice().into()),
        value: Some(record.value.as_slice().into()),
        headers: record.headers.iter().map(|(n, v)| ((*n).into(), v.as_slice().into())).collect(),
        timestamp_ms: now_ms,
    }])
}

#[async_trait]
impl LogPort for RealLog {
    async fn ensure_topic(&self, name: &str, partitions: u32) -> Result<TopicFacts, FlowError> {
        if let Some(topic) = self.0.topic(name) {
            return Ok(facts(&topic));
        }
        let spec = TopicSpec {
            name: name.to_owned(),
            partitions: number(partitions),
            replication_factor: -1,
            configs: Vec::new(),
        };
        match self.0.create_topic(&spec, Mode::Apply).await {
            Ok(topic) => Ok(facts(&topic)),
            // Somebody else made it, and this node may be behind.
            Err(LogError::TopicExists(_)) => self
                .0
                .topic(name)
                .map(|topic| facts(&topic))
                .ok_or_else(|| FlowError::Unavailable(format!("topic {name} is just made"))),
            Err(
                e @ (LogError::InvalidTopic(_)
                | LogError::InvalidPartitions(_)
                | LogError::InvalidReplicationFactor(_)),
            ) => Err(FlowError::Invalid(format!("topic: {e}"))),
            Err(e) => Err(FlowError::Unavailable(format!("topic: {e}"))),
        }
    }

    fn topic(&self, name: &str) -> Option<TopicFacts> {
        self.0.topic(name).map(|topic| facts(&topic))
    }

    async fn ledger(
        &self,
        topic: &str,
        partition: u32,
        source: &str,
        after: Option<FileKey>,
    ) -> Result<Vec<(FileKey, Bytes)>, SinkError> {
        let after = after.as_ref().map(|key| key.0.as_slice());
        let (topic, partition) = (TopicRef::Name(topic), number(partition));
        let rows = self.0.ledger_scan(topic, partition, source, after, LEDGER_PAGE).await;
        let rows = rows
            .map_err(retry)?
            .into_iter()
            .filter_map(|(key, row)| Some((FileKey(key.as_slice().try_into().ok()?), row.version)));
        Ok(rows.collect())
    }

    async fn fence(&self, source: &str, epoch: u64) -> Result<(), SinkError> {
        match self.0.fence(source, epoch).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_newer)) => Err(SinkError::Fenced),
            Err(e) => Err(retry(e)),
        }
    }

    async fn append_once(
        &self,
        topic: &str,
        partition: u32,
        source: &str,
        epoch: u64,
        records: Vec<OnceRecord>,
    ) -> Result<Vec<Result<Appended, SinkError>>, SinkError> {
        let now_ms = self.0.now_ms();
        let files: Vec<OnceFile> = records
            .iter()
            .map(|once| OnceFile {
                file_key: Bytes::copy_from_slice(&once.key.0),
                version: Bytes::copy_from_slice(&once.version),
                batch: batch_of(&once.record, now_ms),
            })
            .collect();
        let (topic, partition) = (TopicRef::Name(topic), number(partition));
        let outcomes = match self.0.append_once(topic, partition, source, epoch, &files).await {
            Ok(outcomes) => outcomes,
            Err(e @ LogError::MessageTooLarge { .. }) => {
                return Err(SinkError::Refused(e.to_string()));
            }
            Err(e) => return Err(retry(e)),
        };
        if outcomes.iter().any(|o| matches!(o, OnceOutcome::Fenced(_))) {
            return Err(SinkError::Fenced);
        }
        Ok(outcomes.into_iter().map(appended).collect())
    }

    async fn read(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
        max_bytes: usize,
    ) -> Result<TopicBatch, ReadFailure> {
        let from = i64::try_from(offset).unwrap_or(i64::MAX);
        let (topic, partition) = (TopicRef::Name(topic), number(partition));
        match self.0.read_any(topic, partition, from, max_bytes).await {
            Ok(fetched) => Ok(decode(offset, &fetched)),
            Err(LogError::OffsetOutOfRange { start, .. }) if start > from => {
                Err(ReadFailure::Trimmed { start: offset_of(start) })
            }
            Err(e) => Err(ReadFailure::Retry(e.to_string())),
        }
    }

    fn end(&self, topic: &str, partition: u32) -> Option<u64> {
        let topic = self.0.topic(topic)?;
        let end = *self.0.watch_end(&topic, number(partition))?.borrow();
        Some(offset_of(end))
    }
}

fn appended(outcome: OnceOutcome) -> Result<Appended, SinkError> {
    match outcome {
        OnceOutcome::Appended(offset) => Ok(Appended::New(offset_of(offset))),
        OnceOutcome::Already(_) => Ok(Appended::Known),
        OnceOutcome::Fenced(_) => Err(SinkError::Fenced),
        OnceOutcome::NoPartition => Err(SinkError::Retry("the partition is not there yet".into())),
        OnceOutcome::BadBatch => Err(SinkError::Refused("the log refuses the record".into())),
    }
}

fn decode(offset: u64, fetched: &log::Fetched) -> TopicBatch {
    let end = offset_of(fetched.last_stable_offset);
    let mut out = TopicBatch { next: offset, end, ..TopicBatch::default() };
    for bytes in &fetched.records {
        let header = match BatchHeader::parse(bytes) {
            Ok(header) => header,
            // The log checked it when it was written; without a header there is no next offset.
            Err(e) => {
                out.damaged.push((out.next, e.to_string()));
                out.next += 1;
                return out;
            }
        };
        if fetched.hides(&header) {
            out.next = out.next.max(offset_of(header.next_offset()));
            continue;
        }
        match records::records(bytes) {
            Ok(found) => out.records.extend(
                found
                    .into_iter()
                    .filter(|record| offset_of(record.offset) >= offset)
                    .map(record_of),
            ),
            Err(e) => out.damaged.push((offset_of(header.base_offset).max(offset), e.to_string())),
        }
        out.next = out.next.max(offset_of(header.next_offset()));
    }
    out
}

fn record_of(record: records::Record) -> TopicRecord {
    let headers = record.headers.into_iter().filter_map(|(name, value)| {
        Some((String::from_utf8(name.to_vec()).ok()?, value.unwrap_or_default()))
    });
    TopicRecord {
        offset: offset_of(record.offset),
        value: record.value,
        headers: headers.collect(),
    }
}

/// What the whole of a call failed with: a source with a newer epoch ends this one's work.
fn refused(error: BlockError) -> SinkError {
    match error {
        BlockError::Fs(e) if e.kind == FsErrorKind::Fenced => SinkError::Fenced,
        other => retry(other),
    }
}

/// The block store of this node.
pub(crate) struct RealBlocks(pub(crate) Arc<BlockService>);

#[async_trait]
impl BlockPort for RealBlocks {
    async fn fence(&self, source: &str, epoch: u64) -> Result<(), SinkError> {
        self.0.fence(source, epoch).await.map_err(refused)
    }

    async fn put(
        &self,
        source: &str,
        epoch: u64,
        files: Vec<PutFile>,
    ) -> Result<Vec<Result<(), SinkError>>, SinkError> {
        let files = files.into_iter().map(|file| blocks::PutFile {
            path: file.path,
            version: file.version,
            bytes: file.bytes,
            mtime_ms: file.mtime_ms,
        });
        let results = self.0.put_files(Putter { source, epoch }, files.collect()).await;
        let results = results.map_err(refused)?;
        let each = results.into_iter().map(|result| match result {
            Ok(_) => Ok(()),
            Err(e) if e.kind == FsErrorKind::StaleBlocks => Err(retry(e)),
            Err(e) => Err(SinkError::Refused(e.to_string())),
        });
        Ok(each.collect())
    }

    async fn read_head(&self, path: &str, limit: u64) -> Result<Option<Bytes>, String> {
        let file = match self.0.open(&Caller::system(), path).await {
            Ok(file) => file,
            Err(BlockError::Fs(_)) => return Ok(None),
            Err(e) => return Err(e.to_string()),
        };
        let len = file.len().min(limit);
        let mut pieces = Box::pin(file.stream(0, len));
        let mut all = BytesMut::new();
        while let Some(piece) = pieces.try_next().await.map_err(|e| e.to_string())? {
            all.extend_from_slice(&piece);
        }
        Ok(Some(all.freeze()))
    }
}

/// The index of this node.
pub(crate) struct RealIndex(pub(crate) Arc<IndexService>);

impl RealIndex {
    fn meta(&self, index: &str) -> Option<Arc<IndexMeta>> {
        self.0.catalog().indices.get(index).cloned()
    }
}

fn op(doc: IndexDoc) -> WriteOp {
    WriteOp {
        kind: WriteKind::Index(doc.source),
        id: doc.id,
        auto_id: false,
        routing: None,
        version: None,
        if_seq_no: None,
    }
}

#[async_trait]
impl IndexPort for RealIndex {
    async fn ensure(&self, index: &str, shards: u16, replicas: u16) -> Result<(), FlowError> {
        let catalog = self.0.fresh_catalog().await;
        let catalog = catalog.map_err(|e| FlowError::Unavailable(e.to_string()))?;
        if catalog.indices.contains_key(index) {
            return Ok(());
        }
        let settings = [
            ("index.number_of_shards".to_owned(), shards.to_string().into()),
            ("index.number_of_replicas".to_owned(), replicas.to_string().into()),
        ];
        let spec = CreateSpec {
            settings: settings.into(),
            mapping: Some(index_mapping()),
            ..CreateSpec::default()
        };
        match self.0.create(index, spec).await {
            Ok(_) => Ok(()),
            Err(e) if e.kind == "resource_already_exists_exception" => Ok(()),
            Err(e) if e.passes() => Err(FlowError::Unavailable(format!("index: {e}"))),
            Err(e) => Err(FlowError::Invalid(format!("index: {e}"))),
        }
    }

    fn shards(&self, index: &str) -> Option<u16> {
        self.meta(index).map(|meta| meta.shard_count())
    }

    fn identity(&self, index: &str) -> Option<String> {
        self.meta(index).map(|meta| meta.uuid().to_string())
    }

    fn shard_of(&self, id: &str, shards: u16) -> u16 {
        index::routing::shard_of(id, shards)
    }

    async fn marks(
        &self,
        index: &str,
        pipeline: &str,
        partition: u32,
    ) -> Result<Vec<Option<u64>>, String> {
        let meta = self.meta(index).ok_or_else(|| format!("no index {index}"))?;
        let marks = self.0.marks(&meta, pipeline).await.map_err(|e| e.to_string())?;
        let of = |shard: u16| marks.get(&(shard, partition)).copied();
        Ok((0..meta.shard_count()).map(of).collect())
    }

    async fn apply_marked(
        &self,
        index: &str,
        shard: u16,
        mark: Mark<'_>,
        docs: Vec<IndexDoc>,
    ) -> Result<(), MarkFailure> {
        let gone = || MarkFailure::Retry(format!("no index {index}"));
        let meta = self.meta(index).ok_or_else(gone)?;
        let change = MarkChange {
            pipeline: mark.pipeline.to_owned(),
            partition: mark.partition,
            expected: mark.expected,
            new: mark.new,
        };
        let ops = docs.into_iter().map(op).collect();
        match self.0.apply_marked(&meta, shard, change, ops).await {
            Ok(()) => Ok(()),
            Err(MarkedError::Refused(refused)) => {
                let texts = refused.into_iter().map(|(n, e)| (n, e.to_string()));
                Err(MarkFailure::Refused(texts.collect()))
            }
            Err(MarkedError::Mismatch { found }) => Err(MarkFailure::Mismatch(found)),
            Err(MarkedError::Failed(e)) => Err(MarkFailure::Retry(e.to_string())),
        }
    }
}
