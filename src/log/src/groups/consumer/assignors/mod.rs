//! Who shall own what: the assignors that the coordinator runs (KIP-848).
//!
//! Pure and deterministic. Each partition of a topic with subscribers goes to exactly one of
//! them, and nobody gets partitions of a topic that it does not subscribe to.

mod range;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::types::PartKey;

/// An assignor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::groups) enum Assignor {
    /// As equal as it can be, moving as little as possible.
    Uniform,
    /// Neighbouring partitions of each topic, the same of all topics to the same member.
    Range,
}

impl Assignor {
    /// Every assignor, the default first, as `group.consumer.assignors` names them.
    pub(in crate::groups) const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    pub(in crate::groups) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    pub(in crate::groups) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// What each of `subjects` shall own, in their order. `topics`: how many partitions each has.
    pub(in crate::groups) fn assign(
        self,
        subjects: &[Subject<'_>],
        topics: &BTreeMap<Uuid, u32>,
    ) -> Vec<BTreeSet<PartKey>> {
        match self {
            Self::Uniform => uniform::assign(subjects, topics),
            Self::Range => range::assign(subjects, topics),
        }
    }
}

/// A member as the assignors see it.
#[derive(Clone, Debug)]
pub(in crate::groups) struct Subject<'a> {
    /// Member id.
    pub(in crate::groups) id: &'a str,
    /// Static name.
    pub(in crate::groups) instance: Option<&'a str>,
    /// Topics that it subscribes to.
    pub(in crate::groups) topics: BTreeSet<Uuid>,
    /// What it was to own so far.
    pub(in crate::groups) holds: &'a BTreeSet<PartKey>,
}

/// The subscribers of each topic that has some, as places in `subjects`, in their order.
fn subscribers(subjects: &[Subject<'_>]) -> BTreeMap<Uuid, Vec<usize>> {
    let mut found: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for (at, subject) in subjects.iter().enumerate() {
        for topic in &subject.topics {
            found.entry(*topic).or_default().push(at);
        }
    }
    found
}

fn partitions(topic: Uuid, count: u32) -> impl Iterator<Item = PartKey> {
    (0..count).map(move |partition| PartKey { topic, partition })
}

#[cfg(test)]
pub(super) mod tests;
