//! The listener and what all connections share.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Env, NodeId, TaskGroup};
use consensus::{Groups, Leadership, PeersRef};
use log::LogService;
use log::groups::GroupService;
use secure::Security;
use secure::limits::MAX_SASL_BYTES;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

use crate::connection;
use crate::limits::{
    ACCEPT_PAUSE, BROKER_SESSION, MAX_BUFFERED_BYTES, MAX_CONNECTIONS, MAX_FETCH_SESSIONS,
    MAX_OUTGOING_BYTES, MAX_REQUEST_BYTES, MAX_TIME_SEARCHES, SMALL_REQUEST_BYTES,
    SMALL_REQUEST_SHARE, STRANGERS_SHARE,
};
use crate::listener::ListenerSecurity;
use crate::metrics::{KafkaMetrics, Traffic};
use crate::outgoing::Outgoing;
use crate::quotas::Quotas;
use crate::sessions::Sessions;

/// Addresses of the nodes, which may change while they run.
#[derive(Clone)]
pub struct Advertised(Arc<dyn Fn() -> BTreeMap<NodeId, (String, u16)> + Send + Sync>);

impl Advertised {
    /// Asks `known` whenever addresses are told.
    pub fn by(known: impl Fn() -> BTreeMap<NodeId, (String, u16)> + Send + Sync + 'static) -> Self {
        Self(Arc::new(known))
    }

    /// All nodes with what clients reach them by.
    pub(crate) fn all(&self) -> BTreeMap<NodeId, (String, u16)> {
        (self.0)()
    }
}

impl fmt::Debug for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Advertised").field(&self.all()).finish()
    }
}

/// Settings of the Kafka port.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Host and port of every node as clients reach it.
    pub advertised: Advertised,
    /// The cluster's id, as clients see it.
    pub cluster_id: String,
    /// Whether asking for a topic makes it (`auto.create.topics.enable`).
    pub auto_create_topics: bool,
    /// Partitions of a topic made without a number (`num.partitions`).
    pub default_partitions: i32,
    /// Largest request (`socket.request.max.bytes`).
    pub max_request_bytes: usize,
    /// Bytes of requests held for all connections together.
    pub max_buffered_bytes: usize,
    /// Connections served at once.
    pub max_connections: usize,
    /// Fetch sessions kept (`max.incremental.fetch.session.cache.slots`); 0 for none.
    pub fetch_sessions: usize,
    /// How long clients are told of a node that is silent (`broker.session.timeout.ms`).
    pub broker_session: Duration,
    /// What the port counts.
    pub metrics: Arc<KafkaMetrics>,
    /// Whether the listener encrypts and asks who its clients are.
    pub security: ListenerSecurity,
}

impl KafkaConfig {
    /// A configuration with Kafka's defaults.
    pub fn new(listen: SocketAddr, advertised: Advertised) -> Self {
        Self {
            listen,
            advertised,
            cluster_id: "trine".to_owned(),
            auto_create_topics: true,
            default_partitions: 3,
            max_request_bytes: MAX_REQUEST_BYTES,
            max_buffered_bytes: MAX_BUFFERED_BYTES,
            max_connections: MAX_CONNECTIONS,
            fetch_sessions: MAX_FETCH_SESSIONS,
            broker_session: BROKER_SESSION,
            metrics: Arc::default(),
            security: ListenerSecurity::default(),
        }
    }
}

/// What the port translates to.
#[derive(Clone)]
pub struct Backend {
    /// Topics and records.
    pub log: Arc<LogService>,
    /// Consumer groups.
    pub consumer_groups: Arc<GroupService>,
    /// Who leads what.
    pub groups: Groups,
    /// Who is alive.
    pub peers: PeersRef,
    /// Users, access control and quotas.
    pub security: Security,
}

/// What all connections of a listener share. All but the configuration is one for all listeners.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) config: KafkaConfig,
    pub(crate) backend: Backend,
    pub(crate) memory: Memory,
    /// Records on their way to clients.
    pub(crate) outgoing: Arc<Outgoing>,
    /// Looks for an offset by time that may begin.
    pub(crate) time_searches: Arc<Semaphore>,
    /// Rates of clients with a quota.
    pub(crate) quotas: Arc<Quotas>,
    env: Env,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) metrics: Arc<KafkaMetrics>,
    /// Counts what makes a fetch look at all its partitions again.
    pub(crate) log_changes: watch::Receiver<u64>,
}

/// Bytes of requests that may still be taken in.
#[derive(Clone)]
pub(crate) struct Memory {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Memory {
    pub(crate) fn new(bytes: usize) -> Self {
        let small = bytes / SMALL_REQUEST_SHARE;
        let large = Arc::new(Semaphore::new(bytes - small));
        let strangers = Arc::new(Semaphore::new((small / STRANGERS_SHARE).max(MAX_SASL_BYTES)));
        Self { small: Arc::new(Semaphore::new(small)), large, strangers }
    }

    /// The budget of a request of so many bytes, of a client that has proved who it is or need
    /// not.
    pub(crate) fn budget_of(&self, bytes: usize, known: bool) -> &Arc<Semaphore> {
        if !known {
            &self.strangers
        } else if bytes <= SMALL_REQUEST_BYTES {
            &self.small
        } else {
            &self.large
        }
    }
}

impl Shared {
    /// The wall clock, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        self.env.clock.unix_ms()
    }

    /// Whether clients are not told of a node: it is silent for longer than a session, and not
    /// because this node is cut off from the others, which then know more. As in Kafka, a broker
    /// that restarts stays in the list: librdkafka lets go of one that is not in it, and a call
    /// that waits for its coordinator there waits for ever (2.16).
    pub(crate) fn is_fenced(&self, node: NodeId) -> bool {
        let peers = &self.backend.peers;
        let all = peers.all();
        let heard = all.iter().filter(|node| peers.is_alive(**node)).count();
        2 * heard > all.len() && peers.silent_for(node) >= self.config.broker_session
    }

    /// Nodes that are not fenced, with the address that clients use.
    pub(crate) fn brokers(&self) -> Vec<(NodeId, String, u16)> {
        let known = self.backend.peers.all().into_iter().filter(|node| !self.is_fenced(*node));
        let mut advertised = self.config.advertised.all();
        let named = known
            .filter_map(|node| advertised.remove(&node).map(|(host, port)| (node, host, port)));
        named.collect()
    }

    /// Counts traffic, of topics that exist: names of others would be without bound.
    pub(crate) fn traffic(&self, topic: &str, traffic: Traffic) {
        if self.backend.log.topic(topic).is_some() {
            self.metrics.traffic(topic, traffic);
        }
    }

    /// The leader of a group, if there is one that answers.
    pub(crate) fn live_leader(&self, leadership: Leadership) -> Option<NodeId> {
        leadership.leader.filter(|node| self.backend.peers.is_alive(*node))
    }

    /// The node that leads `m0`, Kafka's controller; −1 when there is none.
    pub(crate) fn controller(&self) -> i32 {
        self.live_leader(self.backend.groups.m0.leadership()).map_or(-1, |n| i32::from(n.0))
    }
}

/// Counts a connection for as long as it lives.
struct Open(Arc<KafkaMetrics>);

impl Open {
    fn new(metrics: Arc<KafkaMetrics>) -> Self {
        metrics.connected();
        Self(metrics)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.disconnected();
    }
}

/// The Kafka port of a node.
pub struct KafkaGateway;

impl KafkaGateway {
    /// Listens on `config.listen` and serves until `tasks` stops; returns the address bound.
    pub async fn start(
        config: KafkaConfig,
        backend: Backend,
        tasks: TaskGroup,
        env: Env,
    ) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(config.listen).await?;
        Self::serve(listener, config, backend, tasks, env)
    }

    /// As [`Self::start`], on a listener that is open already.
    pub fn serve(
        listener: TcpListener,
        config: KafkaConfig,
        backend: Backend,
        tasks: TaskGroup,
        env: Env,
    ) -> io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        Self::serve_all(vec![(listener, config)], backend, tasks, env)?;
        Ok(address)
    }

    /// Serves several listeners, each with its own addresses and security. What clients may make
    /// the node hold is one budget, that of the first configuration.
    pub fn serve_all(
        listeners: Vec<(TcpListener, KafkaConfig)>,
        backend: Backend,
        tasks: TaskGroup,
        env: Env,
    ) -> io::Result<()> {
        let Some((_, config)) = listeners.first() else { return Ok(()) };
        let places = Arc::new(Semaphore::new(config.max_connections));
        let sessions = Arc::new(Sessions::new(config.fetch_sessions, env.clone()));
        let metrics = config.metrics.clone();
        let (log, groups) = (backend.log.clone(), backend.consumer_groups.clone());
        metrics.read_from(log, groups, sessions.clone());
        let shared = Shared {
            sessions,
            metrics,
            log_changes: backend.log.watch_changes(),
            config: config.clone(),
            backend,
            memory: Memory::new(config.max_buffered_bytes),
            outgoing: Outgoing::new(MAX_OUTGOING_BYTES),
            time_searches: Arc::new(Semaphore::new(MAX_TIME_SEARCHES)),
            quotas: Arc::new(Quotas::new(env.clone())),
            env,
        };
        for (listener, config) in listeners {
            let (address, protocol) = (listener.local_addr()?, config.security.protocol);
            let shared = Arc::new(Shared { config, ..shared.clone() });
            tasks.spawn("kafka-accept", accept(listener, shared, places.clone(), tasks.clone()));
            info!(%address, protocol = protocol.name(), "kafka port open");
        }
        Ok(())
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    tasks: TaskGroup,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "kafka connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            shared.metrics.refused();
            warn!(%peer, "kafka connection refused: too many connections");
            continue;
        };
        let shared = shared.clone();
        tasks.spawn("kafka-connection", async move {
            let open = Open::new(shared.metrics.clone());
            connection::serve(shared, stream, peer).await;
            drop((open, place));
        });
    }
}
