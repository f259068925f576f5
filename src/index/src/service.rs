//! The index service of one node: what gateways and the processor call.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base::codec::{TooLarge, decode, try_encode};
use base::{GroupId, NodeId, TaskGroup};
use consensus::{GroupRef, Groups, Leadership, PeersRef, ProposeError, RowsReader, tags};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::command::{CatalogCommand, CatalogReply};
use crate::copy::ShardCopy;
use crate::error::EsError;
use crate::feeder;
use crate::limits::WRITER_QUEUE;
use crate::model::{Catalog, IndexMeta, ShardId};
use crate::names::{IndicesOptions, resolve};
use crate::shared::IndexShared;
use crate::writer::{self, Batch};

/// Writers by shard: the copy they serve and their queue.
type Writers = HashMap<ShardId, (Arc<ShardCopy>, mpsc::Sender<Batch>)>;

/// The index service of one node.
pub struct IndexService {
    pub(crate) shared: Arc<IndexShared>,
    pub(crate) groups: Groups,
    pub(crate) peers: PeersRef,
    pub(crate) tasks: TaskGroup,
    writers: Mutex<Writers>,
}

impl IndexService {
    /// Registers with the peers and starts feeders and reconciliation. `readers` are not needed:
    /// the machines keep everything in memory; the parameter keeps services alike.
    pub fn new(
        shared: Arc<IndexShared>,
        groups: Groups,
        peers: PeersRef,
        _readers: BTreeMap<GroupId, RowsReader>,
        tasks: TaskGroup,
    ) -> Arc<Self> {
        let service = Arc::new(Self {
            shared,
            groups,
            peers: peers.clone(),
            tasks,
            writers: Mutex::default(),
        });
        peers.register(tags::INDEX, Arc::new(crate::remote::Handler(Arc::downgrade(&service))));
        let tasks = &service.tasks;
        tasks.spawn("index-feeders", start_feeders(service.shared.clone()));
        tasks.spawn("index-reconcile", crate::reconcile::run(Arc::downgrade(&service)));
        service
    }

    /// The catalog as applied on this node.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.catalog()
    }

    /// The catalog with everything acknowledged before the call.
    pub async fn fresh_catalog(&self) -> Result<Arc<Catalog>, EsError> {
        self.groups.m0.read_barrier().await.map_err(|e| no_master(&e.to_string()))?;
        Ok(self.shared.catalog())
    }

    /// Indices that an expression means. What is not known here is asked for again after a read
    /// barrier: another node may have created it a moment ago.
    pub async fn resolve(
        &self,
        expression: &str,
        options: IndicesOptions,
    ) -> Result<Vec<Arc<IndexMeta>>, EsError> {
        match resolve(&self.catalog(), expression, options) {
            Err(error) if error.kind == "index_not_found_exception" => {
                match self.groups.m0.read_barrier().await {
                    Ok(()) => resolve(&self.catalog(), expression, options),
                    Err(_) => Err(error),
                }
            }
            done => done,
        }
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.peers.me()
    }

    /// All nodes of the cluster and whether they answer.
    pub fn nodes(&self) -> Vec<(NodeId, bool)> {
        let all = self.peers.all().into_iter();
        all.map(|node| (node, self.peers.is_alive(node))).collect()
    }

    /// Who leads `m0`, which clients call the master.
    pub fn master(&self) -> Option<NodeId> {
        self.groups.m0.leadership().leader
    }

    /// Who leads a group.
    pub fn leadership(&self, group: GroupId) -> Leadership {
        self.groups.get(group).map_or_else(Leadership::default, |g| g.leadership())
    }

    pub(crate) fn group(&self, id: GroupId) -> Result<&GroupRef, EsError> {
        self.groups.get(id).ok_or_else(|| EsError::internal(format!("no group {id}")))
    }

    /// Changes the catalog, and lets the other nodes see the change before it returns.
    pub(crate) async fn change(&self, command: &CatalogCommand) -> Result<CatalogDone, EsError> {
        let encoded = try_encode(command).map_err(too_large)?;
        let applied = self.groups.m0.propose(tags::INDEX, encoded.into()).await;
        let applied = applied.map_err(|error| match (command, &error) {
            (CatalogCommand::Create(_), ProposeError::DiskReserve { .. }) => create_blocked(),
            _ => propose_error(&error),
        })?;
        let reply: CatalogReply =
            decode(&applied.reply).map_err(|e| EsError::internal(e.to_string()))?;
        match reply {
            CatalogReply::Refused(error) => Err(error),
            CatalogReply::Done { shards, mapping_version } => {
                self.spread_catalog().await;
                Ok(CatalogDone { shards, mapping_version })
            }
        }
    }

    /// The queue of a shard's writer on this node, which is started when needed.
    pub(crate) fn writer_of(&self, copy: &Arc<ShardCopy>) -> Result<mpsc::Sender<Batch>, EsError> {
        let mut writers = self.writers.lock();
        if let Some((known, queue)) = writers.get(&copy.id)
            && Arc::ptr_eq(known, copy)
            && !queue.is_closed()
        {
            return Ok(queue.clone());
        }
        writers.retain(|_, (known, _)| !known.is_closed());
        let (queue, requests) = mpsc::channel(WRITER_QUEUE);
        let group = self.group(copy.group)?.clone();
        self.tasks.spawn("index-writer", writer::run(copy.clone(), group, requests));
        writers.insert(copy.id, (copy.clone(), queue.clone()));
        Ok(queue)
    }
}

/// What a change of the catalog answered.
pub(crate) struct CatalogDone {
    pub(crate) shards: Vec<GroupId>,
    pub(crate) mapping_version: u64,
}

/// The error of a cluster without a leader.
pub(crate) fn no_master(reason: &str) -> EsError {
    EsError::new(503, "master_not_discovered_exception", reason)
}

/// The error of a proposal that has no reply.
pub(crate) fn propose_error(error: &ProposeError) -> EsError {
    match error {
        ProposeError::NotLeader { .. } => no_master(&error.to_string()),
        ProposeError::Unknown { .. } => {
            EsError::new(503, "process_cluster_event_timeout_exception", error.to_string())
        }
        ProposeError::DiskReserve { .. } => disk_reserve(),
        ProposeError::TooLarge { .. } => EsError::illegal(error.to_string()),
    }
}

/// The error of a write while the disk is nearly full, as Elasticsearch words its flood stage.
/// What an index is to keep, mapping and aliases among it, does not fit one value.
pub(crate) fn too_large(error: TooLarge) -> EsError {
    EsError::new(400, "illegal_argument_exception", format!("cannot keep this: {error}"))
}

pub(crate) fn disk_reserve() -> EsError {
    EsError::new(
        429,
        "cluster_block_exception",
        "blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has \
         read-only-allow-delete block];",
    )
}

/// The error of creating an index then: Elasticsearch blocks it when all disks are past their
/// high watermark.
fn create_blocked() -> EsError {
    let reason = "blocked by: [FORBIDDEN/10/cluster create-index blocked (api)];";
    EsError::new(403, "cluster_block_exception", reason)
}

/// Starts a feeder for each copy that appears.
async fn start_feeders(shared: Arc<IndexShared>) {
    let mut changes = shared.watch_copies();
    let mut started: Vec<Arc<ShardCopy>> = Vec::new();
    loop {
        changes.borrow_and_update();
        let copies = shared.copies();
        started.retain(|known| copies.iter().any(|copy| Arc::ptr_eq(copy, known)));
        for copy in copies {
            if !started.iter().any(|known| Arc::ptr_eq(known, &copy)) {
                feeder::start(shared.clone(), copy.clone());
                started.push(copy);
            }
        }
        // Copies appear in bursts: a short pause keeps the comparison cheap.
        tokio::time::sleep(Duration::from_millis(1)).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}
