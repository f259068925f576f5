//! Peers over TCP.
//!
//! Each (peer, lane) has one outgoing connection, opened when first needed and again after it
//! broke. Requests in flight when it breaks end as [`CallError::Lost`]; requests made while the
//! peer cannot be reached end at once as [`CallError::NotSent`].
//!
//! A connection begins with a greeting that names cluster, node and Raft id; a node of another
//! cluster is turned away on both sides.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::limits::{KIB, MIB};
use base::{Env, NodeId, TaskGroup};
use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use socket2::TcpKeepalive;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::frame::{self, Incoming, Kind, Outgoing, Room};
use super::{Answer, CallError, Identity, Link, RaftHandler};
use crate::peer::{Lane, Message, PeerError, PeerHandler, Peers};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the kernel keeps trying to deliver before it declares the connection broken.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two questions whether an idle connection is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// After a failed connection attempt, requests fail at once for this long.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// A peer that was silent for longer counts as dead.
const ALIVE_WITHIN: Duration = Duration::from_millis(1_200);
/// Requests waiting for a connection, per lane.
const QUEUE: usize = 1024;
/// Requests of one connection that are being answered.
const MAX_ANSWERING: usize = 512;
/// Incoming connections of a node: three lanes of each peer, and reconnects.
const MAX_CONNECTIONS: usize = 64;
const MAGIC: &[u8; 5] = b"TRNP\x01";
/// Answers to a greeting.
const WELCOME: u8 = 0;
const OTHER_CLUSTER: u8 = 1;
const OTHER_NODE: u8 = 2;
const GREETING_BYTES: usize = 5 + 1 + 2 + 2 + 8 + 16;

/// Where a peer listens, as `host:port`.
#[derive(Clone, Debug)]
pub struct PeerAddress {
    /// Control and append lanes.
    pub raft: String,
    /// Bulk lane.
    pub bulk: String,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Message, CallError>>>>>;

struct Request {
    frame: Outgoing,
    answer: oneshot::Sender<Result<Message, CallError>>,
}

/// All peers of this node.
pub struct TcpPeers {
    env: Env,
    identity: Mutex<Identity>,
    addresses: BTreeMap<NodeId, PeerAddress>,
    lanes: BTreeMap<(NodeId, u8), mpsc::Sender<Request>>,
    handlers: RwLock<HashMap<u8, Arc<dyn PeerHandler>>>,
    raft: RwLock<Option<Arc<dyn RaftHandler>>>,
    /// When a node was heard last, in milliseconds; 0 before the first time.
    seen: BTreeMap<NodeId, AtomicU64>,
    started: Duration,
    next_id: AtomicU64,
    foreign: Mutex<Option<NodeId>>,
    requests_room: Room,
    answers_room: Room,
    tasks: TaskGroup,
}

impl TcpPeers {
    /// Peers at the given addresses, this node's own among them. Connects when needed.
    pub fn start(
        env: &Env,
        identity: Identity,
        addresses: BTreeMap<NodeId, PeerAddress>,
        tasks: &TaskGroup,
    ) -> Arc<Self> {
        let mut lanes = BTreeMap::new();
        let mut queues = Vec::new();
        for node in addresses.keys().filter(|n| **n != identity.node) {
            for lane in [Lane::Control, Lane::Append, Lane::Bulk] {
                let (sender, queue) = mpsc::channel(QUEUE);
                lanes.insert((*node, lane_number(lane)), sender);
                queues.push((*node, lane, queue));
            }
        }
        let this = Arc::new(Self {
            env: env.clone(),
            identity: Mutex::new(identity),
            seen: addresses.keys().map(|n| (*n, AtomicU64::new(0))).collect(),
            started: env.clock.monotonic(),
            addresses,
            lanes,
            handlers: RwLock::default(),
            raft: RwLock::default(),
            next_id: AtomicU64::new(1),
            foreign: Mutex::new(None),
            requests_room: Room::default(),
            answers_room: Room::default(),
            tasks: tasks.clone(),
        });
        for (node, lane, queue) in queues {
            tasks.spawn("peer lane", this.clone().run_lane(node, lane, queue));
        }
        this
    }

    /// Serves peers that connect to `listener`. Register handlers first.
    pub fn serve(self: &Arc<Self>, listener: TcpListener) {
        self.tasks.spawn("peer accept", self.clone().accept(listener));
    }

    fn heard(&self, node: NodeId) -> Option<Duration> {
        let seen = self.seen.get(&node)?.load(Ordering::Relaxed);
        (seen > 0).then(|| Duration::from_millis(seen))
    }

    fn saw(&self, node: NodeId) {
        if let Some(seen) = self.seen.get(&node) {
            let now = u64::try_from(self.env.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
            seen.store(now.max(1), Ordering::Relaxed);
        }
    }

    async fn run_lane(self: Arc<Self>, to: NodeId, lane: Lane, mut queue: mpsc::Receiver<Request>) {
        while let Some(first) = queue.recv().await {
            match self.connect(to, lane).await {
                Ok(stream) => self.run_connection(to, stream, first, &mut queue).await,
                Err(e) => {
                    debug!(%to, ?lane, "cannot connect: {e}");
                    let reason = e.to_string();
                    refuse(first, &reason);
                    let until = tokio::time::Instant::now() + RECONNECT_PAUSE;
                    while let Ok(Some(request)) = tokio::time::timeout_at(until, queue.recv()).await
                    {
                        refuse(request, &reason);
                    }
                }
            }
        }
    }

    async fn connect(&self, to: NodeId, lane: Lane) -> io::Result<TcpStream> {
        let address = self.addresses.get(&to).ok_or(io::ErrorKind::NotFound)?;
        let address = if lane == Lane::Bulk { &address.bulk } else { &address.raft };
        let (stream, status) = introduce(self.identity(), to, lane, address).await?;
        match status {
            WELCOME => Ok(stream),
            OTHER_CLUSTER => {
                let before = self.foreign.lock().replace(to);
                if before.is_none() {
                    warn!(%to, address, "peer belongs to another cluster");
                }
                Err(io::Error::other(format!("{address} belongs to another cluster")))
            }
            _ => Err(io::Error::other(format!("{address} is not node {to}"))),
        }
    }

    async fn run_connection(
        self: &Arc<Self>,
        to: NodeId,
        stream: TcpStream,
        first: Request,
        queue: &mut mpsc::Receiver<Request>,
    ) {
        let (read, write) = stream.into_split();
        let waiting = Waiting::default();
        let reading = self.read_answers(to, read, &waiting);
        let writing = write_requests(write, first, queue, &waiting);
        let reason = tokio::select! {
            e = reading => e,
            e = writing => e,
        };
        debug!(%to, "peer connection ended: {reason}");
        for (_, answer) in waiting.lock().drain() {
            // The asker may have given up.
            drop(answer.send(Err(CallError::Lost(format!("connection to node {to} broke")))));
        }
    }

    async fn read_answers(&self, to: NodeId, read: OwnedReadHalf, waiting: &Waiting) -> String {
        let mut read = BufReader::with_capacity(64 * KIB, read);
        loop {
            match frame::read(&mut read, &self.answers_room).await {
                Ok(Some(Incoming { kind, id, message, .. })) => {
                    self.saw(to);
                    let Some(answer) = waiting.lock().remove(&id) else { continue };
                    let result = match kind {
                        Kind::Answer => Ok(message),
                        Kind::Refusal => {
                            Err(CallError::Refused(String::from_utf8_lossy(&message.head).into()))
                        }
                        Kind::Request => return "a request came on an outgoing connection".into(),
                    };
                    drop(answer.send(result));
                }
                Ok(None) => return "closed by peer".into(),
                Err(e) => return e.to_string(),
            }
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, address)) => {
                    let this = self.clone();
                    self.tasks.spawn("peer connection", async move {
                        if let Err(e) = this.serve_connection(stream, address).await {
                            debug!(%address, "peer connection ended: {e}");
                        }
                        drop(permit);
                    });
                }
                Err(e) => {
                    warn!("cannot accept a peer: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve_connection(
        self: &Arc<Self>,
        mut stream: TcpStream,
        from: SocketAddr,
    ) -> io::Result<()> {
        tune(&stream)?;
        let mut greeting = [0; GREETING_BYTES];
        tokio::time::timeout(GREETING_TIMEOUT, stream.read_exact(&mut greeting)).await??;
        let me = self.identity();
        let (status, peer) = judge(&greeting, me, |node| self.addresses.contains_key(&node))?;
        stream.write_all(&[status]).await?;
        if status != WELCOME {
            info!(%from, node = %peer, status, "turned a peer away");
            return Ok(());
        }
        let (read, write) = stream.into_split();
        let (answers, queue) = mpsc::channel(MAX_ANSWERING * 2);
        self.tasks.spawn("peer answers", async move {
            if let Err(e) = write_frames(write, queue).await {
                debug!("cannot answer a peer: {e}");
            }
        });
        let mut read = BufReader::with_capacity(32 * KIB, read);
        let permits = Arc::new(Semaphore::new(MAX_ANSWERING));
        while let Some(incoming) = frame::read(&mut read, &self.requests_room).await? {
            self.saw(peer);
            let Ok(permit) = permits.clone().acquire_owned().await else { break };
            self.answer(peer, incoming, answers.clone(), permit);
        }
        Ok(())
    }

    fn answer(
        self: &Arc<Self>,
        from: NodeId,
        incoming: Incoming,
        answers: mpsc::Sender<Outgoing>,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) {
        let Incoming { method, id, message, .. } = incoming;
        let tag = method.to_be_bytes()[0];
        let mut reply: super::Reply = if tag == 0 {
            match &*self.raft.read() {
                Some(raft) => raft.answer(from, method, message),
                None => Box::pin(async { Err("not started".to_owned()) }),
            }
        } else {
            let handler = self.handlers.read().get(&tag).cloned();
            Box::pin(async move {
                match handler {
                    Some(handler) => handler.handle(from, method, message).await,
                    None => Err(format!("no service has tag {tag}")),
                }
            })
        };
        // Raft messages must enter Raft in order: the first poll hands them over. Unconstrained,
        // because tokio makes a task that has a lot to read yield in the middle of that.
        let early = match tag {
            0 => futures::FutureExt::now_or_never(tokio::task::unconstrained(&mut reply)),
            _ => None,
        };
        self.tasks.spawn("peer answer", async move {
            let result = match early {
                Some(result) => result,
                None => reply.await,
            };
            let (kind, message) = match result {
                Ok(message) => (Kind::Answer, message),
                Err(text) => (Kind::Refusal, Message::head(text)),
            };
            let payload = vec![message.payload];
            let frame = Outgoing { kind, method, id, head: message.head, payload };
            // A closed channel means the connection is gone and nobody waits.
            drop(answers.send(frame).await);
            drop(permit);
        });
    }
}

fn refuse(request: Request, reason: &str) {
    drop(request.answer.send(Err(CallError::NotSent(reason.to_owned()))));
}

fn lane_number(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Append => 1,
        Lane::Bulk => 2,
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    // Who accepted a connection sends nothing by itself: only this tells it that the other end is
    // gone without a word.
    let keepalive = TcpKeepalive::new().with_time(USER_TIMEOUT).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Connects and greets; returns what the peer makes of the greeting.
async fn introduce(
    me: Identity,
    to: NodeId,
    lane: Lane,
    address: &str,
) -> io::Result<(TcpStream, u8)> {
    let connecting = TcpStream::connect(address);
    let mut stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{address} is silent")))?
        .map_err(|e| io::Error::new(e.kind(), format!("{address}: {e}")))?;
    tune(&stream)?;
    stream.write_all(&greet(me, to, lane_number(lane))).await?;
    let mut status = [0; 1];
    tokio::time::timeout(GREETING_TIMEOUT, stream.read_exact(&mut status)).await??;
    Ok((stream, status[0]))
}

/// A peer that is of another cluster than `me`, among those that answer within `patience`: whoever
/// asks before it opens what it stores leaves a foreign data directory as it is.
pub async fn foreign_peer(
    me: Identity,
    addresses: &BTreeMap<NodeId, PeerAddress>,
    patience: Duration,
) -> Option<NodeId> {
    if me.cluster == [0; 16] {
        return None; // Of no cluster yet.
    }
    let mut asking = JoinSet::new();
    for (&to, address) in addresses.iter().filter(|(node, _)| **node != me.node) {
        let address = address.raft.clone();
        asking.spawn(async move {
            let met = introduce(me, to, Lane::Control, &address).await;
            met.is_ok_and(|(_, status)| status == OTHER_CLUSTER).then_some(to)
        });
    }
    let first = async {
        while let Some(met) = asking.join_next().await {
            if let Ok(Some(node)) = met {
                return Some(node);
            }
        }
        None
    };
    // Who is silent is asked again whenever there is something to say to it.
    tokio::time::timeout(patience, first).await.unwrap_or_default()
}

fn greet(me: Identity, to: NodeId, lane: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(GREETING_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.push(lane);
    bytes.extend_from_slice(&me.node.0.to_le_bytes());
    bytes.extend_from_slice(&to.0.to_le_bytes());
    bytes.extend_from_slice(&me.raft_id.to_le_bytes());
    bytes.extend_from_slice(&me.cluster);
    bytes
}

fn judge(
    greeting: &[u8; GREETING_BYTES],
    me: Identity,
    known: impl Fn(NodeId) -> bool,
) -> io::Result<(u8, NodeId)> {
    if &greeting[..5] != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a peer of this version"));
    }
    let from = NodeId(u16::from_le_bytes([greeting[6], greeting[7]]));
    let to = NodeId(u16::from_le_bytes([greeting[8], greeting[9]]));
    let cluster = &greeting[18..34];
    let blank = [0; 16];
    let status = if cluster != blank && me.cluster != blank && cluster != me.cluster {
        OTHER_CLUSTER
    } else if to != me.node || from == me.node || !known(from) {
        OTHER_NODE
    } else {
        WELCOME
    };
    Ok((status, from))
}

async fn write_requests(
    mut write: OwnedWriteHalf,
    first: Request,
    queue: &mut mpsc::Receiver<Request>,
    waiting: &Waiting,
) -> String {
    let mut buffer = BytesMut::with_capacity(64 * KIB);
    let mut next = Some(first);
    while let Some(Request { frame, answer }) = next {
        waiting.lock().insert(frame.id, answer);
        if let Err(e) = frame::write(&mut write, &mut buffer, &frame).await {
            return e.to_string();
        }
        next = match queue.try_recv() {
            Ok(request) if buffer.len() < MIB => Some(request),
            other => {
                if let Err(e) = write.write_all(&buffer).await {
                    return e.to_string();
                }
                buffer.clear();
                match other {
                    Ok(request) => Some(request),
                    Err(_) => queue.recv().await,
                }
            }
        };
    }
    "the node stops".to_owned()
}

async fn write_frames(
    mut write: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(64 * KIB);
    while let Some(frame) = queue.recv().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            if frame.body_len().is_none() {
                let text = Bytes::from_static(b"the answer is too large");
                let short = Outgoing { kind: Kind::Refusal, head: text, payload: vec![], ..frame };
                frame::write(&mut write, &mut buffer, &short).await?;
            } else {
                frame::write(&mut write, &mut buffer, &frame).await?;
            }
            next = if buffer.len() < MIB { queue.try_recv().ok() } else { None };
        }
        write.write_all(&buffer).await?;
        buffer.clear();
    }
    Ok(())
}

#[async_trait]
impl Peers for TcpPeers {
    fn me(&self) -> NodeId {
        self.identity.lock().node
    }

    fn all(&self) -> Vec<NodeId> {
        self.addresses.keys().copied().collect()
    }

    fn is_alive(&self, node: NodeId) -> bool {
        node == self.me() || self.heard(node).is_some() && self.silent_for(node) < ALIVE_WITHIN
    }

    fn silent_for(&self, node: NodeId) -> Duration {
        let now = self.env.clock.monotonic();
        let heard = if node == self.me() { now } else { self.heard(node).unwrap_or(self.started) };
        now.saturating_sub(heard)
    }

    fn register(&self, tag: u8, handler: Arc<dyn PeerHandler>) {
        self.handlers.write().insert(tag, handler);
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
        let result = tokio::time::timeout(timeout, async {
            match answer.await?.await {
                Ok(result) => result,
                Err(_) => Err(CallError::Lost("the node stops".to_owned())),
            }
        })
        .await
        .unwrap_or_else(|_| Err(CallError::Lost(format!("no answer within {timeout:?}"))));
        result.map_err(|e| match e {
            CallError::NotSent(reason) | CallError::Lost(reason) => {
                PeerError::Unreachable { to, reason }
            }
            CallError::Refused(reason) => PeerError::Refused { to, reason },
        })
    }
}

#[async_trait]
impl Link for TcpPeers {
    async fn begin(
        &self,
        to: NodeId,
        lane: Lane,
        method: u16,
        head: Bytes,
        payload: Vec<Bytes>,
    ) -> Result<Answer, CallError> {
        let (answer, receiver) = oneshot::channel();
        if to == self.me() {
            self.answer_self(method, head, payload, answer);
            return Ok(receiver);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = Outgoing { kind: Kind::Request, method, id, head, payload };
        if frame.body_len().is_none() {
            return Err(CallError::NotSent("the request is too large".to_owned()));
        }
        let lane = self.lanes.get(&(to, lane_number(lane)));
        let lane = lane.ok_or_else(|| CallError::NotSent(format!("node {to} is unknown")))?;
        let sent = lane.send(Request { frame, answer }).await;
        sent.map_err(|_| CallError::NotSent("the node stops".to_owned()))?;
        Ok(receiver)
    }

    fn register_raft(&self, handler: Arc<dyn RaftHandler>) {
        *self.raft.write() = Some(handler);
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

impl TcpPeers {
    fn answer_self(
        &self,
        method: u16,
        head: Bytes,
        payload: Vec<Bytes>,
        answer: oneshot::Sender<Result<Message, CallError>>,
    ) {
        let payload = match <[Bytes; 1]>::try_from(payload) {
            Ok([one]) => one,
            Err(parts) => parts.concat().into(),
        };
        let message = Message { head, payload };
        let tag = method.to_be_bytes()[0];
        let me = self.me();
        let raft = if tag == 0 { self.raft.read().clone() } else { None };
        let handler = self.handlers.read().get(&tag).cloned();
        self.tasks.spawn("own answer", async move {
            let result = match (raft, handler) {
                (Some(raft), _) => raft.answer(me, method, message).await,
                (None, Some(handler)) => handler.handle(me, method, message).await,
                (None, None) => Err(format!("no service has tag {tag}")),
            };
            drop(answer.send(result.map_err(CallError::Refused)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Reply, methods};

    struct Echo;

    #[async_trait]
    impl PeerHandler for Echo {
        async fn handle(
            &self,
            from: NodeId,
            method: u16,
            request: Message,
        ) -> Result<Message, String> {
            match method & 0xff {
                0 => Ok(request),
                _ => Err(format!("node {from} asked for too much")),
            }
        }
    }

    #[tokio::test]
    async fn both_ends_notice_a_peer_that_is_gone_without_a_word() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&stream).unwrap();
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), USER_TIMEOUT);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
    }

    async fn pair(clusters: [u8; 2]) -> (Arc<TcpPeers>, Arc<TcpPeers>, TaskGroup) {
        let tasks = TaskGroup::new();
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let second = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = |l: &TcpListener| {
            let text = l.local_addr().unwrap().to_string();
            PeerAddress { raft: text.clone(), bulk: text }
        };
        let addresses =
            BTreeMap::from([(NodeId(1), address(&first)), (NodeId(2), address(&second))]);
        let start = |node, listener, cluster| {
            let identity =
                Identity { node: NodeId(node), raft_id: u64::from(node), cluster: [cluster; 16] };
            let peers = TcpPeers::start(&Env::real(), identity, addresses.clone(), &tasks);
            peers.register(9, Arc::new(Echo));
            peers.serve(listener);
            peers
        };
        let peers = (start(1, first, clusters[0]), start(2, second, clusters[1]));
        (peers.0, peers.1, tasks)
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn calls_are_answered_by_the_peer_and_by_oneself() {
        let (one, _two, tasks) = pair([5, 5]).await;
        let message = Message { head: "h".into(), payload: vec![1; 100_000].into() };
        for to in [NodeId(1), NodeId(2)] {
            let got = one.call(to, Lane::Bulk, 0x0900, message.clone(), PATIENCE).await.unwrap();
            assert_eq!(got, message);
            let refused = one.call(to, Lane::Control, 0x0901, message.clone(), PATIENCE).await;
            let reason = "node 1 asked for too much".to_owned();
            assert_eq!(refused, Err(PeerError::Refused { to, reason }));
        }
        assert!(one.is_alive(NodeId(2)));
        tasks.shutdown(PATIENCE).await;
    }

    #[tokio::test]
    async fn a_node_of_another_cluster_is_turned_away() {
        let (one, two, tasks) = pair([5, 6]).await;
        let got = one.call(NodeId(2), Lane::Control, 0x0900, Message::default(), PATIENCE).await;
        assert!(got.unwrap_err().to_string().contains("another cluster"));
        assert_eq!(one.foreign(), Some(NodeId(2)));
        assert_eq!(two.foreign(), None);
        let stranger = Identity { cluster: [7; 16], ..one.identity() };
        let blank = Identity { cluster: [0; 16], ..stranger };
        for (me, met) in
            [(stranger, Some(NodeId(2))), (one.identity(), Some(NodeId(2))), (blank, None)]
        {
            assert_eq!(foreign_peer(me, &one.addresses, PATIENCE).await, met);
        }
        tasks.shutdown(PATIENCE).await;
    }

    /// Hands each message over to a queue, as Raft does.
    struct Queueing(mpsc::Sender<u32>);

    impl RaftHandler for Queueing {
        fn answer(&self, _from: NodeId, _method: u16, request: Message) -> Reply {
            let queue = self.0.clone();
            Box::pin(async move {
                let number = request.head.as_ref().try_into().map(u32::from_be_bytes);
                queue.send(number.map_err(|_| "not a number")?).await.map_err(|e| e.to_string())?;
                Ok(Message::default())
            })
        }
    }

    /// Seed 102 of scripts/torture: a node that had been stopped found a backlog, tokio made the
    /// task that read it yield in the middle of handing a message over, and Raft got the next one
    /// first.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_backlog_enters_raft_in_the_order_it_was_sent() {
        const MESSAGES: u32 = 20_000;
        let (one, two, tasks) = pair([5, 5]).await;
        let (queue, mut got) = mpsc::channel(MESSAGES as usize);
        two.register_raft(Arc::new(Queueing(queue)));
        let mut answers = Vec::new();
        for number in 0..MESSAGES {
            let head = Bytes::copy_from_slice(&number.to_be_bytes());
            let begun = one.begin(NodeId(2), Lane::Append, methods::APPEND, head, vec![]).await;
            answers.push(begun.unwrap());
        }
        for number in 0..MESSAGES {
            assert_eq!(tokio::time::timeout(PATIENCE, got.recv()).await.unwrap(), Some(number));
        }
        drop(answers);
        tasks.shutdown(PATIENCE).await;
    }
}
