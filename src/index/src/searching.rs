//! Which copies a search reads.
//!
//! Every node keeps every shard, so a search reads this node's own copies and crosses the
//! network only while one of them is being built.

use std::sync::Arc;

use search::shard::ShardSnapshot;

use crate::error::EsError;
use crate::model::{IndexMeta, ShardId};
use crate::service::IndexService;

/// One shard as a search sees it.
pub struct SearchShard {
    /// Its index.
    pub meta: Arc<IndexMeta>,
    /// Its identity.
    pub id: ShardId,
    /// What is searchable now.
    pub snapshot: ShardSnapshot,
}

impl IndexService {
    /// This node's copies of all shards of the indices, in order; shards that do not serve here
    /// are listed apart.
    pub fn search_shards(&self, indices: &[Arc<IndexMeta>]) -> (Vec<SearchShard>, Vec<ShardId>) {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for meta in indices {
            for (id, _) in meta.shards() {
                let copy = self.shared.copy(id).filter(|copy| copy.is_started());
                match copy.and_then(|copy| copy.engine()) {
                    Some(engine) => {
                        let snapshot = engine.snapshot();
                        found.push(SearchShard { meta: meta.clone(), id, snapshot });
                    }
                    None => missing.push(id),
                }
            }
        }
        (found, missing)
    }
}

/// The error of a search none of whose shards serve.
pub fn all_shards_failed() -> EsError {
    EsError::new(503, "search_phase_execution_exception", "all shards failed")
        .with("phase", "query")
        .with("grouped", true)
        .with("failed_shards", serde_json::Value::Array(Vec::new()))
}
