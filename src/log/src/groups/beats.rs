//! Heartbeats of the consumer protocol, around the pure coordinator: what topics there are, what
//! is set for the group.

use tokio::sync::oneshot;

use super::consumer::{Beat, BeatReply, BeatSettings, Refusal, TopicShape, TopicView};
use super::service::{GroupService, GroupStore, Waiter};
use super::types::GroupError;
use crate::configs::{CONSUMER_INTERVAL_MS, CONSUMER_SESSION_MS};

/// Whether whoever asks may describe a topic.
pub type MaySee<'a> = &'a (dyn Fn(&str) -> bool + Send + Sync);

struct View<'a> {
    store: &'a dyn GroupStore,
    version: u64,
    may_see: MaySee<'a>,
}

impl TopicView for View<'_> {
    fn version(&self) -> u64 {
        self.version
    }

    fn shape(&self, topic: &str) -> Option<TopicShape> {
        self.store.topic_shape(topic)
    }

    fn visible(&self) -> Vec<String> {
        let mut names = self.store.topic_names();
        names.retain(|name| (self.may_see)(name));
        names
    }
}

impl GroupService {
    /// A heartbeat of the consumer protocol (KIP-848). `may_see`: which topics a regular
    /// expression may find. Answered once what the answer rests on is replicated.
    pub async fn beat(&self, beat: Beat, may_see: MaySee<'_>) -> Result<BeatReply, Refusal> {
        if beat.group.is_empty() {
            return Err(Refusal::new(GroupError::InvalidRequest, "GroupId can't be empty."));
        }
        self.know_topics(&beat).await?;
        let (sender, receiver) = oneshot::channel();
        let fresh = uuid::Uuid::from_bytes(self.env().random.uuid_bytes()).to_string();
        let settings = self.settings_of(&beat.group);
        // The number first: topics that are newer than it are looked at once more.
        let version = *self.store().watch_topics().borrow();
        let view = View { store: self.store(), version, may_see };
        self.with(&beat.group, |state, now_ms| {
            if !state.loaded.as_ref().is_some_and(|loaded| loaded.knows_topics) {
                // Another term began meanwhile.
                return Err(GroupError::CoordinatorNotAvailable);
            }
            let token = state.wait(Waiter::Beat(sender));
            if let Some(loaded) = &mut state.loaded {
                loaded.coordinator.beat(now_ms, token, &beat, settings, &view, &fresh);
            }
            Ok(())
        })??;
        receiver.await.unwrap_or_else(|_| Err(GroupError::NotCoordinator.into()))
    }

    /// Makes sure that this node knows the topics that the group's rows rest on: a coordinator
    /// that is behind would take partitions for deleted. And those that a member names: it may
    /// have made them a moment ago at another node.
    async fn know_topics(&self, beat: &Beat) -> Result<(), GroupError> {
        let shard = self.shard_of(&beat.group);
        let loaded = self.ready(shard)?.loaded.as_ref().map(|l| (l.term, l.knows_topics));
        let (term, knows) = loaded.ok_or(GroupError::NotCoordinator)?;
        let unknown = |name: &String| self.store().topic_shape(name).is_none();
        if knows && !beat.topics.iter().flatten().any(unknown) {
            return Ok(());
        }
        let learned = self.store().learn_topics().await;
        learned.map_err(|_| GroupError::CoordinatorNotAvailable)?;
        let mut state = self.ready(shard)?;
        if let Some(loaded) = state.loaded.as_mut().filter(|loaded| loaded.term == term) {
            loaded.knows_topics = true;
        }
        Ok(())
    }

    /// What is set for a group, and what the node has set where nothing is.
    fn settings_of(&self, group: &str) -> BeatSettings {
        let set = self.store().group_settings(group);
        let number = |name: &str| set.get(name).and_then(|value| value.trim().parse::<i32>().ok());
        let session = number(CONSUMER_SESSION_MS).map(i64::from);
        let interval = number(CONSUMER_INTERVAL_MS);
        BeatSettings {
            session_ms: session.unwrap_or(self.config().consumer_session_ms),
            interval_ms: interval.unwrap_or(self.config().consumer_interval_ms),
        }
    }
}
