//! DescribeConfigs, AlterConfigs and IncrementalAlterConfigs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use base::NodeId;
use log::configs::{
    CONSUMER_INTERVAL_MS, CONSUMER_SESSION_MS, ConfigDef, ConfigKind, GROUP_CONFIGS, TOPIC_CONFIGS,
    by_broker_name, default_of, definition, is_cluster_default, is_of_one_broker,
};
use log::{ConfigChange, LogError, Mode, SettingsOf};

use super::broker_configs::{BROKER_SETTINGS, Kind};
use super::topics::repeated;
use crate::codec::messages::*;
use crate::errors;
use crate::gateway::Shared;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const GROUP: i8 = 32;

/// Kafka's name of what all loggers hang from.
const ROOT_LOGGER: &str = "root";

/// Sources of a value, as Kafka numbers them.
const DYNAMIC_TOPIC: i8 = 1;
const DYNAMIC_BROKER: i8 = 2;
const DYNAMIC_DEFAULT_BROKER: i8 = 3;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;
const DYNAMIC_BROKER_LOGGER: i8 = 6;
const DYNAMIC_GROUP: i8 = 8;

/// Defaults of broker settings in milliseconds that Kafka leaves unset, as the same in hours, or
/// another one, is set.
const COARSE_IN_KAFKA: [(&str, &str, &str); 4] = [
    ("log.flush.interval.ms", "log.flush.scheduler.interval.ms", "9223372036854775807"),
    ("log.retention.ms", "log.retention.hours", "168"),
    ("log.roll.jitter.ms", "log.roll.jitter.hours", "0"),
    ("log.roll.ms", "log.roll.hours", "168"),
];

/// The setting that Kafka has set in the place of one in milliseconds, and its value.
fn coarse(name: &str) -> Option<(&'static str, &'static str)> {
    let found = COARSE_IN_KAFKA.iter().find(|(fine, ..)| *fine == name);
    found.map(|(_, coarse, value)| (*coarse, *value))
}

fn kind_of(kind: ConfigKind) -> Kind {
    match kind {
        ConfigKind::Boolean => Kind::Boolean,
        ConfigKind::Choice(["false"]) => Kind::Boolean,
        ConfigKind::Choice(_) => Kind::Str,
        ConfigKind::Words(_) | ConfigKind::Text => Kind::List,
        ConfigKind::Int(..) => Kind::Int,
        ConfigKind::Long(_) => Kind::Long,
        ConfigKind::Ratio => Kind::Double,
    }
}

type Settings = BTreeMap<String, String>;

fn synonym(name: &str, value: Option<String>, source: i8) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym { name: name.to_owned(), value, source }
}

/// A setting with the values that it has, strongest first. Fixed, as most of a broker's are.
fn entry_of(
    name: &str,
    kind: Kind,
    synonyms: Vec<DescribeConfigsSynonym>,
) -> DescribeConfigsResourceResult {
    let is_sensitive = kind == Kind::Password;
    let value = synonyms.first().and_then(|strongest| strongest.value.clone());
    DescribeConfigsResourceResult {
        name: name.to_owned(),
        value: value.filter(|_| !is_sensitive),
        read_only: true,
        config_source: synonyms.first().map_or(DEFAULT, |strongest| strongest.source),
        is_sensitive,
        synonyms,
        config_type: kind as i8,
        documentation: None,
    }
}

/// Where a broker setting that gives topics a default has its value from, strongest first.
fn default_synonyms(def: &ConfigDef, defaults: &Settings) -> Vec<DescribeConfigsSynonym> {
    let Some(name) = def.broker_name else { return Vec::new() };
    let mut synonyms = Vec::new();
    let set = default_of(def, defaults);
    if set != def.default {
        synonyms.push(synonym(name, Some(set), DYNAMIC_DEFAULT_BROKER));
    }
    let (name, value) = coarse(name).unwrap_or((name, def.default));
    synonyms.push(synonym(name, Some(value.to_owned()), DEFAULT));
    synonyms
}

/// Every setting of a topic, with what was set explicitly for it and for the cluster.
pub(super) fn topic_entries(
    set: &Settings,
    defaults: &Settings,
) -> Vec<DescribeConfigsResourceResult> {
    let entry = |def: &ConfigDef| {
        let explicit = set.get(def.name);
        let mut synonyms = default_synonyms(def, defaults);
        if let Some(value) = explicit {
            synonyms.insert(0, synonym(def.name, Some(value.clone()), DYNAMIC_TOPIC));
        }
        DescribeConfigsResourceResult {
            // A default that is no synonym: Kafka leaves it unset.
            value: Some(explicit.cloned().unwrap_or_else(|| default_of(def, defaults))),
            read_only: false,
            documentation: Some(def.doc.to_owned()),
            ..entry_of(def.name, kind_of(def.kind), synonyms)
        }
    };
    TOPIC_CONFIGS.iter().map(entry).collect()
}

/// What this node has a value of its own for.
fn own_rows(shared: &Arc<Shared>, broker: i32) -> Vec<(&'static str, Kind, String)> {
    let config = &shared.config;
    let groups = *shared.backend.consumer_groups.config();
    let (session_ms, interval_ms) = (groups.consumer_session_ms, groups.consumer_interval_ms);
    let protocol = config.security.protocol.name();
    let address = |(host, port): (String, u16)| format!("{protocol}://{host}:{port}");
    let node = u16::try_from(broker).map(NodeId).ok();
    let listener = node.and_then(|node| config.advertised.all().remove(&node)).map(address);
    let listener = listener.unwrap_or_default();
    let mut rows = vec![
        ("broker.id", Kind::Int, broker.to_string()),
        ("node.id", Kind::Int, broker.to_string()),
        ("auto.create.topics.enable", Kind::Boolean, config.auto_create_topics.to_string()),
        ("num.partitions", Kind::Int, config.default_partitions.to_string()),
        ("socket.request.max.bytes", Kind::Int, config.max_request_bytes.to_string()),
        ("max.connections", Kind::Int, config.max_connections.to_string()),
        ("max.incremental.fetch.session.cache.slots", Kind::Int, config.fetch_sessions.to_string()),
        ("broker.session.timeout.ms", Kind::Int, config.broker_session.as_millis().to_string()),
        ("advertised.listeners", Kind::List, listener.clone()),
        ("listeners", Kind::List, listener),
        ("log.dir", Kind::Str, "parts".to_owned()),
        ("log.dirs", Kind::Str, "parts".to_owned()),
        ("group.initial.rebalance.delay.ms", Kind::Int, groups.initial_delay_ms.to_string()),
        ("group.min.session.timeout.ms", Kind::Int, groups.min_session_ms.to_string()),
        ("group.max.session.timeout.ms", Kind::Int, groups.max_session_ms.to_string()),
        ("group.max.size", Kind::Int, groups.max_members.to_string()),
        ("group.consumer.max.size", Kind::Int, groups.max_members.to_string()),
        ("group.consumer.session.timeout.ms", Kind::Int, session_ms.to_string()),
        ("group.consumer.min.session.timeout.ms", Kind::Int, session_ms.min(45_000).to_string()),
        ("group.consumer.max.session.timeout.ms", Kind::Int, session_ms.max(60_000).to_string()),
        ("group.consumer.heartbeat.interval.ms", Kind::Int, interval_ms.to_string()),
        ("group.consumer.min.heartbeat.interval.ms", Kind::Int, interval_ms.min(5000).to_string()),
        (
            "group.consumer.max.heartbeat.interval.ms",
            Kind::Int,
            interval_ms.max(15_000).to_string(),
        ),
        (
            "offsets.retention.minutes",
            Kind::Int,
            (groups.offsets_retention_ms / 60_000).to_string(),
        ),
        ("offsets.retention.check.interval.ms", Kind::Long, groups.offsets_check_ms.to_string()),
    ];
    rows.extend(security_rows(shared));
    let options = shared.backend.log.options();
    let every = |duration: std::time::Duration| duration.as_millis().to_string();
    rows.extend([
        ("log.retention.check.interval.ms", Kind::Long, every(options.retention_every)),
        (
            "log.cleaner.io.max.bytes.per.second",
            Kind::Double,
            format!("{:.1}", options.compaction_bytes_per_second as f64),
        ),
    ]);
    rows
}

/// What the listener that the client came by asks of it.
fn security_rows(shared: &Arc<Shared>) -> Vec<(&'static str, Kind, String)> {
    let security = &shared.config.security;
    let mut rows = vec![(
        "connection.failed.authentication.delay.ms",
        Kind::Int,
        security.failed_delay.as_millis().to_string(),
    )];
    if security.protocol.asks_who() {
        let names: Vec<&str> = security.mechanisms.iter().map(|m| m.name()).collect();
        let reauth_ms = security.max_reauth.map_or(0, |time| time.as_millis());
        rows.push(("sasl.enabled.mechanisms", Kind::List, names.join(",")));
        rows.push(("connections.max.reauth.ms", Kind::Long, reauth_ms.to_string()));
    }
    if let Some(tls) = &security.tls {
        rows.push(("ssl.client.auth", Kind::Str, tls.client_auth().name().to_owned()));
    }
    if shared.backend.security.is_controlled() {
        let authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
        rows.push(("authorizer.class.name", Kind::Str, authorizer.to_owned()));
    }
    rows
}

/// Every setting of a broker, by name.
fn broker_entries(shared: &Arc<Shared>, broker: i32) -> Vec<DescribeConfigsResourceResult> {
    let set = DynamicSettings::of(shared, broker);
    let own = own_rows(shared, broker);
    let mut entries: Vec<_> = BROKER_SETTINGS
        .iter()
        .filter(|(name, ..)| !own.iter().any(|(own, ..)| own == name))
        .map(|(name, kind, value)| set.entry(name, *kind, value.map(str::to_owned)))
        .collect();
    entries.extend(own.into_iter().map(|(name, kind, value)| {
        entry_of(name, kind, vec![synonym(name, Some(value), STATIC_BROKER)])
    }));
    for def in TOPIC_CONFIGS {
        let Some(name) = def.broker_name else { continue };
        let default = coarse(name).is_none().then(|| def.default.to_owned());
        let mut entry = set.entry(name, kind_of(def.kind), default);
        entry.documentation = Some(def.doc.to_owned());
        entries.push(entry);
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

/// What was changed while brokers run: for one of them, and for all.
struct DynamicSettings {
    broker: Settings,
    cluster: Settings,
}

impl DynamicSettings {
    fn of(shared: &Arc<Shared>, broker: i32) -> Self {
        let log = &shared.backend.log;
        let node = u16::try_from(broker).map(|id| SettingsOf::Broker(NodeId(id)));
        let broker = node.map(|of| log.settings(&of)).unwrap_or_default();
        Self { broker, cluster: log.topic_defaults() }
    }

    /// A setting with the strongest value that it has.
    fn entry(
        &self,
        name: &str,
        kind: Kind,
        default: Option<String>,
    ) -> DescribeConfigsResourceResult {
        let values = [
            (self.broker.get(name).cloned(), DYNAMIC_BROKER),
            (self.cluster.get(name).cloned(), DYNAMIC_DEFAULT_BROKER),
            (default, DEFAULT),
        ];
        let known = values.into_iter().filter(|(value, _)| value.is_some());
        let synonyms = known.map(|(value, source)| synonym(name, value, source)).collect();
        DescribeConfigsResourceResult {
            read_only: !is_cluster_default(name) && !is_of_one_broker(name),
            ..entry_of(name, kind, synonyms)
        }
    }
}

/// Every setting of a group. Unlike a topic, a group need not be there to have some.
fn group_entries(shared: &Arc<Shared>, group: &str) -> Vec<DescribeConfigsResourceResult> {
    let set = shared.backend.log.settings(&SettingsOf::Group(group.to_owned()));
    let node = shared.backend.consumer_groups.config();
    let entry = |(name, kind, default): &(&str, ConfigKind, &str)| {
        let default = match *name {
            CONSUMER_INTERVAL_MS => node.consumer_interval_ms.to_string(),
            CONSUMER_SESSION_MS => node.consumer_session_ms.to_string(),
            _ => (*default).to_owned(),
        };
        let default = synonym(name, Some(default), DEFAULT);
        let explicit = set.get(*name).map(|v| synonym(name, Some(v.clone()), DYNAMIC_GROUP));
        let synonyms = explicit.into_iter().chain([default]).collect();
        let entry = entry_of(name, kind_of(*kind), synonyms);
        DescribeConfigsResourceResult { read_only: false, ..entry }
    };
    GROUP_CONFIGS.iter().map(entry).collect()
}

/// What was changed for all brokers.
fn cluster_entries(shared: &Arc<Shared>) -> Vec<DescribeConfigsResourceResult> {
    let set = shared.backend.log.topic_defaults();
    let all = broker_entries(shared, 0).into_iter();
    all.filter(|entry| set.contains_key(&entry.name)).collect()
}

/// The only logger of a node, whose level is given when the node starts.
fn loggers(shared: &Arc<Shared>, name: &str) -> Entries {
    let own = i32::from(shared.backend.peers.me().0);
    if name.parse() != Ok(own) {
        let text = format!("Unexpected broker id, expected {own}, but received {name}");
        return Err((errors::INVALID_REQUEST, text));
    }
    let level = synonym(ROOT_LOGGER, Some("INFO".to_owned()), DYNAMIC_BROKER_LOGGER);
    Ok(vec![entry_of(ROOT_LOGGER, Kind::Str, vec![level])])
}

type Entries = Result<Vec<DescribeConfigsResourceResult>, (errors::Code, String)>;

fn entries(shared: &Arc<Shared>, kind: i8, name: &str) -> Entries {
    match kind {
        TOPIC => match shared.backend.log.topic(name) {
            Some(topic) => Ok(topic_entries(&topic.configs, &shared.backend.log.topic_defaults())),
            None => {
                let code = errors::UNKNOWN_TOPIC_OR_PARTITION;
                Err((code, errors::message(code).to_owned()))
            }
        },
        BROKER | GROUP => match settings_of(kind, name, &shared.backend.peers.all()) {
            Ok(SettingsOf::Cluster) => Ok(cluster_entries(shared)),
            Ok(SettingsOf::Broker(node)) => Ok(broker_entries(shared, i32::from(node.0))),
            Ok(SettingsOf::Group(group)) => Ok(group_entries(shared, &group)),
            Err(error) => Err((error.code(), error.to_string())),
        },
        BROKER_LOGGER => loggers(shared, name),
        other => Err((errors::INVALID_REQUEST, format!("Unsupported resource type: {other}"))),
    }
}

/// Version 0 of key 74 lists client metrics resources (KIP-714), and there are none.
pub(crate) fn list_resources() -> ListConfigResourcesResponse {
    ListConfigResourcesResponse::default()
}

/// Lists settings of topics and brokers.
pub(crate) async fn describe(
    shared: &Arc<Shared>,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let (mut results, mut seen) = (Vec::new(), BTreeSet::new());
    for resource in request.resources {
        tokio::task::consume_budget().await;
        // An answer is large: what is asked for twice is answered once, and "01" is node 1.
        let same = match resource.resource_name.parse::<i32>() {
            Ok(node) if resource.resource_type == BROKER => node.to_string(),
            _ => resource.resource_name.clone(),
        };
        if !seen.insert((resource.resource_type, same)) {
            continue;
        }
        let mut answer = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        };
        match entries(shared, resource.resource_type, &resource.resource_name) {
            Ok(mut configs) => {
                if let Some(keys) =
                    resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty())
                {
                    configs.retain(|c| keys.contains(&c.name));
                }
                if !request.include_synonyms {
                    configs.iter_mut().for_each(|c| c.synonyms.clear());
                }
                if !request.include_documentation {
                    configs.iter_mut().for_each(|c| c.documentation = None);
                }
                answer.configs = configs;
            }
            Err((code, text)) => {
                answer.error_code = code;
                answer.error_message = Some(text);
            }
        }
        results.push(answer);
    }
    DescribeConfigsResponse { throttle_time_ms: 0, results }
}

/// What to set and what to take back.
#[derive(Default)]
struct Change {
    set: Vec<(String, String)>,
    remove: Vec<String>,
}

async fn change(
    shared: &Arc<Shared>,
    kind: i8,
    name: &str,
    change: Result<Change, LogError>,
    validate_only: bool,
) -> (errors::Code, Option<String>) {
    let mode = if validate_only { Mode::ValidateOnly } else { Mode::Apply };
    let result = match change {
        Ok(Change { set, remove }) => {
            let set = set.into_iter().map(|(name, value)| ConfigChange::Set(name, value));
            let removed = remove.into_iter().map(ConfigChange::Remove);
            let changes: Vec<ConfigChange> = set.chain(removed).collect();
            apply(shared, kind, name, &changes, mode).await
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => (errors::NONE, None),
        Err(error) => (error.code(), Some(error.to_string())),
    }
}

async fn apply(
    shared: &Arc<Shared>,
    kind: i8,
    name: &str,
    changes: &[ConfigChange],
    mode: Mode,
) -> Result<(), LogError> {
    if kind == TOPIC {
        return shared.backend.log.alter_configs(name, changes, mode).await;
    }
    let of = settings_of(kind, name, &shared.backend.peers.all())?;
    check_broker_change(&of, changes)?;
    shared.backend.log.alter_settings(of, changes, mode).await
}

/// Whose settings a resource of Kafka's `ConfigResource` has that is no topic.
fn settings_of(kind: i8, name: &str, brokers: &[NodeId]) -> Result<SettingsOf, LogError> {
    match kind {
        BROKER if name.is_empty() => Ok(SettingsOf::Cluster),
        BROKER => {
            let id = name.parse::<i32>().map_err(|_| {
                let text = format!("Broker id must be an integer, but it is: {name}");
                LogError::InvalidRequest(text)
            })?;
            let known = brokers.iter().find(|node| i32::from(node.0) == id);
            let unexpected = || LogError::InvalidRequest(format!("Unexpected broker id {id}"));
            Ok(SettingsOf::Broker(*known.ok_or_else(unexpected)?))
        }
        GROUP if name.is_empty() => {
            Err(LogError::InvalidRequest("Group name must not be empty".to_owned()))
        }
        GROUP => Ok(SettingsOf::Group(name.to_owned())),
        other => Err(LogError::InvalidRequest(format!("Unknown resource type {other}"))),
    }
}

/// Of the brokers' settings, those can be changed that are defaults of topics, for all brokers at
/// once, as a topic has its settings from the cluster and not from a node; and those that steer
/// what trine has not, for one broker, too.
fn check_broker_change(of: &SettingsOf, changes: &[ConfigChange]) -> Result<(), LogError> {
    let names = changes.iter().map(|change| match change {
        ConfigChange::Set(name, _) | ConfigChange::Remove(name) => name.as_str(),
    });
    if let SettingsOf::Group(_) = of {
        return Ok(());
    }
    let names: Vec<&str> = names.filter(|name| !is_of_one_broker(name)).collect();
    let fixed: Vec<&str> = names.iter().copied().filter(|name| !is_cluster_default(name)).collect();
    let (why, refused) = match of {
        _ if !fixed.is_empty() => ("dynamically", fixed),
        SettingsOf::Broker(_) => ("for a single broker, use the cluster default", names),
        _ => return Ok(()),
    };
    if refused.is_empty() {
        return Ok(());
    }
    let text = format!("Cannot update these configs {why}: Set({})", refused.join(", "));
    Err(LogError::InvalidRequest(text))
}

/// What was set explicitly for a resource.
fn explicit(shared: &Arc<Shared>, kind: i8, name: &str) -> Settings {
    let log = &shared.backend.log;
    match kind {
        TOPIC => log.topic(name).map(|topic| topic.configs.clone()).unwrap_or_default(),
        _ => {
            let of = settings_of(kind, name, &shared.backend.peers.all());
            of.map(|of| log.settings(&of)).unwrap_or_default()
        }
    }
}

/// The default of a setting as it stands behind an explicit value.
fn default_value(shared: &Arc<Shared>, kind: i8, name: &str) -> Option<(Kind, String)> {
    match kind {
        TOPIC => {
            let def = definition(name)?;
            Some((kind_of(def.kind), default_of(def, &shared.backend.log.topic_defaults())))
        }
        _ => by_broker_name(name).map(|def| (kind_of(def.kind), def.default.to_owned())),
    }
}

/// Resources of one request that are to be changed.
struct Named {
    repeated: BTreeSet<(i8, String)>,
    /// Whether this node knows what was set at others. Asked once: without a leader of `m0` it
    /// takes seconds to find out.
    heard: Result<(), LogError>,
}

impl Named {
    async fn new(shared: &Arc<Shared>, all: impl Iterator<Item = (i8, String)>) -> Self {
        let repeated = repeated(all);
        let heard = shared.backend.groups.m0.read_barrier().await.map_err(LogError::from);
        Self { repeated, heard }
    }

    /// What was set explicitly for a resource by now, at whichever node.
    fn current(&self, shared: &Arc<Shared>, key: &(i8, String)) -> Result<Settings, LogError> {
        if self.repeated.contains(key) {
            let text = "Each resource must appear at most once.";
            return Err(LogError::InvalidRequest(text.to_owned()));
        }
        self.heard.clone()?;
        Ok(explicit(shared, key.0, &key.1))
    }
}

/// All that is not set anew is taken back.
fn replaced(current: &Settings, configs: Vec<AlterableConfig>) -> Result<Change, LogError> {
    let null: Vec<&str> =
        configs.iter().filter(|c| c.value.is_none()).map(|c| c.name.as_str()).collect();
    if !null.is_empty() {
        return Err(null_values(&null));
    }
    let set: Settings = configs.into_iter().filter_map(|c| Some((c.name, c.value?))).collect();
    let remove = current.keys().filter(|old| !set.contains_key(*old)).cloned().collect();
    Ok(Change { set: set.into_iter().collect(), remove })
}

fn null_values(names: &[&str]) -> LogError {
    LogError::InvalidRequest(format!("Null value not supported for : {}", names.join(", ")))
}

/// Replaces all settings of topics.
pub(crate) async fn alter(
    shared: &Arc<Shared>,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let named = request.resources.iter().map(|r| (r.resource_type, r.resource_name.clone()));
    let named = Named::new(shared, named).await;
    let mut responses = Vec::new();
    for resource in request.resources {
        let key = (resource.resource_type, resource.resource_name);
        let current = named.current(shared, &key);
        let wanted = current.and_then(|current| replaced(&current, resource.configs));
        let (kind, name) = key;
        let (error_code, error_message) =
            change(shared, kind, &name, wanted, request.validate_only).await;
        responses.push(AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: kind,
            resource_name: name,
        });
    }
    AlterConfigsResponse { throttle_time_ms: 0, responses }
}

/// Changes single settings of topics.
pub(crate) async fn alter_incrementally(
    shared: &Arc<Shared>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let named = request.resources.iter().map(|r| (r.resource_type, r.resource_name.clone()));
    let named = Named::new(shared, named).await;
    let mut responses = Vec::new();
    for resource in request.resources {
        let key = (resource.resource_type, resource.resource_name);
        let default = |setting: &str| default_value(shared, key.0, setting);
        let current = named.current(shared, &key);
        let wanted = current.and_then(|current| incremental(&current, default, resource.configs));
        let (kind, name) = key;
        let (error_code, error_message) =
            change(shared, kind, &name, wanted, request.validate_only).await;
        responses.push(IncrementalAlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: kind,
            resource_name: name,
        });
    }
    IncrementalAlterConfigsResponse { throttle_time_ms: 0, responses }
}

/// KIP-339: set (0), delete (1), append to (2) and subtract from (3) a list.
fn incremental(
    current: &Settings,
    default: impl Fn(&str) -> Option<(Kind, String)>,
    configs: Vec<IncrementalAlterableConfig>,
) -> Result<Change, LogError> {
    check_names(&configs)?;
    let mut wanted = Change::default();
    for IncrementalAlterableConfig { name, config_operation, value, .. } in configs {
        let (is_list, behind) = match default(&name) {
            Some((kind, value)) => (kind == Kind::List, value),
            None => (false, String::new()),
        };
        let value = match (config_operation, value) {
            (1, _) => {
                wanted.remove.push(name);
                continue;
            }
            (_, Some(value)) => value,
            (_, None) => return Err(null_values(&[&name])),
        };
        let old = current.get(&name).cloned().unwrap_or(behind);
        let words = old.split(',').map(str::trim).filter(|word| !word.is_empty());
        match config_operation {
            0 => wanted.set.push((name, value)),
            2 | 3 if !is_list => {
                let what = if config_operation == 2 { "APPEND" } else { "SUBTRACT" };
                let text = format!("Can't {what} to key {name} because its type is not LIST.");
                return Err(LogError::InvalidConfig(text));
            }
            2 => {
                let mut seen: HashSet<&str> = words.clone().collect();
                let new = value.split(',').map(str::trim).filter(|word| seen.insert(word));
                let words: Vec<&str> = words.chain(new).collect();
                wanted.set.push((name, words.join(",")));
            }
            3 => {
                let gone: HashSet<&str> = value.split(',').map(str::trim).collect();
                let kept = words.filter(|word| !gone.contains(word));
                wanted.set.push((name, kept.collect::<Vec<_>>().join(",")));
            }
            other => {
                let text = format!("Unknown config operation {other}");
                return Err(LogError::InvalidRequest(text));
            }
        }
    }
    Ok(wanted)
}

/// A setting may come once, and only taking one back needs no value.
fn check_names(configs: &[IncrementalAlterableConfig]) -> Result<(), LogError> {
    let mut names: Vec<&str> = configs.iter().map(|config| config.name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
        return Err(LogError::InvalidRequest("Error due to duplicate config keys".to_owned()));
    }
    let null = configs.iter().filter(|c| c.value.is_none() && c.config_operation != 1);
    let null: Vec<&str> = null.map(|config| config.name.as_str()).collect();
    if !null.is_empty() {
        return Err(null_values(&null));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(operation: i8, name: &str, value: Option<&str>, expected: Result<&str, i16>) {
        let current = Settings::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        let default =
            |name: &str| definition(name).map(|def| (kind_of(def.kind), def.default.to_owned()));
        let config = IncrementalAlterableConfig {
            name: name.to_owned(),
            config_operation: operation,
            value: value.map(str::to_owned),
        };
        let changed = incremental(&current, default, vec![config]);
        let shown = match &changed {
            Ok(Change { set, .. }) => {
                Ok(set.first().map_or("removed", |(_, value)| value.as_str()))
            }
            Err(error) => Err(error.code()),
        };
        assert_eq!(shown, expected, "{operation} {name} {value:?}");
    }

    #[test]
    fn settings_are_set_removed_and_lists_changed() {
        check(0, "cleanup.policy", Some("delete"), Ok("delete"));
        check(1, "cleanup.policy", None, Ok("removed"));
        check(2, "cleanup.policy", Some("delete"), Ok("compact,delete"));
        check(2, "cleanup.policy", Some("compact"), Ok("compact"));
        check(3, "cleanup.policy", Some("compact"), Ok(""));
        check(3, "cleanup.policy", Some("delete"), Ok("compact"));
        check(2, "retention.ms", Some("1"), Err(40));
        check(0, "retention.ms", None, Err(42));
        check(9, "retention.ms", Some("1"), Err(42));
    }

    #[test]
    fn brokers_are_changed_together_or_not_at_all() {
        let set = |name: &str| ConfigChange::Set(name.to_owned(), "1".to_owned());
        let (all, one) = (SettingsOf::Cluster, SettingsOf::Broker(NodeId(1)));
        assert_eq!(check_broker_change(&all, &[set("log.retention.ms")]), Ok(()));
        let refused = check_broker_change(&all, &[set("log.dirs"), set("log.roll.ms")]);
        let text = "Cannot update these configs dynamically: Set(log.dirs)";
        assert_eq!(refused, Err(LogError::InvalidRequest(text.to_owned())));
        assert!(check_broker_change(&one, &[set("log.retention.ms")]).is_err());
        assert_eq!(check_broker_change(&one, &[set("num.io.threads")]), Ok(()));
    }

    #[test]
    fn settings_without_use_are_listed_with_their_default() {
        for (name, ..) in BROKER_SETTINGS.iter().filter(|(name, ..)| is_of_one_broker(name)) {
            assert!(log::configs::check_setting(&SettingsOf::Cluster, name, "x").is_err());
        }
        let listed = BROKER_SETTINGS.iter().filter(|(name, ..)| is_of_one_broker(name));
        assert_eq!(listed.count(), 16);
    }
}
