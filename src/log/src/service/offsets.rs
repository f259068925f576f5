//! Committed offsets of consumer groups. Their home is the data group that the group's id
//! hashes to, whose leader coordinates the group.

use std::collections::BTreeSet;
use std::time::Duration;

use base::broken::{self, Broken};
use consensus::GroupRef;
use uuid::Uuid;

use super::{LogService, key_of};
use crate::command::{Control, ControlReply, OffsetEntry};
use crate::data::keys;
use crate::error::LogError;
use crate::limits::{MAX_GROUP_NAME, MAX_OFFSET_METADATA, MAX_OFFSETS_PER_COMMIT};
use crate::offsets::OffsetRow;
use crate::types::{CommittedOffset, OffsetToCommit, PartKey, Topic};

const SCAN_ROWS: usize = 1000;
/// So long after a barrier of `m0` has failed, another one is not tried.
const M0_RETRY: Duration = Duration::from_secs(1);

impl LogService {
    /// Number of the data group that is home to a consumer group.
    pub fn coordinator_shard(&self, group: &str) -> usize {
        let shards = self.0.groups.data.len().max(1);
        usize::try_from(base::crc::crc32c(group.as_bytes())).unwrap_or_default() % shards
    }

    /// The data group that is home to a consumer group.
    pub fn coordinator(&self, group: &str) -> Result<&GroupRef, LogError> {
        let data = &self.0.groups.data;
        data.get(self.coordinator_shard(group)).ok_or(LogError::NotLeader { leader: None })
    }

    /// Commits offsets; one result for each, in order. Only on the coordinator.
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: &[OffsetToCommit],
    ) -> Result<Vec<Result<(), LogError>>, LogError> {
        check_group(group)?;
        if offsets.len() > MAX_OFFSETS_PER_COMMIT {
            return Err(LogError::InvalidRequest("too many offsets in one commit".to_owned()));
        }
        let mut results = Vec::with_capacity(offsets.len());
        let mut entries = Vec::new();
        for offset in offsets {
            let entry = self.offset_entry(offset);
            results.push(entry.as_ref().map(|_| ()).map_err(Clone::clone));
            entries.extend(entry);
        }
        if broken::is(Broken::LoseCommit) && self.now_ms() % 10 == 0 {
            return Ok(results);
        }
        let command = Control::CommitOffsets { group: group.to_owned(), offsets: entries };
        let home = self.coordinator(group)?;
        match self.control_here(home, &command).await? {
            ControlReply::Done => Ok(results),
            other => Err(LogError::Internal(format!("the group answered {other:?}"))),
        }
    }

    pub(super) fn offset_entry(&self, offset: &OffsetToCommit) -> Result<OffsetEntry, LogError> {
        if offset.metadata.len() > MAX_OFFSET_METADATA {
            return Err(LogError::OffsetMetadataTooLarge);
        }
        let topic = self.topic(&offset.topic).ok_or(LogError::UnknownTopicOrPartition)?;
        topic.group_of(offset.partition).ok_or(LogError::UnknownTopicOrPartition)?;
        Ok(OffsetEntry {
            key: key_of(&topic, offset.partition)?,
            offset: offset.offset,
            leader_epoch: offset.leader_epoch,
            metadata: offset.metadata.clone(),
        })
    }

    /// Makes sure that this node coordinates a group and has applied what was acknowledged of it.
    pub(super) async fn read_group(&self, group: &str) -> Result<(), LogError> {
        check_group(group)?;
        let home = self.coordinator(group)?;
        let leadership = home.leadership();
        if !leadership.ready_here {
            return Err(LogError::NotLeader { leader: leadership.leader });
        }
        // A leader that was deposed without knowing must not hand out old offsets.
        Ok(home.read_barrier().await?)
    }

    /// The committed offsets of a group, of topics that exist. Only on the coordinator.
    pub async fn fetch_offsets(&self, group: &str) -> Result<Vec<CommittedOffset>, LogError> {
        self.read_group(group).await?;
        let prefix = keys::offsets(group);
        let mut rows: Vec<(PartKey, OffsetRow)> = Vec::new();
        // At once: what a transaction commits is seen whole.
        let reader = self.0.readers.get(self.coordinator_shard(group));
        for (key, value) in reader
            .map(|reader| reader.scan(&prefix, None, usize::MAX))
            .transpose()?
            .unwrap_or_default()
        {
            if let Some(part) = keys::part_of(key.get(prefix.len()..).unwrap_or_default()) {
                rows.push((part, base::codec::decode(&value)?));
            }
        }
        if !rows.is_empty() {
            // A coordinator that is cut off from the leader of `m0` may know a topic that was
            // deleted and made anew long ago: its offsets are not the new one's.
            self.hear_m0().await?;
        }
        let committed = |(part, row): (PartKey, OffsetRow)| {
            let topic = self.topic_by_id(part.topic)?;
            Some(CommittedOffset {
                topic: topic.name.clone(),
                partition: i32::try_from(part.partition).unwrap_or(i32::MAX),
                offset: row.offset,
                leader_epoch: row.leader_epoch,
                metadata: row.metadata,
                commit_time_ms: row.commit_time_ms,
            })
        };
        Ok(rows.into_iter().filter_map(committed).collect())
    }

    /// A barrier of `m0` that does not wait again right after one has failed: requests ask for many
    /// groups, one after the other.
    async fn hear_m0(&self) -> Result<(), LogError> {
        let now = || self.0.shared.0.env.clock.monotonic();
        let lost = *self.0.m0_lost.lock();
        if lost.is_some_and(|lost| now().saturating_sub(lost) < M0_RETRY) {
            return Err(LogError::Timeout);
        }
        let heard = self.0.groups.m0.read_barrier().await;
        *self.0.m0_lost.lock() = heard.is_err().then(now);
        Ok(heard?)
    }

    /// On return this node knows the topics with these ids, or knows that they were deleted. A
    /// coordinator may have the rows of its group before the topics they speak of: the two come
    /// by different Raft groups.
    pub async fn learn_topics(&self, ids: impl IntoIterator<Item = Uuid>) -> Result<(), LogError> {
        if ids.into_iter().any(|id| self.topic_by_id(id).is_none()) {
            self.0.groups.m0.read_barrier().await?;
        }
        Ok(())
    }

    /// Forgets offsets of a group: those of the partitions given, or all. Only on the
    /// coordinator.
    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: Option<&[(String, i32)]>,
    ) -> Result<(), LogError> {
        check_group(group)?;
        let mut keys = partitions.map(|_| Vec::new());
        if partitions.is_some() {
            // This node may not know the topic yet, or an earlier one of its name.
            self.0.groups.m0.read_barrier().await?;
        }
        for (topic, partition) in partitions.unwrap_or_default() {
            if let (Some(topic), Some(keys)) = (self.topic(topic), &mut keys) {
                keys.push(key_of(&topic, *partition)?);
            }
        }
        let command = Control::DeleteOffsets { group: group.to_owned(), keys };
        let home = self.coordinator(group)?;
        self.control_here(home, &command).await.map(|_| ())
    }

    /// Names of groups that have committed offsets in data groups led by this node.
    pub fn groups_with_offsets(&self) -> Result<BTreeSet<String>, LogError> {
        let mut names = BTreeSet::new();
        for (shard, home) in self.0.groups.data.iter().enumerate() {
            if !home.leadership().ready_here {
                continue;
            }
            self.scan_rows(shard, b"O", |key, _| {
                let name = key.get(1..).and_then(|rest| rest.split_first_chunk::<2>());
                let name =
                    name.and_then(|(len, rest)| rest.get(..usize::from(u16::from_be_bytes(*len))));
                if let Some(name) = name {
                    names.insert(String::from_utf8_lossy(name).into_owned());
                }
                Ok(())
            })?;
        }
        Ok(names)
    }

    /// Feeds `each` group, topic, partition and offset committed, of topics that exist and groups
    /// that this node coordinates. What another coordinator has committed meanwhile is missing.
    pub fn committed_here(
        &self,
        mut each: impl FnMut(&str, &Topic, i32, i64),
    ) -> Result<(), LogError> {
        for (shard, home) in self.0.groups.data.iter().enumerate() {
            if !home.leadership().ready_here {
                continue;
            }
            self.scan_rows(shard, b"O", |key, value| {
                let Some((group, part)) = keys::group_and_part(key) else { return Ok(()) };
                let Some(topic) = self.topic_by_id(part.topic) else { return Ok(()) };
                let row: OffsetRow = base::codec::decode(value)?;
                let partition = i32::try_from(part.partition).unwrap_or(i32::MAX);
                each(&String::from_utf8_lossy(group), &topic, partition, row.offset);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The offset after the last record that this node's replica has.
    pub fn end_here(&self, topic: &Topic, partition: i32) -> Option<i64> {
        Some(self.local(topic, partition).ok()?.bounds().1)
    }

    /// Feeds all rows with a prefix of a data group to `each`.
    pub(super) fn scan_rows(
        &self,
        shard: usize,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let Some(reader) = self.0.readers.get(shard) else { return Ok(()) };
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = reader.scan(prefix, after.as_deref(), SCAN_ROWS)?;
            for (key, value) in &rows {
                each(key, value)?;
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(()),
            }
        }
    }
}

pub(super) fn check_group(group: &str) -> Result<(), LogError> {
    if group.len() > MAX_GROUP_NAME {
        return Err(LogError::InvalidRequest("the group's name is too long".to_owned()));
    }
    Ok(())
}
