//! DescribeConfigs, AlterConfigs and IncrementalAlterConfigs.

use std::collections::BTreeMap;
use std::sync::Arc;

use log::configs::{ConfigKind, TOPIC_CONFIGS, definition};
use log::{ConfigChange, LogError, Mode};

use crate::codec::messages::*;
use crate::errors;
use crate::gateway::Shared;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Sources of a value, as Kafka numbers them.
const DYNAMIC_TOPIC: i8 = 1;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

/// Types of a value, as Kafka numbers them.
const BOOLEAN: i8 = 1;
const STRING: i8 = 2;
const INT: i8 = 3;
const LONG: i8 = 5;
const DOUBLE: i8 = 6;
const LIST: i8 = 7;

fn kind_number(kind: ConfigKind) -> i8 {
    match kind {
        ConfigKind::Boolean => BOOLEAN,
        ConfigKind::Choice(words) if words.contains(&"false") => BOOLEAN,
        ConfigKind::Choice(_) => STRING,
        ConfigKind::Words(_) | ConfigKind::Text => LIST,
        ConfigKind::Int(..) => INT,
        ConfigKind::Long(_) => LONG,
        ConfigKind::Ratio => DOUBLE,
    }
}

/// The broker setting that gives a topic setting its default.
fn broker_name(topic_name: &str) -> String {
    match topic_name {
        "max.message.bytes" => "message.max.bytes".to_owned(),
        "compression.type" | "min.insync.replicas" | "unclean.leader.election.enable" => {
            topic_name.to_owned()
        }
        "delete.retention.ms" => "log.cleaner.delete.retention.ms".to_owned(),
        "min.cleanable.dirty.ratio" => "log.cleaner.min.cleanable.ratio".to_owned(),
        "max.compaction.lag.ms" => "log.cleaner.max.compaction.lag.ms".to_owned(),
        "min.compaction.lag.ms" => "log.cleaner.min.compaction.lag.ms".to_owned(),
        "segment.bytes" | "preallocate" => format!("log.{topic_name}"),
        "segment.ms" => "log.roll.ms".to_owned(),
        "segment.jitter.ms" => "log.roll.jitter.ms".to_owned(),
        "segment.index.bytes" => "log.index.size.max.bytes".to_owned(),
        "file.delete.delay.ms" => "log.segment.delete.delay.ms".to_owned(),
        "flush.messages" => "log.flush.interval.messages".to_owned(),
        "flush.ms" => "log.flush.interval.ms".to_owned(),
        other => format!("log.{other}"),
    }
}

/// Every setting of a topic, with what was set explicitly.
pub(super) fn topic_entries(set: &BTreeMap<String, String>) -> Vec<DescribeConfigsResourceResult> {
    let entry = |def: &log::configs::ConfigDef| {
        let explicit = set.get(def.name);
        let mut synonyms = vec![DescribeConfigsSynonym {
            name: broker_name(def.name),
            value: Some(def.default.to_owned()),
            source: DEFAULT,
        }];
        if let Some(value) = explicit {
            let name = def.name.to_owned();
            let own =
                DescribeConfigsSynonym { name, value: Some(value.clone()), source: DYNAMIC_TOPIC };
            synonyms.insert(0, own);
        }
        DescribeConfigsResourceResult {
            name: def.name.to_owned(),
            value: Some(explicit.cloned().unwrap_or_else(|| def.default.to_owned())),
            read_only: false,
            config_source: if explicit.is_some() { DYNAMIC_TOPIC } else { DEFAULT },
            is_sensitive: false,
            synonyms,
            config_type: kind_number(def.kind),
            documentation: None,
        }
    };
    TOPIC_CONFIGS.iter().map(entry).collect()
}

fn broker_entries(shared: &Arc<Shared>, broker: i32) -> Vec<DescribeConfigsResourceResult> {
    let config = &shared.config;
    let mut rows: Vec<(String, String, i8, i8)> = vec![
        ("broker.id".into(), broker.to_string(), STATIC_BROKER, INT),
        ("node.id".into(), broker.to_string(), STATIC_BROKER, INT),
        (
            "auto.create.topics.enable".into(),
            config.auto_create_topics.to_string(),
            STATIC_BROKER,
            BOOLEAN,
        ),
        ("num.partitions".into(), config.default_partitions.to_string(), STATIC_BROKER, INT),
        ("default.replication.factor".into(), "3".into(), DEFAULT, INT),
        ("offsets.topic.replication.factor".into(), "3".into(), DEFAULT, INT),
        ("delete.topic.enable".into(), "true".into(), DEFAULT, BOOLEAN),
        (
            "socket.request.max.bytes".into(),
            config.max_request_bytes.to_string(),
            STATIC_BROKER,
            INT,
        ),
        ("max.connections".into(), config.max_connections.to_string(), STATIC_BROKER, INT),
    ];
    let defaults = TOPIC_CONFIGS.iter();
    rows.extend(defaults.map(|def| {
        (broker_name(def.name), def.default.to_owned(), DEFAULT, kind_number(def.kind))
    }));
    rows.into_iter()
        .map(|(name, value, config_source, config_type)| DescribeConfigsResourceResult {
            name: name.clone(),
            value: Some(value.clone()),
            read_only: true,
            config_source,
            synonyms: vec![DescribeConfigsSynonym {
                name,
                value: Some(value),
                source: config_source,
            }],
            config_type,
            ..Default::default()
        })
        .collect()
}

type Entries = Result<Vec<DescribeConfigsResourceResult>, (errors::Code, String)>;

fn entries(shared: &Arc<Shared>, kind: i8, name: &str) -> Entries {
    match kind {
        TOPIC => match shared.backend.log.topic(name) {
            Some(topic) => Ok(topic_entries(&topic.configs)),
            None => {
                let code = errors::UNKNOWN_TOPIC_OR_PARTITION;
                Err((code, errors::message(code).to_owned()))
            }
        },
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER => match name.parse::<i32>() {
            Ok(id) if shared.backend.peers.all().iter().any(|n| i32::from(n.0) == id) => {
                Ok(broker_entries(shared, id))
            }
            Ok(id) => Err((errors::INVALID_REQUEST, format!("Unexpected broker id {id}"))),
            Err(_) => {
                let text = format!("Broker id must be an integer, but it is: {name}");
                Err((errors::INVALID_REQUEST, text))
            }
        },
        other => Err((errors::INVALID_REQUEST, format!("Unsupported resource type: {other}"))),
    }
}

/// Version 0 of key 74 lists client metrics resources (KIP-714), and there are none.
pub(crate) fn list_resources() -> ListConfigResourcesResponse {
    ListConfigResourcesResponse::default()
}

/// Lists settings of topics and brokers.
pub(crate) fn describe(
    shared: &Arc<Shared>,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let mut results = Vec::new();
    for resource in request.resources {
        let mut answer = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        };
        match entries(shared, resource.resource_type, &resource.resource_name) {
            Ok(mut configs) => {
                if let Some(keys) = &resource.configuration_keys {
                    configs.retain(|c| keys.contains(&c.name));
                }
                if !request.include_synonyms {
                    configs.iter_mut().for_each(|c| c.synonyms.clear());
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
    if kind != TOPIC {
        let text = match (kind, &change) {
            // No setting of a node can be changed while it runs.
            (BROKER, Ok(Change { set, remove })) => {
                let names = set.iter().map(|(name, _)| name).chain(remove);
                let names: Vec<&str> = names.map(String::as_str).collect();
                format!("Cannot update these configs dynamically: {}", names.join(", "))
            }
            (BROKER, Err(error)) => error.to_string(),
            _ => format!("Unknown resource type {kind}"),
        };
        return (errors::INVALID_REQUEST, Some(text));
    }
    let mode = if validate_only { Mode::ValidateOnly } else { Mode::Apply };
    let result = match change {
        Ok(Change { set, remove }) => {
            let set = set.into_iter().map(|(name, value)| ConfigChange::Set(name, value));
            let removed = remove.into_iter().map(ConfigChange::Remove);
            let changes: Vec<ConfigChange> = set.chain(removed).collect();
            shared.backend.log.alter_configs(name, &changes, mode).await
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => (errors::NONE, None),
        Err(error) => (error.code(), Some(error.to_string())),
    }
}

/// Replaces all settings of topics.
pub(crate) async fn alter(
    shared: &Arc<Shared>,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let mut responses = Vec::new();
    for resource in request.resources {
        let mut wanted = Change::default();
        for config in resource.configs {
            match config.value {
                Some(value) => wanted.set.push((config.name, value)),
                None => wanted.remove.push(config.name),
            }
        }
        let topic = shared.backend.log.topic(&resource.resource_name);
        for name in topic.iter().flat_map(|t| t.configs.keys()) {
            if !wanted.set.iter().any(|(set, _)| set == name) {
                wanted.remove.push(name.clone());
            }
        }
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let (error_code, error_message) =
            change(shared, kind, &name, Ok(wanted), request.validate_only).await;
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
    let mut responses = Vec::new();
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let topic = shared.backend.log.topic(&name);
        let current = topic.map(|t| t.configs.clone()).unwrap_or_default();
        let wanted = incremental(&current, resource.configs);
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
    current: &BTreeMap<String, String>,
    configs: Vec<IncrementalAlterableConfig>,
) -> Result<Change, LogError> {
    let mut wanted = Change::default();
    check_names(&configs)?;
    for config in configs {
        let name = config.name;
        let value = config.value.unwrap_or_default();
        let is_list = definition(&name).is_some_and(|def| kind_number(def.kind) == LIST);
        let old = current.get(&name).map(String::as_str);
        let old = old.or_else(|| definition(&name).map(|def| def.default)).unwrap_or_default();
        let words = old.split(',').filter(|w| !w.is_empty());
        match config.config_operation {
            0 => wanted.set.push((name, value)),
            1 => wanted.remove.push(name),
            2 | 3 if !is_list => {
                let text = format!("Config value append is not allowed for config key: {name}");
                return Err(LogError::InvalidConfig(text));
            }
            2 => {
                let mut words: Vec<&str> = words.collect();
                words.extend(value.split(',').filter(|new| !old.split(',').any(|w| w == *new)));
                wanted.set.push((name, words.join(",")));
            }
            3 => {
                let kept = words.filter(|word| !value.split(',').any(|gone| gone == *word));
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
        let text = format!("Null value not supported for : {}", null.join(", "));
        return Err(LogError::InvalidRequest(text));
    }
    Ok(())
}
