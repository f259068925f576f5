//! The service over groups of one node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::{Env, GroupId, NodeId, TaskGroup};
use bytes::Bytes;
use consensus::machine::ApplyAt;
use consensus::solo::{SoloGroup, SoloPeers};
use consensus::{
    Applied, Group, GroupRef, Groups, Leadership, LogState, ProposeError, ReadError, TransferError,
    tags,
};
use segment::{SegmentWriter, WriterOptions};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::admin::CreateSpec;
use crate::command::{LoggedOp, MarkChange, OpsCommand, ShardCommand};
use crate::docs::MarkedError;
use crate::error::EsError;
use crate::limits::{TRANSLOG_SEGMENT_BYTES, WRITE_TIMEOUT};
use crate::model::{IndexMeta, IndexUuid, ShardId};
use crate::names::IndicesOptions;
use crate::service::IndexService;
use crate::settings;
use crate::shared::IndexShared;
use crate::wire::Writer;
use crate::write::{Outcome, UpdateSpec, WriteKind, WriteOp, WriteResult};

struct Solo {
    service: Arc<IndexService>,
    shared: Arc<IndexShared>,
    groups: Vec<Arc<SoloGroup>>,
    no_master: Arc<AtomicBool>,
    _dir: TempDir,
}

/// A group that has no leader while its flag is up.
struct Headless(Arc<SoloGroup>, Arc<AtomicBool>);

#[async_trait]
impl Group for Headless {
    fn id(&self) -> GroupId {
        self.0.id()
    }

    fn watch(&self) -> watch::Receiver<Leadership> {
        self.0.watch()
    }

    async fn propose(&self, tag: u8, command: Bytes) -> Result<Applied, ProposeError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(ProposeError::NotLeader { group: self.id(), leader: None });
        }
        self.0.propose(tag, command).await
    }

    async fn propose_here(
        &self,
        tag: u8,
        command: Bytes,
        _term: Option<u64>,
    ) -> Result<Applied, ProposeError> {
        self.propose(tag, command).await
    }

    async fn read_barrier(&self) -> Result<(), ReadError> {
        self.0.read_barrier().await
    }

    async fn transfer(&self, to: NodeId) -> Result<(), TransferError> {
        self.0.transfer(to).await
    }

    async fn log_state(&self) -> Result<LogState, ReadError> {
        self.0.log_state().await
    }

    fn behind(&self) -> BTreeSet<NodeId> {
        self.0.behind()
    }

    async fn reach_all(&self, index: u64) -> bool {
        self.0.reach_all(index).await
    }
}

fn solo() -> Solo {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let writer = SegmentWriter::start(&env, WriterOptions::default());
    let shared = IndexShared::new(env, dir.path().to_owned(), writer);
    let m0 = SoloGroup::new(GroupId::M0, vec![(tags::INDEX, shared.machine_m0())]);
    let fs = SoloGroup::new(GroupId::FS, Vec::new());
    let group = |n| {
        let id = GroupId::data(n);
        SoloGroup::new(id, vec![(tags::INDEX, shared.machine_data(id))])
    };
    let data: Vec<Arc<SoloGroup>> = (0..3).map(group).collect();
    let as_ref = |group: &Arc<SoloGroup>| -> GroupRef { group.clone() };
    let no_master = Arc::new(AtomicBool::new(false));
    let m0 = Arc::new(Headless(m0, no_master.clone()));
    let groups = Groups { m0, fs: as_ref(&fs), data: data.iter().map(as_ref).collect() };
    let peers = Arc::new(SoloPeers::default());
    let tasks = TaskGroup::new();
    let service = IndexService::new(shared.clone(), groups, peers, Default::default(), tasks);
    Solo { service, shared, groups: data, no_master, _dir: dir }
}

impl Solo {
    async fn create(&self, name: &str, shards: u32) -> Arc<IndexMeta> {
        let settings = settings::flatten(&json!({"number_of_shards": shards})).unwrap();
        let spec = CreateSpec { settings, ..CreateSpec::default() };
        assert!(self.service.create(name, spec).await.unwrap());
        self.meta(name).await
    }

    async fn meta(&self, name: &str) -> Arc<IndexMeta> {
        self.service.resolve(name, IndicesOptions::SEARCH).await.unwrap().remove(0)
    }

    async fn write(&self, meta: &Arc<IndexMeta>, op: WriteOp) -> Result<WriteResult, EsError> {
        self.service.write(meta, vec![op], WRITE_TIMEOUT).await.remove(0).1
    }

    async fn docs(&self, meta: &IndexMeta) -> u64 {
        let shards: Vec<_> = meta.shards().map(|(id, _)| id).collect();
        let (done, total) = self.service.refresh(&shards, 1).await;
        assert_eq!(done, total);
        let facts = self.service.facts(&shards).await;
        facts.iter().flat_map(|(_, facts)| facts).map(|f| f.docs).sum()
    }

    async fn source(&self, meta: &IndexMeta, id: &str) -> Option<String> {
        let found = self.service.get_many(meta, &[(id.to_owned(), None)]).await.remove(0).unwrap();
        found.map(|state| String::from_utf8(state.source.to_vec()).unwrap())
    }
}

fn op(id: &str, kind: WriteKind) -> WriteOp {
    WriteOp {
        kind,
        id: id.to_owned(),
        auto_id: false,
        routing: None,
        version: None,
        if_seq_no: None,
    }
}

fn index(id: &str, source: &str) -> WriteOp {
    op(id, WriteKind::Index(Bytes::copy_from_slice(source.as_bytes())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_written_read_and_counted() {
    let solo = solo();
    let meta = solo.create("news", 3).await;
    for i in 0..20 {
        let done = solo.write(&meta, index(&i.to_string(), r#"{"subject":"회의"}"#)).await.unwrap();
        assert_eq!((done.outcome, done.version), (Outcome::Created, 1));
    }
    assert_eq!(solo.source(&meta, "7").await.unwrap(), r#"{"subject":"회의"}"#);
    assert_eq!(solo.docs(&meta).await, 20);
    let again = solo.write(&meta, index("7", r#"{"subject":"b"}"#)).await.unwrap();
    assert_eq!((again.outcome, again.version), (Outcome::Updated, 2));
    let gone = solo.write(&meta, op("8", WriteKind::Delete)).await.unwrap();
    assert_eq!((gone.outcome, gone.version), (Outcome::Deleted, 2));
    assert_eq!(solo.source(&meta, "8").await, None);
    assert_eq!(solo.docs(&meta).await, 19);
    let back = solo.write(&meta, index("8", "{}")).await.unwrap();
    assert_eq!((back.outcome, back.version), (Outcome::Created, 3));
}

/// A time-out is for a leader that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_without_patience_is_made_where_its_leader_is_there() {
    let solo = solo();
    let meta = solo.create("a", 1).await;
    solo.write(&meta, index("1", "{}")).await.unwrap();
    let results = solo.service.write(&meta, vec![index("2", "{}")], Duration::ZERO).await;
    assert!(results.iter().all(|(_, result)| result.is_ok()), "{results:?}");
    assert_eq!(solo.docs(&meta).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicts_and_updates_follow_the_newest_state() {
    let solo = solo();
    let meta = solo.create("a", 1).await;
    let create = op("1", WriteKind::Create(Bytes::from_static(br#"{"n":1}"#)));
    let first = solo.write(&meta, create.clone()).await.unwrap();
    let conflict = solo.write(&meta, create.clone()).await.unwrap_err();
    assert_eq!(
        conflict.reason,
        "[1]: version conflict, document already exists (current version [1])"
    );
    assert_eq!(solo.docs(&meta).await, 1);
    assert_eq!(solo.write(&meta, create).await.unwrap_err().status, 409);
    let doc = Some(Bytes::from_static(br#"{"m":2}"#));
    let update = UpdateSpec { doc, detect_noop: true, want_source: true, ..Default::default() };
    let mut update = op("1", WriteKind::Update(update));
    update.if_seq_no = Some((first.seq_no, first.primary_term));
    let done = solo.write(&meta, update.clone()).await.unwrap();
    assert_eq!(done.source.as_deref(), Some(br#"{"n":1,"m":2}"#.as_slice()));
    assert_eq!(solo.write(&meta, update).await.unwrap_err().status, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_fields_reach_the_mapping_first() {
    let solo = solo();
    let meta = solo.create("a", 1).await;
    solo.write(&meta, index("1", r#"{"n":1,"t":"x"}"#)).await.unwrap();
    let newer = solo.meta("a").await;
    assert!(newer.row.mapping_version > meta.row.mapping_version);
    assert_eq!(newer.schema.field("n").unwrap().type_name, "long");
    let error = solo.write(&newer, index("2", r#"{"n":"abc"}"#)).await.unwrap_err();
    assert_eq!((error.status, error.kind.as_str()), (400, "mapper_parsing_exception"));
    assert_eq!(solo.docs(&newer).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_move_with_their_documents_or_not_at_all() {
    let solo = solo();
    let meta = solo.create("a", 2).await;
    let mark = |expected, new| MarkChange { pipeline: "p".to_owned(), partition: 4, expected, new };
    let docs = vec![index("1", "{}")];
    solo.service.apply_marked(&meta, 0, mark(None, 10), docs.clone()).await.unwrap();
    solo.service.apply_marked(&meta, 1, mark(None, 10), Vec::new()).await.unwrap();
    // An answer may be lost: the same call again changes nothing and succeeds.
    solo.service.apply_marked(&meta, 0, mark(None, 10), docs.clone()).await.unwrap();
    let wrong = solo.service.apply_marked(&meta, 0, mark(None, 11), docs).await.unwrap_err();
    assert!(matches!(wrong, MarkedError::Mismatch { found: Some(10) }));
    let marks = solo.service.marks(&meta, "p").await.unwrap();
    assert_eq!(marks.into_iter().collect::<Vec<_>>(), [((0, 4), 10), ((1, 4), 10)]);
    assert_eq!(solo.docs(&meta).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_stays_when_a_field_cannot_be_mapped_for_a_while() {
    let solo = solo();
    let meta = solo.create("a", 1).await;
    let mark = || MarkChange { pipeline: "p".to_owned(), partition: 0, expected: None, new: 3 };
    let docs = || vec![index("1", "{}"), index("2", r#"{"n":1}"#), index("3", "[")];
    solo.no_master.store(true, Ordering::Relaxed);
    let failed = solo.service.apply_marked(&meta, 0, mark(), docs()).await.unwrap_err();
    assert!(matches!(failed, MarkedError::Failed(e) if e.passes()));
    assert!(solo.service.marks(&meta, "p").await.unwrap().is_empty());
    assert_eq!(solo.docs(&meta).await, 0);
    solo.no_master.store(false, Ordering::Relaxed);
    // What is wrong with a document itself is told before the mark passes it.
    let failed = solo.service.apply_marked(&meta, 0, mark(), docs()).await.unwrap_err();
    let MarkedError::Refused(refused) = failed else { panic!("{failed:?}") };
    assert_eq!(refused.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2]);
    assert!(solo.service.marks(&meta, "p").await.unwrap().is_empty());
    let good = docs()[..2].to_vec();
    solo.service.apply_marked(&meta, 0, mark(), good).await.unwrap();
    assert_eq!(solo.service.marks(&meta, "p").await.unwrap()[&(0, 0)], 3);
    assert_eq!(solo.docs(&meta).await, 2);
}

/// What a shard's machine digests to after more than one translog segment.
fn translog(restarts: bool) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let writer = SegmentWriter::start(&env, WriterOptions::default());
    let shared = IndexShared::new(env, dir.path().to_owned(), writer);
    let group = GroupId::data(0);
    let (store, mut pending) = (consensus::MemStore::default(), BTreeMap::new());
    let mut machine = shared.machine_data(group);
    let shard = ShardId { index: IndexUuid([7; 16]), number: 0 };
    let source = Bytes::from(vec![b' '; usize::try_from(TRANSLOG_SEGMENT_BYTES / 8).unwrap()]);
    for n in 0..11 {
        let mut ops = Writer::default();
        let (id, source) = (n.to_string(), source.clone());
        LoggedOp { delete: false, version: 1, id, routing: None, source }.write(&mut ops);
        let ops = OpsCommand {
            shard,
            term: 1,
            base_seq_no: n,
            mapping_version: 1,
            mark: None,
            count: 1,
            ops: ops.finish(),
        };
        let create = (n == 0).then_some(ShardCommand::Create(shard));
        for command in create.into_iter().chain([ShardCommand::Ops(ops)]) {
            let at = ApplyAt { group, index: n + 1, term: 1, time_ms: 5 };
            let mut rows = consensus::Rows::new(&store, &mut pending, tags::INDEX);
            machine.apply(&at, command.encode(), &mut rows).unwrap();
        }
        if restarts {
            let mut rows = consensus::Rows::new(&store, &mut pending, tags::INDEX);
            machine.capture(&mut rows).unwrap();
            machine.begin_checkpoint()().unwrap();
            machine.release().unwrap();
            machine = shared.machine_data(group);
            machine.restore(&rows).unwrap();
        }
    }
    assert_eq!(shared.copy(shard).unwrap().stream.segments().len(), 2);
    let mut digest = Vec::new();
    machine.digest(&mut |bytes| digest.extend_from_slice(bytes)).unwrap();
    digest
}

#[test]
fn translog_segments_roll_at_the_same_place_after_restarts() {
    assert!(translog(false) == translog(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_can_be_used_again_and_shards_go_with_their_index() {
    let solo = solo();
    let meta = solo.create("a", 2).await;
    solo.write(&meta, index("1", "{}")).await.unwrap();
    let spec = CreateSpec::default();
    let error = solo.service.create("a", spec).await.unwrap_err();
    assert_eq!(error.kind, "resource_already_exists_exception");
    solo.service.delete(&[meta]).await.unwrap();
    assert!(solo.shared.copies().is_empty());
    let meta = solo.create("a", 1).await;
    assert_eq!(solo.source(&meta, "1").await, None);
    assert_eq!(solo.docs(&meta).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_shards_have_their_documents() {
    let solo = solo();
    let meta = solo.create("a", 1).await;
    solo.write(&meta, index("1", r#"{"a":1}"#)).await.unwrap();
    solo.write(&meta, index("2", "{}")).await.unwrap();
    let (id, group) = meta.shards().next().unwrap();
    let number = usize::from(group.data_number().unwrap());
    solo.groups[number].checkpoint();
    // A machine that restores from these rows stands for the next start of the node.
    let mut machine = solo.shared.machine_data(group);
    let old = solo.shared.copy(id).unwrap();
    old.close();
    while old.engine().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let store = consensus::MemStore::default();
    let mut pending = BTreeMap::new();
    for (key, value) in solo.groups[number].reader(tags::INDEX).scan(b"", None, 100).unwrap() {
        let key = [&[tags::INDEX], key.as_slice()].concat();
        pending.insert(key, Some(value));
    }
    machine.restore(&consensus::Rows::new(&store, &mut pending, tags::INDEX)).unwrap();
    let copy = solo.shared.copy(id).unwrap();
    assert_eq!(copy.next_seq_no(), 2);
    while !copy.is_started() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(solo.source(&meta, "1").await.unwrap(), r#"{"a":1}"#);
    assert_eq!(copy.engine().unwrap().stats().docs, 2);
}
