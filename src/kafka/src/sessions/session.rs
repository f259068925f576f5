//! The partitions of one fetch session, and which of them are worth a look.
//!
//! A session outlives its requests, so what an idle partition needs is done once: a watch on it
//! rings the session's bell. A request looks only at the *queue*: partitions that the request
//! changed, that had more records than fitted, that failed, or that have rung. One that gave
//! records goes to the end of the queue, so that a partition with much to read starves no other.
//! A request outside any session is a session of one request.
//!
//! Invariant: between requests of a session, a partition that is not queued has a watch.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use log::{Bell, LogService, TopicRef, Watch};
use uuid::Uuid;

use crate::codec::messages::{
    FetchForgottenTopic, FetchPartition, FetchTopic, FetchableTopicResponse, PartitionData,
};
use crate::errors;
use crate::limits::FETCH_PLACE_BYTES;

/// A topic as the requests of a session name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    /// Fetch 4 to 12.
    Name(Arc<str>),
    /// Fetch 13 and later.
    Id(Uuid),
}

impl TopicKey {
    /// As the log takes it.
    pub(crate) fn topic(&self) -> TopicRef<'_> {
        match self {
            Self::Name(name) => TopicRef::Name(name),
            Self::Id(id) => TopicRef::Id(*id),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Name(name) => name.len(),
            Self::Id(_) => 0,
        }
    }
}

/// What a client wants of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) current_leader_epoch: i32,
    pub(crate) offset: i64,
    pub(crate) last_fetched_epoch: i32,
    pub(crate) max_bytes: usize,
}

impl Want {
    fn of(part: &FetchPartition) -> Self {
        Self {
            current_leader_epoch: part.current_leader_epoch,
            offset: part.fetch_offset,
            last_fetched_epoch: part.last_fetched_epoch,
            max_bytes: usize::try_from(part.partition_max_bytes).unwrap_or(0),
        }
    }
}

/// A partition of a session.
#[derive(Debug)]
struct Place {
    topic: TopicKey,
    /// The name that the topic's id once had.
    name: Option<Arc<str>>,
    partition: i32,
    want: Want,
    /// The high watermark and the log's start that the client was told last.
    told: Option<(i64, i64)>,
    /// The log's end at the latest look.
    end: i64,
    queued: bool,
    watch: Option<Watch>,
}

/// A partition to be looked at.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) slot: u32,
    pub(crate) topic: TopicKey,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) partition: i32,
    pub(crate) want: Want,
}

/// What a look found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) slot: u32,
    pub(crate) data: PartitionData,
    /// There is nothing to read at the offset wanted, nor an error.
    pub(crate) idle: bool,
    /// There is something to read, which came after the look for it.
    pub(crate) missed: bool,
    /// The name of a topic that was asked for by id.
    pub(crate) name: Option<Arc<str>>,
}

impl Found {
    /// Bytes of its records.
    pub(crate) fn bytes(&self) -> usize {
        self.data.records.0.iter().map(bytes::Bytes::len).sum()
    }
}

/// The partitions of a session.
#[derive(Debug)]
pub(crate) struct Session {
    /// The id; 0 for a session of one request.
    pub(crate) id: i32,
    /// The epoch that the next request must have.
    pub(crate) epoch: i32,
    /// Whether topics are named by id.
    pub(crate) by_id: bool,
    bell: Bell,
    places: Vec<Option<Place>>,
    /// Slots without a place that do not stand in the queue.
    free: Vec<u32>,
    slots: HashMap<(TopicKey, i32), u32>,
    queue: VecDeque<u32>,
    /// What the latest look at everything saw: changes of the log, isolation level.
    looked_at: Option<(u64, i8)>,
    /// Bytes of the names of its topics, for each partition anew.
    name_bytes: usize,
}

impl Session {
    /// A session without partitions.
    pub(crate) fn new(by_id: bool) -> Self {
        Self {
            id: 0,
            epoch: 1,
            by_id,
            bell: Bell::new(),
            places: Vec::new(),
            free: Vec::new(),
            slots: HashMap::new(),
            queue: VecDeque::new(),
            looked_at: None,
            name_bytes: 0,
        }
    }

    /// What rings when there is something new.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// How many partitions.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of memory, roughly. Slots of partitions that were forgotten count: they stay.
    pub(crate) fn bytes(&self) -> usize {
        self.places.len() * FETCH_PLACE_BYTES + self.name_bytes
    }

    /// Takes over what a request wants and what it forgets.
    pub(crate) fn update(&mut self, topics: &[FetchTopic], forgotten: &[FetchForgottenTopic]) {
        for topic in topics {
            let key = self.key(&topic.topic, topic.topic_id);
            for part in &topic.partitions {
                self.want(&key, part);
            }
        }
        for topic in forgotten {
            let key = self.key(&topic.topic, topic.topic_id);
            for partition in &topic.partitions {
                self.forget(&key, *partition);
            }
        }
    }

    fn key(&self, name: &str, id: Uuid) -> TopicKey {
        if self.by_id { TopicKey::Id(id) } else { TopicKey::Name(name.into()) }
    }

    fn want(&mut self, topic: &TopicKey, part: &FetchPartition) {
        let want = Want::of(part);
        let key = (topic.clone(), part.partition);
        if let Some(slot) = self.slots.get(&key).copied() {
            if let Some(place) = self.place(slot) {
                place.want = want;
            }
            self.enqueue(slot);
            return;
        }
        let place = Place {
            topic: topic.clone(),
            name: None,
            partition: part.partition,
            want,
            told: None,
            end: -1,
            queued: false,
            watch: None,
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.places.push(None);
                u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(free) = index(slot).and_then(|slot| self.places.get_mut(slot)) {
            *free = Some(place);
            self.name_bytes += topic.bytes();
            self.slots.insert(key, slot);
            self.enqueue(slot);
        }
    }

    fn forget(&mut self, topic: &TopicKey, partition: i32) {
        let Some(slot) = self.slots.remove(&(topic.clone(), partition)) else { return };
        let place = index(slot).and_then(|slot| self.places.get_mut(slot)).and_then(Option::take);
        let Some(place) = place else { return };
        self.name_bytes = self.name_bytes.saturating_sub(topic.bytes());
        // One that stands in the queue is free once the queue has passed it.
        if !place.queued {
            self.free.push(slot);
        }
    }

    fn place(&mut self, slot: u32) -> Option<&mut Place> {
        self.places.get_mut(index(slot)?)?.as_mut()
    }

    fn enqueue(&mut self, slot: u32) {
        let Some(place) = self.place(slot) else { return };
        if !std::mem::replace(&mut place.queued, true) {
            self.queue.push_back(slot);
        }
    }

    /// Partitions worth a look, those first that have waited longest. `changes` counts changes
    /// of the log after which everything is.
    pub(crate) fn looks(&mut self, changes: u64, isolation: i8) -> Vec<Look> {
        if self.looked_at != Some((changes, isolation)) {
            self.looked_at = Some((changes, isolation));
            for slot in 0..u32::try_from(self.places.len()).unwrap_or(u32::MAX) {
                if let Some(place) = self.place(slot) {
                    // It may have been on a replica that is there no longer.
                    place.watch = None;
                }
                self.enqueue(slot);
            }
        }
        for slot in self.bell.take_marked() {
            self.enqueue(slot);
        }
        let look = |slot: &u32| {
            let place = self.places.get(index(*slot)?)?.as_ref()?;
            Some(Look {
                slot: *slot,
                topic: place.topic.clone(),
                name: place.name.clone(),
                partition: place.partition,
                want: place.want,
            })
        };
        self.queue.iter().filter_map(look).collect()
    }

    /// Notes what was found: idle partitions leave the queue, those that gave records go to its
    /// end.
    pub(crate) fn looked(&mut self, found: &[Found]) {
        for Found { slot, data, idle, name, .. } in found {
            let Some(place) = self.place(*slot) else { continue };
            place.end = data.high_watermark;
            place.queued = !idle;
            if name.is_some() {
                place.name.clone_from(name);
            }
        }
        let served = found.iter().filter(|found| !found.data.records.0.is_empty());
        let served: Vec<u32> = served.map(|found| found.slot).collect();
        let mut moved: Vec<u32> = served.clone();
        moved.sort_unstable();
        for slot in std::mem::take(&mut self.queue) {
            match self.places.get(index(slot).unwrap_or(usize::MAX)) {
                Some(Some(place)) if !place.queued || moved.binary_search(&slot).is_ok() => {}
                Some(Some(_)) => self.queue.push_back(slot),
                _ => self.free.push(slot),
            }
        }
        self.queue.extend(served);
    }

    /// Lets the bell ring for partitions just looked at that have no watch: the idle ones, or all.
    /// What the answer has already of a partition is taken off the bytes that count.
    pub(crate) fn watch<'a>(
        &mut self,
        log: &LogService,
        which: Which,
        found: impl Iterator<Item = &'a Found>,
    ) {
        let bell = self.bell.clone();
        for found in found {
            let slot = found.slot;
            let Some(place) = self.place(slot) else { continue };
            if which == Which::Idle && place.queued {
                continue;
            }
            let whole = place.want.max_bytes;
            if place.watch.is_none() {
                let topic = place.topic.clone();
                let part = (topic.topic(), place.partition);
                place.watch = log.watch(&bell, slot, whole, part, place.end);
            }
            let watched = place.watch.is_some();
            bell.set_room(slot, whole.saturating_sub(found.bytes()));
            if !watched {
                // A replica that is gone: the next look says so.
                self.enqueue(slot);
            }
        }
    }

    /// Whether the answer to an incremental request names a partition. Kafka's rule: it has
    /// records, an error or a divergence, or the client was told another watermark or start.
    pub(crate) fn must_tell(&mut self, found: &Found) -> bool {
        let data = &found.data;
        let Some(place) = self.place(found.slot) else { return false };
        let now = (data.high_watermark, data.log_start_offset);
        let before = place.told.replace(now);
        let failed = data.error_code != errors::NONE;
        if failed {
            // When the error goes away the partition is told anew.
            place.told = None;
        }
        let diverges = data.diverging_epoch != Default::default();
        failed || diverges || !data.records.0.is_empty() || before != Some(now)
    }

    /// The name of a partition's topic, as far as it was ever known.
    pub(crate) fn topic_of(&self, slot: u32) -> Option<Arc<str>> {
        let place = self.places.get(index(slot)?)?.as_ref()?;
        match &place.topic {
            TopicKey::Name(name) => Some(name.clone()),
            TopicKey::Id(_) => place.name.clone(),
        }
    }

    /// Partitions with the topic each belongs to, as an answer has them: neighbours of one topic
    /// stand together.
    pub(crate) fn responses(&mut self, found: Vec<Found>) -> Vec<FetchableTopicResponse> {
        let mut topics: Vec<FetchableTopicResponse> = Vec::new();
        let mut last: Option<TopicKey> = None;
        for found in found {
            let Some(place) = self.place(found.slot) else { continue };
            if last.as_ref() != Some(&place.topic) {
                let mut topic = FetchableTopicResponse::default();
                match &place.topic {
                    TopicKey::Name(name) => topic.topic = name.to_string(),
                    TopicKey::Id(id) => topic.topic_id = *id,
                }
                topics.push(topic);
                last = Some(place.topic.clone());
            }
            if let Some(topic) = topics.last_mut() {
                topic.partitions.push(found.data);
            }
        }
        topics
    }
}

/// Which partitions get a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that no next look looks at by itself.
    Idle,
    /// All.
    All,
}

fn index(slot: u32) -> Option<usize> {
    usize::try_from(slot).ok()
}
