//! One copy of one shard: a Tantivy index fed with operations in order.
//!
//! Tantivy's schema is fixed when an index is made, mappings grow. Therefore (see [`layout`]):
//! keywords and addresses live in one JSON field, numbers and dates in another, both with terms
//! and columns per path; each text field takes one of a number of spare text fields ("slots") so
//! that it keeps its own length norms and positions. A binding of path to slot is local to this
//! copy and is stored with every commit.
//!
//! Durability: [`Shard::refresh`] makes operations searchable without a single sync;
//! [`Shard::checkpoint`] syncs everything and stores the caller's payload (the translog position)
//! in Tantivy's commit. After a crash the last checkpoint is found, later operations have to be
//! applied again. A shard does not know about versions in flight, primaries or translogs.

mod directory;
mod layout;
mod pending;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::schema::Value as _;
use tantivy::{
    DocAddress, DocSet, Index, IndexReader, IndexWriter, ReloadPolicy, Searcher, TERMINATED,
    TantivyDocument, Term,
};

use crate::error::{EsError, Result};
use crate::limits;
use crate::mapping::{IndexSchema, ValueClass};

use directory::DeferredDirectory;
pub use directory::PinnedCommit;
pub use layout::Fields;
pub(crate) use layout::{Slots, column_name};
use pending::PendingDocument;
pub use pending::Pipeline;

/// An operation with everything assigned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ShardOp {
    /// Puts a document, replacing the one of the same id.
    Index(IndexOp),
    /// Removes a document.
    Delete {
        /// Document id.
        id: String,
    },
}

/// A document to put.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexOp {
    /// Document id.
    pub id: String,
    /// Routing, when the client named one.
    pub routing: Option<String>,
    /// The JSON of the client, unchanged.
    pub source: bytes::Bytes,
    /// `_seq_no`.
    pub seq_no: u64,
    /// `_primary_term`.
    pub primary_term: u64,
    /// `_version`.
    pub version: u64,
}

/// A document read back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredDoc {
    /// Document id.
    pub id: String,
    /// Routing.
    pub routing: Option<String>,
    /// The JSON of the client.
    pub source: bytes::Bytes,
    /// `_seq_no`.
    pub seq_no: u64,
    /// `_primary_term`.
    pub primary_term: u64,
    /// `_version`.
    pub version: u64,
}

/// Size of a shard copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStats {
    /// Live documents.
    pub docs: u64,
    /// Deleted documents that merges have not removed yet.
    pub deleted: u64,
    /// Bytes on disk.
    pub store_bytes: u64,
    /// Segments.
    pub segments: u64,
}

/// How a shard uses the machine.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Memory of the writer before it flushes a segment; at least 15 MB.
    pub writer_bytes: usize,
    /// What bounds documents on their way to the writer, shared by the shards of a node.
    pub pipeline: Arc<Pipeline>,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self { writer_bytes: 32 << 20, pipeline: Arc::default() }
    }
}

/// What is stored with every commit.
#[derive(Default, Serialize, Deserialize)]
struct CommitPayload {
    /// The caller's text.
    user: Option<String>,
    /// Text field path to slot.
    slots: BTreeMap<String, u32>,
}

/// A searchable state of a shard that does not change.
#[derive(Clone)]
pub struct ShardSnapshot {
    /// Tantivy's searcher.
    pub searcher: Searcher,
    /// The mapping at that time.
    pub schema: Arc<IndexSchema>,
    /// Handles of the Tantivy fields.
    pub fields: Fields,
    pub(crate) slots: Arc<Slots>,
}

/// One copy of a shard.
pub struct Shard {
    path: PathBuf,
    /// Memory of the next writer.
    writer_bytes: AtomicUsize,
    index: Index,
    directory: DeferredDirectory,
    fields: Arc<Fields>,
    pipeline: Arc<Pipeline>,
    reader: IndexReader,
    schema: RwLock<Arc<IndexSchema>>,
    slots: RwLock<Arc<Slots>>,
    state: Mutex<WriteState>,
}

#[derive(Default)]
struct WriteState {
    writer: Option<IndexWriter<PendingDocument>>,
    /// Operations applied and not yet committed.
    pending: u64,
    /// Whether something was committed that is not synced.
    unsynced: bool,
    /// Payload of the last checkpoint.
    payload: Option<String>,
}

impl Shard {
    /// Opens a shard or makes an empty one.
    pub fn open(path: &Path, schema: Arc<IndexSchema>, options: ShardOptions) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let directory = DeferredDirectory::open(path)?;
        let exists = Index::exists(&directory).map_err(|e| EsError::internal(e.to_string()))?;
        let index = if exists {
            directory.remove_orphans()?;
            Index::open(directory.clone())?
        } else {
            let texts = schema.fields().values().filter(|f| f.class() == ValueClass::Text).count();
            let slots = (texts + limits::SPARE_TEXT_SLOTS).min(limits::MAX_TEXT_SLOTS);
            let settings = tantivy::IndexSettings::default();
            let index = Index::create(directory.clone(), layout::schema(slots), settings)?;
            directory.sync()?;
            index
        };
        let fields = Arc::new(Fields::of(&index.schema())?);
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let payload = index.load_metas()?.payload.unwrap_or_default();
        let payload: CommitPayload = serde_json::from_str(&payload).unwrap_or_default();
        let slots = Slots::new(payload.slots, fields.slot_count());
        let state = WriteState { payload: payload.user, ..WriteState::default() };
        Ok(Self {
            path: path.to_owned(),
            writer_bytes: AtomicUsize::new(options.writer_bytes),
            index,
            directory,
            fields,
            pipeline: options.pipeline,
            reader,
            schema: RwLock::new(schema),
            slots: RwLock::new(Arc::new(slots)),
            state: Mutex::new(state),
        })
    }

    /// Where the shard lives.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Memory of the writer that the next operation makes, in bytes; at least 15 MB. One that is
    /// there keeps its own until [`Self::release_writer`].
    pub fn set_writer_bytes(&self, bytes: usize) {
        self.writer_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Replaces the mapping. It must be an extension of the one before.
    pub fn set_schema(&self, schema: Arc<IndexSchema>) {
        *self.schema.write() = schema;
    }

    /// The mapping in use.
    pub fn schema(&self) -> Arc<IndexSchema> {
        self.schema.read().clone()
    }

    /// Applies an operation; operations must come in order. An error says that the document does
    /// not fit the mapping, or that the disk failed.
    pub fn apply(&self, op: &ShardOp) -> Result<()> {
        let document = match op {
            ShardOp::Index(op) => Some(self.document(op)?),
            ShardOp::Delete { .. } => None,
        };
        let id = match op {
            ShardOp::Index(op) => &op.id,
            ShardOp::Delete { id } => id,
        };
        let mut state = self.state.lock();
        if state.writer.is_none() {
            state.writer = Some(self.new_writer()?);
        }
        let WriteState { writer: Some(writer), pending, .. } = &mut *state else {
            return Err(EsError::internal("shard has no writer"));
        };
        writer.delete_term(Term::from_field_text(self.fields.id, id));
        if let Some(document) = document {
            writer.add_document(document)?;
        }
        *pending += 1;
        Ok(())
    }

    fn document(&self, op: &IndexOp) -> Result<PendingDocument> {
        let schema = self.schema();
        let parsed = schema.parse_document(&op.id, &op.source)?;
        let mut slots = self.slots.read().clone();
        let missing = |slots: &Slots| {
            parsed
                .entries
                .iter()
                .any(|e| e.field.class() == ValueClass::Text && slots.needs_binding(&e.path))
        };
        if missing(&slots) {
            let mut shared = self.slots.write();
            let mut grown = Slots::clone(&shared);
            for entry in parsed.entries.iter().filter(|e| e.field.class() == ValueClass::Text) {
                grown.bind(&entry.path);
            }
            slots = Arc::new(grown);
            *shared = slots.clone();
        }
        Ok(PendingDocument::new(&self.pipeline, &self.fields, slots, op.clone(), parsed))
    }

    fn new_writer(&self) -> Result<IndexWriter<PendingDocument>> {
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .memory_budget_per_thread(self.writer_bytes.load(Ordering::Relaxed))
            .num_merge_threads(1)
            .build();
        let writer: IndexWriter<PendingDocument> = self.index.writer_with_options(options)?;
        let mut policy = LogMergePolicy::default();
        policy.set_del_docs_ratio_before_merge(0.3);
        policy.set_max_docs_before_merge(5_000_000);
        writer.set_merge_policy(Box::new(policy));
        Ok(writer)
    }

    /// Makes applied operations searchable; costs no sync. Says whether anything changed.
    pub fn refresh(&self) -> Result<bool> {
        let mut state = self.state.lock();
        if state.pending == 0 {
            return Ok(false);
        }
        let payload = state.payload.clone();
        self.commit(&mut state, payload)?;
        Ok(true)
    }

    fn commit(&self, state: &mut WriteState, user: Option<String>) -> Result<()> {
        if state.writer.is_none() {
            state.writer = Some(self.new_writer()?);
        }
        let WriteState { writer: Some(writer), pending, unsynced, .. } = state else {
            return Err(EsError::internal("shard has no writer"));
        };
        let payload = CommitPayload { user, slots: self.slots.read().bound().clone() };
        let text = serde_json::to_string(&payload).map_err(|e| EsError::internal(e.to_string()))?;
        let mut prepared = writer.prepare_commit()?;
        prepared.set_payload(&text);
        prepared.commit()?;
        *pending = 0;
        *unsynced = true;
        self.reader.reload()?;
        Ok(())
    }

    /// Makes everything applied so far searchable and durable, together with `payload`.
    pub fn checkpoint(&self, payload: &str) -> Result<()> {
        let mut state = self.state.lock();
        if state.pending == 0 && !state.unsynced && state.payload.as_deref() == Some(payload) {
            return Ok(());
        }
        self.commit(&mut state, Some(payload.to_owned()))?;
        self.directory.sync()?;
        state.unsynced = false;
        state.payload = Some(payload.to_owned());
        Ok(())
    }

    /// Payload of the last checkpoint; `None` for a shard without one.
    pub fn committed_payload(&self) -> Option<String> {
        self.state.lock().payload.clone()
    }

    /// Operations applied that no refresh has made searchable.
    pub fn pending_ops(&self) -> u64 {
        self.state.lock().pending
    }

    /// Frees the writer's memory when nothing waits for a commit. Says whether it is free.
    pub fn release_writer(&self) -> Result<bool> {
        let mut state = self.state.lock();
        if state.pending > 0 {
            return Ok(false);
        }
        if let Some(writer) = state.writer.take() {
            writer.wait_merging_threads()?;
            self.reader.reload()?;
        }
        Ok(true)
    }

    /// Merges all segments into one.
    pub fn force_merge(&self) -> Result<()> {
        let mut state = self.state.lock();
        let payload = state.payload.clone();
        self.commit(&mut state, payload)?;
        let segments = self.index.searchable_segment_ids()?;
        if segments.len() > 1
            && let Some(writer) = &mut state.writer
        {
            writer.merge(&segments).wait()?;
            self.reader.reload()?;
        }
        Ok(())
    }

    /// The files of the last checkpoint, kept until the value is dropped.
    pub fn pin_commit(&self) -> Result<PinnedCommit> {
        self.directory.pin()
    }

    /// The state that searches see now.
    pub fn snapshot(&self) -> ShardSnapshot {
        ShardSnapshot {
            searcher: self.reader.searcher(),
            schema: self.schema(),
            fields: Fields::clone(&self.fields),
            slots: self.slots.read().clone(),
        }
    }

    /// A document as of the last refresh.
    pub fn get(&self, id: &str) -> Result<Option<StoredDoc>> {
        self.snapshot().get(id)
    }

    /// Sizes as of the last refresh.
    pub fn stats(&self) -> ShardStats {
        let searcher = self.reader.searcher();
        let deleted = |r: &tantivy::SegmentReader| u64::from(r.num_deleted_docs());
        ShardStats {
            docs: searcher.num_docs(),
            deleted: searcher.segment_readers().iter().map(deleted).sum(),
            store_bytes: self.directory.bytes(),
            segments: searcher.segment_readers().len() as u64,
        }
    }
}

impl ShardSnapshot {
    /// A document by id.
    pub fn get(&self, id: &str) -> Result<Option<StoredDoc>> {
        match self.find(id)? {
            Some(address) => self.load(address).map(Some),
            None => Ok(None),
        }
    }

    fn find(&self, id: &str) -> Result<Option<DocAddress>> {
        let term = Term::from_field_text(self.fields.id, id);
        for (ord, reader) in self.searcher.segment_readers().iter().enumerate() {
            let index = reader.inverted_index(self.fields.id)?;
            let option = tantivy::schema::IndexRecordOption::Basic;
            let Some(mut docs) = index.read_postings(&term, option)? else { continue };
            while docs.doc() != TERMINATED {
                if !reader.is_deleted(docs.doc()) {
                    return Ok(Some(DocAddress::new(ord as u32, docs.doc())));
                }
                docs.advance();
            }
        }
        Ok(None)
    }

    /// A document by address.
    pub fn load(&self, address: DocAddress) -> Result<StoredDoc> {
        let fields = &self.fields;
        let document: TantivyDocument = self.searcher.doc(address)?;
        let text = |field| document.get_first(field).and_then(|v| v.as_str()).map(str::to_owned);
        let source = document.get_first(fields.source).and_then(|v| v.as_bytes()).unwrap_or(b"{}");
        let columns = self.searcher.segment_reader(address.segment_ord).fast_fields();
        let number = |name: &str| -> Result<u64> {
            Ok(columns.u64(name)?.first(address.doc_id).unwrap_or(0))
        };
        Ok(StoredDoc {
            id: text(fields.id).unwrap_or_default(),
            routing: text(fields.routing),
            source: bytes::Bytes::copy_from_slice(source),
            seq_no: number(layout::SEQ_NO)?,
            primary_term: number(layout::PRIMARY_TERM)?,
            version: number(layout::VERSION)?,
        })
    }

    /// Live documents.
    pub fn docs(&self) -> u64 {
        self.searcher.num_docs()
    }

    /// Calls `visit` for every live document in index order; for reindexing and copies.
    pub fn for_each(&self, mut visit: impl FnMut(StoredDoc) -> Result<()>) -> Result<()> {
        for (ord, reader) in self.searcher.segment_readers().iter().enumerate() {
            for doc in reader.doc_ids_alive() {
                visit(self.load(DocAddress::new(ord as u32, doc))?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
