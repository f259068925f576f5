//! A group of one node without a log, and peers that are only oneself: for the unit tests of
//! services. Nothing is durable.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{GroupId, NodeId};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::group::{
    Applied, Group, Leadership, LogState, ProposeError, ReadError, ReplicaLog, TransferError,
};
use crate::machine::{ApplyAt, StateMachine};
use crate::peer::{Lane, Message, PeerError, PeerHandler, Peers};
use crate::table::{MemStore, Rows, RowsReader, TableStore};

struct Inner {
    index: u64,
    time_ms: i64,
    machines: BTreeMap<u8, Box<dyn StateMachine>>,
    /// What was applied, in order.
    history: Vec<(u8, Bytes)>,
}

/// A group whose commands are applied at once.
pub struct SoloGroup {
    id: GroupId,
    inner: Mutex<Inner>,
    store: Arc<MemStore>,
    leadership: watch::Sender<Leadership>,
    ahead: Option<Arc<Self>>,
}

impl SoloGroup {
    /// A group over the given machines, by tag. Panics when a machine cannot restore from
    /// nothing.
    pub fn new(id: GroupId, machines: Vec<(u8, Box<dyn StateMachine>)>) -> Arc<Self> {
        Self::start(id, machines, None)
    }

    /// A replica that is behind another: it applies nothing of it before a read barrier.
    pub fn behind(ahead: &Arc<Self>, machines: Vec<(u8, Box<dyn StateMachine>)>) -> Arc<Self> {
        Self::start(ahead.id, machines, Some(ahead.clone()))
    }

    fn start(
        id: GroupId,
        machines: Vec<(u8, Box<dyn StateMachine>)>,
        ahead: Option<Arc<Self>>,
    ) -> Arc<Self> {
        let store = Arc::new(MemStore::default());
        let mut machines: BTreeMap<_, _> = machines.into_iter().collect();
        for (tag, machine) in &mut machines {
            let mut pending = BTreeMap::new();
            machine
                .restore(&Rows::new(&*store, &mut pending, *tag))
                .expect("restores from nothing");
        }
        let leader = Some(NodeId(1));
        let leadership = Leadership { term: 1, leader, last_leader: leader, ready_here: true };
        let (index, time_ms, history) = (0, 1_700_000_000_000, Vec::new());
        let inner = Mutex::new(Inner { index, time_ms, machines, history });
        Arc::new(Self { id, inner, store, leadership: watch::Sender::new(leadership), ahead })
    }

    /// Begins a term with a leader, or without one.
    pub fn begin_term(&self, leader: Option<NodeId>) {
        self.leadership.send_modify(|now| {
            let term = now.term + 1;
            *now = Leadership { term, leader, last_leader: leader, ready_here: leader.is_some() };
        });
    }

    /// Reads rows of a service.
    pub fn reader(&self, tag: u8) -> RowsReader {
        RowsReader::new(self.store.clone(), tag)
    }

    /// Moves the clock that commands are stamped with.
    pub fn advance_ms(&self, ms: i64) {
        self.inner.lock().time_ms += ms;
    }

    /// Makes a checkpoint of every machine, disk work included.
    pub fn checkpoint(&self) {
        let mut inner = self.inner.lock();
        let index = inner.index;
        for (tag, machine) in &mut inner.machines {
            let mut pending = BTreeMap::new();
            machine
                .capture(&mut Rows::new(&*self.store, &mut pending, *tag))
                .expect("captures its state");
            let changes: Vec<_> = pending.into_iter().collect();
            self.store.write_batch(index, &changes).expect("memory takes writes");
            machine.begin_checkpoint()().expect("the disk of a test works");
        }
    }

    /// Applies one command now.
    pub fn apply(&self, tag: u8, command: Bytes) -> Applied {
        let mut inner = self.inner.lock();
        inner.index += 1;
        inner.history.push((tag, command.clone()));
        let term = self.leadership.borrow().term;
        let at = ApplyAt { group: self.id, index: inner.index, term, time_ms: inner.time_ms };
        let machine = inner.machines.get_mut(&tag).expect("the tag has a machine");
        let mut pending = BTreeMap::new();
        let reply = machine
            .apply(&at, command, &mut Rows::new(&*self.store, &mut pending, tag))
            .expect("apply in tests");
        let changes: Vec<_> = pending.into_iter().collect();
        self.store.write_batch(at.index, &changes).expect("memory takes writes");
        Applied { index: at.index, reply }
    }
}

#[async_trait]
impl Group for SoloGroup {
    fn id(&self) -> GroupId {
        self.id
    }

    fn watch(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    async fn propose(&self, tag: u8, command: Bytes) -> Result<Applied, ProposeError> {
        Ok(self.apply(tag, command))
    }

    async fn propose_here(
        &self,
        tag: u8,
        command: Bytes,
        _term: Option<u64>,
    ) -> Result<Applied, ProposeError> {
        Ok(self.apply(tag, command))
    }

    async fn read_barrier(&self) -> Result<(), ReadError> {
        if let Some(ahead) = &self.ahead {
            let own = self.inner.lock().history.len();
            let history = ahead.inner.lock().history.clone();
            for (tag, command) in history.into_iter().skip(own) {
                self.apply(tag, command);
            }
        }
        Ok(())
    }

    async fn transfer(&self, to: NodeId) -> Result<(), TransferError> {
        if to == NodeId(1) { Ok(()) } else { Err(TransferError { group: self.id, to }) }
    }

    async fn log_state(&self) -> Result<LogState, ReadError> {
        let (index, leadership) = (self.inner.lock().index, self.leadership());
        let own = ReplicaLog { node: NodeId(1), last_index: index, votes: true };
        Ok(LogState {
            leader: leadership.leader,
            term: leadership.term,
            committed: index,
            replicas: vec![own],
        })
    }

    fn behind(&self) -> BTreeSet<NodeId> {
        BTreeSet::new()
    }

    async fn reach_all(&self, _index: u64) -> bool {
        true
    }
}

/// A cluster of one node.
#[derive(Default)]
pub struct SoloPeers {
    handlers: Mutex<HashMap<u8, Arc<dyn PeerHandler>>>,
}

#[async_trait]
impl Peers for SoloPeers {
    fn me(&self) -> NodeId {
        NodeId(1)
    }

    fn all(&self) -> Vec<NodeId> {
        vec![NodeId(1)]
    }

    fn is_alive(&self, node: NodeId) -> bool {
        node == NodeId(1)
    }

    fn register(&self, tag: u8, handler: Arc<dyn PeerHandler>) {
        self.handlers.lock().insert(tag, handler);
    }

    async fn call(
        &self,
        to: NodeId,
        _lane: Lane,
        method: u16,
        request: Message,
        _timeout: Duration,
    ) -> Result<Message, PeerError> {
        let tag = method.to_be_bytes()[0];
        let handler = self.handlers.lock().get(&tag).cloned();
        let handler = handler.ok_or_else(|| PeerError::Unreachable {
            to,
            reason: format!("no handler for tag {tag}"),
        })?;
        let answer = handler.handle(self.me(), method, request).await;
        answer.map_err(|reason| PeerError::Refused { to, reason })
    }
}
