//! The network between simulated nodes.
//!
//! Each (from, to, lane) is a connection: what is sent arrives in order after a random delay, or
//! not at all. When a message is lost (the way is cut, or by chance) its connection breaks and
//! everything queued on it is lost as well, as with TCP. The sender learns of it at once when
//! the other process is not running, otherwise after some seconds or by its own timeout.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::env::{Random, SeededRandom};
use base::{NodeId, TaskGroup};
use bytes::Bytes;
use consensus::net::{Answer, CallError, Identity, Link, RaftHandler, Reply};
use consensus::{Lane, Message, PeerError, PeerHandler, Peers};
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Messages on their way on one connection.
const QUEUE: usize = 1024;
/// A peer that was silent for longer counts as dead; as over TCP.
const ALIVE_WITHIN: Duration = Duration::from_millis(1_200);
/// The longest time until a sender learns that its message was lost.
const SILENCE_MS: u64 = 3_000;

/// How the network behaves, cuts aside.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Shortest and longest delay of a message, in microseconds.
    pub delay_us: (u64, u64),
    /// One message in so many is lost; 0: none.
    pub loss_one_in: u64,
}

impl Weather {
    /// Half a millisecond, nothing lost.
    pub const CALM: Self = Self { delay_us: (200, 800), loss_one_in: 0 };
}

struct State {
    ports: BTreeMap<NodeId, Arc<SimPort>>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    weather: Weather,
}

/// The network. Shared by all nodes.
pub struct SimNet {
    nodes: Vec<NodeId>,
    state: Mutex<State>,
    random: SeededRandom,
}

/// What became of a message.
enum Route {
    Open(Arc<SimPort>),
    /// Nobody listens there.
    Refused,
    Lost,
}

impl SimNet {
    /// A calm network between `nodes`.
    pub fn new(seed: u64, nodes: Vec<NodeId>) -> Arc<Self> {
        let state = State { ports: BTreeMap::new(), cuts: BTreeSet::new(), weather: Weather::CALM };
        Arc::new(Self { nodes, state: Mutex::new(state), random: SeededRandom::new(seed) })
    }

    /// Drops everything that goes from one node to another, until [`Self::heal`].
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.state.lock().cuts.insert((from, to));
    }

    /// Opens every way.
    pub fn heal(&self) {
        self.state.lock().cuts.clear();
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Lets a node hear and be heard. Messages reach it from now on.
    pub fn attach(&self, port: Arc<SimPort>) {
        self.state.lock().ports.insert(port.me(), port);
    }

    /// Takes a node off the network for good.
    pub fn detach(&self, node: NodeId) {
        if let Some(port) = self.state.lock().ports.remove(&node) {
            port.over.store(true, Ordering::SeqCst);
        }
    }

    fn delay(&self) -> Duration {
        let (low, high) = self.state.lock().weather.delay_us;
        Duration::from_micros(low + self.random.below(high.saturating_sub(low) + 1))
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.random.below(SILENCE_MS))
    }

    fn route(&self, from: NodeId, to: NodeId) -> Route {
        let state = self.state.lock();
        let loss = state.weather.loss_one_in;
        if state.cuts.contains(&(from, to)) || loss > 0 && self.random.below(loss) == 0 {
            return Route::Lost;
        }
        state.ports.get(&to).map_or(Route::Refused, |port| Route::Open(port.clone()))
    }
}

/// A request under way.
struct Parcel {
    arrival: Instant,
    method: u16,
    message: Message,
    answer: oneshot::Sender<Result<Message, CallError>>,
}

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
                queues.push((*to, queue));
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
            tasks: tasks.clone(),
        });
        for (to, queue) in queues {
            tasks.spawn("sim lane", this.clone().run_lane(to, queue));
        }
        this
    }

    fn saw(&self, node: NodeId) {
        self.seen.lock().insert(node, Instant::now());
    }

    async fn run_lane(self: Arc<Self>, to: NodeId, mut queue: mpsc::Receiver<Parcel>) {
        while let Some(parcel) = queue.recv().await {
            tokio::time::sleep_until(parcel.arrival).await;
            match self.net.route(self.me, to) {
                Route::Open(port) => port.deliver(&self, parcel),
                Route::Refused => refuse(parcel),
                Route::Lost => {
                    self.lose(parcel);
                    while let Ok(parcel) = queue.try_recv() {
                        self.lose(parcel);
                    }
                }
            }
        }
    }

    /// The sender hears of a lost message late, if it still listens.
    fn lose(&self, parcel: Parcel) {
        let silence = self.net.silence();
        self.tasks.spawn("sim loss", async move {
            tokio::time::sleep(silence).await;
            drop(parcel.answer.send(Err(CallError::Lost("connection broke".to_owned()))));
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
        if self.over.load(Ordering::SeqCst) {
            return refuse(parcel);
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
            if matches!(this.net.route(this.me, sender.me), Route::Open(_)) {
                sender.saw(this.me);
                drop(answer.send(result.map_err(CallError::Refused)));
            } else {
                tokio::time::sleep(this.net.silence()).await;
                drop(answer);
            }
        });
    }
}

fn refuse(parcel: Parcel) {
    // The sender may have given up.
    drop(parcel.answer.send(Err(CallError::NotSent("connection refused".to_owned()))));
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
        if self.over.load(Ordering::SeqCst) {
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
        None
    }
}
