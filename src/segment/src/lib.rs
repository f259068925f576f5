//! Append-only segment files, shared by the Kafka log and the search translog.
//!
//! A [`Stream`] is one partition or shard: a directory of segment files named after their first
//! offset (`00000000000000000042.log`; what a rewrite of generation 3 made is
//! `00000000000000000042.3.log`). A file holds frames back to back, nothing else: no
//! header, no padding, no trailer. What a frame looks like is the caller's business; a
//! [`FrameParser`] tells length, offsets and newest timestamp from the first
//! [`FRAME_HEADER_BYTES`] bytes of a frame. For Kafka a frame is a v2 record batch.
//!
//! Finding a frame: every segment has a sparse index in memory, one entry for each
//! [`limits::INDEX_STEP_BYTES`] of data. Appends extend it; for segments that were found on disk
//! it is rebuilt as they are read, from their beginning on. It is advisory and never stored.
//!
//! Writing: an append only puts the frame into memory, where readers find it at once. One
//! thread per node ([`SegmentWriter`]) writes chunks of a mebibyte and more, bypassing the page
//! cache where the file system takes it; the last partial block goes through the page cache so
//! that a file never holds a byte that was not appended. Frames stay in memory until they are in
//! the file, and after that as long as the cache has room.
//!
//! Durability: [`Stream::sync`] returns once everything appended before it is written and
//! synced. Nothing else is durable: what lies behind the last sync is replayed by the owner from
//! the WAL after [`Stream::open`] has cut the files to the lengths of the owner's checkpoint.
//! For the same reason [`Stream::trim_before`] only hides segments: the files go at the second
//! [`Stream::begin_checkpoint`] after it, when no checkpoint speaks of them any more.
//!
//! Rewriting (compaction): an owner reads closed segments with [`Stream::frames`], writes new files
//! of a higher generation with [`Stream::rewrite`], and puts them in the place of the old ones with
//! [`Stream::replace`], at once for all readers. The old files go as trimmed ones do, one
//! checkpoint later. A reader that began on an old file ends on it.
//!
//! Invariants: frames of a stream are in order of offset (gaps are allowed); rolls happen only
//! where the caller asks, so that equal calls give byte-equal files; a failed write or sync is
//! permanent: every later append and sync of the node's writer fails.

mod index;
pub mod limits;
mod rewrite;
mod state;
mod stream;
mod writer;

#[cfg(test)]
mod tests;

pub use rewrite::{FrameReader, Rewrite};
pub use stream::{Stream, TimedFrame};
pub use writer::{SegmentWriter, WriterOptions, WriterStats, Writing};

/// Bytes of a frame's beginning that a [`FrameParser`] may rely on, when the frame has them.
pub const FRAME_HEADER_BYTES: usize = 64;

/// What a frame's header says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// Length of the whole frame in bytes; above 0.
    pub len: u64,
    /// First offset in the frame.
    pub base_offset: u64,
    /// The offset after the last one in the frame; above `base_offset`.
    pub next_offset: u64,
    /// Newest timestamp in the frame, in milliseconds.
    pub max_timestamp_ms: i64,
}

/// Reads a frame's header; `None` when the bytes are not a frame.
pub type FrameParser = fn(&[u8]) -> Option<FrameInfo>;

/// A segment as its owner's checkpoint remembers it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SegmentInfo {
    /// First offset; the beginning of the file's name.
    pub base_offset: u64,
    /// 0 for a segment as it was appended, else the number of the rewrite that made it.
    pub generation: u64,
    /// Length in bytes.
    pub len: u64,
    /// CRC32C of those bytes.
    pub crc: u32,
    /// The offset after the last one.
    pub next_offset: u64,
    /// Newest timestamp that appends came with, in milliseconds; `i64::MIN` when empty.
    pub max_timestamp_ms: i64,
}

impl SegmentInfo {
    /// Name of the segment's file inside its stream's directory.
    pub fn file_name(&self) -> String {
        file_name(self.file())
    }

    pub(crate) fn file(&self) -> FileId {
        FileId { base_offset: self.base_offset, generation: self.generation }
    }
}

/// What tells a segment's file from all others that the stream ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) base_offset: u64,
    pub(crate) generation: u64,
}

impl FileId {
    /// The file of a segment as it is appended.
    pub(crate) fn appended(base_offset: u64) -> Self {
        Self { base_offset, generation: 0 }
    }
}

pub(crate) fn file_name(file: FileId) -> String {
    match file.generation {
        0 => format!("{:020}.log", file.base_offset),
        generation => format!("{:020}.{generation}.log", file.base_offset),
    }
}
