//! Equal shares: nobody has two partitions more than somebody who could take one of them, and
//! what a member holds moves only for that.
//!
//! Topics with the same subscribers are one class and are handled together. Where all members
//! subscribe to the same there is one class, and its shares differ by one at most. Where they do
//! not, classes are levelled in turn until nothing moves; each move makes the shares more equal,
//! so that this ends, and [`MAX_ROUNDS`] bounds the work.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{Subject, partitions, subscribers};
use crate::types::PartKey;

/// Rounds over all classes; a handful is enough for any but contrived subscriptions.
const MAX_ROUNDS: usize = 16;

/// Topics with the same subscribers.
struct Class {
    subscribers: Vec<usize>,
    /// What each subscriber owns of these topics.
    owned: BTreeMap<usize, BTreeSet<PartKey>>,
    /// What nobody owns yet.
    free: Vec<PartKey>,
}

pub(super) fn assign(
    subjects: &[Subject<'_>],
    topics: &BTreeMap<Uuid, u32>,
) -> Vec<BTreeSet<PartKey>> {
    let mut classes = classes(subjects, topics);
    let mut loads = vec![0_usize; subjects.len()];
    for class in &classes {
        for (owner, owned) in &class.owned {
            add(&mut loads, *owner, owned.len());
        }
    }
    // Those with the least choice first.
    classes.sort_by_key(|class| class.subscribers.len());
    for class in &mut classes {
        class.hand_out(&mut loads);
    }
    for _ in 0..MAX_ROUNDS {
        let mut moved = false;
        for class in &mut classes {
            moved |= class.level(&mut loads);
        }
        if !moved {
            break;
        }
    }
    let mut given = vec![BTreeSet::new(); subjects.len()];
    for (owner, mut owned) in classes.into_iter().flat_map(|class| class.owned) {
        if let Some(all) = given.get_mut(owner) {
            all.append(&mut owned);
        }
    }
    given
}

fn add(loads: &mut [usize], owner: usize, count: usize) {
    if let Some(load) = loads.get_mut(owner) {
        *load += count;
    }
}

fn load(loads: &[usize], owner: usize) -> usize {
    loads.get(owner).copied().unwrap_or_default()
}

/// The classes, with what members hold and may keep.
fn classes(subjects: &[Subject<'_>], topics: &BTreeMap<Uuid, u32>) -> Vec<Class> {
    let mut holders: BTreeMap<PartKey, usize> = BTreeMap::new();
    for (at, subject) in subjects.iter().enumerate() {
        for key in subject.holds.iter().filter(|key| subject.topics.contains(&key.topic)) {
            // Two never hold the same; if they did, the first would keep it.
            holders.entry(*key).or_insert(at);
        }
    }
    let mut by_subscribers: BTreeMap<Vec<usize>, Vec<Uuid>> = BTreeMap::new();
    for (topic, subscribers) in subscribers(subjects) {
        by_subscribers.entry(subscribers).or_default().push(topic);
    }
    let class = |(subscribers, class_topics): (Vec<usize>, Vec<Uuid>)| {
        let mut class = Class { subscribers, owned: BTreeMap::new(), free: Vec::new() };
        for topic in class_topics {
            let count = topics.get(&topic).copied().unwrap_or_default();
            for key in partitions(topic, count) {
                match holders.get(&key) {
                    Some(owner) => drop(class.owned.entry(*owner).or_default().insert(key)),
                    None => class.free.push(key),
                }
            }
        }
        class
    };
    by_subscribers.into_iter().map(class).collect()
}

impl Class {
    /// Subscribers with their load, least first.
    fn ranked(&self, loads: &[usize]) -> BTreeSet<(usize, usize)> {
        self.subscribers.iter().map(|at| (load(loads, *at), *at)).collect()
    }

    /// Gives what is free to whoever has least.
    fn hand_out(&mut self, loads: &mut [usize]) {
        let mut ranked = self.ranked(loads);
        for key in std::mem::take(&mut self.free) {
            let Some((least, taker)) = ranked.pop_first() else { return };
            self.owned.entry(taker).or_default().insert(key);
            add(loads, taker, 1);
            ranked.insert((least + 1, taker));
        }
    }

    /// Moves partitions from those who have most to those who have least, while it makes a
    /// difference; says whether it did.
    fn level(&mut self, loads: &mut [usize]) -> bool {
        let mut ranked = self.ranked(loads);
        let holds = |at: &usize| self.owned.get(at).is_some_and(|owned| !owned.is_empty());
        let mut givers: BTreeSet<(usize, usize)> = self
            .subscribers
            .iter()
            .filter(|at| holds(at))
            .map(|at| (load(loads, *at), *at))
            .collect();
        let mut moved = false;
        while let (Some(&(least, taker)), Some(&(most, giver))) = (ranked.first(), givers.last()) {
            let key = self.owned.get_mut(&giver).filter(|_| most > least + 1);
            let Some(key) = key.and_then(BTreeSet::pop_last) else { break };
            self.owned.entry(taker).or_default().insert(key);
            ranked.remove(&(least, taker));
            ranked.remove(&(most, giver));
            ranked.extend([(least + 1, taker), (most - 1, giver)]);
            givers.remove(&(most, giver));
            givers.remove(&(least, taker));
            givers.insert((least + 1, taker));
            if self.owned.get(&giver).is_some_and(|owned| !owned.is_empty()) {
                givers.insert((most - 1, giver));
            }
            add(loads, taker, 1);
            if let Some(load) = loads.get_mut(giver) {
                *load -= 1;
            }
            moved = true;
        }
        moved
    }
}
