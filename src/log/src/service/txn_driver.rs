//! Acts on what was decided about transactions: writes the markers of those that are prepared,
//! ends those that take too long, forgets ids that nobody uses. Every step may be repeated, by
//! whoever coordinates next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use consensus::GroupRef;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tracing::{debug, info, warn};

use super::LogService;
use crate::error::LogError;
use crate::limits::{PRODUCER_EXPIRY_MS, TXN_ID_EXPIRY_MS, TXN_IDS_PER_PASS, TXNS_AT_ONCE};
use crate::partition::epoch_of;
use crate::transactions::{
    IdCommand, Marker, Outcome, Txn, TxnCommand, TxnReply, TxnState, offsets,
};
use crate::types::PartKey;

/// Time until a transaction whose markers could not be written is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Without anything to do a driver looks again after this time.
const IDLE: Duration = Duration::from_secs(30);

/// Partitions and consumer groups of a transaction in one data group.
type Share = (Vec<PartKey>, Vec<String>);

impl LogService {
    /// Drives the transactions whose ids a data group coordinates, while this node leads it.
    pub(super) async fn drive_transactions(&self, shard: usize) {
        let Some(home) = self.0.groups.data.get(shard) else { return };
        let view = self.view(home.id());
        let (mut changes, mut leadership) = (view.txns.changes.subscribe(), home.watch());
        let mut under_way = BTreeSet::new();
        let mut work = FuturesUnordered::new();
        let mut served = String::new();
        loop {
            changes.mark_unchanged();
            let mut wait = IDLE;
            if home.leadership().ready_here {
                let mut all = view.txns.all();
                // Those that wait for a group that is away do not keep out those behind them.
                let next = all.partition_point(|(id, _)| *id <= served);
                all.rotate_left(next);
                for (id, txn) in all {
                    let room = work.len() < TXNS_AT_ONCE;
                    match self.due_in(&txn) {
                        Some(Duration::ZERO) if room && under_way.insert(id.clone()) => {
                            served.clone_from(&id);
                            work.push(self.drive(home, id, txn));
                        }
                        Some(due) if !due.is_zero() => wait = wait.min(due),
                        _ => {}
                    }
                }
            }
            tokio::select! {
                Some(id) = work.next() => { under_way.remove(&id); }
                changed = changes.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// When there is something to do about a transaction; `None` when there is not.
    fn due_in(&self, txn: &Txn) -> Option<Duration> {
        if txn.state.is_prepared() {
            return Some(Duration::ZERO);
        }
        let end = txn.start_ms.saturating_add(i64::from(txn.timeout_ms));
        let left = u64::try_from(end.saturating_sub(self.now_ms())).unwrap_or(0);
        (txn.state == TxnState::Ongoing).then(|| Duration::from_millis(left))
    }

    /// Does what is due; returns the id.
    async fn drive(&self, home: &GroupRef, id: String, txn: Arc<Txn>) -> String {
        let done = if txn.state.is_prepared() {
            self.finish(home, &id, &txn).await
        } else {
            self.time_out(home, &id, &txn).await
        };
        if let Err(error) = done {
            debug!(%id, number = txn.number, "a transaction waits: {error}");
            tokio::time::sleep(RETRY).await;
        }
        id
    }

    /// Aborts a transaction that took too long.
    async fn time_out(&self, home: &GroupRef, id: &str, txn: &Txn) -> Result<(), LogError> {
        let command = |_| IdCommand::TimeOut { number: txn.number };
        self.decide(id, command, true).await?;
        // Apply judges by the time that the group has, which may be a little behind this node's.
        let now = self.view(home.id()).txns.get(id);
        if now.is_some_and(|now| now.number == txn.number && now.state == TxnState::Ongoing) {
            return Err(LogError::Timeout);
        }
        info!(%id, number = txn.number, "a transaction took too long and was aborted");
        Ok(())
    }

    /// Writes the markers of a transaction and completes it.
    async fn finish(&self, home: &GroupRef, id: &str, txn: &Txn) -> Result<(), LogError> {
        let commit = txn.state == TxnState::PrepareCommit;
        let marker = Marker {
            producer_id: txn.producer_id,
            epoch: txn.epoch,
            txn: Some(txn.number),
            outcome: Outcome::of(commit),
            coordinator_epoch: epoch_of(home.leadership().term),
        };
        let shares = self.shares(txn).await?;
        let sent = shares.into_iter().map(|(shard, share)| self.mark(shard, marker, share));
        for result in futures::future::join_all(sent).await {
            result?;
        }
        let command = |_| IdCommand::Complete { number: txn.number };
        self.decide(id, command, false).await.map(|_| ())
    }

    /// What each data group, by number, has of a transaction. Partitions of deleted topics are
    /// left out: nobody reads them any more.
    async fn shares(&self, txn: &Txn) -> Result<BTreeMap<usize, Share>, LogError> {
        if txn.parts.iter().any(|key| self.shard_of_part(key).is_none()) {
            // This node may not know the topic yet, or not that it has grown.
            self.0.groups.m0.read_barrier().await?;
        }
        let mut shares: BTreeMap<usize, Share> = BTreeMap::new();
        for key in &txn.parts {
            if let Some(shard) = self.shard_of_part(key) {
                shares.entry(shard).or_default().0.push(*key);
            }
        }
        for group in &txn.groups {
            let share = shares.entry(self.coordinator_shard(group)).or_default();
            share.1.push(group.clone());
        }
        Ok(shares)
    }

    fn shard_of_part(&self, key: &PartKey) -> Option<usize> {
        let topic = self.topic_by_id(key.topic)?;
        let group = topic.group_of(i32::try_from(key.partition).ok()?)?;
        group.data_number().map(usize::from)
    }

    /// Writes markers in one data group.
    async fn mark(&self, shard: usize, marker: Marker, share: Share) -> Result<(), LogError> {
        let group = self.0.groups.data.get(shard).ok_or(LogError::NotLeader { leader: None })?;
        let (parts, groups) = share;
        let command = TxnCommand::Mark { marker, parts, groups };
        let missing = match self.propose_txn(group, &command, false).await? {
            TxnReply::Marked { missing } => missing,
            other => return Err(LogError::Internal(format!("the group answered {other:?}"))),
        };
        if missing.is_empty() {
            return Ok(());
        }
        // A topic that is being deleted, or one whose replicas are not made yet.
        self.0.groups.m0.read_barrier().await?;
        match missing.iter().find(|key| self.shard_of_part(key).is_some()) {
            Some(_) => Err(LogError::UnknownTopicOrPartition),
            None => Ok(()),
        }
    }

    /// Forgets transactional ids, and what groups know of producers, that are long idle.
    pub(super) async fn expire_transactions(&self) {
        for (shard, home) in self.0.groups.data.iter().enumerate() {
            if home.leadership().ready_here
                && let Err(error) = self.expire_in(shard, home).await
            {
                warn!(group = %home.id(), "idle transactional ids stay: {error}");
            }
        }
    }

    async fn expire_in(&self, shard: usize, home: &GroupRef) -> Result<(), LogError> {
        let now_ms = self.now_ms();
        let before_ms = now_ms.saturating_sub(TXN_ID_EXPIRY_MS);
        let mut old = Vec::new();
        self.each_txn(shard, usize::MAX, |id, txn| {
            let rests = txn.state != TxnState::Ongoing && !txn.state.is_prepared();
            if rests && txn.update_ms < before_ms && old.len() < TXN_IDS_PER_PASS {
                old.push((id.to_owned(), txn.update_ms));
            }
        })?;
        for (id, update_ms) in old {
            self.decide(&id, |_| IdCommand::Expire { update_ms }, true).await?;
        }
        let before_ms = now_ms.saturating_sub(PRODUCER_EXPIRY_MS);
        let mut idle = false;
        self.scan_rows(shard, b"x", |_, value| {
            idle |= offsets::is_old(value, before_ms)?;
            Ok(())
        })?;
        if idle {
            self.propose_txn(home, &TxnCommand::ExpireOffsets { before_ms }, true).await?;
        }
        Ok(())
    }
}
