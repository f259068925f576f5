//! Frames on a peer connection.
//!
//! `len: u32 | kind: u8 | method: u16 | id: u64 | head_len: u32 | head | payload`, little endian;
//! `len` counts what follows it.

use std::io;
use std::time::Duration;

use base::limits::{KIB, MAX_PEER_MESSAGE_BYTES};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::peer::Message;

const FIXED_BYTES: usize = 1 + 2 + 8 + 4;
/// Parts at least this long are written from where they lie instead of being copied together.
const COPY_BELOW_BYTES: usize = 16 * 1024;
/// A frame's buffer grows as its bytes arrive, so that a lying length costs nothing.
const READ_STEP_BYTES: usize = 1024 * 1024;
/// Frames up to this size take no [`Room`].
const SMALL_BYTES: usize = 64 * KIB;
/// How long a frame that has begun may stand still, or wait for room.
const STALL: Duration = Duration::from_secs(10);

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Answer,
    Refusal,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Request),
            1 => Some(Self::Answer),
            2 => Some(Self::Refusal),
            _ => None,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Answer => 1,
            Self::Refusal => 2,
        }
    }
}

/// A frame to be written; its payload may lie in several parts.
#[derive(Debug)]
pub struct Outgoing {
    pub kind: Kind,
    pub method: u16,
    pub id: u64,
    pub head: Bytes,
    pub payload: Vec<Bytes>,
}

impl Outgoing {
    /// Bytes of the body; `None` when it exceeds what a peer takes.
    pub fn body_len(&self) -> Option<u32> {
        let payload: usize = self.payload.iter().map(Bytes::len).sum();
        let len = FIXED_BYTES + self.head.len() + payload;
        if len > MAX_PEER_MESSAGE_BYTES {
            return None;
        }
        u32::try_from(len).ok()
    }
}

/// A frame that arrived.
#[derive(Debug)]
pub struct Incoming {
    pub kind: Kind,
    pub method: u16,
    pub id: u64,
    pub message: Message,
}

/// Appends the frame to `buffer`, or writes buffer and long parts straight to `to`.
pub async fn write<W: AsyncWrite + Unpin>(
    to: &mut W,
    buffer: &mut BytesMut,
    frame: &Outgoing,
) -> io::Result<()> {
    let len = frame.body_len().ok_or_else(|| io::Error::other("peer message is too large"))?;
    buffer.put_u32_le(len);
    buffer.put_u8(frame.kind.byte());
    buffer.put_u16_le(frame.method);
    buffer.put_u64_le(frame.id);
    buffer.put_u32_le(u32::try_from(frame.head.len()).map_err(io::Error::other)?);
    buffer.put_slice(&frame.head);
    for part in &frame.payload {
        if part.len() < COPY_BELOW_BYTES {
            buffer.put_slice(part);
            continue;
        }
        to.write_all(buffer).await?;
        buffer.clear();
        to.write_all(part).await?;
    }
    Ok(())
}

/// Bytes of frames that a node takes in at once, over all connections.
#[derive(Debug)]
pub struct Room(Semaphore);

impl Default for Room {
    /// Room for three of the largest frames.
    fn default() -> Self {
        Self(Semaphore::new(3 * MAX_PEER_MESSAGE_BYTES / KIB))
    }
}

impl Room {
    /// Waits for room, but for small frames: a connection holds as much anyway.
    async fn take(&self, len: usize) -> io::Result<Option<SemaphorePermit<'_>>> {
        if len <= SMALL_BYTES {
            return Ok(None);
        }
        let kib = u32::try_from(len.div_ceil(KIB)).map_err(io::Error::other)?;
        self.0.acquire_many(kib).await.map(Some).map_err(io::Error::other)
    }
}

/// Reads one frame; `None` at a clean end of the stream. A frame that has begun must go on: who
/// sends nothing for [`STALL`] is given up.
pub async fn read<R: AsyncRead + Unpin>(from: &mut R, room: &Room) -> io::Result<Option<Incoming>> {
    let mut len = [0; 4];
    // Between frames a peer may be silent for as long as it likes.
    match from.read_exact(&mut len[..1]).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    match timeout(STALL, from.read_exact(&mut len[1..])).await? {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let len = u32::from_le_bytes(len) as usize;
    if !(FIXED_BYTES..=MAX_PEER_MESSAGE_BYTES).contains(&len) {
        return Err(bad("peer frame has an impossible length"));
    }
    let _room = timeout(STALL, room.take(len)).await??;
    let mut body = BytesMut::with_capacity(len.min(READ_STEP_BYTES));
    while body.len() < len {
        let missing = len - body.len();
        let before = body.len();
        body.reserve(missing.min(READ_STEP_BYTES));
        timeout(STALL, (&mut *from).take(missing as u64).read_buf(&mut body)).await??;
        if body.len() == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    parse(body.freeze()).map(Some)
}

fn parse(mut body: Bytes) -> io::Result<Incoming> {
    let kind = Kind::from_byte(body.get_u8()).ok_or_else(|| bad("peer frame of unknown kind"))?;
    let method = body.get_u16_le();
    let id = body.get_u64_le();
    let head_len = body.get_u32_le() as usize;
    if head_len > body.len() {
        return Err(bad("peer frame ends inside its head"));
    }
    let head = body.split_to(head_len);
    Ok(Incoming { kind, method, id, message: Message { head, payload: body } })
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Outgoing {
        Outgoing {
            kind: Kind::Request,
            method: 0x0203,
            id: 9,
            head: Bytes::from_static(b"head"),
            payload: vec![Bytes::from_static(b"ab"), Bytes::from(vec![7; 20_000])],
        }
    }

    async fn written(frame: &Outgoing) -> Vec<u8> {
        let (mut out, mut buffer) = (Vec::new(), BytesMut::new());
        write(&mut out, &mut buffer, frame).await.unwrap();
        out.extend_from_slice(&buffer);
        out
    }

    #[tokio::test]
    async fn frames_survive_the_wire() {
        let bytes = written(&sample()).await;
        let got = read(&mut &bytes[..], &Room::default()).await.unwrap().unwrap();
        assert_eq!((got.kind, got.method, got.id), (Kind::Request, 0x0203, 9));
        assert_eq!(got.message.head, "head");
        assert_eq!(got.message.payload.len(), 20_002);
        assert!(read(&mut &b""[..], &Room::default()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn cut_and_lying_frames_are_errors() {
        let bytes = written(&sample()).await;
        for cut in [5, 18, 19, 22, 100] {
            assert!(read(&mut &bytes[..cut], &Room::default()).await.is_err(), "cut at {cut}");
        }
        let mut huge = bytes.clone();
        huge[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read(&mut &huge[..], &Room::default()).await.is_err());
        let mut head = bytes;
        head[15..19].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read(&mut &head[..], &Room::default()).await.is_err());
    }
}
