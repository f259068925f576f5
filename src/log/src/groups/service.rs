//! Runs the coordinators of this node: routes requests, waits for replies, proposes rows and
//! drives the timers.
//!
//! There is one coordinator per data group, loaded when this node leads it and has applied an
//! entry of its own term, dropped when it no longer does. One task per data group saves rows, one
//! batch at a time and in order, and ticks.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::broken::{self, Broken};
use base::{Env, TaskGroup};
use consensus::Leadership;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot, watch};
use tracing::warn;

use super::consumer::{BeatReply, Refusal, TopicShape};
use super::coordinator::{Coordinator, Effect};
use super::expiry::{ExpiredOffsets, StoredOffsets};
use super::row::{GroupCommand, StoredGroups};
use super::types::{
    CommitCheck, CommitVia, Described, FetchCheck, GroupConfig, GroupError, GroupListing,
    GroupStats, Heartbeat, Join, JoinReply, Leave, LeaveResult, Sync as SyncRequest, SyncReply,
    Token,
};
use super::unsaved::{self, Unsaved};

/// Without any deadline the timers look again after this time.
const IDLE_MS: i64 = 60_000;
const IDLE: Duration = Duration::from_secs(60);

/// A row could not be saved, or its fate is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the group could not be saved: {0}")]
pub struct SaveFailed(pub String);

/// Where groups are kept. A shard is a data group, by number.
#[async_trait]
pub trait GroupStore: Send + Sync + 'static {
    /// How many shards there are.
    fn shards(&self) -> usize;
    /// Follows who leads a shard.
    fn watch(&self, shard: usize) -> watch::Receiver<Leadership>;
    /// Every stored group of a shard that this node leads.
    fn load(&self, shard: usize) -> io::Result<StoredGroups>;
    /// Replicates a command in the given term.
    async fn save(&self, shard: usize, term: u64, command: GroupCommand) -> Result<(), SaveFailed>;
    /// Counts changes of topics.
    fn watch_topics(&self) -> watch::Receiver<u64>;
    /// A topic that this node knows.
    fn topic_shape(&self, topic: &str) -> Option<TopicShape>;
    /// Names of all topics that this node knows.
    fn topic_names(&self) -> Vec<String>;
    /// On return this node knows every topic that was made before.
    async fn learn_topics(&self) -> Result<(), SaveFailed>;
    /// What is set for one group, by name.
    fn group_settings(&self, group: &str) -> BTreeMap<String, String>;
    /// Every committed offset of a shard that this node leads.
    async fn offsets(&self, shard: usize) -> Result<Vec<StoredOffsets>, SaveFailed>;
    /// Forgets expired offsets of a shard in the given term.
    async fn expire(
        &self,
        shard: usize,
        term: u64,
        expired: ExpiredOffsets,
    ) -> Result<(), SaveFailed>;
}

pub(super) enum Waiter {
    Join(String, oneshot::Sender<JoinReply>),
    Sync(oneshot::Sender<Result<SyncReply, GroupError>>),
    Beat(oneshot::Sender<Result<BeatReply, Refusal>>),
}

pub(super) struct Loaded {
    pub(super) term: u64,
    pub(super) coordinator: Coordinator,
    saves: Vec<Unsaved>,
    /// Whether this node knows every topic that the coordinator before it knew.
    pub(super) knows_topics: bool,
}

#[derive(Default)]
pub(super) struct ShardState {
    pub(super) loaded: Option<Loaded>,
    waiters: HashMap<Token, Waiter>,
    next_token: u64,
    /// When the shard's task looks at the time next; `None` before it looked the first time.
    timer_ms: Option<i64>,
}

struct Shard {
    leadership: watch::Receiver<Leadership>,
    state: Mutex<ShardState>,
    wake: Notify,
}

/// The consumer groups that this node coordinates.
pub struct GroupService {
    store: Arc<dyn GroupStore>,
    config: GroupConfig,
    env: Env,
    shards: Vec<Shard>,
}

impl GroupService {
    /// A service over `store` whose tasks belong to `tasks`.
    pub fn start(
        store: Arc<dyn GroupStore>,
        config: GroupConfig,
        env: Env,
        tasks: &TaskGroup,
    ) -> Arc<Self> {
        let shard = |number| Shard {
            leadership: store.watch(number),
            state: Mutex::default(),
            wake: Notify::new(),
        };
        let shards = (0..store.shards()).map(shard).collect();
        let service = Arc::new(Self { store, config, env, shards });
        for number in 0..service.shards.len() {
            let service = service.clone();
            tasks.spawn("groups", async move { service.run(number).await });
        }
        let expiring = service.clone();
        tasks.spawn("offset-expiry", async move { expiring.expire_forever().await });
        service
    }

    /// The number of the data group that coordinates a consumer group or a transactional id.
    pub fn shard_of(&self, id: &str) -> usize {
        let shards = self.shards.len().max(1);
        usize::try_from(base::crc::crc32c(id.as_bytes())).unwrap_or_default() % shards
    }

    /// Follows who leads the data group that coordinates `id`. `None` without data groups.
    pub fn watch_coordinator(&self, id: &str) -> Option<watch::Receiver<Leadership>> {
        self.shards.get(self.shard_of(id)).map(|shard| shard.leadership.clone())
    }

    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.env.clock.monotonic().as_millis()).unwrap_or(i64::MAX)
    }

    /// A member joins. What is given back waits for the rest of the group, at most the rebalance
    /// timeout; the request is over before.
    pub fn join(&self, join: Join) -> impl Future<Output = JoinReply> + Send + use<> {
        let member = join.member.clone();
        let (sender, receiver) = oneshot::channel();
        let name = join.instance.as_deref().unwrap_or(&join.client_id);
        let random = uuid::Uuid::from_bytes(self.env.random.uuid_bytes());
        let fresh = format!("{name}-{random}");
        let asked = self.with(&join.group, |state, now_ms| {
            let token = state.wait(Waiter::Join(member.clone(), sender));
            if let Some(loaded) = &mut state.loaded {
                loaded.coordinator.join(now_ms, token, &join, &fresh);
            }
        });
        async move {
            match asked {
                Ok(()) => receiver
                    .await
                    .unwrap_or_else(|_| JoinReply::failed(&member, GroupError::NotCoordinator)),
                Err(error) => JoinReply::failed(&member, error),
            }
        }
    }

    /// A member asks for its assignment. What is given back waits for the leader's; the request
    /// is over before.
    pub fn sync(
        &self,
        sync: SyncRequest,
    ) -> impl Future<Output = Result<SyncReply, GroupError>> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        let asked = self.with(&sync.group, |state, now_ms| {
            let token = state.wait(Waiter::Sync(sender));
            if let Some(loaded) = &mut state.loaded {
                loaded.coordinator.sync(now_ms, token, &sync);
            }
        });
        async move {
            asked?;
            receiver.await.unwrap_or(Err(GroupError::NotCoordinator))
        }
    }

    /// A member lives.
    pub fn heartbeat(&self, beat: &Heartbeat) -> Result<(), GroupError> {
        self.ask(&beat.group, |c, now_ms| c.heartbeat(now_ms, beat))?
    }

    /// Members leave.
    pub fn leave(&self, leave: &Leave) -> Result<Vec<LeaveResult>, GroupError> {
        self.ask(&leave.group, |c, now_ms| c.leave(now_ms, leave))?
    }

    /// Whether offsets may be committed; call before proposing the commit.
    pub fn check_commit(&self, check: &CommitCheck) -> Result<(), GroupError> {
        if broken::is(Broken::AnyGeneration) {
            return Ok(());
        }
        self.ask(&check.group, |c, now_ms| c.check_commit(now_ms, check))?
    }

    /// Whether offsets may be committed inside a transaction: also from outside the group, and
    /// while members wait for their assignment.
    pub fn check_transactional_commit(&self, check: &CommitCheck) -> Result<(), GroupError> {
        debug_assert_eq!(check.via, CommitVia::Transaction);
        if check.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let outside = check.generation < 0 && check.member.is_empty() && check.instance.is_none();
        if outside {
            return self.check_coordinator(&check.group);
        }
        match self.check_commit(check) {
            Err(GroupError::RebalanceInProgress) => Ok(()),
            other => other,
        }
    }

    /// Whether committed offsets may be read.
    pub fn check_fetch(&self, check: &FetchCheck) -> Result<(), GroupError> {
        self.ask(&check.group, |c, _| c.check_fetch(check))?
    }

    /// Whether this node coordinates the group.
    pub fn check_coordinator(&self, group: &str) -> Result<(), GroupError> {
        self.ask(group, |_, _| ())
    }

    /// Whether offsets of a topic may be deleted.
    pub fn check_offset_delete(&self, group: &str, topic: &str) -> Result<(), GroupError> {
        self.ask(group, |c, _| c.check_offset_delete(group, topic))?
    }

    /// Removes a group without members; says whether there was one. The removal is replicated
    /// when this returns.
    pub async fn delete(&self, group: &str) -> Result<bool, GroupError> {
        let (sender, receiver) = oneshot::channel();
        let existed = self.with(group, |state, _| {
            let loaded = state.loaded.as_mut().ok_or(GroupError::NotCoordinator)?;
            let existed = loaded.coordinator.delete(group)?;
            state.settle();
            let last = state.loaded.as_mut().and_then(|l| l.saves.last_mut());
            if let Some(save) = last.filter(|_| existed) {
                save.done = Some(sender);
            }
            Ok(existed)
        })??;
        if existed {
            receiver.await.unwrap_or(Err(GroupError::NotCoordinator))?;
        }
        Ok(existed)
    }

    /// A group as it stands; `None` when there is none.
    pub fn describe(&self, group: &str) -> Result<Option<Described>, GroupError> {
        self.ask(group, |c, _| c.describe(group))
    }

    /// What metrics say of the groups that this node coordinates.
    pub fn stats(&self) -> Vec<GroupStats> {
        let shards = (0..self.shards.len()).filter_map(|shard| self.ready(shard).ok());
        let loaded =
            shards.filter_map(|mut state| Some(state.loaded.as_mut()?.coordinator.stats()));
        loaded.flatten().collect()
    }

    /// The groups that this node coordinates.
    pub fn list(&self) -> Vec<GroupListing> {
        let mut all = Vec::new();
        for shard in 0..self.shards.len() {
            if let Ok(mut state) = self.ready(shard)
                && let Some(loaded) = &mut state.loaded
            {
                all.extend(loaded.coordinator.list());
            }
        }
        all
    }

    /// The numbers of the data groups that this node leads.
    pub fn led_shards(&self) -> Vec<usize> {
        (0..self.shards.len()).filter(|shard| self.ready(*shard).is_ok()).collect()
    }

    pub(super) fn store(&self) -> &dyn GroupStore {
        &*self.store
    }

    /// The settings of the coordinators.
    pub fn config(&self) -> &GroupConfig {
        &self.config
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    /// Looks at a shard's coordinator; the answer with its term, `None` when it is elsewhere.
    pub(super) fn with_shard<T>(
        &self,
        shard: usize,
        body: impl FnOnce(&Coordinator) -> T,
    ) -> Option<(u64, T)> {
        let state = self.ready(shard).ok()?;
        state.loaded.as_ref().map(|loaded| (loaded.term, body(&loaded.coordinator)))
    }

    fn ask<T>(
        &self,
        group: &str,
        body: impl FnOnce(&mut Coordinator, i64) -> T,
    ) -> Result<T, GroupError> {
        let answer = self.with(group, |state, now_ms| {
            state.loaded.as_mut().map(|loaded| body(&mut loaded.coordinator, now_ms))
        })?;
        answer.ok_or(GroupError::NotCoordinator)
    }

    pub(super) fn with<T>(
        &self,
        group: &str,
        body: impl FnOnce(&mut ShardState, i64) -> T,
    ) -> Result<T, GroupError> {
        let number = self.shard_of(group);
        let mut state = self.ready(number)?;
        let answer = body(&mut state, self.now_ms());
        state.settle();
        let wake = state.has_work_before_timer(group);
        drop(state);
        if let Some(shard) = self.shards.get(number).filter(|_| wake) {
            shard.wake.notify_one();
        }
        Ok(answer)
    }

    /// The state of a shard, loaded when this node leads it.
    pub(super) fn ready(&self, number: usize) -> Result<MutexGuard<'_, ShardState>, GroupError> {
        let shard = self.shards.get(number).ok_or(GroupError::NotCoordinator)?;
        let mut state = shard.state.lock();
        let leadership = *shard.leadership.borrow();
        let stands = |l: &Loaded| leadership.ready_here && l.term == leadership.term;
        if state.loaded.as_ref().is_some_and(stands) {
            return Ok(state);
        }
        state.unload();
        if !leadership.ready_here {
            return Err(GroupError::NotCoordinator);
        }
        match self.store.load(number) {
            Ok(rows) => {
                let coordinator = Coordinator::new(self.config, rows, self.now_ms());
                let term = leadership.term;
                let saves = Vec::new();
                state.loaded = Some(Loaded { term, coordinator, saves, knows_topics: false });
                Ok(state)
            }
            Err(error) => {
                warn!(shard = number, %error, "consumer groups cannot be loaded");
                Err(GroupError::CoordinatorNotAvailable)
            }
        }
    }

    async fn run(&self, number: usize) {
        let Some(shard) = self.shards.get(number) else { return };
        let mut leadership = shard.leadership.clone();
        loop {
            while self.save_some(number).await {}
            let wait = self.tick(number);
            tokio::select! {
                () = shard.wake.notified() => {}
                changed = leadership.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Lets time pass in a shard; returns how long nothing else is due.
    fn tick(&self, number: usize) -> Duration {
        let Ok(mut state) = self.ready(number) else { return IDLE };
        let now_ms = self.now_ms();
        let Some(loaded) = &mut state.loaded else { return IDLE };
        loaded.coordinator.tick(now_ms);
        let deadline = loaded.coordinator.next_deadline_ms();
        let timer = deadline.unwrap_or(i64::MAX).min(now_ms.saturating_add(IDLE_MS));
        state.timer_ms = Some(timer);
        state.settle();
        if state.loaded.as_ref().is_some_and(|l| !l.saves.is_empty()) {
            return Duration::ZERO;
        }
        Duration::from_millis(u64::try_from(timer.saturating_sub(now_ms)).unwrap_or(0))
    }

    /// Saves rows that wait; says whether there were any.
    async fn save_some(&self, number: usize) -> bool {
        let Some((term, batch)) = self.take_saves(number) else { return false };
        let result = self.store.save(number, term, unsaved::command(&batch)).await;
        if let Err(error) = &result {
            warn!(shard = number, %error, "consumer groups not saved");
        }
        let result = result.map_err(|_| GroupError::CoordinatorNotAvailable);
        let now_ms = self.now_ms();
        if let Ok(mut state) = self.ready(number) {
            if let Some(loaded) = state.loaded.as_mut().filter(|l| l.term == term) {
                for save in &batch {
                    loaded.coordinator.saved(now_ms, &save.group, save.ticket, result);
                }
            }
            state.settle();
        }
        for done in batch.into_iter().filter_map(|save| save.done) {
            // Whoever asked may have gone.
            done.send(result).ok();
        }
        true
    }

    fn take_saves(&self, number: usize) -> Option<(u64, Vec<Unsaved>)> {
        let mut state = self.ready(number).ok()?;
        let loaded = state.loaded.as_mut()?;
        let count = unsaved::batch(&loaded.saves);
        let batch: Vec<_> = loaded.saves.drain(..count).collect();
        (!batch.is_empty()).then_some((loaded.term, batch))
    }
}

impl ShardState {
    pub(super) fn wait(&mut self, waiter: Waiter) -> Token {
        self.next_token += 1;
        self.waiters.insert(Token(self.next_token), waiter);
        Token(self.next_token)
    }

    /// Whether a request about `group` left something to do before the shard's task looks again:
    /// heartbeats, which are most of the requests, never do.
    fn has_work_before_timer(&self, group: &str) -> bool {
        let Some(loaded) = &self.loaded else { return false };
        let deadline = loaded.coordinator.deadline_of(group);
        !loaded.saves.is_empty() || deadline.is_some_and(|at| self.timer_ms.is_none_or(|t| at < t))
    }

    /// Carries out what the coordinator asked for.
    fn settle(&mut self) {
        let Some(loaded) = &mut self.loaded else { return };
        for effect in loaded.coordinator.take_effects() {
            // A receiver that is gone belongs to a closed connection.
            match effect {
                Effect::Join(token, reply) => {
                    if let Some(Waiter::Join(_, sender)) = self.waiters.remove(&token) {
                        drop(sender.send(reply));
                    }
                }
                Effect::Sync(token, reply) => {
                    if let Some(Waiter::Sync(sender)) = self.waiters.remove(&token) {
                        drop(sender.send(reply));
                    }
                }
                Effect::Beat(token, reply) => {
                    if let Some(Waiter::Beat(sender)) = self.waiters.remove(&token) {
                        drop(sender.send(reply));
                    }
                }
                Effect::Save { group, ticket, write } => {
                    loaded.saves.push(Unsaved { group, ticket, write, done: None });
                }
            }
        }
    }

    /// Another node coordinates now: whoever waits looks for it.
    fn unload(&mut self) {
        self.loaded = None;
        self.timer_ms = None;
        for (_, waiter) in self.waiters.drain() {
            match waiter {
                Waiter::Join(member, sender) => {
                    let reply = JoinReply::failed(&member, GroupError::NotCoordinator);
                    drop(sender.send(reply));
                }
                Waiter::Sync(sender) => drop(sender.send(Err(GroupError::NotCoordinator))),
                Waiter::Beat(sender) => {
                    drop(sender.send(Err(GroupError::NotCoordinator.into())));
                }
            }
        }
    }
}
