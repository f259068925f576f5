//! Ranges: the partitions of each topic are cut into runs, and its subscribers take them in order.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{Subject, partitions, subscribers};
use crate::types::PartKey;

pub(super) fn assign(
    subjects: &[Subject<'_>],
    topics: &BTreeMap<Uuid, u32>,
) -> Vec<BTreeSet<PartKey>> {
    let mut given = vec![BTreeSet::new(); subjects.len()];
    for (topic, mut takers) in subscribers(subjects) {
        let Some(count) = topics.get(&topic).copied() else { continue };
        takers.sort_by_key(|at| subjects.get(*at).map(place));
        let each = u32::try_from(takers.len()).unwrap_or(u32::MAX).max(1);
        let (run, longer) = (count / each, count % each);
        let mut rest = partitions(topic, count);
        for (nth, taker) in takers.into_iter().enumerate() {
            let longer = u32::try_from(nth).is_ok_and(|nth| nth < longer);
            let take = usize::try_from(run + u32::from(longer)).unwrap_or(usize::MAX);
            if let Some(owns) = given.get_mut(taker) {
                owns.extend(rest.by_ref().take(take));
            }
        }
    }
    given
}

/// Static members stand first and by their names, so that one that comes back under another
/// member id gets its ranges again.
fn place<'a>(subject: &Subject<'a>) -> (bool, &'a str, &'a str) {
    let name = subject.instance.unwrap_or_default();
    (subject.instance.is_none(), name, subject.id)
}
