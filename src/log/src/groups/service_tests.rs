//! The service around the coordinators: it waits, saves, hands over, and lets offsets expire.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Env, TaskGroup};
use bytes::Bytes;
use consensus::Leadership;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::consumer::tests::{Topics, apply, join as beat_to_join};
use super::tests::member;
use super::*;

struct MemoryStore {
    leadership: watch::Sender<Leadership>,
    rows: Mutex<StoredGroups>,
    topics: watch::Sender<u64>,
    /// The topics that this node knows.
    known: Mutex<Topics>,
    /// The topics that there are; `None` when nobody can tell.
    all_topics: Mutex<Option<Topics>>,
    settings: Mutex<BTreeMap<String, String>>,
    offsets: Mutex<Vec<StoredOffsets>>,
    expired: watch::Sender<Vec<ExpiredOffsets>>,
}

impl MemoryStore {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            leadership: watch::Sender::new(led(1, true)),
            rows: Mutex::default(),
            topics: watch::Sender::new(0),
            known: Mutex::default(),
            all_topics: Mutex::default(),
            settings: Mutex::default(),
            offsets: Mutex::default(),
            expired: watch::Sender::new(vec![]),
        })
    }
}

#[async_trait::async_trait]
impl GroupStore for MemoryStore {
    fn shards(&self) -> usize {
        1
    }

    fn watch(&self, _shard: usize) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn load(&self, _shard: usize) -> std::io::Result<StoredGroups> {
        Ok(self.rows.lock().clone())
    }

    async fn save(
        &self,
        _shard: usize,
        term: u64,
        command: GroupCommand,
    ) -> Result<(), SaveFailed> {
        if self.leadership.borrow().term != term {
            return Err(SaveFailed("another term".into()));
        }
        let rows = &mut *self.rows.lock();
        match command {
            GroupCommand::Save(groups) => {
                for (id, row) in groups {
                    apply(rows, &id, Write::Classic(row));
                }
            }
            GroupCommand::SaveConsumers(saves) => {
                for save in saves {
                    apply(rows, &save.group.clone(), Write::Consumer(save));
                }
            }
        }
        Ok(())
    }

    fn watch_topics(&self) -> watch::Receiver<u64> {
        self.topics.subscribe()
    }

    fn topic_shape(&self, topic: &str) -> Option<TopicShape> {
        self.known.lock().shape(topic)
    }

    fn topic_names(&self) -> Vec<String> {
        self.known.lock().visible()
    }

    async fn learn_topics(&self) -> Result<(), SaveFailed> {
        let all = self.all_topics.lock().clone();
        let all = all.ok_or_else(|| SaveFailed("no leader".into()))?;
        *self.known.lock() = all;
        self.topics.send_modify(|n| *n += 1);
        Ok(())
    }

    fn group_settings(&self, _group: &str) -> BTreeMap<String, String> {
        self.settings.lock().clone()
    }

    async fn offsets(&self, _shard: usize) -> Result<Vec<StoredOffsets>, SaveFailed> {
        Ok(self.offsets.lock().clone())
    }

    async fn expire(
        &self,
        _shard: usize,
        _term: u64,
        expired: ExpiredOffsets,
    ) -> Result<(), SaveFailed> {
        self.expired.send_modify(|all| all.push(expired));
        Ok(())
    }
}

fn led(term: u64, ready_here: bool) -> Leadership {
    Leadership { term, ready_here, ..Leadership::default() }
}

#[tokio::test]
async fn the_service_waits_saves_and_hands_over() {
    let store = MemoryStore::new();
    let tasks = TaskGroup::new();
    let service = GroupService::start(store.clone(), GroupConfig::default(), Env::real(), &tasks);
    let joined = service.join(member("")).await;
    assert_eq!((joined.error, joined.generation), (None, 1));
    let assignments = vec![(joined.member.clone(), Bytes::from_static(b"a"))];
    let sync = Sync {
        group: "g".into(),
        generation: 1,
        member: joined.member.clone(),
        assignments,
        ..Sync::default()
    };
    assert_eq!(&service.sync(sync).await.unwrap().assignment[..], b"a");
    assert_eq!(store.rows.lock().classic.len(), 1);
    let beat =
        Heartbeat { group: "g".into(), generation: 1, member: joined.member, instance: None };
    assert_eq!(service.heartbeat(&beat), Ok(()));

    // A join that waits for the others is told to look elsewhere when leadership goes.
    let waiting = {
        let service = service.clone();
        async move { service.join(member("")).await }
    };
    let change = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        store.leadership.send_replace(led(2, false));
    };
    let (reply, ()) = tokio::join!(waiting, change);
    assert_eq!(reply.error, Some(GroupError::NotCoordinator));
    assert_eq!(service.heartbeat(&beat), Err(GroupError::NotCoordinator));
    store.leadership.send_replace(led(3, true));
    assert_eq!(service.heartbeat(&beat), Ok(()), "the generation survived the change");
    tasks.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn expired_offsets_go_and_empty_groups_with_them() {
    let store = MemoryStore::new();
    let row = GroupRowV1 { protocol_type: Some("consumer".into()), ..Default::default() };
    store.rows.lock().classic.insert("empty".into(), GroupRow::V1(row));
    let stored = |group: &str, empty_since_ms, commit_time_ms| StoredOffsets {
        group: group.into(),
        empty_since_ms,
        offsets: vec![StoredOffset {
            key: crate::PartKey { topic: uuid::Uuid::nil(), partition: 0 },
            topic: Some("t".into()),
            commit_time_ms,
        }],
    };
    let now_ms = Env::real().clock.unix_ms();
    *store.offsets.lock() = vec![
        stored("empty", Some(now_ms - 5000), now_ms),
        stored("alone", None, now_ms - 5000),
        stored("fresh", None, now_ms),
    ];
    let config =
        GroupConfig { offsets_retention_ms: 4000, offsets_check_ms: 20, ..Default::default() };
    let tasks = TaskGroup::new();
    let _service = GroupService::start(store.clone(), config, Env::real(), &tasks);
    let mut expired = store.expired.subscribe();
    let two = expired.wait_for(|all| all.len() >= 2);
    let two = tokio::time::timeout(Duration::from_secs(10), two).await;
    let mut groups: Vec<_> =
        two.unwrap().unwrap().iter().take(2).map(|e| e.group.clone()).collect();
    groups.sort();
    assert_eq!(groups, ["alone", "empty"]);
    store.offsets.lock().retain(|o| o.group == "fresh");
    let gone = async {
        while !store.rows.lock().classic.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the group goes");
    tasks.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_topics_forgets_no_empty_group() {
    let store = MemoryStore::new();
    let row = GroupRowV1 { protocol_type: Some("consumer".into()), ..Default::default() };
    store.rows.lock().classic.insert("away".into(), GroupRow::V1(row));
    let tasks = TaskGroup::new();
    let config = GroupConfig { offsets_check_ms: 100_000, ..Default::default() };
    let _service = GroupService::start(store.clone(), config, Env::real(), &tasks);
    let groups = || store.rows.lock().classic.len();
    // However often topics change, the regular check comes, and only that forgets the group.
    for version in 1..=60 {
        store.topics.send_replace(version);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(version > 49 || groups() == 1, "its members may come back");
    }
    assert_eq!(groups(), 0);
    tasks.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_coordinator_learns_the_topics_before_it_assigns_them() {
    let store = MemoryStore::new();
    let tasks = TaskGroup::new();
    let service = GroupService::start(store.clone(), GroupConfig::default(), Env::real(), &tasks);
    let all = |_: &str| true;
    let refused = service.beat(beat_to_join("a"), &all).await.unwrap_err();
    assert_eq!(refused.error, GroupError::CoordinatorNotAvailable, "nobody knows the topics");
    let mut topics = Topics::default();
    topics.set("t", 2);
    *store.all_topics.lock() = Some(topics.clone());
    let reply = service.beat(beat_to_join("a"), &all).await.unwrap();
    assert_eq!((reply.epoch, reply.interval_ms), (1, 5000));
    assert_eq!(reply.assignment.map(|parts| parts.len()), Some(2));
    assert_eq!(store.rows.lock().consumer["g"].members.len(), 1);

    // A new coordinator that does not know the topic yet takes nothing from anybody.
    *store.known.lock() = Topics::default();
    store.leadership.send_replace(led(2, false));
    let beat = Beat { group: "g".into(), member: "a".into(), epoch: 1, ..Beat::default() };
    let refused = service.beat(beat.clone(), &all).await.unwrap_err();
    assert_eq!(refused.error, GroupError::NotCoordinator);
    store.leadership.send_replace(led(3, true));
    store.settings.lock().insert("consumer.heartbeat.interval.ms".into(), "7000".into());
    let reply = service.beat(beat, &all).await.unwrap();
    assert_eq!((reply.epoch, reply.interval_ms, reply.assignment), (1, 7000, None));

    // A topic that was made a moment ago elsewhere is there.
    topics.set("u", 1);
    *store.all_topics.lock() = Some(topics);
    let names = vec!["t".to_owned(), "u".to_owned()];
    let more = Beat { topics: Some(names), ..beat_to_join("b") };
    assert_eq!(service.beat(more, &all).await.unwrap().epoch, 2);
    let unseen = Beat { group: String::new(), ..beat_to_join("c") };
    assert_eq!(service.beat(unseen, &all).await.unwrap_err().error, GroupError::InvalidRequest);
    tasks.shutdown(Duration::from_secs(5)).await;
}
