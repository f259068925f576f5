//! Which service lives in which group, and what the node holds of each.

use std::sync::Arc;

use anyhow::Context;
use base::{Env, GroupId};
use blocks::{BlockOptions, BlockService, BlockShared};
use consensus::{Cluster, RowsReader, SlotReset, StateMachine, tags};
use console::{AdminError, Answer, Kind, Verb};
use flow::{FlowError, FlowService, FlowShared, Part};
use index::{IndexService, IndexShared};
use log::groups::GroupService;
use log::{LogError, LogService, LogShared, Mode, TopicSpec};
use secure::{Security, Store};
use segment::{SegmentWriter, WriterOptions};
use serde_json::{Value, json};

use crate::config::Config;
use crate::registry::Registry;

/// Rows of a quarantine that are shown; there may be more.
const MAX_QUARANTINE_ROWS: usize = 1_000;

/// State that the machines write and the services read; made before the groups are.
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) security: Store,
    pub(crate) writer: SegmentWriter,
    pub(crate) log: LogShared,
    pub(crate) blocks: Arc<BlockShared>,
    pub(crate) index: Arc<IndexShared>,
    pub(crate) flow: Arc<FlowShared>,
}

impl Shared {
    pub(crate) fn new(env: &Env, config: &Config) -> anyhow::Result<Self> {
        let dir = &config.data_dir;
        env.disk.create_dir_all(dir)?;
        let writer = SegmentWriter::start(env, WriterOptions::default());
        let options =
            BlockOptions { reserve_bytes: config.disk_reserve_bytes, ..BlockOptions::default() };
        Ok(Self {
            registry: Registry::default(),
            security: Store::default(),
            log: LogShared::new(env.clone(), dir, writer.clone()).context("log")?,
            blocks: BlockShared::new(env.clone(), dir, options).context("block store")?,
            index: IndexShared::new(env.clone(), dir.clone(), writer.clone()),
            flow: FlowShared::new(),
            writer,
        })
    }

    /// The machines of a group, by tag.
    pub(crate) fn machines(&self, group: GroupId) -> Vec<(u8, Box<dyn StateMachine>)> {
        match group {
            GroupId::M0 => vec![
                (tags::CLUSTER, self.registry.machine()),
                (tags::LOG, self.log.machine_m0()),
                (tags::INDEX, self.index.machine_m0()),
                (tags::FLOW, self.flow.machine_m0()),
                (tags::SECURITY, self.security.machine_m0()),
            ],
            GroupId::FS => vec![(tags::BLOCKS, self.blocks.machine())],
            data => vec![
                (tags::LOG, self.log.machine_data(data)),
                (tags::INDEX, self.index.machine_data(data)),
            ],
        }
    }
}

/// What gateways and the admin API work with.
pub(crate) struct Services {
    pub(crate) security: Security,
    pub(crate) log: LogService,
    pub(crate) consumer_groups: Arc<GroupService>,
    pub(crate) blocks: Arc<BlockService>,
    pub(crate) index: Arc<IndexService>,
    pub(crate) flow: Arc<FlowService>,
}

/// Tells the block store that a slot has a new, blank holder.
pub(crate) struct Resets(pub(crate) Arc<BlockService>);

#[async_trait::async_trait]
impl SlotReset for Resets {
    async fn reset_slot(&self, node: base::NodeId) -> Result<(), String> {
        self.0.reset_slot(node).await.map_err(|e| e.to_string())
    }
}

/// Whether a command needs disk space; such commands are refused below the reserve. First bytes
/// of commands are their kinds: see `log::command`, `index::command` and `flow::state`. The
/// block store keeps its own reserve, because its bytes do not come as commands. Deleting,
/// trimming, committing offsets and all that keeps the cluster going never grows.
pub(crate) fn grows(group: GroupId, tag: u8, command: &[u8]) -> bool {
    const INDEX_OPS: u8 = 3;
    const CREATE_TOPIC: u8 = 0;
    const CREATE_PARTITIONS: u8 = 2;
    const CREATE_INDEX: u8 = 0;
    const PUT_PIPELINE: u8 = 0;
    let Some(kind) = command.first().copied() else { return false };
    match (tag, group) {
        (tags::LOG, GroupId::M0) => [CREATE_TOPIC, CREATE_PARTITIONS].contains(&kind),
        (tags::INDEX, GroupId::M0) => kind == CREATE_INDEX,
        (tags::FLOW, GroupId::M0) => kind == PUT_PIPELINE,
        (tags::LOG, group) if group.data_number().is_some() => log::grows(command),
        (tags::INDEX, group) if group.data_number().is_some() => kind == INDEX_OPS,
        _ => false,
    }
}

/// Row readers of a service in every data group, by number.
pub(crate) fn readers(cluster: &Cluster, tag: u8, data_groups: u16) -> Vec<RowsReader> {
    (0..data_groups).map(|number| cluster.reader(GroupId::data(number), tag)).collect()
}

impl Services {
    /// All topics, as rows of a table.
    pub(crate) fn topics(&self) -> Value {
        let rows = self.log.topics().into_iter().map(|topic| {
            json!({
                "name": topic.name,
                "partitions": topic.partitions.len(),
                "replication_factor": topic.replication_factor,
            })
        });
        rows.collect()
    }

    /// The partitions of a topic, as rows of a table.
    pub(crate) fn topic(&self, name: &str) -> Result<Value, LogError> {
        let topic = self.log.topic(name).ok_or(LogError::UnknownTopicOrPartition)?;
        let replicas = self.log.replicas();
        let rows = (0..topic.partitions.len()).map(|number| {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            let leadership = self.log.partition_leadership(&topic, number);
            let here = replicas
                .iter()
                .find(|r| r.key.topic == topic.id && i32::try_from(r.key.partition) == Ok(number));
            json!({
                "partition": number,
                "leader": leadership.and_then(|l| l.leader),
                "first": here.map(|r| r.log_start_offset),
                "next": here.map(|r| r.end_offset),
            })
        });
        Ok(rows.collect())
    }

    /// Creates a topic.
    pub(crate) async fn create_topic(
        &self,
        name: &str,
        partitions: i64,
        replication: i64,
    ) -> Result<Value, LogError> {
        let out_of_range = |what: &str| LogError::InvalidRequest(format!("{what} is out of range"));
        let spec = TopicSpec {
            name: name.to_owned(),
            partitions: i32::try_from(partitions).map_err(|_| out_of_range("partitions"))?,
            replication_factor: i16::try_from(replication)
                .map_err(|_| out_of_range("replication_factor"))?,
            configs: Vec::new(),
        };
        let topic = self.log.create_topic(&spec, Mode::Apply).await?;
        Ok(json!({"name": topic.name, "partitions": topic.partitions.len()}))
    }

    /// What sources and pipelines do, as rows of a table. A pipeline has one source, so both
    /// lists have the same rows.
    pub(crate) async fn flows(&self) -> Value {
        self.flow.list().await.into()
    }

    pub(crate) async fn apply_flow(&self, spec: Value) -> Answer {
        self.flow.apply(spec).await.map_err(|e| flow_error(&e))?;
        Ok(json!({"applied": true}))
    }

    pub(crate) async fn apply_source(&self, spec: Value) -> Answer {
        self.flow.apply_source(spec).await.map_err(|e| flow_error(&e))?;
        Ok(json!({"applied": true}))
    }

    /// What a pipeline gave up, as rows of a table.
    pub(crate) fn quarantine(&self, name: &str) -> Answer {
        let items = self.flow.quarantine(name, MAX_QUARANTINE_ROWS).map_err(|e| flow_error(&e))?;
        let rows = items.into_iter().map(|item| {
            json!({
                "what": item.what,
                "kind": if item.stat.is_some() { "file" } else { "record" },
                "bytes": item.stat.map(|(bytes, _)| bytes),
                "attempts": item.attempts,
                "time_ms": item.time_ms,
                "error": item.error,
            })
        });
        Ok(rows.collect())
    }

    pub(crate) async fn delete_flow(&self, name: &str) -> Answer {
        self.flow.delete(name).await.map_err(|e| flow_error(&e))?;
        Ok(json!({"deleted": name}))
    }

    pub(crate) async fn act_on_flow(&self, kind: Kind, name: &str, verb: Verb) -> Answer {
        let part = match kind {
            Kind::Source => Part::Source,
            Kind::Pipeline => Part::Whole,
        };
        let done =
            match verb {
                Verb::Pause => self.flow.pause(name, part).await.map(|()| json!({"name": name})),
                Verb::Resume => self.flow.resume(name, part).await.map(|()| json!({"name": name})),
                Verb::Retry => self.flow.retry(name).await.map(
                    |(released, kept)| json!({"name": name, "released": released, "kept": kept}),
                ),
            };
        done.map_err(|e| flow_error(&e))
    }
}

fn flow_error(error: &FlowError) -> AdminError {
    match error {
        FlowError::Invalid(_) => AdminError::bad_request(error),
        FlowError::NotFound(_) => AdminError::not_found(error),
        FlowError::Unavailable(_) => AdminError::unavailable(error),
    }
}
