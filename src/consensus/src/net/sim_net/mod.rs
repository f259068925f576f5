//! A network in memory, between the nodes of a simulation.
//!
//! Each (from, to, lane) is a connection: what is sent arrives in order after a random delay, or
//! not at all. When a message is lost (the way is cut, or by chance) its connection breaks and
//! everything queued on it is lost as well, as with TCP. The sender learns of it at once when
//! the other process is not running, otherwise after a silence or by its own timeout. Nodes say
//! who they are when a connection begins; one of another cluster is turned away. An answer
//! reaches only the life that asked.
//!
//! For tests, a receiver can be made to take replication without answering, and requests are
//! counted.

mod port;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::env::{Random, SeededRandom};
use base::{GroupId, NodeId};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{CallError, methods, proto};
use crate::peer::{Lane, Message, Peers as _};

pub use self::port::SimPort;

/// How the network behaves, cuts aside.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Shortest and longest delay of a message, in microseconds.
    pub delay_us: (u64, u64),
    /// One message in so many is lost; 0: none.
    pub loss_one_in: u64,
    /// Shortest and longest time until a sender learns that its message was lost, in
    /// milliseconds.
    pub silence_ms: (u64, u64),
}

impl Weather {
    /// Half a millisecond, nothing lost; what a cut loses is known within three seconds.
    pub const CALM: Self = Self { delay_us: (200, 800), loss_one_in: 0, silence_ms: (0, 2_999) };
}

struct State {
    ports: BTreeMap<NodeId, Arc<SimPort>>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    weather: Weather,
    /// Takes replication and does not answer.
    stalled: Option<NodeId>,
    /// What the stalled node took.
    held: Vec<Parcel>,
    /// Requests that came to the end of their way or were lost on it, by receiver and method.
    sent: BTreeMap<(NodeId, u16), u64>,
}

/// The network. Shared by all nodes.
pub struct SimNet {
    nodes: Vec<NodeId>,
    state: Mutex<State>,
    random: SeededRandom,
}

/// What becomes of a message.
enum Route {
    Open(Arc<SimPort>),
    /// Nobody listens there.
    Refused,
    Lost,
}

/// A request under way.
struct Parcel {
    arrival: Instant,
    method: u16,
    message: Message,
    answer: oneshot::Sender<Result<Message, CallError>>,
}

impl Parcel {
    /// Tells the sender that nobody took it.
    fn refuse(self) {
        self.end(CallError::NotSent("connection refused".to_owned()));
    }

    /// Tells the sender that it may or may not have been taken.
    fn lose(self) {
        self.end(CallError::Lost("connection broke".to_owned()));
    }

    fn end(self, error: CallError) {
        // The sender may have given up.
        drop(self.answer.send(Err(error)));
    }

    fn is_replication_of(&self, group: GroupId) -> bool {
        let head = proto::AppendRequest::decode(self.message.head.clone());
        head.is_ok_and(|head| head.group == u32::from(group.0))
    }
}

impl SimNet {
    /// A calm network between `nodes`.
    pub fn new(seed: u64, nodes: Vec<NodeId>) -> Arc<Self> {
        let state = State {
            ports: BTreeMap::new(),
            cuts: BTreeSet::new(),
            weather: Weather::CALM,
            stalled: None,
            held: Vec::new(),
            sent: BTreeMap::new(),
        };
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

    /// Takes a life of a node off the network for good.
    pub fn detach(&self, node: NodeId) {
        if let Some(port) = self.state.lock().ports.remove(&node) {
            port.end();
        }
    }

    /// From now on a node takes replication requests and answers none, as with a disk that
    /// hangs. It still answers heartbeats and votes.
    pub fn stall(&self, node: NodeId) {
        self.state.lock().stalled = Some(node);
    }

    /// Ends that; the connection on which the node took requests breaks.
    pub fn release(&self) {
        let held = {
            let mut state = self.state.lock();
            state.stalled = None;
            std::mem::take(&mut state.held)
        };
        held.into_iter().for_each(Parcel::lose);
    }

    /// Bytes of entries in each request of a group that the stalled node took and whose sender
    /// still waits for the answer.
    pub fn awaited(&self, group: GroupId) -> Vec<usize> {
        let state = self.state.lock();
        let awaited = state.held.iter().filter(|parcel| !parcel.answer.is_closed());
        let of_group = awaited.filter(|parcel| parcel.is_replication_of(group));
        of_group.map(|parcel| parcel.message.payload.len()).collect()
    }

    /// Requests that the stalled node took, given up or not.
    pub fn held(&self) -> usize {
        self.state.lock().held.len()
    }

    /// How many requests of a method were sent to a node, those still on their way aside.
    pub fn sent(&self, to: NodeId, method: u16) -> u64 {
        self.state.lock().sent.get(&(to, method)).copied().unwrap_or(0)
    }

    fn count(&self, to: NodeId, method: u16) {
        *self.state.lock().sent.entry((to, method)).or_default() += 1;
    }

    fn delay(&self) -> Duration {
        let range = self.state.lock().weather.delay_us;
        Duration::from_micros(self.draw(range))
    }

    fn silence(&self) -> Duration {
        let range = self.state.lock().weather.silence_ms;
        Duration::from_millis(self.draw(range))
    }

    fn draw(&self, (low, high): (u64, u64)) -> u64 {
        low + self.random.below(high.saturating_sub(low) + 1)
    }

    fn route(&self, from: NodeId, to: NodeId) -> Route {
        let state = self.state.lock();
        let loss = state.weather.loss_one_in;
        if state.cuts.contains(&(from, to)) || loss > 0 && self.random.below(loss) == 0 {
            return Route::Lost;
        }
        state.ports.get(&to).map_or(Route::Refused, |port| Route::Open(port.clone()))
    }

    /// Keeps a replication request to a stalled node; any other comes back.
    fn hold(&self, to: NodeId, lane: Lane, parcel: Parcel) -> Option<Parcel> {
        let mut state = self.state.lock();
        let is_replication = parcel.method == methods::APPEND && lane == Lane::Append;
        if state.stalled != Some(to) || !is_replication {
            return Some(parcel);
        }
        state.held.push(parcel);
        None
    }
}
