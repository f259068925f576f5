//! One Raft group: proposals merged into entries, reads made linearizable, leadership watched.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::limits::{MAX_COMMAND_BYTES, MIB};
use base::{GroupId, NodeId, TaskGroup};
use bytes::Bytes;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ReadPolicy;
use prost::Message as _;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use wal::Wal;

use super::batch::{self, Item};
use super::host::Shared;
use super::silence::Silence;
use super::types::{Commands, Raft, Replies, StoredMembership};
use crate::group::{Applied, Group, Leadership, LogState, ProposeError, ReadError, TransferError};
use crate::net::{CallError, Link, methods, proto};
use crate::peer::{Lane, Message};

/// Time for a proposal from call to reply.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a read barrier.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Commands waiting for an entry, per group.
const QUEUE: usize = 4096;
/// Bytes of commands merged into one entry, unless a single command is larger.
const MERGE_BYTES: usize = MIB;
/// A leader proposes nothing more while this node's log has so many bytes to write.
const MAX_WAL_QUEUE_BYTES: usize = 64 * MIB;
/// Shares of a group's pipeline. An entry takes one while it is on its way, a small one
/// [`SMALL_SHARES`]: what comes meanwhile is merged behind it, for an entry costs every node about
/// the same whether it carries one command or a hundred.
const PIPELINE_SHARES: usize = 8;
const SMALL_SHARES: u32 = 4;
/// Bytes of commands from which an entry no longer counts as small.
const SMALL_BYTES: usize = 128 * 1024;
/// Commands above this go over the bulk lane when forwarded.
const CONTROL_BYTES: usize = 64 * 1024;

/// Tells commands that need disk space from those that free it.
pub(crate) type Growing = Arc<dyn Fn(GroupId, u8, &[u8]) -> bool + Send + Sync>;

struct Pending {
    item: Item,
    /// The only term in which it may be proposed.
    term: u64,
    answer: oneshot::Sender<Result<Applied, ProposeError>>,
    /// Bytes of the node's budget, given back when the command is applied.
    permit: OwnedSemaphorePermit,
}

/// What all groups of a node share.
#[derive(Clone)]
pub(crate) struct NodeLimits {
    /// Bytes of commands between proposal and reply, one permit per KiB.
    pub(crate) budget: Arc<Semaphore>,
    /// A node whose disk is below its reserve, 0 when there is none known. Every node stores
    /// everything, so one without room stops the writes of all.
    pub(crate) disk_low: Arc<AtomicU16>,
    /// Which commands are refused then.
    pub(crate) growing: Growing,
}

/// One group of this node.
pub(crate) struct RaftGroup {
    pub(crate) raft: Raft,
    pub(crate) shared: Arc<Shared>,
    pub(crate) link: Arc<dyn Link>,
    /// Held while a snapshot is pulled and installed.
    pub(crate) installing: Mutex<()>,
    /// Held during a checkpoint, and while a snapshot is installed: a checkpoint taken before
    /// must not become current after it.
    pub(crate) checkpointing: Mutex<()>,
    /// Held while this leader replaces a member.
    pub(crate) joining: Mutex<()>,
    /// See [`Group::behind`].
    pub(super) behind: parking_lot::Mutex<BTreeSet<NodeId>>,
    /// Before it is over this node gives no vote.
    pub(super) silence: Silence,
    limits: NodeLimits,
    wal: Wal,
    queue: mpsc::Sender<Pending>,
    leadership: watch::Sender<Leadership>,
}

impl RaftGroup {
    /// Starts the tasks around a running Raft.
    pub(crate) fn start(
        raft: Raft,
        shared: Arc<Shared>,
        link: Arc<dyn Link>,
        silence: Silence,
        limits: NodeLimits,
        wal: Wal,
        tasks: &TaskGroup,
    ) -> Arc<Self> {
        let (queue, pending) = mpsc::channel(QUEUE);
        let this = Arc::new(Self {
            raft,
            shared,
            link,
            installing: Mutex::new(()),
            checkpointing: Mutex::new(()),
            joining: Mutex::new(()),
            behind: parking_lot::Mutex::default(),
            silence,
            limits,
            wal,
            queue,
            leadership: watch::Sender::new(Leadership::default()),
        });
        tasks.spawn("raft proposals", this.clone().run_proposals(pending, tasks.clone()));
        tasks.spawn("raft leadership", this.clone().watch_leadership());
        this
    }

    fn group(&self) -> GroupId {
        self.shared.group
    }

    fn slot_of(&self, raft_id: u64, membership: &StoredMembership) -> Option<NodeId> {
        membership.get_node(&raft_id).map(|m| NodeId(m.slot))
    }

    async fn watch_leadership(self: Arc<Self>) {
        let mut metrics = self.raft.server_metrics();
        let mut applied = self.shared.applied.subscribe();
        loop {
            let (leads, now) = {
                let metrics = metrics.borrow_watched();
                let leads = metrics.state == ServerState::Leader;
                let term = metrics.vote.leader_id.term;
                let leader = metrics
                    .current_leader
                    .and_then(|id| self.slot_of(id, &metrics.membership_config));
                // Raft begins every term with an entry of its own; once that is applied, all
                // that was acknowledged before is.
                let ready_here = leads && applied.borrow_and_update().0 == term;
                let last_leader = leader.or(self.leadership.borrow().last_leader);
                (leads, Leadership { term, leader, last_leader, ready_here })
            };
            self.leadership.send_if_modified(|old| std::mem::replace(old, now) != now);
            let waits_for_own_entry = leads && !now.ready_here;
            let changed = tokio::select! {
                changed = metrics.changed() => changed.is_ok(),
                changed = applied.changed(), if waits_for_own_entry => changed.is_ok(),
            };
            if !changed {
                self.leadership.send_replace(Leadership::default());
                return;
            }
        }
    }

    async fn run_proposals(self: Arc<Self>, mut queue: mpsc::Receiver<Pending>, tasks: TaskGroup) {
        let pipeline = Arc::new(Semaphore::new(PIPELINE_SHARES));
        let mut left: Option<Pending> = None;
        loop {
            let first = match left.take() {
                Some(first) => first,
                None => match queue.recv().await {
                    Some(first) => first,
                    None => return,
                },
            };
            let Ok(mut slot) = pipeline.clone().acquire_owned().await else { return };
            let mut batch = Batch::new(first);
            left = batch.fill(&mut queue);
            if batch.bytes < SMALL_BYTES {
                let more = pipeline.clone().acquire_many_owned(SMALL_SHARES - 1).await;
                let Ok(more) = more else { return };
                slot.merge(more);
                if left.is_none() {
                    left = batch.fill(&mut queue);
                }
            }
            // Followers may commit faster than this node's own disk takes the entries. A log that
            // failed ends the node; meanwhile Raft says no.
            drop(self.wal.wait_queue_below(MAX_WAL_QUEUE_BYTES).await);
            self.write(batch.commands, slot, &tasks).await;
        }
    }

    async fn write(&self, batch: Vec<Pending>, slot: OwnedSemaphorePermit, tasks: &TaskGroup) {
        let term = batch.first().map(|p| p.term);
        let items: Vec<Item> = batch.iter().map(|p| p.item.clone()).collect();
        let commands = Commands(batch::encode(self.shared.env.clock.unix_ms(), &items));
        drop(items);
        let (responder, written) = ProgressResponder::complete_only();
        let mut request = self.raft.write(commands).responder(responder);
        if let Some(term) = term {
            request = request.with_leader(term);
        }
        let group = self.group();
        let membership = self.raft.server_metrics().borrow_watched().membership_config.clone();
        if request.await.is_err() {
            answer_all(batch, &ProposeError::Unknown { group });
            return;
        }
        let slots = move |id: Option<u64>| {
            id.and_then(|id| membership.get_node(&id)).map(|m| NodeId(m.slot))
        };
        tasks.spawn("raft replies", async move {
            let result = written.await;
            drop(slot);
            match result {
                Ok(Ok(response)) => {
                    let index = response.log_id.index;
                    answer_each(batch, index, response.data, group);
                }
                Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                    let leader = slots(forward.leader_id);
                    answer_all(batch, &ProposeError::NotLeader { group, leader });
                }
                Ok(Err(ClientWriteError::PreconditionFailed(_))) => {
                    answer_all(batch, &ProposeError::NotLeader { group, leader: None });
                }
                // A discarded entry may still be committed by the next leader.
                Ok(Err(_)) | Err(_) => answer_all(batch, &ProposeError::Unknown { group }),
            }
        });
    }

    /// The index up to which this node, as confirmed leader, must have applied for a
    /// linearizable read; `None` when it does not lead.
    pub(crate) async fn read_index_here(&self) -> Option<u64> {
        for policy in [ReadPolicy::LeaseRead, ReadPolicy::ReadIndex] {
            let asked = self.raft.get_read_log_id(policy);
            if let Ok(Ok((id, _))) = tokio::time::timeout(READ_TIMEOUT, asked).await {
                return Some(id.index());
            }
        }
        None
    }

    async fn read_index(&self) -> Option<u64> {
        let leader = self.leadership.borrow().leader?;
        if leader == self.link.me() {
            return self.read_index_here().await;
        }
        let head = proto::ReadIndexRequest { group: u32::from(self.group().0) };
        let request = Message::head(head.encode_to_vec());
        let call =
            self.link.call(leader, Lane::Control, methods::READ_INDEX, request, READ_TIMEOUT);
        let answer = proto::ReadIndexReply::decode(call.await.ok()?.head).ok()?;
        answer.confirmed.then_some(answer.index)
    }

    fn refuse(&self, tag: u8, command: &[u8]) -> Option<ProposeError> {
        if command.len() > MAX_COMMAND_BYTES {
            let (bytes, limit) = (command.len(), MAX_COMMAND_BYTES);
            return Some(ProposeError::TooLarge { bytes, limit });
        }
        if let Some(node) = self.disk_low()
            && (self.limits.growing)(self.group(), tag, command)
        {
            return Some(ProposeError::DiskReserve { node });
        }
        None
    }

    async fn forward(
        &self,
        leader: NodeId,
        tag: u8,
        command: &Bytes,
        until: Instant,
    ) -> Result<Applied, Forwarded> {
        let group = self.group();
        let unknown = Forwarded::Final(ProposeError::Unknown { group });
        let head = proto::ProposeRequest { group: u32::from(group.0), tag: u32::from(tag) };
        let lane = if command.len() > CONTROL_BYTES { Lane::Bulk } else { Lane::Control };
        let head = head.encode_to_vec().into();
        let begun =
            self.link.begin(leader, lane, methods::PROPOSE, head, vec![command.clone()]).await;
        let answer = match begun {
            Err(CallError::NotSent(_)) => return Err(Forwarded::Again),
            Err(_) => return Err(unknown),
            Ok(answer) => answer,
        };
        let message = match tokio::time::timeout_at(until, answer).await {
            Ok(Ok(Ok(message))) => message,
            Ok(Ok(Err(CallError::NotSent(_)))) => return Err(Forwarded::Again),
            _ => return Err(unknown),
        };
        let Ok(reply) = proto::ProposeReply::decode(message.head) else { return Err(unknown) };
        use proto::propose_reply::Outcome;
        match reply.outcome() {
            Outcome::Applied => Ok(Applied { index: reply.index, reply: message.payload }),
            Outcome::NotLeader => Err(Forwarded::Again),
            Outcome::Unknown => Err(unknown),
            Outcome::DiskReserve => {
                let node = NodeId(u16::try_from(reply.node).unwrap_or_default());
                Err(Forwarded::Final(ProposeError::DiskReserve { node }))
            }
            Outcome::TooLarge => {
                let (bytes, limit) = (command.len(), MAX_COMMAND_BYTES);
                Err(Forwarded::Final(ProposeError::TooLarge { bytes, limit }))
            }
        }
    }
}

/// Why a forwarded proposal has no reply.
enum Forwarded {
    /// It was not proposed; ask the leader anew.
    Again,
    Final(ProposeError),
}

/// Commands of one entry.
struct Batch {
    commands: Vec<Pending>,
    term: u64,
    bytes: usize,
}

impl Batch {
    fn new(first: Pending) -> Self {
        Self { term: first.term, bytes: first.item.body.len(), commands: vec![first] }
    }

    /// Takes in what waits, as far as it fits and expects the same term; the first command that
    /// does not is returned for the next entry.
    fn fill(&mut self, queue: &mut mpsc::Receiver<Pending>) -> Option<Pending> {
        while self.bytes < MERGE_BYTES
            && let Ok(next) = queue.try_recv()
        {
            if next.term != self.term || self.bytes + next.item.body.len() > MERGE_BYTES {
                return Some(next);
            }
            self.bytes += next.item.body.len();
            self.commands.push(next);
        }
        None
    }
}

fn answer_all(batch: Vec<Pending>, error: &ProposeError) {
    for Pending { answer, permit, .. } in batch {
        drop(permit);
        // The proposer may have given up.
        drop(answer.send(Err(error.clone())));
    }
}

fn answer_each(batch: Vec<Pending>, index: u64, replies: Replies, group: GroupId) {
    let mut replies = replies.0.into_iter();
    for Pending { answer, permit, .. } in batch {
        drop(permit);
        let reply = replies.next().map(|reply| Applied { index, reply });
        drop(answer.send(reply.ok_or(ProposeError::Unknown { group })));
    }
}

#[async_trait]
impl Group for RaftGroup {
    fn id(&self) -> GroupId {
        self.group()
    }

    fn watch(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    async fn propose(&self, tag: u8, command: Bytes) -> Result<Applied, ProposeError> {
        let until = Instant::now() + PROPOSE_TIMEOUT;
        let mut watch = self.leadership.subscribe();
        loop {
            let leader = watch.borrow_and_update().leader;
            let result = match leader {
                Some(leader) if leader == self.link.me() => {
                    match self.propose_here(tag, command.clone(), None).await {
                        Err(ProposeError::NotLeader { .. }) => Err(Forwarded::Again),
                        other => return other,
                    }
                }
                Some(leader) => self.forward(leader, tag, &command, until).await,
                None => Err(Forwarded::Again),
            };
            match result {
                Ok(applied) => return Ok(applied),
                Err(Forwarded::Final(error)) => return Err(error),
                Err(Forwarded::Again) => {}
            }
            if Instant::now() >= until {
                // A leader that hears of no majority is no better than none.
                let leader = leader.filter(|leader| *leader != self.link.me());
                return Err(ProposeError::NotLeader { group: self.group(), leader });
            }
            // Woken by a new leader, or looks again: a peer may know it before this node does.
            drop(tokio::time::timeout(Duration::from_millis(50), watch.changed()).await);
        }
    }

    async fn propose_here(
        &self,
        tag: u8,
        command: Bytes,
        term: Option<u64>,
    ) -> Result<Applied, ProposeError> {
        let group = self.group();
        let now = *self.leadership.borrow();
        if now.leader != Some(self.link.me()) {
            return Err(ProposeError::NotLeader { group, leader: now.leader });
        }
        if let Some(refusal) = self.refuse(tag, &command) {
            return Err(refusal);
        }
        let kib = u32::try_from(command.len() / 1024 + 1).unwrap_or(u32::MAX);
        let propose = async {
            let budget = self.limits.budget.clone();
            let not_led = ProposeError::NotLeader { group, leader: None };
            let permit = budget.acquire_many_owned(kib).await.map_err(|_| not_led.clone())?;
            let (answer, reply) = oneshot::channel();
            // A queue stands still while this node is cut off, and moves again when it leads once
            // more. What was asked for before must not come behind what others wrote meanwhile.
            let term = term.unwrap_or(now.term);
            let pending = Pending { item: Item { tag, body: command }, term, answer, permit };
            self.queue.send(pending).await.map_err(|_| not_led)?;
            reply.await.unwrap_or(Err(ProposeError::Unknown { group }))
        };
        let done = tokio::time::timeout(PROPOSE_TIMEOUT, propose).await;
        done.unwrap_or(Err(ProposeError::Unknown { group }))
    }

    async fn read_barrier(&self) -> Result<(), ReadError> {
        let group = self.group();
        let mut watch = self.leadership.subscribe();
        let barrier = async {
            loop {
                watch.mark_unchanged();
                if let Some(index) = self.read_index().await {
                    let mut applied = self.shared.applied.subscribe();
                    let reached = applied.wait_for(|(_, at)| *at >= index).await;
                    return reached.map(|_| ()).map_err(|_| ReadError { group });
                }
                drop(tokio::time::timeout(Duration::from_millis(50), watch.changed()).await);
            }
        };
        let done = tokio::time::timeout(READ_TIMEOUT, barrier).await;
        done.unwrap_or(Err(ReadError { group }))
    }

    async fn transfer(&self, to: NodeId) -> Result<(), TransferError> {
        self.transfer_to(to).await
    }

    async fn log_state(&self) -> Result<LogState, ReadError> {
        self.state_of_log().await
    }

    fn behind(&self) -> BTreeSet<NodeId> {
        self.behind.lock().clone()
    }

    fn disk_low(&self) -> Option<NodeId> {
        let low = self.limits.disk_low.load(Ordering::Relaxed);
        (low != 0).then_some(NodeId(low))
    }

    async fn reach_all(&self, index: u64) -> bool {
        let done = tokio::time::timeout(PROPOSE_TIMEOUT, self.wait_for_all(index)).await;
        done.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(len: usize, term: u64) -> Pending {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let item = Item { tag: 1, body: vec![0; len].into() };
        Pending { item, term, answer: oneshot::channel().0, permit }
    }

    /// How many commands go into each entry.
    fn entries(commands: &[(usize, u64)]) -> Vec<usize> {
        let (queue, mut waiting) = mpsc::channel(QUEUE);
        for (len, term) in commands {
            assert!(queue.try_send(pending(*len, *term)).is_ok());
        }
        let mut sizes = Vec::new();
        let mut left = waiting.try_recv().ok();
        while let Some(first) = left.take() {
            let mut batch = Batch::new(first);
            let rest = batch.fill(&mut waiting);
            sizes.push(batch.commands.len());
            left = rest.or_else(|| waiting.try_recv().ok());
        }
        sizes
    }

    #[test]
    fn what_waits_shares_an_entry_up_to_its_limit_and_never_across_terms() {
        assert_eq!(entries(&[(10, 3); 50]), [50]);
        assert_eq!(entries(&[(MERGE_BYTES / 2, 3); 5]), [2, 2, 1]);
        assert_eq!(entries(&[(5 * MERGE_BYTES, 3), (1, 3), (1, 3)]), [1, 2]);
        assert_eq!(entries(&[(1, 2), (1, 3), (1, 3), (1, 4)]), [1, 2, 1]);
    }
}
