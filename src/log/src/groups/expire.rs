//! Forgets committed offsets whose time is over, and groups that have nothing left.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::expiry::{ExpiredOffsets, expired};
use super::service::{GroupService, SaveFailed};

/// Deleted topics take their offsets with them after this time.
const DELETED_TOPICS: Duration = Duration::from_secs(5);

/// What becomes of groups that have neither members nor offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Groups {
    /// A topic was deleted. Whoever comes back to a group that is made anew begins at generation 1
    /// again, so that a group whose members are away for a moment had better stay.
    Stay,
    /// Kafka's regular check.
    GoWhenEmpty,
}

impl GroupService {
    pub(super) async fn expire_forever(&self) {
        let mut topics = self.store().watch_topics();
        let every = Duration::from_millis(self.config().offsets_check_ms.max(1));
        let mut check_at = Instant::now() + every;
        loop {
            match tokio::time::timeout_at(check_at, topics.changed()).await {
                // Several changes are one reason to look.
                Ok(Ok(())) => tokio::time::sleep(DELETED_TOPICS.min(every)).await,
                Ok(Err(_)) => return,
                Err(_) => {}
            }
            // Where topics change all the time, the wait never comes to its end.
            let groups = if Instant::now() < check_at {
                Groups::Stay
            } else {
                check_at = Instant::now() + every;
                Groups::GoWhenEmpty
            };
            for shard in self.led_shards() {
                if let Err(error) = self.expire_shard(shard, groups).await {
                    info!(shard, "offsets do not expire now: {error}");
                }
            }
        }
    }

    async fn expire_shard(&self, shard: usize, groups: Groups) -> Result<(), SaveFailed> {
        let stored = self.store().offsets(shard).await?;
        let now_ms = self.env().clock.unix_ms();
        let mut used: BTreeSet<&str> = BTreeSet::new();
        for offsets in &stored {
            let Some((term, retention)) = self.with_shard(shard, |c| c.retention(&offsets.group))
            else {
                return Ok(());
            };
            let retention_ms = self.config().offsets_retention_ms;
            let gone = expired(offsets, &retention, now_ms, retention_ms);
            let all = gone.as_ref().is_some_and(|e| e.offsets.len() == offsets.offsets.len());
            if !all {
                used.insert(&offsets.group);
            }
            if let Some(gone) = gone {
                let ExpiredOffsets { group, offsets, .. } = &gone;
                info!(%group, offsets = offsets.len(), "committed offsets expired");
                self.store().expire(shard, term, gone).await?;
            }
        }
        if groups == Groups::Stay {
            return Ok(());
        }
        // Kafka: an empty group without offsets is none.
        let Some((_, empty)) = self.with_shard(shard, |c| c.empty_groups()) else { return Ok(()) };
        for group in empty.iter().filter(|group| !used.contains(group.as_str())) {
            info!(%group, "an empty group without committed offsets goes");
            // It may have members again, and then it stays.
            self.delete(group).await.map(drop).unwrap_or_default();
        }
        Ok(())
    }
}
