//! A network in memory: per sender, receiver and lane one connection that keeps order, as TCP
//! does. Ways can be cut, and a receiver can be made to take replication and not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::{GroupId, NodeId, TaskGroup};
use bytes::Bytes;
use futures::FutureExt as _;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::net::{Answer, CallError, Identity, Link, RaftHandler, methods, proto};
use crate::peer::{Lane, Message, PeerError, PeerHandler, Peers};

/// Time of a message from one node to another. Long enough to catch a cluster between two steps.
const DELAY: Duration = Duration::from_millis(4);
/// After so long the sender of a lost message learns that its connection broke.
const BROKEN_AFTER: Duration = Duration::from_secs(1);
/// A peer that was silent for longer counts as dead; as over TCP.
const ALIVE_WITHIN: Duration = Duration::from_millis(1_200);
/// Requests waiting for a connection, per lane; as over TCP.
const QUEUE: usize = 1024;

type AnswerTo = oneshot::Sender<Result<Message, CallError>>;

struct Parcel {
    arrival: Instant,
    method: u16,
    message: Message,
    answer: AnswerTo,
}

#[derive(Default)]
struct State {
    ports: BTreeMap<NodeId, Arc<Port>>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// Takes replication and does not answer.
    stalled: Option<NodeId>,
    /// What the stalled node took.
    held: Vec<Parcel>,
    /// Requests sent, by receiver and method.
    sent: BTreeMap<(NodeId, u16), u64>,
}

/// The network. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Net(Arc<Mutex<State>>);

impl Net {
    /// Drops everything that goes from one node to another, until [`Self::heal`].
    pub(super) fn cut(&self, from: u16, to: u16) {
        self.0.lock().cuts.insert((NodeId(from), NodeId(to)));
    }

    pub(super) fn heal(&self) {
        self.0.lock().cuts.clear();
    }

    pub(super) fn attach(&self, port: Arc<Port>) {
        self.0.lock().ports.insert(port.me(), port);
    }

    /// Takes a life of a node off the network for good.
    pub(super) fn detach(&self, node: u16) {
        if let Some(port) = self.0.lock().ports.remove(&NodeId(node)) {
            port.over.store(true, Ordering::SeqCst);
        }
    }

    /// From now on a node takes replication requests and answers none, as with a disk that
    /// hangs. It still answers heartbeats and votes.
    pub(super) fn stall(&self, node: u16) {
        self.0.lock().stalled = Some(NodeId(node));
    }

    /// Ends that; the connection on which the node took requests breaks.
    pub(super) fn release(&self) {
        let held = {
            let mut state = self.0.lock();
            state.stalled = None;
            std::mem::take(&mut state.held)
        };
        held.into_iter().for_each(lose);
    }

    /// Bytes of entries in each request of a group that the stalled node took and whose sender
    /// still waits for the answer.
    pub(super) fn awaited(&self, group: GroupId) -> Vec<usize> {
        let of_group = |parcel: &&Parcel| {
            let head = proto::AppendRequest::decode(parcel.message.head.clone()).unwrap();
            head.group == u32::from(group.0) && !parcel.answer.is_closed()
        };
        let state = self.0.lock();
        state.held.iter().filter(of_group).map(|parcel| parcel.message.payload.len()).collect()
    }

    /// Requests that the stalled node took, given up or not.
    pub(super) fn held(&self) -> usize {
        self.0.lock().held.len()
    }

    /// How many requests of a method were sent to a node.
    pub(super) fn sent(&self, to: u16, method: u16) -> u64 {
        self.0.lock().sent.get(&(NodeId(to), method)).copied().unwrap_or(0)
    }

    /// The port that a message from `from` reaches; an error says what becomes of it.
    fn route(&self, from: NodeId, to: NodeId) -> Result<Arc<Port>, fn(Parcel)> {
        let state = self.0.lock();
        if state.cuts.contains(&(from, to)) {
            return Err(lose);
        }
        state.ports.get(&to).cloned().ok_or(refuse as fn(Parcel))
    }

    /// Keeps a replication request to a stalled node; any other comes back.
    fn hold(&self, to: NodeId, lane: Lane, parcel: Parcel) -> Option<Parcel> {
        let mut state = self.0.lock();
        *state.sent.entry((to, parcel.method)).or_default() += 1;
        let replication = parcel.method == methods::APPEND && lane == Lane::Append;
        if state.stalled != Some(to) || !replication {
            return Some(parcel);
        }
        state.held.push(parcel);
        None
    }
}

fn refuse(parcel: Parcel) {
    // The sender may have given up.
    drop(parcel.answer.send(Err(CallError::NotSent("connection refused".to_owned()))));
}

fn lose(parcel: Parcel) {
    drop(parcel.answer.send(Err(CallError::Lost("the connection broke".to_owned()))));
}

/// One life of a node on the network.
pub(super) struct Port {
    net: Net,
    nodes: Vec<NodeId>,
    identity: Mutex<Identity>,
    over: AtomicBool,
    lanes: BTreeMap<(NodeId, u8), mpsc::Sender<Parcel>>,
    raft: Mutex<Option<Arc<dyn RaftHandler>>>,
    seen: Mutex<BTreeMap<NodeId, Instant>>,
    foreign: Mutex<Option<NodeId>>,
    tasks: TaskGroup,
}

fn number(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Append => 1,
        Lane::Bulk => 2,
    }
}

impl Port {
    /// A port that is not attached yet.
    pub(super) fn new(
        net: &Net,
        nodes: &[NodeId],
        identity: Identity,
        tasks: &TaskGroup,
    ) -> Arc<Self> {
        let mut lanes = BTreeMap::new();
        let mut queues = Vec::new();
        for to in nodes.iter().filter(|n| **n != identity.node) {
            for lane in [Lane::Control, Lane::Append, Lane::Bulk] {
                let (sender, queue) = mpsc::channel(QUEUE);
                lanes.insert((*to, number(lane)), sender);
                queues.push((*to, lane, queue));
            }
        }
        let this = Arc::new(Self {
            net: net.clone(),
            nodes: nodes.to_vec(),
            identity: Mutex::new(identity),
            over: AtomicBool::new(false),
            lanes,
            raft: Mutex::default(),
            seen: Mutex::default(),
            foreign: Mutex::default(),
            tasks: tasks.clone(),
        });
        for (to, lane, queue) in queues {
            tasks.spawn("lane", this.clone().run_lane(to, lane, queue));
        }
        this
    }

    fn saw(&self, node: NodeId) {
        self.seen.lock().insert(node, Instant::now());
    }

    async fn run_lane(self: Arc<Self>, to: NodeId, lane: Lane, mut queue: mpsc::Receiver<Parcel>) {
        // Who greeted whom when the connection was made; a new life of the peer is a new one.
        let mut connected: Option<Arc<Self>> = None;
        while let Some(parcel) = queue.recv().await {
            tokio::time::sleep_until(parcel.arrival).await;
            let Some(parcel) = self.net.hold(to, lane, parcel) else { continue };
            let port = match self.net.route(self.me(), to) {
                Ok(port) => port,
                Err(end) => {
                    connected = None;
                    self.tasks.spawn("loss", async move {
                        tokio::time::sleep(BROKEN_AFTER).await;
                        end(parcel);
                    });
                    continue;
                }
            };
            if !connected.as_ref().is_some_and(|known| Arc::ptr_eq(known, &port)) {
                let (mine, theirs) = (self.identity().cluster, port.identity().cluster);
                if mine != theirs && mine != [0; 16] && theirs != [0; 16] {
                    *self.foreign.lock() = Some(to);
                    refuse(parcel);
                    continue;
                }
                connected = Some(port.clone());
            }
            port.take(&self, parcel);
        }
    }

    /// Answers a request of a peer.
    fn take(self: &Arc<Self>, sender: &Arc<Self>, parcel: Parcel) {
        let raft = self.raft.lock().clone();
        let Some(raft) = raft.filter(|_| !self.over.load(Ordering::SeqCst)) else {
            return refuse(parcel);
        };
        let Parcel { method, message, answer, .. } = parcel;
        self.saw(sender.me());
        let mut reply = raft.answer(sender.me(), method, message);
        // Raft messages must enter Raft in order: the first poll hands them over.
        let early = (&mut reply).now_or_never();
        let (this, sender) = (self.clone(), sender.clone());
        self.tasks.spawn("answer", async move {
            let result = match early {
                Some(result) => result,
                None => reply.await,
            };
            tokio::time::sleep(DELAY).await;
            if this.net.route(this.me(), sender.me()).is_ok_and(|p| Arc::ptr_eq(&p, &sender)) {
                sender.saw(this.me());
                drop(answer.send(result.map_err(CallError::Refused)));
            } else {
                tokio::time::sleep(BROKEN_AFTER).await;
                drop(answer);
            }
        });
    }
}

#[async_trait]
impl Peers for Port {
    fn me(&self) -> NodeId {
        self.identity.lock().node
    }

    fn all(&self) -> Vec<NodeId> {
        self.nodes.clone()
    }

    fn is_alive(&self, node: NodeId) -> bool {
        let seen = self.seen.lock().get(&node).copied();
        node == self.me() || seen.is_some_and(|at| at.elapsed() < ALIVE_WITHIN)
    }

    fn register(&self, _tag: u8, _handler: Arc<dyn PeerHandler>) {
        // Only consensus itself speaks here.
    }

    async fn call(
        &self,
        to: NodeId,
        lane: Lane,
        method: u16,
        request: Message,
        timeout: Duration,
    ) -> Result<Message, PeerError> {
        let answer = self.begin(to, lane, method, request.head, vec![request.payload]);
        let result = tokio::time::timeout(timeout, async { answer.await?.await.ok().transpose() });
        match result.await {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Err(CallError::Refused(reason))) => Err(PeerError::Refused { to, reason }),
            other => Err(PeerError::Unreachable { to, reason: format!("{other:?}") }),
        }
    }
}

#[async_trait]
impl Link for Port {
    async fn begin(
        &self,
        to: NodeId,
        lane: Lane,
        method: u16,
        head: Bytes,
        payload: Vec<Bytes>,
    ) -> Result<Answer, CallError> {
        let gone = || CallError::NotSent("the node stops".to_owned());
        let (answer, receiver) = oneshot::channel();
        let message = Message { head, payload: payload.concat().into() };
        if to == self.me() {
            let raft = self.raft.lock().clone().ok_or_else(gone)?;
            let reply = raft.answer(to, method, message);
            self.tasks.spawn("own answer", async move {
                drop(answer.send(reply.await.map_err(CallError::Refused)));
            });
            return Ok(receiver);
        }
        let lane = self.lanes.get(&(to, number(lane))).ok_or_else(gone)?;
        let arrival = Instant::now() + DELAY;
        lane.send(Parcel { arrival, method, message, answer }).await.map_err(|_| gone())?;
        Ok(receiver)
    }

    fn register_raft(&self, handler: Arc<dyn RaftHandler>) {
        *self.raft.lock() = Some(handler);
    }

    fn identity(&self) -> Identity {
        *self.identity.lock()
    }

    fn set_cluster(&self, cluster: [u8; 16]) {
        self.identity.lock().cluster = cluster;
    }

    fn foreign(&self) -> Option<NodeId> {
        *self.foreign.lock()
    }
}
