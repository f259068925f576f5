//! Topic settings: Kafka's names, defaults and types.
//!
//! Settings that the log acts on are parsed into [`TopicSettings`]; the others are accepted when
//! their value has the right type, stored and reported.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::LogError;
use crate::limits::MAX_BATCH_BYTES;

/// Type of a setting, as DescribeConfigs names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigKind {
    /// `true` or `false`.
    Boolean,
    /// Text, one of a few words where given.
    Choice(&'static [&'static str]),
    /// Words of a list, comma separated.
    Words(&'static [&'static str]),
    /// 32-bit number within bounds.
    Int(i64, i64),
    /// 64-bit number, at least.
    Long(i64),
    /// Number between 0 and 1.
    Ratio,
    /// Anything.
    Text,
}

/// A setting of topics.
#[derive(Clone, Copy, Debug)]
pub struct ConfigDef {
    /// Name.
    pub name: &'static str,
    /// Type and bounds.
    pub kind: ConfigKind,
    /// Default.
    pub default: &'static str,
}

const I32: i64 = i32::MAX as i64;
const BATCH: i64 = MAX_BATCH_BYTES as i64;

const fn def(name: &'static str, kind: ConfigKind, default: &'static str) -> ConfigDef {
    ConfigDef { name, kind, default }
}

/// Every setting that topics know, by name.
pub const TOPIC_CONFIGS: &[ConfigDef] = &[
    def("cleanup.policy", ConfigKind::Words(&["delete"]), "delete"),
    def(
        "compression.type",
        ConfigKind::Choice(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        "producer",
    ),
    def("compression.gzip.level", ConfigKind::Int(-1, 9), "-1"),
    def("compression.lz4.level", ConfigKind::Int(1, 17), "9"),
    def("compression.zstd.level", ConfigKind::Int(-131_072, 22), "3"),
    def("delete.retention.ms", ConfigKind::Long(0), "86400000"),
    def("file.delete.delay.ms", ConfigKind::Long(0), "60000"),
    def("flush.messages", ConfigKind::Long(1), "9223372036854775807"),
    def("flush.ms", ConfigKind::Long(0), "9223372036854775807"),
    def("follower.replication.throttled.replicas", ConfigKind::Text, ""),
    def("index.interval.bytes", ConfigKind::Int(0, I32), "4096"),
    def("leader.replication.throttled.replicas", ConfigKind::Text, ""),
    def("local.retention.bytes", ConfigKind::Long(-2), "-2"),
    def("local.retention.ms", ConfigKind::Long(-2), "-2"),
    def("max.compaction.lag.ms", ConfigKind::Long(1), "9223372036854775807"),
    def("max.message.bytes", ConfigKind::Int(0, BATCH), "1048588"),
    def(
        "message.timestamp.type",
        ConfigKind::Choice(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
    ),
    def("message.timestamp.after.max.ms", ConfigKind::Long(0), "3600000"),
    def("message.timestamp.before.max.ms", ConfigKind::Long(0), "9223372036854775807"),
    def("min.cleanable.dirty.ratio", ConfigKind::Ratio, "0.5"),
    def("min.compaction.lag.ms", ConfigKind::Long(0), "0"),
    def("min.insync.replicas", ConfigKind::Int(1, 3), "1"),
    def("preallocate", ConfigKind::Boolean, "false"),
    def("remote.storage.enable", ConfigKind::Choice(&["false"]), "false"),
    def("retention.bytes", ConfigKind::Long(-1), "-1"),
    def("retention.ms", ConfigKind::Long(-1), "604800000"),
    def("segment.bytes", ConfigKind::Int(14, I32), "1073741824"),
    def("segment.index.bytes", ConfigKind::Int(4, I32), "10485760"),
    def("segment.jitter.ms", ConfigKind::Long(0), "0"),
    def("segment.ms", ConfigKind::Long(1), "604800000"),
    def("unclean.leader.election.enable", ConfigKind::Choice(&["false"]), "false"),
];

/// Looks a setting up.
pub fn definition(name: &str) -> Option<&'static ConfigDef> {
    TOPIC_CONFIGS.iter().find(|def| def.name == name)
}

/// Checks one setting.
pub fn check(name: &str, value: &str) -> Result<(), LogError> {
    let Some(def) = definition(name) else {
        return Err(LogError::InvalidConfig(format!("Unknown topic config name: {name}")));
    };
    let good = match def.kind {
        ConfigKind::Boolean => value == "true" || value == "false",
        ConfigKind::Choice(words) => words.contains(&value),
        ConfigKind::Words(words) => value.split(',').all(|w| words.contains(&w.trim())),
        ConfigKind::Int(min, max) => {
            value.trim().parse::<i64>().is_ok_and(|n| (min..=max).contains(&n))
        }
        ConfigKind::Long(min) => value.trim().parse::<i64>().is_ok_and(|n| n >= min),
        ConfigKind::Ratio => value.trim().parse::<f64>().is_ok_and(|r| (0.0..=1.0).contains(&r)),
        ConfigKind::Text => true,
    };
    if good {
        return Ok(());
    }
    let text = format!("Invalid value {value} for configuration {name}");
    Err(LogError::InvalidConfig(text))
}

/// What stamps a record's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer.
    CreateTime,
    /// The leader, when it takes the batch.
    LogAppendTime,
}

/// Settings that the log acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Segments whose records are all older are deleted; −1: never.
    pub retention_ms: i64,
    /// Oldest segments are deleted while a partition is larger; −1: never.
    pub retention_bytes: i64,
    /// What the data groups need to know.
    pub replica: ReplicaSettings,
    /// Largest batch.
    pub max_message_bytes: usize,
    /// Who stamps time.
    pub timestamp_type: TimestampType,
    /// Records may not be newer than now plus this.
    pub timestamp_after_max_ms: i64,
    /// Records may not be older than now minus this.
    pub timestamp_before_max_ms: i64,
    /// Nodes that must be alive for a produce.
    pub min_insync_replicas: usize,
}

/// Settings that apply acts on, and that are therefore replicated to the data groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSettings {
    /// A segment is not appended to beyond this length.
    pub segment_bytes: u64,
    /// A segment is not appended to after this time.
    pub segment_ms: i64,
}

impl TopicSettings {
    /// The settings with defaults where nothing is set. Values that do not parse, which
    /// [`check`] has kept out, count as unset.
    pub fn of(configs: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| {
            let default = definition(name).map_or("", |def| def.default);
            configs.get(name).map_or(default, String::as_str)
        };
        let number = |name: &str| {
            let default = definition(name).and_then(|def| def.default.parse().ok()).unwrap_or(0);
            text(name).trim().parse::<i64>().unwrap_or(default)
        };
        Self {
            retention_ms: number("retention.ms"),
            retention_bytes: number("retention.bytes"),
            replica: ReplicaSettings {
                segment_bytes: u64::try_from(number("segment.bytes")).unwrap_or(1 << 30),
                segment_ms: number("segment.ms"),
            },
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or(0),
            timestamp_type: match text("message.timestamp.type") {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            min_insync_replicas: usize::try_from(number("min.insync.replicas")).unwrap_or(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_legal_value() {
        for def in TOPIC_CONFIGS {
            assert_eq!(check(def.name, def.default), Ok(()), "{}", def.name);
        }
    }

    #[test]
    fn unknown_names_and_wrong_values_are_refused() {
        for (name, value) in [
            ("retention.mss", "1"),
            ("retention.ms", "soon"),
            ("cleanup.policy", "compact"),
            ("max.message.bytes", "99999999999"),
            ("message.timestamp.type", "Never"),
        ] {
            assert!(matches!(check(name, value), Err(LogError::InvalidConfig(_))), "{name}");
        }
    }
}
