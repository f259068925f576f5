//! Runs a node from start to stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use base::{Env, TaskGroup};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blocks::BlockService;
use consensus::identity::{NodeFile, Owner};
use consensus::net::tcp::{PeerAddress, foreign_peer};
use consensus::{Cluster, ClusterOptions, StartError, tags};
use elastic::ElasticGateway;
use flow::FlowService;
use hdfs::{HdfsConfig, HdfsGateway};
use index::IndexService;
use kafka::{Backend, KafkaConfig, KafkaGateway, KafkaMetrics};
use log::groups::{GroupConfig, GroupService};
use log::{LogOptions, LogService};
use secure::Security;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::admin::{Gateways, NodeAdmin};
use crate::config::{Config, GroupsConfig, HostPort, Refused, WalSync};
use crate::facts::Facts;
use crate::registry::Advertised;
use crate::security::{Certificates, open_kafka};
use crate::services::{Resets, Services, Shared, readers};

/// How long an address may be in use before the node gives up.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
/// Before it opens its stores, a node waits so long for peers to say that it is of their cluster.
const PEER_PATIENCE: Duration = Duration::from_millis(300);
/// Time for tasks to end after they were told to.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// The version that Elasticsearch clients are shown; the last under the Apache licence.
const ELASTIC_VERSION: &str = "7.10.2";
/// Open files that are enough for the partitions and connections that a node takes.
const ENOUGH_FILES: u64 = 32_768;
/// Time between checkpoints.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);

/// Runs a node until SIGTERM or SIGINT, or until it cannot go on.
///
/// # Errors
/// [`Refused`] when the node cannot start as configured and nothing was touched.
pub fn run(config: Config) -> anyhow::Result<()> {
    start_log();
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name("trine")
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(run_node(config));
    // Tasks are gone by now; a blocking read that hangs must not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn start_log() {
    use tracing_subscriber::EnvFilter;
    let default = "info,openraft=error,tantivy=warn,russh=warn";
    let filter = EnvFilter::try_from_env("TRINE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // A second node in one process (tests) keeps the first subscriber.
    drop(subscriber.try_init());
}

/// Takes as many open files as the system allows: each partition that is written has two.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }) {
        warn!("the limit of open files stays as it is: {error}");
    }
    let now = getrlimit(Resource::Nofile).current;
    if let Some(now) = now.filter(|now| *now < ENOUGH_FILES) {
        warn!(
            "{now} files may be open, which is too few for many partitions and clients; give the \
             service {ENOUGH_FILES} or more (LimitNOFILE of systemd, ulimit -Hn)"
        );
    }
}

/// Every address of the configuration, bound before anything is touched.
struct Listeners {
    kafka: TcpListener,
    kafka_tls: Option<TcpListener>,
    webhdfs: TcpListener,
    datanode_http: TcpListener,
    elastic: TcpListener,
    console: TcpListener,
    peers: Vec<TcpListener>,
}

/// Binds an address. One in use is tried again for a moment: a killed predecessor holds its
/// ports until the last of its threads is gone.
async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let until = tokio::time::Instant::now() + BIND_PATIENCE;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
                if tokio::time::Instant::now() >= until {
                    let text = format!("{key} = {address} is in use by another process");
                    return Err(anyhow!(Refused(text)));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(e) => {
                let text = format!("{key} = {address} cannot be bound: {e}");
                return Err(anyhow!(Refused(text)));
            }
        }
    }
}

impl Listeners {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let listen = &config.listen;
        let kafka_tls = match &config.kafka.tls_listener {
            Some(tls) => Some(bind("listen.kafka_tls", tls.listen).await?),
            None => None,
        };
        Ok(Self {
            kafka: bind("listen.kafka", listen.kafka).await?,
            kafka_tls,
            webhdfs: bind("listen.webhdfs", listen.webhdfs).await?,
            datanode_http: bind("listen.datanode_http", listen.datanode_http).await?,
            elastic: bind("listen.elastic", listen.elastic).await?,
            console: bind("listen.console", listen.console).await?,
            peers: vec![
                bind("listen.raft", listen.raft).await?,
                bind("listen.bulk", listen.bulk).await?,
            ],
        })
    }
}

/// Holds the data directory: a second process on it would ruin both.
struct DirLock(#[expect(dead_code, reason = "closing the file releases the lock")] std::fs::File);

impl DirLock {
    fn take(config: &Config) -> anyhow::Result<Self> {
        let dir = &config.data_dir;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join("LOCK");
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        let flags = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if rustix::fs::flock(file.as_fd(), flags).is_err() {
            let text = format!("{} is in use by another process", dir.display());
            return Err(anyhow!(Refused(text)));
        }
        Ok(Self(file))
    }
}

async fn run_node(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let certificates = Certificates::load(&Env::real(), &config)?;
    let listeners = Listeners::bind(&config).await?;
    let _lock = DirLock::take(&config)?;
    if config.insecure {
        warn!("insecure = true: whoever reaches the ports can read and change everything");
    }
    let data_dir = config.data_dir.clone();
    let node = Node::start(config, certificates, listeners).await?;
    let mut failure = node.cluster.failure();
    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        failed = failure.wait_for(Option::is_some) => {
            let reason = failed.ok().and_then(|r| r.clone()).unwrap_or_default();
            let reason = format!("{}: {reason}", data_dir.display());
            error!("this node cannot go on: {reason}");
            // Nothing is written any more: what is durable is what counts.
            let refused = reason.contains("another cluster");
            Err(if refused { anyhow!(Refused(reason)) } else { anyhow!(reason) })
        }
    };
    if result.is_ok() {
        node.stop().await;
    }
    result
}

struct Node {
    cluster: Arc<Cluster>,
    shared: Arc<Shared>,
    /// Gateways and background work; ends first.
    front: TaskGroup,
    /// Raft and its transport; ends last.
    back: TaskGroup,
}

fn refused(error: StartError) -> anyhow::Error {
    match error {
        StartError::Identity(e) => anyhow!(Refused(e.to_string())),
        other => anyhow!(other).context("cannot start"),
    }
}

impl Node {
    async fn start(
        config: Config,
        certificates: Certificates,
        listeners: Listeners,
    ) -> anyhow::Result<Self> {
        let env = Env::real();
        let (front, back) = (TaskGroup::new(), TaskGroup::new());
        let Listeners { kafka, kafka_tls, webhdfs, datanode_http, elastic, console, peers } =
            listeners;
        let options = cluster_options(&config);
        let owner = Owner {
            cluster: config.cluster.clone(),
            node: config.node_id,
            data_groups: config.raft.data_groups,
        };
        // First of all: opening what is not this node's would change it.
        let file = NodeFile::load_or_mint(&env, &config.data_dir, &owner);
        let file = file.map_err(|e| refused(e.into()))?;
        let met = foreign_peer(file.identity(), &options.addresses, PEER_PATIENCE).await;
        if let Some(node) = met {
            let dir = config.data_dir.display();
            let text =
                format!("{dir}: node {node} belongs to another cluster than this data directory");
            return Err(anyhow!(Refused(text)));
        }
        let shared = Arc::new(Shared::new(&env, &config)?);
        let machines = |group| shared.machines(group);
        let cluster = Cluster::start(&env, options, file, peers, &machines, &back).await;
        let cluster = cluster.map_err(refused)?;
        let services = Arc::new(start_services(&env, &config, &cluster, &shared, &front));
        let resets = Arc::new(Resets(services.blocks.clone()));
        cluster.settle(resets, &back);
        let m0 = cluster.groups().m0;
        let keep = shared.registry.clone().keep(m0, config.node_id, advertised(&config));
        front.spawn("registry", keep);
        let gateways = Arc::new(Gateways::default());
        let kafka_metrics: Arc<KafkaMetrics> = Arc::default();
        let admin = Arc::new(NodeAdmin {
            env: env.clone(),
            config: config.clone(),
            cluster: cluster.clone(),
            registry: shared.registry.clone(),
            services: services.clone(),
            gateways: gateways.clone(),
            kafka: kafka_metrics.clone(),
        });
        cluster.peers().register(tags::CLUSTER, admin.clone());
        console::serve(console, admin, &front);
        let opening = Opening {
            env,
            config,
            cluster: cluster.clone(),
            shared: shared.clone(),
            services,
            gateways,
            kafka_metrics,
            certificates,
            tasks: front.clone(),
        };
        let ports = Ports { kafka, kafka_tls, webhdfs, datanode_http, elastic };
        front.spawn("gateways", opening.run(ports));
        Ok(Self { cluster, shared, front, back })
    }

    async fn stop(self) {
        info!("stopping");
        self.front.shutdown(STOP_PATIENCE).await;
        self.cluster.stop().await;
        self.back.shutdown(STOP_PATIENCE).await;
        self.shared.writer.stop();
        info!("stopped");
    }
}

/// Kafka writes ids in URL-safe base64, and tools count on its 22 characters.
fn kafka_cluster_id(hex: &str) -> String {
    Uuid::try_parse(hex).map_or(String::new(), |id| URL_SAFE_NO_PAD.encode(id.as_bytes()))
}

fn group_config(config: &GroupsConfig) -> GroupConfig {
    let ms = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    GroupConfig {
        min_session_ms: ms(config.min_session_timeout_ms),
        max_session_ms: ms(config.max_session_timeout_ms),
        initial_delay_ms: ms(config.initial_rebalance_delay_ms),
        max_members: usize::from(config.max_size),
        consumer_session_ms: ms(config.consumer_session_timeout_ms),
        consumer_interval_ms: i32::try_from(config.consumer_heartbeat_interval_ms)
            .unwrap_or(i32::MAX),
        ..GroupConfig::default()
    }
}

fn start_services(
    env: &Env,
    config: &Config,
    cluster: &Arc<Cluster>,
    shared: &Shared,
    tasks: &TaskGroup,
) -> Services {
    let (groups, peers) = (cluster.groups(), cluster.peers());
    let readers = |tag| readers(cluster, tag, config.raft.data_groups);
    let options = LogOptions {
        default_partitions: i32::try_from(config.log.default_partitions).unwrap_or(i32::MAX),
        retention_every: Duration::from_millis(config.log.retention_check_ms),
        compaction_every: Duration::from_millis(config.log.compaction_check_ms),
        compaction_bytes_per_second: config.log.compaction_bytes_per_second,
        ..LogOptions::default()
    };
    let log = LogService::start(
        shared.log.clone(),
        groups.clone(),
        peers.clone(),
        readers(tags::LOG),
        tasks,
        options,
    );
    let store = Arc::new(log.clone());
    let minutes = i64::try_from(config.log.offsets_retention_minutes).unwrap_or(i64::MAX);
    let group_config = GroupConfig {
        offsets_retention_ms: minutes.saturating_mul(60_000),
        offsets_check_ms: config.log.offsets_check_ms,
        ..group_config(&config.groups)
    };
    let consumer_groups = GroupService::start(store, group_config, env.clone(), tasks);
    let blocks =
        BlockService::new(shared.blocks.clone(), groups.fs.clone(), peers.clone(), tasks.clone());
    let index = IndexService::new(
        shared.index.clone(),
        groups.clone(),
        peers.clone(),
        BTreeMap::new(),
        tasks.clone(),
    );
    let flow = FlowService::new(
        shared.flow.clone(),
        groups,
        peers,
        log.clone(),
        blocks.clone(),
        index.clone(),
        env.clone(),
        tasks,
    );
    let rules = config.kafka.rules.clone();
    let security = Security::new(shared.security.clone(), cluster.groups().m0, rules);
    Services { security, log, consumer_groups, blocks, index, flow }
}

struct Ports {
    kafka: TcpListener,
    kafka_tls: Option<TcpListener>,
    webhdfs: TcpListener,
    datanode_http: TcpListener,
    elastic: TcpListener,
}

/// Opens the gateways once the cluster can answer.
struct Opening {
    env: Env,
    config: Config,
    cluster: Arc<Cluster>,
    shared: Arc<Shared>,
    services: Arc<Services>,
    gateways: Arc<Gateways>,
    kafka_metrics: Arc<KafkaMetrics>,
    certificates: Certificates,
    tasks: TaskGroup,
}

impl Opening {
    async fn run(self, ports: Ports) {
        self.wait_until_ready().await;
        if let Err(e) = self.open(ports).await {
            error!("cannot open the gateways: {e:#}");
        }
    }

    /// Gateways open once every group has a leader, every node's addresses are known, and no topic,
    /// index or user that was there before this node started is unknown to it.
    async fn wait_until_ready(&self) {
        let (nodes, m0) = (self.cluster.peers().all(), self.cluster.groups().m0);
        loop {
            let known = nodes.iter().all(|n| self.shared.registry.get(*n).is_some());
            if self.cluster.is_ready() && known && m0.read_barrier().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn open(&self, ports: Ports) -> anyhow::Result<()> {
        self.certificates.ensure_admin(&self.services.security).await;
        let limits = &self.config.limits;
        let config = KafkaConfig {
            cluster_id: kafka_cluster_id(&self.cluster.cluster_id().unwrap_or_default()),
            auto_create_topics: self.config.log.auto_create_topics,
            default_partitions: i32::try_from(self.config.log.default_partitions)?,
            broker_session: Duration::from_millis(self.config.broker_session_ms),
            max_connections: limits.connections,
            max_request_bytes: limits.request_bytes,
            max_buffered_bytes: limits.inflight_bytes,
            metrics: self.kafka_metrics.clone(),
            ..KafkaConfig::new(self.config.listen.kafka, kafka::Advertised::by(BTreeMap::new))
        };
        let backend = Backend {
            log: Arc::new(self.services.log.clone()),
            consumer_groups: self.services.consumer_groups.clone(),
            groups: self.cluster.groups(),
            peers: self.cluster.peers(),
            security: self.services.security.clone(),
        };
        let (tasks, env) = (self.tasks.clone(), self.env.clone());
        let listeners = open_kafka(
            (ports.kafka, ports.kafka_tls),
            &config,
            &self.config,
            &self.certificates,
            &self.shared.registry,
        );
        KafkaGateway::serve_all(listeners, backend, tasks.clone(), env.clone())?;
        self.certificates.keep_fresh(&env, &tasks);
        self.gateways.open("kafka");
        let both = (ports.webhdfs, ports.datanode_http);
        let config = HdfsConfig {
            advertised_name_node: self.config.advertise.webhdfs.to_string(),
            advertised_data_node: self.config.advertise.datanode_http.to_string(),
            max_connections: limits.connections,
            ..HdfsConfig::new(self.config.listen.webhdfs, self.config.listen.datanode_http)
        };
        let blocks = self.services.blocks.clone();
        HdfsGateway::serve(both, config, blocks, tasks.clone(), env.clone())?;
        self.gateways.open("webhdfs");
        let app = elastic::App {
            service: self.services.index.clone(),
            facts: Arc::new(Facts {
                cluster: self.cluster.clone(),
                registry: self.shared.registry.clone(),
                peers: self.config.peers.clone(),
            }),
            cluster_name: self.config.cluster.clone(),
            version: ELASTIC_VERSION.to_owned(),
            env,
        };
        let limits = elastic::Limits {
            connections: limits.connections,
            body_bytes: limits.request_bytes,
            bodies_bytes: limits.inflight_bytes,
        };
        ElasticGateway::start(ports.elastic, app, limits, &tasks)?;
        self.gateways.open("elastic");
        info!("every gateway serves");
        Ok(())
    }
}

fn advertised(config: &Config) -> Advertised {
    let pair = |a: &HostPort| (a.host.clone(), a.port);
    let tell = &config.advertise;
    Advertised {
        kafka: pair(&tell.kafka),
        webhdfs: pair(&tell.webhdfs),
        datanode_http: pair(&tell.datanode_http),
        elastic: pair(&tell.elastic),
        console: pair(&tell.console),
        kafka_tls: config.kafka.tls_listener.as_ref().map(|tls| pair(&tls.advertise)),
    }
}

fn cluster_options(config: &Config) -> ClusterOptions {
    let sync = match config.wal.sync {
        WalSync::Always => wal::SyncMode::EveryFlush,
        WalSync::Interval => {
            wal::SyncMode::Interval(Duration::from_millis(config.wal.sync_interval_ms))
        }
    };
    let address = |host: &str, port| HostPort { host: host.to_owned(), port }.to_string();
    let addresses = config.peers.iter().map(|peer| {
        let raft = address(&peer.host, peer.raft_port);
        let bulk = address(&peer.host, peer.bulk_port);
        (peer.id, PeerAddress { raft, bulk })
    });
    ClusterOptions {
        data_dir: config.data_dir.clone(),
        node: config.node_id,
        addresses: addresses.collect(),
        data_groups: config.raft.data_groups,
        heartbeat_ms: config.raft.heartbeat_ms,
        election_ms: (config.raft.election_min_ms, config.raft.election_max_ms),
        sync,
        wal_file_bytes: config.wal.file_bytes,
        checkpoint_every: CHECKPOINT_EVERY,
        keep_log_bytes: config.raft.keep_log_bytes,
        reserve_bytes: config.disk_reserve_bytes,
        growing: Arc::new(crate::services::grows),
    }
}
