//! DescribeLogDirs: what the replicas of this node take on its disk; AlterReplicaLogDirs.
//!
//! A node stores every partition, whatever replication factor its topic reports, and says so here.
//! It has one directory, so a replica can be moved only to where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::codec::messages::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse, DescribableLogDirTopic, DescribeLogDirsPartition,
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::errors;
use crate::gateway::Shared;

/// The partitions asked for by topic; `None` for all.
struct Asked(Option<BTreeMap<String, BTreeSet<i32>>>);

impl Asked {
    fn of(topics: Option<Vec<DescribableLogDirTopic>>) -> Self {
        let mut asked: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        let Some(topics) = topics else { return Self(None) };
        for topic in topics {
            asked.entry(topic.topic).or_default().extend(topic.partitions);
        }
        Self(Some(asked))
    }

    fn has(&self, topic: &str, partition: i32) -> bool {
        let Some(asked) = &self.0 else { return true };
        asked.get(topic).is_some_and(|partitions| partitions.contains(&partition))
    }
}

/// Sizes of the partitions asked for that are here.
pub(crate) fn describe(
    shared: &Arc<Shared>,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let log = &shared.backend.log;
    let asked = Asked::of(request.topics);
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for replica in log.replicas() {
        // A replica whose topic is gone is about to be removed.
        let Some(topic) = log.topic_by_id(replica.key.topic) else { continue };
        let partition_index = i32::try_from(replica.key.partition).unwrap_or(i32::MAX);
        if asked.has(&topic.name, partition_index) {
            topics.entry(topic.name.clone()).or_default().push(DescribeLogDirsPartition {
                partition_index,
                partition_size: i64::try_from(replica.bytes).unwrap_or(i64::MAX),
                // What is applied is what is committed: the log never ends behind its watermark.
                offset_lag: 0,
                is_future_key: false,
            });
        }
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_by_key(|p| p.partition_index);
        DescribeLogDirsTopic { name, partitions }
    });
    let (dir, space) = log.directory();
    let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let space = space.ok();
    let result = DescribeLogDirsResult {
        error_code: errors::NONE,
        log_dir: dir.display().to_string(),
        topics: topics.collect(),
        total_bytes: space.map_or(-1, |space| bytes(space.total_bytes)),
        usable_bytes: space.map_or(-1, |space| bytes(space.free_bytes)),
    };
    DescribeLogDirsResponse { results: vec![result], ..Default::default() }
}

/// Says of each replica whether it may lie in the directory asked for.
pub(crate) fn alter(
    shared: &Arc<Shared>,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let log = &shared.backend.log;
    let (own, _) = log.directory();
    let mut results: BTreeMap<String, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for dir in request.dirs {
        let known_dir = own == Path::new(&dir.path);
        for topic in dir.topics {
            let known = log.topic(&topic.name);
            let code = |partition: i32| match &known {
                _ if !known_dir => errors::LOG_DIR_NOT_FOUND,
                Some(topic) if topic.group_of(partition).is_some() => errors::NONE,
                _ => errors::UNKNOWN_TOPIC_OR_PARTITION,
            };
            let partitions = topic.partitions.iter().map(|partition| {
                let (partition_index, error_code) = (*partition, code(*partition));
                AlterReplicaLogDirPartitionResult { partition_index, error_code }
            });
            results.entry(topic.name.clone()).or_default().extend(partitions);
        }
    }
    let results = results
        .into_iter()
        .map(|(topic_name, partitions)| AlterReplicaLogDirTopicResult { topic_name, partitions });
    AlterReplicaLogDirsResponse { throttle_time_ms: 0, results: results.collect() }
}
