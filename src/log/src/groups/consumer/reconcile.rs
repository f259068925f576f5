//! The next step of a member towards its target (KIP-848): give up first, then take what is free.

use std::collections::BTreeSet;

use super::member::{Member, Progress};
use crate::types::PartKey;

/// A member after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) epoch: i32,
    pub(super) progress: Progress,
    pub(super) assigned: BTreeSet<PartKey>,
    pub(super) revoking: BTreeSet<PartKey>,
}

/// The step of `member` towards its target of `target_epoch`; `None` when it has to wait.
///
/// `owned`: what the member says it owns, `None` when it did not say. `is_free`: whether nobody
/// else may own a partition.
pub(super) fn step(
    member: &Member,
    target_epoch: i32,
    owned: Option<&BTreeSet<PartKey>>,
    is_free: impl Fn(&PartKey) -> bool,
) -> Option<Step> {
    let still_owns =
        |parts: &BTreeSet<PartKey>| owned.is_none_or(|owned| !owned.is_disjoint(parts));
    // The epoch that the member stays in while it gives up more.
    let epoch = match member.progress {
        Progress::Stable if member.epoch == target_epoch => return None,
        Progress::Stable | Progress::Waiting => member.epoch,
        Progress::Revoking if still_owns(&member.revoking) => return None,
        // What it confirmed counts as an epoch of its own: commits of the one before, which may
        // be about what it gave up, are late.
        Progress::Revoking => member.epoch + 1,
    };
    let mut assigned: BTreeSet<PartKey> = &member.assigned & &member.target;
    let revoking: BTreeSet<PartKey> = &member.assigned - &member.target;
    if !revoking.is_empty() && still_owns(&revoking) {
        return Some(Step { epoch, progress: Progress::Revoking, assigned, revoking });
    }
    let missing = member.target.difference(&member.assigned);
    let (free, held): (Vec<PartKey>, Vec<PartKey>) = missing.copied().partition(|key| is_free(key));
    assigned.extend(free);
    let progress = if held.is_empty() { Progress::Stable } else { Progress::Waiting };
    Some(Step { epoch: target_epoch, progress, assigned, revoking: BTreeSet::new() })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use uuid::Uuid;

    use super::*;

    fn parts(numbers: &[u32]) -> BTreeSet<PartKey> {
        let topic = Uuid::from_u128(1);
        numbers.iter().map(|partition| PartKey { topic, partition: *partition }).collect()
    }

    fn member(epoch: i32, progress: Progress, has: [&[u32]; 3]) -> Member {
        let [assigned, revoking, target] = has.map(parts);
        Member { epoch, progress, assigned, revoking, target, ..Member::new(0) }
    }

    /// The step towards epoch 5; partitions of `held` belong to others.
    fn check(member: &Member, owned: Option<&[u32]>, held: &[u32], expected: Expect) {
        let owned = owned.map(parts);
        let held = parts(held);
        let step = step(member, 5, owned.as_ref(), |key| !held.contains(key));
        let list =
            |parts: &BTreeSet<PartKey>| parts.iter().map(|p| p.partition).collect::<Vec<_>>();
        let text = step.map_or("waits".to_owned(), |step| {
            let (assigned, revoking) = (list(&step.assigned), list(&step.revoking));
            format!("{} {:?} has {assigned:?} revokes {revoking:?}", step.epoch, step.progress)
        });
        expected.assert_eq(&text);
    }

    #[test]
    fn a_member_takes_what_is_free_and_waits_for_the_rest() {
        let new = member(0, Progress::Stable, [&[], &[], &[0, 1, 2]]);
        check(&new, Some(&[]), &[], expect!["5 Stable has [0, 1, 2] revokes []"]);
        check(&new, Some(&[]), &[1], expect!["5 Waiting has [0, 2] revokes []"]);
        check(&new, None, &[0, 1, 2], expect!["5 Waiting has [] revokes []"]);
        let waiting = member(5, Progress::Waiting, [&[0], &[], &[0, 1]]);
        check(&waiting, None, &[1], expect!["5 Waiting has [0] revokes []"]);
        check(&waiting, None, &[], expect!["5 Stable has [0, 1] revokes []"]);
    }

    #[test]
    fn a_member_gives_up_before_it_takes() {
        let stable = member(3, Progress::Stable, [&[0, 1], &[], &[1, 2]]);
        check(&stable, None, &[], expect!["3 Revoking has [1] revokes [0]"]);
        check(&stable, Some(&[0, 1]), &[], expect!["3 Revoking has [1] revokes [0]"]);
        // It does not own it anyway.
        check(&stable, Some(&[1]), &[2], expect!["5 Waiting has [1] revokes []"]);
    }

    #[test]
    fn a_member_is_held_to_what_it_gives_up() {
        let revoking = member(3, Progress::Revoking, [&[1], &[0], &[1, 2]]);
        check(&revoking, None, &[], expect!["waits"]);
        check(&revoking, Some(&[0, 1]), &[], expect!["waits"]);
        check(&revoking, Some(&[1]), &[], expect!["5 Stable has [1, 2] revokes []"]);
        // The target changed meanwhile: there is more to give up.
        let more = member(3, Progress::Revoking, [&[1], &[0], &[2]]);
        check(&more, Some(&[1]), &[], expect!["4 Revoking has [] revokes [1]"]);
        check(&more, Some(&[]), &[], expect!["5 Stable has [2] revokes []"]);
    }

    #[test]
    fn a_member_without_news_stays() {
        let stable = member(5, Progress::Stable, [&[0], &[], &[0]]);
        check(&stable, Some(&[0]), &[], expect!["waits"]);
        let behind = member(4, Progress::Stable, [&[0], &[], &[0]]);
        check(&behind, None, &[], expect!["5 Stable has [0] revokes []"]);
    }
}
