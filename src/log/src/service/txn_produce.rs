//! Writing inside a transaction: before a transactional batch is appended, the partition's leader
//! makes sure that the partition belongs to an open transaction of that producer (KIP-890).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::produce::Where;
use super::transactions::{Confirmed, check_id};
use super::{Acks, LogService, key_of};
use crate::batch::BatchHeader;
use crate::error::LogError;
use crate::limits::PRODUCER_EXPIRY_MS;
use crate::partition::Partition;
use crate::transactions::{Claim, IdCommand, ProducerEpoch, TxnVersion};
use crate::types::{PartKey, Produced, Topic, TopicRef};

/// Kafka's `add.partitions.to.txn.retry.backoff.ms` and `….backoff.max.ms`: how long a write
/// waits for the transaction before to complete.
const ADD_BACKOFF: Duration = Duration::from_millis(20);
const ADD_PATIENCE: Duration = Duration::from_millis(100);

type Gate = Arc<tokio::sync::Mutex<()>>;

/// Keeps batches of a producer in order while its transaction begins in a partition.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<i64, Gate>>);

/// A place at a producer's gate; the last one who leaves takes the gate away.
struct Place<'a> {
    gates: &'a Gates,
    producer_id: i64,
    gate: Gate,
}

impl Gates {
    /// A place at the gate of a producer, if others are there already or `make` says to make one.
    fn enter(&self, producer_id: i64, make: bool) -> Option<Place<'_>> {
        let mut gates = self.0.lock();
        let gate = match gates.get(&producer_id) {
            Some(gate) => gate.clone(),
            None if make => gates.entry(producer_id).or_default().clone(),
            None => return None,
        };
        Some(Place { gates: self, producer_id, gate })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut gates = self.gates.0.lock();
        // Held by the map and here.
        if Arc::strong_count(&self.gate) == 2 {
            gates.remove(&self.producer_id);
        }
    }
}

impl LogService {
    /// Appends one batch of a producer with a transactional id. As [`Self::produce`] when the
    /// batch is not part of a transaction.
    pub async fn produce_in_transaction(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        batch: Bytes,
        acks: Acks,
        id: &str,
        version: TxnVersion,
    ) -> Result<Produced, LogError> {
        check_id(id)?;
        let topic = self.resolve(topic)?;
        let (_, part, leadership) = self.led(&topic, partition)?;
        let sent = self.produce_claimed(&topic, partition, &part, batch, acks, (id, version));
        let produced = sent.await;
        self.settled(&part, leadership.term, produced)
    }

    async fn produce_claimed(
        &self,
        topic: &Topic,
        partition: i32,
        part: &Partition,
        batch: Bytes,
        acks: Acks,
        (id, version): (&str, TxnVersion),
    ) -> Result<Produced, LogError> {
        let order = part.order.lock().await;
        let checked = self.check(topic, partition, batch).await?;
        // As in `produce`: the next one comes to the gate after this one.
        drop(order);
        let header = BatchHeader::parse(&checked.batch)?;
        let append = |claim| self.append(topic, partition, checked, acks, Where::Here, claim);
        if !header.is_transactional() {
            return append(Claim::Plain).await;
        }
        let open = part.open_for(&header);
        // Those who wait go first, even when the transaction is open by now.
        let place = part.gates.enter(header.producer_id, open.is_none());
        let place = match (place, open) {
            (Some(place), _) => place,
            (None, Some(claim)) => return append(claim).await,
            (None, None) => return Err(LogError::Internal("no gate".to_owned())),
        };
        let turn = place.gate.lock().await;
        if let Some(claim) = part.open_for(&header) {
            // The next one gets through once this one is proposed: both are polled by the task
            // of their connection, in order.
            drop(turn);
            drop(place);
            return append(claim).await;
        }
        let claim = self.claim(topic, partition, part, &header, id, version).await?;
        append(claim).await
    }

    /// Asks the coordinator for the transaction of a batch.
    async fn claim(
        &self,
        topic: &Topic,
        partition: i32,
        part: &Partition,
        header: &BatchHeader,
        id: &str,
        version: TxnVersion,
    ) -> Result<Claim, LogError> {
        let producer =
            ProducerEpoch { producer_id: header.producer_id, epoch: header.producer_epoch };
        let key = key_of(topic, partition)?;
        let confirmed = match version {
            TxnVersion::V1 => {
                let ended = part.state.lock().txns.ended(producer.producer_id);
                self.verify(id, producer, &key, ended).await
            }
            TxnVersion::V2 => self.join(id, || (vec![key], Vec::new()), producer).await,
        };
        let confirmed = confirmed.map_err(|error| match error {
            // About the coordinator, not this partition: what every producer just repeats.
            LogError::NotLeader { .. } | LogError::Timeout => LogError::NotEnoughReplicas,
            other => other,
        })?;
        if self.has_gap(part, header, &confirmed) {
            return Err(LogError::OutOfOrderSequence);
        }
        Ok(Claim::Number(confirmed.number))
    }

    /// Adds partitions and groups to a transaction from any node; waits a moment for the one
    /// before to complete.
    pub(super) async fn join(
        &self,
        id: &str,
        what: impl Fn() -> (Vec<PartKey>, Vec<String>),
        producer: ProducerEpoch,
    ) -> Result<Confirmed, LogError> {
        let command = |_| {
            let (parts, groups) = what();
            IdCommand::Add { producer, parts, groups, number: None }
        };
        let mut left = ADD_PATIENCE;
        loop {
            let joined = self.decide(id, command, false).await;
            if joined != Err(LogError::ConcurrentTransactions) || left.is_zero() {
                return joined;
            }
            tokio::time::sleep(ADD_BACKOFF).await;
            left = left.saturating_sub(ADD_BACKOFF);
        }
    }

    /// Whether a batch before this one is missing. A producer that the partition does not know
    /// may begin anywhere, as its state may have expired, or gone with a topic of that name that
    /// its epoch is older than; else an earlier batch was refused and comes again.
    fn has_gap(&self, part: &Partition, header: &BatchHeader, confirmed: &Confirmed) -> bool {
        let age_ms = self.now_ms().saturating_sub(confirmed.epoch_since_ms);
        let state = part.state.lock();
        let known = state.producers.epoch_of(header.producer_id).is_some();
        // That it may have been forgotten is not enough: nearly everybody's id is below the highest
        // of those that were, once that is.
        let forgotten = Some(header.producer_id) <= state.producers.forgotten();
        let made_anew = forgotten && confirmed.epoch_since_ms < state.created_ms;
        header.base_sequence != 0 && !known && !made_anew && age_ms < PRODUCER_EXPIRY_MS
    }
}
