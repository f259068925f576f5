//! The consumer protocol told as stories: each step feeds the coordinator and reads its effects.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::super::Retention;
use super::super::coordinator::{Coordinator, Effect, Write};
use super::super::row::StoredGroups;
use super::super::types::{
    CommitCheck, CommitVia, Described, FetchCheck, GroupConfig, GroupError, Heartbeat, Join,
    JoinReply, Leave, MemberName, Sync, Token,
};
use super::*;

pub(in crate::groups) const SETTINGS: BeatSettings =
    BeatSettings { session_ms: 45_000, interval_ms: 5_000 };

/// Topics by name, with their version.
#[derive(Clone, Default)]
pub(in crate::groups) struct Topics {
    pub(super) shapes: BTreeMap<String, TopicShape>,
    pub(super) version: u64,
    pub(super) hidden: BTreeSet<String>,
}

impl Topics {
    /// Makes a topic or changes how many partitions it has; none: deletes it.
    pub(in crate::groups) fn set(&mut self, name: &str, partitions: u32) {
        self.version += 1;
        if partitions == 0 {
            self.shapes.remove(name);
            return;
        }
        let id = Uuid::from_u64_pair(7, self.version);
        let shape = self.shapes.entry(name.to_owned()).or_insert(TopicShape { id, partitions });
        shape.partitions = partitions;
    }

    pub(super) fn name_of(&self, id: Uuid) -> &str {
        self.shapes.iter().find(|(_, shape)| shape.id == id).map_or("?", |(name, _)| name)
    }
}

impl TopicView for Topics {
    fn version(&self) -> u64 {
        self.version
    }

    fn shape(&self, topic: &str) -> Option<TopicShape> {
        self.shapes.get(topic).copied()
    }

    fn visible(&self) -> Vec<String> {
        let names = self.shapes.keys().filter(|name| !self.hidden.contains(*name));
        names.cloned().collect()
    }
}

/// Applies what a group wants saved, as the rows' machine does.
pub(in crate::groups) fn apply(rows: &mut StoredGroups, group: &str, write: Write) {
    match write {
        Write::Classic(row) => {
            rows.consumer.remove(group);
            match row {
                Some(row) => drop(rows.classic.insert(group.to_owned(), row)),
                None => drop(rows.classic.remove(group)),
            }
        }
        Write::Consumer(save) => {
            rows.classic.remove(group);
            let members = BTreeMap::new();
            let stored = rows
                .consumer
                .entry(group.to_owned())
                .or_insert(StoredConsumerGroup { row: save.row, members });
            stored.row = save.row;
            for (id, row) in save.members {
                match row {
                    Some(row) => drop(stored.members.insert(id, row)),
                    None => drop(stored.members.remove(&id)),
                }
            }
        }
    }
}

struct World {
    coordinator: Coordinator,
    topics: Topics,
    now_ms: i64,
    next: u64,
    rows: StoredGroups,
    replies: BTreeMap<u64, Result<BeatReply, Refusal>>,
    joins: BTreeMap<u64, JoinReply>,
    saves: usize,
    unsaved: Vec<(u64, Write)>,
    hold_saves: bool,
    settings: BeatSettings,
}

impl World {
    fn with_rows(rows: StoredGroups, topics: Topics) -> Self {
        let config = GroupConfig { max_members: 3, ..Default::default() };
        Self {
            coordinator: Coordinator::new(config, rows.clone(), 1000),
            topics,
            now_ms: 1000,
            next: 0,
            rows,
            replies: BTreeMap::new(),
            joins: BTreeMap::new(),
            saves: 0,
            unsaved: Vec::new(),
            hold_saves: false,
            settings: SETTINGS,
        }
    }

    /// A topic `t` of four partitions.
    fn new() -> Self {
        let mut topics = Topics::default();
        topics.set("t", 4);
        Self::with_rows(StoredGroups::default(), topics)
    }

    /// What a new leader of the data group finds.
    fn failover(&self) -> Self {
        let next = self.next;
        Self { next, ..Self::with_rows(self.rows.clone(), self.topics.clone()) }
    }

    fn settle(&mut self) {
        loop {
            let effects = self.coordinator.take_effects();
            if effects.is_empty() {
                self.coordinator.check();
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Beat(token, reply) => {
                        assert!(self.replies.insert(token.0, reply).is_none(), "answered twice");
                    }
                    Effect::Join(token, reply) => drop(self.joins.insert(token.0, reply)),
                    Effect::Sync(..) => {}
                    Effect::Save { ticket, write, .. } if self.hold_saves => {
                        self.unsaved.push((ticket, write));
                    }
                    Effect::Save { group, ticket, write } => {
                        self.saves += 1;
                        apply(&mut self.rows, &group, write);
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

    fn send(&mut self, beat: &Beat) -> u64 {
        self.next += 1;
        let (token, fresh) = (Token(self.next), format!("fresh-{}", self.next));
        let (now_ms, settings) = (self.now_ms, self.settings);
        self.coordinator.beat(now_ms, token, beat, settings, &self.topics, &fresh);
        self.settle();
        self.next
    }

    fn beat(&mut self, beat: Beat) -> Result<BeatReply, Refusal> {
        let token = self.send(&beat);
        self.replies.remove(&token).expect("it is answered at once")
    }

    /// What a member is told, as text.
    fn told(&mut self, beat: Beat) -> String {
        match self.beat(beat) {
            Err(refusal) => format!("{:?}", refusal.error),
            Ok(reply) => {
                let parts = reply.assignment.map_or("same".to_owned(), |p| self.text(&p));
                format!("{} {parts}", reply.epoch)
            }
        }
    }

    fn text(&self, parts: &BTreeSet<PartKey>) -> String {
        let part = |key: &PartKey| format!("{}{}", self.topics.name_of(key.topic), key.partition);
        let parts: Vec<String> = parts.iter().map(part).collect();
        format!("[{}]", parts.join(" "))
    }

    fn part(&self, name: &str, numbers: &[u32]) -> BTreeSet<PartKey> {
        let topic = self.topics.shapes[name].id;
        numbers.iter().map(|partition| PartKey { topic, partition: *partition }).collect()
    }

    /// A heartbeat that says what is owned of `t`.
    fn owns(&mut self, member: &str, epoch: i32, numbers: &[u32]) -> String {
        let owned = Some(self.part("t", numbers));
        self.told(Beat { owned, ..beat(member, epoch) })
    }

    fn says(&mut self, member: &str, epoch: i32) -> String {
        self.told(beat(member, epoch))
    }

    fn state(&self) -> String {
        let found = self.group();
        format!("{} {}/{}", found.state.name(), found.target_epoch, found.epoch)
    }

    fn group(&self) -> ConsumerDescription {
        match self.coordinator.describe("g") {
            Some(Described::Consumer(found)) => found,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, member: &str, epoch: i32, via: CommitVia) -> Result<(), GroupError> {
        let (group, member) = ("g".into(), member.to_owned());
        let check = CommitCheck { group, via, generation: epoch, member, instance: None };
        self.coordinator.check_commit(self.now_ms, &check)
    }

    fn fetch(&self, member: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        let (group, member) = ("g".into(), member.map(str::to_owned));
        self.coordinator.check_fetch(&FetchCheck { group, member, epoch })
    }

    fn classic_join(&mut self, member: &str) -> u64 {
        self.next += 1;
        let join = Join {
            group: "g".into(),
            member: member.into(),
            session_timeout_ms: 10_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), bytes::Bytes::new())],
            ..Join::default()
        };
        self.coordinator.join(self.now_ms, Token(self.next), &join, "classic");
        self.settle();
        self.next
    }

    /// `a` and `b`, two partitions each, in epoch 2.
    fn two_members() -> Self {
        let mut world = Self::new();
        assert_eq!(world.told(join("a")), "1 [t0 t1 t2 t3]");
        assert_eq!(world.told(join("b")), "2 []");
        assert_eq!(world.owns("a", 1, &[0, 1, 2, 3]), "1 [t0 t1]");
        assert_eq!(world.owns("a", 1, &[0, 1]), "2 same");
        assert_eq!(world.says("b", 2), "2 [t2 t3]");
        assert_eq!(world.state(), "Stable 2/2");
        world
    }
}

fn beat(member: &str, epoch: i32) -> Beat {
    Beat {
        group: "g".into(),
        member: member.into(),
        epoch,
        client_id: "client".into(),
        client_host: "/10.0.0.1".into(),
        brings_id: true,
        ..Beat::default()
    }
}

/// Joins and subscribes to `t`.
pub(in crate::groups) fn join(member: &str) -> Beat {
    Beat {
        rebalance_timeout_ms: Some(300_000),
        topics: Some(vec!["t".into()]),
        owned: Some(BTreeSet::new()),
        ..beat(member, JOINS)
    }
}

fn join_static(member: &str, instance: &str) -> Beat {
    Beat { instance: Some(instance.into()), ..join(member) }
}

fn join_regex(member: &str, regex: &str) -> Beat {
    Beat { topics: None, regex: Some(regex.into()), ..join(member) }
}

#[test]
fn a_partition_is_handed_over_once_it_was_given_up() {
    let mut world = World::new();
    assert_eq!(world.told(join("a")), "1 [t0 t1 t2 t3]");
    assert_eq!(world.says("a", 1), "1 same");
    assert_eq!(world.told(join("b")), "2 []");
    assert_eq!(world.state(), "Reconciling 2/2");
    assert_eq!(world.says("b", 2), "2 same");
    // It is told again until it has given up what it is to.
    assert_eq!(world.says("a", 1), "1 [t0 t1]");
    assert_eq!(world.owns("a", 1, &[0, 1, 2, 3]), "1 [t0 t1]");
    assert_eq!(world.says("b", 2), "2 same");
    assert_eq!(world.owns("a", 1, &[0, 1]), "2 same");
    assert_eq!(world.says("b", 2), "2 [t2 t3]");
    assert_eq!(world.state(), "Stable 2/2");
}

#[test]
fn a_heartbeat_without_news_writes_nothing() {
    let mut world = World::two_members();
    let saves = world.saves;
    for _ in 0..10 {
        world.pass(5000);
        assert_eq!(world.says("a", 2), "2 same");
        assert_eq!(world.owns("b", 2, &[2, 3]), "2 same");
    }
    assert_eq!(world.saves, saves);
}

#[test]
fn who_leaves_or_falls_silent_sets_its_partitions_free() {
    let mut world = World::two_members();
    assert_eq!(world.says("b", LEAVES), "-1 same");
    assert_eq!(world.state(), "Assigning 2/3");
    assert_eq!(world.says("a", 2), "3 [t0 t1 t2 t3]");
    assert_eq!(world.says("b", 2), "UnknownMemberId");
    assert_eq!(world.told(join("b")), "4 []");
    world.pass(44_999);
    assert_eq!(world.says("b", 4), "4 same");
    world.pass(1);
    assert_eq!(world.says("a", 3), "UnknownMemberId");
    assert_eq!(world.says("b", 4), "5 [t0 t1 t2 t3]");
    world.pass(45_000);
    assert_eq!(world.state(), "Empty 5/6");
}

#[test]
fn who_gives_nothing_up_is_removed() {
    let mut world = World::new();
    let slow = Beat { rebalance_timeout_ms: Some(20_000), ..join("a") };
    world.told(slow);
    world.told(join("b"));
    assert_eq!(world.says("a", 1), "1 [t0 t1]");
    world.pass(10_000);
    assert_eq!(world.owns("a", 1, &[0, 1, 2, 3]), "1 [t0 t1]");
    world.pass(9_999);
    assert_eq!(world.says("b", 2), "2 same");
    world.pass(1);
    assert_eq!(world.owns("a", 1, &[0, 1]), "UnknownMemberId");
    assert_eq!(world.says("b", 2), "3 [t0 t1 t2 t3]");
}

#[test]
fn a_lost_answer_is_given_again() {
    let mut world = World::new();
    // The first join was answered into the void; the member joins once more.
    world.beat(join("a")).unwrap();
    assert_eq!(world.told(join("a")), "1 [t0 t1 t2 t3]");
    world.told(join("b"));
    world.owns("a", 1, &[0, 1, 2, 3]);
    // Epoch 2 did not arrive: the member still speaks of epoch 1.
    assert_eq!(world.owns("a", 1, &[0, 1]), "2 same");
    assert_eq!(world.owns("a", 1, &[0, 1]), "2 [t0 t1]");
    assert_eq!(world.says("a", 1), "FencedMemberEpoch");
    assert_eq!(world.owns("a", 1, &[0, 1, 2]), "FencedMemberEpoch");
    assert_eq!(world.says("a", 3), "FencedMemberEpoch");
    // A fenced member gives everything up and begins anew.
    assert_eq!(world.told(join("a")), "2 [t0 t1]");
}

/// That the answer was lost does not show in the epoch, and not every client says that it was.
#[test]
fn who_does_not_confirm_what_it_may_own_is_told_again() {
    let mut world = World::two_members();
    let mut beats = |owned: Option<&[u32]>| {
        world.pass(5000);
        assert_eq!(world.says("a", 2), "2 same");
        match owned {
            Some(owned) => world.owns("b", 2, owned),
            None => world.says("b", 2),
        }
    };
    let told = [None, None, Some(&[2][..]), None, None].map(&mut beats);
    assert_eq!(told, ["2 same", "2 [t2 t3]", "2 same", "2 [t2 t3]", "2 same"]);
    let told = [Some(&[2, 3][..]), None, None, None].map(&mut beats);
    assert_eq!(told, ["2 same"; 4]);
}

#[test]
fn an_old_request_to_join_sets_nothing_free() {
    let mut world = World::new();
    world.told(join("a"));
    world.told(join("b"));
    // It was sent before the member owned anything, and arrives now.
    assert_eq!(world.told(join("a")), "1 [t0 t1]");
    assert_eq!(world.says("b", 2), "2 same");
    assert_eq!(world.owns("a", 1, &[0, 1]), "2 same");
    assert_eq!(world.says("b", 2), "2 [t2 t3]");
}

#[test]
fn nobody_hears_what_is_not_saved() {
    let mut world = World::two_members();
    world.hold_saves = true;
    let leaves = world.send(&beat("b", LEAVES));
    let takes = world.send(&beat("a", 2));
    assert!(world.replies.is_empty());
    // One command is on its way at a time.
    assert_eq!(world.unsaved.len(), 1);
    let (ticket, write) = world.unsaved.remove(0);
    apply(&mut world.rows, "g", write);
    world.coordinator.saved(world.now_ms, "g", ticket, Ok(()));
    world.settle();
    assert!(world.replies.contains_key(&leaves) && !world.replies.contains_key(&takes));
    let (ticket, write) = world.unsaved.remove(0);
    // A crash now: the new coordinator knows that b is gone, and not of a's epoch.
    let mut after = world.failover();
    assert_eq!(after.says("a", 2), "3 [t0 t1 t2 t3]");
    apply(&mut world.rows, "g", write);
    world.coordinator.saved(world.now_ms, "g", ticket, Ok(()));
    world.settle();
    assert_eq!(world.replies[&takes].as_ref().unwrap().epoch, 3);
}

#[test]
fn rows_that_could_not_be_saved_go_with_the_next() {
    let mut world = World::two_members();
    world.hold_saves = true;
    let leaves = world.send(&beat("b", LEAVES));
    let waits = world.send(&beat("a", 2));
    let (ticket, _) = world.unsaved.remove(0);
    let unavailable = Err(GroupError::CoordinatorNotAvailable);
    world.coordinator.saved(world.now_ms, "g", ticket, unavailable);
    world.hold_saves = false;
    world.settle();
    for token in [leaves, waits] {
        let refusal = world.replies[&token].as_ref().unwrap_err();
        assert_eq!(refusal.error, GroupError::CoordinatorNotAvailable);
    }
    assert_eq!(world.coordinator.delete("g"), Err(GroupError::NonEmptyGroup));
    world.pass(500);
    assert_eq!(world.rows.consumer["g"].members.len(), 1);
    assert_eq!(world.owns("a", 2, &[0, 1]), "3 [t0 t1 t2 t3]");
}

#[test]
fn a_new_coordinator_goes_on_where_the_old_one_was() {
    let mut world = World::new();
    world.told(join("a"));
    world.told(join("b"));
    world.owns("a", 1, &[0, 1, 2, 3]);
    let mut world = world.failover();
    assert_eq!(world.state(), "Reconciling 2/2");
    assert_eq!(world.says("b", 2), "2 same");
    assert_eq!(world.owns("a", 1, &[0, 1]), "2 same");
    let mut world = world.failover();
    assert_eq!(world.says("b", 2), "2 [t2 t3]");
    let saves = world.saves;
    let mut world = world.failover();
    assert_eq!(world.says("a", 2), "2 same");
    assert_eq!(world.saves, 0);
    assert!(saves > 0);
    // Sessions are remembered to be there, and begin anew.
    world.pass(44_999);
    assert_eq!(world.says("a", 2), "2 same");
    world.pass(1);
    assert_eq!(world.says("b", 2), "UnknownMemberId");
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut world = World::new();
    assert_eq!(world.told(join_static("a", "one")), "1 [t0 t1 t2 t3]");
    assert_eq!(world.told(join_static("b", "one")), "UnreleasedInstanceId");
    let leave = Beat { instance: Some("one".into()), ..beat("a", LEAVES_FOR_A_WHILE) };
    assert_eq!(world.told(leave), "-2 same");
    assert_eq!(world.told(join_static("b", "one")), "1 [t0 t1 t2 t3]");
    let old = Beat { instance: Some("one".into()), ..beat("a", 1) };
    assert_eq!(world.told(old), "FencedInstanceId");
    assert_eq!(world.says("a", 1), "UnknownMemberId");
    let stranger = Beat { instance: Some("two".into()), ..beat("b", 1) };
    assert_eq!(world.told(stranger), "UnknownMemberId");
    let mut world = world.failover();
    assert_eq!(world.says("b", 1), "1 same");
    // Away for longer than its session.
    let leave = Beat { instance: Some("one".into()), ..beat("b", LEAVES_FOR_A_WHILE) };
    world.told(leave);
    world.pass(45_000);
    assert_eq!(world.state(), "Empty 1/2");
}

#[test]
fn what_a_static_member_was_to_give_up_is_free_once_it_is_away() {
    let mut world = World::new();
    world.told(join_static("a", "one"));
    world.told(join("b"));
    assert_eq!(world.says("a", 1), "1 [t0 t1]");
    let leave = Beat { instance: Some("one".into()), ..beat("a", LEAVES_FOR_A_WHILE) };
    world.told(leave);
    assert_eq!(world.says("b", 2), "2 [t2 t3]");
    assert_eq!(world.told(join_static("c", "one")), "2 [t0 t1]");
}

#[test]
fn topics_that_come_grow_and_go_change_the_group() {
    let mut world = World::new();
    let both = Beat { topics: Some(vec!["t".into(), "u".into()]), ..join("a") };
    assert_eq!(world.told(both), "1 [t0 t1 t2 t3]");
    world.topics.set("elsewhere", 3);
    assert_eq!(world.says("a", 1), "1 same");
    world.topics.set("u", 1);
    assert_eq!(world.says("a", 1), "2 [t0 t1 t2 t3 u0]");
    world.topics.set("u", 2);
    let mut world = world.failover();
    assert_eq!(world.says("a", 2), "3 [t0 t1 t2 t3 u0 u1]");
    let owned = world.group().members[0].assigned.clone();
    world.topics.set("t", 0);
    assert_eq!(world.told(Beat { owned: Some(owned), ..beat("a", 3) }), "3 [u0 u1]");
    let owned = Some(world.part("u", &[0, 1]));
    assert_eq!(world.told(Beat { owned, ..beat("a", 3) }), "4 same");
    assert_eq!(world.state(), "Stable 4/4");
    // A name used again is another topic.
    world.topics.set("t", 1);
    assert_eq!(world.says("a", 4), "5 [u0 u1 t0]");
}

#[test]
fn a_regular_expression_finds_whole_names_that_its_reader_may_see() {
    let mut world = World::new();
    world.topics.set("tt", 1);
    world.topics.set("secret-t", 1);
    world.topics.hidden.insert("secret-t".into());
    assert_eq!(world.told(join_regex("a", "t|secret.*")), "1 [t0 t1 t2 t3]");
    world.topics.set("secret-u", 1);
    assert_eq!(world.says("a", 1), "2 [t0 t1 t2 t3 secret-u0]");
    // The new coordinator knows what was found before anybody speaks.
    let mut world = world.failover();
    assert_eq!(world.told(join("b")), "3 []");
    assert_eq!(world.group().members[0].regex.as_deref(), Some("t|secret.*"));
    // Topics change who may see them without a change of topics: it is looked at in a while.
    world.says("b", LEAVES);
    world.says("a", 2);
    world.topics.hidden.clear();
    for _ in 0..13 {
        world.pass(44_000);
        assert_eq!(world.says("a", 4), "4 same");
    }
    world.pass(44_000);
    assert_eq!(world.says("a", 4), "5 [t0 t1 t2 t3 secret-t0 secret-u0]");
    // An empty one is none.
    let none = Beat { topics: Some(vec!["t".into()]), regex: Some(String::new()), ..beat("a", 5) };
    assert_eq!(world.told(none), "5 [t0 t1 t2 t3]");
}

#[test]
fn subscriptions_and_assignors_change_in_heartbeats() {
    let mut world = World::two_members();
    world.topics.set("u", 2);
    let range = |member, epoch| Beat { assignor: Some("range".into()), ..beat(member, epoch) };
    assert_eq!(world.group().assignor, "uniform");
    assert_eq!(world.told(range("a", 2)), "2 same");
    assert_eq!(world.group().assignor, "range");
    assert_eq!(world.told(range("b", 2)), "2 same");
    let both = Beat { topics: Some(vec!["u".into()]), ..beat("a", 2) };
    assert_eq!(world.told(both), "2 []");
    assert_eq!(world.owns("a", 2, &[]), "3 [u0 u1]");
    assert_eq!(world.says("b", 2), "3 [t0 t1 t2 t3]");
}

#[test]
fn requests_that_no_group_takes_are_refused() {
    let mut world = World::new();
    let mut check = |beat: Beat, expected: GroupError, text: &str| {
        let refusal = world.beat(beat).unwrap_err();
        assert_eq!((refusal.error, refusal.message.as_deref()), (expected, Some(text)));
    };
    let invalid = GroupError::InvalidRequest;
    check(Beat { member: String::new(), ..join("a") }, invalid, "MemberId can't be empty.");
    let empty = Some(String::new());
    check(Beat { instance: empty.clone(), ..join("a") }, invalid, "InstanceId can't be empty.");
    check(Beat { rack: empty, ..join("a") }, invalid, "RackId can't be empty.");
    check(
        Beat { rebalance_timeout_ms: None, ..join("a") },
        invalid,
        "RebalanceTimeoutMs must be provided in first request.",
    );
    let text = "TopicPartitions must be empty when (re-)joining.";
    check(Beat { owned: None, ..join("a") }, invalid, text);
    let text =
        "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.";
    check(Beat { topics: None, ..join("a") }, invalid, text);
    check(beat("a", LEAVES_FOR_A_WHILE), invalid, "InstanceId can't be null.");
    check(beat("a", -3), invalid, "MemberEpoch is invalid.");
    let text = "ServerAssignor best is not supported. Supported assignors: uniform, range.";
    let assignor = Some("best".to_owned());
    check(Beat { assignor, ..join("a") }, GroupError::UnsupportedAssignor, text);
    let names = vec!["n".to_owned(); 10_001];
    check(Beat { topics: Some(names), ..join("a") }, invalid, "The request names too many topics.");
    check(join(&"m".repeat(257)), invalid, "A name is too long.");
    let names = (0..6000).map(|n| format!("{n:0>200}")).collect();
    let many = Beat { topics: Some(names), ..join("a") };
    check(many, invalid, "The member subscribes to too many topics.");
    check(beat("a", 1), GroupError::GroupIdNotFound, "Group g not found.");
    check(beat("a", LEAVES), GroupError::GroupIdNotFound, "Group g not found.");
    for regex in ["a)(b", "(", "a{1000}{1000}", &"x".repeat(4097)] {
        let refusal = world.beat(join_regex("a", regex)).unwrap_err();
        assert_eq!(refusal.error, GroupError::InvalidRegularExpression, "{regex}");
    }
    assert_eq!(world.coordinator.describe("g"), None, "what is refused makes no group");
    assert_eq!(world.saves, 0);
}

#[test]
fn a_group_is_bounded_in_members_and_in_what_they_say() {
    let mut world = World::new();
    for member in ["a", "b"] {
        world.beat(join(member)).unwrap();
    }
    world.beat(join_static("c", "one")).unwrap();
    assert_eq!(world.told(join("d")), "GroupMaxSizeReached");
    assert_eq!(world.told(join("a")), "1 [t0 t1]");
    // Who takes its own place needs no other.
    world.told(Beat { instance: Some("one".into()), ..beat("c", LEAVES_FOR_A_WHILE) });
    assert!(world.beat(join_static("d", "one")).is_ok());
    let names: Vec<String> = (0..4000).map(|n| format!("{n:0>240}")).collect();
    let large = |member, epoch| Beat { topics: Some(names.clone()), ..beat(member, epoch) };
    for member in ["a", "b"] {
        let epoch = world.group().members.iter().find(|m| m.id == member).unwrap().epoch;
        world.beat(large(member, epoch)).unwrap();
    }
    let size = world.rows.consumer["g"].members.values().map(|row| base::codec::encode(row).len());
    assert!(size.sum::<usize>() < crate::limits::MAX_GROUP_WEIGHT);
}

#[test]
fn members_commit_and_read_offsets_in_their_epoch() {
    let mut world = World::two_members();
    let new = CommitVia::OffsetCommit;
    assert_eq!(world.commit("a", 2, new), Ok(()));
    assert_eq!(world.commit("a", 1, new), Err(GroupError::StaleMemberEpoch));
    assert_eq!(world.commit("a", 3, new), Err(GroupError::StaleMemberEpoch));
    assert_eq!(world.commit("c", 2, new), Err(GroupError::UnknownMemberId));
    assert_eq!(world.commit("", -1, new), Err(GroupError::UnknownMemberId));
    let old = CommitVia::OldOffsetCommit;
    assert_eq!(world.commit("a", 2, old), Err(GroupError::UnsupportedVersion));
    let transaction = CommitVia::Transaction;
    assert_eq!(world.commit("a", 2, transaction), Ok(()));
    assert_eq!(world.commit("a", 1, transaction), Err(GroupError::IllegalGeneration));
    assert_eq!(world.fetch(None, -1), Ok(()));
    assert_eq!(world.fetch(Some("a"), 2), Ok(()));
    assert_eq!(world.fetch(Some("a"), 1), Err(GroupError::StaleMemberEpoch));
    assert_eq!(world.fetch(Some("c"), 2), Err(GroupError::UnknownMemberId));
    for member in ["a", "b"] {
        world.says(member, LEAVES);
    }
    assert_eq!(world.commit("a", 2, new), Err(GroupError::UnknownMemberId));
    assert_eq!(world.commit("", -1, new), Ok(()), "nobody is there");
    world.coordinator.delete("g").unwrap();
    world.settle();
    assert_eq!(world.commit("a", 2, new), Err(GroupError::GroupIdNotFound));
    assert_eq!(world.commit("a", 2, old), Err(GroupError::IllegalGeneration));
    assert_eq!(world.commit("a", 2, transaction), Err(GroupError::IllegalGeneration));
}

#[test]
fn classic_members_find_no_place_among_others_and_the_other_way_round() {
    let mut world = World::new();
    world.told(join("a"));
    let token = world.classic_join("");
    assert_eq!(world.joins[&token].error, Some(GroupError::InconsistentGroupProtocol));
    let beat_of = |member: &str| Heartbeat {
        group: "g".into(),
        generation: 1,
        member: member.into(),
        instance: None,
    };
    let unknown = Err(GroupError::UnknownMemberId);
    assert_eq!(world.coordinator.heartbeat(world.now_ms, &beat_of("a")), unknown);
    let members = vec![MemberName { id: "a".into(), instance: None }];
    let leave = Leave { group: "g".into(), members };
    let left = world.coordinator.leave(world.now_ms, &leave).unwrap();
    assert_eq!(left[0].error, Some(GroupError::UnknownMemberId));
    let sync = Sync { group: "g".into(), member: "a".into(), generation: 1, ..Sync::default() };
    world.coordinator.sync(world.now_ms, Token(900), &sync);
    assert_eq!(
        world.coordinator.take_effects(),
        [Effect::Sync(Token(900), Err(GroupError::UnknownMemberId))]
    );
    // An empty group takes the protocol of who comes next, and its rows are of one kind.
    world.told(beat("a", LEAVES));
    let token = world.classic_join("somebody");
    assert_eq!(world.joins[&token].error, Some(GroupError::UnknownMemberId));
    let token = world.classic_join("");
    world.pass(100);
    assert_eq!(world.joins[&token].error, None);
    assert_eq!(world.told(join("b")), "GroupIdNotFound");
    assert_eq!(world.says("a", 1), "GroupIdNotFound");
    let members = vec![MemberName { id: "classic".into(), instance: None }];
    world.coordinator.leave(world.now_ms, &Leave { group: "g".into(), members }).unwrap();
    world.settle();
    assert!(world.rows.classic.contains_key("g") && world.rows.consumer.is_empty());
    assert_eq!(world.says("a", 1), "GroupIdNotFound");
    assert_eq!(world.told(join("b")), "1 [t0 t1 t2 t3]");
    assert!(world.rows.consumer.contains_key("g") && world.rows.classic.is_empty());
}

#[test]
fn a_refused_member_leaves_an_empty_classic_group_as_it_is() {
    let mut world = World::new();
    let token = world.classic_join("");
    world.pass(100);
    assert_eq!(world.joins[&token].error, None);
    let members = vec![MemberName { id: "classic".into(), instance: None }];
    world.coordinator.leave(world.now_ms, &Leave { group: "g".into(), members }).unwrap();
    world.settle();
    assert_eq!(world.told(join_regex("a", "(")), "InvalidRegularExpression");
    assert!(matches!(world.coordinator.describe("g"), Some(Described::Classic(_))));
}

#[test]
fn offsets_of_topics_that_are_read_stay() {
    let mut world = World::two_members();
    assert_eq!(world.coordinator.retention("g"), Retention::SinceCommitUnless(["t".into()].into()));
    let subscribed = Err(GroupError::GroupSubscribedToTopic);
    assert_eq!(world.coordinator.check_offset_delete("g", "t"), subscribed);
    assert_eq!(world.coordinator.check_offset_delete("g", "u"), Ok(()));
    assert_eq!(world.coordinator.delete("g"), Err(GroupError::NonEmptyGroup));
    assert!(world.coordinator.empty_groups().is_empty());
    for member in ["a", "b"] {
        world.says(member, LEAVES);
    }
    assert_eq!(world.coordinator.retention("g"), Retention::SinceCommitUnless([].into()));
    assert_eq!(world.coordinator.empty_groups(), ["g"]);
    assert_eq!(world.coordinator.check_offset_delete("g", "t"), Ok(()));
    assert_eq!(world.coordinator.delete("g"), Ok(true));
    world.settle();
    assert_eq!(world.rows, StoredGroups::default());
}

#[test]
fn a_group_is_listed_and_counted_as_what_it_is() {
    let world = World::two_members();
    let [listed] = &world.coordinator.list()[..] else { panic!() };
    assert_eq!((listed.group_type, listed.state), ("consumer", "Stable"));
    assert_eq!(listed.protocol_type, "consumer");
    let [stats] = &world.coordinator.stats()[..] else { panic!() };
    assert_eq!((stats.members, stats.generation), (2, 2));
}

#[test]
fn settings_of_the_group_count() {
    let mut world = World::new();
    world.settings = BeatSettings { session_ms: 60_000, interval_ms: 15_000 };
    assert_eq!(world.beat(join("a")).unwrap().interval_ms, 15_000);
    assert_eq!(world.owns("a", 1, &[0, 1, 2, 3]), "1 same");
    world.pass(59_999);
    assert_eq!(world.says("a", 1), "1 same");
    world.settings.session_ms = 45_000;
    assert_eq!(world.says("a", 1), "1 same");
    world.pass(45_000);
    assert_eq!(world.says("a", 1), "UnknownMemberId");
}
