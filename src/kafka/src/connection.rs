//! One client connection.
//!
//! Requests are answered in the order in which they came. Like a Kafka broker, a connection works
//! at one request at a time; only produce requests overlap with each other, so that a pipelining
//! producer does not wait a commit for each. They are started in order.
//!
//! What a client can make the node hold: the bytes of requests come out of budgets for all
//! connections, one for small requests and one for large ones, taken while they arrive and given
//! back with the response; a request must arrive at a minimal rate and without long pauses;
//! records read for a client count until it has taken them (see [`crate::outgoing`]); a response
//! must be taken in time. Bytes that are no request close the connection, as in Kafka.
//!
//! On a TLS listener the handshake comes first, on a SASL listener the proof of who it is (see
//! [`crate::sasl`]). A client above its quota is answered, and not listened to for a while.

use std::collections::VecDeque;
use std::future::Future;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::limits::{KIB, MIB};
use bytes::{Buf, Bytes, BytesMut};
use log::limits::MAX_ALL_PARTITIONS;
use secure::sasl::Mechanism;
use secure::tls;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::caller::Caller;
use crate::codec::{self, ApiKey, CodecError, RequestBody};
use crate::gateway::Shared;
use crate::handlers;
use crate::limits::{
    AUTHENTICATION_TIMEOUT, CLOSE_TIMEOUT, DRAIN_TIMEOUT, IDLE_TIMEOUT, MAX_IN_FLIGHT_REQUESTS,
    MIN_BYTES_PER_SECOND, STALL_TIMEOUT, WRITE_TIMEOUT,
};
use crate::outgoing::{Held, Holds};
use crate::quotas;
use crate::sasl::{self, Before, Bounds, Conversation, Proven};

/// So much of a request is read before it takes its part of the budget: whoever only announces a
/// large one holds nothing.
const UNPAID: usize = 16 * KIB;
/// A fetch request above [`UNPAID`] waits for records at most so long, in milliseconds.
const LARGE_FETCH_WAIT_MS: i32 = 1_000;

/// So much of a request at a time must arrive as fast as [`MIN_BYTES_PER_SECOND`] says.
const STRETCH: usize = 2 * MIB;

/// Bounds of the buffer in which a connection waits for a request; it stands in no budget.
const LEAST_ROOM: usize = 4 * KIB;
const MOST_ROOM: usize = 32 * KIB;

/// A whole request and the memory it holds.
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the client closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("a request of {0} bytes is out of bounds")]
    Size(i32),
    #[error("a request names more than a cluster can have")]
    TooMuch,
    #[error("nothing came for too long")]
    Slow,
    #[error("the response was not taken in time")]
    NotTaken,
    /// Kafka tells a producer with acks=0 of an error only so.
    #[error("a produce without acknowledgement failed")]
    Unacknowledged,
    #[error("unexpected request of api key {0} before authentication")]
    NotAuthenticated(i16),
    #[error("the client is not who it says")]
    Refused,
    #[error("the client did not prove again who it is")]
    Expired,
    #[error("tls: {0}")]
    Handshake(#[from] tls::HandshakeError),
}

/// Serves a client until it leaves, misbehaves or idles.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let end = match shared.config.security.tls.clone() {
        None => {
            let (reader, writer) = stream.into_split();
            converse(&shared, reader, writer, Caller::of_subject(peer, None), peer).await
        }
        Some(tls) => encrypted(&shared, &tls, stream, peer).await,
    };
    if let Err(end) = end {
        debug!(%peer, %end, "kafka connection closed");
    }
}

async fn encrypted(
    shared: &Arc<Shared>,
    tls: &tls::TlsServer,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<(), End> {
    let stream = tls.accept(stream).await.inspect_err(|_| {
        shared.backend.security.audit().handshake_failed();
    })?;
    let subject = tls::subject_of(&stream);
    let (reader, writer) = tokio::io::split(stream);
    converse(shared, reader, writer, Caller::of_subject(peer, subject.as_deref()), peer).await
}

/// `caller` is who the client is unless it has to say so first.
async fn converse(
    shared: &Arc<Shared>,
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    caller: Caller,
    peer: SocketAddr,
) -> Result<(), End> {
    let (sender, receiver) = mpsc::channel(4);
    let security = &shared.config.security;
    let bounds = Bounds::new(shared.config.max_request_bytes, !security.protocol.asks_who());
    let reading = read_frames(shared, reader, sender, &bounds);
    let session = Session { shared, peer, bounds: &bounds, caller: Arc::new(caller), proof: None };
    let answering = answer(session, receiver, writer);
    tokio::pin!(reading, answering);
    tokio::select! {
        end = &mut answering => end,
        end = &mut reading => {
            // What was read is still answered: with acks=0 a client sends and leaves.
            drop(timeout(DRAIN_TIMEOUT, &mut answering).await);
            end
        }
    }
}

async fn read_frames(
    shared: &Shared,
    mut reader: impl AsyncRead + Unpin,
    sender: mpsc::Sender<Frame>,
    bounds: &Bounds,
) -> Result<(), End> {
    let mut kept = BytesMut::new();
    let mut room = LEAST_ROOM;
    loop {
        while kept.is_empty() {
            kept.reserve(room);
            let got = timeout(IDLE_TIMEOUT, reader.read_buf(&mut kept)).await;
            if got.map_err(|_| End::Slow)?? == 0 {
                return Err(End::Closed);
            }
        }
        let frame = read_frame(shared, &mut reader, &mut kept, bounds).await?;
        // The next is likely like this one, and comes whole with one call to the system if the
        // buffer is larger than it.
        room = (frame.bytes.len() + KIB).clamp(LEAST_ROOM, MOST_ROOM);
        if sender.send(frame).await.is_err() {
            return Ok(());
        }
    }
}

/// Reads one request of which `kept` holds the beginning, and leaves there what follows it.
async fn read_frame(
    shared: &Shared,
    reader: &mut (impl AsyncRead + Unpin),
    kept: &mut BytesMut,
    bounds: &Bounds,
) -> Result<Frame, End> {
    timeout(STALL_TIMEOUT, fill(reader, kept, 4)).await.map_err(|_| End::Slow)??;
    let size = kept.split_to(4);
    let size = i32::from_be_bytes(size[..].try_into().map_err(|_| End::Closed)?);
    let bytes = usize::try_from(size).ok().filter(|n| bounds.admit(*n));
    let bytes = bytes.ok_or(End::Size(size))?;
    let rate = u64::try_from(bytes / MIN_BYTES_PER_SECOND).unwrap_or(u64::MAX);
    let patience = STALL_TIMEOUT + Duration::from_secs(rate);
    let budget = shared.memory.budget_of(bytes, bounds.are_known());
    timeout(patience, fill_frame(budget, reader, kept, bytes)).await.map_err(|_| End::Slow)?
}

async fn fill_frame(
    memory: &Arc<Semaphore>,
    reader: &mut (impl AsyncRead + Unpin),
    kept: &mut BytesMut,
    bytes: usize,
) -> Result<Frame, End> {
    fill(reader, kept, UNPAID.min(bytes)).await?;
    let count = u32::try_from(bytes).map_err(|_| End::Closed)?;
    let produce = sasl::api_key(kept) == Some(ApiKey::Produce.number());
    let permit = if bytes <= UNPAID && !produce {
        // It is there already: heartbeats wait for nobody's memory.
        memory.clone().try_acquire_many_owned(count).ok()
    } else {
        // All of it at once: requests that hold a part each and wait for more would wait for each
        // other.
        Some(memory.clone().acquire_many_owned(count).await.map_err(|_| End::Closed)?)
    };
    fill(reader, kept, bytes).await?;
    Ok(Frame { bytes: kept.split_to(bytes).freeze(), permit })
}

/// Reads until `kept` holds `bytes`, and not a byte of a later request beyond a small buffer. A
/// byte now and then does not keep the memory that a large request holds.
async fn fill(
    reader: &mut (impl AsyncRead + Unpin),
    kept: &mut BytesMut,
    bytes: usize,
) -> Result<(), End> {
    while kept.len() < bytes {
        let stretch = STRETCH.min(bytes - kept.len());
        let least = stretch / MIN_BYTES_PER_SECOND;
        let patience = STALL_TIMEOUT + Duration::from_secs(u64::try_from(least).unwrap_or(0));
        let until = kept.len() + stretch;
        kept.reserve(bytes - kept.len());
        timeout(patience, read_to(reader, kept, until)).await.map_err(|_| End::Slow)??;
    }
    Ok(())
}

async fn read_to(
    reader: &mut (impl AsyncRead + Unpin),
    kept: &mut BytesMut,
    bytes: usize,
) -> Result<(), End> {
    while kept.len() < bytes {
        let missing = u64::try_from(bytes - kept.len()).unwrap_or(u64::MAX);
        let mut rest = (&mut *reader).take(missing);
        if rest.read_buf(kept).await? == 0 {
            return Err(End::Closed);
        }
    }
    Ok(())
}

/// A response, the part of the budget that its records take, and how long the client must wait
/// for being over its quota.
struct Reply {
    chunks: Vec<Bytes>,
    held: Option<Held>,
    mute: Duration,
}

/// What a handler makes of a request.
type Answer = Result<Option<Reply>, End>;
type Work<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

enum Slot<'a> {
    Working(Work<'a>),
    Done(Answer),
}

/// Requests under way, oldest first.
struct InFlight<'a> {
    slots: VecDeque<Slot<'a>>,
}

impl<'a> InFlight<'a> {
    fn poll_all(&mut self, cx: &mut Context<'_>) {
        for slot in &mut self.slots {
            if let Slot::Working(work) = slot
                && let Poll::Ready(answer) = work.as_mut().poll(cx)
            {
                *slot = Slot::Done(answer);
            }
        }
    }

    /// Waits for something else. Every request makes progress meanwhile: others may wait for what
    /// it holds.
    async fn work_beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = std::pin::pin!(other);
        std::future::poll_fn(|cx| {
            self.poll_all(cx);
            other.as_mut().poll(cx)
        })
        .await
    }

    /// Waits for the oldest. Every request makes progress meanwhile.
    fn poll_oldest(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        self.poll_all(cx);
        match self.slots.pop_front() {
            Some(Slot::Done(answer)) => Poll::Ready(answer),
            Some(working) => {
                self.slots.push_front(working);
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

/// A connection as its requests see it.
struct Session<'a> {
    shared: &'a Arc<Shared>,
    peer: SocketAddr,
    bounds: &'a Bounds,
    caller: Arc<Caller>,
    /// How the client proved who it is, on a SASL listener.
    proof: Option<Mechanism>,
}

impl Session<'_> {
    /// Lets the client prove who it is, for the first time or again.
    async fn authenticate(
        &mut self,
        frames: &mut mpsc::Receiver<Frame>,
        writer: &mut (impl AsyncWrite + Unpin),
        first: Option<Frame>,
    ) -> Result<(), End> {
        let before = self
            .proof
            .map(|mechanism| Before { principal: self.caller.actor.principal.clone(), mechanism });
        let (shared, peer, bounds) = (self.shared, self.peer, self.bounds);
        let conversation = Conversation { shared, frames, writer, peer, bounds, before };
        let proving = timeout(AUTHENTICATION_TIMEOUT, conversation.run(first));
        let Proven { caller, mechanism } = proving.await.map_err(|_| End::Slow)??;
        self.caller = Arc::new(caller);
        self.proof = Some(mechanism);
        Ok(())
    }

    /// Whether the request begins a proof of who the client still is.
    fn proves_again(&self, frame: &Frame) -> bool {
        self.proof.is_some()
            && self.shared.config.security.max_reauth.is_some()
            && sasl::api_key(&frame.bytes) == Some(ApiKey::SaslHandshake.number())
    }
}

async fn answer(
    session: Session<'_>,
    frames: mpsc::Receiver<Frame>,
    mut writer: impl AsyncWrite + Unpin,
) -> Result<(), End> {
    let end = respond(session, frames, &mut writer).await;
    // Over TLS the client learns that nothing was cut off. It may be gone already.
    drop(timeout(CLOSE_TIMEOUT, writer.shutdown()).await);
    end
}

async fn respond(
    mut session: Session<'_>,
    mut frames: mpsc::Receiver<Frame>,
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<(), End> {
    if session.shared.config.security.protocol.asks_who() {
        session.authenticate(&mut frames, writer, None).await?;
    }
    let mut under_way = InFlight { slots: VecDeque::new() };
    // The request that waits until those before it are answered.
    let mut next: Option<(Work<'_>, bool)> = None;
    let mut proof: Option<Frame> = None;
    let mut only_produce = true;
    let mut open = true;
    let (mut muted, mut fetches) = (sasl::now(), false);
    loop {
        let listening = muted <= sasl::now();
        if let Some((_, produce)) = &next
            && listening
            && (under_way.slots.is_empty() || *produce && only_produce)
            && let Some((work, produce)) = next.take()
        {
            only_produce = produce;
            under_way.slots.push_back(Slot::Working(work));
        }
        let idle = under_way.slots.is_empty() && next.is_none();
        if let Some(first) = proof.take_if(|_| idle) {
            session.authenticate(&mut frames, writer, Some(first)).await?;
        }
        if !open && idle {
            return Ok(());
        }
        let room =
            next.is_none() && proof.is_none() && under_way.slots.len() < MAX_IN_FLIGHT_REQUESTS;
        tokio::select! {
            biased;
            answer = std::future::poll_fn(|cx| under_way.poll_oldest(cx)) => {
                if let Some(Reply { chunks, held, mute }) = answer? {
                    under_way.work_beside(write(writer, chunks)).await?;
                    drop(held);
                    muted = muted.max(sasl::now() + mute);
                }
            }
            () = sleep_until(muted), if !listening => {}
            frame = frames.recv(), if open && room && listening => match frame {
                Some(frame) if session.proves_again(&frame) => proof = Some(frame),
                Some(frame) => next = Some(begin(&session, frame, &mut fetches)?),
                None => open = false,
            },
        }
    }
}

/// Decodes a request; the flag says whether it may overlap with others like it, as a produce may.
/// `fetches` says whether the connection has fetched before.
fn begin(
    session: &Session<'_>,
    frame: Frame,
    fetches: &mut bool,
) -> Result<(Work<'static>, bool), End> {
    if sasl::has_expired(&session.caller) {
        return Err(End::Expired);
    }
    let Frame { mut bytes, permit } = frame;
    let began = Instant::now();
    session.shared.metrics.received(bytes.len() + 4);
    let size = bytes.len();
    let mut request = match codec::decode_request(&mut bytes) {
        Ok(request) => request,
        Err(CodecError::UnsupportedVersion { api_key: 18, correlation_id, .. }) => {
            let body = handlers::cluster::unsupported_api_versions();
            let chunks = codec::encode_response(correlation_id, 0, &body)?;
            let reply = Reply { chunks, held: None, mute: Duration::ZERO };
            return Ok((Box::pin(async move { Ok(Some(reply)) }), false));
        }
        Err(error) => return Err(error.into()),
    };
    let named = handlers::named(&request.body);
    if named > MAX_ALL_PARTITIONS {
        return Err(End::TooMuch);
    }
    let produce = matches!(request.body, RequestBody::Produce(_));
    // One whose parts take turns would let those of the next go before its own.
    let overlaps = produce && named <= handlers::produce::AT_ONCE;
    // Others may wait for minutes. What little they hold was not paid for while it came, and a
    // fetch that holds more waits no longer than others can wait for its room.
    let permit = permit.filter(|_| produce || size > UNPAID);
    if let RequestBody::Fetch(fetch) = &mut request.body
        && size > UNPAID
    {
        fetch.max_wait_ms = fetch.max_wait_ms.min(LARGE_FETCH_WAIT_MS);
    }
    let is_fetch = matches!(request.body, RequestBody::Fetch(_));
    let fresh = is_fetch && !std::mem::replace(fetches, true);
    let silent = matches!(&request.body, RequestBody::Produce(body) if body.acks == 0);
    let (shared, caller, peer) = (session.shared.clone(), session.caller.clone(), session.peer);
    let work = async move {
        let (version, correlation_id) = (request.version, request.correlation_id);
        let client = request.client_id.clone().unwrap_or_default();
        quotas::limit(&shared, &caller, &client, &mut request.body, fresh);
        let mut holds = Holds { request: permit, records: None };
        let key = request.body.key();
        let body = handlers::handle(&shared, &caller, request, peer, &mut holds).await;
        shared.metrics.answered(key, began.elapsed(), body.as_ref());
        let answer = match body {
            Some(_) if silent => Err(End::Unacknowledged),
            Some(mut body) => {
                let mute = quotas::charge(&shared, &caller, &client, size, &mut body);
                let chunks = codec::encode_response(correlation_id, version, &body)?;
                shared.metrics.sent(chunks.iter().map(Bytes::len).sum());
                Ok(Some(Reply { chunks, held: holds.records.take(), mute }))
            }
            None => Ok(quotas::silent(&shared, &caller, &client, size).map(|mute| Reply {
                chunks: Vec::new(),
                held: None,
                mute,
            })),
        };
        drop(holds);
        answer
    };
    Ok((Box::pin(work), overlaps))
}

/// Writes chunks without copying them.
pub(crate) async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    chunks: Vec<Bytes>,
) -> Result<(), End> {
    let mut chunks = Chunks(chunks.into());
    let least = chunks.remaining() / MIN_BYTES_PER_SECOND;
    let patience = WRITE_TIMEOUT + Duration::from_secs(u64::try_from(least).unwrap_or(u64::MAX));
    let writing = async {
        while chunks.has_remaining() {
            if writer.write_buf(&mut chunks).await? == 0 {
                return Err(End::Closed);
            }
        }
        // TLS keeps what it has encrypted until told; a socket has nothing to flush.
        Ok(writer.flush().await?)
    };
    timeout(patience, writing).await.map_err(|_| End::NotTaken)?
}

/// What is left of a response. Many chunks go with one call to the system.
struct Chunks(VecDeque<Bytes>);

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn has_remaining(&self) -> bool {
        self.0.iter().any(|chunk| !chunk.is_empty())
    }

    fn chunk(&self) -> &[u8] {
        self.0.iter().find(|chunk| !chunk.is_empty()).map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let full = self.0.iter().filter(|chunk| !chunk.is_empty());
        let pairs = slices.iter_mut().zip(full);
        pairs.map(|(slice, chunk)| *slice = IoSlice::new(chunk)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.0.front_mut() {
            if front.len() > count {
                return front.advance(count);
            }
            count -= front.len();
            self.0.pop_front();
        }
        assert_eq!(count, 0, "no more can be taken than there is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Memory;

    async fn frame_of(chunks: &[&[u8]], bytes: usize) -> Result<(Bytes, usize), End> {
        let memory = Arc::new(Semaphore::new(10 * MIB));
        let mut builder = chunks.concat();
        let mut kept = BytesMut::from(&builder[..builder.len().min(3)]);
        builder.drain(..kept.len());
        let mut reader = &builder[..];
        let frame = fill_frame(&memory, &mut reader, &mut kept, bytes).await?;
        let held = 10 * MIB - memory.available_permits();
        drop(frame.permit);
        assert_eq!(memory.available_permits(), 10 * MIB, "memory comes back with the frame");
        Ok((frame.bytes, held))
    }

    #[tokio::test]
    async fn a_frame_holds_its_own_bytes_of_the_budget() {
        let body = vec![7; 3 * MIB];
        let (bytes, held) = frame_of(&[&body], body.len()).await.unwrap();
        assert_eq!((bytes.len(), held), (body.len(), body.len()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_stalls_ends_the_connection() {
        let memory = Arc::new(Semaphore::new(200 * MIB));
        let (mut client, mut server) = tokio::io::duplex(KIB);
        client.write_all(b"a beginning").await.unwrap();
        let mut kept = BytesMut::new();
        let end = fill_frame(&memory, &mut server, &mut kept, 100 * MIB).await;
        assert!(matches!(end, Err(End::Slow)));
        assert_eq!(memory.available_permits(), 200 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_request_holds_memory_once_it_has_begun_and_while_it_comes() {
        let memory = Arc::new(Semaphore::new(200 * MIB));
        let (mut client, mut server) = tokio::io::duplex(64 * KIB);
        client.write_all(&[0; UNPAID - 1]).await.unwrap();
        let mut kept = BytesMut::new();
        let reading = fill_frame(&memory, &mut server, &mut kept, 100 * MIB);
        tokio::pin!(reading);
        let waiting = timeout(Duration::from_secs(10), &mut reading).await;
        assert!(waiting.is_err() && memory.available_permits() == 200 * MIB, "only announced");
        let trickle = async {
            loop {
                client.write_all(b"x").await.unwrap();
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
        };
        let begun = Instant::now();
        tokio::select! {
            end = &mut reading => assert!(matches!(end, Err(End::Slow))),
            () = trickle => {}
        }
        assert!(begun.elapsed() < 3 * STALL_TIMEOUT, "{:?}", begun.elapsed());
        assert_eq!(memory.available_permits(), 200 * MIB);
    }

    #[test]
    fn large_requests_leave_room_for_small_ones() {
        let memory = Memory::new(100 * MIB);
        let large = memory.budget_of(2 * MIB, true).clone();
        let all = u32::try_from(large.available_permits()).unwrap();
        let held = large.try_acquire_many(all).unwrap();
        assert!(memory.budget_of(KIB, true).available_permits() >= 20 * MIB);
        assert!(memory.budget_of(KIB, false).available_permits() >= MIB);
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_request_waits_for_no_memory() {
        let memory = Arc::new(Semaphore::new(0));
        let (mut client, mut server) = tokio::io::duplex(64 * KIB);
        client.write_all(&[1; UNPAID + 1]).await.unwrap();
        let mut kept = BytesMut::new();
        let frame = fill_frame(&memory, &mut server, &mut kept, UNPAID).await.unwrap();
        assert!(frame.bytes.len() == UNPAID && frame.permit.is_none());
        let (mut client, mut server) = tokio::io::duplex(64 * KIB);
        client.write_all(&[0; UNPAID + 1]).await.unwrap();
        let waiting = fill_frame(&memory, &mut server, &mut kept, UNPAID + 1);
        assert!(timeout(Duration::from_secs(10), waiting).await.is_err());
        // Many of them may be under way, and for long.
        let produce = [0; 100];
        let mut kept = BytesMut::from(&produce[..]);
        let waiting = fill_frame(&memory, &mut server, &mut kept, 100);
        assert!(timeout(Duration::from_secs(10), waiting).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_goes_on_while_the_answer_before_it_is_not_taken() {
        let (_client, mut server) = tokio::io::duplex(64);
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let work: Work<'_> = Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(sender);
            Ok(None)
        });
        let mut under_way = InFlight { slots: VecDeque::from([Slot::Working(work)]) };
        let answer = vec![Bytes::from(vec![0; KIB])];
        let writing = under_way.work_beside(write(&mut server, answer));
        let (written, done) = tokio::join!(writing, timeout(Duration::from_secs(2), receiver));
        assert!(matches!(written, Err(End::NotTaken)));
        assert!(done.is_ok(), "worked at before the answer was given up");
    }

    #[tokio::test]
    async fn chunks_are_written_whole_whatever_the_client_takes_at_once() {
        let chunks: Vec<Bytes> = (0..100_u8).map(|n| vec![n; usize::from(n) * 7].into()).collect();
        let (mut client, mut server) = tokio::io::duplex(64);
        let expected = chunks.concat();
        let writing = async { write(&mut server, chunks).await.map(|()| drop(server)) };
        let mut got = Vec::new();
        let (wrote, read) = tokio::join!(writing, client.read_to_end(&mut got));
        assert!(wrote.is_ok() && read.is_ok() && got == expected);
    }

    #[tokio::test]
    async fn a_frame_cut_short_ends_the_connection() {
        assert!(matches!(frame_of(&[b"short"], 100).await, Err(End::Closed)));
    }
}
