//! Background work: making the data groups agree with `m0`, and retention.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use consensus::GroupRef;
use futures::future::try_join_all;
use segment::SegmentInfo;
use tracing::{info, warn};

use super::LogService;
use crate::age::newest_ms;
use crate::command::Control;
use crate::configs::{ReplicaSettings, TopicSettings};
use crate::error::LogError;
use crate::limits::PRODUCER_EXPIRY_MS;
use crate::partition::Partition;
use crate::types::PartKey;

/// Passes of retention between looks for idle transactional ids.
const PASSES_PER_EXPIRY: u64 = 2;
/// Old segments are looked for after this time, however seldom else, by a node that has just
/// started, as Kafka's does, and while a disk lacks room.
const SOON: Duration = Duration::from_secs(30);

impl LogService {
    pub(super) async fn reconcile_forever(&self) {
        let mut changes = self.watch_topics();
        loop {
            if self.0.groups.m0.leadership().ready_here
                && let Err(error) = self.reconcile().await
            {
                // Retried with the next pass; elections are a usual cause.
                info!("topics and replicas could not be compared: {error}");
            }
            let every = self.0.options.reconcile_every;
            // Only how soon the next pass comes depends on which of the two happens.
            tokio::time::timeout(every, changes.changed()).await.map(|_| ()).unwrap_or_default();
            tokio::time::sleep(every / 10).await;
        }
    }

    /// Creates replicas that should be there, configures those that differ, and deletes those
    /// that no topic has.
    async fn reconcile(&self) -> Result<(), LogError> {
        if self.differences().is_empty() {
            return Ok(());
        }
        // This node may merely be behind. The barrier of the data groups comes first: a replica
        // seen after it has its topic in m0 after m0's barrier, or the topic was deleted.
        for group in &self.0.groups.data {
            group.read_barrier().await?;
        }
        let held = self.held();
        self.0.groups.m0.read_barrier().await?;
        // Deletions first: a topic made anew inherits which producers the old one knew.
        let (deletions, others): (Vec<_>, Vec<_>) = self
            .compare(&held)
            .into_iter()
            .partition(|(_, command)| matches!(command, Control::DeleteReplica { .. }));
        for commands in [deletions, others] {
            for error in self.control_all(commands).await.into_iter().filter_map(Result::err) {
                warn!("a replica is not as it should be: {error}");
            }
        }
        Ok(())
    }

    /// Deletes every replica whose topic is gone. On return no node appends to one of those,
    /// though it may not know yet that the topic was deleted.
    pub(super) async fn delete_orphans(&self) -> Result<(), LogError> {
        // In this order, as in `reconcile`.
        try_join_all(self.0.groups.data.iter().map(|group| group.read_barrier())).await?;
        let mut held = Vec::new();
        for group in &self.0.groups.data {
            held.extend(self.view(group.id()).all().into_iter().map(|part| (group, part.key)));
        }
        self.0.groups.m0.read_barrier().await?;
        held.retain(|(_, key)| self.topic_by_id(key.topic).is_none());
        let delete =
            |(group, key): (&GroupRef, PartKey)| (group.clone(), Control::DeleteReplica { key });
        self.control_all(held.into_iter().map(delete).collect()).await.into_iter().collect()
    }

    fn differences(&self) -> Vec<(GroupRef, Control)> {
        self.compare(&self.held())
    }

    fn held(&self) -> Vec<(GroupRef, BTreeMap<PartKey, ReplicaSettings>)> {
        let settings = |part: &Arc<Partition>| (part.key, part.state.lock().settings);
        let groups = self.0.groups.data.iter();
        groups
            .map(|group| {
                let parts = self.view(group.id()).all();
                (group.clone(), parts.iter().map(settings).collect())
            })
            .collect()
    }

    fn compare(
        &self,
        held: &[(GroupRef, BTreeMap<PartKey, ReplicaSettings>)],
    ) -> Vec<(GroupRef, Control)> {
        let mut commands = Vec::new();
        let topics = self.topics();
        for (group, held) in held {
            let mut wanted = BTreeMap::new();
            for topic in &topics {
                for (partition, home) in (0u32..).zip(&topic.partitions) {
                    if *home == group.id() {
                        let key = PartKey { topic: topic.id, partition };
                        wanted.insert(key, topic.settings.replica);
                    }
                }
            }
            for (key, settings) in &wanted {
                let (key, settings) = (*key, *settings);
                match held.get(&key) {
                    None => {
                        commands.push((group.clone(), Control::CreateReplica { key, settings }))
                    }
                    Some(now) if *now != settings => {
                        commands.push((group.clone(), Control::ConfigureReplica { key, settings }));
                    }
                    Some(_) => {}
                }
            }
            for key in held.keys().filter(|key| !wanted.contains_key(key)) {
                commands.push((group.clone(), Control::DeleteReplica { key: *key }));
            }
        }
        commands
    }

    pub(super) async fn retain_forever(&self) {
        for pass in 1u64.. {
            self.wait_for_retention(pass == 1).await;
            if pass.is_multiple_of(PASSES_PER_EXPIRY) {
                self.expire_transactions().await;
            }
            if let Err(error) = self.know_settings().await {
                info!("retention waits: {error}");
                continue;
            }
            for group in &self.0.groups.data {
                if !group.leadership().ready_here {
                    continue;
                }
                for part in self.view(group.id()).all() {
                    if let Err(error) = self.retain(group, &part).await {
                        info!(topic = %part.key.topic, "retention waits: {error}");
                    }
                }
            }
        }
    }

    async fn wait_for_retention(&self, first: bool) {
        let mut left = self.0.options.retention_every;
        while !left.is_zero() {
            let part = left.min(SOON);
            tokio::time::sleep(part).await;
            left = left.saturating_sub(part);
            if first || self.0.groups.m0.disk_low().is_some() {
                return;
            }
        }
    }

    /// A node that is cut off from the leader of `m0` may lead data groups all the same, and must
    /// not delete by settings that others have changed long ago.
    pub(super) async fn know_settings(&self) -> Result<(), LogError> {
        if self.0.groups.data.iter().any(|group| group.leadership().ready_here) {
            self.0.groups.m0.read_barrier().await?;
        }
        Ok(())
    }

    /// Lets a partition forget old segments and idle producers.
    async fn retain(&self, group: &GroupRef, part: &Partition) -> Result<(), LogError> {
        let Some(topic) = self.topic_by_id(part.key.topic) else { return Ok(()) };
        let (log_start, stable, end) = part.stable_bounds();
        let now_ms = self.now_ms();
        let segments = part.stream.segments();
        // Records of an open transaction stay: nobody can have read them yet.
        let stable = u64::try_from(stable).unwrap_or(0);
        let settled = segments.partition_point(|s| s.next_offset <= stable);
        let settled = segments.get(..settled).unwrap_or_default();
        let size = segments.iter().map(|s| s.len).sum();
        let start = match topic.settings.deletes {
            true => retention_start(settled, size, end, now_ms, &topic.settings),
            false => None,
        };
        if let Some(offset) = start.filter(|start| *start > log_start) {
            let command = Control::SetLogStart { key: part.key, offset };
            self.control_here(group, &command).await?;
        }
        let before_ms = now_ms.saturating_sub(PRODUCER_EXPIRY_MS);
        if part.has_idle_producers(before_ms) {
            let command = Control::ExpireProducers { key: part.key, before_ms };
            self.control_here(group, &command).await?;
        }
        Ok(())
    }
}

/// Where the log of `size` bytes should begin, as far as the whole segments given allow; `None`
/// when it may stay.
fn retention_start(
    segments: &[SegmentInfo],
    mut size: u64,
    end: i64,
    now_ms: i64,
    settings: &TopicSettings,
) -> Option<i64> {
    let mut start = None;
    let limit = u64::try_from(settings.retention_bytes).ok();
    for (number, segment) in segments.iter().enumerate() {
        // A segment of which no time is known is no younger than the one behind it.
        let made_ms = segments.iter().skip(number).find_map(newest_ms);
        let is_old = |made_ms: i64| now_ms.saturating_sub(made_ms) > settings.retention_ms;
        let expired = settings.retention_ms >= 0 && made_ms.is_some_and(is_old);
        let newest = i64::try_from(segment.next_offset) == Ok(end);
        // Kafka's rule: the log never falls below the limit, and the newest segment goes only
        // by time.
        let too_much = limit.is_some_and(|limit| size.saturating_sub(segment.len) >= limit);
        if !(expired || too_much && !newest) {
            break;
        }
        size = size.saturating_sub(segment.len);
        start = i64::try_from(segment.next_offset).ok();
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::age::newest_or_appended;

    fn check(configs: &[(&str, &str)], start: Option<i64>) {
        check_times(&[1000, 2000, 3000, 4000], configs, start);
    }

    /// Four segments whose newest timestamps are these.
    fn check_times(times: &[i64; 4], configs: &[(&str, &str)], start: Option<i64>) {
        let segment = |(n, max_timestamp_ms): (u64, &i64)| SegmentInfo {
            base_offset: n * 10,
            generation: 0,
            len: 100,
            crc: 0,
            next_offset: n * 10 + 10,
            max_timestamp_ms: *max_timestamp_ms,
        };
        let segments: Vec<_> = (0..).zip(times).map(segment).collect();
        let configs = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let settings = TopicSettings::of(&configs, &BTreeMap::new());
        assert_eq!(retention_start(&segments, 400, 40, 5000, &settings), start, "{configs:?}");
    }

    #[test]
    fn old_and_surplus_segments_go() {
        check(&[], None);
        check(&[("retention.ms", "2500")], Some(20));
        check(&[("retention.ms", "0")], Some(40));
        check(&[("retention.ms", "-1"), ("retention.bytes", "150")], Some(20));
        check(&[("retention.bytes", "0")], Some(30));
        check(&[("retention.bytes", "400")], None);
    }

    #[test]
    fn segments_without_timestamps_go_by_the_time_of_their_appends() {
        let appended = |ms| newest_or_appended(-1, ms);
        let half = [("retention.ms", "2500")];
        check_times(&[1000, 2000, 3000, 4000].map(appended), &half, Some(20));
        check_times(&[appended(1000), 2000, appended(3000), 4000], &half, Some(20));
        check_times(&[appended(3000), 1000, 1000, 1000], &half, None);
        let never = [("retention.ms", "-1")];
        check_times(&[1000, 2000, 3000, 4000].map(appended), &never, None);
    }

    /// As earlier versions wrote them.
    #[test]
    fn a_segment_of_which_no_time_is_known_goes_with_the_next_one() {
        let half = [("retention.ms", "2500")];
        check_times(&[-1, -1, 2000, 4000], &half, Some(30));
        check_times(&[-1, -1, 3000, 4000], &half, None);
        check_times(&[-1; 4], &half, None);
    }
}
