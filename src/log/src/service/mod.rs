//! What gateways, collector and processor call.
//!
//! A [`LogService`] holds no state of its own that must survive: it validates, proposes commands
//! to the groups and reads what this node has applied. All methods may be called on any node;
//! those that need the partition's leader answer [`LogError::NotLeader`] elsewhere. All futures
//! may be dropped at any await point; what was proposed may then still happen.

mod admin;
mod changes;
mod check;
mod compaction;
mod fetch;
mod group_store;
mod ledger;
mod offsets;
mod produce;
mod refuse;
mod store_as;
mod transactions;
mod txn_driver;
mod txn_offsets;
mod txn_produce;
mod upkeep;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::codec;
use base::env::Space;
use base::{GroupId, TaskGroup};
use bytes::Bytes;
use consensus::{GroupRef, Groups, Leadership, PeersRef, RowsReader, tags};
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use crate::command::{self, Control, ControlReply};
use crate::error::LogError;
use crate::limits::{COMPACTION_BYTES_PER_SECOND, COMPRESSIONS_AT_ONCE, MAX_BATCH_CHECKS};
use crate::partition::Partition;
use crate::shared::{GroupView, LogShared};
use crate::types::{PartKey, PartitionStatus, Topic, TopicRef};

pub use admin::{ConfigChange, check_name};
pub use produce::Acks;
pub use transactions::TxnDescription;
pub use txn_offsets::GroupTransaction;
pub(crate) use txn_produce::Gates;

/// Proposals of one request or pass that are under way at once.
const AT_ONCE: usize = 16;

/// Settings of the log on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Partitions of a topic that does not say.
    pub default_partitions: i32,
    /// Replication factor of a topic that does not say.
    pub default_replication_factor: i16,
    /// How often desired and actual replicas are compared.
    pub reconcile_every: Duration,
    /// How often old segments are looked for; Kafka's `log.retention.check.interval.ms`.
    pub retention_every: Duration,
    /// How often the leader looks whether partitions should be compacted; Kafka's
    /// `log.cleaner.backoff.ms`.
    pub compaction_every: Duration,
    /// Bytes that this node reads and writes for compaction in a second, above 0.
    pub compaction_bytes_per_second: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            default_partitions: 3,
            default_replication_factor: 3,
            reconcile_every: Duration::from_secs(1),
            retention_every: Duration::from_secs(300),
            compaction_every: Duration::from_secs(15),
            compaction_bytes_per_second: COMPACTION_BYTES_PER_SECOND,
        }
    }
}

/// The log as its users see it. Cloning shares it.
#[derive(Clone)]
pub struct LogService(Arc<Inner>);

struct Inner {
    shared: LogShared,
    groups: Groups,
    peers: PeersRef,
    readers: Vec<RowsReader>,
    options: LogOptions,
    /// Turns for looking through large batches.
    batch_checks: Semaphore,
    /// Counts changes of what may be read here.
    changes: watch::Sender<u64>,
    /// Turns for compressing batches anew.
    compressions: Semaphore,
    /// When a barrier of `m0` failed last, with none that succeeded since.
    m0_lost: Mutex<Option<Duration>>,
}

impl LogService {
    /// A service over running groups; `readers` read the rows of tag `LOG` of each data group,
    /// by number. Starts reconciliation and retention in `tasks`.
    pub fn start(
        shared: LogShared,
        groups: Groups,
        peers: PeersRef,
        readers: Vec<RowsReader>,
        tasks: &TaskGroup,
        options: LogOptions,
    ) -> Self {
        assert_eq!(groups.data.len(), readers.len(), "one reader for each data group");
        let batch_checks = Semaphore::new(MAX_BATCH_CHECKS);
        let compressions = Semaphore::new(COMPRESSIONS_AT_ONCE);
        let changes = watch::Sender::new(0);
        let inner = Inner {
            shared,
            groups,
            peers,
            readers,
            options,
            batch_checks,
            changes,
            compressions,
            m0_lost: Mutex::default(),
        };
        let service = Self(Arc::new(inner));
        let (reconcile, retain) = (service.clone(), service.clone());
        tasks.spawn("log-changes", service.clone().count_changes());
        tasks.spawn("log-reconcile", async move { reconcile.reconcile_forever().await });
        tasks.spawn("log-retention", async move { retain.retain_forever().await });
        for shard in 0..service.0.groups.data.len() {
            let service = service.clone();
            tasks.spawn("transactions", async move { service.drive_transactions(shard).await });
        }
        let (plan, compact) = (service.clone(), service.clone());
        tasks.spawn("log-compaction-plans", async move { plan.plan_compactions_forever().await });
        tasks.spawn("log-compaction", async move { compact.compact_forever().await });
        service
    }

    /// All topics that this node knows, by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.0.shared.topics().all()
    }

    /// A topic that this node knows.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.shared.topics().by_name(name)
    }

    /// A topic that this node knows.
    pub fn topic_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.0.shared.topics().by_id(id)
    }

    /// Counts changes of topics.
    pub fn watch_topics(&self) -> watch::Receiver<u64> {
        self.0.shared.topics().changes.subscribe()
    }

    /// A topic, or the error that fits how it was named.
    pub fn resolve(&self, topic: TopicRef<'_>) -> Result<Arc<Topic>, LogError> {
        match topic {
            TopicRef::Name(name) => self.topic(name).ok_or(LogError::UnknownTopicOrPartition),
            TopicRef::Id(id) => self.topic_by_id(id).ok_or(LogError::UnknownTopicId),
        }
    }

    /// Who leads a partition; `None` when there is no such partition.
    pub fn partition_leadership(&self, topic: &Topic, partition: i32) -> Option<Leadership> {
        let group = self.0.groups.get(topic.group_of(partition)?)?;
        Some(group.leadership())
    }

    /// The nodes of the cluster and which of them are alive.
    pub fn peers(&self) -> &PeersRef {
        &self.0.peers
    }

    /// The settings of the log on this node.
    pub fn options(&self) -> LogOptions {
        self.0.options
    }

    /// Every replica on this node, for describing log directories and for tools.
    pub fn replicas(&self) -> Vec<PartitionStatus> {
        let views = self.0.groups.data.iter().map(|group| self.view(group.id()));
        views.flat_map(|view| view.all()).map(|part| part.status()).collect()
    }

    /// The directory of this node's replicas, and the space of its file system.
    pub fn directory(&self) -> (&Path, io::Result<Space>) {
        let dir = self.0.shared.0.parts_dir.as_path();
        (dir, self.0.shared.0.env.disk.space(dir))
    }

    /// The end offset of a partition's replica on this node, for waiting. Ends with an error
    /// when the replica goes.
    pub fn watch_end(&self, topic: &Topic, partition: i32) -> Option<watch::Receiver<i64>> {
        let part = self.local(topic, partition).ok()?;
        Some(part.end.subscribe())
    }

    fn view(&self, group: GroupId) -> Arc<GroupView> {
        self.0.shared.view(group)
    }

    /// Wall time of this node, in milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        self.0.shared.0.env.clock.unix_ms()
    }

    fn group_of(&self, topic: &Topic, partition: i32) -> Result<&GroupRef, LogError> {
        let id = topic.group_of(partition).ok_or(LogError::UnknownTopicOrPartition)?;
        self.0.groups.get(id).ok_or(LogError::UnknownTopicOrPartition)
    }

    /// This node's replica, led from anywhere.
    fn local(&self, topic: &Topic, partition: i32) -> Result<Arc<Partition>, LogError> {
        let group = topic.group_of(partition).ok_or(LogError::UnknownTopicOrPartition)?;
        let key = key_of(topic, partition)?;
        self.view(group).get(&key).ok_or(LogError::UnknownTopicOrPartition)
    }

    /// This node's replica, when this node leads it and has everything acknowledged before.
    fn led(
        &self,
        topic: &Topic,
        partition: i32,
    ) -> Result<(&GroupRef, Arc<Partition>, Leadership), LogError> {
        let group = self.group_of(topic, partition)?;
        let leadership = group.leadership();
        if !leadership.ready_here {
            // A leader that is not ready yet is no better than none.
            let me = self.0.peers.me();
            let leader = leadership.leader.filter(|leader| *leader != me);
            return Err(LogError::NotLeader { leader });
        }
        Ok((group, self.local(topic, partition)?, leadership))
    }

    /// Proposes from anywhere.
    async fn control(&self, group: &GroupRef, command: &Control) -> Result<ControlReply, LogError> {
        let applied = group.propose(tags::LOG, command::control(command)?).await?;
        decode_reply(&applied.reply)
    }

    /// Proposes many commands, some at a time; one result for each, in any order.
    async fn control_all(&self, commands: Vec<(GroupRef, Control)>) -> Vec<Result<(), LogError>> {
        let mut sent: Vec<BoxFuture<'_, _>> = Vec::with_capacity(commands.len());
        for (group, command) in commands {
            sent.push(Box::pin(async move { self.control(&group, &command).await.map(|_| ()) }));
        }
        futures::stream::iter(sent).buffer_unordered(AT_ONCE).collect().await
    }

    /// Proposes only where this node leads.
    async fn control_here(
        &self,
        group: &GroupRef,
        command: &Control,
    ) -> Result<ControlReply, LogError> {
        let applied = group.propose_here(tags::LOG, command::control(command)?, None).await?;
        decode_reply(&applied.reply)
    }
}

fn decode_reply<T: DeserializeOwned>(reply: &Bytes) -> Result<T, LogError> {
    Ok(codec::decode(reply)?)
}

fn key_of(topic: &Topic, partition: i32) -> Result<PartKey, LogError> {
    let partition = u32::try_from(partition).map_err(|_| LogError::UnknownTopicOrPartition)?;
    Ok(PartKey { topic: topic.id, partition })
}
