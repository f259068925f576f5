//! The target assignment: which topics the group subscribes to, and who shall own what of them.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::assignors::{Assignor, Subject};
use super::types::TopicView;
use super::{Group, Member};

/// Stands for ids and sizes of topics: what differs has another number.
fn hash_of(topics: &BTreeMap<Uuid, u32>) -> u64 {
    let mut hash = Sha256::new();
    for (id, partitions) in topics {
        hash.update(id.as_bytes());
        hash.update(partitions.to_be_bytes());
    }
    let digest = hash.finalize();
    digest.first_chunk().copied().map_or(0, u64::from_be_bytes)
}

impl Group {
    /// Names of the topics that members subscribe to.
    pub(in crate::groups) fn subscribed(&self) -> BTreeSet<String> {
        self.members.values().flat_map(|m| m.wish.subscribed()).cloned().collect()
    }

    /// Looks at the subscribed topics again where they may have changed; a change of theirs is
    /// one of the group.
    pub(super) fn look_at_topics(&mut self, view: &dyn TopicView) {
        let version = view.version();
        if self.topics_version == Some(version) {
            return;
        }
        let names: BTreeSet<&String> =
            self.members.values().flat_map(|m| m.wish.subscribed()).collect();
        let shapes = names.into_iter().filter_map(|name| view.shape(name));
        self.topics = shapes.map(|shape| (shape.id, shape.partitions)).collect();
        self.topics_version = Some(version);
        let hash = hash_of(&self.topics);
        if hash == self.topics_hash {
            return;
        }
        self.topics_hash = hash;
        self.dirty_group = true;
        // One change of epoch stands for all that the target does not know of yet.
        if self.epoch == self.target_epoch {
            self.bump();
        }
    }

    /// Brings the target up to the group's epoch.
    pub(super) fn assign(&mut self, view: &dyn TopicView) {
        if self.target_epoch == self.epoch {
            return;
        }
        // Members mostly subscribe to the same topics: each name is looked up once.
        let names = self.subscribed();
        let ids = names.iter().filter_map(|name| Some((name.as_str(), view.shape(name)?.id)));
        let ids: BTreeMap<&str, Uuid> = ids.collect();
        let topics_of = |member: &Member| {
            member.wish.subscribed().filter_map(|name| ids.get(name.as_str())).copied().collect()
        };
        let subjects: Vec<Subject<'_>> = self
            .members
            .iter()
            .map(|(id, member)| Subject {
                id,
                instance: member.wish.instance.as_deref(),
                topics: topics_of(member),
                holds: &member.target,
            })
            .collect();
        let targets = self.assignor().assign(&subjects, &self.topics);
        for ((id, member), target) in self.members.iter_mut().zip(targets) {
            if member.target != target {
                member.target = target;
                self.dirty.insert(id.clone());
            }
        }
        self.target_epoch = self.epoch;
        self.dirty_group = true;
    }

    /// The assignor that most members ask for; the default where none does, and in a draw.
    pub(super) fn assignor(&self) -> Assignor {
        let asked = self.members.values().filter_map(|m| m.wish.assignor.as_deref());
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for assignor in asked.filter_map(Assignor::by_name) {
            *votes.entry(assignor).or_default() += 1;
        }
        let [default, ..] = Assignor::ALL;
        let best = votes.into_iter().max_by_key(|(assignor, n)| (*n, *assignor == default));
        best.map_or(default, |(assignor, _)| assignor)
    }
}
