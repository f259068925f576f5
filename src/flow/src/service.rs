//! The flow service of one node: declarations, the tasks of this node, and what is shown.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use base::{Env, GroupId, NodeId, TaskGroup};
use blocks::BlockService;
use collect::record::RecordBuilder;
use consensus::{Groups, Lane, Message, PeerHandler, PeersRef, tags};
use index::IndexService;
use log::LogService;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tracing::warn;

use crate::error::FlowError;
use crate::ports::{BlockPort, IndexPort, LogPort};
use crate::processor::{Processor, SharedPartition};
use crate::real::{RealBlocks, RealIndex, RealLog};
use crate::sinks::{RecordQuarantine, propose};
use crate::source::{SourceState, SourceTask, SourceView};
use crate::spec::PipelineSpec;
use crate::state::{Command, FlowShared, MAX_SPEC_BYTES, Part, Pipeline, Quarantined, Reply};
use crate::status::{self, NodeStatus, PartitionPart, SourcePart};

/// How often a node compares what it does with what it should.
const TICK: Duration = Duration::from_millis(250);
/// How long a node may take to tell its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// Peer method: this node's status.
const METHOD_STATUS: u16 = (tags::FLOW as u16) << 8 | 1;
/// Weight of the newest second in a rate.
const RATE_WEIGHT: f64 = 0.3;

/// The flow service of one node.
pub struct FlowService {
    shared: Arc<FlowShared>,
    groups: Groups,
    peers: PeersRef,
    log: Arc<dyn LogPort>,
    blocks: Arc<dyn BlockPort>,
    index: Arc<dyn IndexPort>,
    env: Env,
    boot: u64,
    running: Mutex<BTreeMap<String, Running>>,
}

/// The services that the flow works with.
#[derive(Clone)]
pub(crate) struct Ports {
    pub(crate) log: Arc<dyn LogPort>,
    pub(crate) blocks: Arc<dyn BlockPort>,
    pub(crate) index: Arc<dyn IndexPort>,
}

/// Tasks that end when this is dropped.
struct Tasks(TaskGroup);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What this node does for one pipeline.
struct Running {
    revision: u64,
    spec: Arc<PipelineSpec>,
    builder: RecordBuilder,
    source: Option<(Tasks, SourceView)>,
    /// The topic there was when the source was started.
    source_topic: Option<[u8; 16]>,
    source_rate: Rate,
    partitions: BTreeMap<u32, (Tasks, SharedPartition, Rate)>,
    /// Whether these only look how far they are.
    paused: bool,
    /// Identity of topic and index that the processors work with.
    identity: Option<String>,
}

/// Events per second, smoothed.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    total: u64,
    per_s: f64,
}

impl Rate {
    /// Called once a second.
    fn update(&mut self, total: u64) {
        let new = total.saturating_sub(self.total) as f64;
        self.total = total;
        self.per_s += RATE_WEIGHT * (new - self.per_s);
    }
}

impl FlowService {
    /// Registers with the peers and starts this node's part of every pipeline.
    #[expect(clippy::too_many_arguments, reason = "one for each service of the node")]
    pub fn new(
        shared: Arc<FlowShared>,
        groups: Groups,
        peers: PeersRef,
        log: LogService,
        blocks: Arc<BlockService>,
        index: Arc<IndexService>,
        env: Env,
        tasks: &TaskGroup,
    ) -> Arc<Self> {
        let ports = Ports {
            log: Arc::new(RealLog(log)),
            blocks: Arc::new(RealBlocks(blocks)),
            index: Arc::new(RealIndex(index)),
        };
        Self::with_ports(shared, groups, peers, ports, env, tasks)
    }

    pub(crate) fn with_ports(
        shared: Arc<FlowShared>,
        groups: Groups,
        peers: PeersRef,
        ports: Ports,
        env: Env,
        tasks: &TaskGroup,
    ) -> Arc<Self> {
        let Ports { log, blocks, index } = ports;
        let boot = env.random.next_u64();
        let running = Mutex::default();
        let handler_peers = peers.clone();
        let service =
            Arc::new(Self { shared, groups, peers, log, blocks, index, env, boot, running });
        handler_peers.register(tags::FLOW, Arc::new(Handler(Arc::downgrade(&service))));
        tasks.spawn("flow-supervisor", supervise(service.clone()));
        service
    }

    /// Declares a pipeline, or changes it. Makes topic and index where they are missing.
    pub async fn apply(&self, spec: Value) -> Result<(), FlowError> {
        let spec = PipelineSpec::from_json(spec).map_err(FlowError::Invalid)?;
        let text = serde_json::to_string(&spec).map_err(|e| FlowError::Invalid(e.to_string()))?;
        if text.len() > MAX_SPEC_BYTES {
            return Err(FlowError::Invalid(format!("more than {MAX_SPEC_BYTES} bytes")));
        }
        self.check_directory(&spec)?;
        let topic = self.log.ensure_topic(&spec.topic, spec.partitions).await?;
        if let Some(index) = &spec.index {
            let document = &spec.document;
            self.index.ensure(index, document.shards, document.replicas).await?;
        }
        let command = Command::Put {
            name: spec.name.clone(),
            spec: text,
            topic_id: topic.id,
            partitions: u32::try_from(topic.groups.len()).unwrap_or(u32::MAX),
        };
        self.change(&spec.name, &command).await
    }

    /// Refuses a directory that another pipeline's files go to: they would replace each other.
    fn check_directory(&self, spec: &PipelineSpec) -> Result<(), FlowError> {
        let root = |text: &str| format!("{}/", text.trim_end_matches('/'));
        let ours = root(&spec.directory);
        let overlaps = |other: &PipelineSpec| {
            let theirs = root(&other.directory);
            other.name != spec.name && (ours.starts_with(&theirs) || theirs.starts_with(&ours))
        };
        let known = |p: &Pipeline| serde_json::from_str::<PipelineSpec>(&p.spec).ok();
        let other = self.shared.read(|state| {
            // One that is there already may be given another password.
            let before = state.pipelines.get(&spec.name).filter(|p| !p.deleted).and_then(known);
            if before.is_some_and(|before| before.directory == spec.directory) {
                return None;
            }
            let others = state.pipelines.values().filter(|p| !p.deleted);
            others.filter_map(known).find(overlaps)
        });
        match other {
            None => Ok(()),
            Some(other) => Err(FlowError::Invalid(format!(
                "directory: {} and {} of pipeline {} overlap; files of one would replace those of \
                 the other",
                spec.directory, other.directory, other.name
            ))),
        }
    }

    /// Gives a declared pipeline another source: `{name, source}`.
    pub async fn apply_source(&self, spec: Value) -> Result<(), FlowError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Spec {
            name: String,
            source: Value,
        }
        let spec: Spec = serde_json::from_value(spec)
            .map_err(|e| FlowError::Invalid(format!("not the name and [source]: {e}")))?;
        let whole = self.shared.read(|state| {
            state.pipelines.get(&spec.name).filter(|p| !p.deleted).map(|p| p.spec.clone())
        });
        let whole = whole.ok_or(FlowError::NotFound(spec.name))?;
        let mut whole: Value =
            serde_json::from_str(&whole).map_err(|e| FlowError::Unavailable(e.to_string()))?;
        if let Some(fields) = whole.as_object_mut() {
            fields.insert("source".to_owned(), spec.source);
        }
        self.apply(whole).await
    }

    /// Forgets a pipeline; what has landed stays.
    pub async fn delete(&self, name: &str) -> Result<(), FlowError> {
        self.change(name, &Command::Delete { name: name.to_owned() }).await
    }

    /// Pauses a part of a pipeline.
    pub async fn pause(&self, name: &str, part: Part) -> Result<(), FlowError> {
        self.change(name, &Command::Pause { name: name.to_owned(), part, on: true }).await
    }

    /// Resumes a part of a pipeline; a source that stopped by itself starts again too.
    pub async fn resume(&self, name: &str, part: Part) -> Result<(), FlowError> {
        self.change(name, &Command::Pause { name: name.to_owned(), part, on: false }).await
    }

    /// Collects the files in quarantine again, and starts a source that stopped by itself.
    /// Returns how many files there were, and how many records stay in quarantine: their place in
    /// the topic has passed.
    pub async fn retry(&self, name: &str) -> Result<(u32, u32), FlowError> {
        let command = Command::Retry { name: name.to_owned() };
        match propose(&self.groups.m0, &command).await.map_err(FlowError::Unavailable)? {
            Reply::Retried { released, kept } => Ok((released, kept)),
            other => Err(refused(other, name)),
        }
    }

    async fn change(&self, name: &str, command: &Command) -> Result<(), FlowError> {
        match propose(&self.groups.m0, command).await.map_err(FlowError::Unavailable)? {
            Reply::Done => Ok(()),
            other => Err(refused(other, name)),
        }
    }

    /// One row for each pipeline with its state, counts, rates and lag. Nodes that do not answer
    /// within a second are left out.
    pub async fn list(&self) -> Vec<Value> {
        let me = self.peers.me();
        let asked = self.peers.all().into_iter().filter(|node| self.peers.is_alive(*node));
        let answers = asked.map(|node| async move {
            if node == me {
                return (node, Some(self.node_status()));
            }
            let call = self.peers.call(
                node,
                Lane::Control,
                METHOD_STATUS,
                Message::default(),
                STATUS_TIMEOUT,
            );
            let answer = call.await.ok();
            (node, answer.and_then(|message| serde_json::from_slice(&message.payload).ok()))
        });
        let answers = futures::future::join_all(answers).await;
        let nodes: BTreeMap<u16, NodeStatus> =
            answers.into_iter().filter_map(|(node, status)| Some((node.0, status?))).collect();
        self.shared.read(|state| status::rows(state, &nodes))
    }

    /// The declaration of a pipeline without its secrets.
    pub fn declaration(&self, name: &str) -> Option<Value> {
        let text = self.shared.read(|state| {
            state.pipelines.get(name).filter(|p| !p.deleted).map(|p| p.spec.clone())
        })?;
        let spec: PipelineSpec = serde_json::from_str(&text).ok()?;
        serde_json::to_value(spec.shown()).ok()
    }

    /// What stands in a pipeline's quarantine as this node knows it, at most `limit` items.
    pub fn quarantine(&self, name: &str, limit: usize) -> Result<Vec<Quarantined>, FlowError> {
        self.shared.read(|state| {
            let known = state.pipelines.get(name).is_some_and(|p| !p.deleted);
            known.then_some(()).ok_or_else(|| FlowError::NotFound(name.to_owned()))?;
            let items = state.quarantine.get(name).into_iter().flat_map(BTreeMap::values);
            Ok(items.take(limit).cloned().collect())
        })
    }

    /// What this node does.
    pub fn node_status(&self) -> NodeStatus {
        let running = self.running.lock();
        let status = |running: &Running| {
            running.status(|partition| self.log.end(&running.spec.topic, partition))
        };
        running.iter().map(|(name, running)| (name.clone(), status(running))).collect()
    }
}

fn refused(reply: Reply, name: &str) -> FlowError {
    match reply {
        Reply::Unknown => FlowError::NotFound(name.to_owned()),
        Reply::TooMany => FlowError::Invalid("there are too many pipelines".to_owned()),
        Reply::Done
        | Reply::Granted { .. }
        | Reply::Held(_)
        | Reply::Lost
        | Reply::Retried { .. } => FlowError::Unavailable("unexpected answer".to_owned()),
    }
}

impl Running {
    fn status(&self, end: impl Fn(u32) -> Option<u64>) -> status::NodePart {
        let source = self.source.as_ref().and_then(|(_, view)| {
            let (state, epoch) = match view.state.lock().clone() {
                SourceState::Waiting => return None,
                SourceState::Collecting(epoch) => ("collecting".to_owned(), epoch),
                SourceState::Stopped(why) => (why, 0),
            };
            let progress = view.progress.lock();
            Some(SourcePart {
                state,
                epoch,
                seen: progress.totals.listed,
                done: progress.totals.done,
                pending: progress.totals.pending,
                quarantined: progress.totals.quarantined,
                scans: progress.totals.scans,
                collected: progress.collected,
                bytes: progress.bytes,
                failed: progress.failed,
                rate: self.source_rate.per_s,
                last_error: progress.last_error.clone(),
                bad_dirs: progress.bad_dirs.clone(),
            })
        });
        let partitions = self.partitions.iter().map(|(number, (_, progress, rate))| {
            let progress = progress.lock();
            let part = PartitionPart {
                mark: progress.mark,
                end: end(*number).unwrap_or_default().max(progress.end),
                documents: progress.documents,
                rate: rate.per_s,
                last_error: progress.last_error.clone(),
            };
            (*number, part)
        });
        status::NodePart { source, partitions: partitions.collect() }
    }
}

/// Ends this node's part of everything when the supervisor is dropped.
struct StopAll(Arc<FlowService>);

impl Drop for StopAll {
    fn drop(&mut self) {
        self.0.running.lock().clear();
    }
}

/// Compares what this node does with what it should, whenever something changed and now and then.
async fn supervise(service: Arc<FlowService>) {
    let _stop = StopAll(service.clone());
    let mut changes = service.shared.watch();
    let mut last_rates = service.env.clock.monotonic();
    loop {
        changes.borrow_and_update();
        service.reconcile();
        let now = service.env.clock.monotonic();
        if now.saturating_sub(last_rates) >= Duration::from_secs(1) {
            last_rates = now;
            service.update_rates();
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        // Renewals of leases are changes too: no more than a few rounds per second.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl FlowService {
    fn update_rates(&self) {
        for running in self.running.lock().values_mut() {
            if let Some((_, view)) = &running.source {
                running.source_rate.update(view.progress.lock().collected);
            }
            for (_, progress, rate) in running.partitions.values_mut() {
                let documents = progress.lock().documents;
                rate.update(documents);
            }
        }
    }

    fn reconcile(&self) {
        let wanted: BTreeMap<String, Pipeline> = self.shared.read(|state| {
            let live = state.pipelines.iter().filter(|(_, p)| !p.deleted);
            live.map(|(name, p)| (name.clone(), p.clone())).collect()
        });
        let mut running = self.running.lock();
        running.retain(|name, running| {
            wanted.get(name).is_some_and(|p| p.revision == running.revision)
        });
        for (name, pipeline) in &wanted {
            if !running.contains_key(name) {
                match start(pipeline) {
                    Ok(new) => drop(running.insert(name.clone(), new)),
                    Err(error) => {
                        warn!(pipeline = %name, %error, "declaration cannot be used");
                        continue;
                    }
                }
            }
            if let Some(one) = running.get_mut(name) {
                self.reconcile_source(one, pipeline);
                self.reconcile_partitions(one, pipeline);
            }
        }
    }

    fn reconcile_source(&self, running: &mut Running, pipeline: &Pipeline) {
        if pipeline.paused || pipeline.source_paused {
            running.source = None;
            return;
        }
        let topic = self.log.topic(&running.spec.topic).map(|topic| topic.id);
        let is_new = topic.is_some() && running.source_topic != topic;
        if running.source.is_some() && !is_new {
            return;
        }
        // What it knows of files it knows of the topic that is gone.
        running.source = None;
        running.source_topic = topic;
        let tasks = TaskGroup::new();
        let view = SourceView::default();
        let task = SourceTask {
            spec: running.spec.clone(),
            topic_id: pipeline.topic_id,
            partitions: pipeline.partitions,
            boot: self.boot,
            shared: self.shared.clone(),
            m0: self.groups.m0.clone(),
            peers: self.peers.clone(),
            log: self.log.clone(),
            blocks: self.blocks.clone(),
            env: self.env.clone(),
            tasks: tasks.clone(),
            view: view.clone(),
        };
        tasks.spawn("flow-source", task.run());
        running.source = Some((Tasks(tasks), view));
    }

    /// Partitions are processed by the node that leads their data group.
    fn reconcile_partitions(&self, running: &mut Running, pipeline: &Pipeline) {
        let topic = self.log.topic(&running.spec.topic);
        let index = running.spec.index.as_deref();
        let identity = index.and_then(|name| self.index.identity(name));
        let (Some(topic), Some(identity)) = (topic, identity) else {
            running.partitions.clear();
            return;
        };
        if std::mem::replace(&mut running.paused, pipeline.paused) != pipeline.paused {
            running.partitions.clear();
        }
        // A topic or index made anew starts from the beginning, under other marks.
        let topic_id: String = collect::ident::hex(&topic.id);
        let whole = format!("{topic_id}/{identity}");
        if running.identity.as_deref() != Some(&whole) {
            running.partitions.clear();
            running.identity = Some(whole);
        }
        let led = |group: &GroupId| {
            self.groups.get(*group).is_some_and(|group| group.leadership().ready_here)
        };
        for (number, group) in (0u32..).zip(&topic.groups) {
            match (led(group), running.partitions.contains_key(&number)) {
                (true, false) => {
                    let mark_name = format!("{}/{topic_id}", running.spec.name);
                    let one = self.start_partition(running, number, mark_name, pipeline.paused);
                    running.partitions.insert(number, one);
                }
                (false, true) => drop(running.partitions.remove(&number)),
                (true, true) | (false, false) => {}
            }
        }
    }

    fn start_partition(
        &self,
        running: &Running,
        partition: u32,
        mark_name: String,
        paused: bool,
    ) -> (Tasks, SharedPartition, Rate) {
        let progress = SharedPartition::default();
        let processor = Processor {
            spec: running.spec.clone(),
            mark_name,
            partition,
            paused,
            builder: running.builder.clone(),
            log: self.log.clone(),
            blocks: self.blocks.clone(),
            index: self.index.clone(),
            quarantine: Arc::new(RecordQuarantine {
                name: running.spec.name.clone(),
                m0: self.groups.m0.clone(),
            }),
            progress: progress.clone(),
        };
        let tasks = TaskGroup::new();
        tasks.spawn("flow-processor", processor.run());
        (Tasks(tasks), progress, Rate::default())
    }
}

fn start(pipeline: &Pipeline) -> Result<Running, String> {
    let spec: PipelineSpec = serde_json::from_str(&pipeline.spec).map_err(|e| e.to_string())?;
    let builder = RecordBuilder::new(&spec.record).map_err(|e| e.to_string())?;
    Ok(Running {
        revision: pipeline.revision,
        spec: Arc::new(spec),
        builder,
        source: None,
        source_topic: None,
        source_rate: Rate::default(),
        partitions: BTreeMap::new(),
        paused: pipeline.paused,
        identity: None,
    })
}

struct Handler(Weak<FlowService>);

#[async_trait]
impl PeerHandler for Handler {
    async fn handle(&self, _: NodeId, method: u16, _: Message) -> Result<Message, String> {
        let service = self.0.upgrade().ok_or("the node stops")?;
        match method {
            METHOD_STATUS => {
                let json = serde_json::to_vec(&service.node_status()).map_err(|e| e.to_string())?;
                Ok(Message { payload: json.into(), ..Message::default() })
            }
            other => Err(format!("no method {other:#06x}")),
        }
    }
}
