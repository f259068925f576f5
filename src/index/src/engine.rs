//! The search crate's shard as feeders and look-ups use it. The payload of its checkpoints is
//! the number of the next operation, in decimal.

use std::path::Path;
use std::sync::Arc;

use search::mapping::IndexSchema;
use search::shard::{IndexOp, Shard, ShardOp, ShardOptions};

use crate::command::LoggedOp;
use crate::copy::{DocState, ShardCopy};
use crate::error::EsError;
use crate::limits::{CHECKPOINT_EVERY_MS, CHECKPOINT_OPS};
use crate::model::IndexMeta;
use crate::shared::IndexShared;

/// Opens a shard's index; what cannot be read is built again from the translog. Returns where
/// it stands.
pub(crate) fn open(
    shared: &IndexShared,
    dir: &Path,
    meta: &IndexMeta,
) -> Result<(Shard, u64), EsError> {
    let options = ShardOptions { pipeline: shared.pipeline.clone(), ..ShardOptions::default() };
    let opened = Shard::open(dir, meta.schema.clone(), options.clone());
    let shard = match opened {
        Ok(shard) => shard,
        Err(failure) => {
            tracing::warn!(dir = %dir.display(), "a search index is built again: {failure}");
            let removed = shared.env.disk.remove_dir_all(dir);
            removed.map_err(|e| EsError::internal(e.to_string()))?;
            Shard::open(dir, meta.schema.clone(), options)?
        }
    };
    let committed = shard.committed_payload().and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok((shard, committed))
}

/// Feeds one shard and decides when to sync.
pub(crate) struct Indexer {
    shard: Arc<Shard>,
    schema: Option<Arc<IndexSchema>>,
    ops_since_checkpoint: u64,
    uncommitted_bytes: usize,
    checkpoint_ms: u64,
    dirty: bool,
}

impl Indexer {
    pub(crate) fn new(shard: Arc<Shard>, now_ms: u64) -> Self {
        Self {
            shard,
            schema: None,
            ops_since_checkpoint: 0,
            uncommitted_bytes: 0,
            checkpoint_ms: now_ms,
            dirty: false,
        }
    }

    /// Uses this mapping from the next operation on.
    pub(crate) fn set_schema(&mut self, schema: &Arc<IndexSchema>) {
        if self.schema.as_ref().is_none_or(|known| !Arc::ptr_eq(known, schema)) {
            self.shard.set_schema(schema.clone());
            self.schema = Some(schema.clone());
        }
    }

    /// Hands one operation over.
    pub(crate) fn apply(
        &mut self,
        seq_no: u64,
        primary_term: u64,
        op: &LoggedOp,
    ) -> Result<(), EsError> {
        self.ops_since_checkpoint += 1;
        self.uncommitted_bytes += op.source.len();
        self.dirty = true;
        let op = if op.delete {
            ShardOp::Delete { id: op.id.clone() }
        } else {
            ShardOp::Index(IndexOp {
                id: op.id.clone(),
                routing: op.routing.clone(),
                source: op.source.clone(),
                seq_no,
                primary_term,
                version: op.version,
            })
        };
        Ok(self.shard.apply(&op)?)
    }

    /// Makes everything handed over searchable; durable too when that is due.
    pub(crate) fn refresh(&mut self, next: u64, now_ms: u64) -> Result<(), EsError> {
        if self.ops_since_checkpoint >= CHECKPOINT_OPS {
            return self.checkpoint(next, now_ms);
        }
        self.shard.refresh()?;
        self.uncommitted_bytes = 0;
        Ok(())
    }

    /// When a checkpoint is due, if nothing else happens.
    pub(crate) fn checkpoint_due_ms(&self) -> Option<u64> {
        self.dirty.then(|| self.checkpoint_ms + CHECKPOINT_EVERY_MS)
    }

    /// Makes everything handed over searchable and durable.
    pub(crate) fn checkpoint(&mut self, next: u64, now_ms: u64) -> Result<(), EsError> {
        self.shard.checkpoint(&next.to_string())?;
        self.ops_since_checkpoint = 0;
        self.uncommitted_bytes = 0;
        self.checkpoint_ms = now_ms;
        self.dirty = false;
        Ok(())
    }

    /// Bytes of sources handed over since the last commit.
    pub(crate) fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// Memory of the writer to come.
    pub(crate) fn set_writer_bytes(&self, bytes: usize) {
        self.shard.set_writer_bytes(bytes);
    }

    /// Frees the writer's memory when nothing waits; says whether it is free.
    pub(crate) fn rest(&self) -> Result<bool, EsError> {
        Ok(self.shard.release_writer()?)
    }
}

/// The newest state of a document: applied operations first, then the searcher.
pub(crate) fn newest(copy: &ShardCopy, id: &str) -> Result<Option<DocState>, EsError> {
    if let Some(state) = copy.recent(id) {
        return Ok(Some(state));
    }
    let engine = copy.engine().ok_or_else(|| EsError::unavailable("the shard is starting"))?;
    let Some(doc) = engine.get(id)? else { return Ok(None) };
    Ok(Some(DocState {
        seq_no: doc.seq_no,
        primary_term: doc.primary_term,
        version: doc.version,
        deleted: false,
        routing: doc.routing,
        source: doc.source,
    }))
}
