//! Consumer groups: members of one group of the classic protocol and of one of the consumer
//! protocol (KIP-848) join, send heartbeats, commit offsets, leave and come back, through
//! whichever node coordinates their group, and lose answers.
//!
//! What is checked: [`owners`] for partitions, generations and epochs, [`registers`] for committed
//! offsets. In the end, with members still there, every node has the same rows of groups, and
//! they say what the coordinator says.
//!
//! A member of the consumer protocol gives up what it owns when it heard nothing for [`LEASE_MS`],
//! as a real one does before its session ends. A coordinator that was deposed and does not know
//! answers heartbeats without news all the same; its answers extend nobody's session.

pub mod classic;
pub mod consumer;
pub mod owners;
pub mod registers;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base::env::{Random, SeededRandom};
use log::groups::{
    CommitCheck, CommitVia, ConsumerMemberRow, Described, GroupConfig, GroupRow, GroupStore,
    StoredGroups,
};
use log::{LogError, Mode, OffsetToCommit, PartKey, TopicSpec};
use tokio::time::Instant;

use crate::node::Life;
use crate::topic;
use crate::world::World;
use owners::{Generations, Members};
use registers::{Fate, Registers};

const TOPIC: &str = "grouped";
/// The group of the classic protocol.
const CLASSIC: &str = "classic-group";
/// The group of the consumer protocol.
const CONSUMER: &str = "consumer-group";
/// Partitions of the topic in the beginning, and in the end.
const PARTITIONS: (u32, u32) = (4, 6);
/// Silence that ends a session of either protocol.
const SESSION_MS: i64 = 3_000;
/// How long a member of the consumer protocol owns what it was told without hearing more.
const LEASE_MS: u64 = 2_000;
const REBALANCE_MS: i64 = 1_000;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time for rows to say what their coordinator says.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);

/// What members did and saw.
#[derive(Debug, Default)]
pub struct Record {
    /// Committed offsets of both groups.
    pub offsets: Registers,
    /// The group of the classic protocol.
    pub classic: Generations,
    /// The group of the consumer protocol.
    pub members: Members,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged commits.
    pub commits: usize,
    /// The newest generation of the classic group.
    pub generation: i32,
    /// The newest epoch of the other group, and how often a partition was taken in it.
    pub epoch: (i32, usize),
    /// Static members that came back to what they had, by protocol.
    pub kept: (usize, usize),
}

impl Record {
    /// Figures for reports.
    pub fn counts(&self) -> Counts {
        Counts {
            commits: self.offsets.count(),
            generation: self.classic.newest(),
            epoch: (self.members.highest(), self.members.takes()),
            kept: (self.classic.kept, self.members.kept),
        }
    }
}

/// Settings of the coordinators.
pub fn config() -> GroupConfig {
    GroupConfig {
        min_session_ms: SESSION_MS,
        consumer_session_ms: SESSION_MS,
        consumer_interval_ms: 200,
        ..GroupConfig::default()
    }
}

/// Makes the topic and gives both groups a first offset, so that they last when they are empty;
/// later the topic gets more partitions.
pub async fn prepare(world: Arc<World>) {
    let random = SeededRandom::new(world.seed ^ 0x6009);
    let spec = TopicSpec {
        name: TOPIC.to_owned(),
        partitions: i32::try_from(PARTITIONS.0).unwrap_or(1),
        replication_factor: 3,
        configs: Vec::new(),
    };
    topic::make(&world, &random, &spec).await;
    for group in [CLASSIC, CONSUMER] {
        while !world.is_quiet() && !commit(&world, &random, &Who::outside(group), 0).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    world.open_groups();
    tokio::time::sleep(Duration::from_millis(5_000 + random.below(10_000))).await;
    let total = i32::try_from(PARTITIONS.1).unwrap_or(1);
    while !world.is_quiet() {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Some(life) = world.random_life(&random) else { continue };
        let made = ask(&life, PATIENCE, life.log.create_partitions(TOPIC, total, Mode::Apply));
        if matches!(made.await, Some(Ok(_) | Err(LogError::InvalidPartitions(_)))) {
            return;
        }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
struct Who {
    group: &'static str,
    member: String,
    instance: Option<String>,
    /// Generation, or epoch.
    epoch: i32,
}

impl Who {
    fn outside(group: &'static str) -> Self {
        Self { group, member: String::new(), instance: None, epoch: -1 }
    }
}

/// The answer of a node, if it comes before the client has lost its patience and the node its
/// life.
async fn ask<T>(life: &Life, patience: Duration, answer: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = life.ended.cancelled() => None,
        answer = tokio::time::timeout(patience, answer) => answer.ok(),
    }
}

/// How long a client waits for an answer: long, or now and then not long enough.
fn patience(world: &World, random: &SeededRandom) -> Duration {
    if !world.is_calm() && random.below(12) == 0 {
        return Duration::from_millis(random.below(60));
    }
    PATIENCE
}

/// Whether an answer that came gets lost.
fn is_lost(world: &World, random: &SeededRandom) -> bool {
    !world.is_calm() && random.below(15) == 0
}

/// The node that coordinates a group, if one that runs knows it.
fn coordinator(world: &World, random: &SeededRandom, group: &str) -> Option<Arc<Life>> {
    (0..3).find_map(|_| {
        let life = world.random_life(random)?;
        let leader = life.log.coordinator(group).ok()?.leadership().leader?;
        world.life(leader)
    })
}

/// The term in which a node coordinates a group.
fn term(life: &Life, group: &str) -> Option<u64> {
    let leadership = life.log.coordinator(group).ok()?.leadership();
    leadership.ready_here.then_some(leadership.term)
}

/// Whether nobody leads the home of a group in a later term: a coordinator that was deposed does
/// not know, and its answers do not count.
fn is_newest(world: &World, life: &Life, group: &str, term: u64) -> bool {
    let home = life.log.coordinator(group).map(|home| home.id());
    home.is_ok_and(|home| world.history.lock().newest_term(home.0) <= term)
}

fn note(world: &World, group: &str, result: Result<(), String>) {
    if let Err(what) = result {
        world.history.lock().violate(format!("{group}: {what}"));
    }
}

fn key(group: &str, partition: u32) -> String {
    format!("{group}/{partition}")
}

/// Commits the next offset of a partition; says whether that was acknowledged.
async fn commit(world: &World, random: &SeededRandom, who: &Who, partition: u32) -> bool {
    let Some(life) = coordinator(world, random, who.group) else { return false };
    let key = key(who.group, partition);
    let (offset, floor) = {
        let mut record = world.groups.lock();
        let offset = record.offsets.write(&key);
        (offset, record.classic.floor(term(&life, who.group)))
    };
    let answer = ask(&life, patience(world, random), propose(&life, who, partition, offset)).await;
    let fate = match answer {
        Some(Ok(())) if !is_lost(world, random) => Fate::Acked,
        Some(Err(Refused::Never)) => Fate::Refused,
        _ => Fate::Unknown,
    };
    let mut record = world.groups.lock();
    let mut result = record.offsets.written(&key, offset, fate);
    if fate == Fate::Acked && who.group == CLASSIC && who.epoch >= 0 {
        result = result.and_then(|()| record.classic.committed(floor, who.epoch));
    }
    drop(record);
    note(world, who.group, result);
    fate == Fate::Acked
}

/// How a commit failed.
enum Refused {
    Never,
    Perhaps,
}

/// As the Kafka gateway does it.
async fn propose(life: &Life, who: &Who, partition: u32, offset: i64) -> Result<(), Refused> {
    let check = CommitCheck {
        group: who.group.to_owned(),
        via: CommitVia::OffsetCommit,
        generation: who.epoch,
        member: who.member.clone(),
        instance: who.instance.clone(),
    };
    life.groups.check_commit(&check).map_err(|_| Refused::Never)?;
    let commit = OffsetToCommit {
        topic: TOPIC.to_owned(),
        partition: i32::try_from(partition).unwrap_or(0),
        offset,
        leader_epoch: -1,
        metadata: String::new(),
    };
    match life.log.commit_offsets(who.group, &[commit]).await.as_deref() {
        Ok([Ok(())]) => Ok(()),
        Err(LogError::Timeout | LogError::Internal(_)) => Err(Refused::Perhaps),
        Ok(_) | Err(_) => Err(Refused::Never),
    }
}

/// Reads all offsets of a group.
async fn fetch(world: &World, random: &SeededRandom, group: &str) -> bool {
    let Some(life) = coordinator(world, random, group) else { return false };
    let begun = world.groups.lock().offsets.now();
    let found = ask(&life, patience(world, random), life.log.fetch_offsets(group)).await;
    let Some(Ok(found)) = found else { return false };
    for partition in 0..PARTITIONS.1 {
        let of =
            found.iter().find(|f| f.topic == TOPIC && u32::try_from(f.partition) == Ok(partition));
        let key = key(group, partition);
        let read = world.groups.lock().offsets.read(&key, begun, of.map(|f| f.offset));
        note(world, &format!("node {}, {group}", life.node), read);
    }
    true
}

/// Waits until the world has the topic and both groups have an offset.
async fn opened(world: &World) {
    while !world.has_groups() && !world.is_quiet() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Holds the groups of a whole and calm cluster against what members were told: offsets, epochs
/// and the rows of all nodes. Members have just stopped, so that their sessions go on.
pub async fn check(world: &World, lives: &[Arc<Life>]) -> Result<(), String> {
    let random = SeededRandom::new(world.seed);
    for group in [CLASSIC, CONSUMER] {
        let until = Instant::now() + SETTLE_PATIENCE;
        let mut read = false;
        loop {
            read = read || fetch(world, &random, group).await;
            let found = settled(world, lives, group);
            match found {
                Ok(()) if read => break,
                _ if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(()) => return Err(format!("{group}: nobody tells its offsets")),
                Err(what) => return Err(format!("{group}: {what}")),
            }
        }
    }
    Ok(())
}

/// Whether all nodes have the same rows of a group, which say what its coordinator says.
fn settled(world: &World, lives: &[Arc<Life>], group: &str) -> Result<(), String> {
    let mut rows = Vec::new();
    for life in lives {
        let shard = life.log.coordinator_shard(group);
        rows.push((life.node, life.log.load(shard).map_err(|e| e.to_string())?));
    }
    if let Some([(one, a), (other, b)]) = rows.windows(2).find_map(|two| match two {
        [a, b] if a.1 != b.1 => Some([a, b]),
        _ => None,
    }) {
        return Err(format!("node {one} has {a:?} and node {other} {b:?}"));
    }
    let described = lives.iter().find_map(|life| life.groups.describe(group).ok());
    let described = described.ok_or("nobody coordinates it")?;
    let rows = rows.first().map(|(_, rows)| rows).ok_or("no node runs")?;
    let record = world.groups.lock();
    match described {
        Some(Described::Classic(_)) => {
            let Some(GroupRow::V1(row)) = rows.classic.get(group) else {
                return Err("it has no row".to_owned());
            };
            let (stored, told) = (row.generation, record.classic.newest());
            if stored < told {
                return Err(format!("its row is of {stored}, {told} was told"));
            }
        }
        Some(Described::Consumer(described)) => {
            if described.epoch < record.members.highest() {
                let (now, told) = (described.epoch, record.members.highest());
                return Err(format!("it is in epoch {now}, {told} was told"));
            }
            let told = described.members.into_iter().map(|m| (m.id, m.epoch, m.assigned));
            same_members(rows, group, told)?;
        }
        None => return Err("it is not there".to_owned()),
    }
    Ok(())
}

/// Members, epochs and partitions as rows have them and as their coordinator does.
fn same_members(
    rows: &StoredGroups,
    group: &str,
    told: impl Iterator<Item = (String, i32, BTreeSet<PartKey>)>,
) -> Result<(), String> {
    let stored = rows.consumer.get(group).ok_or("it has no row")?;
    let stored = stored.members.iter().map(|(id, ConsumerMemberRow::V1(row))| {
        let parts = row.assigned.iter().flat_map(|(topic, numbers)| {
            numbers.iter().map(|partition| PartKey { topic: *topic, partition: *partition })
        });
        (id.clone(), row.epoch, parts.collect())
    });
    let (stored, told): (Vec<_>, Vec<_>) = (stored.collect(), told.collect());
    if stored == told { Ok(()) } else { Err(format!("rows say {stored:?}, memory {told:?}")) }
}
