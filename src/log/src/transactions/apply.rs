//! Transactions inside apply: rows, and the list of those that are under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::codec;
use consensus::{ApplyAt, Fatal, Rows};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::command::{IdCommand, ProducerEpoch, TxnCommand, TxnReply};
use super::decide::{Change, decide};
use super::marker::Marker;
use super::offsets;
use super::row::{self, Txn, TxnRow, TxnState};
use crate::shared::GroupView;
use crate::types::PartKey;

/// Transactions of one data group that are open or about to end, as this node has applied them.
#[derive(Debug)]
pub(crate) struct ActiveTxns {
    by_id: Mutex<BTreeMap<String, Arc<Txn>>>,
    /// Counts changes.
    pub(crate) changes: watch::Sender<u64>,
}

impl Default for ActiveTxns {
    fn default() -> Self {
        Self { by_id: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl ActiveTxns {
    /// The transaction of an id, when it is open or about to end.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Txn>> {
        self.by_id.lock().get(id).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<(String, Arc<Txn>)> {
        self.by_id.lock().iter().map(|(id, txn)| (id.clone(), txn.clone())).collect()
    }

    fn note(&self, id: &str, txn: Option<&Txn>) {
        let active = txn.filter(|t| t.state == TxnState::Ongoing || t.state.is_prepared());
        let mut by_id = self.by_id.lock();
        match active {
            Some(txn) => by_id.insert(id.to_owned(), Arc::new(txn.clone())),
            None => by_id.remove(id),
        };
        drop(by_id);
        self.changes.send_modify(|n| *n += 1);
    }
}

/// Applies a command.
pub(crate) fn apply(
    view: &GroupView,
    at: &ApplyAt,
    command: &TxnCommand,
    rows: &mut Rows<'_>,
) -> Result<TxnReply, Fatal> {
    match command {
        TxnCommand::Id { id, command } => apply_id(view, at, id, command, rows),
        TxnCommand::Mark { marker, parts, groups } => mark(view, at, marker, parts, groups, rows),
        TxnCommand::CommitOffsets { group, producer, number, offsets } => {
            let result = offsets::commit(at, group, *producer, *number, offsets, rows)?;
            let (producer, number) = (*producer, *number);
            Ok(match result {
                Ok(()) => TxnReply::Done { producer, number, epoch_since_ms: at.time_ms },
                Err(error) => TxnReply::Failed(error),
            })
        }
        TxnCommand::ExpireOffsets { before_ms } => {
            offsets::expire(*before_ms, rows)?;
            let producer = ProducerEpoch { producer_id: row::NONE, epoch: -1 };
            Ok(TxnReply::Done { producer, number: 0, epoch_since_ms: at.time_ms })
        }
    }
}

fn apply_id(
    view: &GroupView,
    at: &ApplyAt,
    id: &str,
    command: &IdCommand,
    rows: &mut Rows<'_>,
) -> Result<TxnReply, Fatal> {
    let key = row::key(id);
    let txn = rows.get(&key)?.map(|value| codec::decode::<TxnRow>(&value)).transpose()?;
    let txn = txn.map(|TxnRow::V1(txn)| txn);
    let decision = decide(txn.as_ref(), command, at.time_ms);
    match decision.change {
        Change::Keep => {}
        Change::Put(txn) => {
            view.txns.note(id, Some(&txn));
            rows.put(&key, codec::encode(&TxnRow::V1(txn)));
        }
        Change::Delete => {
            view.txns.note(id, None);
            rows.delete(&key);
        }
    }
    Ok(decision.reply)
}

fn mark(
    view: &GroupView,
    at: &ApplyAt,
    marker: &Marker,
    parts: &[PartKey],
    groups: &[String],
    rows: &mut Rows<'_>,
) -> Result<TxnReply, Fatal> {
    let mut missing = Vec::new();
    for key in parts {
        match view.get(key) {
            Some(part) => part.end_transaction(at, marker)?,
            None => missing.push(*key),
        }
    }
    for group in groups {
        offsets::end(at, group, marker, rows)?;
    }
    Ok(TxnReply::Marked { missing })
}

/// Reads which transactions are under way.
pub(crate) fn restore(view: &GroupView, rows: &Rows<'_>) -> Result<(), Fatal> {
    let old: Vec<_> = view.txns.all().into_iter().map(|(id, _)| id).collect();
    old.iter().for_each(|id| view.txns.note(id, None));
    for (key, value) in rows.scan(row::PREFIX)? {
        let id = key.get(row::PREFIX.len()..).unwrap_or_default();
        let TxnRow::V1(txn) = codec::decode(&value)?;
        view.txns.note(&String::from_utf8_lossy(id), Some(&txn));
    }
    Ok(())
}
