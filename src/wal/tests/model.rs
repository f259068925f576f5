//! Random histories with crashes, against a model.
//!
//! The model keeps the requests in the order of the queue. After a crash the log must equal the
//! state after some prefix of them, and the prefix must hold every request that was called back
//! (with `SyncMode::Interval` and a power loss: everything that `durable_index` promised).

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::GroupId;
use base::env::sim_disk::Crash;
use base::env::{Random, SeededRandom};
use bytes::Bytes;
use common::*;
use wal::{LogPos, SyncMode, Wal, WalEntry, WalThread};

const GROUPS: [GroupId; 3] = [GroupId::M0, GroupId::FS, GroupId(2)];

#[derive(Clone, Debug)]
enum Op {
    Entry(WalEntry),
    Vote(Bytes),
    Truncate(Option<u64>),
    Purge(LogPos),
    /// An append of nothing.
    Nothing,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Group {
    vote: Option<Bytes>,
    purged: Option<LogPos>,
    entries: BTreeMap<u64, WalEntry>,
}

impl Group {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Entry(entry) => drop(self.entries.insert(entry.pos.index, entry.clone())),
            Op::Vote(vote) => self.vote = Some(vote.clone()),
            Op::Truncate(None) => self.entries.clear(),
            Op::Truncate(Some(index)) => self.entries.retain(|i, _| i <= index),
            Op::Purge(pos) => {
                if self.purged.is_none_or(|p| p.index < pos.index) {
                    self.entries.retain(|i, _| *i > pos.index);
                    self.purged = Some(*pos);
                }
            }
            Op::Nothing => {}
        }
    }

    fn last(&self) -> Option<LogPos> {
        self.entries.values().next_back().map(|e| e.pos).or(self.purged)
    }

    fn next(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    fn of(wal: &Wal, group: GroupId) -> Self {
        let entries = read_all(wal, group).into_iter().map(|e| (e.pos.index, e)).collect();
        Self { vote: wal.vote(group), purged: wal.purged(group), entries }
    }
}

type Groups = BTreeMap<GroupId, Group>;

struct History {
    rig: Rig,
    random: SeededRandom,
    wal: Wal,
    thread: WalThread,
    /// The state after the last recovery, and the requests since.
    base: Groups,
    ops: Vec<(GroupId, Op)>,
    /// The state after all requests.
    now: Groups,
    /// Requests that were called back: all up to this many.
    acked: Arc<AtomicUsize>,
    committed: BTreeMap<GroupId, LogPos>,
    term: u64,
    votes: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let every = Duration::from_millis(50);
        let sync = if seed % 4 == 3 { SyncMode::Interval(every) } else { SyncMode::EveryFlush };
        let rig = Rig::with_sync(seed, sync);
        if seed % 4 == 2 {
            rig.disk.refuse_direct();
        }
        let (wal, thread) = rig.open();
        Self {
            rig,
            random: SeededRandom::new(seed),
            wal,
            thread,
            base: GROUPS.map(|g| (g, Group::default())).into(),
            ops: Vec::new(),
            now: GROUPS.map(|g| (g, Group::default())).into(),
            acked: Arc::default(),
            committed: BTreeMap::new(),
            term: 1,
            votes: 0,
        }
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn note(&mut self, group: GroupId, op: Op) {
        self.now.get_mut(&group).unwrap().apply(&op);
        self.ops.push((group, op));
    }

    fn done(&self) -> wal::Done {
        let (acked, count) = (self.acked.clone(), self.ops.len());
        Box::new(move |result| {
            if result.is_ok() {
                assert!(acked.fetch_max(count, Ordering::SeqCst) <= count, "in order");
            }
        })
    }

    fn act(&mut self) {
        let group = GROUPS[self.below(3) as usize];
        let log = &self.now[&group];
        let (first, next) = (log.purged.map_or(0, |p| p.index + 1), log.next());
        let committed = self.committed.get(&group).map(|c| c.index);
        match self.below(20) {
            0..=7 => {
                let size = [0, 7, 300, 3000, 20_000][self.below(5) as usize];
                let new = entries(self.term, next, self.below(5), size);
                for entry in &new {
                    self.note(group, Op::Entry(entry.clone()));
                }
                if new.is_empty() {
                    self.note(group, Op::Nothing);
                }
                let done = self.done();
                self.wal.append(group, new, done);
            }
            8 => {
                self.votes += 1;
                let vote = Bytes::from(self.votes.to_be_bytes().to_vec());
                self.note(group, Op::Vote(vote.clone()));
                let done = self.done();
                self.wal.save_vote(group, vote, done);
            }
            9 => {
                // Never below what is committed, as Raft has it.
                let keep = committed.map_or(0, |c| c + 1).max(first);
                let to = keep + self.below(next.saturating_sub(keep) + 1);
                self.term += 1;
                let index = to.checked_sub(1);
                self.note(group, Op::Truncate(index));
                self.wal.truncate_after(group, index);
            }
            10 => {
                let Some(last) = log.last() else { return };
                let upto = if self.below(8) == 0 {
                    pos(self.term, last.index + self.below(20))
                } else {
                    let index = first + self.below(next - first);
                    log.entries.get(&index).map_or(last, |e| e.pos)
                };
                self.wal.set_checkpointed(group, upto.index);
                self.note(group, Op::Purge(upto));
                self.wal.purge(group, upto);
                let committed = self.committed.entry(group).or_insert(upto);
                *committed = upto.max(*committed);
            }
            11..=13 => {
                let from = committed.map_or(0, |c| c + 1).max(first);
                if from < next {
                    let index = from + self.below(next - from);
                    let pos = log.entries[&index].pos;
                    self.committed.insert(group, pos);
                    self.wal.set_committed(group, pos);
                }
            }
            14 => self.rig.clock.advance(Duration::from_millis(self.below(60))),
            15 => self.check_now(group),
            _ => drop(self.thread.step()),
        }
    }

    /// The log in memory must be the model.
    fn check_now(&self, group: GroupId) {
        let log = &self.now[&group];
        assert_eq!(Group::of(&self.wal, group), *log);
        assert_eq!(self.wal.last(group), log.last());
        let bytes: usize = log.entries.values().map(|e| e.body.len()).sum();
        assert_eq!(self.wal.live_bytes_of(group), bytes as u64);
        if let (Some(from), Some(to)) = (log.entries.keys().next(), log.entries.keys().last()) {
            let mut keys: Vec<LogPos> = log.entries.values().map(|e| e.pos).collect();
            keys.dedup_by_key(|p| p.term);
            keys.extend(log.last().filter(|last| keys.last() != Some(last)));
            assert_eq!(self.wal.key_positions(group, *from, *to), keys);
        }
    }

    fn crash(&mut self) {
        let how = [Crash::Process, Crash::LoseUnsynced, Crash::TearUnsynced];
        let how = how[self.below(3) as usize];
        if self.below(2) == 0 && self.wal.failed().is_none() {
            self.rig.disk.power_off_in(1 + self.below(12));
            self.thread.step();
        }
        let durable: Vec<(GroupId, Vec<WalEntry>)> = GROUPS
            .map(|g| {
                let upto = self.wal.is_durable(g, 0).then(|| self.wal.durable_index(g));
                let all = self.now[&g].entries.values();
                (g, all.filter(|e| Some(e.pos.index) <= upto).cloned().collect())
            })
            .into();
        let (wal, thread) = self.rig.crash(how);
        (self.wal, self.thread) = (wal, thread);
        let weak = self.rig.options.sync != SyncMode::EveryFlush && how != Crash::Process;
        let least = if weak { 0 } else { self.acked.load(Ordering::SeqCst) };
        self.base = self.find_prefix(least);
        for (group, entries) in durable {
            let log = &self.base[&group];
            let purged = log.purged.map(|p| p.index);
            for entry in entries.iter().filter(|e| Some(e.pos.index) > purged) {
                assert_eq!(log.entries.get(&entry.pos.index), Some(entry), "was durable");
            }
        }
        self.committed.clear();
        for group in GROUPS {
            if let Some(committed) = self.wal.committed(group) {
                let log = &self.base[&group];
                let below = log.purged.is_some_and(|p| committed.index <= p.index);
                let there = log.entries.get(&committed.index).is_some_and(|e| e.pos == committed);
                assert!(below || there, "{committed:?} in {group}");
                self.committed.insert(group, committed);
            }
        }
        self.ops.clear();
        self.acked = Arc::default();
        self.now = self.base.clone();
        self.term += 1;
    }

    /// The state of the reopened log, which must be that after at least `least` requests.
    fn find_prefix(&self, least: usize) -> Groups {
        let got: Groups = GROUPS.map(|g| (g, Group::of(&self.wal, g))).into();
        let mut state = self.base.clone();
        let mut best = None;
        for count in 0..=self.ops.len() {
            if count >= least && state == got {
                best = Some(count);
            }
            if let Some((group, op)) = self.ops.get(count) {
                state.get_mut(group).unwrap().apply(op);
            }
        }
        assert!(best.is_some(), "no prefix of {} from {least} requests", self.ops.len());
        got
    }
}

fn run(seed: u64) {
    let mut history = History::new(seed);
    for _ in 0..4 {
        for _ in 0..20 + history.below(200) {
            history.act();
        }
        if history.wal.failed().is_none() {
            GROUPS.iter().for_each(|g| history.check_now(*g));
        }
        history.crash();
    }
}

#[test]
fn nothing_acknowledged_is_lost_in_random_histories() {
    for seed in 0..200 {
        let failed = std::panic::catch_unwind(|| run(seed)).is_err();
        assert!(!failed, "seed {seed}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_in_new_random_histories() {
    let random = SeededRandom::from_entropy();
    for _ in 0..40 {
        let seed = random.next_u64();
        let failed = std::panic::catch_unwind(|| run(seed)).is_err();
        assert!(!failed, "seed {seed}");
    }
}
