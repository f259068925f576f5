//! Fetch: a long poll over the partitions of a session.
//!
//! A request looks at the partitions that its session has queued (see [`crate::sessions`]), and
//! when that is not enough waits for its session's bell: neither a task nor a walk over all
//! partitions per wake-up. The time limit is a timer of the runtime's wheel inside the request's
//! own future.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use log::transactions::AbortedTxn;
use log::{Bell, FetchSpec, Isolation, LogError, TopicRef};
use secure::acl::{Operation, ResourceType};
use tokio::time::Instant;

use crate::authorize::Access;
use crate::codec::Records;
use crate::codec::messages::{
    AbortedTransaction, FetchEpochEndOffset, FetchLeaderIdAndEpoch, FetchNodeEndpoint,
    FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use crate::errors;
use crate::gateway::Shared;
use crate::handlers::NO_RECORDS;
use crate::limits::{MAX_FETCH_BYTES, MAX_FETCH_WAIT};
use crate::metrics::Traffic;
use crate::outgoing::Held;
use crate::sessions::{Context, Found, Kind, Look, NO_SESSION, TopicKey, Which, next_epoch};

/// Pause before a batch is read again for which there was no room.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// Reads records, waiting for `min_bytes` of them at most `max_wait_ms`. What they take of the
/// budget is left in `held`.
pub(crate) async fn fetch(
    shared: &Arc<Shared>,
    access: &Access,
    request: FetchRequest,
    version: i16,
    held: &mut Option<Held>,
) -> FetchResponse {
    let context = match shared.sessions.begin(&request, version) {
        Ok(context) => context,
        Err(error_code) => return FetchResponse { error_code, ..Default::default() },
    };
    let mut answering = Answering {
        shared,
        access,
        context,
        isolation: request.isolation_level,
        results: Vec::new(),
        places: HashMap::new(),
        latest: Vec::new(),
    };
    let empty = answering.context.session.lock().len() == 0;
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = now() + max_wait.min(MAX_FETCH_WAIT);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(MAX_FETCH_BYTES);
    let bare = request.max_bytes <= NO_RECORDS;
    drop(request);
    let mut changes = shared.log_changes.clone();
    let (mut began, mut worked) = (now(), Duration::ZERO);
    loop {
        let seen = *changes.borrow_and_update();
        let part = held.insert(shared.outgoing.reserve(max_bytes));
        let room = part.bytes();
        let pass = answering.look(seen, room, bare).await;
        part.set(pass.bytes);
        // Whole batches rarely fill the room: half of it is enough, whatever the client wants.
        let wanted = min_bytes.min((room / 2).max(1));
        if pass.bytes > room && !pass.outdated && shared.outgoing.is_over() {
            // A batch larger than what is left, as many others are: it waits for its turn.
            *held = None;
            drop(answering.prepare_wait());
            if pass.urgent || deadline <= now() {
                return answering.respond(worked + began.elapsed());
            }
            worked += began.elapsed();
            tokio::time::sleep_until(deadline.min(now() + ROOM_PAUSE)).await;
            began = now();
            continue;
        }
        let over = pass.urgent || pass.bytes >= wanted || deadline <= now();
        if over || pass.outdated || empty || bare {
            let took = worked + began.elapsed();
            shared.metrics.fetch_worked(took);
            return answering.respond(took);
        }
        *held = None;
        let bell = answering.prepare_wait();
        worked += began.elapsed();
        tokio::select! {
            () = bell.wait(wanted - pass.bytes) => {}
            // Its sender goes when the node stops, which ends this task.
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
        began = now();
    }
}

fn now() -> Instant {
    // Tokio's clock: simulations pause it, and the wait is measured with it anyway.
    Instant::now()
}

/// What one pass over the queued partitions found.
#[derive(Default)]
struct Pass {
    bytes: usize,
    /// An error, a divergence, or records that came while they were looked for: answer at once.
    urgent: bool,
    /// The session has had a later request meanwhile.
    outdated: bool,
}

/// A request under way.
struct Answering<'a> {
    shared: &'a Arc<Shared>,
    access: &'a Access,
    context: Context,
    isolation: i8,
    /// What was found of each partition, in the order of the answer.
    results: Vec<Found>,
    /// Where in `results` a slot stands.
    places: HashMap<u32, usize>,
    /// Where those of the latest pass stand.
    latest: Vec<usize>,
}

impl Answering<'_> {
    fn is_outdated(&self, epoch: i32) -> bool {
        match self.context.kind {
            Kind::Continues(own) => epoch != next_epoch(own),
            Kind::Begins | Kind::Alone => false,
        }
    }

    /// Looks at the queued partitions and notes what is found; `bare` leaves out records.
    async fn look(&mut self, changes: u64, room: usize, bare: bool) -> Pass {
        let looks = self.context.session.lock().looks(changes, self.isolation);
        let may_skip = matches!(self.context.kind, Kind::Continues(_)) || !self.results.is_empty();
        let mut pass = Pass::default();
        let mut found = Vec::with_capacity(looks.len());
        for look in &looks {
            let left = room.saturating_sub(pass.bytes);
            if left == 0 && pass.bytes > 0 && may_skip {
                // They are the first of the session's next request.
                break;
            }
            let one = if may_read(self.shared, self.access, look.topic.topic()) {
                let (left, first) = if bare { (0, false) } else { (left, pass.bytes == 0) };
                read(self.shared, look, self.isolation, left, first).await
            } else {
                denied(look)
            };
            pass.bytes += one.bytes();
            pass.urgent |= one.missed
                || one.data.error_code != errors::NONE
                || one.data.diverging_epoch != FetchEpochEndOffset::default();
            found.push(one);
        }
        let mut session = self.context.session.lock();
        pass.outdated = self.is_outdated(session.epoch);
        if !pass.outdated {
            session.looked(&found);
            if let Kind::Continues(_) = self.context.kind {
                session.watch(&self.shared.backend.log, Which::Idle, found.iter());
            }
        }
        drop(session);
        self.note(found);
        pass
    }

    fn note(&mut self, found: Vec<Found>) {
        self.latest.clear();
        for one in found {
            let at = *self.places.entry(one.slot).or_insert(self.results.len());
            self.latest.push(at);
            match self.results.get_mut(at) {
                Some(known) => *known = one,
                None => self.results.push(one),
            }
        }
    }

    /// Makes the bell ring for everything that was looked at, and lets go of records that were
    /// not enough: they are read anew.
    fn prepare_wait(&mut self) -> Bell {
        let mut session = self.context.session.lock();
        let latest = self.latest.iter().filter_map(|at| self.results.get(*at));
        session.watch(&self.shared.backend.log, Which::All, latest);
        for at in &self.latest {
            if let Some(found) = self.results.get_mut(*at) {
                found.data.records.0.clear();
            }
        }
        session.bell().clone()
    }

    fn respond(self, took: Duration) -> FetchResponse {
        let Self { shared, context, mut results, .. } = self;
        let mut session = context.session.lock();
        let mut session_id = NO_SESSION;
        match context.kind {
            Kind::Continues(epoch) => {
                session_id = session.id;
                if session.epoch != next_epoch(epoch) {
                    let error_code = errors::INVALID_FETCH_SESSION_EPOCH;
                    return FetchResponse { error_code, session_id, ..Default::default() };
                }
                results.retain(|found| session.must_tell(found));
            }
            Kind::Begins => {
                session.watch(&shared.backend.log, Which::Idle, results.iter());
                for found in &results {
                    session.must_tell(found);
                }
                drop(session);
                session_id = shared.sessions.keep(&context.session);
                session = context.session.lock();
            }
            Kind::Alone => {}
        }
        for found in &results {
            let traffic = match found.data.error_code {
                errors::NONE => Traffic::Fetched { bytes: found.bytes(), took },
                _ => Traffic::FetchFailed,
            };
            if let Some(topic) = session.topic_of(found.slot) {
                shared.traffic(&topic, traffic);
            }
        }
        let responses = session.responses(results);
        let node_endpoints = endpoints(shared, &responses);
        FetchResponse { session_id, responses, node_endpoints, ..Default::default() }
    }
}

/// Kafka's `isolation.level` on the wire.
pub(crate) fn isolation(level: i8) -> Isolation {
    if level == 1 { Isolation::Committed } else { Isolation::Uncommitted }
}

/// The list of aborted transactions, which readers of everything do not get.
fn aborted(level: i8, txns: &[AbortedTxn]) -> Option<Vec<AbortedTransaction>> {
    let one = |txn: &AbortedTxn| AbortedTransaction {
        producer_id: txn.producer_id,
        first_offset: txn.first_offset,
    };
    let mut all: Vec<_> = txns.iter().map(one).collect();
    // Clients take them in order of their first offset.
    all.sort_by_key(|txn| txn.first_offset);
    (isolation(level) == Isolation::Committed).then_some(all)
}

/// Asked for every read: a right may be taken away while a session goes on. An id that no topic
/// has is the log's to answer.
fn may_read(shared: &Shared, access: &Access, topic: TopicRef<'_>) -> bool {
    let need = (Operation::Read, ResourceType::Topic);
    match topic {
        TopicRef::Name(name) => access.may(need, name),
        TopicRef::Id(_) => {
            let topic = shared.backend.log.resolve(topic);
            topic.map_or(true, |topic| access.may(need, &topic.name))
        }
    }
}

fn denied(look: &Look) -> Found {
    let data = PartitionData {
        partition_index: look.partition,
        error_code: errors::TOPIC_AUTHORIZATION_FAILED,
        high_watermark: -1,
        ..Default::default()
    };
    Found { slot: look.slot, data, idle: false, missed: false, name: None }
}

/// Reads of one partition; `first` is the first with records, which may exceed what is `left`.
async fn read(shared: &Arc<Shared>, look: &Look, isolation: i8, left: usize, first: bool) -> Found {
    let spec = FetchSpec {
        topic: look.topic.topic(),
        partition: look.partition,
        offset: look.want.offset,
        // KIP-74: a partition that may give nothing else gives one batch.
        max_bytes: if first { look.want.max_bytes.min(left).max(1) } else { limit(look, left) },
        current_leader_epoch: look.want.current_leader_epoch,
        last_fetched_epoch: look.want.last_fetched_epoch,
        isolation: self::isolation(isolation),
    };
    let (slot, name) = (look.slot, name_of(shared, look));
    let got = match shared.backend.log.fetch(&spec).await {
        Ok(got) => got,
        Err(error) => {
            let data = refused(shared, look, &error);
            return Found { slot, data, idle: false, missed: false, name };
        }
    };
    let none = got.records.is_empty() && spec.max_bytes > 0 && got.diverging.is_none();
    // The bounds are younger than the read: what was appended in between is readable already.
    let readable = match spec.isolation {
        Isolation::Committed => got.last_stable_offset,
        Isolation::Uncommitted => got.high_watermark,
    };
    let idle = none && look.want.offset >= readable;
    // KIP-74: only the first partition with records may exceed the limit of the request.
    let size: usize = got.records.iter().map(bytes::Bytes::len).sum();
    let records = if first || size <= left { got.records } else { Vec::new() };
    let diverging =
        got.diverging.map(|(epoch, end_offset)| FetchEpochEndOffset { epoch, end_offset });
    let data = PartitionData {
        partition_index: look.partition,
        high_watermark: got.high_watermark,
        last_stable_offset: got.last_stable_offset,
        log_start_offset: got.log_start_offset,
        aborted_transactions: aborted(isolation, &got.aborted),
        records: Records(records),
        diverging_epoch: diverging.unwrap_or_default(),
        ..Default::default()
    };
    Found { slot, data, idle, missed: none && !idle, name }
}

/// What a partition may give that is not the first; 0 asks for its state alone.
fn limit(look: &Look, left: usize) -> usize {
    if left == 0 { 0 } else { look.want.max_bytes.min(left).max(1) }
}

/// The name of a topic asked for by id, when it was not known before.
fn name_of(shared: &Shared, look: &Look) -> Option<Arc<str>> {
    match (&look.topic, &look.name) {
        (TopicKey::Id(id), None) => {
            shared.backend.log.topic_by_id(*id).map(|topic| topic.name.as_str().into())
        }
        _ => None,
    }
}

fn refused(shared: &Arc<Shared>, look: &Look, error: &LogError) -> PartitionData {
    let mut data = PartitionData {
        partition_index: look.partition,
        error_code: match (error, &look.name) {
            // A session knew the topic's name: it was deleted, and perhaps made anew.
            (LogError::UnknownTopicId, Some(name)) => match shared.backend.log.topic(name) {
                Some(_) => errors::INCONSISTENT_TOPIC_ID,
                None => errors::UNKNOWN_TOPIC_OR_PARTITION,
            },
            _ => error.code(),
        },
        high_watermark: -1,
        ..Default::default()
    };
    let moved = matches!(error, LogError::NotLeader { .. } | LogError::FencedLeaderEpoch);
    if moved
        && let Ok(topic) = shared.backend.log.resolve(look.topic.topic())
        && let Some((leader_id, leader_epoch)) = shared.told_leader(&topic.name, look.partition)
    {
        data.current_leader = FetchLeaderIdAndEpoch { leader_id, leader_epoch };
    }
    data
}

/// Where the leaders are that the answer names.
fn endpoints(shared: &Shared, responses: &[FetchableTopicResponse]) -> Vec<FetchNodeEndpoint> {
    let parts = responses.iter().flat_map(|t| &t.partitions);
    let leaders: Vec<i32> = parts.map(|p| p.current_leader.leader_id).filter(|l| *l >= 0).collect();
    if leaders.is_empty() {
        return Vec::new();
    }
    let named = shared.brokers().into_iter().filter(|(n, ..)| leaders.contains(&i32::from(n.0)));
    let endpoint = |(node, host, port): (base::NodeId, String, u16)| FetchNodeEndpoint {
        node_id: i32::from(node.0),
        host,
        port: i32::from(port),
        rack: None,
    };
    named.map(endpoint).collect()
}
