//! The sparse index of one segment, in memory.
//!
//! Pure: the scan that rebuilds it is driven from outside with file contents.

use crate::limits::INDEX_STEP_BYTES;
use crate::{FRAME_HEADER_BYTES, FrameInfo, FrameParser};

/// A frame start that readers may jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) pos: u64,
    /// Newest timestamp of all frames before this one in the segment.
    pub(crate) max_before_ms: i64,
}

/// Entries for the bytes from `from` to the segment's end. What lies before `from` was found on
/// disk and not scanned yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    from: u64,
    entries: Vec<Entry>,
}

impl Index {
    /// The index of a segment of which `len` bytes stand on disk unscanned.
    pub(crate) fn unscanned(len: u64) -> Self {
        Self { from: len, entries: Vec::new() }
    }

    /// How many bytes at the beginning need a scan.
    pub(crate) fn missing(&self) -> u64 {
        self.from
    }

    /// Notes a frame at `pos`; most frames need no entry.
    pub(crate) fn note(&mut self, offset: u64, pos: u64, max_before_ms: i64) {
        let due = self.entries.last().is_none_or(|last| pos >= last.pos + INDEX_STEP_BYTES);
        if due {
            self.entries.push(Entry { offset, pos, max_before_ms });
        }
    }

    /// Takes the result of a scan of the first [`Self::missing`] bytes.
    pub(crate) fn complete(&mut self, scanned: Vec<Entry>) {
        if self.from > 0 {
            self.from = 0;
            self.entries.splice(0..0, scanned);
        }
    }

    /// Where to start reading for `offset`: at or before its frame.
    pub(crate) fn position_of(&self, offset: u64) -> u64 {
        let after = self.entries.partition_point(|e| e.offset <= offset);
        after.checked_sub(1).and_then(|i| self.entries.get(i)).map_or(0, |e| e.pos)
    }

    /// An offset at or before the first frame whose newest timestamp is at least `ts`.
    pub(crate) fn offset_before_time(&self, ts: i64) -> Option<u64> {
        let after = self.entries.partition_point(|e| e.max_before_ms < ts);
        after.checked_sub(1).and_then(|i| self.entries.get(i)).map(|e| e.offset)
    }
}

/// Scans frames chunk by chunk and yields index entries.
pub(crate) struct Scan {
    parser: FrameParser,
    /// Where the next frame begins.
    pub(crate) pos: u64,
    max_ms: i64,
    index: Index,
}

impl Scan {
    pub(crate) fn new(parser: FrameParser) -> Self {
        Self { parser, pos: 0, max_ms: i64::MIN, index: Index::default() }
    }

    /// Takes the bytes at [`Self::pos`] of a segment that ends at `end`; false when a frame does
    /// not parse or reaches beyond the end.
    pub(crate) fn feed(&mut self, bytes: &[u8], end: u64) -> bool {
        let start = self.pos;
        loop {
            let Ok(skip) = usize::try_from(self.pos - start) else { return false };
            let Some(rest) = bytes.get(skip..).filter(|rest| !rest.is_empty()) else { return true };
            let at_end = start + bytes.len() as u64 >= end;
            if rest.len() < FRAME_HEADER_BYTES && !at_end && skip > 0 {
                return true;
            }
            let Some(info) = (self.parser)(rest).filter(|i| sane(i, end - self.pos)) else {
                return false;
            };
            self.index.note(info.base_offset, self.pos, self.max_ms);
            self.max_ms = self.max_ms.max(info.max_timestamp_ms);
            self.pos += info.len;
        }
    }

    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.index.entries
    }
}

/// Whether a header can belong to a frame in the `room` bytes up to its segment's end.
pub(crate) fn sane(info: &FrameInfo, room: u64) -> bool {
    info.len > 0 && info.len <= room && info.next_offset > info.base_offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_times_are_found_through_sparse_entries() {
        let mut index = Index::default();
        for i in 0..100u64 {
            let before = if i == 0 { i64::MIN } else { i as i64 * 10 - 10 };
            index.note(i, i * 1024, before);
        }
        assert_eq!(index.entries.len(), 25);
        assert_eq!(index.position_of(0), 0);
        assert_eq!(index.position_of(7), 4096);
        assert_eq!(index.position_of(8), 8192);
        assert_eq!(index.offset_before_time(-5), Some(0));
        assert_eq!(index.offset_before_time(71), Some(8));
        assert_eq!(index.offset_before_time(69), Some(4));
    }
}
