//! Transactional producers over a topic of two partitions, and readers of committed records.
//!
//! Each transaction writes a few values to both partitions. At the end, on every node: of a
//! transaction that committed everything is there, once and in order; of one that was aborted or
//! given up nothing; of one whose fate its client never learned all or nothing; whatever a reader
//! was given on the way belongs to what is there in the end; and no transaction holds the last
//! stable offset back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::env::{Random, SeededRandom};
use bytes::Bytes;
use log::batch::{BatchHeader, build, with_transaction};
use log::records::{RecordRef, records};
use log::transactions::{Outcome, ProducerEpoch, TxnVersion};
use log::{Acks, FetchSpec, Isolation, LogError, TopicRef, TopicSpec};
use tokio::time::Instant;

use crate::node::Life;
use crate::topic;
use crate::world::World;

const TOPIC: &str = "x";
const PARTITIONS: i32 = 2;
const READ_BYTES: usize = 256 << 10;
const TIME_MS: i64 = 1_767_225_600_000;
/// Attempts in a cluster that is whole again before a client gives up.
const ATTEMPTS: u32 = 100;
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);

/// What a client knows of a transaction in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    NotCommitted,
    Unknown,
}

/// A transaction: its fate, and the values written to each partition.
#[derive(Debug)]
struct Written {
    name: String,
    fate: Fate,
    values: Vec<Vec<String>>,
}

/// What transactional clients did and saw.
#[derive(Debug, Default)]
pub struct Record {
    written: Vec<Written>,
    /// Values that readers of committed records were given, by partition and offset.
    seen: BTreeMap<(i32, i64), String>,
}

impl Record {
    /// Transactions that committed.
    pub fn committed(&self) -> usize {
        self.written.iter().filter(|txn| txn.fate == Fate::Committed).count()
    }
}

/// Makes the topic, through whatever happens meanwhile.
pub async fn create(world: Arc<World>) {
    let random = SeededRandom::new(world.seed ^ 0x7a);
    let configs = vec![("segment.bytes".to_owned(), "65536".to_owned())];
    let (partitions, replication_factor) = (PARTITIONS, 3);
    let spec = TopicSpec { name: TOPIC.to_owned(), partitions, replication_factor, configs };
    topic::make(&world, &random, &spec).await;
}

struct Client {
    world: Arc<World>,
    random: SeededRandom,
    id: String,
    version: TxnVersion,
    timeout_ms: i32,
    me: ProducerEpoch,
    /// Next sequence number of each partition.
    sequences: Vec<i32>,
    patience: u32,
}

/// How a step of a transaction ended.
enum Step {
    Done,
    /// It will never happen: abort, or begin anew.
    Refused,
    /// The client gave up waiting.
    Unknown,
}

/// Runs transactions until the world asks for quiet.
pub async fn run_client(world: Arc<World>, client: u64) {
    let random = SeededRandom::new(world.seed ^ (client << 32));
    let version = if client.is_multiple_of(2) { TxnVersion::V1 } else { TxnVersion::V2 };
    let timeout_ms = if client.is_multiple_of(3) { 2_000 } else { 8_000 };
    let (id, me) = (format!("client-{client}"), ProducerEpoch { producer_id: -1, epoch: -1 });
    let sequences = vec![0; 2];
    let mut client = Client { world, random, id, version, timeout_ms, me, sequences, patience: 0 };
    let mut number = 0;
    let mut fresh = true;
    while !client.world.is_quiet() {
        client.pause(150).await;
        if fresh && !client.init().await {
            return;
        }
        number += 1;
        fresh = client.transaction(number).await;
    }
}

impl Client {
    async fn pause(&self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.below(most_ms))).await;
    }

    /// Whether to try again after a failure.
    async fn again(&mut self) -> bool {
        self.patience += u32::from(self.world.is_quiet());
        self.pause(120).await;
        self.patience < ATTEMPTS
    }

    /// The node that leads a data group, or any other.
    fn life_of(&self, leader: impl Fn(&Life) -> Option<base::NodeId>) -> Option<Arc<Life>> {
        let life = self.world.random_life(&self.random)?;
        Some(leader(&life).and_then(|node| self.world.life(node)).unwrap_or(life))
    }

    fn coordinator(&self) -> Option<Arc<Life>> {
        self.life_of(|life| life.log.coordinator(&self.id).ok()?.leadership().leader)
    }

    /// A new epoch; false when the world is over before.
    async fn init(&mut self) -> bool {
        loop {
            if let Some(life) = self.coordinator() {
                let asked = tokio::select! {
                    () = life.ended.cancelled() => Err(LogError::Timeout),
                    asked = life.log.init_transactional(&self.id, self.timeout_ms, None) => asked,
                };
                if let Ok(me) = asked {
                    self.me = me;
                    self.sequences = vec![0; 2];
                    return true;
                }
            }
            if self.world.is_quiet() {
                return false;
            }
            self.pause(120).await;
        }
    }

    /// One transaction; says whether a new epoch is needed after it.
    async fn transaction(&mut self, number: u64) -> bool {
        let name = format!("{}-{number}", self.id);
        let mut txn = Written { name, fate: Fate::NotCommitted, values: vec![Vec::new(); 2] };
        let fresh = self.attempt(&mut txn).await;
        self.world.txns.lock().written.push(txn);
        fresh
    }

    async fn attempt(&mut self, txn: &mut Written) -> bool {
        for round in 0..=self.random.below(2) {
            for partition in 0..PARTITIONS {
                let count = 1 + self.random.below(2);
                let values: Vec<String> =
                    (0..count).map(|n| format!("{} {partition} {round}.{n}", txn.name)).collect();
                match self.write(partition, &values).await {
                    Step::Done => {}
                    Step::Refused | Step::Unknown => {
                        // Which sequence number comes next is not known any more.
                        let fresh = self.give_up().await;
                        return fresh || self.version == TxnVersion::V1;
                    }
                }
                if let Some(of) = txn.values.get_mut(usize::try_from(partition).unwrap_or(0)) {
                    of.extend(values);
                }
            }
        }
        match self.random.below(8) {
            // The client dies here; the next one fences it.
            0 => true,
            1 | 2 => self.give_up().await,
            _ => match self.end(Outcome::Commit).await {
                Step::Done => {
                    txn.fate = Fate::Committed;
                    false
                }
                Step::Refused => true,
                Step::Unknown => {
                    txn.fate = Fate::Unknown;
                    true
                }
            },
        }
    }

    /// Aborts; says whether a new epoch is needed.
    async fn give_up(&mut self) -> bool {
        !matches!(self.end(Outcome::Abort).await, Step::Done)
    }

    async fn write(&mut self, partition: i32, values: &[String]) -> Step {
        if self.version == TxnVersion::V1 {
            match self.add(partition).await {
                Step::Done => {}
                other => return other,
            }
        }
        let rows: Vec<_> = values.iter().map(|v| RecordRef::value(v.as_bytes(), TIME_MS)).collect();
        let at = usize::try_from(partition).unwrap_or(0);
        let sequence = self.sequences.get(at).copied().unwrap_or(0);
        let ProducerEpoch { producer_id, epoch } = self.me;
        let batch = with_transaction(&build(&rows), producer_id, epoch, sequence);
        loop {
            match self.send(partition, batch.clone()).await {
                Ok(_) => {
                    if let Some(next) = self.sequences.get_mut(at) {
                        *next = sequence + i32::try_from(values.len()).unwrap_or(0);
                    }
                    return Step::Done;
                }
                Err(error) if is_final(&error) => return Step::Refused,
                Err(_) if self.again().await => {}
                Err(_) => return Step::Unknown,
            }
        }
    }

    async fn send(&self, partition: i32, batch: Bytes) -> Result<i64, LogError> {
        let leading = self.life_of(|life| {
            let topic = life.log.topic(TOPIC)?;
            life.log.partition_leadership(&topic, partition)?.leader
        });
        let life = leading.ok_or(LogError::NotLeader { leader: None })?;
        let (topic, id, version) = (TopicRef::Name(TOPIC), &self.id, self.version);
        let sent = life.log.produce_in_transaction(topic, partition, batch, Acks::All, id, version);
        tokio::select! {
            () = life.ended.cancelled() => Err(LogError::Timeout),
            sent = sent => sent.map(|done| done.base_offset),
        }
    }

    async fn add(&mut self, partition: i32) -> Step {
        let parts = [(TOPIC.to_owned(), partition)];
        loop {
            let Some(life) = self.coordinator() else {
                if self.again().await { continue } else { return Step::Unknown }
            };
            let added = tokio::select! {
                () = life.ended.cancelled() => Err(LogError::Timeout),
                added = life.log.add_partitions(&self.id, self.me, &parts) => added,
            };
            match added {
                Ok(()) => return Step::Done,
                Err(error) if is_final(&error) => return Step::Refused,
                Err(_) if self.again().await => {}
                Err(_) => return Step::Unknown,
            }
        }
    }

    async fn end(&mut self, outcome: Outcome) -> Step {
        let mut asked = false;
        loop {
            let ended = match self.coordinator() {
                None => Err(LogError::NotLeader { leader: None }),
                Some(life) => {
                    let ending = life.log.end_transaction(&self.id, self.me, outcome, self.version);
                    tokio::select! {
                        () = life.ended.cancelled() => Err(LogError::Timeout),
                        ended = ending => ended,
                    }
                }
            };
            match ended {
                Ok(next) => {
                    if next != self.me {
                        (self.me, self.sequences) = (next, vec![0; 2]);
                    }
                    return Step::Done;
                }
                // Fenced, as by a timeout; an attempt before may still have counted.
                Err(error) if is_final(&error) => {
                    return if asked { Step::Unknown } else { Step::Refused };
                }
                Err(error) => {
                    asked |= error == LogError::Timeout;
                    if !self.again().await {
                        return Step::Unknown;
                    }
                }
            }
        }
    }
}

/// Whether a repetition cannot succeed.
fn is_final(error: &LogError) -> bool {
    matches!(
        error,
        LogError::ProducerFenced
            | LogError::InvalidProducerEpoch
            | LogError::InvalidTxnState
            | LogError::InvalidProducerIdMapping
            | LogError::OutOfOrderSequence
            | LogError::TransactionAbortable
    )
}

/// Reads committed records over and over, from leaders and followers, until the world asks for
/// quiet.
pub async fn run_reader(world: Arc<World>, client: u64) {
    let random = SeededRandom::new(world.seed ^ (client << 16));
    let mut positions = [0i64; 2];
    while !world.is_quiet() {
        tokio::time::sleep(Duration::from_millis(random.below(150))).await;
        let at = usize::try_from(random.below(2)).unwrap_or(0);
        let (Some(life), Some(position)) = (world.random_life(&random), positions.get_mut(at))
        else {
            continue;
        };
        let partition = i32::try_from(at).unwrap_or(0);
        let from_leader = random.below(2) == 0;
        let found = tokio::select! {
            () = life.ended.cancelled() => continue,
            found = read(&life, partition, *position, from_leader) => found,
        };
        let Ok((next, values)) = found else { continue };
        *position = next;
        for (offset, value) in values {
            let old = world.txns.lock().seen.insert((partition, offset), value.clone());
            if let Some(old) = old.filter(|old| *old != value) {
                let text = format!("{TOPIC}-{partition} had {old} at {offset} and later {value}");
                world.history.lock().violate(text);
            }
        }
    }
}

/// Committed values from an offset on, and the offset after what was looked at.
async fn read(
    life: &Life,
    partition: i32,
    offset: i64,
    from_leader: bool,
) -> Result<(i64, Vec<(i64, String)>), LogError> {
    let topic = TopicRef::Name(TOPIC);
    let fetched = if from_leader {
        let spec = FetchSpec {
            topic,
            partition,
            offset,
            max_bytes: READ_BYTES,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            isolation: Isolation::Committed,
        };
        life.log.fetch(&spec).await?
    } else {
        life.log.read_any(topic, partition, offset, READ_BYTES).await?
    };
    let (mut next, mut found) = (offset, Vec::new());
    for batch in &fetched.records {
        let header = BatchHeader::parse(batch)?;
        next = next.max(header.next_offset());
        if fetched.hides(&header) {
            continue;
        }
        for record in records(batch)? {
            if record.offset >= offset {
                let value = record.value.unwrap_or_default();
                found.push((record.offset, String::from_utf8_lossy(&value).into_owned()));
            }
        }
    }
    Ok((next, found))
}

/// Waits until nothing holds the last stable offset of any partition back.
pub async fn settle(lives: &[Arc<Life>]) -> Result<(), String> {
    let until = Instant::now() + SETTLE_PATIENCE;
    loop {
        let held: Vec<_> = lives
            .iter()
            .flat_map(|life| life.log.replicas().into_iter().map(|part| (life.node, part)))
            .filter(|(_, part)| part.last_stable_offset < part.end_offset)
            .collect();
        if held.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("transactions stay open: {held:?}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Holds what a node has against what clients did and saw.
pub async fn check(world: &World, life: &Life) -> Result<(), String> {
    let mut all = Vec::new();
    for partition in 0..PARTITIONS {
        let (mut next, mut found) = (0, Vec::new());
        loop {
            let more = read(life, partition, next, false).await.map_err(|e| e.to_string())?;
            if more.0 == next {
                break;
            }
            next = more.0;
            found.extend(more.1);
        }
        all.push(found);
    }
    let record = world.txns.lock();
    for ((partition, offset), value) in &record.seen {
        let found = usize::try_from(*partition).ok().and_then(|n| all.get(n));
        let stands = found.is_some_and(|f| f.iter().any(|(at, v)| at == offset && v == value));
        if !stands {
            return Err(format!("a reader was given {value:?} at {offset} of {partition}"));
        }
    }
    let mut known = BTreeSet::new();
    for txn in &record.written {
        let mut present = Vec::new();
        for (found, written) in all.iter().zip(&txn.values) {
            let prefix = format!("{} ", txn.name);
            let of_txn: Vec<&String> =
                found.iter().map(|(_, v)| v).filter(|v| v.starts_with(&prefix)).collect();
            let whole = of_txn.iter().copied().eq(written.iter());
            if !whole && !of_txn.is_empty() {
                return Err(format!("torn: of {written:?} there is {of_txn:?}"));
            }
            present.push(whole && !written.is_empty());
        }
        let (some, every) = (present.contains(&true), !present.contains(&false));
        let right = match txn.fate {
            Fate::Committed => every,
            Fate::NotCommitted => !some,
            Fate::Unknown => every || !some,
        };
        if !right {
            return Err(format!("{txn:?}: present {present:?}"));
        }
        known.insert(txn.name.clone());
    }
    for (_, value) in all.iter().flatten() {
        let name = value.split(' ').next().unwrap_or_default();
        if !known.contains(name) {
            return Err(format!("nobody wrote {value:?}"));
        }
    }
    Ok(())
}
