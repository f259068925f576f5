//! The one thread per node that writes segments.
//!
//! Streams with a chunk's worth of unwritten frames queue up; the thread writes them. When the
//! node holds more than half of its bound, streams with less are written too, oldest first.
//! Appends wait when the bound is reached.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use base::sys::{ALIGN, AlignedBuf};
use base::{Disk, DiskFile, Env, OpenMode};
use parking_lot::{Condvar, Mutex};

use crate::stream::{Flush, Inner};
use crate::{FileId, limits};

/// How a node writes its segments.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// A stream with so many unwritten bytes is written.
    pub chunk_bytes: usize,
    /// Appends wait while the node has more unwritten bytes than this.
    pub queue_bytes: usize,
    /// Written bytes that one stream keeps in memory.
    pub stream_cache_bytes: usize,
    /// Written bytes that all streams keep in memory.
    pub node_cache_bytes: usize,
    /// Who writes.
    pub writing: Writing,
}

/// Who writes chunks that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// The writer's own thread.
    Thread,
    /// The thread that appends. For simulations, which must not depend on real threads.
    Inline,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            chunk_bytes: limits::CHUNK_BYTES,
            queue_bytes: limits::QUEUE_BYTES,
            stream_cache_bytes: limits::STREAM_CACHE_BYTES,
            node_cache_bytes: limits::NODE_CACHE_BYTES,
            writing: Writing::Thread,
        }
    }
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Bytes appended and not yet written.
    pub unwritten_bytes: usize,
    /// Bytes of frames in memory, written or not.
    pub memory_bytes: usize,
}

/// Writes the segments of all streams of a node. Cloning shares it.
#[derive(Clone)]
pub struct SegmentWriter {
    pub(crate) shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl SegmentWriter {
    /// Starts the thread.
    pub fn start(env: &Env, options: WriterOptions) -> Self {
        let shared = Arc::new(Shared {
            disk: env.disk.clone(),
            options,
            queue: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            unwritten: AtomicUsize::new(0),
            memory: AtomicUsize::new(0),
            pool: Mutex::default(),
            streams: Mutex::default(),
            readers: Mutex::default(),
        });
        let thread = (options.writing == Writing::Thread).then(|| {
            let shared = shared.clone();
            base::task::thread("segments", move || shared.run())
        });
        Self { shared, thread: Arc::new(Mutex::new(thread)) }
    }

    /// Ends the thread; later appends and syncs fail. What was not synced is dropped, as after
    /// a crash.
    pub fn stop(&self) {
        self.shared.stop();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the segment writer's thread panicked");
        }
    }

    /// Deletes files that [`crate::Stream::begin_checkpoint`] named.
    pub fn delete(&self, files: Vec<PathBuf>) {
        for path in files {
            if let Err(error) = self.shared.disk.remove_file(&path) {
                tracing::warn!("a trimmed segment stays until the next start: {error}");
            }
        }
    }

    /// Who writes.
    pub fn writing(&self) -> Writing {
        self.shared.options.writing
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> WriterStats {
        WriterStats {
            unwritten_bytes: self.shared.unwritten.load(Ordering::Relaxed),
            memory_bytes: self.shared.memory.load(Ordering::Relaxed),
        }
    }
}

#[derive(Default)]
struct Queue {
    /// Streams with a chunk or more.
    due: VecDeque<Arc<Inner>>,
    /// Streams with less, in order of their oldest unwritten frame.
    small: VecDeque<Arc<Inner>>,
    stopped: bool,
    failure: Option<String>,
}

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: WriterOptions,
    queue: Mutex<Queue>,
    work: Condvar,
    room: Condvar,
    unwritten: AtomicUsize,
    pub(crate) memory: AtomicUsize,
    pool: Mutex<Vec<AlignedBuf>>,
    streams: Mutex<Vec<Weak<Inner>>>,
    /// Files open for readers, in the order in which they were opened.
    readers: Mutex<VecDeque<(Weak<Inner>, FileId)>>,
}

impl Shared {
    /// Why nothing more can be written, if so.
    pub(crate) fn check(&self) -> io::Result<()> {
        let queue = self.queue.lock();
        match (&queue.failure, queue.stopped) {
            (Some(failure), _) => Err(io::Error::other(failure.clone())),
            (None, true) => Err(io::Error::other("the segment writer was stopped")),
            (None, false) => Ok(()),
        }
    }

    /// Makes a failed write or sync permanent: what the kernel dropped must not be acknowledged
    /// by a later attempt.
    pub(crate) fn fail(&self, error: &io::Error) {
        let mut queue = self.queue.lock();
        if queue.failure.is_none() && !queue.stopped {
            tracing::error!("segments cannot be written: {error}");
            queue.failure = Some(error.to_string());
        }
        self.room.notify_all();
    }

    fn stop(&self) {
        let mut queue = self.queue.lock();
        queue.stopped = true;
        queue.due.clear();
        queue.small.clear();
        self.work.notify_all();
        self.room.notify_all();
    }

    pub(crate) fn register(&self, stream: &Arc<Inner>) {
        let mut streams = self.streams.lock();
        if streams.len().is_power_of_two() {
            streams.retain(|s| s.strong_count() > 0);
        }
        streams.push(Arc::downgrade(stream));
    }

    /// Remembers a file that a reader has opened, and closes the one open for longest when there
    /// are too many. Not to be called with the state of a stream locked.
    pub(crate) fn note_reader(&self, stream: &Arc<Inner>, segment: FileId) {
        let mut readers = self.readers.lock();
        readers.push_back((Arc::downgrade(stream), segment));
        let oldest = readers.len() > limits::MAX_READERS;
        let oldest = if oldest { readers.pop_front() } else { None };
        drop(readers);
        if let Some((stream, segment)) = oldest
            && let Some(stream) = stream.upgrade()
        {
            stream.close_reader(segment);
        }
    }

    /// Queues what a flush of full chunks has left over.
    fn enqueue_rest(&self, stream: Arc<Inner>, flush: Flush) {
        if flush == Flush::FullChunks && stream.queues_rest() {
            self.enqueue(stream, Chunk::Partial);
        }
    }

    /// Waits until the node may hold more unwritten bytes.
    pub(crate) fn wait_for_room(&self) -> io::Result<()> {
        self.check()?;
        let full = || self.unwritten.load(Ordering::Relaxed) > self.options.queue_bytes;
        if !full() {
            return Ok(());
        }
        base::task::may_wait(|| {
            let mut queue = self.queue.lock();
            while full() && queue.failure.is_none() && !queue.stopped {
                // The thread sleeps while nothing is due; under the lock it cannot miss this.
                self.work.notify_one();
                self.room.wait(&mut queue);
            }
        });
        self.check()
    }

    pub(crate) fn add_unwritten(&self, bytes: usize) {
        self.unwritten.fetch_add(bytes, Ordering::Relaxed);
        self.memory.fetch_add(bytes, Ordering::Relaxed);
        if self.pressed() {
            self.work.notify_one();
        }
    }

    pub(crate) fn sub_unwritten(&self, bytes: usize) {
        // Under the lock, so that a waiter cannot miss it between its look and its sleep.
        let _queue = self.queue.lock();
        self.unwritten.fetch_sub(bytes, Ordering::Relaxed);
        self.room.notify_all();
    }

    /// Puts a stream into the queue: with a full chunk as due, else as small.
    pub(crate) fn enqueue(&self, stream: Arc<Inner>, chunk: Chunk) {
        let mut queue = self.queue.lock();
        // One that was closed since has nothing to write: see `Self::forget`.
        if queue.stopped || stream.is_closed() {
            return;
        }
        match chunk {
            Chunk::Full => queue.due.push_back(stream),
            Chunk::Partial => queue.small.push_back(stream),
        }
        if chunk == Chunk::Full || self.pressed() {
            self.work.notify_one();
        }
    }

    fn pressed(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed) > self.options.queue_bytes / 2
    }

    fn run(&self) {
        while let Some((stream, flush)) = self.next() {
            stream.unqueue(flush);
            // Who writes reports a failure itself.
            if stream.flush(flush).is_err() {
                return;
            }
            self.enqueue_rest(stream, flush);
            self.sweep();
        }
    }

    fn next(&self) -> Option<(Arc<Inner>, Flush)> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopped || queue.failure.is_some() {
                return None;
            }
            if let Some(stream) = queue.due.pop_front() {
                return Some((stream, Flush::FullChunks));
            }
            if self.pressed()
                && let Some(stream) = queue.small.pop_front()
            {
                return Some((stream, Flush::Everything));
            }
            self.work.wait(&mut queue);
        }
    }

    /// Writes what is due on the caller's thread, for [`Writing::Inline`].
    pub(crate) fn run_inline(&self) -> io::Result<()> {
        loop {
            let next = {
                let mut queue = self.queue.lock();
                let due = queue.due.pop_front().map(|s| (s, Flush::FullChunks));
                let pressed = due.is_none() && self.pressed();
                let small = if pressed { queue.small.pop_front() } else { None };
                due.or(small.map(|s| (s, Flush::Everything)))
            };
            let Some((stream, flush)) = next else { return Ok(()) };
            stream.unqueue(flush);
            stream.flush(flush)?;
            self.enqueue_rest(stream, flush);
        }
    }

    /// Takes a stream that was closed out of the queues, which would keep it, and what it has in
    /// memory, until they come to it.
    pub(crate) fn forget(&self, closed: &Arc<Inner>) {
        let mut queue = self.queue.lock();
        queue.due.retain(|stream| !Arc::ptr_eq(stream, closed));
        queue.small.retain(|stream| !Arc::ptr_eq(stream, closed));
    }

    /// Takes idle streams' memory when the node holds too much of it.
    pub(crate) fn sweep(&self) {
        let held = |s: &Self| {
            let unwritten = s.unwritten.load(Ordering::Relaxed);
            s.memory.load(Ordering::Relaxed).saturating_sub(unwritten)
        };
        if held(self) <= self.options.node_cache_bytes {
            return;
        }
        let streams: Vec<_> = self.streams.lock().iter().filter_map(Weak::upgrade).collect();
        let share = self.options.node_cache_bytes / 2 / streams.len().max(1);
        for stream in streams {
            stream.evict(share);
        }
    }

    pub(crate) fn buffer(&self) -> AlignedBuf {
        let pooled = self.pool.lock().pop();
        pooled.unwrap_or_else(|| AlignedBuf::zeroed(self.options.chunk_bytes + ALIGN))
    }

    pub(crate) fn give_back(&self, buffer: AlignedBuf) {
        let mut pool = self.pool.lock();
        if pool.len() < limits::POOLED_BUFFERS {
            pool.push(buffer);
        }
    }
}

/// Whether a stream has a full chunk to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    Full,
    Partial,
}

/// A segment's file as the writing side holds it.
///
/// Whole blocks go past the page cache; the bytes of the last, partial block are kept here and
/// go through the page cache, exactly as long as they are.
pub(crate) struct OpenFile {
    pub(crate) segment: u64,
    pub(crate) plain: Arc<dyn DiskFile>,
    direct: Option<Arc<dyn DiskFile>>,
    /// Where the partial block begins.
    block_at: u64,
    block: Vec<u8>,
    block_written: bool,
}

impl OpenFile {
    /// Opens or creates the file of `segment`, which has `len` bytes.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, segment: u64, len: u64) -> io::Result<Self> {
        let plain = disk.open(path, OpenMode::ReadWrite)?;
        let direct = match disk.open(path, OpenMode::Direct) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => None,
            Err(error) => return Err(error),
        };
        let block_at = len - len % ALIGN as u64;
        let mut block = vec![0; usize::try_from(len - block_at).map_err(io::Error::other)?];
        plain.read_exact_at(&mut block, block_at)?;
        Ok(Self { segment, plain, direct, block_at, block, block_written: true })
    }

    /// Writes whole blocks of what is there with `frames` after it; returns the length that the
    /// file has for readers.
    pub(crate) fn write(
        &mut self,
        frames: &[bytes::Bytes],
        buf: &mut AlignedBuf,
    ) -> io::Result<u64> {
        let mut fill = self.block.len();
        if let Some(start) = buf.get_mut(..fill) {
            start.copy_from_slice(&self.block);
        }
        for frame in frames {
            let mut rest: &[u8] = frame;
            while !rest.is_empty() {
                if fill == buf.len() {
                    self.write_blocks(buf)?;
                    fill = 0;
                }
                let n = rest.len().min(buf.len() - fill);
                let (now, later) = rest.split_at(n);
                if let Some(place) = buf.get_mut(fill..fill + n) {
                    place.copy_from_slice(now);
                }
                fill += n;
                rest = later;
            }
        }
        let whole = fill - fill % ALIGN;
        let (blocks, partial) = buf.split_at(whole);
        if whole > 0 {
            self.write_blocks(blocks)?;
        }
        self.block.clear();
        self.block.extend(partial.iter().take(fill - whole));
        self.block_written = self.block.is_empty();
        Ok(self.block_at)
    }

    fn write_blocks(&mut self, blocks: &[u8]) -> io::Result<()> {
        let end = self.block_at + blocks.len() as u64;
        match &self.direct {
            Some(direct) => {
                // A direct write that extends a file moves its end after it has thrown out cached
                // pages; a reader in between could cache what lies behind the old end as zeros.
                // So the end moves first.
                self.plain.set_len(end)?;
                direct.write_all_at(blocks, self.block_at)?;
            }
            None => self.plain.write_all_at(blocks, self.block_at)?,
        }
        self.block_at = end;
        Ok(())
    }

    /// Whether bytes of the partial block are only in memory.
    pub(crate) fn holds_partial(&self) -> bool {
        !self.block_written
    }

    /// Writes the partial block, if that was not done; returns the file's length.
    pub(crate) fn write_partial(&mut self) -> io::Result<u64> {
        if !self.block_written {
            self.plain.write_all_at(&self.block, self.block_at)?;
            self.block_written = true;
        }
        Ok(self.block_at + self.block.len() as u64)
    }
}

/// Path of a segment's file.
pub(crate) fn segment_path(dir: &Path, file: FileId) -> PathBuf {
    dir.join(crate::file_name(file))
}
