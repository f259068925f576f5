//! Transactions as gateways ask for them. What is decided is decided in apply; see
//! [`crate::transactions`].

use std::collections::BTreeSet;
use std::time::Duration;

use base::codec;
use consensus::{GroupRef, tags};

use super::offsets::check_group;
use super::{LogService, decode_reply, key_of};
use crate::command;
use crate::error::LogError;
use crate::limits::{MAX_TXN_ID, MAX_TXN_TIMEOUT_MS};
use crate::transactions::{
    self, IdCommand, Marker, Outcome, PREFIX, ProducerEpoch, Txn, TxnCommand, TxnReply, TxnRow,
    TxnState, TxnVersion, offsets as pending,
};
use crate::types::{PartKey, TopicRef};

/// How long the answer to an end waits until the transaction is complete, so that readers see
/// what their producer heard of. Kafka answers before; so do we when markers take longer.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Rows read at once.
const SCAN_ROWS: usize = 1000;

/// A transactional id, for DescribeTransactions and ListTransactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnDescription {
    /// The id.
    pub id: String,
    /// Where it stands.
    pub state: TxnState,
    /// Its producer.
    pub producer: ProducerEpoch,
    /// Its `transaction.timeout.ms`.
    pub timeout_ms: i32,
    /// When its newest transaction began; −1 when there was none.
    pub start_ms: i64,
    /// Topics and partitions of the transaction, while it is open or about to end.
    pub parts: Vec<(String, i32)>,
    /// Consumer groups of the transaction, while it is open or about to end.
    pub groups: Vec<String>,
}

/// What the coordinator says of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Confirmed {
    pub(super) producer: ProducerEpoch,
    /// Number of the transaction.
    pub(super) number: u64,
    /// When the epoch was handed out.
    pub(super) epoch_since_ms: i64,
}

impl LogService {
    /// A producer id and epoch for a transactional id; fences whoever had it before. `expected`
    /// is what a producer has that goes on after an error (KIP-360). Only on the coordinator.
    pub async fn init_transactional(
        &self,
        id: &str,
        timeout_ms: i32,
        expected: Option<ProducerEpoch>,
    ) -> Result<ProducerEpoch, LogError> {
        check_id(id)?;
        if !(1..=MAX_TXN_TIMEOUT_MS).contains(&timeout_ms) {
            return Err(LogError::InvalidTransactionTimeout);
        }
        let command = |fresh_id| IdCommand::Init { timeout_ms, expected, fresh_id };
        Ok(self.decide_here(id, command).await?.producer)
    }

    /// Adds partitions to a producer's transaction; the caller has checked that they exist. Only
    /// on the coordinator.
    pub async fn add_partitions(
        &self,
        id: &str,
        producer: ProducerEpoch,
        parts: &[(String, i32)],
    ) -> Result<(), LogError> {
        check_id(id)?;
        let mut keys = BTreeSet::new();
        for (topic, partition) in parts {
            let topic = self.resolve(TopicRef::Name(topic))?;
            topic.group_of(*partition).ok_or(LogError::UnknownTopicOrPartition)?;
            keys.insert(key_of(&topic, *partition)?);
        }
        let keys: Vec<PartKey> = keys.into_iter().collect();
        let number = self.number_meant(id, true)?;
        let command =
            |_| IdCommand::Add { producer, parts: keys.clone(), groups: Vec::new(), number };
        self.decide_here(id, command).await.map(|_| ())
    }

    /// Whether partitions belong to a producer's open transaction; one answer for each, or one
    /// for all. Only on the coordinator.
    pub async fn verify_partitions(
        &self,
        id: &str,
        producer: ProducerEpoch,
        parts: &[(String, i32)],
    ) -> Result<Vec<Result<(), LogError>>, LogError> {
        check_id(id)?;
        self.coordinated(id)?;
        let mut results = Vec::with_capacity(parts.len());
        for (topic, partition) in parts {
            let topic = self.resolve(TopicRef::Name(topic))?;
            match self.verify(id, producer, &key_of(&topic, *partition)?, 0).await {
                Ok(_) => results.push(Ok(())),
                Err(LogError::InvalidTxnState) => results.push(Err(LogError::TransactionAbortable)),
                Err(error) => return Err(error),
            }
        }
        Ok(results)
    }

    /// Adds a consumer group to a producer's transaction. Only on the coordinator.
    pub async fn add_offsets(
        &self,
        id: &str,
        producer: ProducerEpoch,
        group: &str,
    ) -> Result<(), LogError> {
        check_id(id)?;
        check_group(group)?;
        let number = self.number_meant(id, true)?;
        let groups = || vec![group.to_owned()];
        let command = |_| IdCommand::Add { producer, parts: Vec::new(), groups: groups(), number };
        self.decide_here(id, command).await.map(|_| ())
    }

    /// Commits or aborts a producer's transaction; returns the producer as it goes on. Only on
    /// the coordinator.
    pub async fn end_transaction(
        &self,
        id: &str,
        producer: ProducerEpoch,
        outcome: Outcome,
        version: TxnVersion,
    ) -> Result<ProducerEpoch, LogError> {
        check_id(id)?;
        let commit = outcome == Outcome::Commit;
        let number = match version {
            TxnVersion::V1 => self.number_meant(id, false)?,
            // The epoch tells one transaction from the next.
            TxnVersion::V2 => None,
        };
        let command = |fresh_id| IdCommand::End { producer, commit, version, fresh_id, number };
        let done = self.decide_here(id, command).await?;
        self.wait_until_complete(id, done.number, END_PATIENCE).await;
        Ok(done.producer)
    }

    /// Number of the transaction that a request means that came now: the one that is open, or,
    /// for a request that may begin one, the next.
    fn number_meant(&self, id: &str, begins: bool) -> Result<Option<u64>, LogError> {
        self.coordinated(id)?;
        let Some(txn) = self.txn_row(id)? else { return Ok(None) };
        let next = u64::from(begins && txn.state != TxnState::Ongoing);
        Ok(Some(txn.number + next))
    }

    /// Waits until a transaction is complete, or the time is over.
    async fn wait_until_complete(&self, id: &str, number: u64, patience: Duration) {
        let Ok(group) = self.coordinator(id) else { return };
        let view = self.view(group.id());
        let mut changes = view.txns.changes.subscribe();
        let complete = || {
            let txn = view.txns.get(id);
            txn.is_none_or(|txn| txn.number != number || !txn.state.is_prepared())
        };
        let waiting = async { while !complete() && changes.changed().await.is_ok() {} };
        // Both outcomes mean the same: the answer is due.
        tokio::time::timeout(patience, waiting).await.unwrap_or_default();
    }

    /// The coordinator's group, when this node leads it.
    fn coordinated(&self, id: &str) -> Result<&GroupRef, LogError> {
        let group = self.coordinator(id)?;
        let leadership = group.leadership();
        if leadership.ready_here { Ok(group) } else { Err(LogError::NotLeader { leader: None }) }
    }

    async fn decide_here(
        &self,
        id: &str,
        command: impl Fn(Option<i64>) -> IdCommand,
    ) -> Result<Confirmed, LogError> {
        self.coordinated(id)?;
        self.decide(id, command, true).await
    }

    /// Proposes a command about an id, with a fresh producer id once it is needed.
    pub(super) async fn decide(
        &self,
        id: &str,
        command: impl Fn(Option<i64>) -> IdCommand,
        here: bool,
    ) -> Result<Confirmed, LogError> {
        let mut fresh_id = None;
        loop {
            let command = TxnCommand::Id { id: id.to_owned(), command: command(fresh_id) };
            let group = self.coordinator(id)?;
            match self.propose_txn(group, &command, here).await? {
                TxnReply::Done { producer, number, epoch_since_ms } => {
                    return Ok(Confirmed { producer, number, epoch_since_ms });
                }
                TxnReply::Failed(error) => return Err(error.into()),
                TxnReply::NeedsProducerId if fresh_id.is_none() => {
                    fresh_id = Some(self.init_producer_id().await?);
                }
                other => return Err(LogError::Internal(format!("the group answered {other:?}"))),
            }
        }
    }

    /// Proposes a command about transactions, only where this node leads, or anywhere.
    pub(super) async fn propose_txn(
        &self,
        group: &GroupRef,
        command: &TxnCommand,
        here: bool,
    ) -> Result<TxnReply, LogError> {
        let command = command::transactions(command)?;
        let applied = if here {
            group.propose_here(tags::LOG, command, None).await?
        } else {
            group.propose(tags::LOG, command).await?
        };
        decode_reply(&applied.reply)
    }

    /// Whether a partition belongs to a producer's open transaction, as its coordinator has it;
    /// from any node. `ended` is the newest transaction whose marker the partition has: what this
    /// node knows of the coordinator's group may be older, and then tells of one that is over. An
    /// old answer about another does no harm: its marker will come.
    pub(super) async fn verify(
        &self,
        id: &str,
        producer: ProducerEpoch,
        part: &PartKey,
        ended: u64,
    ) -> Result<Confirmed, LogError> {
        self.confirm_with(id, producer, ended, |txn| txn.verify(producer, part)).await
    }

    /// As [`Self::verify`], for offsets of a group.
    pub(super) async fn verify_group(
        &self,
        id: &str,
        producer: ProducerEpoch,
        group: &str,
    ) -> Result<Confirmed, LogError> {
        let ended = match self.0.readers.get(self.coordinator_shard(group)) {
            Some(reader) => pending::ended(reader, group, producer.producer_id)?,
            None => 0,
        };
        self.confirm_with(id, producer, ended, |txn| txn.verify_group(producer, group)).await
    }

    async fn confirm_with(
        &self,
        id: &str,
        producer: ProducerEpoch,
        ended: u64,
        check: impl Fn(&Txn) -> Result<u64, transactions::TxnError>,
    ) -> Result<Confirmed, LogError> {
        let home = self.coordinator(id)?;
        let confirmed =
            |txn: &Txn, number| Confirmed { producer, number, epoch_since_ms: txn.epoch_since_ms };
        if let Some(txn) = self.view(home.id()).txns.get(id)
            && let Ok(number) = check(&txn)
            && number > ended
        {
            return Ok(confirmed(&txn, number));
        }
        // This node may be behind.
        home.read_barrier().await?;
        let txn = self.txn_row(id)?.ok_or(LogError::InvalidProducerIdMapping)?;
        Ok(confirmed(&txn, check(&txn)?))
    }

    fn txn_row(&self, id: &str) -> Result<Option<Txn>, LogError> {
        let Some(reader) = self.0.readers.get(self.coordinator_shard(id)) else { return Ok(None) };
        let row = reader.get(&transactions::key(id))?;
        let row = row.map(|value| codec::decode::<TxnRow>(&value)).transpose()?;
        Ok(row.map(|TxnRow::V1(txn)| txn))
    }

    /// A transactional id as it stands. Only on the coordinator.
    pub async fn describe_transaction(&self, id: &str) -> Result<TxnDescription, LogError> {
        check_id(id)?;
        self.coordinated(id)?.read_barrier().await?;
        let txn = self.txn_row(id)?.ok_or(LogError::TransactionalIdNotFound)?;
        self.learn_topics(txn.parts.iter().map(|key| key.topic)).await?;
        Ok(self.description(id, &txn))
    }

    /// The transactional ids that this node coordinates, up to `limit`.
    pub fn list_transactions(&self, limit: usize) -> Result<Vec<TxnDescription>, LogError> {
        let mut found = Vec::new();
        for (shard, home) in self.0.groups.data.iter().enumerate() {
            if home.leadership().ready_here {
                self.each_txn(shard, limit - found.len().min(limit), |id, txn| {
                    found.push(self.description(id, txn));
                })?;
            }
        }
        Ok(found)
    }

    /// Feeds transactional ids of a data group to `each`, up to `limit`.
    pub(super) fn each_txn(
        &self,
        shard: usize,
        limit: usize,
        mut each: impl FnMut(&str, &Txn),
    ) -> Result<(), LogError> {
        let Some(reader) = self.0.readers.get(shard) else { return Ok(()) };
        let (mut after, mut left) = (None::<Vec<u8>>, limit);
        while left > 0 {
            let rows = reader.scan(PREFIX, after.as_deref(), SCAN_ROWS.min(left))?;
            left -= rows.len();
            for (key, value) in &rows {
                let id = String::from_utf8_lossy(key.get(PREFIX.len()..).unwrap_or_default());
                let TxnRow::V1(txn) = codec::decode(value)?;
                each(&id, &txn);
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        Ok(())
    }

    fn description(&self, id: &str, txn: &Txn) -> TxnDescription {
        let name = |key: &PartKey| {
            let topic = self.topic_by_id(key.topic)?;
            Some((topic.name.clone(), i32::try_from(key.partition).ok()?))
        };
        TxnDescription {
            id: id.to_owned(),
            state: txn.state,
            producer: ProducerEpoch { producer_id: txn.producer_id, epoch: txn.epoch },
            timeout_ms: txn.timeout_ms,
            start_ms: txn.start_ms,
            parts: txn.parts.iter().filter_map(name).collect(),
            groups: txn.groups.clone(),
        }
    }

    /// The producers of a partition. Only on the leader.
    pub fn describe_producers(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
    ) -> Result<Vec<crate::ActiveProducer>, LogError> {
        let topic = self.resolve(topic)?;
        let (_, part, _) = self.led(&topic, partition)?;
        Ok(part.producers())
    }

    /// Ends whatever transaction a producer has open in a partition: an administrator's marker,
    /// for one that hangs. Only on the leader.
    pub async fn write_marker(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        producer: ProducerEpoch,
        outcome: Outcome,
        coordinator_epoch: i32,
    ) -> Result<(), LogError> {
        let topic = self.resolve(topic)?;
        let (group, part, _) = self.led(&topic, partition)?;
        let known = part.producers().into_iter().find(|p| p.producer_id == producer.producer_id);
        if let Some(known) = known {
            if producer.epoch < known.epoch {
                return Err(LogError::InvalidProducerEpoch);
            }
            if coordinator_epoch < known.coordinator_epoch {
                return Err(LogError::CoordinatorFenced);
            }
        }
        let ProducerEpoch { producer_id, epoch } = producer;
        let marker = Marker { producer_id, epoch, txn: None, outcome, coordinator_epoch };
        let command = TxnCommand::Mark { marker, parts: vec![part.key], groups: Vec::new() };
        match self.propose_txn(group, &command, true).await? {
            TxnReply::Marked { missing } if missing.is_empty() => Ok(()),
            TxnReply::Marked { .. } => Err(LogError::UnknownTopicOrPartition),
            other => Err(LogError::Internal(format!("the group answered {other:?}"))),
        }
    }
}

pub(super) fn check_id(id: &str) -> Result<(), LogError> {
    if id.is_empty() || id.len() > MAX_TXN_ID {
        return Err(LogError::InvalidRequest("the transactional id is not possible".to_owned()));
    }
    Ok(())
}
