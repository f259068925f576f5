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
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::codec::{self, CodecError, RequestBody};
use crate::gateway::Shared;
use crate::handlers;
use crate::limits::{
    DRAIN_TIMEOUT, IDLE_TIMEOUT, MAX_IN_FLIGHT_REQUESTS, MIN_BYTES_PER_SECOND, STALL_TIMEOUT,
    WRITE_TIMEOUT,
};
use crate::outgoing::Held;

/// Memory is taken from the budget in steps of this many bytes.
const STEP: usize = 256 * KIB;

/// A whole request and the memory it holds.
struct Frame {
    bytes: Bytes,
    permit: Option<OwnedSemaphorePermit>,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("a request of {0} bytes is out of bounds")]
    Size(i32),
    #[error("nothing came for too long")]
    Slow,
    #[error("the response was not taken in time")]
    NotTaken,
    /// Kafka tells a producer with acks=0 of an error only so.
    #[error("a produce without acknowledgement failed")]
    Unacknowledged,
}

/// Serves a client until it leaves, misbehaves or idles.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (reader, writer) = stream.into_split();
    let (sender, receiver) = mpsc::channel(4);
    let reading = read_frames(&shared, reader, sender);
    let answering = answer(&shared, receiver, writer, peer);
    tokio::pin!(reading, answering);
    let end = tokio::select! {
        end = &mut answering => end,
        end = &mut reading => {
            // What was read is still answered: with acks=0 a client sends and leaves.
            drop(timeout(DRAIN_TIMEOUT, &mut answering).await);
            end
        }
    };
    if let Err(end) = end {
        debug!(%peer, %end, "kafka connection closed");
    }
}

async fn read_frames(
    shared: &Shared,
    mut reader: impl AsyncRead + Unpin,
    sender: mpsc::Sender<Frame>,
) -> Result<(), End> {
    let mut kept = BytesMut::new();
    loop {
        while kept.is_empty() {
            kept.reserve(4 * KIB);
            let got = timeout(IDLE_TIMEOUT, reader.read_buf(&mut kept)).await;
            if got.map_err(|_| End::Slow)?? == 0 {
                return Err(End::Closed);
            }
        }
        let frame = read_frame(shared, &mut reader, &mut kept).await?;
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
) -> Result<Frame, End> {
    timeout(STALL_TIMEOUT, fill(reader, kept, 4)).await.map_err(|_| End::Slow)??;
    let size = kept.split_to(4);
    let size = i32::from_be_bytes(size[..].try_into().map_err(|_| End::Closed)?);
    let max = shared.config.max_request_bytes;
    // A header takes eight bytes.
    let bytes = usize::try_from(size).ok().filter(|n| (8..=max).contains(n));
    let bytes = bytes.ok_or(End::Size(size))?;
    let rate = u64::try_from(bytes / MIN_BYTES_PER_SECOND).unwrap_or(u64::MAX);
    let patience = STALL_TIMEOUT + Duration::from_secs(rate);
    let budget = shared.memory.budget_of(bytes);
    timeout(patience, fill_frame(budget, reader, kept, bytes)).await.map_err(|_| End::Slow)?
}

async fn fill_frame(
    memory: &Arc<Semaphore>,
    reader: &mut (impl AsyncRead + Unpin),
    kept: &mut BytesMut,
    bytes: usize,
) -> Result<Frame, End> {
    let mut permit: Option<OwnedSemaphorePermit> = None;
    let mut granted = 0;
    while granted < bytes {
        // The first bytes of a large request are no reason to reserve all of it.
        let step = if granted < MIB { STEP } else { granted };
        let step = step.min(bytes - granted);
        let count = u32::try_from(step).map_err(|_| End::Closed)?;
        let more = memory.clone().acquire_many_owned(count).await.map_err(|_| End::Closed)?;
        match &mut permit {
            Some(permit) => permit.merge(more),
            None => permit = Some(more),
        }
        granted += step;
        fill(reader, kept, granted).await?;
    }
    Ok(Frame { bytes: kept.split_to(bytes).freeze(), permit })
}

/// Reads until `kept` holds `bytes`, and not a byte of a later request beyond a small buffer.
async fn fill(
    reader: &mut (impl AsyncRead + Unpin),
    kept: &mut BytesMut,
    bytes: usize,
) -> Result<(), End> {
    while kept.len() < bytes {
        let missing = bytes - kept.len();
        kept.reserve(missing);
        let mut rest = (&mut *reader).take(u64::try_from(missing).unwrap_or(u64::MAX));
        let got = timeout(STALL_TIMEOUT, rest.read_buf(kept)).await.map_err(|_| End::Slow)??;
        if got == 0 {
            return Err(End::Closed);
        }
    }
    Ok(())
}

/// A response, and the part of the budget that its records take.
struct Reply {
    chunks: Vec<Bytes>,
    held: Option<Held>,
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
    /// Waits for the oldest. Every request makes progress meanwhile.
    fn poll_oldest(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        for slot in &mut self.slots {
            if let Slot::Working(work) = slot
                && let Poll::Ready(answer) = work.as_mut().poll(cx)
            {
                *slot = Slot::Done(answer);
            }
        }
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

async fn answer(
    shared: &Arc<Shared>,
    mut frames: mpsc::Receiver<Frame>,
    mut writer: impl AsyncWrite + Unpin,
    peer: SocketAddr,
) -> Result<(), End> {
    let mut under_way = InFlight { slots: VecDeque::new() };
    // The request that waits until those before it are answered.
    let mut next: Option<(Work<'_>, bool)> = None;
    let mut only_produce = true;
    let mut open = true;
    loop {
        if let Some((_, produce)) = &next
            && (under_way.slots.is_empty() || *produce && only_produce)
            && let Some((work, produce)) = next.take()
        {
            only_produce = produce;
            under_way.slots.push_back(Slot::Working(work));
        }
        if !open && under_way.slots.is_empty() && next.is_none() {
            return Ok(());
        }
        let room = next.is_none() && under_way.slots.len() < MAX_IN_FLIGHT_REQUESTS;
        tokio::select! {
            biased;
            answer = std::future::poll_fn(|cx| under_way.poll_oldest(cx)) => {
                if let Some(Reply { chunks, held }) = answer? {
                    write(&mut writer, chunks).await?;
                    drop(held);
                }
            }
            frame = frames.recv(), if open && room => match frame {
                Some(frame) => next = Some(begin(shared, frame, peer)?),
                None => open = false,
            },
        }
    }
}

/// Decodes a request; the flag says whether it is a produce.
fn begin(
    shared: &Arc<Shared>,
    frame: Frame,
    peer: SocketAddr,
) -> Result<(Work<'static>, bool), End> {
    let Frame { mut bytes, permit } = frame;
    let began = Instant::now();
    shared.metrics.received(bytes.len() + 4);
    let request = match codec::decode_request(&mut bytes) {
        Ok(request) => request,
        Err(CodecError::UnsupportedVersion { api_key: 18, correlation_id, .. }) => {
            let body = handlers::cluster::unsupported_api_versions();
            let chunks = codec::encode_response(correlation_id, 0, &body)?;
            let reply = Reply { chunks, held: None };
            return Ok((Box::pin(async move { Ok(Some(reply)) }), false));
        }
        Err(error) => return Err(error.into()),
    };
    let produce = matches!(request.body, RequestBody::Produce(_));
    let silent = matches!(&request.body, RequestBody::Produce(body) if body.acks == 0);
    let shared = shared.clone();
    let work = async move {
        let (version, correlation_id) = (request.version, request.correlation_id);
        let mut held = None;
        let key = request.body.key();
        let body = handlers::handle(&shared, request, peer, &mut held).await;
        shared.metrics.answered(key, began.elapsed(), body.as_ref());
        let answer = match body {
            Some(_) if silent => Err(End::Unacknowledged),
            Some(body) => {
                let chunks = codec::encode_response(correlation_id, version, &body)?;
                shared.metrics.sent(chunks.iter().map(Bytes::len).sum());
                Ok(Some(Reply { chunks, held }))
            }
            None => Ok(None),
        };
        drop(permit);
        answer
    };
    Ok((Box::pin(work), produce))
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), chunks: Vec<Bytes>) -> Result<(), End> {
    let mut chunks = Chunks(chunks.into());
    while chunks.has_remaining() {
        let wrote = timeout(WRITE_TIMEOUT, writer.write_buf(&mut chunks)).await;
        if wrote.map_err(|_| End::NotTaken)?? == 0 {
            return Err(End::Closed);
        }
    }
    Ok(())
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

    #[test]
    fn large_requests_leave_room_for_small_ones() {
        let memory = Memory::new(100 * MIB);
        let large = memory.budget_of(2 * MIB).clone();
        let all = u32::try_from(large.available_permits()).unwrap();
        let held = large.try_acquire_many(all).unwrap();
        assert!(memory.budget_of(KIB).available_permits() >= 20 * MIB);
        drop(held);
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
