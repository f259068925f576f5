//! The collector against sinks that fail before or after every step, with crashes between.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::{Env, TaskGroup};
use collect::config::{RecordConfig, SourceConfig, SourceKind};
use collect::ident::{FileKey, Stat, Version};
use collect::record::RecordBuilder;
use collect::remote::{Connect, RemoteError};
use collect::runner::{Job, Progress, SharedProgress, Stopped, connector, run};
use collect::sink::{AppendItem, Appended, GivenUp, SinkError, Sinks, StoreFile};
use parking_lot::Mutex;
use tokio::sync::Notify;

#[path = "exactly_once/stops.rs"]
mod stops;

const PARTITIONS: u32 = 3;

/// Where a step breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// The step does not happen; the caller is told to retry.
    Before,
    /// The step happens; the caller is told that the outcome is unknown.
    After,
    /// The step happens and the node dies before the answer.
    Die,
    /// The node dies and the step does not happen.
    DieBefore,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, (Version, Vec<u8>)>,
    ledger: BTreeMap<FileKey, Version>,
    log: Vec<(u32, FileKey, Version, Vec<u8>)>,
    given_up: BTreeMap<FileKey, Stat>,
    calls: usize,
    plan: Option<(usize, Break)>,
    fenced: bool,
}

#[derive(Default)]
struct Fake {
    state: Mutex<State>,
    died: Notify,
}

impl Fake {
    /// Runs one step through the plan.
    async fn step<T>(&self, act: impl FnOnce(&mut State) -> T) -> Result<T, SinkError> {
        let (broken, value) = {
            let mut state = self.state.lock();
            if state.fenced {
                return Err(SinkError::Fenced);
            }
            let call = state.calls;
            state.calls += 1;
            let broken = state.plan.filter(|(at, _)| *at == call).map(|(_, b)| b);
            let happens = !matches!(broken, Some(Break::Before | Break::DieBefore));
            (broken, happens.then(|| act(&mut state)))
        };
        match (broken, value) {
            (None, Some(value)) => Ok(value),
            (Some(Break::Die | Break::DieBefore), _) => {
                self.died.notify_one();
                std::future::pending().await
            }
            _ => Err(SinkError::Retry("unknown outcome".into())),
        }
    }
}

#[async_trait]
impl Sinks for Fake {
    fn known(&self, _: u32, key: FileKey) -> Result<Option<Version>, SinkError> {
        Ok(self.state.lock().ledger.get(&key).copied())
    }

    fn given_up(&self, key: FileKey) -> Option<Stat> {
        self.state.lock().given_up.get(&key).copied()
    }

    async fn give_up(&self, file: GivenUp) -> Result<(), SinkError> {
        self.state.lock().given_up.insert(file.key, file.stat);
        Ok(())
    }

    async fn store(&self, files: Vec<StoreFile>) -> Result<Vec<Result<(), SinkError>>, SinkError> {
        self.step(|state| {
            let mut results = Vec::new();
            for file in files {
                if file.path.ends_with("refused.txt") {
                    results.push(Err(SinkError::Refused("bad name".into())));
                    continue;
                }
                state.files.insert(file.path, (file.version, file.bytes.to_vec()));
                results.push(Ok(()));
            }
            results
        })
        .await
    }

    async fn append(
        &self,
        partition: u32,
        items: Vec<AppendItem>,
    ) -> Result<Vec<Result<Appended, SinkError>>, SinkError> {
        self.step(|state| {
            let mut out = Vec::new();
            for item in items {
                if state.ledger.get(&item.key) == Some(&item.version) {
                    out.push(Ok(Appended::Known));
                    continue;
                }
                out.push(Ok(Appended::New(state.log.len() as u64)));
                state.ledger.insert(item.key, item.version);
                state.log.push((partition, item.key, item.version, item.record.value));
            }
            out
        })
        .await
    }
}

fn job(root: &Path) -> Job {
    let source = SourceConfig {
        kind: SourceKind::Local,
        path: root.to_str().unwrap().to_owned(),
        sessions: 2,
        settle_ms: 20,
        settle_empty_ms: 20,
        scan_interval_ms: 100,
        max_attempts: 1,
        ..Default::default()
    };
    Job {
        name: "news".into(),
        source,
        record: RecordBuilder::new(&RecordConfig::default()).unwrap(),
        store: "/datalake/news/".into(),
        partitions: PARTITIONS,
    }
}

/// Collects until everything is in, or the node dies, or the source stops.
async fn collect(fake: &Arc<Fake>, root: &Path) -> Option<Stopped> {
    let connect = connector(&job(root).source);
    collect_over(fake, root, connect).await.0
}

/// As [`collect`], over connections of the test's making; also what people were told at the end.
async fn collect_over(
    fake: &Arc<Fake>,
    root: &Path,
    connect: Connect,
) -> (Option<Stopped>, Progress) {
    let job = job(root);
    let tasks = TaskGroup::new();
    let progress = SharedProgress::default();
    let sinks: Arc<dyn Sinks> = fake.clone();
    let running = run(job, connect, sinks, Env::real(), tasks.clone(), progress.clone());
    let settled = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let totals = progress.lock().totals;
            let all = totals.done + totals.quarantined == totals.listed;
            if totals.scans >= 2 && all && totals.pending == 0 && totals.listed > 0 {
                return;
            }
        }
    };
    let stopped = tokio::select! {
        stopped = running => Some(stopped),
        () = fake.died.notified() => None,
        () = settled => None,
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("did not settle"),
    };
    tasks.shutdown(Duration::from_secs(5)).await;
    let progress = progress.lock().clone();
    (stopped, progress)
}

fn write(root: &Path, name: &str, text: &str) {
    // Old time stamps: young files are read twice, which is another test's subject.
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let old = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    file.set_modified(old).unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn every_file_lands_once_wherever_the_node_breaks() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..12 {
        write(dir.path(), &format!("d{}/file {n}.txt", n % 3), &format!("제목 {n}\n본문\n"));
    }
    let runtime = runtime();
    for kind in [Break::Before, Break::After, Break::Die, Break::DieBefore] {
        for at in 0..6 {
            let fake = Arc::new(Fake::default());
            fake.state.lock().plan = Some((at, kind));
            runtime.block_on(async {
                collect(&fake, dir.path()).await;
                collect(&fake, dir.path()).await;
            });
            let state = fake.state.lock();
            assert_eq!(state.log.len(), 12, "{kind:?} at {at}");
            assert_eq!((state.ledger.len(), state.files.len()), (12, 12));
            assert_eq!(state.files["/datalake/news/d1/file 4.txt"].1, "제목 4\n본문\n".as_bytes());
        }
    }
}

#[test]
fn changes_become_new_versions_and_twins_stand_apart() {
    let dir = tempfile::tempdir().unwrap();
    let nfd: String = unicode_normalization::UnicodeNormalization::nfd("회의.txt").collect();
    write(dir.path(), "회의.txt", "완성형");
    write(dir.path(), &nfd, "조합형");
    write(dir.path(), "changing.txt", "one");
    let fake = Arc::new(Fake::default());
    let runtime = runtime();
    runtime.block_on(collect(&fake, dir.path()));
    write(dir.path(), "changing.txt", "two!");
    runtime.block_on(collect(&fake, dir.path()));
    let state = fake.state.lock();
    assert_eq!(state.log.len(), 4);
    assert_eq!(state.files["/datalake/news/회의.txt"].1, "완성형".as_bytes());
    assert_eq!(state.files["/datalake/news/회의~2.txt"].1, "조합형".as_bytes());
    assert_eq!(state.files["/datalake/news/changing.txt"].1, b"two!");
    let partitions: Vec<u32> = (state.log.iter())
        .filter(|(.., value)| String::from_utf8_lossy(value).contains("회의.txt"))
        .map(|(partition, ..)| *partition)
        .collect();
    assert_eq!(partitions[0], partitions[1], "twins share a partition");
}

#[test]
fn a_refused_file_goes_to_quarantine_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "refused.txt", "x");
    write(dir.path(), "good.txt", "y");
    let fake = Arc::new(Fake::default());
    runtime().block_on(collect(&fake, dir.path()));
    let state = fake.state.lock();
    assert_eq!((state.log.len(), state.given_up.len()), (1, 1));
}

#[test]
fn a_server_that_is_away_for_a_while_is_no_files_fault() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..6 {
        write(dir.path(), &format!("{n}.txt"), "text");
    }
    let connect = connector(&job(dir.path()).source);
    let tried = AtomicUsize::new(0);
    // The list comes, and then three connections to fetch with are refused.
    let away: Connect = Arc::new(move || match tried.fetch_add(1, Ordering::SeqCst) {
        1..=3 => Err(RemoteError::Connection("refused".into())),
        _ => connect(),
    });
    let fake = Arc::new(Fake::default());
    let (stopped, progress) = runtime().block_on(collect_over(&fake, dir.path(), away));
    assert!(stopped.is_none(), "{stopped:?}");
    let state = fake.state.lock();
    assert_eq!((state.log.len(), state.given_up.len()), (6, 0));
    assert_eq!((progress.failed, progress.last_error), (0, None));
}

#[test]
fn a_fenced_collector_stops() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.txt", "x");
    let fake = Arc::new(Fake::default());
    fake.state.lock().fenced = true;
    assert_eq!(runtime().block_on(collect(&fake, dir.path())), Some(Stopped::Fenced));
}

#[test]
fn a_young_file_is_read_a_second_time_without_a_second_record() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("young.txt"), "now").unwrap();
    let fake = Arc::new(Fake::default());
    let runtime = runtime();
    runtime.block_on(collect(&fake, dir.path()));
    runtime.block_on(collect(&fake, dir.path()));
    assert_eq!(fake.state.lock().log.len(), 1);
}
