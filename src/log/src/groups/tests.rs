//! The classic protocol told as stories: each step feeds the coordinator and reads its effects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Env, TaskGroup};
use bytes::Bytes;
use consensus::Leadership;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::*;

const DELAY: i64 = 100;

struct World {
    coordinator: Coordinator,
    now_ms: i64,
    next: u64,
    rows: BTreeMap<String, GroupRow>,
    joins: BTreeMap<u64, JoinReply>,
    syncs: BTreeMap<u64, Result<SyncReply, GroupError>>,
    unsaved: Vec<(String, u64)>,
    hold_saves: bool,
}

impl World {
    fn new() -> Self {
        Self::with_rows(BTreeMap::new())
    }

    fn with_rows(rows: BTreeMap<String, GroupRow>) -> Self {
        let config = GroupConfig { initial_delay_ms: DELAY, ..Default::default() };
        Self {
            coordinator: Coordinator::new(config, rows.clone(), 1000),
            now_ms: 1000,
            next: 0,
            rows,
            joins: BTreeMap::new(),
            syncs: BTreeMap::new(),
            unsaved: Vec::new(),
            hold_saves: false,
        }
    }

    /// What a new leader of the data group finds.
    fn failover(&self) -> Self {
        Self { next: self.next, ..Self::with_rows(self.rows.clone()) }
    }

    fn settle(&mut self) {
        loop {
            let effects = self.coordinator.take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Join(token, reply) => {
                        assert!(self.joins.insert(token.0, reply).is_none(), "answered twice");
                    }
                    Effect::Sync(token, reply) => {
                        assert!(self.syncs.insert(token.0, reply).is_none(), "answered twice");
                    }
                    Effect::Save { group, ticket, .. } if self.hold_saves => {
                        self.unsaved.push((group, ticket));
                    }
                    Effect::Save { group, ticket, row } => {
                        match row {
                            Some(row) => self.rows.insert(group.clone(), row),
                            None => self.rows.remove(&group),
                        };
                        self.coordinator.saved(self.now_ms, &group, ticket, Ok(()));
                    }
                }
            }
        }
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.coordinator.tick(self.now_ms);
        self.settle();
    }

    fn join(&mut self, join: Join) -> u64 {
        self.next += 1;
        let fresh = format!("m{}", self.next);
        self.coordinator.join(self.now_ms, Token(self.next), &join, &fresh);
        self.settle();
        self.next
    }

    fn sync(&mut self, member: &str, generation: i32, assignments: &[(&str, &str)]) -> u64 {
        self.next += 1;
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let assignments = assignments.iter().map(|(m, a)| ((*m).to_owned(), bytes(a))).collect();
        let member = member.to_owned();
        let sync = Sync { group: "g".into(), generation, member, assignments, ..Sync::default() };
        self.coordinator.sync(self.now_ms, Token(self.next), &sync);
        self.settle();
        self.next
    }

    fn beat(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        let member = member.to_owned();
        let beat = Heartbeat { group: "g".into(), generation, member, instance: None };
        let result = self.coordinator.heartbeat(self.now_ms, &beat);
        self.settle();
        result
    }

    fn leave(&mut self, id: &str, instance: Option<&str>) -> Option<GroupError> {
        let member = MemberName { id: id.into(), instance: instance.map(Into::into) };
        let leave = Leave { group: "g".into(), members: vec![member] };
        let results = self.coordinator.leave(self.now_ms, &leave).unwrap();
        self.settle();
        results[0].error
    }

    fn commit(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        let (group, member) = ("g".into(), member.to_owned());
        let check = CommitCheck { group, generation, member, instance: None };
        self.coordinator.check_commit(self.now_ms, &check)
    }

    fn state(&self) -> GroupState {
        self.coordinator.describe("g").unwrap().state
    }

    fn assignment(&self, token: u64) -> &str {
        std::str::from_utf8(&self.syncs[&token].as_ref().unwrap().assignment).unwrap()
    }

    /// Two members, m1 leading, in generation 1 with assignments `a1` and `a2`.
    fn two_members() -> Self {
        let mut world = Self::new();
        let (one, two) = (world.join(member("")), world.join(member("")));
        world.pass(DELAY);
        assert_eq!((world.joins[&one].generation, world.joins[&two].generation), (1, 1));
        world.sync("m1", 1, &[("m1", "a1"), ("m2", "a2")]);
        world.sync("m2", 1, &[]);
        assert_eq!(world.state(), GroupState::Stable);
        world
    }
}

/// `range` and `sticky` for topic `t`.
fn member(id: &str) -> Join {
    Join {
        group: "g".into(),
        member: id.into(),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![
            ("range".into(), Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\0\0\0\0")),
            ("sticky".into(), Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\0\0\0\0")),
        ],
        ..Join::default()
    }
}

fn static_member(id: &str, instance: &str) -> Join {
    Join { instance: Some(instance.into()), can_skip_assignment: true, ..member(id) }
}

#[test]
fn two_members_share_the_first_generation() {
    let mut world = World::new();
    let one = world.join(member(""));
    let two = world.join(member(""));
    assert!(world.joins.is_empty(), "the first generation waits for more members");
    world.pass(DELAY);
    let (leader, follower) = (&world.joins[&one], &world.joins[&two]);
    assert_eq!((leader.leader.as_str(), leader.members.len()), ("m1", 2));
    assert_eq!((follower.leader.as_str(), follower.members.len()), ("m1", 0));
    assert_eq!(leader.protocol.as_deref(), Some("range"));
    let two = world.sync("m2", 1, &[]);
    assert!(!world.syncs.contains_key(&two), "the leader's assignment is not there yet");
    let one = world.sync("m1", 1, &[("m1", "a1"), ("m2", "a2")]);
    assert_eq!((world.assignment(one), world.assignment(two)), ("a1", "a2"));
    assert_eq!(world.state(), GroupState::Stable);
    assert_eq!(world.beat("m2", 1), Ok(()));
}

#[test]
fn nobody_hears_an_assignment_that_is_not_saved() {
    let mut world = World::new();
    world.join(member(""));
    world.pass(DELAY);
    world.hold_saves = true;
    let sync = world.sync("m1", 1, &[("m1", "a1")]);
    assert!(!world.syncs.contains_key(&sync));
    let (group, ticket) = world.unsaved.pop().unwrap();
    let failed = Err(GroupError::CoordinatorNotAvailable);
    world.coordinator.saved(world.now_ms, &group, ticket, failed);
    world.settle();
    assert_eq!(world.syncs[&sync], Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_third_member_makes_the_others_join_again() {
    let mut world = World::two_members();
    let three = world.join(member(""));
    assert_eq!(world.beat("m1", 1), Err(GroupError::RebalanceInProgress));
    let one = world.join(member("m1"));
    assert!(!world.joins.contains_key(&three), "m2 is still missing");
    let two = world.join(member("m2"));
    for token in [one, two, three] {
        assert_eq!(world.joins[&token].generation, 2);
    }
    assert_eq!(world.joins[&one].members.len(), 3);
    assert_eq!(world.sync_error("m1", 1), Some(GroupError::IllegalGeneration));
}

impl World {
    fn sync_error(&mut self, member: &str, generation: i32) -> Option<GroupError> {
        let token = self.sync(member, generation, &[]);
        self.syncs[&token].clone().err()
    }
}

#[test]
fn a_member_that_does_not_rejoin_in_time_is_out() {
    let mut world = World::two_members();
    let three = world.join(member(""));
    let one = world.join(member("m1"));
    for _ in 0..13 {
        world.pass(5_000);
        let _ = world.beat("m2", 1);
    }
    assert_eq!(world.joins[&one].generation, 2);
    assert_eq!(world.joins[&one].members.len(), 2);
    assert_eq!(world.joins[&three].generation, 2);
    assert_eq!(world.beat("m2", 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn silence_ends_a_session() {
    let mut world = World::two_members();
    world.pass(9_000);
    assert_eq!(world.beat("m1", 1), Ok(()));
    world.pass(2_000);
    assert_eq!(world.beat("m2", 1), Err(GroupError::UnknownMemberId));
    assert_eq!(world.beat("m1", 1), Err(GroupError::RebalanceInProgress));
    let again = world.join(member("m1"));
    assert_eq!((world.joins[&again].generation, world.joins[&again].members.len()), (2, 1));
}

#[test]
fn the_last_member_leaves_an_empty_group_behind() {
    let mut world = World::two_members();
    assert_eq!(world.leave("m1", None), None);
    assert_eq!(world.leave("m2", None), None);
    assert_eq!(world.leave("m2", None), Some(GroupError::UnknownMemberId));
    assert_eq!(world.state(), GroupState::Empty);
    let GroupRow::V1(row) = &world.rows["g"];
    assert_eq!((row.generation, row.members.len()), (2, 0));
    let one = world.join(member(""));
    world.pass(DELAY);
    assert_eq!(world.joins[&one].generation, 3, "generations go on");
}

#[test]
fn members_go_on_after_a_leader_change() {
    let mut world = World::two_members().failover();
    assert_eq!(world.state(), GroupState::Stable);
    assert_eq!((world.beat("m1", 1), world.beat("m2", 1)), (Ok(()), Ok(())));
    assert_eq!(world.commit("m2", 1), Ok(()));
    let two = world.sync("m2", 1, &[]);
    assert_eq!(world.assignment(two), "a2");
    world.pass(10_001);
    assert_eq!(world.state(), GroupState::Empty, "sessions run at the new leader too");
}

#[test]
fn a_rebalance_cut_by_a_leader_change_begins_again() {
    let mut world = World::two_members();
    world.join(member(""));
    world.join(member("m1"));
    let mut world = world.failover();
    assert_eq!(world.beat("m1", 1), Ok(()), "the old generation stands");
    let three = world.join(member(""));
    let one = world.join(member("m1"));
    let two = world.join(member("m2"));
    assert_eq!(world.joins[&three].generation, 2);
    assert_eq!((world.joins[&one].generation, world.joins[&two].generation), (2, 2));
}

#[test]
fn a_dynamic_member_joins_with_the_id_given_to_it() {
    let mut world = World::new();
    let first = world.join(Join { require_known_id: true, ..member("") });
    let reply = world.joins[&first].clone();
    assert_eq!(reply.error, Some(GroupError::MemberIdRequired));
    let second = world.join(Join { require_known_id: true, ..member(&reply.member) });
    world.pass(DELAY);
    assert_eq!(world.joins[&second].member, reply.member);
    let stranger = world.join(member("nobody"));
    assert_eq!(world.joins[&stranger].error, Some(GroupError::UnknownMemberId));
}

#[test]
fn an_id_that_is_never_used_is_forgotten_with_its_group() {
    let mut world = World::new();
    world.join(Join { require_known_id: true, ..member("") });
    assert!(world.coordinator.describe("g").is_some());
    world.pass(10_001);
    assert!(world.coordinator.describe("g").is_none());
}

#[test]
fn a_static_member_returns_without_a_rebalance() {
    let mut world = World::new();
    world.join(static_member("", "s1"));
    world.join(static_member("", "s2"));
    world.pass(DELAY);
    world.sync("m1", 1, &[("m1", "a1"), ("m2", "a2")]);
    let back = world.join(static_member("", "s2"));
    let reply = &world.joins[&back];
    assert_eq!((reply.error, reply.generation, reply.leader.as_str()), (None, 1, "m1"));
    let id = reply.member.clone();
    let sync = world.sync(&id, 1, &[]);
    assert_eq!(world.assignment(sync), "a2");
    assert_eq!(world.state(), GroupState::Stable);
    let stale = world.join(static_member("m2", "s2"));
    assert_eq!(world.joins[&stale].error, Some(GroupError::FencedInstanceId));
    let leader = world.join(static_member("", "s1"));
    let reply = &world.joins[&leader];
    assert!(reply.skip_assignment && reply.members.len() == 2);
}

#[test]
fn a_static_member_leaves_by_name() {
    let mut world = World::new();
    world.join(static_member("", "s1"));
    world.pass(DELAY);
    assert_eq!(world.leave("other", Some("s1")), Some(GroupError::FencedInstanceId));
    assert_eq!(world.leave("", Some("nobody")), Some(GroupError::UnknownMemberId));
    assert_eq!(world.leave("", Some("s1")), None);
    assert_eq!(world.state(), GroupState::Empty);
}

#[test]
fn members_that_never_sync_are_out() {
    let mut world = World::new();
    let one = world.join(member(""));
    world.join(member(""));
    world.pass(DELAY);
    world.sync("m1", 1, &[("m1", "a1")]);
    for _ in 0..13 {
        world.pass(5_000);
        let _ = (world.beat("m1", 1), world.beat("m2", 1));
    }
    assert_eq!(world.joins[&one].generation, 1);
    assert_eq!(world.beat("m2", 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn bad_joins_are_refused() {
    let mut world = World::two_members();
    let cases = [
        (Join { group: String::new(), ..member("") }, GroupError::InvalidGroupId),
        (Join { session_timeout_ms: 5, ..member("") }, GroupError::InvalidSessionTimeout),
        (Join { protocols: vec![], ..member("") }, GroupError::InconsistentGroupProtocol),
        (
            Join { protocol_type: "connect".into(), ..member("") },
            GroupError::InconsistentGroupProtocol,
        ),
        (
            Join { protocols: vec![("other".into(), Bytes::new())], ..member("") },
            GroupError::InconsistentGroupProtocol,
        ),
    ];
    for (join, error) in cases {
        let token = world.join(join);
        assert_eq!(world.joins[&token].error, Some(error));
    }
    assert_eq!(world.state(), GroupState::Stable, "and nothing happened");
}

#[test]
fn commits_are_judged_by_generation() {
    let mut world = World::two_members();
    assert_eq!(world.commit("m1", 1), Ok(()));
    assert_eq!(world.commit("m1", 0), Err(GroupError::IllegalGeneration));
    assert_eq!(world.commit("nobody", 1), Err(GroupError::UnknownMemberId));
    assert_eq!(world.commit("", -1), Err(GroupError::UnknownMemberId), "the group has members");
    let mut empty = World::new();
    assert_eq!(empty.commit("", -1), Ok(()));
    assert_eq!(empty.commit("m1", 3), Err(GroupError::IllegalGeneration));
}

#[test]
fn only_an_empty_group_is_deleted() {
    let mut world = World::two_members();
    assert_eq!(world.coordinator.delete("g"), Err(GroupError::NonEmptyGroup));
    let subscribed = GroupError::GroupSubscribedToTopic;
    assert_eq!(world.coordinator.check_offset_delete("g", "t"), Err(subscribed));
    assert_eq!(world.coordinator.check_offset_delete("g", "other"), Ok(()));
    world.leave("m1", None);
    world.leave("m2", None);
    assert_eq!(world.coordinator.delete("g"), Ok(true));
    world.settle();
    assert!(world.rows.is_empty());
    assert_eq!(world.coordinator.delete("g"), Ok(false));
}

struct MemoryStore {
    leadership: watch::Sender<Leadership>,
    rows: Mutex<BTreeMap<String, GroupRow>>,
    topics: watch::Sender<u64>,
    offsets: Mutex<Vec<StoredOffsets>>,
    expired: watch::Sender<Vec<ExpiredOffsets>>,
}

impl MemoryStore {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            leadership: watch::Sender::new(led(1, true)),
            rows: Mutex::default(),
            topics: watch::Sender::new(0),
            offsets: Mutex::default(),
            expired: watch::Sender::new(vec![]),
        })
    }
}

#[async_trait::async_trait]
impl GroupStore for MemoryStore {
    fn shards(&self) -> usize {
        1
    }

    fn watch(&self, _shard: usize) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn load(&self, _shard: usize) -> std::io::Result<BTreeMap<String, GroupRow>> {
        Ok(self.rows.lock().clone())
    }

    async fn save(
        &self,
        _shard: usize,
        term: u64,
        command: GroupCommand,
    ) -> Result<(), SaveFailed> {
        if self.leadership.borrow().term != term {
            return Err(SaveFailed("another term".into()));
        }
        let GroupCommand::Save(groups) = command;
        for (id, row) in groups {
            match row {
                Some(row) => self.rows.lock().insert(id, row),
                None => self.rows.lock().remove(&id),
            };
        }
        Ok(())
    }

    fn watch_topics(&self) -> watch::Receiver<u64> {
        self.topics.subscribe()
    }

    async fn offsets(&self, _shard: usize) -> Result<Vec<StoredOffsets>, SaveFailed> {
        Ok(self.offsets.lock().clone())
    }

    async fn expire(
        &self,
        _shard: usize,
        _term: u64,
        expired: ExpiredOffsets,
    ) -> Result<(), SaveFailed> {
        self.expired.send_modify(|all| all.push(expired));
        Ok(())
    }
}

fn led(term: u64, ready_here: bool) -> Leadership {
    Leadership { term, ready_here, ..Leadership::default() }
}

#[tokio::test]
async fn the_service_waits_saves_and_hands_over() {
    let store = MemoryStore::new();
    let tasks = TaskGroup::new();
    let service = GroupService::start(store.clone(), GroupConfig::default(), Env::real(), &tasks);
    let joined = service.join(member("")).await;
    assert_eq!((joined.error, joined.generation), (None, 1));
    let assignments = vec![(joined.member.clone(), Bytes::from_static(b"a"))];
    let sync = Sync {
        group: "g".into(),
        generation: 1,
        member: joined.member.clone(),
        assignments,
        ..Sync::default()
    };
    assert_eq!(&service.sync(sync).await.unwrap().assignment[..], b"a");
    assert_eq!(store.rows.lock().len(), 1);
    let beat =
        Heartbeat { group: "g".into(), generation: 1, member: joined.member, instance: None };
    assert_eq!(service.heartbeat(&beat), Ok(()));

    // A join that waits for the others is told to look elsewhere when leadership goes.
    let waiting = {
        let service = service.clone();
        async move { service.join(member("")).await }
    };
    let change = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        store.leadership.send_replace(led(2, false));
    };
    let (reply, ()) = tokio::join!(waiting, change);
    assert_eq!(reply.error, Some(GroupError::NotCoordinator));
    assert_eq!(service.heartbeat(&beat), Err(GroupError::NotCoordinator));
    store.leadership.send_replace(led(3, true));
    assert_eq!(service.heartbeat(&beat), Ok(()), "the generation survived the change");
    tasks.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn expired_offsets_go_and_empty_groups_with_them() {
    let store = MemoryStore::new();
    let row = GroupRowV1 { protocol_type: Some("consumer".into()), ..Default::default() };
    store.rows.lock().insert("empty".into(), GroupRow::V1(row));
    let stored = |group: &str, empty_since_ms, commit_time_ms| StoredOffsets {
        group: group.into(),
        empty_since_ms,
        offsets: vec![StoredOffset {
            key: crate::PartKey { topic: uuid::Uuid::nil(), partition: 0 },
            topic: Some("t".into()),
            commit_time_ms,
        }],
    };
    let now_ms = Env::real().clock.unix_ms();
    *store.offsets.lock() = vec![
        stored("empty", Some(now_ms - 5000), now_ms),
        stored("alone", None, now_ms - 5000),
        stored("fresh", None, now_ms),
    ];
    let config =
        GroupConfig { offsets_retention_ms: 4000, offsets_check_ms: 20, ..Default::default() };
    let tasks = TaskGroup::new();
    let _service = GroupService::start(store.clone(), config, Env::real(), &tasks);
    let mut expired = store.expired.subscribe();
    let two = expired.wait_for(|all| all.len() >= 2);
    let two = tokio::time::timeout(Duration::from_secs(10), two).await;
    let mut groups: Vec<_> =
        two.unwrap().unwrap().iter().take(2).map(|e| e.group.clone()).collect();
    groups.sort();
    assert_eq!(groups, ["alone", "empty"]);
    store.offsets.lock().retain(|o| o.group == "fresh");
    let gone = async {
        while !store.rows.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the group goes");
    tasks.shutdown(Duration::from_secs(1)).await;
}
