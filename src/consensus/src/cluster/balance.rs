//! Which node leads a group: leads are spread over the nodes, and handed back to whoever should
//! have them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::NodeId;
use tracing::debug;

use super::{Cluster, Running};
use crate::group::{Group as _, TransferError};

const BALANCE_EVERY: Duration = Duration::from_secs(2);
/// A node that starts looks this often whether every group has found its leader.
const FIRST_BALANCE_LOOK: Duration = Duration::from_millis(20);
/// A node that is not settled looks after so many of those for changes that were left half way.
const FIRST_BALANCE_LOOKS: u32 = 100;
/// Time for a handover that was begun.
const HANDOVER: Duration = Duration::from_millis(300);
/// A node that starts waits no longer for groups to have the leaders that they should have: one
/// may be dead, or far behind.
const FIRST_BALANCE: Duration = Duration::from_secs(2);
/// How long a node keeps the leads that it was told to take.
const KEEP_LEADS: Duration = Duration::from_secs(60);

/// Attempts to hand a group over to the node that should lead it. Each that fails costs the group
/// an election, so they become rare.
#[derive(Default)]
pub(super) struct Handovers {
    failed: u32,
    not_before: Option<tokio::time::Instant>,
}

impl Cluster {
    pub(super) async fn run_balance(self: Arc<Self>) {
        let mut looks = 0u32;
        while !self.birth.is_settled() {
            tokio::time::sleep(FIRST_BALANCE_LOOK).await;
            looks += 1;
            // It may lead one group for hours while it copies another.
            if looks.is_multiple_of(FIRST_BALANCE_LOOKS) {
                self.birth.finish_changes().await;
            }
        }
        let until = tokio::time::Instant::now() + FIRST_BALANCE;
        while !self.is_balanced() && tokio::time::Instant::now() < until {
            let pause = if self.balance().await { HANDOVER } else { FIRST_BALANCE_LOOK };
            tokio::time::sleep(pause).await;
        }
        self.balanced.store(true, Ordering::Relaxed);
        loop {
            tokio::time::sleep(BALANCE_EVERY).await;
            self.birth.finish_changes().await;
            self.balance().await;
        }
    }

    /// Every group, and the node that should lead it.
    fn preferences(&self) -> impl Iterator<Item = (&Running, NodeId)> {
        let nodes = self.peers.all().into_iter().cycle();
        self.groups.values().zip(nodes)
    }

    pub(crate) fn is_balanced(&self) -> bool {
        let leads =
            |(running, node): (&Running, NodeId)| running.group.leadership().leader == Some(node);
        self.preferences().all(leads)
    }

    /// Makes this node the leader of every group, and leaves it so for a minute: the other nodes
    /// can be restarted without an election, or all leads lost at once to see what happens.
    pub async fn lead_all(&self) -> Result<(), TransferError> {
        *self.keeps_leads.lock() = Some(tokio::time::Instant::now() + KEEP_LEADS);
        for running in self.groups.values() {
            running.group.transfer(self.peers.me()).await?;
        }
        Ok(())
    }

    /// Hands the groups that this node leads for another to that one; whether there was any.
    async fn balance(&self) -> bool {
        let mut any = false;
        if self.keeps_leads.lock().is_some_and(|until| tokio::time::Instant::now() < until) {
            return false;
        }
        for (running, preferred) in self.preferences() {
            let wanted = preferred != self.peers.me() && self.peers.is_alive(preferred);
            let leadership = running.group.leadership();
            if leadership.leader == Some(preferred) {
                *running.handovers.lock() = Handovers::default();
            }
            let now = tokio::time::Instant::now();
            let too_soon = running.handovers.lock().not_before.is_some_and(|then| now < then);
            if !wanted || !leadership.ready_here || too_soon {
                continue;
            }
            if let Some(target) = running.group.best_follower(|node| node == preferred) {
                debug!(group = %running.group.id(), to = %preferred, "moving leadership");
                any = true;
                {
                    let mut handovers = running.handovers.lock();
                    handovers.not_before = Some(now + HANDOVER * (1 << handovers.failed.min(8)));
                    handovers.failed += 1;
                }
                // Best effort; the next round tries again.
                drop(running.group.raft.trigger().transfer_leader(target).await);
            }
        }
        any
    }
}
