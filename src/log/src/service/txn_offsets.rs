//! Offsets of consumer groups committed inside transactions.

use std::collections::BTreeSet;

use super::LogService;
use super::offsets::check_group;
use super::transactions::check_id;
use crate::error::LogError;
use crate::limits::MAX_OFFSETS_PER_COMMIT;
use crate::transactions::{ProducerEpoch, TxnCommand, TxnReply, TxnVersion, offsets as pending};
use crate::types::{OffsetToCommit, PartKey};

/// A consumer group in a producer's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTransaction {
    group: String,
    producer: ProducerEpoch,
    number: u64,
}

impl LogService {
    /// The transaction of a producer that a group belongs to, made sure of as the version does.
    /// Only on the group's coordinator.
    pub async fn transaction_of_group(
        &self,
        id: &str,
        producer: ProducerEpoch,
        group: &str,
        version: TxnVersion,
    ) -> Result<GroupTransaction, LogError> {
        check_id(id)?;
        check_group(group)?;
        let home = self.coordinator(group)?;
        if !home.leadership().ready_here {
            return Err(LogError::NotLeader { leader: None });
        }
        let confirmed = match version {
            TxnVersion::V1 => self.verify_group(id, producer, group).await?,
            TxnVersion::V2 => {
                self.join(id, || (Vec::new(), vec![group.to_owned()]), producer).await?
            }
        };
        Ok(GroupTransaction { group: group.to_owned(), producer, number: confirmed.number })
    }

    /// Commits offsets that count once the transaction commits; one result for each, in order.
    /// Whoever calls has checked, since it had the transaction, that the member may still commit:
    /// its partitions may have gone to another one meanwhile.
    pub async fn commit_offsets_in_transaction(
        &self,
        transaction: &GroupTransaction,
        offsets: &[OffsetToCommit],
    ) -> Result<Vec<Result<(), LogError>>, LogError> {
        let GroupTransaction { group, producer, number } = transaction;
        if offsets.len() > MAX_OFFSETS_PER_COMMIT {
            return Err(LogError::InvalidRequest("too many offsets in one commit".to_owned()));
        }
        let home = self.coordinator(group)?;
        let mut results = Vec::with_capacity(offsets.len());
        let mut entries = Vec::new();
        for offset in offsets {
            let entry = self.offset_entry(offset);
            results.push(entry.as_ref().map(|_| ()).map_err(Clone::clone));
            entries.extend(entry);
        }
        let command = TxnCommand::CommitOffsets {
            group: group.clone(),
            producer: *producer,
            number: *number,
            offsets: entries,
        };
        match self.propose_txn(home, &command, true).await? {
            TxnReply::Done { .. } => Ok(results),
            TxnReply::Failed(error) => Err(error.into()),
            other => Err(LogError::Internal(format!("the group answered {other:?}"))),
        }
    }

    /// Topics and partitions for which a group has offsets of open transactions. Only on the
    /// coordinator. Of a partition that is not among them, what [`Self::fetch_offsets`] finds
    /// afterwards is stable; asked in the other order, a transaction that commits in between
    /// would leave its partition with the offset from before it.
    pub async fn pending_offsets(&self, group: &str) -> Result<BTreeSet<(String, i32)>, LogError> {
        self.read_group(group).await?;
        let prefix = pending::prefix(b'y', group);
        let mut parts = Vec::new();
        self.scan_rows(self.coordinator_shard(group), &prefix, |key, _| {
            parts.extend(pending::pending_part(key, &prefix));
            Ok(())
        })?;
        self.learn_topics(parts.iter().map(|part| part.topic)).await?;
        let named = |part: PartKey| {
            let topic = self.topic_by_id(part.topic)?;
            Some((topic.name.clone(), i32::try_from(part.partition).unwrap_or(i32::MAX)))
        };
        Ok(parts.into_iter().filter_map(named).collect())
    }
}
