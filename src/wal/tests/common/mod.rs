//! A log on a simulated disk, driven step by step.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses a part")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::env::sim_disk::{Crash, SimDisk};
use base::env::{Clock, SeededRandom};
use base::{Disk, Env, GroupId};
use bytes::Bytes;
use parking_lot::Mutex;
use wal::{Done, LogPos, Options, SyncMode, Wal, WalEntry, WalError, WalThread};

pub(crate) const DIR: &str = "/node/wal";
pub(crate) const G: GroupId = GroupId(2);

/// A clock that stands still until it is moved.
#[derive(Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst) as i64
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Disk, clock and settings; survives crashes.
pub(crate) struct Rig {
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) env: Env,
    pub(crate) options: Options,
}

impl Rig {
    pub(crate) fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let clock = Arc::new(ManualClock::default());
        let random = Arc::new(SeededRandom::new(seed ^ 0x5eed));
        let env = Env { clock: clock.clone(), random, disk: Arc::new(disk.clone()) };
        let options = Options {
            file_bytes: 64 << 10,
            tail_cache_bytes: 8 << 10,
            ..Options::new(PathBuf::from(DIR))
        };
        Self { disk, clock, env, options }
    }

    pub(crate) fn with_sync(seed: u64, sync: SyncMode) -> Self {
        let mut rig = Self::new(seed);
        rig.options.sync = sync;
        rig
    }

    pub(crate) fn try_open(&self) -> Result<(Wal, WalThread), WalError> {
        Wal::open(&self.env, self.options.clone())
    }

    pub(crate) fn open(&self) -> (Wal, WalThread) {
        self.try_open().expect("the log opens")
    }

    pub(crate) fn crash(&self, how: Crash) -> (Wal, WalThread) {
        self.disk.crash(how);
        self.open()
    }

    /// Numbers of the files in use or prepared.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        let names = self.names();
        names.iter().filter_map(|n| n.strip_suffix(".wal")?.parse().ok()).collect()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let paths = self.disk.read_dir(Path::new(DIR)).unwrap();
        paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }
}

pub(crate) fn path(seq: u32) -> PathBuf {
    Path::new(DIR).join(format!("{seq:010}.wal"))
}

pub(crate) fn pos(term: u64, index: u64) -> LogPos {
    LogPos { term, node: term + 100, index }
}

/// Entries of one term, each with a body of `size` bytes made from its identity.
pub(crate) fn entries(term: u64, from: u64, count: u64, size: usize) -> Vec<WalEntry> {
    (from..from + count)
        .map(|index| WalEntry { pos: pos(term, index), body: body(term, index, size) })
        .collect()
}

pub(crate) fn body(term: u64, index: u64, size: usize) -> Bytes {
    let seed = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ term;
    (0..size).map(|i| (seed >> (i % 8 * 8)) as u8 ^ i as u8).collect()
}

/// Results of callbacks in the order of their calls.
#[derive(Clone, Default)]
pub(crate) struct Acks(Arc<Mutex<Vec<(u64, bool)>>>);

impl Acks {
    pub(crate) fn done(&self, name: u64) -> Done {
        let acks = self.0.clone();
        Box::new(move |result: io::Result<()>| acks.lock().push((name, result.is_ok())))
    }

    pub(crate) fn all(&self) -> Vec<(u64, bool)> {
        self.0.lock().clone()
    }
}

pub(crate) fn ignore() -> Done {
    Box::new(|_| {})
}

/// All entries of a group, read in small portions.
pub(crate) fn read_all(wal: &Wal, group: GroupId) -> Vec<WalEntry> {
    let mut all = Vec::new();
    let Some(mut next) = wal.first_index(group) else { return all };
    loop {
        let some = wal.read(group, next, u64::MAX, 5000).expect("readable");
        let Some(last) = some.last() else { return all };
        next = last.pos.index + 1;
        all.extend(some);
    }
}
