//! Compaction against a model of Kafka's rules, and with crashes at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use base::env::sim_disk::{Crash, SimDisk};
use base::env::{Random, SeededRandom};
use base::{Env, GroupId};
use bytes::Bytes;
use segment::{SegmentWriter, Stream, WriterOptions};

use super::PlanSpec;
use super::run::{Pace, Ran, run_next};
use crate::batch::{self, BatchHeader, Compression, frame_info, with_producer};
use crate::command::{self, Control};
use crate::compression::{Level, compress};
use crate::configs::ReplicaSettings;
use crate::partition::{Born, PartState, Partition};
use crate::records::{RecordRef, raw_records, records};
use crate::tests::{Life, digest};
use crate::transactions::Claim;
use crate::types::PartKey;

/// Never waits; gives up after so many calls.
struct Steps(u64);

impl Pace for Steps {
    fn spend(&mut self, _: u64) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }

    fn free_bytes(&self, _: &Stream) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

const FOREVER: u64 = u64::MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    offset: i64,
    key: Option<String>,
    value: Option<String>,
    time_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    InTransaction,
    Commit,
    Abort,
}

/// A batch as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Batch {
    base: i64,
    next: i64,
    producer: i64,
    sequence: i32,
    kind: Kind,
    rows: Vec<Row>,
    horizon: Option<i64>,
    max_time_ms: i64,
}

/// Kafka's rules, said as plainly as possible.
fn compacted(log: &[Batch], spec: &PlanSpec) -> Vec<Batch> {
    let inside = |b: &&Batch| b.base < spec.upto;
    let range_end = log.iter().filter(inside).map(|b| b.next).max().unwrap_or(0);
    let is_aborted = |b: &Batch| {
        let ends = |m: &&Batch| {
            m.producer == b.producer
                && m.base > b.base
                && matches!(m.kind, Kind::Commit | Kind::Abort)
        };
        b.kind == Kind::InTransaction
            && log.iter().find(ends).is_some_and(|m| m.kind == Kind::Abort && !m.rows.is_empty())
    };
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    for b in log.iter().filter(inside).filter(|b| !is_aborted(b)) {
        if matches!(b.kind, Kind::Plain | Kind::InTransaction) {
            for row in b.rows.iter().filter(|r| (spec.from..spec.end).contains(&r.offset)) {
                if let Some(key) = &row.key {
                    newest.insert(key, row.offset);
                }
            }
        }
    }
    let mut out = vec![];
    for b in log {
        if b.base >= spec.upto {
            out.push(b.clone());
            continue;
        }
        let marker = matches!(b.kind, Kind::Commit | Kind::Abort);
        // A marker is done with when its transaction has no batch between it and the one before.
        let is_done = marker && !b.rows.is_empty() && {
            let mine = |o: &&Batch| o.producer == b.producer && o.base < b.base;
            let last = log.iter().filter(mine).rfind(|o| {
                o.kind == Kind::InTransaction
                    || matches!(o.kind, Kind::Commit | Kind::Abort) && !o.rows.is_empty()
            });
            last.is_none_or(|o| o.kind != Kind::InTransaction)
        };
        let passed = b.horizon.is_some_and(|at| at <= spec.now_ms);
        let mut kept = b.clone();
        if marker {
            if is_done && passed {
                kept.rows.clear();
            }
        } else {
            let aborted = is_aborted(b);
            kept.rows.retain(|row| {
                !aborted
                    && (row.offset >= spec.end
                        || row.key.as_ref().is_some_and(|key| {
                            newest.get(key.as_str()).is_none_or(|n| *n <= row.offset)
                                && (row.value.is_some() || !passed)
                        }))
            });
        }
        if kept.rows.is_empty() {
            let mine = |o: &&Batch| {
                o.base < spec.upto
                    && o.producer == b.producer
                    && o.max_time_ms >= spec.producers_since_ms
            };
            let data_after = log
                .iter()
                .filter(mine)
                .any(|o| o.base > b.base && matches!(o.kind, Kind::Plain | Kind::InTransaction));
            let any_before = log.iter().filter(mine).any(|o| o.base < b.base);
            let is_last = b.producer >= 0
                && b.max_time_ms >= spec.producers_since_ms
                && !data_after
                && (!marker || !any_before);
            if is_last || b.next == range_end {
                kept.horizon = None;
                out.push(kept);
            }
            continue;
        }
        let tombstone = !marker && kept.rows.iter().any(|row| row.value.is_none());
        if kept.horizon.is_none() && (tombstone || is_done) {
            kept.horizon = Some(spec.now_ms + spec.delete_retention_ms);
        }
        if !marker {
            kept.max_time_ms = kept.rows.iter().map(|r| r.time_ms).max().unwrap_or(0);
        }
        out.push(kept);
    }
    out
}

/// One partition over a simulated disk, and the model of it.
struct Rig {
    part: Partition,
    writer: SegmentWriter,
    log: Vec<Batch>,
    end: i64,
    open: BTreeSet<i64>,
    sequences: BTreeMap<i64, i32>,
    random: SeededRandom,
    time_ms: i64,
}

impl Rig {
    fn new(seed: u64) -> Self {
        let env = Env { disk: Arc::new(SimDisk::new(seed)), ..Env::real() };
        env.disk.create_dir_all(Path::new("/p")).unwrap();
        let options =
            WriterOptions { chunk_bytes: 4096, stream_cache_bytes: 4096, ..Default::default() };
        let writer = SegmentWriter::start(&env, options);
        let stream = Stream::create(&writer, "/p/x".into(), frame_info);
        let key = PartKey { topic: uuid::Uuid::nil(), partition: 0 };
        let settings = ReplicaSettings { segment_bytes: 1 << 20, segment_ms: 1 << 40 };
        let state = PartState::new(settings, None, Born { term: 1, at_ms: 0 });
        let part = Partition::new(key, GroupId::data(0), "x".into(), stream, state);
        Self {
            part,
            writer,
            log: vec![],
            end: 0,
            open: BTreeSet::new(),
            sequences: BTreeMap::new(),
            random: SeededRandom::new(seed),
            time_ms: 1_000_000,
        }
    }

    fn chance(&self, of: u64) -> bool {
        self.random.below(of) == 0
    }

    fn append(&mut self, kind: Kind, producer: i64, rows: Vec<Row>) {
        let refs: Vec<_> = rows
            .iter()
            .map(|row| RecordRef {
                key: match kind {
                    Kind::Abort => Some(vec![0, 0, 0, 0].into()),
                    Kind::Commit => Some(vec![0, 0, 0, 1].into()),
                    _ => row.key.as_ref().map(|k| k.as_bytes().into()),
                },
                value: row.value.as_ref().map(|v| v.as_bytes().into()),
                headers: vec![("h".into(), b"v"[..].into())],
                timestamp_ms: row.time_ms,
            })
            .collect();
        let mut bytes = batch::build(&refs).to_vec();
        if kind != Kind::Plain {
            bytes[22] |= 0x10;
        }
        let marker = matches!(kind, Kind::Abort | Kind::Commit);
        if marker {
            bytes[22] |= 0x20;
        }
        let sequence = match producer {
            ..0 => -1,
            _ if marker => -1,
            _ => {
                let next = self.sequences.entry(producer).or_insert(0);
                *next += rows.len() as i32;
                *next - rows.len() as i32
            }
        };
        let mut bytes =
            with_producer(&bytes, producer, if producer < 0 { -1 } else { 0 }, sequence);
        let codecs = [
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ];
        let codec = codecs[self.random.below(5) as usize];
        if !marker && codec != Compression::None {
            let body = compress(codec, Level::DEFAULT, &bytes[batch::HEADER_BYTES..]).unwrap();
            bytes = batch::recompressed(&bytes, codec, &body);
        }
        let mut bytes = bytes::BytesMut::from(&bytes[..]);
        batch::assign(&mut bytes, self.end, 3);
        let header = BatchHeader::parse(&bytes).unwrap();
        let (base, next) = (self.end, self.end + rows.len() as i64);
        self.part
            .stream
            .append(base as u64, next as u64, header.max_timestamp_ms, bytes.freeze())
            .unwrap();
        let max_time_ms = header.max_timestamp_ms;
        self.log.push(Batch {
            base,
            next,
            producer,
            sequence,
            kind,
            rows,
            horizon: None,
            max_time_ms,
        });
        self.end = next;
        self.part.state.lock().end = next;
    }

    fn step(&mut self) {
        self.time_ms += 1 + self.random.below(50) as i64;
        let producer = self.random.below(5) as i64 - 1;
        if producer >= 2 && self.chance(3) && self.open.remove(&producer) {
            let kind = if self.chance(2) { Kind::Abort } else { Kind::Commit };
            let row = Row {
                offset: self.end,
                key: None,
                value: Some("marker".into()),
                time_ms: self.time_ms,
            };
            return self.append(kind, producer, vec![row]);
        }
        let count = 1 + self.random.below(4) as i64;
        let rows = (0..count).map(|n| Row {
            offset: self.end + n,
            key: (!self.chance(30)).then(|| format!("key{}", self.random.below(12))),
            value: (!self.chance(5)).then(|| format!("value {}", self.end + n)),
            time_ms: self.time_ms + self.random.below(20) as i64 - 10,
        });
        let rows = rows.collect();
        // Producers 2 and 3 write in transactions.
        let kind = if producer >= 2 { Kind::InTransaction } else { Kind::Plain };
        if kind == Kind::InTransaction {
            self.open.insert(producer);
        }
        self.append(kind, producer, rows);
        if self.chance(6) {
            self.part.stream.roll();
        }
    }

    /// First offset of a transaction under way.
    fn stable(&self) -> i64 {
        let first = |producer: &i64| {
            let ended =
                self.log.iter().rev().find(|b| {
                    b.producer == *producer && matches!(b.kind, Kind::Abort | Kind::Commit)
                });
            let after = ended.map_or(-1, |b| b.base);
            self.log.iter().find(|b| b.producer == *producer && b.base > after).map(|b| b.base)
        };
        self.open.iter().filter_map(first).min().unwrap_or(self.end)
    }

    /// A random plan that the leader could have made.
    fn plan(&mut self) -> Option<PlanSpec> {
        let stable = self.stable();
        let compaction = self.part.state.lock().compaction.clone();
        let bounds: Vec<i64> = self
            .part
            .stream
            .segments()
            .windows(2)
            .filter(|pair| pair[0].next_offset as i64 <= stable)
            .map(|pair| pair[1].base_offset as i64)
            .filter(|at| *at >= compaction.compacted_to)
            .collect();
        let upto = *bounds.get(self.random.below(bounds.len().max(1) as u64) as usize)?;
        let from = compaction.clean_to;
        let end = if self.chance(2) {
            upto
        } else {
            from + self.random.below((upto - from + 1) as u64) as i64
        };
        Some(PlanSpec {
            upto,
            from,
            end,
            now_ms: self.time_ms,
            delete_retention_ms: 700,
            segment_bytes: 2000,
            producers_since_ms: self.time_ms - 4000,
        })
    }

    fn held(&self) -> Vec<Batch> {
        let (mut held, mut from) = (vec![], 0);
        loop {
            let frames = self.part.stream.read(from, 3000).unwrap();
            if frames.is_empty() {
                return held;
            }
            for bytes in frames {
                let header = BatchHeader::parse(&bytes).unwrap();
                assert_eq!(base::crc::crc32c(&bytes[21..]), header.crc);
                assert_eq!(header.leader_epoch, 3);
                from = header.next_offset() as u64;
                held.push(seen(&header, &bytes));
            }
        }
    }
}

/// A batch as it was read.
fn seen(header: &BatchHeader, bytes: &Bytes) -> Batch {
    let kind = match (header.is_control(), header.is_transactional()) {
        (false, false) => Kind::Plain,
        (false, true) => Kind::InTransaction,
        (true, _) => match crate::records::marker(header, bytes) {
            Some(super::survey::Marker::Commit) => Kind::Commit,
            _ => Kind::Abort,
        },
    };
    let text = |b: &Option<Bytes>| b.as_ref().map(|b| String::from_utf8(b.to_vec()).unwrap());
    let rows = match header.is_control() {
        true => (0..header.record_count)
            .map(|n| Row {
                offset: header.base_offset + i64::from(n),
                key: None,
                value: Some("marker".into()),
                time_ms: header
                    .base_timestamp_ms
                    .wrapping_add(raw_records(header, bytes).unwrap()[n as usize].time_delta),
            })
            .collect(),
        false => {
            let read = records(bytes).unwrap();
            assert!(read.iter().all(|r| r.headers.len() == 1));
            let row = |r: &crate::records::Record| Row {
                offset: r.offset,
                key: text(&r.key),
                value: text(&r.value),
                time_ms: r.timestamp_ms,
            };
            read.iter().map(row).collect()
        }
    };
    Batch {
        base: header.base_offset,
        next: header.next_offset(),
        producer: header.producer_id,
        sequence: header.base_sequence,
        kind,
        rows,
        horizon: header.delete_horizon_ms(),
        max_time_ms: header.max_timestamp_ms,
    }
}

/// An empty control batch does not say how its transaction ended, nor does it matter.
fn comparable(mut log: Vec<Batch>) -> Vec<Batch> {
    for b in &mut log {
        if b.rows.is_empty() && b.kind == Kind::Commit {
            b.kind = Kind::Abort;
        }
    }
    log
}

#[test]
fn random_histories_are_compacted_as_kafka_would() {
    let (mut plans, mut dropped, mut horizons, mut emptied) = (0, 0, 0, 0);
    for seed in 0..60 {
        let mut rig = Rig::new(seed);
        for _ in 0..220 {
            rig.step();
            if !rig.chance(25) {
                continue;
            }
            let Some(spec) = rig.plan() else { continue };
            if !rig.part.plan(spec.clone()) {
                continue;
            }
            let before = rig.log.len();
            rig.log = compacted(&rig.log, &spec);
            assert!(matches!(run_next(&rig.part, &mut Steps(FOREVER)).unwrap(), Ran::Done { .. }));
            plans += 1;
            dropped += before - rig.log.len();
            let held = comparable(rig.held());
            let expected = comparable(rig.log.clone());
            for (held, expected) in held.iter().zip(&expected) {
                assert_eq!(held, expected, "seed {seed} {spec:?}");
            }
            assert_eq!(held.len(), expected.len(), "seed {seed} {spec:?}");
            horizons += rig.log.iter().filter(|b| b.horizon.is_some()).count();
            emptied += rig.log.iter().filter(|b| b.rows.is_empty()).count();
            let next = rig.log.iter().filter(|b| b.base < spec.upto).filter_map(|b| b.horizon);
            let next = next.filter(|at| *at > spec.now_ms).min().unwrap_or(i64::MAX);
            assert_eq!(rig.part.state.lock().compaction.next_horizon_ms, next, "seed {seed}");
            // A fetch at any offset gets the batch that holds it, or the next one.
            let at = rig.random.below(rig.end as u64) as i64;
            let read = rig.part.read(at, 1).unwrap();
            let first = BatchHeader::parse(&read[0]).unwrap().base_offset;
            let expected = rig.log.iter().find(|b| b.next > at).unwrap().base;
            assert_eq!(first, expected, "seed {seed} offset {at}");
        }
        rig.writer.stop();
    }
    assert!(plans > 200 && dropped > 2000 && horizons > 200 && emptied > 100);
}

#[test]
fn a_plan_given_up_anywhere_changes_nothing() {
    let mut rig = Rig::new(77);
    (0..150).for_each(|_| rig.step());
    rig.part.stream.roll();
    rig.step();
    let (before, mut steps) = (rig.held(), 2);
    let upto = rig.stable().min(rig.part.stream.segments().last().unwrap().base_offset as i64);
    let bounds = rig.part.stream.segments();
    let upto = bounds.iter().map(|s| s.base_offset as i64).filter(|b| *b <= upto).max().unwrap();
    let spec = PlanSpec {
        upto,
        from: 0,
        end: upto,
        now_ms: rig.time_ms,
        delete_retention_ms: 0,
        segment_bytes: 2000,
        producers_since_ms: 0,
    };
    assert!(rig.part.plan(spec));
    while run_next(&rig.part, &mut Steps(steps)).unwrap() == Ran::Stopped {
        assert_eq!(rig.held(), before);
        assert_eq!(rig.part.state.lock().compaction.plans.len(), 1);
        steps += 7;
    }
    assert_ne!(rig.held(), before);
    assert!(steps > 100, "{steps} steps");
    assert_eq!(run_next(&rig.part, &mut Steps(FOREVER)).unwrap(), Ran::Nothing);
    rig.writer.stop();
}

fn keyed(key: &str, value: Option<&str>, time_ms: i64) -> Bytes {
    batch::build(&[RecordRef {
        key: Some(key.as_bytes().into()),
        value: value.map(|v| v.as_bytes().into()),
        headers: vec![],
        timestamp_ms: time_ms,
    }])
}

/// Produces, plans and trims of one partition. Plans name boundaries that every node has.
fn history() -> Vec<Bytes> {
    let key = PartKey { topic: uuid::Uuid::from_u128(9), partition: 0 };
    let settings = ReplicaSettings { segment_bytes: 1500, segment_ms: 1 << 40 };
    let mut all = vec![command::control(&Control::CreateReplica { key, settings }).unwrap()];
    // A throw-away node tells where segments begin.
    let disk = SimDisk::new(1);
    let mut life = Life::begin(&disk, &[]);
    life.apply(1, all[0].clone());
    let (mut from, mut compacted) = (0, 0);
    for i in 0..400i64 {
        let text = "x".repeat(20 + (i as usize * 37) % 200);
        let value = (i % 9 != 8).then_some(text.as_str());
        let one = keyed(&format!("k{}", i * 7 % 23), value, 1000 + i);
        let (produce, _) = command::produce(key, Claim::Plain, &one);
        let part = life.shared.view(GroupId::data(0)).get(&key).unwrap();
        let next = match i % 40 {
            39 => {
                let segments = part.stream.segments();
                let upto = segments.last().unwrap().base_offset as i64;
                let end = if i % 80 == 79 { upto } else { compacted.max(from) + (upto - from) / 2 };
                let plan = PlanSpec {
                    upto,
                    from,
                    end,
                    now_ms: 1_000_000 + i * 500,
                    delete_retention_ms: 30_000,
                    segment_bytes: 4000,
                    producers_since_ms: 0,
                };
                (from, compacted) = (end, upto);
                command::control(&Control::Compact { key, plan }).unwrap()
            }
            17 if i > 200 => {
                command::control(&Control::SetLogStart { key, offset: i / 3 }).unwrap()
            }
            _ => produce.freeze(),
        };
        all.push(next);
        life.apply(all.len() as u64, all[all.len() - 1].clone());
    }
    life.shared.0.writer.stop();
    all
}

/// Carries out at most so many waiting plans; false when the power failed.
fn compact(life: &Life, most: u64) -> bool {
    let parts = life.shared.view(GroupId::data(0)).all();
    for part in parts {
        for _ in 0..most {
            match run_next(&part, &mut Steps(FOREVER)) {
                Ok(Ran::Done { .. }) => {}
                Ok(_) => break,
                Err(_) => return false,
            }
        }
    }
    true
}

#[test]
fn nodes_are_equal_whenever_they_compact_and_crash() {
    let history = history();
    let mut straight = Life::begin(&SimDisk::new(0), &[]);
    for (i, command) in (1..).zip(&history) {
        straight.apply(i, command.clone());
        assert!(compact(&straight, 9));
    }
    let expected = digest(&mut *straight.machine);
    let part = straight.shared.view(GroupId::data(0)).all().remove(0);
    assert!(part.state.lock().compaction.generation > 5, "plans were refused");
    assert!(part.bounds().0 > 0 && part.stream.segments().iter().any(|s| s.generation > 0));
    let mut crashes = 0;
    for seed in 0..40u64 {
        let random = SeededRandom::new(seed);
        let disk = SimDisk::new(seed);
        let mut life = Life::begin(&disk, &[]);
        let (mut rows, mut stands_at, mut index) = (vec![], 0, 0);
        while index < history.len() {
            life.apply(index as u64 + 1, history[index].clone());
            index += 1;
            if random.below(30) == 0 {
                rows = life.checkpoint(index as u64);
                stands_at = index;
            }
            let compacts = random.below(12) == 0;
            let power_fails = compacts && random.below(3) == 0;
            if power_fails {
                disk.power_off_in(1 + random.below(40));
            }
            let alive = !compacts || compact(&life, 1 + random.below(3));
            if power_fails || !alive || random.below(90) == 0 {
                crashes += 1;
                life.shared.0.writer.stop();
                disk.crash([Crash::LoseUnsynced, Crash::TearUnsynced][random.below(2) as usize]);
                life = Life::begin(&disk, &rows);
                (stands_at..index).for_each(|i| life.apply(i as u64 + 1, history[i].clone()));
            }
        }
        assert!(compact(&life, 99));
        assert_eq!(digest(&mut *life.machine), expected, "seed {seed}");
        life.shared.0.writer.stop();
    }
    assert!(crashes > 100, "{crashes}");
}
