//! The configuration of one node: a TOML file, environment variables, `--set key=value`.
//!
//! Later sources win: file, then `TRINE_<SECTION>_<KEY>`, then `--set`. [`Config::parse`] is a
//! pure function of these three texts; it touches nothing and reports every mistake it finds
//! with the place where it stands. `KEYS` in `read` is the one list of keys: names, kinds and
//! defaults. What may change while the cluster runs (topics, sources, pipelines) is not
//! configuration but rows of the group `m0`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use base::NodeId;

mod read;
pub mod security;
#[cfg(test)]
mod tests;

use read::Reader;
use security::{KafkaSecurity, SecurityConfig};

/// Nodes of a cluster.
pub const NODES: u16 = 3;

/// Everything a node needs to know before it starts. Only valid values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the cluster; nodes of another name are refused.
    pub cluster: String,
    /// This node.
    pub node_id: NodeId,
    /// Where everything durable of this node lies.
    pub data_dir: PathBuf,
    /// Whether addresses beyond loopback may be bound without TLS and passwords.
    pub insecure: bool,
    /// All nodes, this one included, in order of their ids.
    pub peers: Vec<Peer>,
    /// Addresses to bind.
    pub listen: Listen,
    /// Addresses that clients are told.
    pub advertise: Advertise,
    /// Write-ahead log.
    pub wal: WalConfig,
    /// Topics.
    pub log: LogConfig,
    /// Consumer groups.
    pub groups: GroupsConfig,
    /// How long Kafka clients are told of a node that is silent, in milliseconds:
    /// `broker.session.timeout.ms`.
    pub broker_session_ms: u64,
    /// Bytes of the data directory's file system that stay free; below, writes are refused.
    pub disk_reserve_bytes: u64,
    /// Consensus.
    pub raft: RaftConfig,
    /// Security of the Kafka port.
    pub kafka: KafkaSecurity,
    /// Certificates and the first user.
    pub security: SecurityConfig,
    /// What clients may take of a node.
    pub limits: Limits,
}

/// A node as the others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which node.
    pub id: NodeId,
    /// Host name or IP address.
    pub host: String,
    /// Port for Raft and small calls.
    pub raft_port: u16,
    /// Port for snapshots, segments and blocks.
    pub bulk_port: u16,
}

/// Addresses that a node binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Kafka protocol.
    pub kafka: SocketAddr,
    /// WebHDFS, name node part.
    pub webhdfs: SocketAddr,
    /// WebHDFS, data node part (the 307 step leads there).
    pub datanode_http: SocketAddr,
    /// Elasticsearch REST.
    pub elastic: SocketAddr,
    /// Console, admin API, metrics.
    pub console: SocketAddr,
    /// Peers: Raft and small calls.
    pub raft: SocketAddr,
    /// Peers: bulk.
    pub bulk: SocketAddr,
}

/// Addresses that clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// Kafka protocol.
    pub kafka: HostPort,
    /// WebHDFS, name node part.
    pub webhdfs: HostPort,
    /// WebHDFS, data node part.
    pub datanode_http: HostPort,
    /// Elasticsearch REST.
    pub elastic: HostPort,
    /// Console.
    pub console: HostPort,
}

/// A host name or IP address with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// Port, never 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSync {
    /// After it was synced.
    Always,
    /// After it was written; synced every [`WalConfig::sync_interval_ms`]. A power cut may take
    /// what was acknowledged since.
    Interval,
}

/// Settings of the write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// When a write is acknowledged.
    pub sync: WalSync,
    /// Pause between syncs with [`WalSync::Interval`], in milliseconds.
    pub sync_interval_ms: u64,
    /// Size of a file of the log; two are made in advance.
    pub file_bytes: u64,
}

/// Settings of topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Whether a topic comes to be when a client names it.
    pub auto_create_topics: bool,
    /// Partitions of a topic that was created without a number.
    pub default_partitions: u32,
    /// Pause between looks for segments that are too old or too many, in milliseconds.
    pub retention_check_ms: u64,
    /// Pause between looks for partitions to compact, in milliseconds.
    pub compaction_check_ms: u64,
    /// Bytes that a node reads and writes for compaction in a second.
    pub compaction_bytes_per_second: u64,
    /// How long committed offsets stay when nobody uses them, in minutes.
    pub offsets_retention_minutes: u64,
    /// Pause between looks for such offsets, in milliseconds.
    pub offsets_check_ms: u64,
}

/// Settings of consumer groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupsConfig {
    /// Shortest session a member may ask for, in milliseconds: `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: u64,
    /// Longest session a member may ask for, in milliseconds: `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: u64,
    /// How long the first generation of a group waits for more members, in milliseconds:
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: u64,
    /// Members of one group: `group.max.size`, `group.consumer.max.size`.
    pub max_size: u16,
    /// Silence that removes a member of the consumer protocol, in milliseconds:
    /// `group.consumer.session.timeout.ms`.
    pub consumer_session_timeout_ms: u64,
    /// How often such members send heartbeats, in milliseconds:
    /// `group.consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval_ms: u64,
}

/// Settings of consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftConfig {
    /// Data groups; counts when the cluster is born and never changes.
    pub data_groups: u16,
    /// Pause between heartbeats in milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest silence before an election, in milliseconds. It counts from the end of the
    /// lease that the last leader had, which lasts as long as the longest.
    pub election_min_ms: u64,
    /// Longest silence before an election, in milliseconds.
    pub election_max_ms: u64,
    /// Log kept for nodes that are away, in bytes; past it they get a snapshot.
    pub keep_log_bytes: u64,
}

/// What clients may take of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections per port of Kafka, WebHDFS and Elasticsearch.
    pub connections: usize,
    /// Largest request of a Kafka client and largest body of an Elasticsearch client, in bytes.
    pub request_bytes: usize,
    /// Bytes of all requests of such a port together; at least twice the largest.
    pub inflight_bytes: usize,
}

impl Listen {
    /// Every address with its key, in the order of the file.
    pub fn all(&self) -> [(&'static str, SocketAddr); 7] {
        [
            ("listen.kafka", self.kafka),
            ("listen.webhdfs", self.webhdfs),
            ("listen.datanode_http", self.datanode_http),
            ("listen.elastic", self.elastic),
            ("listen.console", self.console),
            ("listen.raft", self.raft),
            ("listen.bulk", self.bulk),
        ]
    }
}

/// The texts that make a configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// Name of the file, for messages.
    pub file: &'a str,
    /// Its content.
    pub text: &'a str,
    /// Environment variables.
    pub env: &'a [(String, String)],
    /// `key=value` words of the command line.
    pub sets: &'a [String],
}

/// One mistake and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// `file:line`, `environment` or `--set`.
    pub place: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// All mistakes found; at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl Config {
    /// Reads a configuration from its sources.
    pub fn parse(sources: &Sources<'_>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(sources.file);
        reader.read_file(sources.text);
        reader.read_env(sources.env);
        reader.read_sets(sources.sets);
        // A file that is not TOML or has unknown keys would only raise follow-up errors.
        let config = if reader.errors.is_empty() { reader.build() } else { None };
        match (config, reader.errors) {
            (Some(config), errors) if errors.is_empty() => Ok(config),
            (_, errors) => Err(ConfigErrors(errors)),
        }
    }
}

/// `text` as it must stand in a configuration file as the value of `key` (`section.key`), quoted
/// where the key takes a text; `None` when there is no such key.
pub fn literal(key: &str, text: &str) -> Option<String> {
    read::literal(key, text)
}

/// The node cannot start as it is configured, and nothing was touched: a data directory of
/// another cluster, another node or a newer format, an address that cannot be bound. The program
/// ends with exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);
