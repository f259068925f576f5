//! Where the coordinators of consumer groups keep their rows.

use std::collections::BTreeMap;
use std::io;

use async_trait::async_trait;
use base::codec;
use consensus::{Leadership, tags};
use tokio::sync::watch;

use super::LogService;
use crate::command::{self, Control};
use crate::data::keys;
use crate::groups::{
    ExpiredOffsets, GroupCommand, GroupStore, SaveFailed, StoredGroups, StoredOffset,
    StoredOffsets, TopicShape, empty_key, load_rows,
};
use crate::limits::MAX_OFFSETS_PER_COMMIT;
use crate::offsets::OffsetRow;
use crate::types::{PartKey, SettingsOf};

#[async_trait]
impl GroupStore for LogService {
    fn shards(&self) -> usize {
        self.0.groups.data.len()
    }

    fn watch(&self, shard: usize) -> watch::Receiver<Leadership> {
        match self.0.groups.data.get(shard) {
            Some(group) => group.watch(),
            // Nobody leads a shard that is not there.
            None => watch::Sender::new(Leadership::default()).subscribe(),
        }
    }

    fn load(&self, shard: usize) -> io::Result<StoredGroups> {
        self.0.readers.get(shard).map_or_else(|| Ok(StoredGroups::default()), load_rows)
    }

    async fn save(&self, shard: usize, term: u64, command: GroupCommand) -> Result<(), SaveFailed> {
        let missing = || SaveFailed(format!("no data group {shard}"));
        let group = self.0.groups.data.get(shard).ok_or_else(missing)?;
        let command = command::groups(&command).map_err(|e| SaveFailed(e.to_string()))?;
        let sent = group.propose_here(tags::LOG, command, Some(term)).await;
        sent.map(|_| ()).map_err(|e| SaveFailed(e.to_string()))
    }

    fn watch_topics(&self) -> watch::Receiver<u64> {
        Self::watch_topics(self)
    }

    fn topic_shape(&self, topic: &str) -> Option<TopicShape> {
        let topic = self.topic(topic)?;
        let partitions = u32::try_from(topic.partitions.len()).ok()?;
        Some(TopicShape { id: topic.id, partitions })
    }

    fn topic_names(&self) -> Vec<String> {
        self.topics().into_iter().map(|topic| topic.name.clone()).collect()
    }

    async fn learn_topics(&self) -> Result<(), SaveFailed> {
        let barrier = self.0.groups.m0.read_barrier().await;
        barrier.map(|_| ()).map_err(|e| SaveFailed(e.to_string()))
    }

    fn group_settings(&self, group: &str) -> BTreeMap<String, String> {
        self.settings(&SettingsOf::Group(group.to_owned()))
    }

    async fn offsets(&self, shard: usize) -> Result<Vec<StoredOffsets>, SaveFailed> {
        let mut found: BTreeMap<String, Vec<(PartKey, i64)>> = BTreeMap::new();
        let scanned = self.scan_rows(shard, b"O", |key, value| {
            let Some((group, key)) = keys::group_and_part(key) else { return Ok(()) };
            let group = String::from_utf8_lossy(group).into_owned();
            let row: OffsetRow = codec::decode(value)?;
            found.entry(group).or_default().push((key, row.commit_time_ms));
            Ok(())
        });
        scanned.map_err(|e| SaveFailed(e.to_string()))?;
        // A topic of an offset that is not known after this was deleted.
        let barrier = self.0.groups.m0.read_barrier().await;
        barrier.map_err(|e| SaveFailed(e.to_string()))?;
        let stored = |(group, offsets): (String, Vec<(PartKey, i64)>)| {
            let offset = |(key, commit_time_ms): (PartKey, i64)| {
                let topic = self.topic_by_id(key.topic).map(|topic| topic.name.clone());
                StoredOffset { key, topic, commit_time_ms }
            };
            let empty_since_ms = self.empty_since_ms(shard, &group)?;
            let offsets = offsets.into_iter().map(offset).collect();
            Ok::<_, SaveFailed>(StoredOffsets { group, empty_since_ms, offsets })
        };
        found.into_iter().map(stored).collect()
    }

    async fn expire(
        &self,
        shard: usize,
        term: u64,
        expired: ExpiredOffsets,
    ) -> Result<(), SaveFailed> {
        let ExpiredOffsets { group, empty_since_ms, offsets } = expired;
        let missing = || SaveFailed(format!("no data group {shard}"));
        let home = self.0.groups.data.get(shard).ok_or_else(missing)?;
        for offsets in offsets.chunks(MAX_OFFSETS_PER_COMMIT) {
            let (group, offsets) = (group.clone(), offsets.to_vec());
            let command = Control::ExpireOffsets { group, empty_since_ms, offsets };
            let command = command::control(&command).map_err(|e| SaveFailed(e.to_string()))?;
            let sent = home.propose_here(tags::LOG, command, Some(term)).await;
            sent.map_err(|e| SaveFailed(e.to_string()))?;
        }
        Ok(())
    }
}

impl LogService {
    fn empty_since_ms(&self, shard: usize, group: &str) -> Result<Option<i64>, SaveFailed> {
        let Some(reader) = self.0.readers.get(shard) else { return Ok(None) };
        let value = reader.get(&empty_key(group)).map_err(|e| SaveFailed(e.to_string()))?;
        let value = value.map(|value| codec::decode(&value)).transpose();
        value.map_err(|e| SaveFailed(e.to_string()))
    }
}
