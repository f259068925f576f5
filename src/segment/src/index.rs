//! The sparse index of one segment, in memory.
//!
//! Pure: the scan that rebuilds it is driven from outside with file contents.

use crate::limits::{INDEX_STEP_BYTES, MAX_INDEX_STEP_BYTES};
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
/// disk and is scanned as it is read, from the beginning on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    from: u64,
    entries: Vec<Entry>,
    front: Front,
}

/// What is known of the bytes before [`Index::from`].
#[derive(Clone, Debug, Default)]
struct Front {
    /// Bytes scanned so far; a frame begins there.
    scanned: u64,
    /// The offset after the last frame scanned.
    next_offset: u64,
    /// Newest timestamp scanned.
    max_ms: Option<i64>,
    entries: Vec<Entry>,
}

impl Index {
    /// The index of a segment of which `len` bytes stand on disk unscanned.
    pub(crate) fn unscanned(len: u64) -> Self {
        Self { from: len, ..Self::default() }
    }

    /// Whether a part of the segment was not scanned yet.
    pub(crate) fn is_partial(&self) -> bool {
        self.from > 0
    }

    /// Takes a frame found at `pos`, which counts where it follows what was scanned before.
    pub(crate) fn extend(&mut self, pos: u64, info: &FrameInfo) {
        let front = &mut self.front;
        if self.from == 0 || pos != front.scanned {
            return;
        }
        note(&mut front.entries, info.base_offset, pos, front.max_ms.unwrap_or(i64::MIN));
        front.scanned += info.len;
        front.next_offset = info.next_offset;
        front.max_ms = front.max_ms.max(Some(info.max_timestamp_ms));
        if front.scanned >= self.from {
            let scanned = std::mem::take(&mut self.front.entries);
            self.complete(scanned);
        }
    }

    /// How many bytes at the beginning need a scan.
    pub(crate) fn missing(&self) -> u64 {
        self.from
    }

    /// Notes a frame at `pos`; most frames need no entry.
    pub(crate) fn note(&mut self, offset: u64, pos: u64, max_before_ms: i64) {
        note(&mut self.entries, offset, pos, max_before_ms);
    }

    /// Gives back memory, as no more frames come.
    pub(crate) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// Takes the result of a scan of the first [`Self::missing`] bytes.
    pub(crate) fn complete(&mut self, scanned: Vec<Entry>) {
        if self.from > 0 {
            (self.from, self.front) = (0, Front::default());
            self.entries.splice(0..0, scanned);
            self.shrink();
        }
    }

    /// Where to start reading for `offset`: at or before its frame.
    pub(crate) fn position_of(&self, offset: u64) -> u64 {
        let before = |entries: &[Entry]| {
            let after = entries.partition_point(|e| e.offset <= offset);
            after.checked_sub(1).and_then(|i| entries.get(i)).map(|e| e.pos)
        };
        let beyond_front = offset >= self.front.next_offset;
        let in_front = || if beyond_front { None } else { before(&self.front.entries) };
        before(&self.entries).or_else(in_front).unwrap_or(match beyond_front {
            true => self.front.scanned,
            false => 0,
        })
    }

    /// An offset at or before the first frame whose newest timestamp is at least `ts`.
    pub(crate) fn offset_before_time(&self, ts: i64) -> Option<u64> {
        let after = self.entries.partition_point(|e| e.max_before_ms < ts);
        after.checked_sub(1).and_then(|i| self.entries.get(i)).map(|e| e.offset)
    }
}

fn note(entries: &mut Vec<Entry>, offset: u64, pos: u64, max_before_ms: i64) {
    let step = (pos >> 10).clamp(INDEX_STEP_BYTES, MAX_INDEX_STEP_BYTES);
    if entries.last().is_none_or(|last| pos >= last.pos + step) {
        entries.push(Entry { offset, pos, max_before_ms });
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

    #[test]
    fn a_large_segments_index_is_small() {
        let mut index = Index::default();
        (0..1u64 << 18).for_each(|n| index.note(n, n * 4096, 0));
        assert!((16_000..20_000).contains(&index.entries.len()), "{}", index.entries.len());
        for n in [0, 1000, 5000, 100_000, (1 << 18) - 1] {
            let pos = index.position_of(n);
            assert!(pos <= n * 4096 && n * 4096 - pos < MAX_INDEX_STEP_BYTES, "{n} {pos}");
        }
    }

    #[test]
    fn a_segment_found_on_disk_is_indexed_as_it_is_read() {
        let frame = |n: u64| FrameInfo {
            len: 2048,
            base_offset: 100 + n,
            next_offset: 101 + n,
            max_timestamp_ms: n.cast_signed(),
        };
        let mut index = Index::unscanned(20 * 2048);
        index.note(120, 20 * 2048, 19);
        assert_eq!((index.position_of(100), index.position_of(119)), (0, 0));
        assert_eq!(index.position_of(120), 20 * 2048);
        index.extend(4096, &frame(2));
        assert_eq!(index.position_of(103), 0, "what does not follow does not count");
        (0..10).for_each(|n| index.extend(n * 2048, &frame(n)));
        index.extend(0, &frame(0));
        assert_eq!(index.position_of(105), 4 * 2048);
        assert_eq!(index.position_of(115), 10 * 2048, "the scan goes on where it ended");
        assert!(index.is_partial());
        (10..20).for_each(|n| index.extend(n * 2048, &frame(n)));
        assert!(!index.is_partial());
        assert_eq!(index.position_of(115), 14 * 2048);
        assert_eq!(index.offset_before_time(16), Some(116));
    }
}
