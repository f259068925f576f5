//! What the coordinator decides, step by step.

use super::command::{IdCommand, ProducerEpoch, TxnError, TxnReply, TxnVersion};
use super::decide::{Change, decide};
use super::row::{Txn, TxnState};
use crate::types::PartKey;

const NOW: i64 = 1_000_000;
const TIMEOUT: i32 = 60_000;

fn part(partition: u32) -> PartKey {
    PartKey { topic: uuid::Uuid::from_u128(1), partition }
}

fn of(producer_id: i64, epoch: i16) -> ProducerEpoch {
    ProducerEpoch { producer_id, epoch }
}

/// One transactional id and the time; producer ids are handed out from 100.
struct Id {
    row: Option<Txn>,
    now_ms: i64,
    next_id: i64,
}

impl Id {
    fn new() -> Self {
        Self { row: None, now_ms: NOW, next_id: 100 }
    }

    fn ask(
        &mut self,
        command: impl Fn(Option<i64>) -> IdCommand,
    ) -> Result<ProducerEpoch, TxnError> {
        let mut fresh = None;
        loop {
            let decision = decide(self.row.as_ref(), &command(fresh), self.now_ms);
            match decision.change {
                Change::Keep => {}
                Change::Put(txn) => self.row = Some(txn),
                Change::Delete => self.row = None,
            }
            match decision.reply {
                TxnReply::Done { producer, .. } => return Ok(producer),
                TxnReply::Failed(error) => return Err(error),
                TxnReply::NeedsProducerId => {
                    assert_eq!(fresh, None, "asked once");
                    fresh = Some(self.next_id);
                    self.next_id += 1;
                }
                TxnReply::Marked { .. } => panic!("no markers here"),
            }
        }
    }

    fn init(&mut self, expected: Option<ProducerEpoch>) -> Result<ProducerEpoch, TxnError> {
        self.ask(|fresh_id| IdCommand::Init { timeout_ms: TIMEOUT, expected, fresh_id })
    }

    fn add(&mut self, producer: ProducerEpoch, partition: u32) -> Result<ProducerEpoch, TxnError> {
        let parts = vec![part(partition)];
        self.ask(|_| IdCommand::Add {
            producer,
            parts: parts.clone(),
            groups: vec![],
            number: None,
        })
    }

    fn end(
        &mut self,
        producer: ProducerEpoch,
        commit: bool,
        version: TxnVersion,
    ) -> Result<ProducerEpoch, TxnError> {
        self.ask(|fresh_id| IdCommand::End { producer, commit, version, fresh_id, number: None })
    }

    fn txn(&self) -> &Txn {
        self.row.as_ref().unwrap()
    }

    fn complete(&mut self) {
        let number = self.txn().number;
        self.ask(|_| IdCommand::Complete { number }).unwrap();
    }
}

use TxnVersion::{V1, V2};

#[test]
fn a_client_of_old_keeps_its_epoch() {
    let mut id = Id::new();
    let p = id.init(None).unwrap();
    assert_eq!(p, of(100, 0));
    assert_eq!(id.end(p, true, V1), Err(TxnError::InvalidTxnState));
    id.add(p, 1).unwrap();
    id.add(p, 0).unwrap();
    assert_eq!(id.txn().parts, [part(0), part(1)]);
    assert_eq!(id.end(p, true, V1), Ok(p));
    assert_eq!(id.txn().state, TxnState::PrepareCommit);
    assert_eq!(id.add(p, 2), Err(TxnError::ConcurrentTransactions));
    assert_eq!(id.end(p, true, V1), Err(TxnError::ConcurrentTransactions));
    assert_eq!(id.end(p, false, V1), Err(TxnError::InvalidTxnState));
    id.complete();
    assert_eq!((id.txn().state, id.txn().parts.len()), (TxnState::CompleteCommit, 0));
    assert_eq!(id.end(p, true, V1), Ok(p), "asked again");
    assert_eq!(id.end(p, false, V1), Err(TxnError::InvalidTxnState));
    id.add(p, 3).unwrap();
    assert_eq!((id.txn().number, id.txn().state), (2, TxnState::Ongoing));
}

#[test]
fn every_end_of_a_new_client_gives_an_epoch() {
    let mut id = Id::new();
    let p0 = id.init(None).unwrap();
    id.add(p0, 0).unwrap();
    let p1 = id.end(p0, true, V2).unwrap();
    assert_eq!(p1, of(100, 1));
    assert_eq!(id.txn().epoch, 1, "markers carry the new epoch");
    assert_eq!(id.end(p0, true, V2), Err(TxnError::ConcurrentTransactions));
    assert_eq!(id.add(p0, 0), Err(TxnError::ProducerFenced));
    assert_eq!(id.add(p1, 0), Err(TxnError::ConcurrentTransactions));
    id.complete();
    assert_eq!(id.end(p0, true, V2), Ok(p1), "a repeated end gets the same answer");
    assert_eq!(id.end(p0, false, V2), Err(TxnError::InvalidTxnState));
    id.add(p1, 0).unwrap();
    // The delayed end of the transaction before must not touch this one.
    assert_eq!(id.end(p0, true, V2), Err(TxnError::ProducerFenced));
    assert_eq!(id.txn().state, TxnState::Ongoing);
    let p2 = id.end(p1, false, V2).unwrap();
    assert_eq!((p2, id.txn().state), (of(100, 2), TxnState::PrepareAbort));
}

#[test]
fn an_abort_of_nothing_gives_an_epoch_too() {
    let mut id = Id::new();
    let p0 = id.init(None).unwrap();
    assert_eq!(id.end(p0, true, V2), Err(TxnError::InvalidTxnState));
    let p1 = id.end(p0, false, V2).unwrap();
    assert_eq!((p1.epoch, id.txn().state), (1, TxnState::CompleteAbort));
    assert_eq!(id.end(p0, false, V2), Ok(p1));
    let p2 = id.end(p1, false, V2).unwrap();
    assert_eq!(p2.epoch, 2);
}

#[test]
fn a_new_instance_fences_the_old_one_and_aborts() {
    let mut id = Id::new();
    let p0 = id.init(None).unwrap();
    id.add(p0, 0).unwrap();
    assert_eq!(id.init(None), Err(TxnError::ConcurrentTransactions));
    assert_eq!((id.txn().state, id.txn().epoch), (TxnState::PrepareAbort, 1));
    for version in [V1, V2] {
        for commit in [true, false] {
            assert_eq!(id.end(p0, commit, version), Err(TxnError::ProducerFenced));
        }
    }
    id.complete();
    assert_eq!(id.init(None), Ok(of(100, 2)));
    assert_eq!(id.add(p0, 0), Err(TxnError::ProducerFenced));
    assert_eq!(id.init(Some(p0)), Err(TxnError::ProducerFenced));
}

#[test]
fn a_producer_goes_on_after_an_error() {
    let mut id = Id::new();
    let p0 = id.init(None).unwrap();
    let p1 = id.init(Some(p0)).unwrap();
    assert_eq!(p1, of(100, 1));
    assert_eq!(id.init(Some(p0)), Ok(p1), "the reply was lost");
    id.init(None).unwrap();
    assert_eq!(id.init(Some(p1)), Err(TxnError::ProducerFenced), "another instance came");
    assert_eq!(id.init(Some(of(7, 0))), Err(TxnError::ProducerFenced));
}

#[test]
fn epochs_are_used_up_and_a_new_producer_id_follows() {
    let mut id = Id::new();
    let mut p = id.init(None).unwrap();
    id.row.as_mut().unwrap().epoch = i16::MAX - 1;
    p.epoch = i16::MAX - 1;
    id.add(p, 0).unwrap();
    let next = id.end(p, true, V2).unwrap();
    assert_eq!(next, of(101, 0));
    assert_eq!((id.txn().producer_id, id.txn().epoch), (100, i16::MAX), "for the markers");
    assert_eq!(id.end(p, true, V2), Err(TxnError::ConcurrentTransactions));
    assert_eq!(id.add(next, 0), Err(TxnError::ConcurrentTransactions), "it is told of already");
    assert_eq!(id.init(Some(next)), Err(TxnError::ConcurrentTransactions));
    id.complete();
    assert_eq!(id.end(p, true, V2), Ok(next));
    id.add(next, 0).unwrap();
    assert_eq!(id.end(p, true, V2), Err(TxnError::ProducerFenced));
    // Old clients rotate when they begin anew.
    let mut id = Id::new();
    id.init(None).unwrap();
    id.row.as_mut().unwrap().epoch = i16::MAX - 1;
    let last = of(100, i16::MAX - 1);
    assert_eq!(id.init(Some(last)), Ok(of(101, 0)));
    assert_eq!(id.init(Some(last)), Ok(of(101, 0)), "the reply was lost");
    id.row.as_mut().unwrap().epoch = i16::MAX - 1;
    id.add(of(101, i16::MAX - 1), 0).unwrap();
    assert_eq!(id.init(None), Err(TxnError::ConcurrentTransactions));
    id.complete();
    assert_eq!(id.init(None), Ok(of(102, 0)));
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_once() {
    let mut id = Id::new();
    let p = id.init(None).unwrap();
    id.add(p, 0).unwrap();
    let number = id.txn().number;
    id.now_ms += i64::from(TIMEOUT) - 1;
    id.ask(|_| IdCommand::TimeOut { number }).unwrap();
    assert_eq!(id.txn().state, TxnState::Ongoing, "not yet");
    id.now_ms += 1;
    id.ask(|_| IdCommand::TimeOut { number }).unwrap();
    assert_eq!((id.txn().state, id.txn().epoch), (TxnState::PrepareAbort, 1));
    assert_eq!(id.end(p, true, V2), Err(TxnError::ProducerFenced));
    id.ask(|_| IdCommand::TimeOut { number }).unwrap();
    assert_eq!(id.txn().epoch, 1);
    id.complete();
    // Late steps of a transaction before change nothing.
    let p = id.init(None).unwrap();
    id.add(p, 0).unwrap();
    id.now_ms += i64::from(TIMEOUT);
    id.ask(|_| IdCommand::TimeOut { number }).unwrap();
    id.ask(|_| IdCommand::Complete { number }).unwrap();
    assert_eq!(id.txn().state, TxnState::Ongoing);
}

#[test]
fn only_an_id_at_rest_is_forgotten() {
    let mut id = Id::new();
    let p = id.init(None).unwrap();
    let update_ms = id.txn().update_ms;
    id.now_ms += 10;
    id.add(p, 0).unwrap();
    for update_ms in [update_ms, id.txn().update_ms] {
        id.ask(|_| IdCommand::Expire { update_ms }).unwrap();
        assert!(id.row.is_some());
    }
    id.end(p, false, V1).unwrap();
    id.complete();
    let update_ms = id.txn().update_ms;
    id.ask(|_| IdCommand::Expire { update_ms: update_ms - 1 }).unwrap();
    assert!(id.row.is_some());
    id.ask(|_| IdCommand::Expire { update_ms }).unwrap();
    assert_eq!(id.row, None);
    assert_eq!(id.add(p, 0), Err(TxnError::InvalidProducerIdMapping));
    assert_eq!(id.end(p, true, V2), Err(TxnError::InvalidProducerIdMapping));
}

#[test]
fn a_partition_is_confirmed_only_while_it_belongs_to_the_open_transaction() {
    let mut id = Id::new();
    let p = id.init(None).unwrap();
    assert_eq!(id.txn().verify(p, &part(0)), Err(TxnError::InvalidTxnState));
    id.add(p, 0).unwrap();
    assert_eq!(id.txn().verify(p, &part(0)), Ok(1));
    assert_eq!(id.txn().verify(p, &part(1)), Err(TxnError::InvalidTxnState));
    assert_eq!(id.txn().verify(of(100, 9), &part(0)), Err(TxnError::ProducerFenced));
    assert_eq!(id.txn().verify(of(9, 0), &part(0)), Err(TxnError::InvalidProducerIdMapping));
    id.end(p, true, V1).unwrap();
    assert_eq!(id.txn().verify(p, &part(0)), Err(TxnError::ConcurrentTransactions));
}

#[test]
fn a_command_that_is_applied_late_touches_no_later_transaction() {
    let mut id = Id::new();
    let p = id.init(None).unwrap();
    let (commit, version, fresh_id) = (true, V1, None);
    let end = |number| IdCommand::End { producer: p, commit, version, fresh_id, number };
    let add = |number| IdCommand::Add { producer: p, parts: vec![part(0)], groups: vec![], number };
    let late = Err(TxnError::ConcurrentTransactions);
    id.ask(|_| add(Some(1))).unwrap();
    id.ask(|_| add(Some(1))).unwrap();
    id.ask(|_| end(Some(1))).unwrap();
    id.complete();
    assert_eq!(id.ask(|_| add(Some(1))), late);
    assert_eq!(id.txn().state, TxnState::CompleteCommit);
    id.ask(|_| add(Some(2))).unwrap();
    assert_eq!(id.ask(|_| end(Some(1))), late);
    assert_eq!(id.txn().state, TxnState::Ongoing);
}
