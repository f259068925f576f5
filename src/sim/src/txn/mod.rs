//! Transactional producers over a topic of two partitions, and readers of committed records.
//!
//! Each transaction writes a few values to both partitions, and most commit an offset of their
//! client's consumer group. At the end, on every node: of a transaction that committed everything
//! is there, once and in order; of one that was aborted or given up nothing; of one whose fate its
//! client never learned all or nothing, values and offset alike; whatever a reader was given on the
//! way belongs to what is there in the end; and no transaction holds the last stable offset or a
//! group back. Meanwhile [`aim`] crashes coordinators between the steps of transactions.

pub mod aim;
mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::env::{Random, SeededRandom};
use bytes::Bytes;
use log::batch::{BatchHeader, build, with_transaction};
use log::groups::{CommitCheck, CommitVia};
use log::records::{RecordRef, records};
use log::transactions::{Outcome, ProducerEpoch, TxnVersion};
use log::{Acks, FetchSpec, Isolation, LogError, OffsetToCommit, TopicRef, TopicSpec};
use tokio::time::Instant;

use self::check::Found;
use crate::node::Life;
use crate::topic;
use crate::world::World;

/// Transactional clients, numbered from 1.
pub const CLIENTS: u64 = 3;
const TOPIC: &str = "x";
const PARTITIONS: i32 = 2;
const READ_BYTES: usize = 256 << 10;
const TIME_MS: i64 = 1_767_225_600_000;
/// Attempts in a cluster that is whole again before a client gives up.
const ATTEMPTS: u32 = 100;
/// The shortest `transaction.timeout.ms`.
const SHORT_MS: i32 = 2_000;
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);

/// What a client knows of a transaction in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    NotCommitted,
    Unknown,
}

/// A transaction: its fate, the values written to each partition, and the offset of its group.
#[derive(Debug)]
struct Written {
    name: String,
    client: u64,
    fate: Fate,
    values: Vec<Vec<String>>,
    offset: Option<i64>,
}

/// What transactional clients did and saw.
#[derive(Debug, Default)]
pub struct Record {
    written: Vec<Written>,
    /// Values that readers of committed records were given, by partition and offset.
    seen: BTreeMap<(i32, i64), String>,
    /// Clients, and where readers found their groups.
    seen_offsets: BTreeSet<(u64, i64)>,
    /// Crashes by what they were aimed at.
    pub aimed: [usize; aim::AIMS],
}

impl Record {
    /// Transactions that committed.
    pub fn committed(&self) -> usize {
        self.written.iter().filter(|txn| txn.fate == Fate::Committed).count()
    }

    /// How far a client's group was taken by what committed, and how far it was seen.
    fn floor(&self, client: u64) -> (Option<i64>, Option<i64>) {
        let of = self.written.iter().filter(|t| t.client == client && t.fate == Fate::Committed);
        let seen = self.seen_offsets.range((client, i64::MIN)..=(client, i64::MAX));
        (of.filter_map(|txn| txn.offset).max(), seen.map(|(_, offset)| *offset).max())
    }
}

/// The consumer group of a client.
fn group_of(client: u64) -> String {
    format!("copied-{client}")
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
    number: u64,
    id: String,
    /// Its consumer group.
    group: String,
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
    let mut client = Client {
        world,
        random,
        number: client,
        id: format!("client-{client}"),
        group: group_of(client),
        version,
        timeout_ms: if client.is_multiple_of(3) { SHORT_MS } else { 8_000 },
        me: ProducerEpoch { producer_id: -1, epoch: -1 },
        sequences: vec![0; 2],
        patience: 0,
    };
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
    async fn transaction(&mut self, number: i64) -> bool {
        let mut txn = Written {
            name: format!("{}-{number}", self.id),
            client: self.number,
            fate: Fate::NotCommitted,
            values: vec![Vec::new(); 2],
            offset: None,
        };
        let fresh = self.attempt(number, &mut txn).await;
        self.world.txns.lock().written.push(txn);
        fresh
    }

    async fn attempt(&mut self, number: i64, txn: &mut Written) -> bool {
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
        if self.random.below(3) > 0 {
            match self.commit_offset(number).await {
                Step::Done => txn.offset = Some(number),
                Step::Refused | Step::Unknown => return self.give_up().await,
            }
        }
        if self.timeout_ms == SHORT_MS && self.random.below(6) == 0 {
            // It takes too long, and is fenced.
            tokio::time::sleep(Duration::from_millis(SHORT_MS.unsigned_abs().into())).await;
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
            let added = match self.coordinator() {
                None => Err(LogError::NotLeader { leader: None }),
                Some(life) => tokio::select! {
                    () = life.ended.cancelled() => Err(LogError::Timeout),
                    added = life.log.add_partitions(&self.id, self.me, &parts) => added,
                },
            };
            if let Some(step) = self.step(&added).await {
                return step;
            }
        }
    }

    /// Commits a number as the offset of the client's group.
    async fn commit_offset(&mut self, number: i64) -> Step {
        if self.version == TxnVersion::V1 {
            match self.add_group().await {
                Step::Done => {}
                other => return other,
            }
        }
        loop {
            let group = &self.group;
            let leading =
                self.life_of(|life| life.log.coordinator(group).ok()?.leadership().leader);
            let committed = match leading {
                None => Err(LogError::NotLeader { leader: None }),
                Some(life) => tokio::select! {
                    () = life.ended.cancelled() => Err(LogError::Timeout),
                    committed = self.send_offset(&life, number) => committed,
                },
            };
            if let Some(step) = self.step(&committed).await {
                return step;
            }
        }
    }

    async fn add_group(&mut self) -> Step {
        loop {
            let added = match self.coordinator() {
                None => Err(LogError::NotLeader { leader: None }),
                Some(life) => tokio::select! {
                    () = life.ended.cancelled() => Err(LogError::Timeout),
                    added = life.log.add_offsets(&self.id, self.me, &self.group) => added,
                },
            };
            if let Some(step) = self.step(&added).await {
                return step;
            }
        }
    }

    /// As the Kafka gateway does it.
    async fn send_offset(&self, life: &Life, number: i64) -> Result<(), LogError> {
        let check = CommitCheck {
            group: self.group.clone(),
            via: CommitVia::Transaction,
            generation: -1,
            member: String::new(),
            instance: None,
        };
        let may = || {
            let checked = life.groups.check_transactional_commit(&check);
            checked.map_err(|_| LogError::NotLeader { leader: None })
        };
        may()?;
        let offsets = [OffsetToCommit {
            topic: TOPIC.to_owned(),
            partition: 0,
            offset: number,
            leader_epoch: -1,
            metadata: String::new(),
        }];
        let (id, group, me) = (&self.id, &self.group, self.me);
        let transaction = life.log.transaction_of_group(id, me, group, self.version).await?;
        // As the Kafka port does: joining takes its time.
        may()?;
        let sent = life.log.commit_offsets_in_transaction(&transaction, &offsets);
        sent.await?.into_iter().collect()
    }

    /// What an answer says of a step; `None` when it has to be asked again.
    async fn step(&mut self, answer: &Result<(), LogError>) -> Option<Step> {
        match answer {
            Ok(()) => Some(Step::Done),
            Err(error) if is_final(error) => Some(Step::Refused),
            Err(_) if self.again().await => None,
            Err(_) => Some(Step::Unknown),
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
        if random.below(3) == 0 {
            watch_offset(&world, &random).await;
            continue;
        }
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

/// Holds what a node has against what clients did and saw; `offsets`: where groups are.
pub async fn check(
    world: &World,
    life: &Life,
    offsets: &BTreeMap<u64, Option<i64>>,
) -> Result<(), String> {
    let mut found = Found { records: Vec::new(), offsets: offsets.clone() };
    for partition in 0..PARTITIONS {
        let (mut next, mut values) = (0, Vec::new());
        loop {
            let more = read(life, partition, next, false).await.map_err(|e| e.to_string())?;
            if more.0 == next {
                break;
            }
            next = more.0;
            values.extend(more.1);
        }
        found.records.push(values);
    }
    check::fits(&world.txns.lock(), &found)
}

/// Where the groups of all clients are in a calm cluster, with nothing pending.
pub async fn offsets(world: &World) -> Result<BTreeMap<u64, Option<i64>>, String> {
    let random = SeededRandom::new(world.seed);
    let mut found = BTreeMap::new();
    for client in 1..=CLIENTS {
        let until = Instant::now() + SETTLE_PATIENCE;
        let offset = loop {
            let offset = read_offset(world, &random, client).await;
            if let Some(Position { offset, stable: true, .. }) = offset {
                break offset;
            }
            if Instant::now() > until {
                return Err(format!("the group of client {client} stays at {offset:?}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        found.insert(client, offset);
    }
    Ok(found)
}

/// Where a group is.
#[derive(Clone, Copy, Debug)]
struct Position {
    offset: Option<i64>,
    /// Whether no transaction is about to move it.
    stable: bool,
}

/// Asks the coordinator where a client's group is.
async fn read_offset(world: &World, random: &SeededRandom, client: u64) -> Option<Position> {
    let group = group_of(client);
    let any = world.random_life(random)?;
    let leader = any.log.coordinator(&group).ok()?.leadership().leader?;
    let life = world.life(leader)?;
    // In this order: see `pending_offsets`.
    let asked = async {
        let pending = life.log.pending_offsets(&group).await.ok()?;
        let found = life.log.fetch_offsets(&group).await.ok()?;
        Some((pending, found))
    };
    let (pending, found) = tokio::select! {
        () = life.ended.cancelled() => return None,
        asked = asked => asked?,
    };
    let offset = found.iter().find(|f| f.topic == TOPIC).map(|f| f.offset);
    Some(Position { offset, stable: pending.is_empty() })
}

/// Reads where a client's group is: not before what was committed or seen when the question was
/// asked.
async fn watch_offset(world: &World, random: &SeededRandom) {
    let client = 1 + random.below(CLIENTS);
    let (committed, seen) = world.txns.lock().floor(client);
    let Some(found) = read_offset(world, random, client).await else { return };
    let mut record = world.txns.lock();
    record.seen_offsets.extend(found.offset.map(|offset| (client, offset)));
    drop(record);
    let floor = if found.stable { committed.max(seen) } else { seen };
    if found.offset < floor {
        let text = format!("the group of client {client} is at {found:?}, it was at {floor:?}");
        world.history.lock().violate(text);
    }
}
