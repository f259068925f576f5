//! Which committed offsets have expired: Kafka's rules (KIP-211). Pure.

use std::collections::BTreeSet;

use crate::types::PartKey;

/// A committed offset, as far as its expiry goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOffset {
    /// The partition.
    pub key: PartKey,
    /// Its topic's name; `None` when the topic was deleted.
    pub topic: Option<String>,
    /// When it was committed, in milliseconds since the epoch.
    pub commit_time_ms: i64,
}

/// The committed offsets of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOffsets {
    /// The group.
    pub group: String,
    /// Since when it is stored as a group without members, in milliseconds since the epoch.
    pub empty_since_ms: Option<i64>,
    /// At least one.
    pub offsets: Vec<StoredOffset>,
}

/// Offsets to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredOffsets {
    /// The group.
    pub group: String,
    /// As in [`StoredOffsets`]; when it is another by then, nothing is forgotten.
    pub empty_since_ms: Option<i64>,
    /// Partitions, with the time of the commit that has expired.
    pub offsets: Vec<(PartKey, i64)>,
}

/// What decides when offsets of a group expire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Nobody is in the group: the time since it is empty.
    SinceEmpty,
    /// A consumer without group membership: the time since each commit.
    SinceCommit,
    /// Members consume these topics; of others, the time since each commit.
    SinceCommitUnless(BTreeSet<String>),
    /// None expires.
    Kept,
}

/// The offsets of a group that have expired. Those of deleted topics always have.
pub fn expired(
    stored: &StoredOffsets,
    retention: &Retention,
    now_ms: i64,
    retention_ms: i64,
) -> Option<ExpiredOffsets> {
    let over = |since_ms: i64| now_ms.saturating_sub(since_ms) >= retention_ms;
    let has_expired = |offset: &&StoredOffset| {
        let Some(topic) = &offset.topic else { return true };
        match retention {
            Retention::SinceEmpty => over(stored.empty_since_ms.unwrap_or(offset.commit_time_ms)),
            Retention::SinceCommit => over(offset.commit_time_ms),
            Retention::SinceCommitUnless(topics) => {
                !topics.contains(topic) && over(offset.commit_time_ms)
            }
            Retention::Kept => false,
        }
    };
    let offsets = stored.offsets.iter().filter(has_expired).map(|o| (o.key, o.commit_time_ms));
    let offsets: Vec<_> = offsets.collect();
    let (group, empty_since_ms) = (stored.group.clone(), stored.empty_since_ms);
    (!offsets.is_empty()).then_some(ExpiredOffsets { group, empty_since_ms, offsets })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(retention: &Retention, empty_since_ms: Option<i64>, now_ms: i64, expected: &[u32]) {
        let offset = |partition: u32, topic: Option<&str>, commit_time_ms: i64| StoredOffset {
            key: PartKey { topic: uuid::Uuid::nil(), partition },
            topic: topic.map(str::to_owned),
            commit_time_ms,
        };
        let offsets =
            vec![offset(0, Some("a"), 100), offset(1, Some("b"), 200), offset(2, None, 900)];
        let stored = StoredOffsets { group: "g".into(), empty_since_ms, offsets };
        let found = expired(&stored, retention, now_ms, 1000);
        let found = found.map_or(vec![], |e| e.offsets.iter().map(|o| o.0.partition).collect());
        assert_eq!(found, expected, "{retention:?} {now_ms}");
    }

    #[test]
    fn empty_groups_lone_consumers_and_unsubscribed_topics_expire() {
        check(&Retention::SinceEmpty, Some(500), 1499, &[2]);
        check(&Retention::SinceEmpty, Some(500), 1500, &[0, 1, 2]);
        // An old group whose row does not say since when: each commit decides.
        check(&Retention::SinceEmpty, None, 1100, &[0, 2]);
        check(&Retention::SinceCommit, None, 1099, &[2]);
        check(&Retention::SinceCommit, None, 1199, &[0, 2]);
        let topics = BTreeSet::from(["a".to_owned()]);
        check(&Retention::SinceCommitUnless(topics), None, 9000, &[1, 2]);
        check(&Retention::Kept, Some(0), 9000, &[2]);
    }
}
