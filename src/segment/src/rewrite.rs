//! Reading closed segments frame by frame, and writing what takes their place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::crc::crc32c_append;
use base::{Disk, DiskFile};
use bytes::{Bytes, BytesMut};

use crate::index::sane;
use crate::writer::{OpenFile, Shared};
use crate::{FRAME_HEADER_BYTES, FrameInfo, FrameParser, SegmentInfo, limits};

/// The frames of one closed segment, in order.
pub struct FrameReader {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    parser: FrameParser,
    segment: SegmentInfo,
    /// Where the next frame begins, and what of the file from there on is in memory.
    at: u64,
    held: Bytes,
    crc: u32,
}

impl FrameReader {
    pub(crate) fn new(
        file: Arc<dyn DiskFile>,
        path: PathBuf,
        parser: FrameParser,
        segment: SegmentInfo,
    ) -> Self {
        Self { file, path, parser, segment, at: 0, held: Bytes::new(), crc: 0 }
    }

    /// The next frame; `None` at the end, where the checksum of all was right.
    pub fn next_frame(&mut self) -> io::Result<Option<(FrameInfo, Bytes)>> {
        let left = self.segment.len - self.at;
        if left == 0 {
            return match self.crc == self.segment.crc {
                true => Ok(None),
                false => Err(damaged(&self.path, "the checksum does not match")),
            };
        }
        if self.held.len() < FRAME_HEADER_BYTES {
            self.load(limits::SCAN_BYTES, left)?;
        }
        let info = (self.parser)(&self.held).filter(|info| sane(info, left));
        let info = info.ok_or_else(|| damaged(&self.path, "a frame does not parse"))?;
        let len = usize::try_from(info.len).map_err(io::Error::other)?;
        if len > self.held.len() {
            self.load(len.max(limits::SCAN_BYTES), left)?;
        }
        let frame = self.held.split_to(len);
        self.crc = crc32c_append(self.crc, &frame);
        self.at += info.len;
        Ok(Some((info, frame)))
    }

    /// Has `wanted` bytes in memory, or all that are left.
    fn load(&mut self, wanted: usize, left: u64) -> io::Result<()> {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
        if len <= self.held.len() {
            return Ok(());
        }
        let mut bytes = BytesMut::zeroed(len);
        let (old, new) = bytes.split_at_mut(self.held.len());
        old.copy_from_slice(&self.held);
        self.file.read_exact_at(new, self.at + old.len() as u64)?;
        self.held = bytes.freeze();
        Ok(())
    }
}

/// A segment file in the making. Dropped unfinished, it leaves its file behind, which the next
/// start or the next attempt removes.
pub struct Rewrite {
    shared: Arc<Shared>,
    path: PathBuf,
    info: SegmentInfo,
    frames: Vec<Bytes>,
    waiting: usize,
    open: Option<OpenFile>,
    unsynced: usize,
}

impl Rewrite {
    pub(crate) fn new(
        shared: Arc<Shared>,
        path: PathBuf,
        base_offset: u64,
        generation: u64,
    ) -> Self {
        assert!(generation > 0, "generation 0 is for what was appended");
        let info = SegmentInfo {
            base_offset,
            generation,
            len: 0,
            crc: 0,
            next_offset: base_offset,
            max_timestamp_ms: i64::MIN,
        };
        Self { shared, path, info, frames: Vec::new(), waiting: 0, open: None, unsynced: 0 }
    }

    /// Adds a frame. Fails when it does not follow the one before.
    pub fn push(&mut self, frame: &FrameInfo, bytes: Bytes) -> io::Result<()> {
        let follows = frame.base_offset >= self.info.next_offset;
        if !follows || frame.next_offset <= frame.base_offset || frame.len != bytes.len() as u64 {
            let (from, to) = (frame.base_offset, frame.next_offset);
            return Err(damaged(&self.path, &format!("frame {from}..{to} does not follow")));
        }
        let info = &mut self.info;
        info.crc = crc32c_append(info.crc, &bytes);
        info.len += frame.len;
        info.next_offset = frame.next_offset;
        info.max_timestamp_ms = info.max_timestamp_ms.max(frame.max_timestamp_ms);
        self.waiting += bytes.len();
        self.frames.push(bytes);
        if self.waiting >= self.shared.options.chunk_bytes { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        let disk: &dyn Disk = &*self.shared.disk;
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                if disk.exists(&self.path)? {
                    disk.remove_file(&self.path)?;
                }
                let segment = self.info.base_offset;
                self.open.insert(OpenFile::open(disk, &self.path, segment, 0)?)
            }
        };
        let mut buffer = self.shared.buffer();
        open.write(&self.frames, &mut buffer)?;
        self.shared.give_back(buffer);
        self.unsynced += std::mem::take(&mut self.waiting);
        self.frames.clear();
        if self.unsynced >= limits::REWRITE_SYNC_BYTES {
            self.unsynced = 0;
            open.plain.sync()?;
        }
        Ok(())
    }

    /// Makes the file durable (its name is not yet) and describes it; `None` when no frame was
    /// added, and then there is no file.
    pub fn finish(mut self) -> io::Result<Option<SegmentInfo>> {
        if self.info.len == 0 {
            return Ok(None);
        }
        if !self.frames.is_empty() {
            self.write()?;
        }
        let Some(mut open) = self.open else { return Ok(None) };
        let len = open.write_partial()?;
        assert_eq!(len, self.info.len, "a rewritten segment has the bytes that were added");
        open.plain.sync()?;
        Ok(Some(self.info))
    }
}

fn damaged(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}
