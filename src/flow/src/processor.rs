//! Reads one partition of a topic and writes its documents, each exactly once.
//!
//! Every shard keeps a mark per (pipeline, partition): the offset up to which it has everything.
//! A batch is written shard by shard with `expected → new`, also where it is empty; a shard that
//! is further already is left alone; any mismatch makes the processor read the marks again and go
//! on from the lowest. So two processors of one partition do no harm, and a crash between two
//! shards is repaired by repeating the batch for the ones behind.

use std::sync::Arc;
use std::time::Duration;

use collect::encoding::{self, Decoded};
use collect::record::RecordBuilder;
use parking_lot::Mutex;
use tracing::warn;

use crate::document::{self, Mapped};
use crate::ports::{
    BlockPort, IndexDoc, IndexPort, LogPort, Mark, MarkFailure, ReadFailure, TopicBatch,
    TopicRecord,
};
use crate::spec::PipelineSpec;

/// Id and source of a document that an index takes, with room for what it counts beside them.
const MAX_SOURCE_BYTES: usize = index::limits::MAX_DOCUMENT_BYTES - 1024;

/// Bytes read from the topic at once.
const READ_BYTES: usize = 2 << 20;
/// Records in one batch of documents.
const BATCH_RECORDS: usize = 500;
/// Bytes of documents in one batch, unless it is one document.
const BATCH_BYTES: usize = 4 << 20;
/// How often a paused processor looks at its marks.
const PAUSED_LOOK: Duration = Duration::from_secs(1);
/// Pause at the end of the topic.
const IDLE: Duration = Duration::from_millis(50);
/// First pause after a failure; doubles up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after a failure.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Numbers for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionProgress {
    /// Offset up to which every shard has everything.
    pub mark: u64,
    /// End of the partition.
    pub end: u64,
    /// Documents written by this run.
    pub documents: u64,
    /// Records that went to quarantine in this run.
    pub quarantined: u64,
    /// Latest problem; empties when work goes on.
    pub last_error: Option<String>,
}

/// Progress shared with whoever shows it.
pub type SharedPartition = Arc<Mutex<PartitionProgress>>;

/// A record that no document could be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// The partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// Why.
    pub error: String,
}

/// Remembers records that are given up.
#[async_trait::async_trait]
pub trait Quarantine: Send + Sync {
    /// Remembers one; an error means that the record must be tried again.
    async fn put(&self, bad: BadRecord) -> Result<(), String>;
}

/// Everything one partition's processor needs.
#[derive(Clone)]
pub struct Processor {
    /// The declaration.
    pub spec: Arc<PipelineSpec>,
    /// Name of the marks: pipeline and identity of the topic.
    pub mark_name: String,
    /// The partition.
    pub partition: u32,
    /// Whether it only looks how far it is.
    pub paused: bool,
    /// Makes the body of a large file as the collector did for its record.
    pub builder: RecordBuilder,
    /// The log.
    pub log: Arc<dyn LogPort>,
    /// The block store.
    pub blocks: Arc<dyn BlockPort>,
    /// The index.
    pub index: Arc<dyn IndexPort>,
    /// Where bad records go.
    pub quarantine: Arc<dyn Quarantine>,
    /// What is shown.
    pub progress: SharedPartition,
}

enum Failure {
    /// The marks are not what they were: read them again.
    Marks,
    Retry(String),
}

impl Processor {
    /// Works until it is dropped.
    pub async fn run(self) {
        let mut pause = PAUSE;
        loop {
            match self.work().await {
                Ok(never) => match never {},
                Err(Failure::Marks) => {
                    pause = PAUSE;
                    tokio::time::sleep(IDLE).await;
                }
                Err(Failure::Retry(error)) => {
                    self.problem(&error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    fn problem(&self, error: &str) {
        let mut progress = self.progress.lock();
        if progress.last_error.as_deref() != Some(error) {
            let (pipeline, partition) = (&self.spec.name, self.partition);
            warn!(%pipeline, partition, error, "processor waits");
        }
        progress.last_error = Some(error.to_owned());
    }

    /// Works from the lowest mark on until something fails.
    async fn work(&self) -> Result<std::convert::Infallible, Failure> {
        let mut marks = self.marks().await?;
        loop {
            let from = marks.iter().map(|m| m.unwrap_or(0)).min().unwrap_or(0);
            self.progress.lock().mark = from;
            if self.paused {
                // What was under way when it was paused may still move the marks.
                tokio::time::sleep(PAUSED_LOOK).await;
                marks = self.marks().await?;
                continue;
            }
            let batch = match self.read(from).await? {
                Some(batch) => batch,
                None => {
                    tokio::time::sleep(IDLE).await;
                    continue;
                }
            };
            self.write(&mut marks, &batch).await?;
            self.progress.lock().last_error = None;
        }
    }

    fn index_name(&self) -> Result<&str, Failure> {
        self.spec.index.as_deref().ok_or_else(|| Failure::Retry("no index".to_owned()))
    }

    async fn marks(&self) -> Result<Vec<Option<u64>>, Failure> {
        let index = self.index_name()?;
        self.index.marks(index, &self.mark_name, self.partition).await.map_err(Failure::Retry)
    }

    /// The next records; `None` at the end.
    async fn read(&self, from: u64) -> Result<Option<TopicBatch>, Failure> {
        let read = self.log.read(&self.spec.topic, self.partition, from, READ_BYTES).await;
        let mut batch = match read {
            Ok(batch) => batch,
            Err(ReadFailure::Trimmed { start }) if start > from => {
                let (pipeline, partition) = (&self.spec.name, self.partition);
                warn!(%pipeline, partition, from, start, "records expired before they were used");
                // An empty batch moves every mark to where records begin.
                TopicBatch { next: start, end: start, ..TopicBatch::default() }
            }
            Err(e) => return Err(Failure::Retry(e.to_string())),
        };
        self.progress.lock().end = batch.end;
        if let Some(cut) = batch.records.get(BATCH_RECORDS).map(|r| r.offset) {
            batch.records.truncate(BATCH_RECORDS);
            batch.damaged.retain(|(offset, _)| *offset < cut);
            batch.next = cut;
        }
        Ok((batch.next > from).then_some(batch))
    }

    /// Writes a batch to every shard that has not got it.
    async fn write(&self, marks: &mut [Option<u64>], batch: &TopicBatch) -> Result<(), Failure> {
        let index = self.index_name()?;
        for (offset, error) in &batch.damaged {
            self.give_up(*offset, error.clone()).await?;
        }
        let (mut new, mut bytes) = (batch.next, 0);
        let mut shards: Vec<Vec<(u64, IndexDoc)>> = vec![Vec::new(); marks.len()];
        let count = u16::try_from(marks.len()).unwrap_or(u16::MAX);
        for record in &batch.records {
            let Some(doc) = self.document(record).await? else { continue };
            bytes += doc.source.len();
            if bytes > BATCH_BYTES && shards.iter().any(|docs| !docs.is_empty()) {
                new = record.offset;
                break;
            }
            let shard = usize::from(self.index.shard_of(&doc.id, count));
            if let Some(docs) = shards.get_mut(shard) {
                docs.push((record.offset, doc));
            }
        }
        let writes = (0..count).zip(marks.iter().copied()).zip(shards).filter_map(
            |((shard, mark), docs)| {
                // A shard that is further has these documents already.
                if mark.is_some_and(|mark| mark >= new) {
                    return None;
                }
                Some(self.write_shard(index, shard, mark, new, docs))
            },
        );
        let results = futures::future::join_all(writes).await;
        for result in results {
            let shard = result?;
            if let Some(mark) = marks.get_mut(usize::from(shard)) {
                *mark = Some(new);
            }
        }
        Ok(())
    }

    async fn write_shard(
        &self,
        index: &str,
        shard: u16,
        expected: Option<u64>,
        new: u64,
        docs: Vec<(u64, IndexDoc)>,
    ) -> Result<u16, Failure> {
        let behind = |offset: u64| expected.is_none_or(|mark| offset >= mark);
        let mut docs: Vec<(u64, IndexDoc)> =
            docs.into_iter().filter(|(offset, _)| behind(*offset)).collect();
        let mark = Mark { pipeline: &self.mark_name, partition: self.partition, expected, new };
        loop {
            let writes = docs.iter().map(|(_, doc)| doc.clone()).collect();
            match self.index.apply_marked(index, shard, mark, writes).await {
                Ok(()) => {
                    self.progress.lock().documents += docs.len() as u64;
                    return Ok(shard);
                }
                Err(MarkFailure::Refused(refused)) if !refused.is_empty() => {
                    self.leave_out(&mut docs, refused).await?;
                }
                Err(MarkFailure::Refused(_)) => {
                    return Err(Failure::Retry("documents are refused, but none is named".into()));
                }
                Err(MarkFailure::Mismatch(_)) => return Err(Failure::Marks),
                Err(MarkFailure::Retry(error)) => return Err(Failure::Retry(error)),
            }
        }
    }

    /// Remembers refused documents and takes them off the list. The mark has not moved yet: after
    /// a crash in between they are refused, and remembered, once more.
    async fn leave_out(
        &self,
        docs: &mut Vec<(u64, IndexDoc)>,
        refused: Vec<(usize, String)>,
    ) -> Result<(), Failure> {
        let mut gone = Vec::with_capacity(refused.len());
        for (number, error) in refused {
            let Some((offset, _)) = docs.get(number) else {
                return Err(Failure::Retry(error));
            };
            gone.push(*offset);
            self.give_up(*offset, error).await?;
        }
        docs.retain(|(offset, _)| !gone.contains(offset));
        Ok(())
    }

    /// The document of a record; `None` when it went to quarantine.
    async fn document(&self, record: &TopicRecord) -> Result<Option<IndexDoc>, Failure> {
        let mut mapped = match document::map(record) {
            Ok(mapped) => mapped,
            Err(error) => {
                self.give_up(record.offset, error).await?;
                return Ok(None);
            }
        };
        if let Some((path, encoding)) = mapped.full_text.take() {
            self.fill(&mut mapped, &path, encoding.as_deref()).await?;
        }
        Ok(Some(mapped.into_doc(self.spec.document.strip_controls)))
    }

    /// Replaces the body of a large file by its whole text, up to the limit and to what a document
    /// may have.
    async fn fill(
        &self,
        mapped: &mut Mapped,
        path: &str,
        encoding: Option<&str>,
    ) -> Result<(), Failure> {
        let limit = self.spec.document.index_max_bytes;
        let head = self.blocks.read_head(path, limit).await.map_err(Failure::Retry)?;
        // The file may have been deleted since: then the beginning has to do.
        let Some(bytes) = head else { return Ok(()) };
        let forced = encoding.and_then(encoding::by_name);
        if let Decoded::Text { text, .. } = encoding::decode(&bytes, forced, "kr") {
            mapped.set_body(self.builder.body_of(&text), MAX_SOURCE_BYTES);
        }
        Ok(())
    }

    async fn give_up(&self, offset: u64, error: String) -> Result<(), Failure> {
        let bad = BadRecord { partition: self.partition, offset, error };
        self.quarantine.put(bad).await.map_err(Failure::Retry)?;
        self.progress.lock().quarantined += 1;
        Ok(())
    }
}
