//! What the machines fill and the service reads. It exists before the groups do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{Env, GroupId};
use consensus::StateMachine;
use parking_lot::RwLock;
use search::shard::Pipeline;
use segment::SegmentWriter;
use tokio::sync::watch;

use crate::budget::{NodeLag, WriterBudget};
use crate::catalog::CatalogMachine;
use crate::copy::ShardCopy;
use crate::machine::ShardsMachine;
use crate::model::{Catalog, ShardId};

/// The state of the index service on this node.
pub struct IndexShared {
    pub(crate) env: Env,
    pub(crate) data_dir: PathBuf,
    pub(crate) writer: SegmentWriter,
    catalog: RwLock<Arc<Catalog>>,
    catalog_version: watch::Sender<u64>,
    copies: RwLock<BTreeMap<ShardId, Arc<ShardCopy>>>,
    copies_version: watch::Sender<u64>,
    pub(crate) writers: Arc<WriterBudget>,
    pub(crate) lag: Arc<NodeLag>,
    pub(crate) pipeline: Arc<Pipeline>,
}

impl IndexShared {
    /// Nothing yet. Files go below `data_dir/index`.
    pub fn new(env: Env, data_dir: PathBuf, writer: SegmentWriter) -> Arc<Self> {
        Arc::new(Self {
            env,
            data_dir,
            writer,
            catalog: RwLock::default(),
            catalog_version: watch::Sender::new(0),
            copies: RwLock::default(),
            copies_version: watch::Sender::new(0),
            writers: Arc::default(),
            lag: Arc::default(),
            pipeline: Arc::default(),
        })
    }

    /// The catalog's machine, for group `m0`.
    pub fn machine_m0(self: &Arc<Self>) -> Box<dyn StateMachine> {
        Box::new(CatalogMachine::new(self.clone()))
    }

    /// The shards' machine, for a data group.
    pub fn machine_data(self: &Arc<Self>, group: GroupId) -> Box<dyn StateMachine> {
        Box::new(ShardsMachine::new(self.clone(), group))
    }

    /// The catalog as applied here.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    pub(crate) fn set_catalog(&self, catalog: Catalog) {
        let version = catalog.version;
        *self.catalog.write() = Arc::new(catalog);
        self.catalog_version.send_replace(version);
    }

    /// Follows changes of the catalog.
    pub fn watch_catalog(&self) -> watch::Receiver<u64> {
        self.catalog_version.subscribe()
    }

    /// A shard as this node holds it.
    pub fn copy(&self, id: ShardId) -> Option<Arc<ShardCopy>> {
        self.copies.read().get(&id).cloned()
    }

    /// All shards that this node holds.
    pub fn copies(&self) -> Vec<Arc<ShardCopy>> {
        self.copies.read().values().cloned().collect()
    }

    /// Follows changes of [`Self::copies`].
    pub fn watch_copies(&self) -> watch::Receiver<u64> {
        self.copies_version.subscribe()
    }

    pub(crate) fn put_copy(&self, copy: Arc<ShardCopy>) {
        self.copies.write().insert(copy.id, copy);
        self.copies_version.send_modify(|version| *version += 1);
    }

    pub(crate) fn remove_copy(&self, id: ShardId) {
        self.copies.write().remove(&id);
        self.copies_version.send_modify(|version| *version += 1);
    }

    /// Path of a group's translogs below the data directory, with `/`.
    pub(crate) fn translog_path(group: GroupId) -> String {
        format!("index/translog/{group}")
    }

    /// Directory of a shard's Tantivy index.
    pub(crate) fn engine_dir(&self, id: ShardId) -> PathBuf {
        self.engines_dir().join(id.dir_name())
    }

    /// Directory of all Tantivy indices.
    pub(crate) fn engines_dir(&self) -> PathBuf {
        self.data_dir.join(Path::new("index/engine"))
    }
}
