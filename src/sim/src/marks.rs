//! Marks that clients move: a group's committed offset, and the start of a log whose records are
//! deleted and outlive their retention. What was acknowledged is not taken back.

use std::sync::Arc;
use std::time::Duration;

use base::env::{Random, SeededRandom};
use log::batch::{BatchHeader, build};
use log::records::RecordRef;
use log::{Acks, LogError, OffsetToCommit, TopicRef, TopicSpec};

use crate::node::Life;
use crate::topic;
use crate::world::World;

const TOPIC: &str = "trimmed";
const GROUP: &str = "marking";
const READ_BYTES: usize = 64 << 10;

/// What is known of the marks.
#[derive(Debug, Default)]
pub struct Marks {
    /// The offset committed last, and acknowledged.
    committed: i64,
    /// Offsets whose commit ended without an answer: each may come late, or never.
    unknown: Vec<i64>,
    /// The highest start that the log was said to have.
    start: i64,
    /// End of what was acknowledged.
    end: i64,
    /// Acknowledged commits and deletions.
    pub moves: (u64, u64),
}

/// Commits rising offsets until the world asks for quiet, and reads them back.
pub async fn run_committer(world: Arc<World>) {
    let random = SeededRandom::new(world.seed ^ 0x0ff5_e7ff);
    create(&world, &random).await;
    let mut offset = 0;
    while !world.is_quiet() {
        tokio::time::sleep(Duration::from_millis(random.below(60))).await;
        let Some(life) = coordinator(&world, &random) else { continue };
        if random.below(4) == 0 {
            if let Some(wrong) = wrong_offset(&world, &life).await {
                world.history.lock().violate(wrong);
            }
            continue;
        }
        offset += 1;
        let commit = OffsetToCommit {
            topic: TOPIC.to_owned(),
            partition: 0,
            offset,
            leader_epoch: -1,
            metadata: format!("mark {offset}"),
        };
        let commit = [commit];
        let committed = tokio::select! {
            () = life.ended.cancelled() => Err(LogError::Timeout),
            result = life.log.commit_offsets(GROUP, &commit) => result,
        };
        let mut marks = world.marks.lock();
        match committed.as_deref() {
            Ok([Ok(())]) => {
                marks.committed = offset;
                marks.moves.0 += 1;
            }
            _ => marks.unknown.push(offset),
        }
    }
}

/// Writes to the topic and deletes from its start until the world asks for quiet.
pub async fn run_trimmer(world: Arc<World>) {
    let random = SeededRandom::new(world.seed ^ 0x7213_3e35);
    while !world.is_quiet() {
        tokio::time::sleep(Duration::from_millis(random.below(60))).await;
        let Some(life) = leader(&world, &random) else { continue };
        tokio::select! {
            () = life.ended.cancelled() => {}
            () = step(&world, &random, &life) => {}
        }
    }
}

async fn step(world: &World, random: &SeededRandom, life: &Life) {
    let topic = TopicRef::Name(TOPIC);
    if random.below(4) > 0 {
        let value = "x".repeat(300);
        let record = RecordRef {
            key: None,
            value: Some(value.as_bytes().into()),
            headers: Vec::new(),
            timestamp_ms: world.now_ms(),
        };
        if let Ok(done) = life.log.produce(topic, 0, build(&[record]), Acks::All).await {
            let mut marks = world.marks.lock();
            marks.end = marks.end.max(done.base_offset + 1);
            marks.start = marks.start.max(done.log_start_offset);
        }
        return;
    }
    let (start, end) = {
        let marks = world.marks.lock();
        (marks.start, marks.end)
    };
    let wanted = start + i64::try_from(random.below(8)).unwrap_or(0);
    if wanted > end {
        return;
    }
    match life.log.delete_records(topic, 0, wanted).await {
        Ok(told) => {
            if told < wanted {
                let text = format!("records below {wanted} were deleted; the log begins at {told}");
                world.history.lock().violate(text);
            }
            let mut marks = world.marks.lock();
            marks.start = marks.start.max(told);
            marks.moves.1 += 1;
        }
        Err(LogError::OffsetOutOfRange { end: told, .. }) if told < end => {
            let text = format!("a log with acknowledged records up to {end} ends at {told}");
            world.history.lock().violate(text);
        }
        Err(_) => {}
    }
}

async fn create(world: &World, random: &SeededRandom) {
    let configs = [("segment.bytes", "4096"), ("retention.bytes", "8192")];
    let spec = TopicSpec {
        name: TOPIC.to_owned(),
        partitions: 1,
        replication_factor: 3,
        configs: topic::settings(&configs),
    };
    topic::make(world, random, &spec).await;
}

/// The node that coordinates the group, if one that runs knows it.
fn coordinator(world: &World, random: &SeededRandom) -> Option<Arc<Life>> {
    let life = world.random_life(random)?;
    let leader = life.log.coordinator(GROUP).ok()?.leadership().leader?;
    world.life(leader)
}

/// The node that leads the partition, if one that runs knows it.
fn leader(world: &World, random: &SeededRandom) -> Option<Arc<Life>> {
    let life = world.random_life(random)?;
    let topic = life.log.topic(TOPIC)?;
    world.life(life.log.partition_leadership(&topic, 0)?.leader?)
}

/// Reads the committed offset: it must be the one acknowledged last, or one whose fate is unknown.
/// Only while the committer commits nothing.
async fn wrong_offset(world: &World, life: &Life) -> Option<String> {
    let found = tokio::select! {
        () = life.ended.cancelled() => return None,
        found = life.log.fetch_offsets(GROUP) => found.ok()?,
    };
    let offset = found.first().map_or(0, |found| found.offset);
    let marks = world.marks.lock();
    let fits = offset == marks.committed || marks.unknown.contains(&offset);
    (!fits).then(|| format!("the group is at {offset}, {} was acknowledged", marks.committed))
}

/// Checks a node's replica of the trimmed log: it begins where it was said to, or later, ends
/// where it was said to, or later, and can be read in between. And the committed offset.
pub async fn check(world: &World, life: &Life) -> Result<(), String> {
    let (start, end) = {
        let marks = world.marks.lock();
        (marks.start, marks.end)
    };
    let read = |at| life.log.read_any(TopicRef::Name(TOPIC), 0, at, READ_BYTES);
    let status =
        life.log.replicas().into_iter().find(|replica| {
            life.log.topic(TOPIC).is_some_and(|topic| replica.key.topic == topic.id)
        });
    let first = status.ok_or("the trimmed topic has no replica")?.log_start_offset;
    if first < start {
        return Err(format!("the trimmed log begins at {first}, it began at {start}"));
    }
    let mut position = first;
    loop {
        let fetched = read(position).await.map_err(|e| e.to_string())?;
        let Some(last) = fetched.records.last() else { break };
        position = BatchHeader::parse(last).map_err(|e| e.to_string())?.next_offset();
    }
    if position < end {
        return Err(format!("the trimmed log can be read up to {position} of {end}"));
    }
    // Only the coordinator says; each node's rows are held equal by their digests.
    wrong_offset(world, life).await.map_or(Ok(()), Err)
}
