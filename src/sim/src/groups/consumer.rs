//! Members of a group of the consumer protocol (KIP-848).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::env::{Random, SeededRandom};
use log::PartKey;
use log::groups::{Beat, BeatReply, GroupError, JOINS, LEAVES, LEAVES_FOR_A_WHILE, Refusal};

use super::owners::{Parts, Step};
use super::{
    CONSUMER, LEASE_MS, SESSION_MS, TOPIC, Who, ask, commit, coordinator, fetch, is_lost,
    is_newest, note, opened, patience, term,
};
use crate::node::Life;
use crate::world::World;

/// Longest pause between two steps of a member, in milliseconds.
const PAUSE_MS: u64 = 150;
/// How long a member may take to give partitions up.
const REBALANCE_MS: i32 = 10_000;

struct Member {
    world: Arc<World>,
    random: SeededRandom,
    name: String,
    /// Static name.
    instance: Option<String>,
    /// How many lives it had.
    lives: u64,
    id: String,
    epoch: i32,
    /// Whether nothing was sent under this id yet.
    fresh: bool,
    /// What it owns, and since when.
    owned: BTreeMap<PartKey, u64>,
    /// What it was last told to own, until it does.
    told: Option<BTreeSet<PartKey>>,
    /// It did not hear an answer, so it says everything again.
    says_all: bool,
    /// When the last heartbeat that was answered began.
    heard_ms: u64,
    /// What a static member that left for a while was told last.
    left: Option<(i32, Parts)>,
}

/// Joins and goes on until the world asks for quiet. Members with an even number are static.
pub async fn run_member(world: Arc<World>, number: u64) {
    let random = SeededRandom::new(world.seed ^ (number << 36) ^ 0xc02);
    let instance = number.is_multiple_of(2).then(|| format!("static-{number}"));
    opened(&world).await;
    let mut member = Member {
        world,
        random,
        name: format!("member-{number}"),
        instance,
        lives: 0,
        id: String::new(),
        epoch: JOINS,
        fresh: true,
        owned: BTreeMap::new(),
        told: None,
        says_all: false,
        heard_ms: 0,
        left: None,
    };
    member.begin_anew();
    while !member.world.is_quiet() {
        member.pause(PAUSE_MS).await;
        member.step().await;
    }
    member.give_up_all();
}

impl Member {
    async fn pause(&self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.below(most_ms))).await;
    }

    fn now(&self) -> u64 {
        self.world.age_ms()
    }

    /// A member that nobody knows, under a static name that somebody may know.
    fn begin_anew(&mut self) {
        self.give_up_all();
        self.lives += 1;
        self.id = format!("{}-{}", self.name, self.lives);
        (self.epoch, self.fresh, self.says_all) = (JOINS, true, false);
    }

    /// Gives up what is not to be kept. What a member owns ends with its session at the latest.
    fn give_up(&mut self, keep: &BTreeSet<PartKey>) {
        let until = self.now().min(self.heard_ms + LEASE_MS);
        let (world, id) = (self.world.clone(), self.id.clone());
        self.owned.retain(|part, since| {
            let kept = keep.contains(part);
            if !kept {
                let time = (*since, until);
                let held = world.groups.lock().members.held(part.partition, &id, time);
                note(&world, CONSUMER, held);
            }
            kept
        });
    }

    fn give_up_all(&mut self) {
        self.give_up(&BTreeSet::new());
        self.told = None;
    }

    /// Whether the session may be over, by what the member knows.
    fn is_late(&self) -> bool {
        self.now() > self.heard_ms + LEASE_MS
    }

    async fn step(&mut self) {
        if self.is_late() && !self.owned.is_empty() {
            self.give_up_all();
            self.epoch = JOINS;
        }
        let calm = self.world.is_calm();
        match self.random.below(400) {
            0 if !calm => self.leave(LEAVES).await,
            1 | 2 if !calm && self.instance.is_some() => self.leave(LEAVES_FOR_A_WHILE).await,
            // It falls silent, for less or more than a session.
            3 if !calm => self.pause(2 * SESSION_MS.unsigned_abs()).await,
            // It dies, and somebody new comes in its place.
            4 if !calm => {
                self.left = None;
                self.begin_anew();
            }
            5..45 => {
                fetch(&self.world, &self.random, CONSUMER).await;
            }
            45..200 => self.commit().await,
            _ => self.beat().await,
        }
        self.reconcile();
    }

    /// Gives up what it has to, then takes what it may.
    fn reconcile(&mut self) {
        let Some(told) = self.told.clone() else { return };
        if self.is_late() {
            return;
        }
        if !self.owned.keys().all(|part| told.contains(part)) {
            return self.give_up(&told);
        }
        let now = self.now();
        for part in told {
            self.owned.entry(part).or_insert(now);
        }
        self.told = None;
    }

    async fn commit(&self) {
        let number = usize::try_from(self.random.below(self.owned.len() as u64)).unwrap_or(0);
        if self.is_late() {
            return;
        }
        if let Some(part) = self.owned.keys().nth(number) {
            let (member, instance) = (self.id.clone(), self.instance.clone());
            let who = Who { group: CONSUMER, member, instance, epoch: self.epoch };
            commit(&self.world, &self.random, &who, part.partition).await;
        }
    }

    fn request(&self, epoch: i32) -> Beat {
        Beat {
            group: CONSUMER.to_owned(),
            member: self.id.clone(),
            epoch,
            instance: self.instance.clone(),
            client_id: self.name.clone(),
            client_host: "/sim".to_owned(),
            brings_id: true,
            ..Beat::default()
        }
    }

    async fn send(&self, life: &Life, beat: Beat) -> Option<Result<BeatReply, Refusal>> {
        let patience = patience(&self.world, &self.random);
        let answer = ask(life, patience, life.groups.beat(beat, &|_: &str| true)).await;
        answer.filter(|_| !is_lost(&self.world, &self.random))
    }

    async fn beat(&mut self) {
        let Some(life) = coordinator(&self.world, &self.random, CONSUMER) else { return };
        let (begun_ms, begun) = (self.now(), term(&life, CONSUMER));
        let joins = self.epoch == JOINS;
        if joins {
            self.give_up_all();
        }
        let all = joins || self.says_all;
        if all {
            // It hears anew what it may own, and takes nothing by what it heard before.
            self.told = None;
        }
        // As real clients do: silent about what it owns while that changes.
        let owned = self.told.is_none().then(|| self.owned.keys().copied().collect());
        let beat = Beat {
            rebalance_timeout_ms: all.then_some(REBALANCE_MS),
            topics: all.then(|| vec![TOPIC.to_owned()]),
            owned,
            ..self.request(self.epoch)
        };
        let floor = self.world.groups.lock().members.floor(begun.unwrap_or(0));
        let step = if joins && self.fresh { Step::Joined } else { Step::Stayed(self.epoch) };
        self.fresh = false;
        let answer = self.send(&life, beat).await;
        let term = begun.filter(|at| {
            begun == term(&life, CONSUMER) && is_newest(&self.world, &life, CONSUMER, *at)
        });
        match (answer, term) {
            (Some(Ok(reply)), Some(term)) => self.heard(begun_ms, floor, term, step, reply),
            (Some(Err(refusal)), _) => self.refused(refusal),
            (Some(Ok(_)) | None, _) => self.says_all = true,
        }
    }

    fn heard(&mut self, begun_ms: u64, floor: i32, term: u64, step: Step, reply: BeatReply) {
        let mut record = self.world.groups.lock();
        let mut told = record.members.told(floor, term, &self.id, step, reply.epoch);
        if let (Some((epoch, before)), Some(now)) = (self.left.take(), &reply.assignment) {
            let now = now.iter().map(|part| part.partition).collect();
            let (before, now) = ((epoch, &before), (reply.epoch, &now));
            told = told.and_then(|()| record.members.returned(&self.name, before, now));
        }
        drop(record);
        note(&self.world, CONSUMER, told);
        if self.is_late() && !self.owned.is_empty() {
            // Its session was over before the answer came: a client would have joined anew.
            self.give_up_all();
            self.epoch = JOINS;
            return;
        }
        self.heard_ms = begun_ms;
        self.epoch = reply.epoch;
        self.says_all = false;
        self.told = reply.assignment.or(self.told.take());
    }

    fn refused(&mut self, refusal: Refusal) {
        match refusal.error {
            GroupError::CoordinatorNotAvailable | GroupError::NotCoordinator => {
                self.says_all = true;
            }
            GroupError::FencedMemberEpoch | GroupError::UnknownMemberId => {
                self.give_up_all();
                (self.epoch, self.left) = (JOINS, None);
            }
            // Somebody else has its name: it was taken for dead.
            GroupError::FencedInstanceId => {
                self.left = None;
                self.begin_anew();
            }
            // Whoever had the name before is in its session still.
            GroupError::UnreleasedInstanceId => self.left = None,
            GroupError::GroupIdNotFound if self.epoch != JOINS => {
                self.give_up_all();
                self.epoch = JOINS;
            }
            other => {
                let what = format!("{} was told {other}: {:?}", self.id, refusal.message);
                note(&self.world, CONSUMER, Err(what));
            }
        }
    }

    /// Leaves for good or for a while, and comes back under another id.
    async fn leave(&mut self, epoch: i32) {
        if self.epoch <= JOINS {
            return;
        }
        let assigned = self.told.clone().unwrap_or_else(|| self.owned.keys().copied().collect());
        let before = (self.epoch, assigned.iter().map(|part| part.partition).collect());
        self.give_up_all();
        let mut left = false;
        for _ in 0..5 {
            if let Some(life) = coordinator(&self.world, &self.random, CONSUMER)
                && let Some(Ok(_)) = self.send(&life, self.request(epoch)).await
            {
                left = true;
                break;
            }
            self.pause(PAUSE_MS).await;
        }
        self.left = (left && epoch == LEAVES_FOR_A_WHILE).then_some(before);
        if left && epoch == LEAVES {
            // A while without it.
            self.pause(SESSION_MS.unsigned_abs()).await;
        } else {
            self.pause(PAUSE_MS).await;
        }
        self.begin_anew();
    }
}
