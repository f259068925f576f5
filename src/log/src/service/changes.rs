//! What makes a reader of many partitions look at all of them again: another leader, topics or
//! replicas that come or go.

use futures::FutureExt as _;
use futures::future::{BoxFuture, select_all};
use tokio::sync::watch;

use super::LogService;
use crate::types::TopicRef;
use crate::waiters::{Bell, Watch};

impl LogService {
    /// Counts changes of leaders, topics and this node's replicas. Follows them with a delay.
    pub fn watch_changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Rings `bell` in `slot` for what comes to this node's replica after the offset `seen`; at
    /// most `room` bytes of it count. `None` when there is no such replica.
    pub fn watch(
        &self,
        bell: &Bell,
        slot: u32,
        room: usize,
        (topic, partition): (TopicRef<'_>, i32),
        seen: i64,
    ) -> Option<Watch> {
        let topic = self.resolve(topic).ok()?;
        let part = self.local(&topic, partition).ok()?;
        Some(Watch::new(part, bell, slot, room, seen))
    }

    /// Counts until the node stops.
    pub(super) async fn count_changes(self) {
        let mut leaders: Vec<_> = self.0.groups.data.iter().map(|group| group.watch()).collect();
        let mut counts = vec![self.watch_topics()];
        counts.extend(self.0.groups.data.iter().map(|g| self.view(g.id()).changes.subscribe()));
        loop {
            let leaders = leaders.iter_mut().map(|leader| leader.changed().boxed());
            let counts = counts.iter_mut().map(|count| count.changed().boxed());
            let all: Vec<BoxFuture<'_, Result<(), _>>> = leaders.chain(counts).collect();
            if select_all(all).await.0.is_err() {
                // Its sender is gone: the node is stopping.
                return;
            }
            self.0.changes.send_modify(|n| *n += 1);
        }
    }
}
