//! What a stream holds in memory: its segments and the frames at its end. No I/O.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use base::DiskFile;
use base::crc::crc32c_append;
use bytes::Bytes;

use crate::index::Index;
use crate::{FileId, SegmentInfo};

pub(crate) struct Segment {
    pub(crate) info: SegmentInfo,
    /// Bytes that the file holds for readers.
    pub(crate) written: u64,
    pub(crate) index: Index,
    pub(crate) reader: Option<Arc<dyn DiskFile>>,
}

pub(crate) struct Frame {
    pub(crate) base_offset: u64,
    pub(crate) next_offset: u64,
    segment: u64,
    end_pos: u64,
    pub(crate) bytes: Bytes,
}

/// Frames of one segment on their way into its file.
pub(crate) struct Batch {
    pub(crate) segment: u64,
    pub(crate) start_pos: u64,
    pub(crate) frames: Vec<Bytes>,
    pub(crate) bytes: usize,
    /// Whether the segment gets no more frames.
    pub(crate) seals: bool,
}

/// What to read of a file.
pub(crate) struct Plan {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) segment: FileId,
    /// The segment's index does not know all of it.
    pub(crate) partial: bool,
    /// The file was opened for this.
    pub(crate) opened: bool,
}

/// The next step of a read.
pub(crate) enum Planned {
    Read(Plan),
    /// To be opened first, without the state's lock: the disk may keep that long.
    Open(FileId),
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) segments: VecDeque<Segment>,
    /// The newest frames without a gap; all that are not in the file yet, and some that are.
    tail: VecDeque<Frame>,
    pub(crate) tail_bytes: usize,
    /// How many frames at the back of `tail` the writing side has not taken yet.
    untaken: usize,
    pub(crate) untaken_bytes: usize,
    roll_next: bool,
    /// Whether the stream stands in the writer's queue of full chunks, and of small ones.
    pub(crate) queued_full: bool,
    pub(crate) queued_small: bool,
    pub(crate) closed: bool,
    /// Segments whose files go at the next but one checkpoint, and at the next.
    pub(crate) trimmed: Vec<FileId>,
    pub(crate) trimmed_before: Vec<FileId>,
    /// Segments that were rewritten or trimmed between the two halves of a checkpoint, maybe, so
    /// that the one under way still speaks of them. They count as trimmed from the next one on.
    pub(crate) replaced: Vec<FileId>,
}

impl State {
    pub(crate) fn open(segments: &[SegmentInfo]) -> Self {
        Self { segments: segments.iter().map(found).collect(), ..Self::default() }
    }

    pub(crate) fn next_offset(&self) -> Option<u64> {
        self.segments.back().map(|s| s.info.next_offset)
    }

    pub(crate) fn roll(&mut self) {
        self.roll_next = self.segments.back().is_some_and(|s| s.info.len > 0);
    }

    pub(crate) fn append(
        &mut self,
        base_offset: u64,
        next_offset: u64,
        max_timestamp_ms: i64,
        bytes: Bytes,
    ) -> io::Result<()> {
        let in_order = self.next_offset().is_none_or(|next| base_offset >= next);
        if !in_order || next_offset <= base_offset || bytes.is_empty() {
            let text = format!("frame {base_offset}..{next_offset} does not follow");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if self.roll_next || self.segments.is_empty() {
            if let Some(finished) = self.segments.back_mut() {
                finished.index.shrink();
            }
            self.segments.push_back(new_segment(base_offset));
            self.roll_next = false;
        }
        let Some(segment) = self.segments.back_mut() else {
            return Err(io::Error::other("a stream without segments"));
        };
        let info = &mut segment.info;
        segment.index.note(base_offset, info.len, info.max_timestamp_ms);
        info.crc = crc32c_append(info.crc, &bytes);
        info.len += bytes.len() as u64;
        info.next_offset = next_offset;
        info.max_timestamp_ms = info.max_timestamp_ms.max(max_timestamp_ms);
        let (segment, end_pos) = (info.base_offset, info.len);
        self.tail_bytes += bytes.len();
        self.untaken_bytes += bytes.len();
        self.untaken += 1;
        self.tail.push_back(Frame { base_offset, next_offset, segment, end_pos, bytes });
        Ok(())
    }

    /// Hands frames of one segment to the writing side: at least one, then up to `max_bytes`.
    pub(crate) fn take_batch(&mut self, max_bytes: usize) -> Option<Batch> {
        let first = self.tail.len() - self.untaken;
        let head = self.tail.get(first)?;
        let segment = head.segment;
        let start_pos = head.end_pos - head.bytes.len() as u64;
        let mut batch = Batch { segment, start_pos, frames: vec![], bytes: 0, seals: false };
        for frame in self.tail.range(first..) {
            if frame.segment != segment {
                batch.seals = true;
                break;
            }
            if batch.bytes >= max_bytes {
                break;
            }
            batch.bytes += frame.bytes.len();
            batch.frames.push(frame.bytes.clone());
        }
        self.untaken -= batch.frames.len();
        self.untaken_bytes -= batch.bytes;
        Some(batch)
    }

    /// Forgets frames that were not taken; returns their bytes.
    pub(crate) fn discard_untaken(&mut self) -> usize {
        self.untaken = 0;
        std::mem::take(&mut self.untaken_bytes)
    }

    pub(crate) fn set_written(&mut self, segment: u64, written: u64) {
        if let Some(segment) = self.find_mut(segment)
            && segment.info.generation == 0
        {
            segment.written = segment.written.max(written);
        }
    }

    /// Drops written frames from memory while more than `limit` bytes are held; returns the
    /// bytes dropped.
    pub(crate) fn evict(&mut self, limit: usize) -> usize {
        let before = self.tail_bytes;
        while self.tail_bytes > limit && self.tail.len() > self.untaken {
            let Some(front) = self.tail.front() else { break };
            let written = self.find(front.segment).map_or(u64::MAX, |s| s.written);
            if front.end_pos > written {
                break;
            }
            self.tail_bytes -= front.bytes.len();
            self.tail.pop_front();
        }
        before - self.tail_bytes
    }

    /// Frames from the one that holds `offset` (or the next one) on, when memory has it.
    pub(crate) fn read_tail(&self, offset: u64, max_bytes: usize) -> Option<Vec<Bytes>> {
        if self.next_offset().is_none_or(|next| offset >= next) {
            return Some(Vec::new());
        }
        let front = self.tail.front()?;
        let evicted = self.segments.front().is_none_or(|s| {
            s.info.base_offset < front.segment
                || s.info.base_offset == front.segment && front.end_pos > front.bytes.len() as u64
        });
        if offset < front.base_offset && evicted {
            return None;
        }
        let first = self.tail.partition_point(|f| f.next_offset <= offset);
        let (mut frames, mut bytes) = (Vec::new(), 0);
        for frame in self.tail.range(first..) {
            if !frames.is_empty() && bytes + frame.bytes.len() > max_bytes {
                break;
            }
            bytes += frame.bytes.len();
            frames.push(frame.bytes.clone());
        }
        Some(frames)
    }

    pub(crate) fn find(&self, base_offset: u64) -> Option<&Segment> {
        let at = self.segments.binary_search_by_key(&base_offset, |s| s.info.base_offset).ok()?;
        self.segments.get(at)
    }

    pub(crate) fn find_mut(&mut self, base_offset: u64) -> Option<&mut Segment> {
        let at = self.segments.binary_search_by_key(&base_offset, |s| s.info.base_offset).ok()?;
        self.segments.get_mut(at)
    }

    /// The segment with exactly this file; none once it was trimmed or rewritten.
    pub(crate) fn find_file(&mut self, file: FileId) -> Option<&mut Segment> {
        self.find_mut(file.base_offset).filter(|segment| segment.info.file() == file)
    }

    /// The first segment that holds `offset` or something after it.
    pub(crate) fn segment_for(&self, offset: u64) -> Option<&Segment> {
        self.segments.get(self.segments.partition_point(|s| s.info.next_offset <= offset))
    }

    /// What a read of the file that holds `offset`, or something after it, needs; `opened` is what
    /// was opened for it, if anything was.
    pub(crate) fn plan(
        &mut self,
        offset: u64,
        opened: &mut Option<(FileId, Arc<dyn DiskFile>)>,
    ) -> Option<Planned> {
        let id = self.segment_for(offset)?.info.file();
        let fresh = opened.take().filter(|(segment, _)| *segment == id).map(|(_, file)| file);
        let segment = self.find_file(id)?;
        let (file, opened) = match (&segment.reader, fresh) {
            (Some(file), _) => (file.clone(), false),
            (None, Some(file)) => {
                segment.reader = Some(file.clone());
                (file, true)
            }
            (None, None) => return Some(Planned::Open(id)),
        };
        let segment = self.find(id.base_offset)?;
        let start = segment.index.position_of(offset);
        let (end, partial) = (self.whole_until(segment), segment.index.is_partial());
        Some(Planned::Read(Plan { file, start, end, segment: id, partial, opened }))
    }

    /// Where the frames of a segment that are whole in its file end. The file may hold a part of
    /// the next frame, which memory then has.
    pub(crate) fn whole_until(&self, segment: &Segment) -> u64 {
        match self.tail.front() {
            Some(front) if front.segment == segment.info.base_offset => {
                segment.written.min(front.end_pos - front.bytes.len() as u64)
            }
            _ => segment.written,
        }
    }

    /// Hides all segments below `offset`, the newest one excepted; returns the bytes dropped
    /// from memory. `aside` when a checkpoint may be under way that still speaks of them.
    pub(crate) fn trim_before(&mut self, offset: u64, aside: bool) -> usize {
        let gone = if aside { &mut self.replaced } else { &mut self.trimmed };
        while self.segments.len() > 1
            && self.segments.front().is_some_and(|s| s.info.next_offset <= offset)
        {
            gone.extend(self.segments.pop_front().map(|s| s.info.file()));
        }
        let first = self.segments.front().map_or(0, |s| s.info.base_offset);
        self.forget_frames(first)
    }

    /// Drops the written frames of segments before `first` from memory; returns their bytes.
    fn forget_frames(&mut self, first: u64) -> usize {
        let before = self.tail_bytes;
        while self.tail.len() > self.untaken
            && let Some(front) = self.tail.front()
            && front.segment < first
        {
            self.tail_bytes -= front.bytes.len();
            self.tail.pop_front();
        }
        before - self.tail_bytes
    }
}

impl State {
    /// Whether files wait for further checkpoints to go.
    pub(crate) fn waits_to_delete(&self) -> bool {
        !(self.trimmed.is_empty() && self.trimmed_before.is_empty() && self.replaced.is_empty())
    }

    /// Puts rewritten segments in the place of all that begin before `upto`; returns the bytes
    /// dropped from memory. Changes nothing when it fails.
    pub(crate) fn replace(&mut self, upto: u64, with: &[SegmentInfo]) -> Result<usize, String> {
        let old = self.segments.partition_point(|s| s.info.base_offset < upto);
        if self.segments.get(old).is_none_or(|s| s.info.base_offset != upto) {
            return Err(format!("no segment begins at {upto}"));
        }
        let unwritten = self.tail.iter().skip(self.tail.len() - self.untaken);
        if unwritten.clone().any(|frame| frame.segment < upto) {
            return Err(format!("frames before {upto} are not written yet"));
        }
        let within = |s: &SegmentInfo| s.generation > 0 && s.next_offset <= upto;
        let ordered = with.windows(2).all(|pair| match pair {
            [a, b] => a.next_offset <= b.base_offset && a.base_offset < b.base_offset,
            _ => true,
        });
        if !ordered || !with.iter().all(within) {
            return Err(format!("rewritten segments before {upto} are out of order"));
        }
        self.replaced.extend(self.segments.drain(..old).map(|s| s.info.file()));
        for info in with.iter().rev() {
            self.segments.push_front(found(info));
        }
        Ok(self.forget_frames(upto))
    }
}

/// A segment whose file is there and not scanned yet.
fn found(info: &SegmentInfo) -> Segment {
    let (written, index) = (info.len, Index::unscanned(info.len));
    Segment { written, index, reader: None, info: info.clone() }
}

fn new_segment(base_offset: u64) -> Segment {
    let info = SegmentInfo {
        base_offset,
        generation: 0,
        len: 0,
        crc: 0,
        next_offset: base_offset,
        max_timestamp_ms: i64::MIN,
    };
    Segment { info, written: 0, index: Index::default(), reader: None }
}
