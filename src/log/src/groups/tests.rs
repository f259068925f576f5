//! The classic protocol told as stories: each step feeds the coordinator and reads its effects.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::limits::{MAX_GROUP_NAME, MAX_GROUP_WEIGHT, MAX_MEMBER_NAME};

const DELAY: i64 = 100;

fn stored(classic: BTreeMap<String, GroupRow>) -> StoredGroups {
    StoredGroups { classic, ..StoredGroups::default() }
}

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
            coordinator: Coordinator::new(config, stored(rows.clone()), 1000),
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
                    Effect::Beat(..) => panic!("nobody asked"),
                    Effect::Save { group, ticket, write } => {
                        let Write::Classic(row) = write else { panic!("{write:?}") };
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
        let via = CommitVia::OldOffsetCommit;
        let check = CommitCheck { group, via, generation, member, instance: None };
        self.coordinator.check_commit(self.now_ms, &check)
    }

    fn state(&self) -> GroupState {
        self.group().state
    }

    fn group(&self) -> GroupDescription {
        match self.coordinator.describe("g") {
            Some(Described::Classic(group)) => group,
            other => panic!("{other:?}"),
        }
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
pub(super) fn member(id: &str) -> Join {
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
fn a_sync_that_fails_begins_the_session_anew() {
    let mut world = World::new();
    world.join(member(""));
    world.join(member(""));
    world.pass(DELAY);
    let two = world.sync("m2", 1, &[]);
    // Longer than a session: who waits does not expire.
    for _ in 0..4 {
        world.pass(5_000);
        assert_eq!(world.beat("m1", 1), Ok(()));
    }
    world.join(member(""));
    assert_eq!(world.syncs[&two], Err(GroupError::RebalanceInProgress));
    world.pass(9_000);
    assert_eq!(world.beat("m2", 1), Err(GroupError::RebalanceInProgress));
    world.pass(10_001);
    assert_eq!(world.beat("m2", 1), Err(GroupError::UnknownMemberId));
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
fn an_id_that_was_given_out_has_its_place() {
    let mut world = World::new();
    let config = GroupConfig { initial_delay_ms: DELAY, max_members: 1, ..Default::default() };
    world.coordinator = Coordinator::new(config, StoredGroups::default(), world.now_ms);
    let dynamic = |id: &str| Join { require_known_id: true, ..member(id) };
    let first = world.join(dynamic(""));
    assert_eq!(world.joins[&first].error, Some(GroupError::MemberIdRequired));
    let other = world.join(dynamic(""));
    assert_eq!(world.joins[&other].error, Some(GroupError::GroupMaxSizeReached));
    let second = world.join(dynamic("m1"));
    world.pass(DELAY);
    assert_eq!((world.joins[&second].error, world.joins[&second].generation), (None, 1));
    let other = world.join(dynamic(""));
    assert_eq!(world.joins[&other].error, Some(GroupError::GroupMaxSizeReached));
}

#[test]
fn a_group_stays_small_enough_to_be_saved() {
    let says = |id: &str, bytes: usize| {
        let protocols = vec![("range".to_owned(), Bytes::from(vec![0; bytes]))];
        Join { protocols, ..member(id) }
    };
    let full = Some(GroupError::GroupMaxSizeReached);
    let half = MAX_GROUP_WEIGHT / 2;
    let mut world = World::new();
    let one = world.join(says("", half));
    let two = world.join(says("", half));
    assert_eq!(world.joins[&two].error, full, "names count, too");
    let three = world.join(says("", half - 1000));
    world.pass(DELAY);
    assert_eq!((world.joins[&one].generation, world.joins[&three].generation), (1, 1));
    let most = "a".repeat(half);
    let sync = world.sync("m1", 1, &[("m1", most.as_str()), ("m3", "a")]);
    assert_eq!(world.syncs[&sync], Err(GroupError::InvalidRequest));
    assert_eq!(world.state(), GroupState::CompletingRebalance);
    let sync = world.sync("m1", 1, &[("m1", most.as_str())]);
    assert_eq!(world.assignment(sync).len(), half);
    let value = usize::try_from(base::limits::MAX_VALUE_BYTES).unwrap();
    assert!(world.rows["g"].size_at_most() < value);
    let grown = world.join(says("m3", half));
    assert_eq!((world.joins[&grown].error, world.state()), (full, GroupState::Stable));
    world.join(says("m3", 10));
    assert_eq!(world.state(), GroupState::PreparingRebalance, "what is smaller is taken");
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
fn a_rebalance_that_nobody_joins_is_not_due_all_the_time() {
    let mut world = World::new();
    world.join(static_member("", "s1"));
    world.join(static_member("", "s2"));
    world.pass(DELAY);
    world.sync("m1", 1, &[("m1", "a1"), ("m2", "a2")]);
    for instance in ["s1", "s2"] {
        world.join(Join { rebalance_timeout_ms: 0, ..static_member("", instance) });
    }
    assert_eq!(world.leave("", Some("s2")), None);
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    world.pass(1);
    let due = world.coordinator.deadline_of("g").unwrap();
    assert!(due > world.now_ms, "{due}");
    world.pass(20_000);
    assert_eq!(world.state(), GroupState::Empty, "its session has ended");
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
        (Join { group: "g".repeat(MAX_GROUP_NAME + 1), ..member("") }, GroupError::InvalidGroupId),
        (static_member("", &"i".repeat(MAX_MEMBER_NAME + 1)), GroupError::InvalidRequest),
        (Join { client_id: "c".repeat(5000), ..member("") }, GroupError::InvalidRequest),
        (Join { session_timeout_ms: 5, ..member("") }, GroupError::InvalidSessionTimeout),
        (Join { protocols: vec![], ..member("") }, GroupError::InconsistentGroupProtocol),
        (
            Join { protocols: vec![("range".into(), Bytes::new()); 101], ..member("") },
            GroupError::InvalidRequest,
        ),
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
