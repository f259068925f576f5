//! One partition or shard as a stream of frames.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{Disk, DiskFile, OpenMode};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::index::{Scan, sane};
use crate::rewrite::{FrameReader, Rewrite};
use crate::state::{Plan, Planned, State};
use crate::writer::{Chunk, OpenFile, SegmentWriter, Shared, Writing, segment_path};
use crate::{FRAME_HEADER_BYTES, FileId, FrameParser, SegmentInfo, limits};

/// Attempts to open a file while too many are open, and the pause between them: half a minute.
const OPEN_ATTEMPTS: u32 = 300;
const OPEN_PAUSE: Duration = Duration::from_millis(100);

/// Frames passed in a file whose index is being made are noted in it so many at once.
const SEEN_AT_ONCE: usize = 4096;

/// How much a flush writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Chunks that are full; what is left of the last block waits.
    FullChunks,
    /// All frames up to the last byte.
    Everything,
}

/// A frame found by its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedFrame {
    /// First offset in the frame.
    pub base_offset: u64,
    /// Newest timestamp in the frame, at least the one asked for.
    pub max_timestamp_ms: i64,
    /// The frame.
    pub bytes: Bytes,
}

/// One partition or shard. Cloning shares it; any thread may read while one appends.
#[derive(Clone)]
pub struct Stream(Arc<Inner>);

pub(crate) struct Inner {
    shared: Arc<Shared>,
    dir: PathBuf,
    parser: FrameParser,
    state: Mutex<State>,
    io: Mutex<IoSide>,
    /// Held during a sync: a second one may only return after the first has synced for both.
    syncing: Mutex<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A stream that was closed, and not trimmed to its end, still counted.
        let held = self.state.get_mut().tail_bytes;
        self.shared.memory.fetch_sub(held, Ordering::Relaxed);
    }
}

/// What only the writing side touches; its lock is held during writes.
struct IoSide {
    /// The stream has no directory yet, or one with leftovers of an earlier life.
    fresh: bool,
    open: Option<OpenFile>,
    unsynced: Vec<Arc<dyn DiskFile>>,
    unsynced_dirs: Vec<PathBuf>,
}

impl Stream {
    /// A stream without frames. Its directory is made, and emptied, with the first write.
    pub fn create(writer: &SegmentWriter, dir: PathBuf, parser: FrameParser) -> Self {
        Self::with(writer, dir, parser, State::default(), true)
    }

    /// A stream as a checkpoint remembers it: files are cut to the lengths given, unknown files
    /// deleted. Fails when a file is missing or shorter.
    pub fn open(
        writer: &SegmentWriter,
        dir: PathBuf,
        segments: &[SegmentInfo],
        parser: FrameParser,
    ) -> io::Result<Self> {
        let ordered = segments.windows(2).all(|pair| match pair {
            [a, b] => a.next_offset <= b.base_offset && a.base_offset < b.base_offset,
            _ => true,
        });
        if !ordered {
            return Err(damaged(&dir, "segments out of order"));
        }
        if !segments.is_empty() {
            cut_files(&*writer.shared.disk, &dir, segments)?;
        }
        Ok(Self::with(writer, dir, parser, State::open(segments), segments.is_empty()))
    }

    fn with(
        writer: &SegmentWriter,
        dir: PathBuf,
        parser: FrameParser,
        state: State,
        fresh: bool,
    ) -> Self {
        let io = IoSide { fresh, open: None, unsynced: vec![], unsynced_dirs: vec![] };
        let shared = writer.shared.clone();
        let inner = Arc::new(Inner {
            shared,
            dir,
            parser,
            state: Mutex::new(state),
            io: Mutex::new(io),
            syncing: Mutex::new(()),
        });
        writer.shared.register(&inner);
        Self(inner)
    }

    /// The stream's directory.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Path of a segment's file.
    pub fn path_of(&self, segment: &SegmentInfo) -> PathBuf {
        segment_path(&self.0.dir, segment.file())
    }

    /// Waits while too much is unwritten; to be called before [`Self::append`], without a lock
    /// that readers need. Fails when the writer failed.
    pub fn wait_for_room(&self) -> io::Result<()> {
        self.0.shared.wait_for_room()
    }

    /// Appends one frame of offsets `base_offset..next_offset`. Readers see it at once. Fails when
    /// frames are out of order, the stream was closed, or the writer failed.
    pub fn append(
        &self,
        base_offset: u64,
        next_offset: u64,
        max_timestamp_ms: i64,
        bytes: Bytes,
    ) -> io::Result<()> {
        let shared = &self.0.shared;
        shared.check()?;
        let len = bytes.len();
        let mut state = self.0.state.lock();
        if state.closed {
            return Err(io::Error::other("the stream was closed"));
        }
        state.append(base_offset, next_offset, max_timestamp_ms, bytes)?;
        shared.add_unwritten(len);
        let chunk = shared.options.chunk_bytes;
        let full = state.untaken_bytes >= chunk;
        let queue = match full {
            true => !std::mem::replace(&mut state.queued_full, true),
            false => !std::mem::replace(&mut state.queued_small, true),
        };
        drop(state);
        if queue {
            shared.enqueue(self.0.clone(), if full { Chunk::Full } else { Chunk::Partial });
        }
        if shared.options.writing == Writing::Inline {
            shared.run_inline()?;
        }
        Ok(())
    }

    /// Makes the next append start a new segment, unless the newest one is empty. An owner whose
    /// checkpoint may fall between the two must remember the roll itself: [`SegmentInfo`] does
    /// not say that one is due.
    pub fn roll(&self) {
        self.0.state.lock().roll();
    }

    /// Length of the newest segment in bytes.
    pub fn active_len(&self) -> u64 {
        self.0.state.lock().segments.back().map_or(0, |s| s.info.len)
    }

    /// Length of all segments in bytes.
    pub fn total_len(&self) -> u64 {
        self.0.state.lock().segments.iter().map(|s| s.info.len).sum()
    }

    /// The offset after the last frame; 0 when there was none yet.
    pub fn next_offset(&self) -> u64 {
        self.0.state.lock().next_offset().unwrap_or(0)
    }

    /// First offset of the oldest segment; 0 when there is none.
    pub fn start_offset(&self) -> u64 {
        self.0.state.lock().segments.front().map_or(0, |s| s.info.base_offset)
    }

    /// All segments, oldest first, appended frames included.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.0.state.lock().segments.iter().map(|s| s.info.clone()).collect()
    }

    /// Whole frames from the one that holds `from_offset` (or the next one) on: at least one
    /// unless the stream ends before, then up to `max_bytes`, never across a segment's end when
    /// read from disk.
    pub fn read(&self, from_offset: u64, max_bytes: usize) -> io::Result<Vec<Bytes>> {
        let mut opened = None;
        loop {
            let planned = {
                let mut state = self.0.state.lock();
                if let Some(frames) = state.read_tail(from_offset, max_bytes) {
                    return Ok(frames);
                }
                state.plan(from_offset, &mut opened)
            };
            match planned {
                None => return Ok(Vec::new()),
                Some(Planned::Read(plan)) => {
                    if plan.opened {
                        self.0.shared.note_reader(&self.0, plan.segment);
                    }
                    return self.0.read_file(plan, from_offset, max_bytes);
                }
                Some(Planned::Open(segment)) => match self.0.open_for_reading(segment)? {
                    Some(file) => opened = Some((segment, file)),
                    // It was trimmed or rewritten meanwhile: another one takes its place.
                    None => opened = None,
                },
            }
        }
    }

    /// As [`Self::read`], when memory has the frames: never touches the disk.
    pub fn read_memory(&self, from_offset: u64, max_bytes: usize) -> Option<Vec<Bytes>> {
        self.0.state.lock().read_tail(from_offset, max_bytes)
    }

    /// The first frame whose newest timestamp is at least `ts`.
    pub fn find_time(&self, ts: i64) -> io::Result<Option<TimedFrame>> {
        let segment = {
            let state = self.0.state.lock();
            let hit = state.segments.iter().find(|s| s.info.max_timestamp_ms >= ts);
            let Some(segment) = hit else { return Ok(None) };
            segment.info.file()
        };
        self.0.complete_index(segment)?;
        let mut offset = {
            let mut state = self.0.state.lock();
            let found = state.find_file(segment).and_then(|s| s.index.offset_before_time(ts));
            found.unwrap_or(segment.base_offset)
        };
        loop {
            let frames = self.read(offset, limits::SCAN_BYTES)?;
            let Some(last) = frames.last() else { return Ok(None) };
            let last = self.0.parse(last)?;
            for bytes in frames {
                let info = self.0.parse(&bytes)?;
                if info.max_timestamp_ms >= ts {
                    let (base_offset, max_timestamp_ms) = (info.base_offset, info.max_timestamp_ms);
                    return Ok(Some(TimedFrame { base_offset, max_timestamp_ms, bytes }));
                }
            }
            offset = last.next_offset;
        }
    }

    /// Newest timestamp of all frames.
    pub fn max_timestamp_ms(&self) -> Option<i64> {
        let state = self.0.state.lock();
        state.segments.iter().map(|s| s.info.max_timestamp_ms).max().filter(|t| *t > i64::MIN)
    }

    /// Waits until everything appended so far is written and durable. Several threads may sync
    /// different streams at once.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    /// Hides all segments that end at or before `offset`, the newest one excepted.
    pub fn trim_before(&self, offset: u64) {
        self.trim(offset, false);
    }

    /// As [`Self::trim_before`], for callers outside apply: a checkpoint may have been captured and
    /// not begun, so that the files go one checkpoint later.
    pub fn trim_aside(&self, offset: u64) {
        self.trim(offset, true);
    }

    fn trim(&self, offset: u64, aside: bool) {
        let freed = self.0.state.lock().trim_before(offset, aside);
        self.0.shared.memory.fetch_sub(freed, Ordering::Relaxed);
    }

    /// To be called at the beginning of each checkpoint: the files of segments that were trimmed
    /// before the previous call, or rewritten or trimmed aside before the one before that, of which
    /// no durable checkpoint speaks any more. The caller deletes them with
    /// [`SegmentWriter::delete`], off the apply path.
    pub fn begin_checkpoint(&self) -> Vec<PathBuf> {
        let mut state = self.0.state.lock();
        let state = &mut *state;
        let trimmed = std::mem::replace(&mut state.trimmed, std::mem::take(&mut state.replaced));
        let gone = std::mem::replace(&mut state.trimmed_before, trimmed);
        gone.into_iter().map(|segment| segment_path(&self.0.dir, segment)).collect()
    }

    /// Whether files wait for the next call of [`Self::begin_checkpoint`], or one after it, to go.
    pub fn waits_to_delete(&self) -> bool {
        self.0.state.lock().waits_to_delete()
    }

    /// Reads the frames of a segment that gets no more of them, from its beginning; everything
    /// appended to it must be written ([`Self::sync`]). Fails at the end when the file has not
    /// the checksum that `segment` states.
    pub fn frames(&self, segment: &SegmentInfo) -> io::Result<FrameReader> {
        let path = self.path_of(segment);
        let file = self.0.shared.disk.open(&path, OpenMode::Read)?;
        Ok(FrameReader::new(file, path, self.0.parser, segment.clone()))
    }

    /// Begins a file to be put in the place of older ones by [`Self::replace`]. `generation` must
    /// be above 0 and above those of the segments that are rewritten.
    pub fn rewrite(&self, base_offset: u64, generation: u64) -> Rewrite {
        let path = segment_path(&self.0.dir, FileId { base_offset, generation });
        Rewrite::new(self.0.shared.clone(), path, base_offset, generation)
    }

    /// Makes names of rewritten files durable; to be called before [`Self::replace`].
    pub fn sync_names(&self) -> io::Result<()> {
        self.0.shared.disk.sync_dir(&self.0.dir)
    }

    /// Puts rewritten segments, whose files and names are durable, in the place of all that begin
    /// before `upto`, where a segment begins. Readers see either all or none. Fails when `upto`
    /// is no such place, or what lies before it is not written.
    pub fn replace(&self, upto: u64, with: &[SegmentInfo]) -> io::Result<()> {
        let mut state = self.0.state.lock();
        if state.closed {
            return Err(io::Error::other("the stream was closed"));
        }
        let freed = state.replace(upto, with).map_err(io::Error::other)?;
        drop(state);
        self.0.shared.memory.fetch_sub(freed, Ordering::Relaxed);
        Ok(())
    }

    /// Whether [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Drops what is unwritten and refuses appends from now on; files stay as they are.
    pub fn close(&self) {
        let freed = {
            let mut state = self.0.state.lock();
            state.closed = true;
            state.discard_untaken()
        };
        self.0.shared.sub_unwritten(freed);
        self.0.shared.forget(&self.0);
        // Waits for a write under way.
        self.0.io.lock().open = None;
    }

    /// Closes the stream and deletes its directory.
    pub fn remove(self) -> io::Result<()> {
        self.close();
        self.0.shared.disk.remove_dir_all(&self.0.dir)
    }
}

impl Inner {
    fn parse(&self, frame: &[u8]) -> io::Result<crate::FrameInfo> {
        (self.parser)(frame).ok_or_else(|| damaged(&self.dir, "a frame does not parse"))
    }

    /// A segment's file; `None` when it is no longer the stream's.
    fn open_for_reading(&self, segment: FileId) -> io::Result<Option<Arc<dyn DiskFile>>> {
        match self.shared.disk.open(&segment_path(&self.dir, segment), OpenMode::Read) {
            Ok(file) => Ok(Some(file)),
            Err(_) if self.state.lock().find_file(segment).is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads frames from the file; the state is not locked.
    fn read_file(&self, plan: Plan, offset: u64, max_bytes: usize) -> io::Result<Vec<Bytes>> {
        let mut seen = Vec::new();
        let frames = self.read_frames(&plan, offset, max_bytes, &mut seen)?;
        self.note_seen(&plan, &mut seen);
        Ok(frames)
    }

    /// Tells the segment's index of frames that were passed.
    fn note_seen(&self, plan: &Plan, seen: &mut Vec<(u64, crate::FrameInfo)>) {
        if seen.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        // Not one that was rewritten meanwhile: the file read is still the old one.
        if let Some(segment) = state.find_file(plan.segment) {
            seen.iter().for_each(|(pos, info)| segment.index.extend(*pos, info));
        }
        seen.clear();
    }

    /// Notes frames it passes in `seen`, when the segment's index is partial, a few at a time.
    fn read_frames(
        &self,
        plan: &Plan,
        offset: u64,
        max_bytes: usize,
        seen: &mut Vec<(u64, crate::FrameInfo)>,
    ) -> io::Result<Vec<Bytes>> {
        let mut pos = plan.start;
        let mut room =
            max_bytes.saturating_add(usize::try_from(limits::MAX_INDEX_STEP_BYTES).unwrap_or(0));
        let mut frames: Vec<Bytes> = Vec::new();
        let mut total = 0;
        while pos < plan.end && frames.is_empty() {
            let left = usize::try_from(plan.end - pos).unwrap_or(usize::MAX);
            let mut bytes = vec![0; room.max(FRAME_HEADER_BYTES).min(left)];
            let read = bytes.len();
            plan.file.read_exact_at(&mut bytes, pos)?;
            let mut bytes = Bytes::from(bytes);
            while !bytes.is_empty() {
                let whole = bytes.len() as u64 == plan.end - pos;
                if bytes.len() < FRAME_HEADER_BYTES && !whole {
                    break;
                }
                let info = (self.parser)(&bytes).filter(|i| sane(i, plan.end - pos));
                let info = info.ok_or_else(|| damaged(&self.dir, "a frame does not parse"))?;
                let len = usize::try_from(info.len).map_err(io::Error::other)?;
                let wanted = info.next_offset > offset;
                if wanted && !frames.is_empty() && total + len > max_bytes {
                    return Ok(compact(frames, total, read));
                }
                if len > bytes.len() {
                    // The next turn, if there is one, begins with this frame.
                    room = len;
                    break;
                }
                let frame = bytes.split_to(len);
                if plan.partial {
                    seen.push((pos, info));
                    if seen.len() >= SEEN_AT_ONCE {
                        self.note_seen(plan, seen);
                    }
                }
                pos += info.len;
                if wanted {
                    total += len;
                    frames.push(frame);
                }
            }
            frames = compact(frames, total, read);
        }
        Ok(frames)
    }

    /// Scans the part of a segment that was found on disk, once; whether it did so now.
    fn complete_index(&self, segment: FileId) -> io::Result<bool> {
        let path = segment_path(&self.dir, segment);
        let end = match self.state.lock().find_file(segment) {
            Some(found) => found.index.missing(),
            None => 0,
        };
        if end == 0 {
            return Ok(false);
        }
        let Some(file) = self.open_for_reading(segment)? else { return Ok(false) };
        let mut scan = Scan::new(self.parser);
        let mut buf = vec![0; limits::SCAN_BYTES];
        while scan.pos < end {
            let room = usize::try_from(end - scan.pos).unwrap_or(usize::MAX).min(buf.len());
            let Some(part) = buf.get_mut(..room) else { break };
            file.read_exact_at(part, scan.pos)?;
            if !scan.feed(part, end) {
                return Err(damaged(&path, "a frame does not parse"));
            }
        }
        let mut state = self.state.lock();
        if let Some(found) = state.find_file(segment) {
            found.index.complete(scan.into_entries());
        }
        Ok(true)
    }

    pub(crate) fn unqueue(&self, flush: Flush) {
        let mut state = self.state.lock();
        match flush {
            Flush::FullChunks => state.queued_full = false,
            Flush::Everything => state.queued_small = false,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Whether frames wait that are in no queue, less than a chunk of them; they are from now on.
    pub(crate) fn queues_rest(&self) -> bool {
        let mut state = self.state.lock();
        let waits = state.untaken_bytes > 0 && !state.closed && !state.queued_full;
        waits && !std::mem::replace(&mut state.queued_small, true)
    }

    /// Lets go of a file that was opened for reading.
    pub(crate) fn close_reader(&self, segment: FileId) {
        if let Some(segment) = self.state.lock().find_file(segment) {
            segment.reader = None;
        }
    }

    pub(crate) fn evict(&self, limit: usize) {
        let freed = self.state.lock().evict(limit);
        self.shared.memory.fetch_sub(freed, Ordering::Relaxed);
    }

    /// Writes frames into their files.
    pub(crate) fn flush(&self, how: Flush) -> io::Result<()> {
        self.write_due(&mut self.io.lock(), how)
    }

    /// As [`Self::flush`], under the caller's lock. A failure is known before the lock is let go:
    /// who waits for it finds nothing left to write, and must not take that for success.
    fn write_due(&self, io: &mut IoSide, how: Flush) -> io::Result<()> {
        self.shared.check()?;
        self.try_write_due(io, how).inspect_err(|error| self.shared.fail(error))
    }

    fn try_write_due(&self, io: &mut IoSide, how: Flush) -> io::Result<()> {
        let chunk = self.shared.options.chunk_bytes;
        loop {
            let batch = {
                let mut state = self.state.lock();
                let due = how == Flush::Everything || state.untaken_bytes >= chunk;
                if due && !state.closed { state.take_batch(chunk) } else { None }
            };
            let Some(batch) = batch else { break };
            io.switch_to(self, batch.segment, batch.start_pos)?;
            let Some(open) = &mut io.open else { break };
            let mut buffer = self.shared.buffer();
            let written = open.write(&batch.frames, &mut buffer)?;
            self.shared.give_back(buffer);
            match batch.seals {
                true => io.write_partial(self)?,
                false => self.publish(batch.segment, written),
            }
            self.shared.sub_unwritten(batch.bytes);
        }
        if how == Flush::Everything {
            io.write_partial(self)?;
        }
        Ok(())
    }

    fn publish(&self, segment: u64, written: u64) {
        let freed = {
            let mut state = self.state.lock();
            state.set_written(segment, written);
            state.evict(self.shared.options.stream_cache_bytes)
        };
        self.shared.memory.fetch_sub(freed, Ordering::Relaxed);
    }

    fn sync(&self) -> io::Result<()> {
        let _alone = self.syncing.lock();
        // Known before the next sync goes on, which finds nothing left to sync.
        self.try_sync().inspect_err(|error| self.shared.fail(error))
    }

    fn try_sync(&self) -> io::Result<()> {
        let (files, dirs) = {
            let mut io = self.io.lock();
            self.write_due(&mut io, Flush::Everything)?;
            // Under the same lock: what is written from now on notes its file anew.
            let files = std::mem::take(&mut io.unsynced);
            // Most streams rest until the next checkpoint, and there are more of them than files
            // that a process may have open.
            io.open = None;
            (files, std::mem::take(&mut io.unsynced_dirs))
        };
        for file in &files {
            file.sync()?;
        }
        for dir in &dirs {
            self.shared.disk.sync_dir(dir)?;
        }
        {
            // Who writes may have synced one of these files meanwhile, and a failure is told only
            // once per file: whoever has seen it has reported it by the time this lock is free.
            let _io = self.io.lock();
            self.shared.check()?;
        }
        let mut state = self.state.lock();
        let freed = state.evict(self.shared.options.stream_cache_bytes);
        drop(state);
        self.shared.memory.fetch_sub(freed, Ordering::Relaxed);
        self.shared.sweep();
        Ok(())
    }
}

impl IoSide {
    /// Opens the file of `segment`, finishing the one that was open; notes that it will need a
    /// sync.
    fn switch_to(&mut self, inner: &Inner, segment: u64, len: u64) -> io::Result<()> {
        let disk = &*inner.shared.disk;
        if self.open.as_ref().is_none_or(|open| open.segment != segment) {
            self.write_partial(inner)?;
            self.open = None;
            if std::mem::take(&mut self.fresh) {
                disk.remove_dir_all(&inner.dir)?;
                disk.create_dir_all(&inner.dir)?;
                self.unsynced_dirs.extend(inner.dir.parent().map(Path::to_owned));
            }
            let path = segment_path(&inner.dir, FileId::appended(segment));
            self.open = Some(patiently(|| OpenFile::open(disk, &path, segment, len))?);
            if len == 0 && self.unsynced_dirs.last() != Some(&inner.dir) {
                self.unsynced_dirs.push(inner.dir.clone());
            }
        }
        if let Some(open) = &self.open {
            note_unsynced(&mut self.unsynced, &open.plain);
        }
        // Every one is an open file, and small segments may be many until the next sync.
        if self.unsynced.len() > limits::MAX_UNSYNCED_FILES {
            let newest = self.unsynced.len() - 1;
            self.unsynced.drain(..newest).try_for_each(|file| file.sync())?;
        }
        Ok(())
    }

    /// Writes the partial block of the open file, if that was not done, and shows it to readers.
    fn write_partial(&mut self, inner: &Inner) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.holds_partial() {
            // The sync after the whole blocks before it may be over.
            note_unsynced(&mut self.unsynced, &open.plain);
        }
        let written = open.write_partial()?;
        inner.publish(open.segment, written);
        Ok(())
    }
}

/// Frames of `total` bytes, slices of a buffer of `read`, with no memory of which most is unused: a
/// client may take its time with them.
fn compact(frames: Vec<Bytes>, total: usize, read: usize) -> Vec<Bytes> {
    if total >= read / 2 {
        return frames;
    }
    frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect()
}

/// Notes that a file, the one written last, needs a sync.
fn note_unsynced(unsynced: &mut Vec<Arc<dyn DiskFile>>, file: &Arc<dyn DiskFile>) {
    if !unsynced.last().is_some_and(|last| Arc::ptr_eq(last, file)) {
        unsynced.push(file.clone());
    }
}

/// Opens a file, and waits a while when too many are open: clients' connections may be, and some
/// of them go.
fn patiently<T>(open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..OPEN_ATTEMPTS {
        match open() {
            Err(error) if base::sys::is_too_many_files(&error) => std::thread::sleep(OPEN_PAUSE),
            other => return other,
        }
    }
    open()
}

fn damaged(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}

fn cut_files(disk: &dyn Disk, dir: &Path, segments: &[SegmentInfo]) -> io::Result<()> {
    let known: Vec<PathBuf> = segments.iter().map(|s| segment_path(dir, s.file())).collect();
    for path in disk.read_dir(dir)? {
        if !known.contains(&path) {
            disk.remove_file(&path)?;
        }
    }
    for (segment, path) in segments.iter().zip(&known) {
        if !disk.exists(path)? {
            return Err(damaged(path, "the segment is missing"));
        }
        let file = disk.open(path, OpenMode::ReadWrite)?;
        let len = file.len()?;
        if len < segment.len {
            let text = format!("has {len} bytes, the checkpoint says {}", segment.len);
            return Err(damaged(path, &text));
        }
        if len > segment.len {
            file.set_len(segment.len)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base::Env;
    use base::env::life_disk::LifeDisk;
    use base::env::sim_disk::{Crash, SimDisk};

    use super::*;
    use crate::WriterOptions;
    use crate::tests::{frame, parse};

    const DIR: &str = "/parts/a";

    fn writer_on(disk: Arc<dyn Disk>) -> SegmentWriter {
        let options = WriterOptions { writing: Writing::Inline, ..WriterOptions::default() };
        SegmentWriter::start(&Env { disk, ..Env::real() }, options)
    }

    fn append(stream: &Stream, base: u64, len: usize) {
        stream.append(base, base + 1, 0, frame(base, 1, 0, len)).unwrap();
    }

    /// Whoever waits for the lock of a failed write has nothing left to write itself.
    #[test]
    fn a_failed_write_is_known_before_the_next_one_may_begin() {
        let disk = SimDisk::new(1);
        // A direct write extends the file first, which a full disk lets pass.
        disk.refuse_direct();
        let writer = writer_on(Arc::new(disk.clone()));
        let stream = Stream::create(&writer, DIR.into(), parse);
        append(&stream, 0, 5000);
        disk.set_full(true);
        assert!(stream.0.flush(Flush::Everything).is_err());
        disk.set_full(false);
        assert!(stream.0.shared.check().is_err());
        assert!(stream.0.flush(Flush::Everything).is_err(), "nothing is written behind it");
        assert!(stream.sync().is_err(), "the frame is neither waiting nor written");
    }

    #[test]
    fn a_failed_sync_is_known_before_the_next_one_may_begin() {
        let disk = LifeDisk::new(&SimDisk::new(1));
        let writer = writer_on(Arc::new(disk.clone()));
        let stream = Stream::create(&writer, DIR.into(), parse);
        append(&stream, 0, 5000);
        disk.fail_next_sync(DIR);
        assert!(stream.0.sync().is_err());
        assert!(!disk.will_fail());
        assert!(stream.0.shared.check().is_err());
        assert!(stream.sync().is_err(), "the kernel may have dropped what it could not write");
    }

    #[test]
    fn what_a_flush_of_whole_chunks_leaves_is_queued() {
        let writer = writer_on(Arc::new(SimDisk::new(1)));
        let stream = Stream::create(&writer, DIR.into(), parse);
        let shared = &stream.0.shared;
        let chunk = shared.options.chunk_bytes;
        {
            // Both come before the thread has begun with the first.
            let mut state = stream.0.state.lock();
            for (base, len) in [(0, chunk), (1, 1000)] {
                state.append(base, base + 1, 0, frame(base, 1, 0, len)).unwrap();
                shared.add_unwritten(len);
            }
            state.queued_full = true;
        }
        shared.enqueue(stream.0.clone(), Chunk::Full);
        shared.run_inline().unwrap();
        let state = stream.0.state.lock();
        assert!(state.untaken_bytes == 1000 && state.queued_small && !state.queued_full);
    }

    #[test]
    fn a_partial_block_is_synced_though_the_blocks_before_it_were() {
        let disk = SimDisk::new(1);
        let writer = writer_on(Arc::new(disk.clone()));
        let stream = Stream::create(&writer, DIR.into(), parse);
        append(&stream, 0, 100);
        stream.sync().unwrap();
        append(&stream, 1, limits::CHUNK_BYTES);
        // The whole blocks are written by now, and somebody syncs them.
        let whole = std::mem::take(&mut stream.0.io.lock().unsynced);
        assert_eq!(whole.len(), 1);
        whole[0].sync().unwrap();
        stream.sync().unwrap();
        let segment = stream.segments().remove(0);
        disk.crash(Crash::LoseUnsynced);
        let bytes = disk.read(&stream.path_of(&segment), 1 << 30).unwrap();
        assert_eq!((bytes.len() as u64, base::crc::crc32c(&bytes)), (segment.len, segment.crc));
    }
}
