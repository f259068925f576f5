//! A topic with two partitions, its producers and consumers.

use std::sync::Arc;
use std::time::Duration;

use base::env::{Random, SeededRandom};
use bytes::Bytes;
use log::batch::{build, with_producer};
use log::records::{RecordRef, records};
use log::{Acks, FetchSpec, Isolation, LogError, Mode, Topic, TopicRef, TopicSpec};

use crate::history::{Append, Outcome, Sending};
use crate::list::unique;
use crate::node::Life;
use crate::world::World;

/// Partitions of the topic.
pub const PARTITIONS: i32 = 2;
const TOPIC: &str = "t";
const READ_BYTES: usize = 256 << 10;
/// Any time that the log accepts.
const TIME_MS: i64 = 1_767_225_600_000;

/// The name of a partition in the history.
pub fn name(partition: i32) -> String {
    format!("{TOPIC}-{partition}")
}

/// Makes the topic, through whatever happens meanwhile.
pub async fn create(world: Arc<World>) {
    let random = SeededRandom::new(world.seed);
    let configs = vec![("segment.bytes".to_owned(), "131072".to_owned())];
    let (partitions, replication_factor) = (PARTITIONS, 3);
    let spec = TopicSpec { name: TOPIC.to_owned(), partitions, replication_factor, configs };
    make(&world, &random, &spec).await;
}

/// Makes a topic, through whatever happens meanwhile.
pub async fn make(world: &World, random: &SeededRandom, spec: &TopicSpec) {
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Some(life) = world.random_life(random) else { continue };
        tokio::select! {
            () = life.ended.cancelled() => {}
            made = life.log.create_topic(spec, Mode::Apply) => match made {
                Ok(_) | Err(LogError::TopicExists(_)) => return,
                Err(_) => {}
            },
        }
    }
}

/// Settings as a topic's specification wants them.
pub fn settings(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What a producer sends next.
struct Batch {
    first: u64,
    values: Vec<String>,
    bytes: Bytes,
}

/// Whether a batch is the next of its producer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Behind,
}

struct Producer {
    world: Arc<World>,
    random: SeededRandom,
    client: u64,
    partition: i32,
    sending: Sending,
    /// With [`Sending::Idempotent`].
    producer_id: i64,
    /// The number that has sequence number 0 under this id.
    base: u64,
    next: u64,
}

/// Produces until the world asks for quiet; then ends what it began.
pub async fn run_producer(world: Arc<World>, client: u64, sending: Sending) {
    let random = SeededRandom::new(world.seed ^ (client << 40));
    let partition = i32::from(random.below(2) == 1);
    let (producer_id, base, next) = (-1, 0, 0);
    let mut producer =
        Producer { world, random, client, partition, sending, producer_id, base, next };
    while !producer.world.is_quiet() {
        if sending == Sending::Idempotent && !producer.has_id().await {
            return;
        }
        producer.pause(120).await;
        let log = name(partition);
        let floor = producer.world.history.lock().floor(&log);
        let first = producer.batch();
        if sending == Sending::Idempotent && producer.random.below(3) == 0 {
            let second = producer.batch();
            let outcomes = producer.send_two(&first, &second).await;
            producer.note(first, floor, outcomes.0);
            producer.note(second, floor, outcomes.1);
        } else {
            let outcome = producer.send(&first).await;
            producer.note(first, floor, outcome);
        }
    }
}

impl Producer {
    async fn pause(&self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.below(most_ms))).await;
    }

    /// Takes an id when there is none, and another from time to time; false when it got none.
    async fn has_id(&mut self) -> bool {
        if self.random.below(10) == 0 {
            self.producer_id = -1;
        }
        if self.producer_id < 0 {
            self.base = self.next;
        }
        while self.producer_id < 0 && !self.world.is_quiet() {
            self.pause(300).await;
            let Some(life) = self.world.random_life(&self.random) else { continue };
            tokio::select! {
                () = life.ended.cancelled() => {}
                id = life.log.init_producer_id() => self.producer_id = id.unwrap_or(-1),
            }
        }
        self.producer_id >= 0
    }

    fn batch(&mut self) -> Batch {
        let first = self.next;
        let values: Vec<String> = (first..=first + self.random.below(3))
            .map(|number| unique(&self.random, self.client, number))
            .collect();
        self.next += values.len() as u64;
        let rows: Vec<_> = values.iter().map(|v| RecordRef::value(v.as_bytes(), TIME_MS)).collect();
        let mut bytes = build(&rows);
        if self.sending == Sending::Idempotent {
            let sequence = i32::try_from(first - self.base).unwrap_or(i32::MAX);
            bytes = with_producer(&bytes, self.producer_id, 0, sequence);
        }
        Batch { first, values, bytes }
    }

    /// Two batches under way at once. A first one of unknown outcome counts as stored when the
    /// second was, as with librdkafka; so it is not sent again.
    async fn send_two(&self, first: &Batch, second: &Batch) -> (Outcome, Outcome) {
        let behind = async {
            self.pause(40).await;
            self.attempt(second, Place::Behind).await
        };
        let mut outcomes = tokio::join!(self.attempt(first, Place::Head), behind);
        if !matches!(outcomes.0, Outcome::Acked(_)) {
            if matches!(outcomes.1, Outcome::Acked(_)) {
                return (Outcome::Unknown, outcomes.1);
            }
            outcomes.0 = self.send(first).await;
        }
        if !matches!(outcomes.1, Outcome::Acked(_)) {
            outcomes.1 = self.send(second).await;
        }
        outcomes
    }

    /// Once, or until it is acknowledged.
    async fn send(&self, batch: &Batch) -> Outcome {
        let mut patience = 0;
        loop {
            let outcome = self.attempt(batch, Place::Head).await;
            let again =
                self.sending == Sending::Idempotent && !matches!(outcome, Outcome::Acked(_));
            // A cluster that is whole again answers long before the last attempt.
            patience += u32::from(self.world.is_quiet());
            if !again || patience > 100 {
                return outcome;
            }
            self.pause(200).await;
        }
    }

    async fn attempt(&self, batch: &Batch, place: Place) -> Outcome {
        let Some((life, topic)) = self.route() else { return Outcome::NotDone };
        let bytes = batch.bytes.clone();
        let topic = TopicRef::Id(topic.id);
        let anywhere = self.random.below(3) == 0;
        let produced = async {
            if anywhere {
                life.log.produce_any(topic, self.partition, bytes).await
            } else {
                life.log.produce(topic, self.partition, bytes, Acks::Leader).await
            }
        };
        let result = tokio::select! {
            () = life.ended.cancelled() => return Outcome::Unknown,
            result = produced => result,
        };
        match result {
            Ok(produced) => Outcome::Acked(u64::try_from(produced.base_offset).unwrap_or(u64::MAX)),
            Err(LogError::Timeout | LogError::Internal(_)) => Outcome::Unknown,
            Err(LogError::OutOfOrderSequence) if place == Place::Behind => Outcome::NotDone,
            Err(LogError::OutOfOrderSequence | LogError::InvalidProducerEpoch) => {
                let (client, first) = (self.client, batch.first);
                let text =
                    format!("the log refuses batch {first} of producer {client}: {result:?}");
                self.world.history.lock().violate(text);
                Outcome::NotDone
            }
            Err(_) => Outcome::NotDone,
        }
    }

    /// A node that knows the topic, mostly the one that leads.
    fn route(&self) -> Option<(Arc<Life>, Arc<Topic>)> {
        let life = self.world.random_life(&self.random)?;
        let topic = life.log.topic(TOPIC)?;
        let leader = life.log.partition_leadership(&topic, self.partition)?.leader;
        let leading = leader.and_then(|leader| self.world.life(leader)).unwrap_or(life);
        Some((leading, topic))
    }

    fn note(&self, batch: Batch, floor: Option<u64>, outcome: Outcome) {
        let mut history = self.world.history.lock();
        let (client, sending) = (self.client, self.sending);
        // Of an idempotent batch that was refused last, an earlier attempt may still be there.
        let outcome = match (outcome, sending) {
            (Outcome::NotDone, Sending::Idempotent) => Outcome::Unknown,
            _ => outcome,
        };
        for ((n, value), number) in (0..).zip(batch.values).zip(batch.first..) {
            let outcome = match outcome {
                Outcome::Acked(base) => Outcome::Acked(base + n),
                other => other,
            };
            // A repeated batch may have been appended by an attempt before; its floor is that
            // of the first attempt, which is the one here.
            let log = name(self.partition);
            history.ended(Append { log, client, number, sending, value, floor, outcome });
        }
    }
}

/// Reads a partition from its start, from leaders and followers, until the world asks for quiet.
pub async fn run_consumer(world: Arc<World>, client: u64) {
    let random = SeededRandom::new(world.seed ^ (client << 24));
    let partition = i32::from(random.below(2) == 1);
    let mut position = 0;
    while !world.is_quiet() {
        tokio::time::sleep(Duration::from_millis(random.below(150))).await;
        let Some(life) = world.random_life(&random) else { continue };
        let from_leader = random.below(2) == 0;
        let found = tokio::select! {
            () = life.ended.cancelled() => continue,
            found = read(&life, partition, position, from_leader) => found,
        };
        for (offset, value) in found.unwrap_or_default() {
            let mut history = world.history.lock();
            if offset != position {
                let node = life.node;
                history.violate(format!(
                    "node {node} gave partition {partition} offset {offset} after {position}"
                ));
            }
            let place = u64::try_from(offset).unwrap_or(u64::MAX);
            history.read(&name(partition), place, &value);
            position = offset + 1;
        }
    }
}

async fn read(
    life: &Life,
    partition: i32,
    position: i64,
    from_leader: bool,
) -> Result<Vec<(i64, String)>, LogError> {
    let topic = TopicRef::Name(TOPIC);
    let fetched = if from_leader {
        let spec = FetchSpec {
            topic,
            partition,
            offset: position,
            max_bytes: READ_BYTES,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            isolation: Isolation::Uncommitted,
        };
        life.log.fetch(&spec).await?
    } else {
        life.log.read_any(topic, partition, position, READ_BYTES).await?
    };
    let mut found = Vec::new();
    for batch in &fetched.records {
        for record in records(batch).map_err(|e| LogError::Internal(e.to_string()))? {
            if record.offset >= position {
                let value = record.value.unwrap_or_default();
                found.push((record.offset, String::from_utf8_lossy(&value).into_owned()));
            }
        }
    }
    Ok(found)
}

/// All values of a partition as a node holds them.
pub async fn values(life: &Life, partition: i32) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    loop {
        let position = i64::try_from(values.len()).unwrap_or(i64::MAX);
        let found = read(life, partition, position, false).await.map_err(|e| e.to_string())?;
        if found.is_empty() {
            return Ok(values);
        }
        for (offset, value) in found {
            if usize::try_from(offset) != Ok(values.len()) {
                let node = life.node;
                return Err(format!("node {node}: {offset} follows {} values", values.len()));
            }
            values.push(value);
        }
    }
}
