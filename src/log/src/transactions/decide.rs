//! What becomes of a transactional id: pure, a row and a command in, a row and a reply out.
//!
//! Names and errors are those of Kafka's `TransactionCoordinator`. A state that Kafka passes
//! through between two of its records (`PrepareEpochFence`) is not needed here: fencing and
//! aborting are one step.

use super::command::{IdCommand, ProducerEpoch, TxnError, TxnReply, TxnVersion};
use super::row::{NONE, Txn, TxnState};
use crate::limits::{MAX_TXN_GROUPS, MAX_TXN_PARTITIONS};
use crate::types::PartKey;

/// Kafka keeps one epoch back, to be able to fence whoever has the last.
const LAST_EPOCH: i16 = i16::MAX - 1;

const NO_EPOCH: i16 = -1;

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) change: Change,
    pub(crate) reply: TxnReply,
}

/// What becomes of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Keep,
    Put(Txn),
    Delete,
}

fn refuse(error: TxnError) -> Decision {
    Decision { change: Change::Keep, reply: TxnReply::Failed(error) }
}

/// The row stays, and the reply tells of it.
fn answer(txn: &Txn) -> Decision {
    Decision { change: Change::Keep, reply: done(txn) }
}

fn put(txn: Txn) -> Decision {
    Decision { reply: done(&txn), change: Change::Put(txn) }
}

fn done(txn: &Txn) -> TxnReply {
    // While the last transaction of a producer id ends, its client goes on with the next one.
    let (producer_id, epoch) = match txn.next_id {
        NONE => (txn.producer_id, txn.epoch),
        next => (next, 0),
    };
    TxnReply::Done {
        producer: ProducerEpoch { producer_id, epoch },
        number: txn.number,
        epoch_since_ms: txn.epoch_since_ms,
    }
}

/// Decides one command about an id that has this row, or none.
pub(crate) fn decide(row: Option<&Txn>, command: &IdCommand, now_ms: i64) -> Decision {
    match (command, row) {
        (IdCommand::Init { timeout_ms, expected, fresh_id }, None) => {
            // An unknown producer that goes on after an error is as good as a new one.
            let _ = expected;
            match fresh_id {
                Some(id) => put(Txn::fresh(*id, *timeout_ms, now_ms)),
                None => needs_id(),
            }
        }
        (IdCommand::Init { timeout_ms, expected, fresh_id }, Some(txn)) => {
            init(txn, *timeout_ms, *expected, *fresh_id, now_ms)
        }
        (IdCommand::Add { .. } | IdCommand::End { .. }, None) => {
            refuse(TxnError::InvalidProducerIdMapping)
        }
        (IdCommand::Add { producer, parts, groups, number }, Some(txn)) => {
            let next = txn.number + u64::from(txn.state != TxnState::Ongoing);
            match number {
                Some(number) if *number != next => refuse(TxnError::ConcurrentTransactions),
                _ => add(txn, *producer, parts, groups, now_ms),
            }
        }
        (IdCommand::End { number: Some(number), .. }, Some(txn)) if *number != txn.number => {
            refuse(TxnError::ConcurrentTransactions)
        }
        (IdCommand::End { producer, commit, version, fresh_id, .. }, Some(txn)) => match version {
            TxnVersion::V1 => end_v1(txn, *producer, *commit, now_ms),
            TxnVersion::V2 => end_v2(txn, *producer, *commit, *fresh_id, now_ms),
        },
        (IdCommand::TimeOut { number }, Some(txn))
            if txn.state == TxnState::Ongoing && txn.number == *number =>
        {
            let late = txn.start_ms.saturating_add(i64::from(txn.timeout_ms)) <= now_ms;
            if late { put(txn.fenced(now_ms)) } else { answer(txn) }
        }
        (IdCommand::Complete { number }, Some(txn))
            if txn.state.is_prepared() && txn.number == *number =>
        {
            put(txn.completed(now_ms))
        }
        (IdCommand::Expire { update_ms }, Some(txn)) => {
            let rests = txn.state != TxnState::Ongoing && !txn.state.is_prepared();
            let change =
                if rests && txn.update_ms == *update_ms { Change::Delete } else { Change::Keep };
            Decision { change, reply: done(txn) }
        }
        // Repeated, or late: it was done before.
        (_, Some(txn)) => answer(txn),
        (_, None) => refuse(TxnError::InvalidProducerIdMapping),
    }
}

fn needs_id() -> Decision {
    Decision { change: Change::Keep, reply: TxnReply::NeedsProducerId }
}

fn init(
    txn: &Txn,
    timeout_ms: i32,
    expected: Option<ProducerEpoch>,
    fresh_id: Option<i64>,
    now_ms: i64,
) -> Decision {
    if expected.is_some_and(|producer| txn.is_next(producer)) {
        return refuse(TxnError::ConcurrentTransactions);
    }
    if expected.is_some_and(|producer| !txn.may_go_on(producer)) {
        return refuse(TxnError::ProducerFenced);
    }
    match txn.state {
        TxnState::PrepareCommit | TxnState::PrepareAbort => {
            refuse(TxnError::ConcurrentTransactions)
        }
        // The client asks again, and gets the epoch after the one that nobody has.
        TxnState::Ongoing => Decision {
            change: Change::Put(txn.fenced(now_ms)),
            reply: TxnReply::Failed(TxnError::ConcurrentTransactions),
        },
        TxnState::Empty | TxnState::CompleteCommit | TxnState::CompleteAbort => {
            let mut next = Txn {
                timeout_ms,
                state: TxnState::Empty,
                start_ms: NONE,
                update_ms: now_ms,
                bumps: false,
                ..txn.clone()
            };
            match expected.map(|producer| producer.epoch) {
                // KIP-360: the reply to a bump before was lost.
                Some(epoch) if epoch != txn.epoch && epoch == txn.last_epoch => return put(next),
                Some(epoch) if epoch != txn.epoch => return refuse(TxnError::ProducerFenced),
                Some(epoch) => next.last_epoch = epoch,
                None => next.last_epoch = NO_EPOCH,
            }
            next.epoch_since_ms = now_ms;
            if txn.is_exhausted() {
                let Some(id) = fresh_id else { return needs_id() };
                (next.previous_id, next.producer_id, next.epoch) = (txn.producer_id, id, 0);
            } else {
                next.epoch = txn.epoch.saturating_add(1);
            }
            put(next)
        }
    }
}

fn add(
    txn: &Txn,
    producer: ProducerEpoch,
    parts: &[PartKey],
    groups: &[String],
    now_ms: i64,
) -> Decision {
    // Who was given the next producer id has it once the last transaction of this one is over.
    if txn.is_next(producer) {
        return refuse(TxnError::ConcurrentTransactions);
    }
    if let Err(error) = txn.check(producer) {
        return refuse(error);
    }
    if txn.state.is_prepared() {
        return refuse(TxnError::ConcurrentTransactions);
    }
    let mut next = if txn.state == TxnState::Ongoing {
        if txn.has_all(parts, groups) {
            return answer(txn);
        }
        txn.clone()
    } else {
        Txn {
            state: TxnState::Ongoing,
            number: txn.number + 1,
            start_ms: now_ms,
            parts: Vec::new(),
            groups: Vec::new(),
            ..txn.clone()
        }
    };
    next.update_ms = now_ms;
    next.parts.extend_from_slice(parts);
    next.parts.sort_unstable();
    next.parts.dedup();
    next.groups.extend_from_slice(groups);
    next.groups.sort_unstable();
    next.groups.dedup();
    if next.parts.len() > MAX_TXN_PARTITIONS || next.groups.len() > MAX_TXN_GROUPS {
        return refuse(TxnError::TooMany);
    }
    put(next)
}

fn end_v1(txn: &Txn, producer: ProducerEpoch, commit: bool, now_ms: i64) -> Decision {
    if let Err(error) = txn.check(producer) {
        return refuse(error);
    }
    match txn.state {
        TxnState::Ongoing => put(Txn { bumps: false, ..txn.prepared(commit, now_ms) }),
        state => ended_before(txn, state, commit),
    }
}

/// A second EndTxn: fine when it asks for what happened.
fn ended_before(txn: &Txn, state: TxnState, commit: bool) -> Decision {
    match (state, commit) {
        (TxnState::CompleteCommit, true) | (TxnState::CompleteAbort, false) => answer(txn),
        (TxnState::PrepareCommit, true) | (TxnState::PrepareAbort, false) => {
            refuse(TxnError::ConcurrentTransactions)
        }
        _ => refuse(TxnError::InvalidTxnState),
    }
}

fn end_v2(
    txn: &Txn,
    producer: ProducerEpoch,
    commit: bool,
    fresh_id: Option<i64>,
    now_ms: i64,
) -> Decision {
    if txn.is_next(producer) {
        // The end of the transaction before is not complete; what this one wrote was refused.
        return refuse(TxnError::ConcurrentTransactions);
    }
    let repeats = txn.is_repeated_end(producer);
    if txn.producer_id != producer.producer_id && !repeats {
        return refuse(TxnError::InvalidProducerIdMapping);
    }
    let is_current = txn.producer_id == producer.producer_id && txn.epoch == producer.epoch;
    match txn.state {
        // The epoch alone tells a repetition from the end of the next transaction.
        TxnState::PrepareCommit | TxnState::PrepareAbort if repeats => {
            ended_before(txn, txn.state, commit)
        }
        TxnState::CompleteCommit | TxnState::CompleteAbort if repeats => {
            ended_before(txn, txn.state, commit)
        }
        TxnState::PrepareCommit | TxnState::PrepareAbort => refuse(TxnError::ProducerFenced),
        _ if !is_current => refuse(TxnError::ProducerFenced),
        TxnState::Ongoing => bump(txn, commit, fresh_id, now_ms),
        // A client that does not know whether a partition was added aborts to be sure.
        TxnState::Empty | TxnState::CompleteCommit | TxnState::CompleteAbort if !commit => {
            let none = Txn { parts: Vec::new(), groups: Vec::new(), ..txn.clone() };
            bump(&none, false, fresh_id, now_ms)
        }
        _ => refuse(TxnError::InvalidTxnState),
    }
}

/// Prepares the end and gives the producer its next epoch.
fn bump(txn: &Txn, commit: bool, fresh_id: Option<i64>, now_ms: i64) -> Decision {
    let mut next = txn.prepared(commit, now_ms);
    if txn.is_exhausted() {
        let Some(id) = fresh_id else { return needs_id() };
        next.next_id = id;
    }
    (next.last_epoch, next.epoch) = (txn.epoch, txn.epoch.saturating_add(1));
    (next.bumps, next.epoch_since_ms) = (true, now_ms);
    if next.parts.is_empty() && next.groups.is_empty() {
        return put(next.completed(now_ms));
    }
    put(next)
}

impl Txn {
    fn fresh(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer_id,
            previous_id: NONE,
            next_id: NONE,
            epoch: 0,
            last_epoch: NO_EPOCH,
            timeout_ms,
            state: TxnState::Empty,
            number: 0,
            parts: Vec::new(),
            groups: Vec::new(),
            start_ms: NONE,
            update_ms: now_ms,
            epoch_since_ms: now_ms,
            bumps: false,
        }
    }

    fn is_exhausted(&self) -> bool {
        self.epoch >= LAST_EPOCH
    }

    /// Whether a producer has the id that follows this one's, while the last transaction ends.
    fn is_next(&self, producer: ProducerEpoch) -> bool {
        self.next_id != NONE && (producer.producer_id, producer.epoch) == (self.next_id, 0)
    }

    /// Whether a producer that says who it is may go on under this id; its epoch is looked at
    /// later.
    fn may_go_on(&self, producer: ProducerEpoch) -> bool {
        producer.producer_id == self.producer_id
            || producer.producer_id == self.previous_id && producer.epoch >= LAST_EPOCH
    }

    fn check(&self, producer: ProducerEpoch) -> Result<(), TxnError> {
        if self.producer_id != producer.producer_id {
            return Err(TxnError::InvalidProducerIdMapping);
        }
        if self.epoch == producer.epoch { Ok(()) } else { Err(TxnError::ProducerFenced) }
    }

    /// Whether an EndTxn of KIP-890 is the one that led to the present state.
    fn is_repeated_end(&self, producer: ProducerEpoch) -> bool {
        let same = self.bumps && self.last_epoch == producer.epoch;
        let bumped = self.producer_id == producer.producer_id
            && producer.epoch.checked_add(1) == Some(self.epoch);
        let rotated = self.previous_id == producer.producer_id && self.epoch == 0;
        same && (bumped || rotated)
    }

    fn has_all(&self, parts: &[PartKey], groups: &[String]) -> bool {
        parts.iter().all(|part| self.parts.binary_search(part).is_ok())
            && groups.iter().all(|group| self.groups.binary_search(group).is_ok())
    }

    /// Whether a batch of the producer for a partition belongs to the open transaction.
    pub(crate) fn verify(&self, producer: ProducerEpoch, part: &PartKey) -> Result<u64, TxnError> {
        self.check(producer)?;
        if self.state.is_prepared() {
            return Err(TxnError::ConcurrentTransactions);
        }
        let open = self.state == TxnState::Ongoing && self.parts.binary_search(part).is_ok();
        if open { Ok(self.number) } else { Err(TxnError::InvalidTxnState) }
    }

    /// As [`Self::verify`], for offsets of a group.
    pub(crate) fn verify_group(
        &self,
        producer: ProducerEpoch,
        group: &str,
    ) -> Result<u64, TxnError> {
        self.check(producer)?;
        if self.state.is_prepared() {
            return Err(TxnError::ConcurrentTransactions);
        }
        let found = self.groups.binary_search_by(|g| g.as_str().cmp(group)).is_ok();
        let open = self.state == TxnState::Ongoing && found;
        if open { Ok(self.number) } else { Err(TxnError::InvalidTxnState) }
    }

    fn prepared(&self, commit: bool, now_ms: i64) -> Self {
        let state = if commit { TxnState::PrepareCommit } else { TxnState::PrepareAbort };
        Self { state, update_ms: now_ms, ..self.clone() }
    }

    /// Aborts with an epoch that no client has, so that the producer is out.
    fn fenced(&self, now_ms: i64) -> Self {
        Self {
            epoch: self.epoch.saturating_add(1),
            last_epoch: NO_EPOCH,
            bumps: false,
            epoch_since_ms: now_ms,
            ..self.prepared(false, now_ms)
        }
    }

    fn completed(&self, now_ms: i64) -> Self {
        let state = match self.state {
            TxnState::PrepareCommit => TxnState::CompleteCommit,
            _ => TxnState::CompleteAbort,
        };
        let (parts, groups) = (Vec::new(), Vec::new());
        let mut next = Self { state, parts, groups, update_ms: now_ms, ..self.clone() };
        if self.next_id != NONE {
            next.previous_id = self.producer_id;
            (next.producer_id, next.epoch, next.next_id) = (self.next_id, 0, NONE);
        }
        next
    }
}
