//! openraft's own storage suite, run against the real log store over the real WAL on a real
//! disk, and against the host of the state machines; and what the suite does not ask.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use base::limits::KIB;
use base::{Env, GroupId, OpenMode};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::SnapshotOf;
use openraft::{EntryPayload, OptionalSend, RaftLogReader, RaftSnapshotBuilder, StorageError};
use parking_lot::Mutex;
use tokio::sync::watch;
use wal::Wal;

use super::batch::{self, Item};
use super::checkpoint::{CheckpointDir, Position};
use super::host::{Builder, Host, Manifest, Shared, Staged};
use super::store::LogStore;
use super::types::{Commands, Entry, LogId, SnapshotMeta, StoredMembership, Types, to_wal};
use crate::machine::{ApplyAt, Fatal, StateMachine};
use crate::table::{MemStore, Rows};

const GROUP: GroupId = GroupId::FS;

/// A host that makes a checkpoint where the cluster would: before a snapshot is built.
struct Node {
    host: Host,
    shared: Arc<Shared>,
    last: u64,
}

/// A snapshot and the data directory that its files lie in.
struct Offer {
    manifest: Manifest,
    from: PathBuf,
}

struct Build {
    builder: Builder,
    from: PathBuf,
}

fn offer(snapshot: SnapshotOf<Types, Manifest>, from: PathBuf) -> SnapshotOf<Types, Offer> {
    let Snapshot { meta, snapshot: manifest } = snapshot;
    Snapshot { meta, snapshot: Offer { manifest, from } }
}

impl RaftSnapshotBuilder<Types> for Build {
    type SnapshotData = Offer;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, Offer>, io::Error> {
        Ok(offer(self.builder.build_snapshot().await?, self.from.clone()))
    }
}

impl RaftStateMachine<Types> for Node {
    type SnapshotData = Offer;
    type SnapshotBuilder = Build;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.host.applied_state().await
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        self.host.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> Build {
        if let Some(mut taken) = self.host.checkpoint(self.last).unwrap() {
            self.last = taken.position.applied_index();
            taken.sync_files(GROUP).unwrap();
            self.shared.checkpoints.add(taken.position, taken.changes).unwrap();
        }
        if self.shared.checkpoints.current().is_none() {
            // The suite purges a log of which nothing was applied, which this code never does:
            // only a checkpoint lets it purge.
            let nothing = Position::new(None, &StoredMembership::default(), 0, Vec::new());
            self.shared.checkpoints.add(nothing, BTreeMap::new()).unwrap();
        }
        let builder = self.host.get_snapshot_builder().await;
        Build { builder, from: self.shared.data_dir.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        offered: Offer,
    ) -> Result<(), io::Error> {
        let Offer { mut manifest, from } = offered;
        let dir = self.shared.data_dir.join("snap");
        let disk = &self.shared.env.disk;
        disk.create_dir_all(&dir)?;
        for row in &manifest.rows {
            let bytes = disk.read(&from.join(&row.path), row.len)?;
            let name = row.path.rsplit('/').next().unwrap();
            disk.open(&dir.join(name), OpenMode::ReadWrite)?.write_all_at(&bytes, 0)?;
        }
        manifest.staged = Some(Staged { dir, pieces: Vec::new() });
        self.host.install_snapshot(meta, manifest).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Types, Offer>>, io::Error> {
        let latest = self.host.get_current_snapshot().await?;
        Ok(latest.map(|snapshot| offer(snapshot, self.shared.data_dir.clone())))
    }
}

/// Ends the WAL before its folder goes.
struct Guard {
    wal: Wal,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.wal.stop();
        self.thread.take().map(JoinHandle::join);
    }
}

struct Nodes;

impl StoreBuilder<Types, LogStore, Node, Guard> for Nodes {
    async fn build(&self) -> Result<(Guard, LogStore, Node), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let options = wal::Options {
            file_bytes: 256 * KIB as u64,
            keep_spare_files: 1,
            most_spare_files: 2,
            ..wal::Options::new(dir.path().join("wal"))
        };
        let (wal, thread) = Wal::open(&env, options).unwrap();
        let thread = base::task::thread("wal", move || thread.run());
        let shared = Arc::new(Shared {
            group: GROUP,
            env: env.clone(),
            data_dir: dir.path().to_owned(),
            store: Arc::new(MemStore::default()),
            checkpoints: CheckpointDir::open(&env, dir.path(), GROUP).unwrap(),
            applied: watch::Sender::new((0, 0)),
            damaged_copies: AtomicU64::new(0),
        });
        let host = Host::open(shared.clone(), BTreeMap::new()).unwrap();
        let log = LogStore { wal: wal.clone(), group: GROUP };
        let guard = Guard { wal, thread: Some(thread), _dir: dir };
        Ok((guard, log, Node { host, shared, last: u64::MAX }))
    }
}

/// Remembers the times that commands were applied at.
struct Times(Arc<Mutex<Vec<i64>>>);

impl StateMachine for Times {
    fn apply(&mut self, at: &ApplyAt, _: Bytes, _: &mut Rows<'_>) -> Result<Bytes, Fatal> {
        self.0.lock().push(at.time_ms);
        Ok(Bytes::new())
    }

    fn restore(&mut self, _: &Rows<'_>) -> Result<(), Fatal> {
        Ok(())
    }
}

fn entry(index: u64, time_ms: i64, len: usize) -> Entry {
    let items = [Item { tag: 1, body: vec![7; len].into() }];
    let payload = EntryPayload::Normal(Commands(batch::encode(time_ms, &items)));
    Entry { log_id: LogId::new_term_index(1, index), payload }
}

#[tokio::test]
async fn replicated_time_never_goes_back() {
    let (guard, _, node) = Nodes.build().await.unwrap();
    let times = Arc::new(Mutex::new(Vec::new()));
    let machine: Box<dyn StateMachine> = Box::new(Times(times.clone()));
    let mut host = Host::open(node.shared.clone(), BTreeMap::from([(1, machine)])).unwrap();
    // Leaders' clocks differ.
    let stamps = [(1, 1000), (2, 900), (3, 1001), (4, 5)];
    let entries = stamps.map(|(index, time_ms)| Ok((entry(index, time_ms, 1), None)));
    host.apply(futures::stream::iter(entries)).await.unwrap();
    assert_eq!(*times.lock(), [1000, 1000, 1001, 1001]);
    drop(guard);
}

#[tokio::test]
async fn a_replication_request_is_bounded_in_bytes_but_never_empty() {
    let (guard, mut log, _) = Nodes.build().await.unwrap();
    let sizes = [400 << 10, 400 << 10, 400 << 10, 3 << 20, 10];
    let entries: Vec<_> = (0u64..).zip(sizes).map(|(n, len)| to_wal(&entry(n, 1, len))).collect();
    let (done, written) = tokio::sync::oneshot::channel();
    log.wal.append(GROUP, entries, Box::new(move |result| drop(done.send(result))));
    written.await.unwrap().unwrap();
    let mut asked = async |from| log.limited_get_log_entries(from, 5).await.unwrap().len();
    assert_eq!(asked(0).await, 2);
    assert_eq!(asked(2).await, 1);
    assert_eq!(asked(3).await, 1, "one entry goes whatever its size");
    assert_eq!(log.try_get_log_entries(0..5).await.unwrap().len(), 5, "apply needs them all");
    drop(guard);
}

type Store = Suite<Types, LogStore, Node, Nodes, Guard>;

/// Runs parts of openraft's suite, each on a store of its own.
macro_rules! pass {
    ($($part:ident),* $(,)?) => {$({
        let (guard, log, node) = Nodes.build().await.unwrap();
        Store::$part(log, node).await.unwrap();
        drop(guard);
    })*};
}

/// All parts but `entries_stream`, which wants a range that reaches beyond the log to end quietly:
/// here it is an error, as openraft would count as applied what it could not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_store_and_the_host_pass_openrafts_suite() {
    pass!(
        last_membership_in_log_initial,
        last_membership_in_log,
        last_membership_in_log_multi_step,
        get_membership_initial,
        get_membership_from_log_and_empty_sm,
        get_membership_from_empty_log_and_sm,
        get_membership_from_log_le_sm_last_applied,
        get_membership_from_log_gt_sm_last_applied_1,
        get_membership_from_log_gt_sm_last_applied_2,
        get_initial_state_without_init,
        get_initial_state_membership_from_empty_log_and_sm,
        get_initial_state_membership_from_sm_inlog_is_smaller,
        get_initial_state_membership_from_log_insm_is_smaller,
        get_initial_state_with_state,
        get_initial_state_last_log_gt_sm,
        get_initial_state_last_log_lt_sm,
        get_initial_state_inverted_log_order,
        get_initial_state_conflict_at_same_index,
        get_initial_state_log_ids,
        get_initial_state_re_apply_committed,
        save_vote,
        get_log_entries,
        limited_get_log_entries,
        leader_bounded_stream,
        try_get_log_entry,
        log_reader_reads_new_entries,
        initial_logs,
        get_log_state,
        get_log_id,
        last_id_in_log,
        last_applied_state,
        purge_logs_upto_0,
        purge_logs_upto_5,
        purge_logs_upto_20,
        delete_logs_after_11,
        delete_logs_after_5,
        delete_logs_after_0,
        delete_logs_after_none,
        append_to_log,
        snapshot_meta,
        snapshot_meta_optional,
        apply_single,
        apply_multiple,
    );
    Store::transfer_snapshot(&Nodes).await.unwrap();
}

#[tokio::test]
async fn a_range_beyond_the_log_is_an_error_and_not_a_short_read() {
    let (guard, mut log, _) = Nodes.build().await.unwrap();
    let entries: Vec<_> = (0..3).map(|n| to_wal(&entry(n, 1, 10))).collect();
    let (done, written) = tokio::sync::oneshot::channel();
    log.wal.append(GROUP, entries, Box::new(move |result| drop(done.send(result))));
    written.await.unwrap().unwrap();
    let read: Vec<_> = log.entries_stream(1..5).await.collect().await;
    let good: Vec<_> = read.iter().flatten().map(|entry| entry.log_id.index).collect();
    assert_eq!((good, read.len()), (vec![1, 2], 3));
    let whole: Vec<_> = log.entries_stream(0..3).await.collect().await;
    assert_eq!(whole.iter().flatten().count(), 3);
    drop(guard);
}
