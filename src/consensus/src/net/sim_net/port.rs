//! One life of a node on the network in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use base::{NodeId, TaskGroup};
use bytes::Bytes;
use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Parcel, Route, SimNet};
use crate::net::{Answer, CallError, Identity, Link, RaftHandler, Reply};
use crate::peer::{Lane, Message, PeerError, PeerHandler, Peers};

/// Messages on their way on one connection.
const QUEUE: usize = 1024;
/// A peer that was silent for longer counts as dead; as over TCP.
const ALIVE_WITHIN: Duration = Duration::from_millis(1_200);
/// The cluster of a node before birth.
const UNBORN: [u8; 16] = [0; 16];

/// One life of a node on the network.
pub struct SimPort {
    net: Arc<SimNet>,
    identity: Mutex<Identity>,
    me: NodeId,
    over: AtomicBool,
    lanes: BTreeMap<(NodeId, u8), mpsc::Sender<Parcel>>,
    handlers: Mutex<HashMap<u8, Arc<dyn PeerHandler>>>,
    raft: Mutex<Option<Arc<dyn RaftHandler>>>,
    seen: Mutex<BTreeMap<NodeId, Instant>>,
    foreign: Mutex<Option<NodeId>>,
    tasks: TaskGroup,
}

fn lane_number(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Append => 1,
        Lane::Bulk => 2,
    }
}

impl SimPort {
    /// A port that is not attached yet. Its messages move in `tasks`.
    pub fn new(net: &Arc<SimNet>, identity: Identity, tasks: &TaskGroup) -> Arc<Self> {
        let mut lanes = BTreeMap::new();
        let mut queues = Vec::new();
        for to in net.nodes.iter().filter(|n| **n != identity.node) {
            for lane in [Lane::Control, Lane::Append, Lane::Bulk] {
                let (sender, queue) = mpsc::channel(QUEUE);
                lanes.insert((*to, lane_number(lane)), sender);
                queues.push((*to, lane, queue));
            }
        }
        let this = Arc::new(Self {
            net: net.clone(),
            identity: Mutex::new(identity),
            me: identity.node,
            over: AtomicBool::new(false),
            lanes,
            handlers: Mutex::default(),
            raft: Mutex::default(),
            seen: Mutex::default(),
            foreign: Mutex::default(),
            tasks: tasks.clone(),
        });
        for (to, lane, queue) in queues {
            tasks.spawn("sim lane", this.clone().run_lane(to, lane, queue));
        }
        this
    }

    /// From now on it neither sends nor takes anything.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn saw(&self, node: NodeId) {
        self.seen.lock().insert(node, Instant::now());
    }

    async fn run_lane(self: Arc<Self>, to: NodeId, lane: Lane, mut queue: mpsc::Receiver<Parcel>) {
        // The life at the other end of the connection, if there is one.
        let mut connected = Weak::new();
        while let Some(parcel) = queue.recv().await {
            tokio::time::sleep_until(parcel.arrival).await;
            self.net.count(to, parcel.method);
            let Some(parcel) = self.net.hold(to, lane, parcel) else { continue };
            match self.net.route(self.me, to) {
                Route::Open(peer) if self.is_connected(&mut connected, &peer) => {
                    peer.deliver(&self, parcel);
                }
                Route::Open(_) | Route::Refused => {
                    connected = Weak::new();
                    parcel.refuse();
                }
                Route::Lost => {
                    connected = Weak::new();
                    self.lose(parcel);
                    while let Ok(parcel) = queue.try_recv() {
                        self.net.count(to, parcel.method);
                        self.lose(parcel);
                    }
                }
            }
        }
    }

    /// Whether the connection leads to this life of the peer, or a new one to it can be made:
    /// both ends must be of one cluster, unless one of them is of none yet.
    fn is_connected(&self, connected: &mut Weak<Self>, peer: &Arc<Self>) -> bool {
        if std::ptr::eq(connected.as_ptr(), Arc::as_ptr(peer)) {
            return true;
        }
        let (mine, theirs) = (self.identity().cluster, peer.identity().cluster);
        if mine != theirs && mine != UNBORN && theirs != UNBORN {
            *self.foreign.lock() = Some(peer.me);
            return false;
        }
        *connected = Arc::downgrade(peer);
        true
    }

    /// The sender hears of a lost message late, if it still listens.
    fn lose(&self, parcel: Parcel) {
        let silence = self.net.silence();
        self.tasks.spawn("sim loss", async move {
            tokio::time::sleep(silence).await;
            parcel.lose();
        });
    }

    fn reply(&self, from: NodeId, method: u16, message: Message) -> Reply {
        let tag = method.to_be_bytes()[0];
        if tag == 0 {
            return match self.raft.lock().clone() {
                Some(raft) => raft.answer(from, method, message),
                None => Box::pin(async { Err("not started".to_owned()) }),
            };
        }
        let handler = self.handlers.lock().get(&tag).cloned();
        Box::pin(async move {
            match handler {
                Some(handler) => handler.handle(from, method, message).await,
                None => Err(format!("no service has tag {tag}")),
            }
        })
    }

    /// Answers a request of a peer.
    fn deliver(self: &Arc<Self>, sender: &Arc<Self>, parcel: Parcel) {
        if self.is_over() {
            return parcel.refuse();
        }
        let Parcel { method, message, answer, .. } = parcel;
        let sender = sender.clone();
        self.saw(sender.me);
        let mut reply = self.reply(sender.me, method, message);
        // Raft messages must enter Raft in order: the first poll hands them over.
        let early = if method >> 8 == 0 { (&mut reply).now_or_never() } else { None };
        let this = self.clone();
        self.tasks.spawn("sim answer", async move {
            let result = match early {
                Some(result) => result,
                None => reply.await,
            };
            tokio::time::sleep(this.net.delay()).await;
            match this.net.route(this.me, sender.me) {
                Route::Open(life) if Arc::ptr_eq(&life, &sender) => {
                    sender.saw(this.me);
                    drop(answer.send(result.map_err(CallError::Refused)));
                }
                // The life that asked is over.
                Route::Open(_) => drop(answer),
                Route::Refused | Route::Lost => {
                    tokio::time::sleep(this.net.silence()).await;
                    drop(answer);
                }
            }
        });
    }
}

#[async_trait]
impl Peers for SimPort {
    fn me(&self) -> NodeId {
        self.me
    }

    fn all(&self) -> Vec<NodeId> {
        self.net.nodes.clone()
    }

    fn is_alive(&self, node: NodeId) -> bool {
        let seen = self.seen.lock().get(&node).copied();
        node == self.me || seen.is_some_and(|at| at.elapsed() < ALIVE_WITHIN)
    }

    fn register(&self, tag: u8, handler: Arc<dyn PeerHandler>) {
        self.handlers.lock().insert(tag, handler);
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
impl Link for SimPort {
    async fn begin(
        &self,
        to: NodeId,
        lane: Lane,
        method: u16,
        head: Bytes,
        payload: Vec<Bytes>,
    ) -> Result<Answer, CallError> {
        let gone = || CallError::NotSent("the node stops".to_owned());
        if self.is_over() {
            return Err(gone());
        }
        let (answer, receiver) = oneshot::channel();
        let message = Message { head, payload: payload.concat().into() };
        if to == self.me {
            let reply = self.reply(to, method, message);
            self.tasks.spawn("sim own answer", async move {
                drop(answer.send(reply.await.map_err(CallError::Refused)));
            });
            return Ok(receiver);
        }
        let lane = self.lanes.get(&(to, lane_number(lane)));
        let lane = lane.ok_or_else(|| CallError::NotSent(format!("node {to} is unknown")))?;
        // Delays do not reorder: the lane waits for each message in turn.
        let arrival = Instant::now() + self.net.delay();
        let sent = lane.send(Parcel { arrival, method, message, answer }).await;
        sent.map_err(|_| gone())?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sim_net::Weather;

    const METHOD: u16 = 0x0900;
    const PATIENCE: Duration = Duration::from_secs(10);
    const STEADY: Weather =
        Weather { delay_us: (4_000, 4_000), loss_one_in: 0, silence_ms: (1_000, 1_000) };

    struct Echo;

    #[async_trait]
    impl PeerHandler for Echo {
        async fn handle(&self, _: NodeId, _: u16, request: Message) -> Result<Message, String> {
            Ok(request)
        }
    }

    fn net() -> Arc<SimNet> {
        let net = SimNet::new(1, vec![NodeId(1), NodeId(2)]);
        net.set_weather(STEADY);
        net
    }

    fn port(net: &Arc<SimNet>, node: u16, cluster: u8, tasks: &TaskGroup) -> Arc<SimPort> {
        let cluster = [cluster; 16];
        let identity = Identity { node: NodeId(node), raft_id: u64::from(node), cluster };
        let port = SimPort::new(net, identity, tasks);
        port.register(9, Arc::new(Echo));
        net.attach(port.clone());
        port
    }

    async fn begin(port: &SimPort, to: u16) -> Answer {
        let begun = port.begin(NodeId(to), Lane::Control, METHOD, Bytes::new(), vec![]).await;
        begun.unwrap()
    }

    async fn end(answer: Answer) -> Option<Result<Message, CallError>> {
        tokio::time::timeout(PATIENCE, answer).await.unwrap().ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_message_takes_what_is_queued_behind_it_along() {
        let (net, tasks) = (net(), TaskGroup::new());
        let (one, _two) = (port(&net, 1, 5, &tasks), port(&net, 2, 5, &tasks));
        assert_eq!(end(begin(&one, 2).await).await, Some(Ok(Message::default())));
        assert!(one.is_alive(NodeId(2)));
        net.cut(NodeId(1), NodeId(2));
        let begun = Instant::now();
        let answers = [begin(&one, 2).await, begin(&one, 2).await];
        for answer in answers {
            assert!(matches!(end(answer).await, Some(Err(CallError::Lost(_)))));
        }
        // A timer of tokio may be late by a millisecond.
        let silence = begun.elapsed().as_millis();
        assert!((1_004..1_008).contains(&silence), "{silence} ms");
        assert_eq!(net.sent(NodeId(2), METHOD), 3);
        net.heal();
        assert_eq!(end(begin(&one, 2).await).await, Some(Ok(Message::default())));
        tasks.shutdown(PATIENCE).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_reaches_only_the_life_that_asked() {
        let (net, tasks) = (net(), TaskGroup::new());
        let (one, _two) = (port(&net, 1, 5, &tasks), port(&net, 2, 5, &tasks));
        let answer = begin(&one, 2).await;
        tokio::time::sleep(Duration::from_millis(6)).await;
        net.detach(NodeId(1));
        let again = port(&net, 1, 5, &tasks);
        assert_eq!(end(answer).await, None);
        assert!(!again.is_alive(NodeId(2)), "it heard nothing yet");
        assert_eq!(end(begin(&again, 2).await).await, Some(Ok(Message::default())));
        let late = one.begin(NodeId(2), Lane::Control, METHOD, Bytes::new(), vec![]).await;
        assert!(matches!(late, Err(CallError::NotSent(_))), "its life is over");
        tasks.shutdown(PATIENCE).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_of_another_cluster_is_turned_away() {
        let (net, tasks) = (net(), TaskGroup::new());
        let (one, two) = (port(&net, 1, 0, &tasks), port(&net, 2, 6, &tasks));
        assert_eq!(end(begin(&one, 2).await).await, Some(Ok(Message::default())));
        one.set_cluster([5; 16]);
        let kept = end(begin(&one, 2).await).await;
        assert_eq!(kept, Some(Ok(Message::default())), "on the connection of before");
        net.detach(NodeId(2));
        let two_again = port(&net, 2, 6, &tasks);
        assert!(matches!(end(begin(&one, 2).await).await, Some(Err(CallError::NotSent(_)))));
        assert_eq!(one.foreign(), Some(NodeId(2)));
        assert_eq!((two.foreign(), two_again.foreign()), (None, None));
        tasks.shutdown(PATIENCE).await;
    }
}
