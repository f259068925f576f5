//! The whole log on groups of one node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::env::sim_disk::SimDisk;
use base::{Env, GroupId, NodeId, TaskGroup};
use bytes::Bytes;
use consensus::solo::{SoloGroup, SoloPeers};
use consensus::{GroupRef, Groups, Rows, StateMachine, TableStore, tags};
use segment::{SegmentWriter, WriterOptions};

use crate::batch::{build, split, with_producer};
use crate::records::{RecordRef, records};
use crate::*;

mod groups;
mod offsets;
mod reconcile;
mod segments;
mod transactions;

struct Cluster {
    service: LogService,
    shared: LogShared,
    m0: Arc<SoloGroup>,
    data: Vec<Arc<SoloGroup>>,
    env: Env,
    tasks: TaskGroup,
}

fn env() -> Env {
    Env { disk: Arc::new(SimDisk::new(5)), ..Env::real() }
}

fn cluster() -> Cluster {
    cluster_that_reconciles(Duration::from_millis(20))
}

fn cluster_that_reconciles(reconcile_every: Duration) -> Cluster {
    let env = env();
    env.disk.create_dir_all(Path::new("/data")).unwrap();
    let options = WriterOptions { chunk_bytes: 64 * 1024, ..WriterOptions::default() };
    let writer = SegmentWriter::start(&env, options);
    let shared = LogShared::new(env.clone(), Path::new("/data"), writer).unwrap();
    let m0 = SoloGroup::new(GroupId::M0, vec![(tags::LOG, shared.machine_m0())]);
    let data: Vec<_> = (0..6)
        .map(|n| {
            let id = GroupId::data(n);
            SoloGroup::new(id, vec![(tags::LOG, shared.machine_data(id))])
        })
        .collect();
    let (service, tasks) = service(&shared, &m0, &data, reconcile_every);
    Cluster { service, shared, m0, data, env, tasks }
}

fn service(
    shared: &LogShared,
    m0: &Arc<SoloGroup>,
    data: &[Arc<SoloGroup>],
    reconcile_every: Duration,
) -> (LogService, TaskGroup) {
    let groups = data.iter().map(|group| group.clone() as GroupRef).collect();
    service_over(shared, m0, (data, groups), reconcile_every)
}

/// A service that reaches the data groups through others.
fn service_over(
    shared: &LogShared,
    m0: &Arc<SoloGroup>,
    (data, through): (&[Arc<SoloGroup>], Vec<GroupRef>),
    reconcile_every: Duration,
) -> (LogService, TaskGroup) {
    let readers = data.iter().map(|group| group.reader(tags::LOG)).collect();
    let fs = SoloGroup::new(GroupId::FS, vec![]);
    let groups = Groups { m0: m0.clone(), fs, data: through };
    let tasks = TaskGroup::new();
    let compaction_every = Duration::from_millis(20);
    let options = LogOptions { reconcile_every, compaction_every, ..Default::default() };
    let peers = Arc::new(SoloPeers::default());
    let service = LogService::start(shared.clone(), groups, peers, readers, &tasks, options);
    (service, tasks)
}

fn spec(name: &str, configs: &[(&str, &str)]) -> TopicSpec {
    let configs = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    TopicSpec { name: name.to_owned(), partitions: -1, replication_factor: -1, configs }
}

fn batch(values: &[&str], ts: i64) -> Bytes {
    let records: Vec<_> = values.iter().map(|v| RecordRef::value(v.as_bytes(), ts)).collect();
    build(&records)
}

fn produce_command(key: PartKey, batch: &[u8]) -> Bytes {
    command::produce(key, crate::transactions::Claim::Plain, batch).0.freeze()
}

const T: TopicRef<'static> = TopicRef::Name("t");

impl Cluster {
    async fn topic(&self, configs: &[(&str, &str)]) -> Arc<Topic> {
        self.service.create_topic(&spec("t", configs), Mode::Apply).await.unwrap()
    }

    async fn put(&self, partition: i32, batch: Bytes) -> Result<i64, LogError> {
        let produced = self.service.produce(T, partition, batch, Acks::Leader).await;
        produced.map(|p| p.base_offset)
    }

    async fn fetch(&self, partition: i32, offset: i64) -> Result<Fetched, LogError> {
        let spec = FetchSpec {
            topic: T,
            partition,
            offset,
            max_bytes: 1 << 20,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            isolation: Isolation::Uncommitted,
        };
        self.service.fetch(&spec).await
    }

    async fn values(&self, partition: i32, mut offset: i64) -> Vec<(i64, String)> {
        let mut out = vec![];
        loop {
            let fetched = self.fetch(partition, offset).await.unwrap();
            if fetched.records.is_empty() {
                assert_eq!(offset, fetched.high_watermark);
                return out;
            }
            for batch in fetched.records {
                for record in records(&batch).unwrap() {
                    let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    offset = record.offset + 1;
                    out.push((record.offset, value));
                }
            }
        }
    }

    /// A second machine over the rows of a checkpoint and the same disk, as after a restart.
    fn restarted(&self, number: usize) -> (LogShared, Box<dyn StateMachine>) {
        let store = consensus::MemStore::default();
        let rows = self.data[number].reader(tags::LOG).scan(b"", None, usize::MAX).unwrap();
        let changes: Vec<_> = rows
            .into_iter()
            .map(|(key, value)| ([&[tags::LOG][..], &key].concat(), Some(value)))
            .collect();
        store.write_batch(1, &changes).unwrap();
        let writer = SegmentWriter::start(&self.env, WriterOptions::default());
        let shared = LogShared::new(self.env.clone(), Path::new("/data"), writer).unwrap();
        let mut machine = shared.machine_data(GroupId::data(number as u16));
        let mut pending = Default::default();
        machine.restore(&Rows::new(&store, &mut pending, tags::LOG)).unwrap();
        (shared, machine)
    }
}

pub(crate) fn digest(machine: &mut dyn StateMachine) -> u32 {
    let mut crc = 0;
    machine.digest(&mut |bytes| crc = base::crc::crc32c_append(crc, bytes)).unwrap();
    crc
}

/// Seed 3 of scripts/torture: a node that had not heard of the deletion took records by name.
#[tokio::test]
async fn nothing_of_a_deleted_topic_is_left_once_its_name_is_used_again() {
    let c = cluster_that_reconciles(Duration::from_secs(3600));
    let old = c.topic(&[]).await;
    c.put(0, batch(&["old"], 1)).await.unwrap();
    c.service.delete_topic(T).await.unwrap();
    let new = c.topic(&[]).await;
    let held: Vec<_> = c.service.replicas().into_iter().map(|r| r.key.topic).collect();
    assert!(!held.contains(&old.id), "{held:?}");
    assert_eq!(held, [new.id; 3]);
    assert_eq!(c.put(0, batch(&["new"], 1)).await, Ok(0));
    c.tasks.stop();
}

#[tokio::test]
async fn topics_are_created_grown_configured_and_deleted() {
    let c = cluster();
    let topic = c.topic(&[("retention.ms", "1000")]).await;
    let placed = |topic: &Topic| -> Vec<u16> {
        topic.partitions.iter().filter_map(|g| g.data_number()).collect()
    };
    let first = placed(&topic);
    // One after another, so that leaders are spread; where they begin, the name decides.
    let all = u16::try_from(c.data.len()).unwrap();
    let next = |group: u16| (group + 1) % all;
    assert_eq!(first, [first[0], next(first[0]), next(next(first[0]))]);
    assert_eq!(c.service.replicas().len(), 3);
    let again = c.service.create_topic(&spec("t", &[]), Mode::Apply).await;
    assert_eq!(again, Err(LogError::TopicExists("t".to_owned())));
    let grown = c.service.create_partitions("t", 5, Mode::Apply).await.unwrap();
    assert_eq!(grown.partitions.len(), 5);
    assert_eq!(c.service.replicas().len(), 5);
    let change = ConfigChange::Set("segment.bytes".to_owned(), "5000".to_owned());
    c.service.alter_configs("t", &[change], Mode::Apply).await.unwrap();
    let topic = c.service.topic("t").unwrap();
    assert_eq!((topic.settings.replica.segment_bytes, topic.settings.retention_ms), (5000, 1000));
    c.service.delete_topic(T).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while !c.service.replicas().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("replicas of a deleted topic go");
    let new = c.topic(&[]).await;
    assert_ne!(new.id, topic.id);
    assert_eq!(placed(&new), first, "leader epochs must not go back");
    assert_eq!(c.values(0, 0).await, []);
    c.tasks.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn wrong_specifications_are_refused_with_kafkas_errors() {
    let c = cluster();
    let code = |spec: TopicSpec| {
        let service = c.service.clone();
        async move {
            let made = service.create_topic(&spec, Mode::ValidateOnly).await;
            made.map_or_else(|e| e.code(), |_| 0)
        }
    };
    assert_eq!(code(spec("ok", &[])).await, 0);
    assert_eq!(code(spec("a b", &[])).await, 17);
    assert_eq!(code(spec("", &[])).await, 17);
    assert_eq!(code(spec("x", &[("no.such", "1")])).await, 40);
    assert_eq!(code(TopicSpec { partitions: 0, ..spec("x", &[]) }).await, 37);
    assert_eq!(code(TopicSpec { replication_factor: 4, ..spec("x", &[]) }).await, 38);
    assert!(c.service.topics().is_empty());
}

#[tokio::test]
async fn records_are_read_back_at_their_offsets() {
    let c = cluster();
    c.topic(&[]).await;
    assert_eq!(c.put(0, batch(&["a", "b"], 10)).await, Ok(0));
    assert_eq!(c.put(0, batch(&["c"], 20)).await, Ok(2));
    assert_eq!(c.put(1, batch(&["d"], 20)).await, Ok(0));
    let all = [(0, "a".to_owned()), (1, "b".to_owned()), (2, "c".to_owned())];
    assert_eq!(c.values(0, 0).await, all);
    let mid = c.fetch(0, 1).await.unwrap();
    assert_eq!(records(&mid.records[0]).unwrap()[0].offset, 0, "the whole batch is returned");
    assert_eq!((mid.high_watermark, mid.log_start_offset), (3, 0));
    let header = batch::BatchHeader::parse(&mid.records[0]).unwrap();
    assert_eq!(header.leader_epoch, 1);
    batch::validate(&mid.records[1]).expect("still valid with offset and epoch set");
    let beyond = c.fetch(0, 4).await;
    assert_eq!(beyond, Err(LogError::OffsetOutOfRange { offset: 4, start: 0, end: 3 }));
    assert_eq!(c.fetch(9, 0).await, Err(LogError::UnknownTopicOrPartition));
}

#[tokio::test]
async fn repeated_batches_of_a_producer_are_appended_once() {
    let c = cluster();
    c.topic(&[]).await;
    let id = c.service.init_producer_id().await.unwrap();
    assert_eq!(c.service.init_producer_id().await.unwrap(), id + 1);
    let first = with_producer(&batch(&["a", "b"], 1), id, 0, 0);
    let second = with_producer(&batch(&["c"], 1), id, 0, 2);
    let gap = with_producer(&batch(&["x"], 1), id, 0, 7);
    assert_eq!(c.put(0, first.clone()).await, Ok(0));
    assert_eq!(c.put(0, second.clone()).await, Ok(2));
    assert_eq!(c.put(0, first).await, Ok(0));
    assert_eq!(c.put(0, second).await, Ok(2));
    assert_eq!(c.put(0, gap).await, Err(LogError::OutOfOrderSequence));
    assert_eq!(c.values(0, 0).await.len(), 3);
}

#[tokio::test]
async fn a_producer_never_seen_begins_at_zero_but_in_a_topic_made_anew() {
    let c = cluster();
    c.topic(&[]).await;
    let id = c.service.init_producer_id().await.unwrap();
    let first = with_producer(&batch(&["a"], 1), id, 0, 0);
    let second = with_producer(&batch(&["b"], 1), id, 0, 1);
    assert_eq!(c.put(0, second.clone()).await, Err(LogError::OutOfOrderSequence));
    assert_eq!(c.put(0, first).await, Ok(0));
    assert_eq!(c.put(0, second).await, Ok(1));
    c.service.delete_topic(T).await.unwrap();
    c.topic(&[]).await;
    assert_eq!(c.put(0, with_producer(&batch(&["c"], 1), id, 0, 2)).await, Ok(0));
    let later = with_producer(&batch(&["d"], 1), id + 1, 0, 2);
    assert_eq!(c.put(0, later).await, Err(LogError::OutOfOrderSequence));
}

#[tokio::test]
async fn after_a_refusal_the_next_batch_waits_for_its_turn() {
    let c = cluster();
    c.topic(&[("min.insync.replicas", "2")]).await;
    let id = c.service.init_producer_id().await.unwrap();
    let known = with_producer(&batch(&["k"], 1), id, 0, 0);
    let first = with_producer(&batch(&["a"], 1), id, 0, 1);
    let second = with_producer(&batch(&["b"], 1), id, 0, 2);
    assert_eq!(c.put(0, known).await, Ok(0));
    assert_eq!(c.put(0, second.clone()).await, Err(LogError::OutOfOrderSequence));
    let refused = c.service.produce(T, 0, first.clone(), Acks::All).await;
    assert_eq!(refused, Err(LogError::NotEnoughReplicas));
    assert_eq!(c.put(0, second.clone()).await, Err(LogError::NotLeader { leader: None }));
    assert_eq!(c.put(0, first).await, Ok(1));
    assert_eq!(c.put(0, second).await, Ok(2));
}

#[tokio::test]
async fn batches_that_may_not_be_stored_are_refused() {
    let c = cluster();
    c.topic(&[("max.message.bytes", "200")]).await;
    let mut broken = batch(&["a"], 1).to_vec();
    broken[65] ^= 1;
    assert_eq!(c.put(0, broken.into()).await.unwrap_err().code(), 2);
    assert_eq!(c.put(0, batch(&["x".repeat(300).as_str()], 1)).await.unwrap_err().code(), 10);
    let two = [batch(&["a"], 1), batch(&["b"], 1)].concat();
    assert_eq!(c.put(0, two.into()).await.unwrap_err().code(), 87);
    assert_eq!(c.put(0, batch(&["a"], i64::MAX)).await.unwrap_err().code(), 32);
    assert_eq!(c.values(0, 0).await, []);
}

#[tokio::test]
async fn offsets_are_found_by_time_with_record_precision() {
    let c = cluster();
    c.topic(&[("segment.bytes", "400")]).await;
    for i in 0..20 {
        let values: Vec<_> =
            (0..3).map(|k| RecordRef::value(b"some value", 1000 + i * 30 + k * 10)).collect();
        c.put(0, build(&values)).await.unwrap();
    }
    let list =
        async |query| c.service.list_offset(T, 0, -1, query, Isolation::Uncommitted).await.unwrap();
    assert_eq!(list(OffsetQuery::Earliest).await.offset, 0);
    assert_eq!(list(OffsetQuery::Latest).await.offset, 60);
    let hit = list(OffsetQuery::Time(1235)).await;
    assert_eq!((hit.offset, hit.timestamp_ms, hit.leader_epoch), (24, 1240, 1));
    let newest = list(OffsetQuery::MaxTimestamp).await;
    assert_eq!((newest.offset, newest.timestamp_ms), (59, 1590));
    assert_eq!(list(OffsetQuery::Time(9999)).await.offset, -1);
    let replicas = c.service.replicas();
    assert!(replicas.iter().find(|r| r.key.partition == 0).unwrap().segments > 5);
    assert_eq!(c.service.delete_records(T, 0, 31).await, Ok(31));
    assert_eq!(list(OffsetQuery::Time(0)).await.offset, 31);
    assert_eq!(c.fetch(0, 30).await.unwrap_err().code(), 1);
    assert_eq!(c.service.delete_records(T, 0, -1).await, Ok(60));
    assert_eq!(c.put(0, batch(&["after"], 5)).await, Ok(60));
    assert_eq!(c.values(0, 60).await, [(60, "after".to_owned())]);
}

#[tokio::test]
async fn append_time_is_stamped_by_the_leader() {
    let c = cluster();
    c.topic(&[("message.timestamp.type", "LogAppendTime")]).await;
    let produced = c.service.produce(T, 0, batch(&["a"], 7), Acks::All).await.unwrap();
    assert!(produced.log_append_time_ms > 1_600_000_000_000);
    let fetched = c.fetch(0, 0).await.unwrap();
    let record = &records(&fetched.records[0]).unwrap()[0];
    assert_eq!(record.timestamp_ms, produced.log_append_time_ms);
    assert_eq!(base::crc::crc32c(&fetched.records[0][21..]), {
        batch::BatchHeader::parse(&fetched.records[0]).unwrap().crc
    });
}

#[tokio::test]
async fn a_file_is_appended_once_for_each_version() {
    let c = cluster();
    c.topic(&[]).await;
    let file = |name: &str, version: &str, text: &str| OnceFile {
        file_key: name.to_owned().into(),
        version: version.to_owned().into(),
        batch: batch(&[text], 1),
    };
    assert_eq!(c.service.fence("s", 2).await, Ok(Ok(())));
    let once = async |epoch, files: &[OnceFile]| {
        c.service.append_once(T, 1, "s", epoch, files).await.unwrap()
    };
    let files = [file("a", "1", "a1"), file("b", "1", "b1")];
    assert_eq!(once(2, &files).await, [OnceOutcome::Appended(0), OnceOutcome::Appended(1)]);
    assert_eq!(once(2, &files).await, [OnceOutcome::Already(0), OnceOutcome::Already(1)]);
    assert_eq!(once(1, &files).await, vec![OnceOutcome::Fenced(2); 2]);
    assert_eq!(once(3, &[file("a", "2", "a2")]).await, [OnceOutcome::Appended(2)]);
    assert_eq!(once(2, &[file("c", "1", "c1")]).await, [OnceOutcome::Fenced(3)]);
    assert_eq!(c.service.fence("s", 2).await, Ok(Err(3)));
    let row = c.service.ledger_get(T, 1, "s", b"a").await.unwrap().unwrap();
    assert_eq!((row.version.as_ref(), row.offset, row.state), (&b"2"[..], 2, 0));
    assert!(c.service.ledger_mark(T, 1, "s", (b"a", b"2"), 4).await.unwrap());
    assert!(!c.service.ledger_mark(T, 1, "s", (b"a", b"1"), 4).await.unwrap());
    let rows = c.service.ledger_scan(T, 1, "s", None, 10).await.unwrap();
    assert_eq!(
        rows.iter().map(|(k, r)| (&k[..], r.state)).collect::<Vec<_>>(),
        [(&b"a"[..], 4), (&b"b"[..], 0)]
    );
    assert_eq!(c.service.ledger_scan(T, 1, "s", Some(b"a"), 10).await.unwrap().len(), 1);
    assert_eq!(c.values(1, 0).await.len(), 3);
    c.service.delete_topic(T).await.unwrap();
}

fn keyed(key: &str, value: &str) -> Bytes {
    build(&[RecordRef {
        key: Some(key.as_bytes().into()),
        value: Some(value.as_bytes().into()),
        ..RecordRef::default()
    }])
}

#[tokio::test]
async fn a_compacted_topic_keeps_the_newest_value_of_each_key() {
    let c = cluster();
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1000"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("retention.ms", "1"),
    ];
    c.topic(&configs).await;
    let refused = c.put(0, batch(&["no key"], 1)).await.unwrap_err();
    assert_eq!(refused.code(), 87);
    assert!(refused.to_string().contains("without key in topic partition t-0."), "{refused}");
    for i in 0..400 {
        let value = format!("value {i}");
        assert_eq!(c.put(0, keyed(&format!("k{}", i % 8), &value)).await, Ok(i));
    }
    let compacted = async {
        while c.values(0, 0).await.len() > 40 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), compacted).await.expect("it is compacted");
    let left = c.values(0, 0).await;
    let newest: Vec<_> = left.iter().rev().take(8).map(|(_, value)| value.clone()).collect();
    assert_eq!(newest, (392..400).rev().map(|i| format!("value {i}")).collect::<Vec<_>>());
    assert!(left.is_sorted() && left[0].0 > 300, "{left:?}");
    assert_eq!(c.fetch(0, 0).await.unwrap().log_start_offset, 0);
    assert_eq!(c.values(0, 5).await, left, "an offset that is gone leads to the next record");
    c.tasks.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn batches_are_stored_as_the_topic_says() {
    let c = cluster();
    c.topic(&[("compression.type", "zstd"), ("message.timestamp.before.max.ms", "1000")]).await;
    let now_ms = c.env.clock.unix_ms();
    let text = "text ".repeat(100);
    assert_eq!(c.put(0, batch(&[text.as_str(), "b"], now_ms)).await, Ok(0));
    let held = c.fetch(0, 0).await.unwrap().records.remove(0);
    let header = batch::validate(&held).unwrap();
    assert_eq!(header.compression(), Ok(batch::Compression::Zstd));
    assert_eq!(records(&held).unwrap()[0].value.as_deref(), Some(text.as_bytes()));
    let old = c.put(0, batch(&["old"], now_ms - 60_000)).await.unwrap_err();
    let LogError::RejectedRecords { code: 32, records, .. } = old else { panic!("{old:?}") };
    assert_eq!(records[0].index, 0);
}

#[tokio::test]
async fn defaults_of_the_cluster_reach_topics_and_partitions() {
    let c = cluster();
    c.topic(&[("retention.ms", "5")]).await;
    let set = |name: &str, value: &str| ConfigChange::Set(name.to_owned(), value.to_owned());
    let changes = [set("log.retention.ms", "77"), set("log.segment.bytes", "4321")];
    c.service.alter_settings(SettingsOf::Cluster, &changes, Mode::Apply).await.unwrap();
    let wrong = [set("log.dirs", "/x")];
    let wrong = c.service.alter_settings(SettingsOf::Cluster, &wrong, Mode::Apply).await;
    assert_eq!(wrong.unwrap_err().code(), 40);
    let topic = c.service.topic("t").unwrap();
    assert_eq!((topic.settings.retention_ms, topic.settings.replica.segment_bytes), (5, 4321));
    let view = c.shared.view(GroupId::data(0));
    let reached = async {
        while view.all()[0].state.lock().settings.segment_bytes != 4321 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("partitions follow");
    let back = [ConfigChange::Remove("log.segment.bytes".to_owned())];
    c.service.alter_settings(SettingsOf::Cluster, &back, Mode::Apply).await.unwrap();
    assert_eq!(c.service.topic("t").unwrap().settings.replica.segment_bytes, 1 << 30);
    assert_eq!(c.service.topic_defaults().len(), 1);
    for of in [SettingsOf::Broker(NodeId(2)), SettingsOf::Group("g".to_owned())] {
        let (name, value) = match of {
            SettingsOf::Group(_) => ("consumer.session.timeout.ms", "50000"),
            _ => ("background.threads", "9"),
        };
        for wrong in ["0", &format!("{value}{}", " ".repeat(100))] {
            let wrong = [set(name, wrong)];
            assert!(c.service.alter_settings(of.clone(), &wrong, Mode::Apply).await.is_err());
        }
        let right = [set(name, value)];
        c.service.alter_settings(of.clone(), &right, Mode::Apply).await.unwrap();
        assert_eq!(c.service.settings(&of)[name], value);
        let back = [ConfigChange::Remove(name.to_owned())];
        c.service.alter_settings(of.clone(), &back, Mode::Apply).await.unwrap();
        assert!(c.service.settings(&of).is_empty());
    }
    c.tasks.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_checkpoint_brings_everything_back() {
    let c = cluster();
    let topic = c.topic(&[("segment.bytes", "600")]).await;
    for i in 0..50 {
        let one = with_producer(&batch(&["v"], i), 900 + i % 7, 0, (i / 7) as i32);
        c.put(0, one).await.unwrap();
    }
    c.service.delete_records(T, 0, 20).await.unwrap();
    let home = topic.partitions[0];
    let number = usize::from(home.data_number().unwrap());
    c.data[number].checkpoint();
    let (shared, mut machine) = c.restarted(number);
    let mut live = c.shared.machine_data(home);
    assert_eq!(digest(&mut *machine), digest(&mut *live), "equal to the machine before");
    let key = PartKey { topic: topic.id, partition: 0 };
    let part = shared.view(home).get(&key).unwrap();
    assert_eq!(part.bounds(), (20, 50));
    let mut bases = vec![];
    let mut next = 20;
    while next < 50 {
        for frame in part.read(next, 500).unwrap() {
            let header = split(frame).unwrap();
            let header = batch::BatchHeader::parse(&header[0]).unwrap();
            bases.push(header.base_offset);
            next = header.next_offset();
        }
    }
    assert_eq!(bases, (20..50).collect::<Vec<_>>());
    for file in machine.files() {
        let bytes = c.env.disk.read(&Path::new("/data").join(&file.path), 1 << 20).unwrap();
        let found = (bytes.len() as u64, base::crc::crc32c(&bytes));
        assert_eq!(found, (file.len, file.crc), "{}", file.path);
    }
    assert!(machine.files().len() > 3);
}

#[tokio::test]
async fn equal_commands_give_equal_digests() {
    let digests = [cluster(), cluster()].map(|c| async move {
        let id = uuid::Uuid::from_u128(1);
        let key = PartKey { topic: id, partition: 0 };
        let settings = configs::ReplicaSettings { segment_bytes: 500, segment_ms: 60_000 };
        let apply = |command| c.data[0].apply(tags::LOG, command);
        apply(command::control(&command::Control::CreateReplica { key, settings }).unwrap());
        for i in 0..100 {
            apply(produce_command(key, &batch(&["value"], i)));
            c.data[0].advance_ms(1000);
            if i % 30 == 0 {
                c.data[0].checkpoint();
            }
        }
        apply(command::control(&command::Control::SetLogStart { key, offset: 33 }).unwrap());
        (digest(&mut *c.shared.machine_data(GroupId::data(0))), c.service.replicas()[0].segments)
    });
    let [a, b] = digests;
    let (a, b) = (a.await, b.await);
    assert_eq!(a, b);
    assert!(a.1 > 5);
}

#[tokio::test]
async fn a_fetch_can_wait_for_data() {
    let c = cluster();
    c.topic(&[]).await;
    let service = c.service.clone();
    let bell = Bell::new();
    let watch = |slot| service.watch(&bell, slot, 1 << 20, (T, slot.cast_signed()), 0).unwrap();
    let watches = [watch(0), watch(1)];
    let waiting = bell.wait(1);
    let writing = async { c.put(1, batch(&["x"], 1)).await.unwrap() };
    let both = async { tokio::join!(waiting, writing) };
    tokio::time::timeout(Duration::from_secs(10), both).await.expect("woken by the record");
    assert_eq!(bell.take_marked(), [1], "the other partition is not looked at");
    drop(watches);
    c.put(1, batch(&["x"], 1)).await.unwrap();
    assert!(bell.take_marked().is_empty());
    let late = service.watch(&bell, 1, 1 << 20, (T, 1), 0).unwrap();
    bell.wait(1).await;
    drop(late);
}

#[tokio::test]
async fn a_deleted_partition_wakes_its_readers() {
    let c = cluster();
    c.topic(&[]).await;
    let bell = Bell::new();
    let watch = c.service.watch(&bell, 0, 1, (T, 0), 0).unwrap();
    let mut changes = c.service.watch_changes();
    c.service.delete_topic(T).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), bell.wait(1000)).await.expect("woken");
    tokio::time::timeout(Duration::from_secs(10), changes.changed()).await.unwrap().unwrap();
    drop(watch);
}

#[tokio::test]
async fn commands_that_do_not_decode_change_nothing() {
    let c = cluster();
    for command in [&b""[..], b"\x01short", b"\x02\xff\xff\xff\xff", b"\x03\xff\xff", b"\x09"] {
        let applied = c.data[0].apply(tags::LOG, Bytes::copy_from_slice(command));
        assert!(applied.reply.is_empty());
    }
    assert!(c.service.replicas().is_empty());
}

/// A machine with its rows, as a node keeps them.
pub(crate) struct Life {
    pub(crate) store: consensus::MemStore,
    pub(crate) shared: LogShared,
    pub(crate) machine: Box<dyn StateMachine>,
}

impl Life {
    pub(crate) fn begin(disk: &SimDisk, rows: &[consensus::table::Change]) -> Self {
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let options = WriterOptions { chunk_bytes: 8 * 1024, ..WriterOptions::default() };
        let writer = SegmentWriter::start(&env, options);
        let shared = LogShared::new(env, Path::new("/data"), writer).unwrap();
        let store = consensus::MemStore::default();
        store.write_batch(1, rows).unwrap();
        let mut machine = shared.machine_data(GroupId::data(0));
        let mut pending = Default::default();
        machine.restore(&Rows::new(&store, &mut pending, tags::LOG)).unwrap();
        Self { store, shared, machine }
    }

    pub(crate) fn apply(&mut self, index: u64, command: Bytes) {
        let time_ms = 1_000_000 + index as i64 * 500;
        let at =
            consensus::ApplyAt { group: GroupId::data(0), index, term: 1 + index / 40, time_ms };
        let mut pending = Default::default();
        self.machine
            .apply(&at, command, &mut Rows::new(&self.store, &mut pending, tags::LOG))
            .unwrap();
        self.store.write_batch(index, &pending.into_iter().collect::<Vec<_>>()).unwrap();
    }

    /// First half of a checkpoint: the rows, and what is to be done on disk.
    fn take(&mut self, index: u64) -> (Vec<consensus::table::Change>, consensus::DiskWork) {
        let mut pending = Default::default();
        self.machine.capture(&mut Rows::new(&self.store, &mut pending, tags::LOG)).unwrap();
        self.store.write_batch(index, &pending.into_iter().collect::<Vec<_>>()).unwrap();
        let rows = self.store.scan(b"", std::ops::Bound::Unbounded, usize::MAX).unwrap();
        let rows = rows.into_iter().map(|(key, value)| (key, Some(value))).collect();
        (rows, self.machine.begin_checkpoint())
    }

    /// What the files of all segments hold, which is what the machine says of them.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for part in self.shared.view(GroupId::data(0)).all() {
            part.stream.sync().unwrap();
            for info in part.stream.segments() {
                let path = part.stream.path_of(&info);
                let bytes = self.shared.0.env.disk.read(&path, 1 << 20).unwrap();
                let found = (bytes.len() as u64, base::crc::crc32c(&bytes));
                assert_eq!(found, (info.len, info.crc), "{path:?}");
                files.insert(path, bytes);
            }
        }
        files
    }

    /// The rows as they stand at a checkpoint.
    pub(crate) fn checkpoint(&mut self, index: u64) -> Vec<consensus::table::Change> {
        let (rows, work) = self.take(index);
        work().unwrap();
        rows
    }
}

/// What a busy group does: two topics, rolls, trims, a deletion, files of the collector.
fn history() -> Vec<Bytes> {
    use command::{Control, OnceEntry, OnceHead, control};
    let key = |topic, partition| PartKey { topic: uuid::Uuid::from_u128(topic), partition };
    let settings = configs::ReplicaSettings { segment_bytes: 3000, segment_ms: 30_000 };
    let create = |key| control(&Control::CreateReplica { key, settings }).unwrap();
    let mut all = vec![create(key(1, 0)), create(key(2, 0)), create(key(1, 3))];
    let mut sequences = BTreeMap::<i64, i32>::new();
    for i in 0..200i64 {
        let text = "x".repeat(50 + (i as usize * 37) % 900);
        // Some have no timestamp: of those the time of the command counts.
        let one = batch(&[text.as_str()], if i % 7 == 3 { -1 } else { 1000 + i });
        all.push(match i {
            _ if i % 23 == 22 => {
                control(&Control::SetLogStart { key: key(1, 0), offset: i / 4 }).unwrap()
            }
            _ if i == 90 => control(&Control::DeleteReplica { key: key(2, 0) }).unwrap(),
            _ if i == 95 => create(key(2, 0)),
            _ if i == 100 => control(&Control::SetLogStart { key: key(1, 3), offset: 17 }).unwrap(),
            _ if i % 5 == 0 => {
                let file_key = Bytes::from(format!("file{}", i % 50));
                let (version, batch_len) = ("1".into(), one.len() as u32);
                let files = vec![OnceEntry { file_key, version, batch_len }];
                let head = OnceHead { key: key(1, 3), source: "s".into(), epoch: 1, files };
                command::once(&head, &[one])
            }
            _ if i == 151 => {
                control(&Control::ExpireProducers { key: key(1, 0), before_ms: 1_040_000 }).unwrap()
            }
            _ if i % 3 == 0 => produce_command(key(2, 0), &one),
            _ => {
                let id = 5 + i / 4;
                let sequence = sequences.entry(id).or_default();
                let one = with_producer(&one, id, 0, *sequence);
                *sequence += 1;
                produce_command(key(1, 0), &one)
            }
        });
    }
    all
}

#[test]
fn replay_after_any_crash_gives_the_same_bytes() {
    use base::env::sim_disk::Crash;
    let history = history();
    let mut straight = Life::begin(&SimDisk::new(0), &[]);
    (1..).zip(&history).for_each(|(i, c)| straight.apply(i, c.clone()));
    let expected = (digest(&mut *straight.machine), straight.files());
    let parts = straight.shared.view(GroupId::data(0)).all();
    assert!(parts.iter().any(|p| p.bounds().0 > 0 && p.status().segments > 3));
    for seed in 0..12u64 {
        let how = [Crash::Process, Crash::LoseUnsynced, Crash::TearUnsynced][seed as usize % 3];
        let disk = SimDisk::new(seed);
        let mut life = Life::begin(&disk, &[]);
        let (mut rows, mut stands_at) = (vec![], 0);
        let mut index = 0;
        while index < history.len() {
            life.apply(index as u64 + 1, history[index].clone());
            index += 1;
            if index % (13 + seed as usize) == 0 {
                rows = life.checkpoint(index as u64);
                stands_at = index;
            }
            if index % 61 == 60 && (index as u64 + seed).is_multiple_of(2) {
                life.shared.0.writer.stop();
                disk.crash(how);
                life = Life::begin(&disk, &rows);
                // What came after the checkpoint comes again from the WAL.
                (stands_at..index).for_each(|i| life.apply(i as u64 + 1, history[i].clone()));
                if seed >= 6 {
                    life.files();
                }
            }
        }
        let found = (digest(&mut *life.machine), life.files());
        assert!(found == expected, "seed {seed} {how:?}");
        life.shared.0.writer.stop();
    }
}

#[test]
fn what_is_deleted_during_a_checkpoint_is_whole_in_it() {
    use base::env::sim_disk::Crash;
    use command::{Control, control};
    let disk = SimDisk::new(5);
    let key = PartKey { topic: uuid::Uuid::from_u128(1), partition: 0 };
    let settings = configs::ReplicaSettings { segment_bytes: 3000, segment_ms: 30_000 };
    let mut life = Life::begin(&disk, &[]);
    life.apply(1, control(&Control::CreateReplica { key, settings }).unwrap());
    for i in 0..30 {
        let batch = batch(&["some value"], i);
        let (command, _) = command::produce(key, crate::transactions::Claim::Plain, &batch);
        life.apply(2 + i as u64, command.freeze());
    }
    let (rows, work) = life.take(31);
    // Nothing is written yet, and the replica goes while the checkpoint is on its way.
    life.apply(32, control(&Control::DeleteReplica { key }).unwrap());
    work().unwrap();
    // The next one lets go of the files only when this one is durable, and does not come so far.
    let (_, next) = life.take(32);
    next().unwrap();
    life.shared.0.writer.stop();
    disk.crash(Crash::LoseUnsynced);
    let life = Life::begin(&disk, &rows);
    let part = life.shared.view(GroupId::data(0)).get(&key).unwrap();
    assert_eq!(part.bounds(), (0, 30));
    let mut next = 0;
    while next < 30 {
        let frames = part.read(next, 1 << 20).unwrap();
        next += i64::try_from(frames.len()).unwrap();
        assert!(!frames.is_empty());
    }
    life.shared.0.writer.stop();
}
