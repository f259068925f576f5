//! A compacted topic: one idempotent writer of keyed numbers and tombstones. Whatever happens, the
//! newest number of each key is what the writer sent last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::env::{Random, SeededRandom};
use bytes::Bytes;
use log::batch::{build, with_producer};
use log::records::{RecordRef, records};
use log::{Acks, LogError, Topic, TopicRef, TopicSpec};

use crate::node::Life;
use crate::topic;
use crate::world::World;

const TOPIC: &str = "compacted";
/// Few, so that most records are superseded.
const KEYS: u64 = 15;
const READ_BYTES: usize = 64 << 10;

/// What the newest records of keys may be.
#[derive(Debug, Default)]
pub struct Written {
    /// Number, or nothing after a tombstone, of the last acknowledged record of each key.
    acked: BTreeMap<u64, Option<u64>>,
    /// The last batch, when its fate is unknown.
    unknown: BTreeMap<u64, Option<u64>>,
    /// Acknowledged batches.
    pub batches: u64,
}

/// Makes the topic and writes until the world asks for quiet.
pub async fn run_writer(world: Arc<World>) {
    let random = SeededRandom::new(world.seed ^ 0x00c0_ffee);
    create(&world, &random).await;
    let Some(producer_id) = take_id(&world, &random).await else { return };
    let (mut number, mut sequence) = (0, 0);
    while !world.is_quiet() {
        tokio::time::sleep(Duration::from_millis(random.below(40))).await;
        let rows: Vec<(u64, Option<u64>)> = (0..=random.below(4))
            .map(|_| {
                number += 1;
                (random.below(KEYS), (random.below(6) > 0).then_some(number))
            })
            .collect();
        let bytes = with_producer(&batch(&rows, &world), producer_id, 0, sequence);
        sequence += i32::try_from(rows.len()).unwrap_or(0);
        world.compacted.lock().unknown.extend(rows.iter().copied());
        if !send(&world, &random, &bytes).await {
            return;
        }
        let mut written = world.compacted.lock();
        written.unknown.clear();
        written.acked.extend(rows);
        written.batches += 1;
    }
}

async fn create(world: &World, random: &SeededRandom) {
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "4096"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "1500"),
    ];
    let spec = TopicSpec {
        name: TOPIC.to_owned(),
        partitions: 1,
        replication_factor: 3,
        configs: topic::settings(&configs),
    };
    topic::make(world, random, &spec).await;
}

async fn take_id(world: &World, random: &SeededRandom) -> Option<i64> {
    while !world.is_quiet() {
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        let Some(life) = world.random_life(random) else { continue };
        tokio::select! {
            () = life.ended.cancelled() => {}
            id = life.log.init_producer_id() => if let Ok(id) = id { return Some(id) },
        }
    }
    None
}

fn batch(rows: &[(u64, Option<u64>)], world: &World) -> Bytes {
    // Padding makes segments roll.
    let pad = "x".repeat(120);
    let text: Vec<(String, Option<String>)> = rows
        .iter()
        .map(|(key, number)| (format!("k{key}"), number.map(|n| format!("{n} {pad}"))))
        .collect();
    let timestamp_ms = world.now_ms();
    let records: Vec<_> = text
        .iter()
        .map(|(key, value)| RecordRef {
            key: Some(key.as_bytes().into()),
            value: value.as_ref().map(|v| v.as_bytes().into()),
            headers: Vec::new(),
            timestamp_ms,
        })
        .collect();
    build(&records)
}

/// Repeats a batch until it is acknowledged; false when it is not for long in a quiet world.
async fn send(world: &World, random: &SeededRandom, bytes: &Bytes) -> bool {
    let mut patience = 0;
    while patience < 100 {
        patience += u32::from(world.is_quiet());
        if let Some((life, topic)) = route(world, random) {
            let produced = life.log.produce(TopicRef::Id(topic.id), 0, bytes.clone(), Acks::All);
            let result = tokio::select! {
                () = life.ended.cancelled() => Err(LogError::Timeout),
                result = produced => result,
            };
            match result {
                Ok(_) => return true,
                Err(LogError::OutOfOrderSequence | LogError::InvalidProducerEpoch) => {
                    let text = format!("the compacted log refuses its only writer: {result:?}");
                    world.history.lock().violate(text);
                    return false;
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(random.below(200))).await;
    }
    false
}

/// The node that leads, if one that runs knows it.
fn route(world: &World, random: &SeededRandom) -> Option<(Arc<Life>, Arc<Topic>)> {
    let life = world.random_life(random)?;
    let topic = life.log.topic(TOPIC)?;
    let leader = life.log.partition_leadership(&topic, 0)?.leader?;
    Some((world.life(leader)?, topic))
}

/// Checks a node's replica; says how many records it holds of how many offsets.
pub async fn check(world: &World, life: &Life) -> Result<(usize, i64), String> {
    let mut newest: BTreeMap<u64, Option<u64>> = BTreeMap::new();
    let (mut position, mut count) = (0, 0);
    loop {
        let read = life.log.read_any(TopicRef::Name(TOPIC), 0, position, READ_BYTES).await;
        let fetched = read.map_err(|e| e.to_string())?;
        if fetched.records.is_empty() {
            if position < fetched.high_watermark {
                return Err(format!("nothing can be read from offset {position} on"));
            }
            break;
        }
        for bytes in &fetched.records {
            let header = log::batch::BatchHeader::parse(bytes).map_err(|e| e.to_string())?;
            if header.next_offset() <= position {
                return Err(format!("offset {} comes again", header.base_offset));
            }
            position = header.next_offset();
            for record in records(bytes).map_err(|e| e.to_string())? {
                let (key, value) = parse(record.key.as_deref(), record.value.as_deref())
                    .ok_or_else(|| format!("a strange record at {}", record.offset))?;
                newest.insert(key, value);
                count += 1;
            }
        }
    }
    let written = world.compacted.lock();
    for key in 0..KEYS {
        let found = newest.get(&key).copied().flatten();
        let acked = written.acked.get(&key).copied().flatten();
        let fits =
            found == acked || written.unknown.get(&key).is_some_and(|unknown| found == *unknown);
        if !fits {
            return Err(format!("key {key} has {found:?}, {acked:?} was written last"));
        }
    }
    Ok((count, position))
}

fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<(u64, Option<u64>)> {
    let key = std::str::from_utf8(key?).ok()?.strip_prefix('k')?.parse().ok()?;
    let Some(value) = value else { return Some((key, None)) };
    let number = std::str::from_utf8(value).ok()?.split(' ').next()?.parse().ok()?;
    Some((key, Some(number)))
}
