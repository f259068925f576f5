//! The whole way over groups of one node: sample files in, records, stored files and documents
//! out, with services that break now and then.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::{Env, GroupId, TaskGroup};
use blocks::{BlockOptions, BlockService, BlockShared, Caller};
use bytes::Bytes;
use collect::ident::FileKey;
use collect::record::RecordBuilder;
use collect::sink::{Appended, SinkError};
use consensus::solo::{SoloGroup, SoloPeers};
use consensus::{GroupRef, Groups, tags};
use index::{IndexService, IndexShared};
use log::{LogOptions, LogService, LogShared, TopicRef};
use parking_lot::Mutex;
use sample::{SampleFile, SampleServer, write_tree};
use segment::{SegmentWriter, WriterOptions};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::error::FlowError;
use crate::ports::*;
use crate::processor::{BadRecord, Processor, Quarantine};
use crate::real::{RealBlocks, RealIndex, RealLog};
use crate::service::{FlowService, Ports};
use crate::spec::PipelineSpec;
use crate::state::{FlowShared, Part};

struct World {
    env: Env,
    groups: Groups,
    peers: Arc<SoloPeers>,
    shared: Arc<FlowShared>,
    log: LogService,
    blocks: Arc<BlockService>,
    index: Arc<IndexService>,
    _tasks: TaskGroup,
    dir: TempDir,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let data_dir = dir.path().join("data");
    env.disk.create_dir_all(&data_dir).unwrap();
    let writer = || SegmentWriter::start(&env, WriterOptions::default());
    let log_shared = LogShared::new(env.clone(), &data_dir, writer()).unwrap();
    let index_shared = IndexShared::new(env.clone(), data_dir.clone(), writer());
    let options = BlockOptions { reserve_bytes: 0, ..BlockOptions::default() };
    let block_shared = BlockShared::new(env.clone(), &data_dir, options).unwrap();
    let shared = FlowShared::new();
    let m0 = SoloGroup::new(
        GroupId::M0,
        vec![
            (tags::LOG, log_shared.machine_m0()),
            (tags::INDEX, index_shared.machine_m0()),
            (tags::FLOW, shared.machine_m0()),
        ],
    );
    let fs = SoloGroup::new(GroupId::FS, vec![(tags::BLOCKS, block_shared.machine())]);
    let data: Vec<Arc<SoloGroup>> = (0..3)
        .map(GroupId::data)
        .map(|id| {
            SoloGroup::new(
                id,
                vec![
                    (tags::LOG, log_shared.machine_data(id)),
                    (tags::INDEX, index_shared.machine_data(id)),
                ],
            )
        })
        .collect();
    let readers = data.iter().map(|group| group.reader(tags::LOG)).collect();
    let as_ref = |group: &Arc<SoloGroup>| -> GroupRef { group.clone() };
    let groups =
        Groups { m0: as_ref(&m0), fs: as_ref(&fs), data: data.iter().map(as_ref).collect() };
    let peers = Arc::new(SoloPeers::default());
    let tasks = TaskGroup::new();
    let log = LogService::start(
        log_shared,
        groups.clone(),
        peers.clone(),
        readers,
        &tasks,
        LogOptions::default(),
    );
    let blocks = BlockService::new(block_shared, as_ref(&fs), peers.clone(), tasks.clone());
    let index = IndexService::new(
        index_shared,
        groups.clone(),
        peers.clone(),
        Default::default(),
        tasks.clone(),
    );
    World { dir, env, groups, peers, shared, log, blocks, index, _tasks: tasks }
}

/// Breaks every call whose number says so: before it acts, or after it.
#[derive(Default)]
struct Trouble(AtomicU64);

impl Trouble {
    async fn around<T, E>(
        &self,
        error: impl Fn() -> E,
        act: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match self.0.fetch_add(1, Ordering::Relaxed) % 5 {
            1 => Err(error()),
            3 => {
                act.await?;
                Err(error())
            }
            _ => act.await,
        }
    }
}

struct Flaky<T>(T, Arc<Trouble>);

fn lost() -> SinkError {
    SinkError::Retry("outcome unknown".to_owned())
}

#[async_trait]
impl LogPort for Flaky<RealLog> {
    async fn ensure_topic(&self, name: &str, partitions: u32) -> Result<TopicFacts, FlowError> {
        self.0.ensure_topic(name, partitions).await
    }
    fn topic(&self, name: &str) -> Option<TopicFacts> {
        self.0.topic(name)
    }
    async fn ledger(
        &self,
        topic: &str,
        partition: u32,
        source: &str,
        after: Option<FileKey>,
    ) -> Result<Vec<(FileKey, Bytes)>, SinkError> {
        self.0.ledger(topic, partition, source, after).await
    }
    async fn fence(&self, source: &str, epoch: u64) -> Result<(), SinkError> {
        self.1.around(lost, self.0.fence(source, epoch)).await
    }
    async fn append_once(
        &self,
        topic: &str,
        partition: u32,
        source: &str,
        epoch: u64,
        records: Vec<OnceRecord>,
    ) -> Result<Vec<Result<Appended, SinkError>>, SinkError> {
        self.1.around(lost, self.0.append_once(topic, partition, source, epoch, records)).await
    }
    async fn read(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
        max_bytes: usize,
    ) -> Result<TopicBatch, ReadFailure> {
        self.0.read(topic, partition, offset, max_bytes).await
    }
    fn end(&self, topic: &str, partition: u32) -> Option<u64> {
        self.0.end(topic, partition)
    }
}

#[async_trait]
impl BlockPort for Flaky<RealBlocks> {
    async fn fence(&self, source: &str, epoch: u64) -> Result<(), SinkError> {
        self.1.around(lost, self.0.fence(source, epoch)).await
    }
    async fn put(
        &self,
        source: &str,
        epoch: u64,
        files: Vec<PutFile>,
    ) -> Result<Vec<Result<(), SinkError>>, SinkError> {
        self.1.around(lost, self.0.put(source, epoch, files)).await
    }
    async fn read_head(&self, path: &str, limit: u64) -> Result<Option<Bytes>, String> {
        self.0.read_head(path, limit).await
    }
}

#[async_trait]
impl IndexPort for Flaky<RealIndex> {
    async fn ensure(&self, index: &str, shards: u16, replicas: u16) -> Result<(), FlowError> {
        self.0.ensure(index, shards, replicas).await
    }
    fn shards(&self, index: &str) -> Option<u16> {
        self.0.shards(index)
    }
    fn identity(&self, index: &str) -> Option<String> {
        self.0.identity(index)
    }
    fn shard_of(&self, id: &str, shards: u16) -> u16 {
        self.0.shard_of(id, shards)
    }
    async fn marks(
        &self,
        index: &str,
        pipeline: &str,
        partition: u32,
    ) -> Result<Vec<Option<u64>>, String> {
        self.0.marks(index, pipeline, partition).await
    }
    async fn apply_marked(
        &self,
        index: &str,
        shard: u16,
        mark: Mark<'_>,
        docs: Vec<IndexDoc>,
    ) -> Result<(), MarkFailure> {
        let error = || MarkFailure::Retry("outcome unknown".to_owned());
        self.1.around(error, self.0.apply_marked(index, shard, mark, docs)).await
    }
}

impl World {
    fn ports(&self, trouble: Option<Arc<Trouble>>) -> Ports {
        let (log, blocks) = (RealLog(self.log.clone()), RealBlocks(self.blocks.clone()));
        let index = RealIndex(self.index.clone());
        match trouble {
            None => Ports { log: Arc::new(log), blocks: Arc::new(blocks), index: Arc::new(index) },
            Some(t) => Ports {
                log: Arc::new(Flaky(log, t.clone())),
                blocks: Arc::new(Flaky(blocks, t.clone())),
                index: Arc::new(Flaky(index, t)),
            },
        }
    }

    /// Starts the flow as a node would after a crash: with a new boot id.
    fn flow(&self, trouble: Option<Arc<Trouble>>) -> (Arc<FlowService>, TaskGroup) {
        let tasks = TaskGroup::new();
        let flow = FlowService::with_ports(
            self.shared.clone(),
            self.groups.clone(),
            self.peers.clone(),
            self.ports(trouble),
            self.env.clone(),
            &tasks,
        );
        (flow, tasks)
    }

    fn records(&self) -> u64 {
        let topic = self.log.topic("news").unwrap();
        let end = |partition| *self.log.watch_end(&topic, partition).unwrap().borrow();
        (0..3).map(end).sum::<i64>().cast_unsigned()
    }

    async fn document(&self, id: &str) -> Option<Value> {
        let meta = self.index.catalog().indices["news"].clone();
        let found = self.index.get_many(&meta, &[(id.to_owned(), None)]).await.remove(0).unwrap();
        found.map(|state| serde_json::from_slice(&state.source).unwrap())
    }

    async fn stored(&self, path: &str) -> Option<Bytes> {
        self.blocks.read_all(&Caller::system(), path, u64::MAX).await.ok()
    }
}

fn local_spec(root: &Path) -> Value {
    json!({
        "name": "news",
        "source": {
            "type": "local",
            "path": root.to_str().unwrap(),
            "settle_ms": 50,
            "settle_empty_ms": 50,
            "scan_interval_ms": 200,
        },
        "topic": "news",
        "partitions": 3,
        "directory": "/datalake/news",
        "index": "news",
    })
}

/// Waits until the flow has nothing left to do for `files` files.
async fn settle(flow: &FlowService, files: u64) -> Value {
    let mut last = Value::Null;
    for _ in 0..1200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let Some(row) = flow.list().await.into_iter().next() else { continue };
        let idle = row["pending"] == 0 && row["lag"] == 0 && row["scans"].as_u64() >= Some(2);
        if idle && row["seen"] == files && row["collected"] == files && row["partitions"] == 3 {
            return row;
        }
        last = row;
    }
    panic!("the flow does not settle: {last}");
}

/// One record per file, one stored file with the same bytes, one document.
async fn verify(world: &World, root: &Path, files: &[SampleFile]) {
    assert_eq!(world.records(), files.len() as u64);
    let mut ids = BTreeSet::new();
    let mut refs = BTreeSet::new();
    for partition in 0..3 {
        let mut at = 0;
        loop {
            let batch = RealLog(world.log.clone()).read("news", partition, at, 1 << 20).await;
            let batch = batch.unwrap();
            if batch.next == at {
                break;
            }
            at = batch.next;
            for record in batch.records {
                let header = |name: &str| {
                    let found = record.headers.iter().find(|(n, _)| n == name).unwrap();
                    String::from_utf8(found.1.to_vec()).unwrap()
                };
                let bytes = world.stored(&header("x-content-ref")).await.unwrap();
                assert!(refs.insert(header("x-content-ref")), "two files in one place");
                assert_eq!(
                    collect::ident::hex(&Sha256::digest(&bytes)),
                    header("x-content-sha256")
                );
                assert!(ids.insert(header("x-id")));
            }
        }
    }
    for file in files {
        let id = FileKey::new("news", &file.path).hex();
        assert!(ids.contains(&id), "{}", String::from_utf8_lossy(&file.path));
        let document = world.document(&id).await.expect("a document");
        assert_eq!(document["id"], id);
        let on_disk = std::fs::read(root.join(OsStr::from_bytes(&file.path))).unwrap();
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&on_disk)), file.sha256);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sample_files_come_in_by_sftp_and_are_found_everywhere() {
    let world = world();
    let root = world.dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    let files = write_tree(&root, 5).unwrap();
    let serving = TaskGroup::new();
    let addr = "127.0.0.1:0".parse().unwrap();
    let server = SampleServer::start(addr, root.clone(), "u", "secret", &serving).await.unwrap();
    let (flow, tasks) = world.flow(None);
    let mut spec = local_spec(&root);
    spec["source"] = json!({
        "type": "sftp",
        "host": "127.0.0.1",
        "port": server.addr.port(),
        "user": "u",
        "password": "secret",
        "host_keys": [server.host_key],
        "path": "/",
        "settle_ms": 100,
        "settle_empty_ms": 100,
        "scan_interval_ms": 300,
    });
    flow.apply(spec).await.unwrap();
    settle(&flow, files.len() as u64).await;
    verify(&world, &root, &files).await;
    let shown = format!("{:?} {:?}", flow.list().await, flow.declaration("news"));
    assert!(!shown.contains("secret"), "{shown}");
    // Nobody but the record's own header knows the twin's number; both twins are there.
    assert!(world.stored("/datalake/news/mac/회의 일정.txt").await.is_some());
    assert!(world.stored("/datalake/news/mac/회의 일정~2.txt").await.is_some());
    assert!(world.stored("/datalake/news/옛문서/회의록 01.txt").await.is_some());
    let big = FileKey::new("news", "large/연간 보고서 2025.txt".as_bytes()).hex();
    let body = world.document(&big).await.unwrap()["body"].as_str().unwrap().to_owned();
    assert!(body.contains("자두빛"), "the whole text of a large file is indexed");
    tasks.shutdown(Duration::from_secs(5)).await;
    serving.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_stopped_by_itself_starts_again_when_it_is_retried() {
    let world = world();
    let root = world.dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a.txt"), "text").unwrap();
    let known_hosts = world.dir.path().join("known_hosts");
    let another = format!("SHA256:{}", "A".repeat(43));
    std::fs::write(&known_hosts, another).unwrap();
    let serving = TaskGroup::new();
    let addr = "127.0.0.1:0".parse().unwrap();
    let server = SampleServer::start(addr, root.clone(), "u", "secret", &serving).await.unwrap();
    let (flow, tasks) = world.flow(None);
    let mut spec = local_spec(&root);
    let more = json!({
        "type": "sftp",
        "host": "127.0.0.1",
        "port": server.addr.port(),
        "user": "u",
        "password": "secret",
        "known_hosts": known_hosts,
        "path": "/",
    });
    spec["source"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    flow.apply(spec).await.unwrap();
    let stopped = async {
        loop {
            let row = flow.list().await.into_iter().next().unwrap_or_default();
            if row["state"] == "stopped" {
                return row["last_error"].to_string();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let why = tokio::time::timeout(Duration::from_secs(60), stopped).await.unwrap();
    assert!(why.contains("host key"), "{why}");
    // Someone looks at the new key and takes it.
    std::fs::write(&known_hosts, &server.host_key).unwrap();
    assert_eq!(flow.retry("news").await.unwrap(), (0, 0), "nothing was given up");
    settle(&flow, 1).await;
    assert_eq!(world.records(), 1);
    tasks.shutdown(Duration::from_secs(5)).await;
    serving.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_every_step_breaks_and_the_node_restarts() {
    let world = world();
    let root = world.dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    let files = write_tree(&root, 6).unwrap();
    let trouble = Arc::new(Trouble::default());
    let (flow, tasks) = world.flow(Some(trouble.clone()));
    flow.apply(local_spec(&root)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    tasks.shutdown(Duration::from_secs(5)).await;
    for pause in [300, 500, 700, 900] {
        let (_flow, tasks) = world.flow(Some(trouble.clone()));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        tasks.shutdown(Duration::from_secs(5)).await;
    }
    let (flow, tasks) = world.flow(Some(trouble));
    settle(&flow, files.len() as u64).await;
    verify(&world, &root, &files).await;
    tasks.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_pauses_and_bad_records_are_handled() {
    let world = world();
    let root = world.dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a.txt"), "회의 하나\n본문").unwrap();
    let (flow, tasks) = world.flow(None);
    assert!(matches!(flow.apply(json!({"name": "x"})).await, Err(FlowError::Invalid(_))));
    assert!(matches!(flow.retry("none").await, Err(FlowError::NotFound(_))));
    flow.apply(local_spec(&root)).await.unwrap();
    settle(&flow, 1).await;
    flow.pause("news", Part::Source).await.unwrap();
    // Longer than a scan: what is under way when the pause comes may still end.
    tokio::time::sleep(Duration::from_millis(300)).await;
    std::fs::write(root.join("a.txt"), "회의 둘\n새 본문").unwrap();
    std::fs::write(root.join("b.txt"), "another").unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(world.records(), 1);
    flow.resume("news", Part::Source).await.unwrap();
    settle(&flow, 2).await;
    assert_eq!(world.records(), 3, "a new version is a new record");
    let id = FileKey::new("news", b"a.txt").hex();
    assert_eq!(world.document(&id).await.unwrap()["subject"], "회의 둘");
    let bad = log::batch::build(&[log::records::RecordRef::value(b"not json", 1)]);
    let acks = log::Acks::All;
    world.log.produce(TopicRef::Name("news"), 0, bad, acks).await.unwrap();
    let until = std::iter::repeat_n((), 200);
    for () in until {
        tokio::time::sleep(Duration::from_millis(25)).await;
        if !flow.quarantine("news", 10).unwrap().is_empty() {
            break;
        }
    }
    let found = flow.quarantine("news", 10).unwrap();
    assert!(found[0].error.contains("is not JSON") && found[0].what.starts_with("record 0/"));
    settle(&flow, 2).await;
    flow.delete("news").await.unwrap();
    assert!(flow.list().await.is_empty());
    tasks.shutdown(Duration::from_secs(5)).await;
}

/// Remembers given-up records, once it works.
#[derive(Default)]
struct Notes {
    works: AtomicBool,
    tries: AtomicU64,
    noted: Mutex<BTreeSet<u64>>,
}

#[async_trait]
impl Quarantine for Notes {
    async fn put(&self, bad: BadRecord) -> Result<(), String> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        if !self.works.load(Ordering::Relaxed) {
            return Err("no leader".to_owned());
        }
        self.noted.lock().insert(bad.offset);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_passes_a_refused_record_only_once_that_is_remembered() {
    let world = world();
    let ports = world.ports(None);
    ports.log.ensure_topic("news", 3).await.unwrap();
    ports.index.ensure("news", 1, 0).await.unwrap();
    let produce = async |text: &'static str| {
        let one = log::batch::build(&[log::records::RecordRef::value(text.as_bytes(), 1)]);
        world.log.produce(TopicRef::Name("news"), 0, one, log::Acks::All).await.unwrap();
    };
    produce(r#"{"id":"a","n":1}"#).await;
    produce(r#"{"id":"b","n":"no number"}"#).await;
    produce(r#"{"id":"c","n":3}"#).await;
    let notes = Arc::new(Notes::default());
    let mark = async || ports.index.marks("news", "news/1", 0).await.unwrap()[0];
    let start = || {
        let spec: Arc<PipelineSpec> =
            Arc::new(serde_json::from_value(local_spec(world.dir.path())).unwrap());
        let processor = Processor {
            builder: RecordBuilder::new(&spec.record).unwrap(),
            spec,
            mark_name: "news/1".to_owned(),
            partition: 0,
            paused: false,
            log: ports.log.clone(),
            blocks: ports.blocks.clone(),
            index: ports.index.clone(),
            quarantine: notes.clone(),
            progress: Default::default(),
        };
        let tasks = TaskGroup::new();
        tasks.spawn("processor", processor.run());
        tasks
    };
    let until = async |done: &dyn Fn() -> bool| {
        for _ in 0..1200 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("waited in vain");
    };
    let tasks = start();
    until(&|| notes.tries.load(Ordering::Relaxed) >= 2).await;
    // The processor dies before anything could be remembered.
    tasks.shutdown(Duration::from_secs(5)).await;
    assert!(mark().await.is_none_or(|mark| mark <= 1), "the mark passed a record that is lost");
    notes.works.store(true, Ordering::Relaxed);
    let tasks = start();
    until(&|| notes.noted.lock().contains(&1)).await;
    for _ in 0..1200 {
        if mark().await == Some(3) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(mark().await, Some(3));
    assert_eq!(*notes.noted.lock(), BTreeSet::from([1]));
    for (id, there) in [("a", true), ("b", false), ("c", true)] {
        assert_eq!(world.document(id).await.is_some(), there, "{id}");
    }
    tasks.shutdown(Duration::from_secs(5)).await;
}
