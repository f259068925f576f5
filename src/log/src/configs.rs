//! Topic settings: Kafka's names, defaults and types.
//!
//! Settings that the log acts on are parsed into [`TopicSettings`]; the others are accepted when
//! their value has the right type, stored and reported.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::batch::Compression;
use crate::error::LogError;
use crate::limits::{MAX_BATCH_BYTES, MAX_CONFIG_VALUE, MAX_GROUP_NAME, MAX_NUMBER_CHARS};
use crate::types::SettingsOf;

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
    /// The broker setting that gives it another default, as Kafka names it.
    pub broker_name: Option<&'static str>,
    /// What it does here.
    pub doc: &'static str,
}

const I32: i64 = i32::MAX as i64;

const fn def(
    name: &'static str,
    kind: ConfigKind,
    default: &'static str,
    broker_name: &'static str,
    doc: &'static str,
) -> ConfigDef {
    let broker_name = if broker_name.is_empty() { None } else { Some(broker_name) };
    ConfigDef { name, kind, default, broker_name, doc }
}

/// Every setting that topics of Kafka 4.0 know, by name.
pub const TOPIC_CONFIGS: &[ConfigDef] = &[
    def(
        "cleanup.policy",
        ConfigKind::Words(&["compact", "delete"]),
        "delete",
        "log.cleanup.policy",
        "What happens to old records: delete drops whole segments by age or size, compact keeps \
         the newest record of each key, and both may be combined.",
    ),
    def(
        "compression.gzip.level",
        ConfigKind::Int(-1, 9),
        "-1",
        "compression.gzip.level",
        "How hard the broker compresses when compression.type is gzip.",
    ),
    def(
        "compression.lz4.level",
        ConfigKind::Int(1, 17),
        "9",
        "compression.lz4.level",
        "Stored; the broker's LZ4 has one level.",
    ),
    def(
        "compression.type",
        ConfigKind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
        "compression.type",
        "How batches are stored: producer keeps what the producer sent, any other value makes \
         the broker compress anew what came otherwise.",
    ),
    def(
        "compression.zstd.level",
        ConfigKind::Int(-131_072, 22),
        "3",
        "compression.zstd.level",
        "How hard the broker compresses when compression.type is zstd.",
    ),
    def(
        "delete.retention.ms",
        ConfigKind::Long(0),
        "86400000",
        "log.cleaner.delete.retention.ms",
        "How long tombstones and transaction markers stay in a compacted topic after the first \
         compaction that met them.",
    ),
    def(
        "file.delete.delay.ms",
        ConfigKind::Long(0),
        "60000",
        "log.segment.delete.delay.ms",
        "Stored; files go once no checkpoint speaks of them.",
    ),
    def(
        "flush.messages",
        ConfigKind::Long(1),
        "9223372036854775807",
        "log.flush.interval.messages",
        "Stored; every acknowledged record is durable on a majority whatever it says.",
    ),
    def(
        "flush.ms",
        ConfigKind::Long(0),
        "9223372036854775807",
        "log.flush.interval.ms",
        "Stored; every acknowledged record is durable on a majority whatever it says.",
    ),
    def(
        "follower.replication.throttled.replicas",
        ConfigKind::Text,
        "",
        "",
        "Stored; replication is not throttled by topic.",
    ),
    def(
        "index.interval.bytes",
        ConfigKind::Int(0, I32),
        "4096",
        "log.index.interval.bytes",
        "Stored; indices have an entry for each 4 to 64 KiB.",
    ),
    def(
        "leader.replication.throttled.replicas",
        ConfigKind::Text,
        "",
        "",
        "Stored; replication is not throttled by topic.",
    ),
    def(
        "local.retention.bytes",
        ConfigKind::Long(-2),
        "-2",
        "log.local.retention.bytes",
        "Stored; nothing is tiered.",
    ),
    def(
        "local.retention.ms",
        ConfigKind::Long(-2),
        "-2",
        "log.local.retention.ms",
        "Stored; nothing is tiered.",
    ),
    def(
        "max.compaction.lag.ms",
        ConfigKind::Long(1),
        "9223372036854775807",
        "log.cleaner.max.compaction.lag.ms",
        "A record older than this is compacted, however little there is to gain.",
    ),
    def(
        "max.message.bytes",
        ConfigKind::Int(0, i32::MAX as i64),
        "1048588",
        "message.max.bytes",
        "Largest record batch, as it is stored.",
    ),
    def(
        "message.timestamp.after.max.ms",
        ConfigKind::Long(0),
        "3600000",
        "log.message.timestamp.after.max.ms",
        "How far a record's timestamp may lie after the broker's clock.",
    ),
    def(
        "message.timestamp.before.max.ms",
        ConfigKind::Long(0),
        "9223372036854775807",
        "log.message.timestamp.before.max.ms",
        "How far a record's timestamp may lie before the broker's clock.",
    ),
    def(
        "message.timestamp.type",
        ConfigKind::Choice(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "log.message.timestamp.type",
        "Whose time records carry: the producer's, or the broker's at the append.",
    ),
    def(
        "min.cleanable.dirty.ratio",
        ConfigKind::Ratio,
        "0.5",
        "log.cleaner.min.cleanable.ratio",
        "The part of a compacted partition that must be dirty before it is compacted again.",
    ),
    def(
        "min.compaction.lag.ms",
        ConfigKind::Long(0),
        "0",
        "log.cleaner.min.compaction.lag.ms",
        "Records younger than this are not compacted.",
    ),
    def(
        "min.insync.replicas",
        ConfigKind::Int(1, I32),
        "1",
        "min.insync.replicas",
        "Nodes that must keep up for a write with acks=all; two always have it before it is \
         acknowledged.",
    ),
    def(
        "preallocate",
        ConfigKind::Boolean,
        "false",
        "log.preallocate",
        "Stored; segments grow as they are written.",
    ),
    def("remote.log.copy.disable", ConfigKind::Boolean, "false", "", "Stored; nothing is tiered."),
    def(
        "remote.log.delete.on.disable",
        ConfigKind::Boolean,
        "false",
        "",
        "Stored; nothing is tiered.",
    ),
    def(
        "remote.storage.enable",
        ConfigKind::Choice(&["false"]),
        "false",
        "",
        "Only false: nothing is tiered.",
    ),
    def(
        "retention.bytes",
        ConfigKind::Long(-1),
        "-1",
        "log.retention.bytes",
        "Oldest segments of a partition go while the others hold so many bytes; -1 for no limit. \
         Only with the delete policy.",
    ),
    def(
        "retention.ms",
        ConfigKind::Long(-1),
        "604800000",
        "log.retention.ms",
        "Segments go when their newest record is older; -1 for never. Only with the delete policy.",
    ),
    def(
        "segment.bytes",
        ConfigKind::Int(14, I32),
        "1073741824",
        "log.segment.bytes",
        "Largest segment: what retention and compaction work on. At least 4 KiB, whatever it says.",
    ),
    def(
        "segment.index.bytes",
        ConfigKind::Int(4, I32),
        "10485760",
        "log.index.size.max.bytes",
        "Stored; indices are in memory.",
    ),
    def(
        "segment.jitter.ms",
        ConfigKind::Long(0),
        "0",
        "log.roll.jitter.ms",
        "Stored; segments roll exactly when segment.ms is over.",
    ),
    def(
        "segment.ms",
        ConfigKind::Long(1),
        "604800000",
        "log.roll.ms",
        "The first record after this time begins a new segment. At least a second, whatever it \
         says.",
    ),
    def(
        "unclean.leader.election.enable",
        ConfigKind::Boolean,
        "false",
        "unclean.leader.election.enable",
        "Stored; a leader always has every acknowledged record, whatever it says.",
    ),
];

/// Broker settings, in minutes or hours, that stand for one in milliseconds where that is unset.
const COARSE: [(&str, &str, i64); 3] = [
    ("log.retention.ms", "log.retention.minutes", 60_000),
    ("log.retention.ms", "log.retention.hours", 3_600_000),
    ("log.roll.ms", "log.roll.hours", 3_600_000),
];

/// Looks a setting up.
pub fn definition(name: &str) -> Option<&'static ConfigDef> {
    TOPIC_CONFIGS.iter().find(|def| def.name == name)
}

/// The topic setting that a broker setting gives its default.
pub fn by_broker_name(name: &str) -> Option<&'static ConfigDef> {
    TOPIC_CONFIGS.iter().find(|def| def.broker_name == Some(name))
}

/// Broker settings that can be changed for the whole cluster: they are defaults of topics.
pub fn is_cluster_default(name: &str) -> bool {
    by_broker_name(name).is_some() || COARSE.iter().any(|(_, coarse, _)| *coarse == name)
}

/// Broker settings that Kafka lets change while it runs and that steer what trine has not: such
/// threads, such buffers, Kerberos. They can be set, are reported, and change nothing.
const WITHOUT_USE: [(&str, ConfigKind); 16] = [
    ("background.threads", ConfigKind::Int(1, i32::MAX as i64)),
    ("follower.replication.throttled.rate", ConfigKind::Long(0)),
    ("leader.replication.throttled.rate", ConfigKind::Long(0)),
    ("log.cleaner.backoff.ms", ConfigKind::Long(0)),
    ("log.cleaner.dedupe.buffer.size", ConfigKind::Long(1)),
    ("log.cleaner.io.buffer.load.factor", ConfigKind::Ratio),
    ("log.cleaner.io.buffer.size", ConfigKind::Int(0, i32::MAX as i64)),
    ("log.cleaner.threads", ConfigKind::Int(0, i32::MAX as i64)),
    ("num.io.threads", ConfigKind::Int(1, i32::MAX as i64)),
    ("num.network.threads", ConfigKind::Int(1, i32::MAX as i64)),
    ("num.recovery.threads.per.data.dir", ConfigKind::Int(1, i32::MAX as i64)),
    ("num.replica.fetchers", ConfigKind::Int(1, i32::MAX as i64)),
    ("replica.alter.log.dirs.io.max.bytes.per.second", ConfigKind::Long(0)),
    ("sasl.kerberos.min.time.before.relogin", ConfigKind::Long(0)),
    ("sasl.kerberos.ticket.renew.jitter", ConfigKind::Ratio),
    ("sasl.kerberos.ticket.renew.window.factor", ConfigKind::Ratio),
];

/// Setting of a group: how often members of the consumer protocol (KIP-848) send heartbeats.
pub const CONSUMER_INTERVAL_MS: &str = "consumer.heartbeat.interval.ms";

/// Setting of a group: silence that removes a member of the consumer protocol.
pub const CONSUMER_SESSION_MS: &str = "consumer.session.timeout.ms";

/// Settings of a group, with the bounds and the defaults of Kafka; the node's configuration has
/// defaults of its own.
pub const GROUP_CONFIGS: [(&str, ConfigKind, &str); 2] = [
    (CONSUMER_INTERVAL_MS, ConfigKind::Int(5000, 15_000), "5000"),
    (CONSUMER_SESSION_MS, ConfigKind::Int(45_000, 60_000), "45000"),
];

/// Broker settings that can be changed for a single broker, too.
pub fn is_of_one_broker(name: &str) -> bool {
    WITHOUT_USE.iter().any(|(known, _)| *known == name)
}

/// Checks a setting that is no topic's own.
pub fn check_setting(of: &SettingsOf, name: &str, value: &str) -> Result<(), LogError> {
    if let SettingsOf::Group(group) = of {
        if group.len() > MAX_GROUP_NAME {
            return Err(LogError::InvalidRequest("the group's name is too long".to_owned()));
        }
        let known = GROUP_CONFIGS.iter().find(|(known, ..)| *known == name);
        let Some((_, kind, _)) = known else {
            return Err(LogError::InvalidConfig(format!("Unknown group config name: {name}")));
        };
        return check_value(*kind, name, value);
    }
    if let Some((_, kind)) = WITHOUT_USE.iter().find(|(known, _)| *known == name) {
        return check_value(*kind, name, value);
    }
    let coarse = COARSE.iter().any(|(_, coarse, _)| *coarse == name);
    match by_broker_name(name) {
        Some(def) if *of == SettingsOf::Cluster => check_value(def.kind, name, value),
        None if coarse && *of == SettingsOf::Cluster && value.trim().parse::<i32>().is_ok() => {
            Ok(())
        }
        _ => Err(invalid(name, value)),
    }
}

/// The default of a topic setting, given what is set for the whole cluster.
pub fn default_of(def: &ConfigDef, defaults: &BTreeMap<String, String>) -> String {
    let Some(broker_name) = def.broker_name else { return def.default.to_owned() };
    if let Some(value) = defaults.get(broker_name) {
        return value.clone();
    }
    for (fine, coarse, factor) in COARSE {
        let value = defaults.get(coarse).and_then(|value| value.trim().parse::<i64>().ok());
        if let Some(value) = value.filter(|_| fine == broker_name) {
            let ms = if value < 0 { -1 } else { value.saturating_mul(factor) };
            return ms.to_string();
        }
    }
    def.default.to_owned()
}

/// Checks one setting of a topic.
pub fn check(name: &str, value: &str) -> Result<(), LogError> {
    let Some(def) = definition(name) else {
        return Err(LogError::InvalidConfig(format!("Unknown topic config name: {name}")));
    };
    check_value(def.kind, name, value)
}

/// Checks what a topic's settings say together, with defaults where nothing is set.
pub fn check_together(
    configs: &BTreeMap<String, String>,
    defaults: &BTreeMap<String, String>,
) -> Result<(), LogError> {
    let lag = |name: &str| {
        let default = || definition(name).map_or_else(String::new, |def| default_of(def, defaults));
        configs.get(name).cloned().unwrap_or_else(default).trim().parse::<i64>().ok()
    };
    let (least, most) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
    match (lag(least), lag(most)) {
        (Some(min), Some(max)) if min > max => Err(LogError::InvalidConfig(format!(
            "conflict topic config setting {least} ({min}) > {most} ({max})"
        ))),
        _ => Ok(()),
    }
}

fn check_value(kind: ConfigKind, name: &str, value: &str) -> Result<(), LogError> {
    let number = matches!(kind, ConfigKind::Int(..) | ConfigKind::Long(_) | ConfigKind::Ratio);
    let most = if number { MAX_NUMBER_CHARS } else { MAX_CONFIG_VALUE };
    let fits = value.len() <= most;
    let good = match kind {
        _ if !fits => false,
        // As Kafka's ConfigDef reads it, which Python's True is written for.
        ConfigKind::Boolean => {
            ["true", "false"].iter().any(|word| value.trim().eq_ignore_ascii_case(word))
        }
        ConfigKind::Choice(["false"]) => value.trim().eq_ignore_ascii_case("false"),
        ConfigKind::Choice(words) => words.contains(&value),
        // Kafka takes a list of no words.
        ConfigKind::Words(_) if value.trim().is_empty() => true,
        ConfigKind::Words(words) => value.split(',').all(|w| words.contains(&w.trim())),
        ConfigKind::Int(-1, _) if name == "compression.gzip.level" && value.trim() == "0" => false,
        ConfigKind::Int(min, max) => {
            value.trim().parse::<i64>().is_ok_and(|n| (min..=max).contains(&n))
        }
        ConfigKind::Long(min) => value.trim().parse::<i64>().is_ok_and(|n| n >= min),
        ConfigKind::Ratio => value.trim().parse::<f64>().is_ok_and(|r| (0.0..=1.0).contains(&r)),
        ConfigKind::Text => true,
    };
    if good { Ok(()) } else { Err(invalid(name, value)) }
}

fn invalid(name: &str, value: &str) -> LogError {
    // A value that is refused for its length is not sent back whole.
    let shown: String = value.chars().take(MAX_NUMBER_CHARS).collect();
    let more = if shown.len() < value.len() { "..." } else { "" };
    LogError::InvalidConfig(format!("Invalid value {shown}{more} for configuration {name}"))
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
    /// Whether old segments are deleted.
    pub deletes: bool,
    /// How the topic is compacted, if it is.
    pub compaction: Option<CompactionSettings>,
    /// What the data groups need to know.
    pub replica: ReplicaSettings,
    /// How batches are stored that were sent otherwise.
    pub stored_as: StoredAs,
    /// Largest batch.
    pub max_message_bytes: usize,
    /// Who stamps time.
    pub timestamp_type: TimestampType,
    /// Records may not be newer than now plus this.
    pub timestamp_after_max_ms: i64,
    /// Records may not be older than now minus this.
    pub timestamp_before_max_ms: i64,
    /// Nodes that must keep up for a produce.
    pub min_insync_replicas: usize,
}

/// `compression.type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredAs {
    /// As the producer sent it.
    Sent,
    /// Compressed like this, or not at all.
    Compressed {
        /// How.
        compression: Compression,
        /// How hard; `None` for the default.
        level: Option<i32>,
    },
}

fn stored_as(name: &str, level: impl Fn(&str) -> i32) -> StoredAs {
    let (compression, level) = match name {
        "uncompressed" => (Compression::None, None),
        "gzip" => (Compression::Gzip, Some(level("gzip")).filter(|level| *level >= 0)),
        "snappy" => (Compression::Snappy, None),
        "lz4" => (Compression::Lz4, None),
        "zstd" => (Compression::Zstd, Some(level("zstd"))),
        _ => return StoredAs::Sent,
    };
    StoredAs::Compressed { compression, level }
}

/// How a topic is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionSettings {
    /// Records younger than this stay.
    pub min_lag_ms: i64,
    /// Records older than this are compacted, however few they are.
    pub max_lag_ms: i64,
    /// The dirty part of the log above which it is compacted, in millionths.
    pub min_dirty_millionths: u32,
    /// How long tombstones stay.
    pub delete_retention_ms: i64,
}

/// What `segment.bytes` and `segment.ms` are at least, whatever they say: each segment is a file
/// that checkpoints and snapshots name.
const LEAST_SEGMENT_BYTES: u64 = if cfg!(test) { 1 } else { 4096 };
const LEAST_SEGMENT_MS: i64 = if cfg!(test) { 1 } else { 1000 };

/// Settings that apply acts on, and that are therefore replicated to the data groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSettings {
    /// A segment is not appended to beyond this length.
    pub segment_bytes: u64,
    /// A segment is not appended to after this time.
    pub segment_ms: i64,
}

impl TopicSettings {
    /// The settings with defaults where nothing is set: those set for the whole cluster in
    /// `defaults`, by their broker names, and Kafka's. Values that do not parse, which [`check`]
    /// has kept out, count as unset.
    pub fn of(configs: &BTreeMap<String, String>, defaults: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| {
            let default = || definition(name).map_or_else(String::new, |d| default_of(d, defaults));
            configs.get(name).cloned().unwrap_or_else(default)
        };
        let number = |name: &str| {
            let default = definition(name).and_then(|def| def.default.parse().ok()).unwrap_or(0);
            text(name).trim().parse::<i64>().unwrap_or(default)
        };
        let has_policy =
            |policy: &str| text("cleanup.policy").split(',').any(|word| word.trim() == policy);
        let ratio = text("min.cleanable.dirty.ratio").trim().parse::<f64>().unwrap_or(0.5);
        let compaction = has_policy("compact").then(|| CompactionSettings {
            min_lag_ms: number("min.compaction.lag.ms"),
            max_lag_ms: number("max.compaction.lag.ms"),
            min_dirty_millionths: millionths(ratio),
            delete_retention_ms: number("delete.retention.ms"),
        });
        // Kafka: records must not wait in the active segment beyond the lag that is allowed.
        let segment_ms = compaction.map_or(i64::MAX, |c| c.max_lag_ms).min(number("segment.ms"));
        Self {
            deletes: has_policy("delete"),
            compaction,
            retention_ms: number("retention.ms"),
            retention_bytes: number("retention.bytes"),
            replica: ReplicaSettings {
                segment_bytes: u64::try_from(number("segment.bytes"))
                    .unwrap_or(1 << 30)
                    .max(LEAST_SEGMENT_BYTES),
                segment_ms: segment_ms.max(LEAST_SEGMENT_MS),
            },
            stored_as: stored_as(&text("compression.type"), |codec| {
                let level = number(&format!("compression.{codec}.level"));
                i32::try_from(level).unwrap_or(-1)
            }),
            // A batch and its envelope must fit a command, whatever the setting says.
            max_message_bytes: usize::try_from(number("max.message.bytes"))
                .unwrap_or(0)
                .min(MAX_BATCH_BYTES),
            timestamp_type: match text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            min_insync_replicas: usize::try_from(number("min.insync.replicas")).unwrap_or(1),
        }
    }
}

/// A ratio between 0 and 1 in millionths.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn millionths(ratio: f64) -> u32 {
    (ratio.clamp(0.0, 1.0) * 1e6).round() as u32
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
    fn defaults_of_the_cluster_stand_behind_those_of_the_topic() {
        let map = |rows: &[(&str, &str)]| -> BTreeMap<String, String> {
            rows.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let retention = |topic: &[(&str, &str)], cluster: &[(&str, &str)]| {
            TopicSettings::of(&map(topic), &map(cluster)).retention_ms
        };
        assert_eq!(retention(&[], &[]), 604_800_000);
        assert_eq!(retention(&[], &[("log.retention.hours", "1")]), 3_600_000);
        let both = [("log.retention.hours", "1"), ("log.retention.minutes", "5")];
        assert_eq!(retention(&[], &both), 300_000);
        let all = [both[0], both[1], ("log.retention.ms", "7")];
        assert_eq!(retention(&[], &all), 7);
        assert_eq!(retention(&[("retention.ms", "9")], &all), 9);
        assert_eq!(retention(&[], &[("log.retention.hours", "-1")]), -1);
    }

    #[test]
    fn settings_are_checked_together() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            pairs.collect::<BTreeMap<String, String>>()
        };
        let (min, max) = (("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "9"));
        assert_eq!(check_together(&of(&[min]), &of(&[])), Ok(()));
        let text = "conflict topic config setting min.compaction.lag.ms (10) > \
                    max.compaction.lag.ms (9)";
        let refused = Err(LogError::InvalidConfig(text.into()));
        assert_eq!(check_together(&of(&[min, max]), &of(&[])), refused);
        let default = of(&[("log.cleaner.max.compaction.lag.ms", "9")]);
        assert_eq!(check_together(&of(&[min]), &default), refused);
    }

    #[test]
    fn what_kafka_takes_is_taken() {
        for (name, value) in [
            ("unclean.leader.election.enable", "true"),
            ("unclean.leader.election.enable", " False"),
            ("remote.storage.enable", "FALSE"),
            ("cleanup.policy", ""),
            ("compression.gzip.level", "-1"),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name}={value}");
        }
    }

    #[test]
    fn unknown_names_and_wrong_values_are_refused() {
        for (name, value) in [
            ("retention.mss", "1"),
            ("retention.ms", "soon"),
            ("cleanup.policy", "squash"),
            ("max.message.bytes", "99999999999"),
            ("message.timestamp.type", "Never"),
            ("compression.gzip.level", "0"),
            ("remote.storage.enable", "true"),
        ] {
            assert!(matches!(check(name, value), Err(LogError::InvalidConfig(_))), "{name}");
        }
    }
}
