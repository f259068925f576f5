//! What the Kafka port counts, and its metrics as text.
//!
//! Names follow those that dashboards for Kafka know: the JMX exporter's for requests and traffic
//! (`kafka_server_…`, `kafka_network_…`), kafka_exporter's for offsets, groups and lag
//! (`kafka_topic_…`, `kafka_consumergroup_…`). A node tells of the partitions that it leads and of
//! the groups that it coordinates, so that a sum over all nodes counts nothing twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::metrics::{Capped, Histogram, Kind, OTHER, Text};
use log::LogService;
use log::groups::GroupService;
use parking_lot::Mutex;

use crate::codec::{ApiKey, ResponseBody, TABLE};
use crate::errors;
use crate::limits::{MAX_METRIC_GROUPS, MAX_METRIC_PARTITIONS, MAX_METRIC_TOPICS};
use crate::sessions::Sessions;

/// One API's requests.
#[derive(Debug, Default)]
struct Requests {
    answered: Histogram,
}

/// One topic's traffic through this node.
#[derive(Debug, Default)]
struct Topic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    messages_in: AtomicU64,
    produces: AtomicU64,
    fetches: AtomicU64,
    failed_produces: AtomicU64,
    failed_fetches: AtomicU64,
    produce_time: Histogram,
    fetch_time: Histogram,
}

/// Counters of the Kafka port of one node, since it started.
#[derive(Debug)]
pub struct KafkaMetrics {
    /// By key of the API.
    requests: Vec<Requests>,
    /// By key of the API and error code.
    errors: Mutex<BTreeMap<(i16, i16), u64>>,
    /// Time that fetches spent at work, without their waiting for records.
    fetch_work: Histogram,
    topics: Capped<Topic>,
    connections: AtomicU64,
    connections_closed: AtomicU64,
    connections_refused: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    source: OnceLock<Source>,
}

/// Where gauges are read.
struct Source {
    log: Arc<LogService>,
    groups: Arc<GroupService>,
    sessions: Arc<Sessions>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

impl Default for KafkaMetrics {
    fn default() -> Self {
        let keys = TABLE.iter().map(|api| index(api.key)).max().unwrap_or(0);
        Self {
            requests: (0..=keys).map(|_| Requests::default()).collect(),
            errors: Mutex::default(),
            fetch_work: Histogram::default(),
            topics: Capped::new(MAX_METRIC_TOPICS),
            connections: AtomicU64::new(0),
            connections_closed: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            source: OnceLock::new(),
        }
    }
}

fn index(key: ApiKey) -> usize {
    usize::try_from(key.number()).unwrap_or_default()
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What one request did at a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// A batch was appended, so long after it was there.
    Produced {
        bytes: usize,
        messages: usize,
        took: Duration,
    },
    ProduceFailed,
    /// A partition was looked at for a fetch that worked so long, its waiting not counted.
    Fetched {
        bytes: usize,
        took: Duration,
    },
    FetchFailed,
}

impl KafkaMetrics {
    pub(crate) fn read_from(
        &self,
        log: Arc<LogService>,
        groups: Arc<GroupService>,
        sessions: Arc<Sessions>,
    ) {
        // A second port in one process counts into the same metrics, and keeps the first's gauges.
        drop(self.source.set(Source { log, groups, sessions }));
    }

    /// A request was answered after so long.
    pub(crate) fn answered(&self, key: ApiKey, took: Duration, body: Option<&ResponseBody>) {
        if let Some(requests) = self.requests.get(index(key)) {
            requests.answered.add(took);
        }
        let Some(body) = body else { return };
        body.errors(&mut |code| {
            if code != errors::NONE {
                *self.errors.lock().entry((key.number(), code)).or_default() += 1;
            }
        });
    }

    /// A fetch worked so long, its waiting not counted.
    pub(crate) fn fetch_worked(&self, took: Duration) {
        self.fetch_work.add(took);
    }

    /// Counts traffic of a topic that exists.
    pub(crate) fn traffic(&self, topic: &str, traffic: Traffic) {
        let topic = self.topics.get(topic);
        match traffic {
            Traffic::Produced { bytes, messages, took } => {
                topic.produce_time.add(took);
                add(&topic.produces, 1);
                add(&topic.bytes_in, bytes);
                add(&topic.messages_in, messages);
            }
            Traffic::ProduceFailed => {
                add(&topic.produces, 1);
                add(&topic.failed_produces, 1);
            }
            Traffic::Fetched { bytes, took } => {
                if bytes > 0 {
                    topic.fetch_time.add(took);
                }
                add(&topic.fetches, 1);
                add(&topic.bytes_out, bytes);
            }
            Traffic::FetchFailed => {
                add(&topic.fetches, 1);
                add(&topic.failed_fetches, 1);
            }
        }
    }

    pub(crate) fn connected(&self) {
        add(&self.connections, 1);
    }

    pub(crate) fn disconnected(&self) {
        add(&self.connections_closed, 1);
    }

    pub(crate) fn refused(&self) {
        add(&self.connections_refused, 1);
    }

    pub(crate) fn received(&self, bytes: usize) {
        add(&self.bytes_in, bytes);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        add(&self.bytes_out, bytes);
    }

    /// All metrics of the port.
    pub fn render(&self, text: &mut Text) {
        self.render_requests(text);
        self.render_connections(text);
        self.render_topics(text);
        if let Some(source) = self.source.get() {
            render_sessions(text, &source.sessions);
            render_partitions(text, &source.log);
            render_groups(text, source);
        }
    }

    fn render_requests(&self, text: &mut Text) {
        let seen: Vec<(String, &Histogram)> = TABLE
            .iter()
            .filter_map(|api| {
                let requests = self.requests.get(index(api.key))?;
                let name = format!("{:?}", api.key);
                (requests.answered.count() > 0).then_some((name, &requests.answered))
            })
            .collect();
        let name = "kafka_network_requestmetrics_requests_total";
        text.family(name, Kind::Counter, "Requests answered, by API.");
        for (api, answered) in &seen {
            text.sample(name, &[("request", api)], answered.count());
        }
        let name = "kafka_network_requestmetrics_errors_total";
        let help = "Errors in answers, by API and error; one for each partition or item refused.";
        text.family(name, Kind::Counter, help);
        for ((api, code), count) in &*self.errors.lock() {
            let api = TABLE.iter().find(|row| row.key.number() == *api);
            let api = api.map(|row| format!("{:?}", row.key)).unwrap_or_default();
            text.sample(name, &[("request", &api), ("error", errors::name(*code))], count);
        }
        let name = "kafka_network_requestmetrics_totaltime_seconds";
        let help = "Time from a whole request to its answer, waiting included.";
        text.family(name, Kind::Histogram, help);
        for (api, answered) in &seen {
            text.histogram(name, &[("request", api)], answered);
        }
        let name = "kafka_network_requestmetrics_localtime_seconds";
        let help = "Time that Fetch requests took without their waiting for records.";
        text.family(name, Kind::Histogram, help);
        text.histogram(name, &[("request", "Fetch")], &self.fetch_work);
    }

    fn render_connections(&self, text: &mut Text) {
        let (made, closed) = (get(&self.connections), get(&self.connections_closed));
        let prefix = "kafka_server_socketservermetrics";
        let open = made.saturating_sub(closed);
        let help = "Connections of Kafka clients that are open.";
        text.single(&format!("{prefix}_connection_count"), Kind::Gauge, help, open);
        let counters = [
            ("connection_creation_total", "Connections of Kafka clients accepted.", made),
            ("connection_close_total", "Connections of Kafka clients closed.", closed),
            (
                "connection_refused_total",
                "Connections closed at once as there were too many.",
                get(&self.connections_refused),
            ),
            ("incoming_byte_total", "Bytes of requests.", get(&self.bytes_in)),
            ("outgoing_byte_total", "Bytes of answers.", get(&self.bytes_out)),
        ];
        for (name, help, value) in counters {
            text.single(&format!("{prefix}_{name}"), Kind::Counter, help, value);
        }
    }

    fn render_topics(&self, text: &mut Text) {
        if let Some(source) = self.source.get() {
            self.topics.retain(|name| source.log.topic(name).is_some());
        }
        let topics = self.topics.all();
        type Field = fn(&Topic) -> &AtomicU64;
        let families: [(&str, &str, Field); 7] = [
            ("bytesin", "Bytes of batches appended, as the client sent them.", |t| &t.bytes_in),
            ("bytesout", "Bytes of batches fetched.", |t| &t.bytes_out),
            ("messagesin", "Records appended.", |t| &t.messages_in),
            ("totalproducerequests", "Batches that clients asked to append.", |t| &t.produces),
            ("totalfetchrequests", "Looks at a partition answered to fetches.", |t| &t.fetches),
            ("failedproducerequests", "Batches refused.", |t| &t.failed_produces),
            ("failedfetchrequests", "Looks at a partition refused.", |t| &t.failed_fetches),
        ];
        for (name, help, field) in families {
            let name = format!("kafka_server_brokertopicmetrics_{name}_total");
            text.family(&name, Kind::Counter, help);
            for (topic, stats) in &topics {
                text.sample(&name, &[("topic", topic)], get(field(stats)));
            }
        }
        type Time = fn(&Topic) -> &Histogram;
        let families: [(&str, &str, Time); 2] = [
            ("producetime", "Time from a batch to its acknowledgement.", |t| &t.produce_time),
            (
                "fetchtime",
                "Time that fetches with records of the topic took without their waiting.",
                |t| &t.fetch_time,
            ),
        ];
        for (name, help, time) in families {
            let name = format!("kafka_server_brokertopicmetrics_{name}_seconds");
            text.family(&name, Kind::Histogram, help);
            for (topic, stats) in topics.iter().filter(|(_, stats)| time(stats).count() > 0) {
                text.histogram(&name, &[("topic", topic)], time(stats));
            }
        }
    }
}

fn render_sessions(text: &mut Text, sessions: &Sessions) {
    let stats = sessions.stats();
    let prefix = "kafka_server_fetchsessioncache";
    let help = "Incremental fetch sessions.";
    let name = format!("{prefix}_numincrementalfetchsessions");
    text.single(&name, Kind::Gauge, help, stats.sessions);
    let help = "Partitions of all incremental fetch sessions.";
    let name = format!("{prefix}_numincrementalfetchpartitionscached");
    text.single(&name, Kind::Gauge, help, stats.partitions);
    let help = "Incremental fetch sessions that gave way to others.";
    let name = format!("{prefix}_incrementalfetchsessionevictions_total");
    text.single(&name, Kind::Counter, help, stats.evictions);
}

/// Offsets and size of a partition led here.
#[derive(Clone, Copy, Default)]
struct Offsets {
    start: i64,
    end: i64,
    bytes: u64,
}

fn render_partitions(text: &mut Text, log: &LogService) {
    let mut led: BTreeMap<(String, String), Offsets> = BTreeMap::new();
    let topics = log.topics();
    let by_id: BTreeMap<_, _> = topics.iter().map(|topic| (topic.id, topic)).collect();
    for replica in log.replicas() {
        let Some(topic) = by_id.get(&replica.key.topic) else { continue };
        let partition = i32::try_from(replica.key.partition).unwrap_or(i32::MAX);
        let leads = log.partition_leadership(topic, partition).is_some_and(|l| l.ready_here);
        if !leads {
            continue;
        }
        let key = match led.len() < MAX_METRIC_PARTITIONS {
            true => (topic.name.clone(), partition.to_string()),
            false => (OTHER.to_owned(), OTHER.to_owned()),
        };
        let sum = led.entry(key).or_default();
        sum.start += replica.log_start_offset;
        sum.end += replica.end_offset;
        sum.bytes += replica.bytes;
    }
    let name = "kafka_topic_partitions";
    text.family(name, Kind::Gauge, "Partitions of a topic.");
    let (named, rest) = topics.split_at(topics.len().min(MAX_METRIC_TOPICS));
    for topic in named {
        text.sample(name, &[("topic", &topic.name)], topic.partitions.len());
    }
    if !rest.is_empty() {
        let sum: usize = rest.iter().map(|topic| topic.partitions.len()).sum();
        text.sample(name, &[("topic", OTHER)], sum);
    }
    type Field = fn(&Offsets) -> i128;
    let families: [(&str, &str, Field); 3] = [
        (
            "kafka_topic_partition_current_offset",
            "Offset after the last record, of partitions led here.",
            |p| p.end.into(),
        ),
        (
            "kafka_topic_partition_oldest_offset",
            "First offset that can be read, of partitions led here.",
            |p| p.start.into(),
        ),
        (
            "kafka_log_log_size_bytes",
            "Bytes of a partition's segments, of partitions led here.",
            |p| p.bytes.into(),
        ),
    ];
    for (name, help, field) in families {
        text.family(name, Kind::Gauge, help);
        for ((topic, partition), offsets) in &led {
            text.sample(name, &[("topic", topic), ("partition", partition)], field(offsets));
        }
    }
}

/// A group's name, a topic and a partition.
type GroupPart = (String, String, String);

/// Committed offset and lag by group and partition, those beyond the limits summed up.
fn committed(log: &LogService) -> BTreeMap<GroupPart, (i64, i64)> {
    let mut found: BTreeMap<GroupPart, (i64, i64)> = BTreeMap::new();
    let read = log.committed_here(|group, topic, partition, offset| {
        let key = match found.len() < MAX_METRIC_PARTITIONS {
            true => (group.to_owned(), topic.name.clone(), partition.to_string()),
            false => (OTHER.to_owned(), OTHER.to_owned(), OTHER.to_owned()),
        };
        let end = log.end_here(topic, partition).unwrap_or(offset);
        let sum = found.entry(key).or_default();
        sum.0 += offset;
        sum.1 += end.saturating_sub(offset).max(0);
    });
    if let Err(error) = read {
        tracing::debug!(%error, "committed offsets are missing in the metrics");
    }
    found
}

fn render_groups(text: &mut Text, source: &Source) {
    let committed = committed(&source.log);
    let mut lag_sum: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    let name = "kafka_consumergroup_current_offset";
    let help = "Offset that a group has committed, of groups coordinated here.";
    text.family(name, Kind::Gauge, help);
    for ((group, topic, partition), (offset, _)) in &committed {
        let labels = [("consumergroup", &**group), ("topic", topic), ("partition", partition)];
        text.sample(name, &labels, offset);
    }
    let name = "kafka_consumergroup_lag";
    text.family(name, Kind::Gauge, "Records after the offset that a group has committed.");
    for ((group, topic, partition), (_, lag)) in &committed {
        let labels = [("consumergroup", &**group), ("topic", topic), ("partition", partition)];
        text.sample(name, &labels, lag);
        *lag_sum.entry((group, topic)).or_default() += lag;
    }
    let name = "kafka_consumergroup_lag_sum";
    text.family(name, Kind::Gauge, "Lag of a group over the partitions of a topic.");
    for ((group, topic), lag) in lag_sum {
        text.sample(name, &[("consumergroup", group), ("topic", topic)], lag);
    }
    let mut groups = source.groups.stats();
    if groups.len() > MAX_METRIC_GROUPS {
        let rest = groups.split_off(MAX_METRIC_GROUPS);
        let members = rest.iter().map(|group| group.members).sum();
        let generation = rest.iter().map(|group| group.generation).sum();
        groups.push(log::groups::GroupStats { id: OTHER.to_owned(), members, generation });
    }
    let name = "kafka_consumergroup_members";
    text.family(name, Kind::Gauge, "Members of a group.");
    for group in &groups {
        text.sample(name, &[("consumergroup", &group.id)], group.members);
    }
    let name = "kafka_consumergroup_rebalances_total";
    let help = "Generations of a group: rebalances completed since it was made.";
    text.family(name, Kind::Counter, help);
    for group in &groups {
        text.sample(name, &[("consumergroup", &group.id)], group.generation);
    }
}
