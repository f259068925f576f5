//! Random groups: heartbeats in any order, answers that are lost, commands that fail or whose fate
//! is unknown, coordinators that die, topics that change, members that come, leave and die. At no
//! time may two members own one partition, and once all is calm everybody has a fair share.

use std::collections::{BTreeMap, BTreeSet};

use super::super::coordinator::{Coordinator, Effect, Write};
use super::super::row::StoredGroups;
use super::super::types::{Described, GroupConfig, GroupError, Token};
use super::assignors::tests::Random;
use super::tests::{SETTINGS, Topics, apply};
use super::*;

/// A client: what it owns, what it was last told to own.
#[derive(Clone, Debug, Default)]
struct Client {
    instance: Option<String>,
    epoch: i32,
    owned: BTreeSet<PartKey>,
    told: Option<BTreeSet<PartKey>>,
    /// It did not hear an answer, so it says everything again.
    says_all: bool,
    regex: bool,
    token: Option<u64>,
}

struct World {
    random: Random,
    coordinator: Coordinator,
    rows: StoredGroups,
    /// The command on its way, if it is.
    saving: Option<(u64, Write)>,
    topics: Topics,
    clients: BTreeMap<String, Client>,
    now_ms: i64,
    next: u64,
    calm: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut topics = Topics::default();
        topics.set("t-one", 5);
        let rows = StoredGroups::default();
        Self {
            random: Random(seed),
            coordinator: Coordinator::new(GroupConfig::default(), rows.clone(), 0),
            rows,
            saving: None,
            topics,
            clients: BTreeMap::new(),
            now_ms: 0,
            next: 0,
            calm: false,
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.random.below(n) == 0
    }

    fn any_client(&mut self) -> Option<String> {
        let n = self.random.below(self.clients.len().max(1) as u64);
        self.clients.keys().nth(usize::try_from(n).unwrap()).cloned()
    }

    fn settle(&mut self) {
        for effect in self.coordinator.take_effects() {
            match effect {
                Effect::Beat(token, reply) => self.deliver(token.0, reply),
                Effect::Save { ticket, write, .. } => {
                    assert!(self.saving.is_none(), "two commands are on their way");
                    self.saving = Some((ticket, write));
                }
                Effect::Join(..) | Effect::Sync(..) => panic!("nobody asked"),
            }
        }
        self.coordinator.check();
        let mut owners = BTreeMap::new();
        for (id, client) in &self.clients {
            for key in &client.owned {
                assert_eq!(owners.insert(*key, id), None, "{key:?} has two owners");
            }
        }
    }

    fn deliver(&mut self, token: u64, reply: Result<BeatReply, Refusal>) {
        let lost = !self.calm && self.one_in(5);
        let Some(client) = self.clients.values_mut().find(|c| c.token == Some(token)) else {
            return;
        };
        client.token = None;
        client.says_all |= lost;
        if lost {
            return;
        }
        match reply {
            Ok(reply) => {
                client.epoch = reply.epoch;
                client.says_all = false;
                client.told = reply.assignment.or(client.told.take());
            }
            Err(refusal) => match refusal.error {
                GroupError::CoordinatorNotAvailable => client.says_all = true,
                GroupError::FencedMemberEpoch | GroupError::UnknownMemberId => {
                    let (instance, regex) = (client.instance.clone(), client.regex);
                    *client = Client { instance, regex, ..Client::default() };
                }
                GroupError::GroupIdNotFound if client.epoch != 0 => client.epoch = 0,
                // Its leaving was lost: it tries until its session before is over.
                GroupError::UnreleasedInstanceId => {}
                other => panic!("{other:?}: {:?}", refusal.message),
            },
        }
    }

    /// A client gives up what it has to, then takes what it may.
    fn reconcile(&mut self, id: &str) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let Some(told) = client.told.clone() else { return };
        if client.owned.is_subset(&told) {
            client.owned = told;
            client.told = None;
        } else {
            client.owned = &client.owned & &told;
        }
    }

    fn beat(&mut self, id: &str) {
        let Some(client) = self.clients.get_mut(id) else { return };
        self.next += 1;
        // Who does not wait for an answer has not heard it.
        client.says_all |= client.token.replace(self.next).is_some();
        let joins = client.epoch == JOINS;
        if joins {
            client.owned.clear();
        }
        let all = joins || client.says_all;
        if all {
            // It hears anew what it may own, and takes nothing by what it heard before.
            client.told = None;
        }
        // As real clients do: silent about what it owns while that changes.
        let owned = client.told.is_none().then(|| client.owned.clone());
        let names = (!client.regex).then(|| vec!["t-one".to_owned(), "t-two".to_owned()]);
        let beat = Beat {
            group: "g".into(),
            member: id.to_owned(),
            epoch: client.epoch,
            instance: client.instance.clone(),
            rebalance_timeout_ms: all.then_some(i32::MAX),
            topics: names.filter(|_| all),
            regex: (all && client.regex).then(|| "t-.*".to_owned()),
            owned,
            brings_id: true,
            ..Beat::default()
        };
        let (now_ms, token) = (self.now_ms, Token(self.next));
        self.coordinator.beat(now_ms, token, &beat, SETTINGS, &self.topics, "fresh");
        self.settle();
    }

    /// The command on its way arrives, or does not, or nobody knows.
    fn save(&mut self) {
        let Some((ticket, write)) = self.saving.take() else { return };
        let fate = if self.calm { 0 } else { self.random.below(5) };
        if fate != 3 {
            apply(&mut self.rows, "g", write);
        }
        let failed = Err(GroupError::CoordinatorNotAvailable);
        let result = if fate < 3 { Ok(()) } else { failed };
        self.coordinator.saved(self.now_ms, "g", ticket, result);
        self.settle();
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.coordinator.tick(self.now_ms);
        self.settle();
    }

    /// The coordinator dies; its last command may have arrived.
    fn fail_over(&mut self) {
        if let Some((_, write)) = self.saving.take()
            && self.one_in(2)
        {
            apply(&mut self.rows, "g", write);
        }
        let rows = self.rows.clone();
        self.coordinator = Coordinator::new(GroupConfig::default(), rows, self.now_ms);
        for client in self.clients.values_mut() {
            client.says_all |= client.token.take().is_some();
        }
        self.settle();
    }

    fn join(&mut self) {
        if self.clients.len() >= 5 {
            return;
        }
        self.next += 1;
        let id = format!("m{}", self.next);
        let instance = self.one_in(3).then(|| format!("i{}", self.next));
        let regex = self.one_in(3);
        self.clients.insert(id, Client { instance, regex, ..Client::default() });
    }

    /// A client goes: for good, silently, or for a while to come back under another id.
    fn leave(&mut self) {
        let Some(id) = self.any_client() else { return };
        let Some(client) = self.clients.remove(&id) else { return };
        let how = self.random.below(3);
        let away = how == 2 && client.instance.is_some();
        let epoch = if away { LEAVES_FOR_A_WHILE } else { LEAVES };
        let (group, instance) = ("g".to_owned(), client.instance.clone());
        if how > 0 {
            let beat = Beat { group, member: id, epoch, instance, ..Beat::default() };
            let (now_ms, token) = (self.now_ms, Token(u64::MAX));
            self.coordinator.beat(now_ms, token, &beat, SETTINGS, &self.topics, "fresh");
            self.settle();
        }
        // It comes back if it was in the group: else its name may still be held by a silent one.
        if away && client.epoch > 0 {
            self.next += 1;
            let client = Client { instance: client.instance, ..Client::default() };
            self.clients.insert(format!("m{}", self.next), client);
        }
    }

    fn change_topics(&mut self) {
        let name = ["t-one", "t-two", "t-three"][usize::try_from(self.random.below(3)).unwrap()];
        let now = self.topics.shapes.get(name).map_or(0, |shape| shape.partitions);
        let partitions = match self.random.below(4) {
            0 => 0,
            _ => now + u32::try_from(self.random.below(3)).unwrap(),
        };
        self.topics.set(name, partitions);
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..45 => {
                if let Some(id) = self.any_client() {
                    self.beat(&id);
                }
            }
            45..65 => {
                if let Some(id) = self.any_client() {
                    self.reconcile(&id);
                }
            }
            65..85 => self.save(),
            85..90 => self.pass(100),
            90..93 => self.join(),
            93..95 => self.leave(),
            95..97 => self.change_topics(),
            _ => self.fail_over(),
        }
    }

    /// Everything works again; those who are gone run out of their sessions.
    fn calm_down(&mut self) {
        self.calm = true;
        for _ in 0..40 {
            self.pass(4000);
            for id in self.clients.keys().cloned().collect::<Vec<_>>() {
                self.beat(&id);
                self.save();
                self.save();
                self.reconcile(&id);
                self.reconcile(&id);
            }
            self.save();
        }
        if self.clients.is_empty() {
            return;
        }
        let Some(Described::Consumer(group)) = self.coordinator.describe("g") else { panic!() };
        assert_eq!(group.state, ConsumerState::Stable);
        assert_eq!(group.members.len(), self.clients.len());
        let owned: BTreeSet<PartKey> =
            self.clients.values().flat_map(|c| c.owned.iter().copied()).collect();
        let regex = self.clients.values().any(|c| c.regex);
        let read = self.topics.shapes.iter().filter(|(name, _)| regex || *name != "t-three");
        let wanted: BTreeSet<PartKey> = read
            .flat_map(|(_, shape)| {
                (0..shape.partitions).map(|partition| PartKey { topic: shape.id, partition })
            })
            .collect();
        assert_eq!(owned, wanted);
        for member in &group.members {
            assert_eq!(self.clients[&member.id].owned, member.assigned);
        }
        let again = Coordinator::new(GroupConfig::default(), self.rows.clone(), self.now_ms);
        assert_eq!(again.describe("g"), Some(Described::Consumer(group)), "rows differ");
    }
}

#[test]
fn no_partition_has_two_owners_and_calm_brings_fair_shares() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.calm_down();
    }
}
