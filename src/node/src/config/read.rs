//! From texts to a [`Config`]: the list of keys, and every check with the place it concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use base::NodeId;
use toml::de::{DeTable, DeValue};

use super::{
    Advertise, Config, ConfigError, GroupsConfig, HostPort, Limits, Listen, LogConfig, NODES, Peer,
    RaftConfig, WalConfig, WalSync,
};

mod security;

/// Files of the write-ahead log are whole blocks.
const WAL_FILE_STEP: u64 = 4096;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Bool,
    Int {
        min: u64,
        max: u64,
    },
    Choice(&'static [&'static str]),
    /// IP address and port to bind.
    Bind,
    /// Host and port to tell others.
    HostPort,
}

/// One key of the configuration. An empty default means: derived, or required.
#[derive(Debug)]
struct Key {
    path: &'static str,
    kind: Kind,
    default: &'static str,
}

const fn key(path: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { path, kind, default }
}

const fn int(min: u64, max: u64) -> Kind {
    Kind::Int { min, max }
}

const GIB: u64 = 1 << 30;

/// Every key but `peers`.
fn keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().chain(security::KEYS)
}

const KEYS: &[Key] = &[
    key("cluster", Kind::Text, "trine"),
    key("node_id", int(1, NODES as u64), ""),
    key("data_dir", Kind::Text, ""),
    key("insecure", Kind::Bool, "false"),
    key("listen.kafka", Kind::Bind, "127.0.0.1:9092"),
    key("listen.kafka_tls", Kind::Bind, "127.0.0.1:9093"),
    key("listen.webhdfs", Kind::Bind, "127.0.0.1:9870"),
    key("listen.datanode_http", Kind::Bind, "127.0.0.1:9864"),
    key("listen.elastic", Kind::Bind, "127.0.0.1:9200"),
    key("listen.console", Kind::Bind, "127.0.0.1:5600"),
    key("listen.raft", Kind::Bind, "127.0.0.1:7400"),
    key("listen.bulk", Kind::Bind, "127.0.0.1:7401"),
    key("advertise.kafka", Kind::HostPort, ""),
    key("advertise.kafka_tls", Kind::HostPort, ""),
    key("advertise.webhdfs", Kind::HostPort, ""),
    key("advertise.datanode_http", Kind::HostPort, ""),
    key("advertise.elastic", Kind::HostPort, ""),
    key("advertise.console", Kind::HostPort, ""),
    key("wal.sync", Kind::Choice(&["always", "interval"]), "always"),
    key("wal.sync_interval_ms", int(1, 60_000), "200"),
    key("wal.file_bytes", int(1 << 20, 1 << 30), "67108864"),
    key("log.auto_create_topics", Kind::Bool, "true"),
    key("log.default_partitions", int(1, 10_000), "3"),
    key("groups.min_session_timeout_ms", int(1, 86_400_000), "6000"),
    key("groups.max_session_timeout_ms", int(1, 86_400_000), "1800000"),
    key("groups.initial_rebalance_delay_ms", int(0, 86_400_000), "100"),
    key("groups.max_size", int(1, 65_535), "10000"),
    key("groups.consumer_session_timeout_ms", int(1000, 86_400_000), "45000"),
    key("groups.consumer_heartbeat_interval_ms", int(100, 86_400_000), "5000"),
    key("log.retention_check_ms", int(10, 86_400_000), "300000"),
    key("log.compaction_check_ms", int(10, 86_400_000), "15000"),
    key("log.compaction_bytes_per_second", int(1 << 16, 1 << 40), "33554432"),
    key("log.offsets_retention_minutes", int(1, 5_256_000), "10080"),
    key("log.offsets_check_ms", int(10, 86_400_000), "600000"),
    key("disk.reserve_bytes", int(0, 1 << 50), "1073741824"),
    key("raft.data_groups", int(1, 64), "6"),
    key("raft.heartbeat_ms", int(100, 10_000), "200"),
    key("raft.election_min_ms", int(300, 60_000), "500"),
    key("raft.election_max_ms", int(301, 120_000), "700"),
    key("raft.keep_log_bytes", int(0, 1 << 40), "536870912"),
    key("limits.connections", int(1, 1_000_000), "4096"),
    key("limits.request_bytes", int(1 << 20, 2 * GIB - 1), "104857600"),
    key("limits.inflight_bytes", int(1 << 20, 64 * GIB), "268435456"),
];

const PEER_KEYS: &[&str] = &["id", "host", "raft_port", "bulk_port"];

/// A value as written, with its place.
#[derive(Clone, Debug)]
struct Given {
    text: String,
    place: String,
}

#[derive(Debug)]
struct RawPeer {
    fields: BTreeMap<String, Given>,
    place: String,
}

pub(super) struct Reader<'a> {
    file: &'a str,
    given: BTreeMap<&'static str, Given>,
    peers: Vec<RawPeer>,
    pub(super) errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str) -> Self {
        Self { file, given: BTreeMap::new(), peers: Vec::new(), errors: Vec::new() }
    }

    fn fail(&mut self, place: impl Into<String>, problem: impl Into<String>) {
        self.errors.push(ConfigError { place: place.into(), problem: problem.into() });
    }

    pub(super) fn read_file(&mut self, text: &str) {
        let line = |at: usize| 1 + text.bytes().take(at).filter(|b| *b == b'\n').count();
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(e) => {
                let place = format!("{}:{}", self.file, e.span().map_or(1, |s| line(s.start)));
                return self.fail(place, e.message().to_owned());
            }
        };
        let place = |file: &str, at: usize| format!("{file}:{}", line(at));
        for (name, value) in &table {
            let at = place(self.file, name.span().start);
            let name = name.get_ref().as_ref();
            match value.get_ref() {
                DeValue::Array(peers) if name == "peers" => {
                    for peer in peers.iter() {
                        let at = place(self.file, peer.span().start);
                        match peer.get_ref() {
                            DeValue::Table(t) => self.read_peer(t, at, &|n| place(self.file, n)),
                            _ => self.fail(at, "a peer is a table: [[peers]]"),
                        }
                    }
                }
                DeValue::Table(section) => {
                    if name == "peers" || !is_section(name) {
                        self.fail(at, unknown("section", name, &sections()));
                        continue;
                    }
                    for (key, value) in section {
                        let at = place(self.file, key.span().start);
                        self.take(&format!("{name}.{}", key.get_ref()), value.get_ref(), at);
                    }
                }
                value => self.take(name, value, at),
            }
        }
    }

    fn read_peer(&mut self, table: &DeTable<'_>, at: String, place: &dyn Fn(usize) -> String) {
        let mut fields = BTreeMap::new();
        for (key, value) in table {
            let at = place(key.span().start);
            let name = key.get_ref().as_ref();
            if !PEER_KEYS.contains(&name) {
                self.fail(at, unknown("key of a peer", name, PEER_KEYS));
            } else if let Some(text) = scalar(value.get_ref()) {
                fields.insert(name.to_owned(), Given { text, place: at });
            } else {
                self.fail(at, format!("{name} must be one value"));
            }
        }
        self.peers.push(RawPeer { fields, place: at });
    }

    fn take(&mut self, path: &str, value: &DeValue<'_>, place: String) {
        let Some(key) = find(path) else {
            let names: Vec<&str> = keys().map(|k| k.path).chain(["peers"]).collect();
            return self.fail(place, unknown("key", path, &names));
        };
        let fits = match key.kind {
            Kind::Bool => value.is_bool(),
            Kind::Int { .. } => value.is_integer(),
            Kind::Text | Kind::Choice(_) | Kind::Bind | Kind::HostPort => value.is_str(),
        };
        match scalar(value) {
            Some(text) if fits => {
                self.given.insert(key.path, Given { text, place });
            }
            _ => self.fail(place, format!("{path} must be {}", expected(key.kind))),
        }
    }

    pub(super) fn read_env(&mut self, env: &[(String, String)]) {
        for key in keys() {
            let name = format!("TRINE_{}", key.path.replace('.', "_").to_uppercase());
            if let Some((_, text)) = env.iter().find(|(n, _)| *n == name) {
                let place = format!("environment variable {name}");
                self.given.insert(key.path, Given { text: text.clone(), place });
            }
        }
        // A misspelt key of a known section is a mistake; other TRINE_ names are not ours.
        let names: Vec<String> =
            keys().map(|k| format!("TRINE_{}", k.path.replace('.', "_").to_uppercase())).collect();
        for (name, _) in env {
            let ours = sections().iter().any(|s| {
                name.strip_prefix("TRINE_").is_some_and(|rest| {
                    rest.strip_prefix(&s.to_uppercase()).is_some_and(|r| r.starts_with('_'))
                })
            });
            if ours && !names.contains(name) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.fail("environment", unknown("variable", name, &names));
            }
        }
    }

    pub(super) fn read_sets(&mut self, sets: &[String]) {
        for set in sets {
            let Some((path, text)) = set.split_once('=') else {
                self.fail("--set", format!("\"{set}\" is not key=value"));
                continue;
            };
            let Some(key) = find(path.trim()) else {
                let names: Vec<&str> = keys().map(|k| k.path).collect();
                self.fail("--set", unknown("key", path.trim(), &names));
                continue;
            };
            let place = format!("--set {}", key.path);
            self.given.insert(key.path, Given { text: text.trim().to_owned(), place });
        }
    }

    /// The value of a key: given, else its default, else empty.
    fn get(&self, path: &'static str) -> Given {
        self.given.get(path).cloned().unwrap_or_else(|| Given {
            text: find(path).map_or(String::new(), |k| k.default.to_owned()),
            place: self.file.to_owned(),
        })
    }

    fn number(&mut self, path: &'static str) -> u64 {
        let Some(Key { kind: Kind::Int { min, max }, .. }) = find(path) else { return 0 };
        let given = self.get(path);
        if given.text.is_empty() {
            self.fail(given.place, format!("{path} is missing"));
            return *min;
        }
        match given.text.replace('_', "").parse::<u64>() {
            Ok(value) if (*min..=*max).contains(&value) => value,
            _ => {
                let text = format!("{path} must be a whole number from {min} to {max}");
                self.fail(given.place, format!("{text}, not {}", given.text));
                *min
            }
        }
    }

    fn small(&mut self, path: &'static str) -> u16 {
        u16::try_from(self.number(path)).unwrap_or(u16::MAX)
    }

    fn flag(&mut self, path: &'static str) -> bool {
        let given = self.get(path);
        if !matches!(given.text.as_str(), "true" | "false") {
            self.fail(given.place, format!("{path} must be true or false, not {}", given.text));
        }
        given.text == "true"
    }

    fn text(&mut self, path: &'static str) -> String {
        let given = self.get(path);
        if given.text.is_empty() {
            self.fail(given.place, format!("{path} is missing"));
        }
        given.text
    }

    fn bind(&mut self, path: &'static str) -> SocketAddr {
        let given = self.get(path);
        let text = given.text.replace("localhost:", "127.0.0.1:");
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => address,
            _ => {
                let text = format!("{path} must be IP:port, such as 0.0.0.0:9092");
                self.fail(given.place, format!("{text}, not \"{}\"", given.text));
                SocketAddr::from(([127, 0, 0, 1], 1))
            }
        }
    }

    /// The address told to clients: as given, else what is bound, with the peer's host name
    /// where every interface is bound.
    fn advertised(&mut self, path: &'static str, bound: SocketAddr, host: &str) -> HostPort {
        let given = self.get(path);
        if given.text.is_empty() {
            let everywhere = bound.ip().is_unspecified();
            let host = if everywhere { host.to_owned() } else { bound.ip().to_string() };
            return HostPort { host, port: bound.port() };
        }
        host_port(&given.text).unwrap_or_else(|| {
            let text = format!("{path} must be host:port, not \"{}\"", given.text);
            self.fail(given.place, text);
            HostPort { host: String::new(), port: 0 }
        })
    }

    fn wal(&mut self) -> WalConfig {
        let sync = match self.get("wal.sync") {
            Given { text, .. } if text == "always" => WalSync::Always,
            Given { text, .. } if text == "interval" => WalSync::Interval,
            Given { text, place } => {
                let problem =
                    format!("wal.sync must be \"always\" or \"interval\", not \"{text}\"");
                self.fail(place, problem);
                WalSync::Always
            }
        };
        let file_bytes = self.number("wal.file_bytes");
        if !file_bytes.is_multiple_of(WAL_FILE_STEP) {
            let place = self.get("wal.file_bytes").place;
            let problem =
                format!("wal.file_bytes must be a multiple of {WAL_FILE_STEP}, not {file_bytes}");
            self.fail(place, problem);
        }
        WalConfig { sync, sync_interval_ms: self.number("wal.sync_interval_ms"), file_bytes }
    }

    pub(super) fn build(&mut self) -> Option<Config> {
        let node_id = NodeId(self.small("node_id"));
        let listen = self.listen();
        let peers = self.build_peers(node_id, &listen);
        let me = peers.iter().find(|p| p.id == node_id);
        let host = me.map_or(String::new(), |p| p.host.clone());
        let config = Config {
            cluster: self.text("cluster"),
            node_id,
            data_dir: PathBuf::from(self.text("data_dir")),
            insecure: self.flag("insecure"),
            peers,
            listen,
            advertise: self.advertise(&listen, &host),
            wal: self.wal(),
            log: LogConfig {
                auto_create_topics: self.flag("log.auto_create_topics"),
                default_partitions: u32::from(self.small("log.default_partitions")),
                retention_check_ms: self.number("log.retention_check_ms"),
                compaction_check_ms: self.number("log.compaction_check_ms"),
                compaction_bytes_per_second: self.number("log.compaction_bytes_per_second"),
                offsets_retention_minutes: self.number("log.offsets_retention_minutes"),
                offsets_check_ms: self.number("log.offsets_check_ms"),
            },
            groups: self.groups(),
            broker_session_ms: self.number("kafka.broker_session_timeout_ms"),
            disk_reserve_bytes: self.number("disk.reserve_bytes"),
            raft: self.raft(),
            kafka: self.kafka_security(&host),
            security: self.security(),
            limits: self.limits(),
        };
        self.check_listen(&config);
        self.errors.is_empty().then_some(config)
    }

    fn listen(&mut self) -> Listen {
        Listen {
            kafka: self.bind("listen.kafka"),
            webhdfs: self.bind("listen.webhdfs"),
            datanode_http: self.bind("listen.datanode_http"),
            elastic: self.bind("listen.elastic"),
            console: self.bind("listen.console"),
            raft: self.bind("listen.raft"),
            bulk: self.bind("listen.bulk"),
        }
    }

    fn advertise(&mut self, listen: &Listen, host: &str) -> Advertise {
        Advertise {
            kafka: self.advertised("advertise.kafka", listen.kafka, host),
            webhdfs: self.advertised("advertise.webhdfs", listen.webhdfs, host),
            datanode_http: self.advertised("advertise.datanode_http", listen.datanode_http, host),
            elastic: self.advertised("advertise.elastic", listen.elastic, host),
            console: self.advertised("advertise.console", listen.console, host),
        }
    }

    fn groups(&mut self) -> GroupsConfig {
        let groups = GroupsConfig {
            min_session_timeout_ms: self.number("groups.min_session_timeout_ms"),
            max_session_timeout_ms: self.number("groups.max_session_timeout_ms"),
            initial_rebalance_delay_ms: self.number("groups.initial_rebalance_delay_ms"),
            max_size: self.small("groups.max_size"),
            consumer_session_timeout_ms: self.number("groups.consumer_session_timeout_ms"),
            consumer_heartbeat_interval_ms: self.number("groups.consumer_heartbeat_interval_ms"),
        };
        if groups.consumer_session_timeout_ms <= groups.consumer_heartbeat_interval_ms {
            let place = self.get("groups.consumer_heartbeat_interval_ms").place;
            let problem = "groups.consumer_heartbeat_interval_ms must be below \
                           groups.consumer_session_timeout_ms";
            self.fail(place, problem);
        }
        if groups.max_session_timeout_ms < groups.min_session_timeout_ms {
            let place = self.get("groups.max_session_timeout_ms").place;
            let problem =
                "groups.max_session_timeout_ms must not be below groups.min_session_timeout_ms";
            self.fail(place, problem);
        }
        groups
    }

    fn raft(&mut self) -> RaftConfig {
        let raft = RaftConfig {
            data_groups: self.small("raft.data_groups"),
            heartbeat_ms: self.number("raft.heartbeat_ms"),
            election_min_ms: self.number("raft.election_min_ms"),
            election_max_ms: self.number("raft.election_max_ms"),
            keep_log_bytes: self.number("raft.keep_log_bytes"),
        };
        if raft.heartbeat_ms.saturating_mul(2) > raft.election_min_ms {
            let place = self.get("raft.election_min_ms").place;
            self.fail(place, "raft.election_min_ms must be at least twice raft.heartbeat_ms");
        }
        if raft.election_max_ms <= raft.election_min_ms {
            let place = self.get("raft.election_max_ms").place;
            self.fail(place, "raft.election_max_ms must be above raft.election_min_ms");
        }
        raft
    }

    fn limits(&mut self) -> Limits {
        let mut size = |path| usize::try_from(self.number(path)).unwrap_or(usize::MAX);
        let limits = Limits {
            connections: size("limits.connections"),
            request_bytes: size("limits.request_bytes"),
            inflight_bytes: size("limits.inflight_bytes"),
        };
        // A part is kept for small requests; the rest must hold the largest one.
        if limits.inflight_bytes / 2 < limits.request_bytes {
            let place = self.get("limits.inflight_bytes").place;
            let text = "limits.inflight_bytes must be at least twice limits.request_bytes";
            self.fail(place, text);
        }
        limits
    }

    /// Nothing beyond loopback without a word, no port twice.
    fn check_listen(&mut self, config: &Config) {
        let mut seen: BTreeMap<u16, (&'static str, IpAddr)> = BTreeMap::new();
        let second = config.kafka.tls_listener.as_ref();
        let second = second.map(|l| ("listen.kafka_tls", l.listen));
        for (path, address) in config.listen.all().into_iter().chain(second) {
            let protocol = match path {
                "listen.kafka" => Some(config.kafka.protocol),
                "listen.kafka_tls" => config.kafka.tls_listener.as_ref().map(|l| l.protocol),
                _ => None,
            };
            let secured = protocol.is_some_and(|p| config.kafka.is_secured(p));
            if !config.insecure && !secured && !address.ip().is_loopback() {
                let text = format!("{path} = {address} is open to the network without TLS and ");
                let text = text + "passwords; say insecure = true to allow it, or bind 127.0.0.1";
                self.fail(self.get(path).place, text);
            }
            if let Some((other, ip)) = seen.get(&address.port())
                && (*ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified())
            {
                let text = format!("{path} and {other} share port {}", address.port());
                self.fail(self.get(path).place, text);
            }
            seen.insert(address.port(), (path, address.ip()));
        }
    }

    fn build_peers(&mut self, me: NodeId, listen: &Listen) -> Vec<Peer> {
        let raw = std::mem::take(&mut self.peers);
        let file = self.file;
        if raw.len() != usize::from(NODES) {
            let text = format!("{NODES} peers are needed, {} are given", raw.len());
            self.fail(file, text + ": one [[peers]] table per node, this one included");
        }
        let mut peers = Vec::new();
        let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for raw in &raw {
            let peer = Peer {
                id: NodeId(self.peer_number(raw, "id", 1, NODES, None)),
                host: self.peer_host(raw),
                raft_port: self.peer_number(raw, "raft_port", 1, u16::MAX, Some(7400)),
                bulk_port: self.peer_number(raw, "bulk_port", 1, u16::MAX, Some(7401)),
            };
            let at = |name: &str| raw.fields.get(name).map_or(&raw.place, |g| &g.place).clone();
            if !ids.insert(peer.id) {
                self.fail(at("id"), format!("peer {} is given twice", peer.id));
            }
            for (name, port) in [("raft_port", peer.raft_port), ("bulk_port", peer.bulk_port)] {
                if !addresses.insert((peer.host.clone(), port)) {
                    self.fail(at(name), format!("{}:{port} is given twice", peer.host));
                }
            }
            if peer.id == me {
                let bound = [
                    ("raft_port", peer.raft_port, "listen.raft", listen.raft.port()),
                    ("bulk_port", peer.bulk_port, "listen.bulk", listen.bulk.port()),
                ];
                for (name, told, path, bound) in bound {
                    if told != bound {
                        let text = format!("the other nodes are told {name} = {told} of this node");
                        self.fail(at(name), format!("{text}, but {path} binds {bound}"));
                    }
                }
            }
            peers.push(peer);
        }
        peers.sort_by_key(|p| p.id);
        peers
    }

    fn peer_host(&mut self, raw: &RawPeer) -> String {
        match raw.fields.get("host") {
            Some(given) if is_host(&given.text) => given.text.clone(),
            Some(given) => {
                let text = format!("\"{}\" is not a host name or IP address", given.text);
                self.fail(given.place.clone(), text);
                String::new()
            }
            None => {
                self.fail(raw.place.clone(), "the peer has no host");
                String::new()
            }
        }
    }

    fn peer_number(
        &mut self,
        raw: &RawPeer,
        name: &str,
        min: u16,
        max: u16,
        default: Option<u16>,
    ) -> u16 {
        let parsed = match (raw.fields.get(name), default) {
            (Some(given), _) => given.text.parse().ok().filter(|n| (min..=max).contains(n)),
            (None, default) => default,
        };
        parsed.unwrap_or_else(|| {
            let place = raw.fields.get(name).map_or(&raw.place, |g| &g.place).clone();
            self.fail(place, format!("{name} of a peer must be a number from {min} to {max}"));
            min
        })
    }
}

/// `text` as a TOML value of the kind that the key takes; `None` for an unknown key.
pub(super) fn literal(path: &str, text: &str) -> Option<String> {
    match find(path)?.kind {
        Kind::Bool | Kind::Int { .. } => Some(text.to_owned()),
        Kind::Text | Kind::Choice(_) | Kind::Bind | Kind::HostPort => {
            Some(toml::Value::String(text.to_owned()).to_string())
        }
    }
}

fn find(path: &str) -> Option<&'static Key> {
    keys().find(|k| k.path == path)
}

fn sections() -> Vec<&'static str> {
    let mut names: Vec<&str> = keys().filter_map(|k| k.path.split_once('.').map(|p| p.0)).collect();
    names.dedup();
    names
}

fn is_section(name: &str) -> bool {
    sections().contains(&name)
}

/// The text of a string, number or truth value.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::Text => "a text in quotes".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Int { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
        Kind::Bind => "\"IP:port\"".to_owned(),
        Kind::HostPort => "\"host:port\"".to_owned(),
    }
}

fn is_host(text: &str) -> bool {
    let name = !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_');
    name || text.parse::<IpAddr>().is_ok()
}

fn host_port(text: &str) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|p| *p != 0)?;
    is_host(host).then(|| HostPort { host: host.to_owned(), port })
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|k| (distance(name, k), *k)).min();
    match nearest {
        // Further apart than a third of the word is no typing mistake.
        Some((far, near)) if far <= name.len().max(6) / 3 => {
            format!("unknown {what} \"{name}\"; did you mean \"{near}\"?")
        }
        _ => format!("unknown {what} \"{name}\"; known are {}", known.join(", ")),
    }
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.bytes().zip(row.windows(2)) {
            let [diagonal, above] = above else { break };
            left = (left + 1).min(above + 1).min(diagonal + usize::from(x != y));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
