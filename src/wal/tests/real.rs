//! The machine's own disk and threads.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Env, GroupId};
use bytes::Bytes;
use common::*;
use wal::{Options, SyncMode, Wal};

const PATIENCE: Duration = Duration::from_secs(30);

fn options(dir: &Path) -> Options {
    Options { file_bytes: 1 << 20, tail_cache_bytes: 64 << 10, ..Options::new(dir.join("wal")) }
}

fn open(options: Options) -> (Wal, JoinHandle<()>) {
    let (wal, thread) = Wal::open(&Env::real(), options).unwrap();
    (wal, base::task::thread("wal", move || thread.run()))
}

/// Waits for one callback.
fn wait(call: impl FnOnce(wal::Done)) {
    let (tx, rx) = mpsc::channel();
    call(Box::new(move |result| tx.send(result).unwrap()));
    rx.recv_timeout(PATIENCE).unwrap().unwrap();
}

/// Several groups append at once over many files; all of it is there afterwards.
fn load(options: Options) {
    let (wal, thread) = open(options.clone());
    let acked = Arc::new(AtomicU64::new(0));
    let owners: Vec<_> = (0..4)
        .map(|number| {
            let (wal, acked, group) = (wal.clone(), acked.clone(), GroupId(number));
            base::task::thread("owner", move || {
                for i in 0..60 {
                    let acked = acked.clone();
                    let done = move |result: std::io::Result<()>| {
                        result.unwrap();
                        acked.fetch_add(1, Ordering::SeqCst);
                    };
                    wal.append(group, entries(1, i * 4, 4, 5000), Box::new(done));
                    if i % 10 == 9 {
                        wait(|done| wal.save_vote(group, Bytes::from(vec![i as u8]), done));
                        wal.purge(group, pos(1, i * 2));
                        wal.set_checkpointed(group, i * 2);
                    }
                }
                wait(|done| wal.append(group, vec![], done));
            })
        })
        .collect();
    owners.into_iter().for_each(|owner| owner.join().unwrap());
    assert_eq!(acked.load(Ordering::SeqCst), 240);
    assert!(wal.stats().files > 1 && wal.stats().flushes > 0);
    wal.stop();
    thread.join().unwrap();

    let (wal, thread) = open(options);
    for group in (0..4).map(GroupId) {
        assert_eq!(wal.vote(group).unwrap(), vec![59u8]);
        assert_eq!(wal.purged(group), Some(pos(1, 118)));
        assert_eq!(read_all(&wal, group), entries(1, 119, 121, 5000));
    }
    wait(|done| wal.append(GroupId(0), entries(2, 240, 1, 10), done));
    wal.stop();
    thread.join().unwrap();
}

#[test]
fn a_real_thread_on_the_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    load(options(dir.path()));
}

#[test]
fn a_file_system_in_memory_works_too() {
    let shm = PathBuf::from("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    let dir = dir.unwrap();
    load(options(dir.path()));
}

#[test]
fn synced_at_intervals() {
    let dir = tempfile::tempdir().unwrap();
    let every = SyncMode::Interval(Duration::from_millis(20));
    load(Options { sync: every, ..options(dir.path()) });
}

#[tokio::test]
async fn durability_can_be_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let every = SyncMode::Interval(Duration::from_millis(20));
    let (wal, thread) = open(Options { sync: every, ..options(dir.path()) });
    let (tx, rx) = tokio::sync::oneshot::channel();
    wal.append(G, entries(1, 0, 3, 10), Box::new(move |r| tx.send(r.is_ok()).unwrap()));
    assert!(rx.await.unwrap());
    tokio::time::timeout(PATIENCE, wal.wait_durable(G, 2)).await.unwrap().unwrap();
    assert_eq!(wal.durable_index(G), 2);
    tokio::time::timeout(PATIENCE, wal.wait_queue_below(1)).await.unwrap().unwrap();
    let waiting = wal.clone();
    wal.stop();
    let stopped = tokio::time::timeout(PATIENCE, waiting.wait_durable(G, 3)).await.unwrap();
    assert!(stopped.is_err());
    thread.join().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_simulation_drives_the_log_as_a_task() {
    let rig = Rig::with_sync(1, SyncMode::Interval(Duration::from_millis(20)));
    let env = Env { clock: Arc::new(base::env::TokioClock::new(0)), ..rig.env.clone() };
    let (wal, thread) = Wal::open(&env, rig.options.clone()).unwrap();
    let tasks = base::TaskGroup::new();
    tasks.spawn_graceful("wal", thread.drive(Duration::from_millis(1)));
    wal.append(G, entries(1, 0, 3, 10), ignore());
    wal.wait_durable(G, 2).await.unwrap();
    wal.stop();
    tasks.shutdown(PATIENCE).await;
    rig.disk.crash(base::env::sim_disk::Crash::LoseUnsynced);
    assert_eq!(rig.open().0.last(G), Some(pos(1, 2)));
}
