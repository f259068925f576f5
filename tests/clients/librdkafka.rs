//! librdkafka, through the `rdkafka` crate, against three real node processes.
//!
//! What is said here: records with keys, headers and time stamps through every compression,
//! idempotence while a leader dies, consumer groups, offsets and administration.

#![allow(clippy::disallowed_methods, reason = "a client on real time, outside every node")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, Message, Offset, Timestamp, TopicPartitionList};

const DEADLINE: Duration = Duration::from_secs(60);

/// Three nodes; they end with the last test that uses them.
struct Cluster {
    local: Child,
    kafka: String,
    dir: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut local = Command::new(env!("CARGO_BIN_EXE_trine"))
            .args(["-o", "json", "local", "--port-base", "free", "--set", "disk.reserve_bytes=0"])
            .arg("--dir")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(local.stdout.take().unwrap()).lines();
        let mut line = || -> serde_json::Value {
            serde_json::from_str(&lines.next().expect("trine local speaks").unwrap()).unwrap()
        };
        let ports = line();
        let address = |node: &str| ports[node]["kafka"].as_str().unwrap().to_owned();
        let kafka = ["1", "2", "3"].map(address).join(",");
        let ready = line();
        assert_eq!(ready["ready"], true);
        Self { local, kafka, dir }
    }

    /// The cluster of the tests that run now.
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let cluster = Arc::new(Self::start());
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.kafka).set("reconnect.backoff.max.ms", "500");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    fn producer(&self, more: &[(&str, &str)]) -> FutureProducer {
        let mut config = self.config();
        more.iter().for_each(|(key, value)| {
            config.set(*key, *value);
        });
        config.create().unwrap()
    }

    fn consumer<C: rdkafka::config::FromClientConfig>(&self, group: &str) -> C {
        let mut config = self.config();
        config
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "500");
        config.create().unwrap()
    }

    /// SIGKILL to a node.
    fn kill(&self, node: i32) {
        let pid = std::fs::read_to_string(self.dir.path().join(format!("node{node}/pid"))).unwrap();
        assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
    }

    async fn create(&self, topic: &str, partitions: i32) {
        // Records of these tests say that they are of long ago: retention would take them.
        let new =
            NewTopic::new(topic, partitions, TopicReplication::Fixed(3)).set("retention.ms", "-1");
        let made = self.admin().create_topics([&new], &AdminOptions::new()).await.unwrap();
        assert_eq!(made, [Ok(topic.to_owned())]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The nodes end with their parent. It cannot be asked kindly from here without a signal.
        self.local.kill().ok();
        self.local.wait().ok();
    }
}

fn fresh(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

/// The next `count` records, each through `what`.
async fn read<T>(
    consumer: &StreamConsumer,
    count: usize,
    what: impl Fn(&rdkafka::message::BorrowedMessage<'_>) -> T,
) -> Vec<T> {
    let mut found = Vec::new();
    let all = async {
        while found.len() < count {
            match consumer.recv().await {
                Ok(message) => found.push(what(&message)),
                // librdkafka tells of passing troubles and goes on by itself.
                Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure,
                )) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, all).await.expect("records in time");
    found
}

/// Low and high watermark of partition 0. librdkafka leaves it to its caller to ask again when the
/// leader moved between the metadata that it has and the request.
async fn watermarks<C: ConsumerContext>(consumer: &impl Consumer<C>, topic: &str) -> (i64, i64) {
    let end = Instant::now() + DEADLINE;
    loop {
        match consumer.fetch_watermarks(topic, 0, DEADLINE) {
            Ok(found) => return found,
            Err(KafkaError::MetadataFetch(RDKafkaErrorCode::NotLeaderForPartition))
                if Instant::now() < end => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn records_keep_key_headers_and_time_through_every_compression() {
    let cluster = Cluster::shared();
    let topic = fresh("codecs");
    cluster.create(&topic, 3).await;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let mut expected = BTreeSet::new();
    for codec in codecs {
        let producer = cluster.producer(&[("compression.type", codec), ("linger.ms", "5")]);
        let sends = (0..50).map(|n| {
            let (key, value) = (format!("{codec}-{n}"), format!("{n}").repeat(100));
            expected.insert((key.clone(), value.clone(), 1_000_000_000_000 + n));
            let producer = producer.clone();
            let topic = topic.clone();
            tokio::spawn(async move {
                let header = Header { key: "codec", value: Some(codec) };
                let empty = Header { key: "none", value: None::<&str> };
                let record = FutureRecord::to(&topic)
                    .key(&key)
                    .payload(&value)
                    .timestamp(1_000_000_000_000 + n)
                    .headers(OwnedHeaders::new().insert(header).insert(empty));
                producer.send(record, DEADLINE).await.map_err(|(error, _)| error).unwrap();
            })
        });
        futures::future::join_all(sends.collect::<Vec<_>>()).await;
    }
    let consumer: StreamConsumer = cluster.consumer(&topic);
    consumer.subscribe(&[&topic]).unwrap();
    let found = read(&consumer, expected.len(), |message| {
        let headers = message.headers().unwrap();
        let codec = String::from_utf8(headers.get(0).value.unwrap().to_vec()).unwrap();
        assert!(headers.get(1).key == "none" && headers.get(1).value.is_none());
        let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
        assert!(key.starts_with(&codec));
        let value = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
        let Timestamp::CreateTime(time) = message.timestamp() else { panic!("no create time") };
        (key, value, time)
    });
    assert_eq!(found.await.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[tokio::test]
async fn empty_and_absent_keys_and_values_stay_what_they_are() {
    let cluster = Cluster::shared();
    let topic = fresh("empty");
    cluster.create(&topic, 1).await;
    let producer = cluster.producer(&[]);
    let all = [None, Some(""), Some("x")];
    for key in all {
        for value in all {
            let mut record = FutureRecord::<str, str>::to(&topic);
            record.key = key;
            record.payload = value;
            producer.send(record, DEADLINE).await.unwrap();
        }
    }
    let consumer: StreamConsumer = cluster.consumer(&topic);
    consumer.subscribe(&[&topic]).unwrap();
    let found =
        read(&consumer, 9, |m| (m.key().map(<[u8]>::to_vec), m.payload().map(<[u8]>::to_vec)));
    let bytes = |text: Option<&str>| text.map(|t| t.as_bytes().to_vec());
    let expected: Vec<_> =
        all.iter().flat_map(|k| all.iter().map(|v| (bytes(*k), bytes(*v)))).collect();
    assert_eq!(found.await, expected);
}

#[tokio::test]
async fn an_idempotent_producer_keeps_order_and_writes_once_while_its_leader_dies() {
    let cluster = Cluster::start();
    let topic = fresh("idempotent");
    cluster.create(&topic, 1).await;
    let producer = cluster.producer(&[
        ("enable.idempotence", "true"),
        ("max.in.flight.requests.per.connection", "5"),
        ("batch.num.messages", "7"),
    ]);
    let queued: Vec<_> = (0..1000_i64)
        .map(|n| {
            let value = n.to_string();
            let record = FutureRecord::<str, str>::to(&topic).payload(&value);
            producer.send_result(record).map_err(|(error, _)| error).unwrap()
        })
        .collect();
    let metadata = producer.client().fetch_metadata(Some(&topic), DEADLINE).unwrap();
    let leader = metadata.topics()[0].partitions()[0].leader();
    for (n, sent) in (0..).zip(queued) {
        let delivery = sent.await.unwrap().map_err(|(error, _)| error).unwrap();
        // What was acknowledged by the acknowledgement of what follows has no offset here.
        assert!([n, -1001].contains(&delivery.offset), "record {n} at {}", delivery.offset);
        if n == 100 {
            cluster.kill(leader);
        }
    }
    let consumer: StreamConsumer = cluster.consumer(&topic);
    consumer.subscribe(&[&topic]).unwrap();
    let text = |m: &rdkafka::message::BorrowedMessage<'_>| {
        String::from_utf8(m.payload().unwrap().to_vec()).unwrap()
    };
    let expected: Vec<_> = (0..1000).map(|n: i64| n.to_string()).collect();
    assert_eq!(read(&consumer, 1000, text).await, expected);
    assert_eq!(watermarks(&consumer, &topic).await, (0, 1000));
}

#[tokio::test]
async fn a_group_shares_partitions_and_goes_on_where_it_committed() {
    let cluster = Cluster::shared();
    let topic = fresh("group");
    cluster.create(&topic, 4).await;
    let producer = cluster.producer(&[]);
    let send = async |partition: i32, value: &str| {
        let record = FutureRecord::<str, str>::to(&topic).partition(partition).payload(value);
        producer.send(record, DEADLINE).await.unwrap();
    };
    let one: StreamConsumer = cluster.consumer(&topic);
    let two: StreamConsumer = cluster.consumer(&topic);
    one.subscribe(&[&topic]).unwrap();
    two.subscribe(&[&topic]).unwrap();
    let end = Instant::now() + DEADLINE;
    let owned = |c: &StreamConsumer| c.assignment().unwrap().count();
    while (owned(&one), owned(&two)) != (2, 2) {
        assert!(Instant::now() < end, "no shares of two");
        // Nothing was sent, so only rebalances happen here.
        let pause = Duration::from_millis(50);
        tokio::select! {
            _ = one.recv() => {}
            _ = two.recv() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    for partition in 0..4 {
        send(partition, "first").await;
    }
    for member in [&one, &two] {
        read(member, 2, |m| m.partition()).await;
        member.commit_consumer_state(CommitMode::Sync).unwrap();
    }
    drop((one, two));
    send(3, "second").await;
    let three: StreamConsumer = cluster.consumer(&topic);
    three.subscribe(&[&topic]).unwrap();
    let next = read(&three, 1, |m| m.payload().map(<[u8]>::to_vec)).await;
    assert_eq!(next, [Some(b"second".to_vec())]);
    let asked: BTreeMap<_, _> = (0..4).map(|p| ((topic.clone(), p), Offset::Invalid)).collect();
    let asked = TopicPartitionList::from_topic_map(&asked.into_iter().collect()).unwrap();
    let committed = three.committed_offsets(asked, DEADLINE).unwrap();
    assert!(committed.elements().iter().all(|e| e.offset() == Offset::Offset(1)), "{committed:?}");
}

#[tokio::test]
async fn offsets_are_found_by_time() {
    let cluster = Cluster::shared();
    let topic = fresh("times");
    cluster.create(&topic, 1).await;
    // One batch, so that a time lies in the middle of it.
    let producer = cluster.producer(&[("linger.ms", "200"), ("compression.type", "lz4")]);
    let sends = [1_000, 2_000, 3_000].map(|time| {
        let record = FutureRecord::<str, str>::to(&topic).payload("x").timestamp(time);
        producer.send_result(record).map_err(|(error, _)| error).unwrap()
    });
    for sent in sends {
        sent.await.unwrap().map_err(|(error, _)| error).unwrap();
    }
    let consumer: BaseConsumer = cluster.consumer(&topic);
    for (time, offset) in [
        (0, Offset::Offset(0)),
        (2_000, Offset::Offset(1)),
        (2_001, Offset::Offset(2)),
        (3_001, Offset::End),
    ] {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(&topic, 0, Offset::Offset(time)).unwrap();
        let found = consumer.offsets_for_times(asked, DEADLINE).unwrap();
        assert_eq!(found.elements()[0].offset(), offset, "at {time}");
    }
}

#[tokio::test]
async fn topics_settings_records_and_groups_are_administered() {
    let cluster = Cluster::shared();
    let topic = fresh("admin");
    let (admin, options) = (cluster.admin(), AdminOptions::new());
    cluster.create(&topic, 2).await;
    let new = NewTopic::new(&topic, 2, TopicReplication::Fixed(3));
    let again = admin.create_topics([&new], &options).await.unwrap();
    assert_eq!(again, [Err((topic.clone(), RDKafkaErrorCode::TopicAlreadyExists))]);
    let more = admin.create_partitions([&NewPartitions::new(&topic, 3)], &options).await.unwrap();
    assert_eq!(more, [Ok(topic.clone())]);

    let resource = ResourceSpecifier::Topic(&topic);
    let change = AlterConfig::new(resource).set("retention.ms", "123456");
    assert!(admin.alter_configs([&change], &options).await.unwrap()[0].is_ok());
    let told = admin.describe_configs([&resource], &options).await.unwrap();
    let entry = told[0].as_ref().unwrap().get("retention.ms").unwrap();
    assert_eq!((entry.value.as_deref(), entry.is_default), (Some("123456"), false));

    let producer = cluster.producer(&[]);
    for _ in 0..5 {
        let record = FutureRecord::<str, str>::to(&topic).partition(0).payload("x");
        producer.send(record, DEADLINE).await.unwrap();
    }
    let mut until = TopicPartitionList::new();
    until.add_partition_offset(&topic, 0, Offset::Offset(3)).unwrap();
    admin.delete_records(&until, &options).await.unwrap();
    let consumer: BaseConsumer = cluster.consumer(&topic);
    assert_eq!(watermarks(&consumer, &topic).await, (3, 5));

    consumer.commit(&until, CommitMode::Sync).unwrap();
    let groups = consumer.fetch_group_list(Some(topic.as_str()), DEADLINE).unwrap();
    assert_eq!(groups.groups()[0].state(), "Empty");
    assert_eq!(admin.delete_groups(&[&topic], &options).await.unwrap(), [Ok(topic.clone())]);
    let gone = admin.delete_groups(&[&topic], &options).await.unwrap();
    assert_eq!(gone, [Err((topic.clone(), RDKafkaErrorCode::GroupIdNotFound))]);
    assert_eq!(admin.delete_topics(&[&topic], &options).await.unwrap(), [Ok(topic.clone())]);
}

#[tokio::test]
async fn a_record_that_is_too_large_is_refused() {
    let cluster = Cluster::shared();
    let topic = fresh("large");
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(3)).set("max.message.bytes", "2000");
    cluster.admin().create_topics([&new], &AdminOptions::new()).await.unwrap();
    let producer = cluster.producer(&[]);
    let value = "x".repeat(3_000);
    let record = FutureRecord::<str, str>::to(&topic).payload(&value);
    let refused = producer.send(record, Timeout::After(DEADLINE)).await;
    let (error, _) = refused.unwrap_err();
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
}
