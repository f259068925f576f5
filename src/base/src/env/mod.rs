//! The environment of a node behind traits: clock, randomness, disk.
//!
//! Production uses [`Env::real`]; the simulator brings a seeded generator, tokio's paused clock
//! and [`sim_disk::SimDisk`], which loses or tears what was not synced when it crashes; a node
//! has it through a [`life_disk::LifeDisk`], which ends with it.
//! Timers use `tokio::time`, which the simulator pauses; the network is the transport trait of
//! the `consensus` crate.

pub mod life_disk;
mod real_disk;
pub mod sim_disk;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

pub use real_disk::RealDisk;

/// Time. Wall time may jump; monotonic time never goes back.
pub trait Clock: Send + Sync {
    /// Wall time in milliseconds since the Unix epoch.
    fn unix_ms(&self) -> i64;
    /// Time since an arbitrary fixed moment of this process.
    fn monotonic(&self) -> Duration;
}

/// Randomness that need not be secret.
pub trait Random: Send + Sync {
    /// Uniform over all values.
    fn next_u64(&self) -> u64;
    /// Uniform below `bound`; 0 for a bound of 0.
    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }
    /// Sixteen random bytes with the marks of a version 4 UUID.
    fn uuid_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next_u64().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next_u64().to_le_bytes());
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        bytes
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Read an existing file.
    Read,
    /// Read and write, creating the file when missing; contents are kept.
    ReadWrite,
    /// As `ReadWrite`, bypassing the page cache and durable when the write returns
    /// (`O_DIRECT|O_DSYNC`). Offsets, lengths and memory must be multiples of
    /// [`crate::sys::ALIGN`]. Fails with `InvalidInput` where the file system refuses it.
    DirectSync,
    /// As `ReadWrite` with `O_DIRECT` only: bypasses the page cache, not durable until synced.
    Direct,
}

/// An open file. All positions and lengths are in bytes.
pub trait DiskFile: Send + Sync {
    /// Reads at `offset` until `buf` is full or the file ends; returns the bytes read.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf` at `offset`.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes earlier writes and the file's length durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// Current length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends the file with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reads exactly `buf.len()` bytes or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(buf, offset)? == buf.len() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "file ends early"))
    }
}

/// Space of the file system that holds a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still write.
    pub free_bytes: u64,
    /// Size of the file system in bytes.
    pub total_bytes: u64,
}

/// A file system. Directory changes are durable only after [`Disk::sync_dir`].
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a directory and its parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and its parents, and makes their names durable.
    fn create_dir_durably(&self, path: &Path) -> io::Result<()> {
        let mut new = Vec::new();
        for dir in path.ancestors() {
            if dir.as_os_str().is_empty() || self.exists(dir)? {
                break;
            }
            new.push(dir);
        }
        self.create_dir_all(path)?;
        for dir in new.into_iter().rev() {
            match dir.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent)?,
                _ => self.sync_dir(Path::new("."))?,
            }
        }
        Ok(())
    }
    /// Entries of a directory, sorted by name.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether a file or directory of that name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Renames a file or directory, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all below it; no error when it is missing.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Space where `path` lies.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Reads a whole file of at most `limit` bytes.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let len = file.len()?;
        if len > limit {
            let text = format!("{} has {len} bytes, more than {limit}", path.display());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Replaces a file so that after a crash either the old or the new content is there:
    /// writes a neighbour, syncs it, renames it, syncs the directory.
    fn write_durably(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let neighbour = path.with_extension("new");
        if self.exists(&neighbour)? {
            self.remove_file(&neighbour)?;
        }
        let file = self.open(&neighbour, OpenMode::ReadWrite)?;
        file.write_all_at(bytes, 0)?;
        file.sync()?;
        self.rename(&neighbour, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }
}

/// Clock, randomness and disk of one node. Cloning shares them.
#[derive(Clone)]
pub struct Env {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The random generator.
    pub random: Arc<dyn Random>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
}

impl Env {
    /// The machine's own clock, randomness and disk.
    pub fn real() -> Self {
        Self {
            clock: Arc::new(RealClock::new()),
            random: Arc::new(SeededRandom::from_entropy()),
            disk: Arc::new(RealDisk),
        }
    }
}

/// The machine's clock.
#[derive(Debug)]
pub struct RealClock {
    start: Instant,
}

impl RealClock {
    /// A clock whose monotonic time starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    #[expect(clippy::new_without_default, reason = "a clock has no default moment")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for RealClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn unix_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that follows tokio's time, so that a paused runtime drives it. For simulations.
#[derive(Debug)]
pub struct TokioClock {
    start: tokio::time::Instant,
    epoch_ms: i64,
}

impl TokioClock {
    /// A clock that shows `epoch_ms` now. Must be made inside a tokio runtime.
    pub fn new(epoch_ms: i64) -> Self {
        Self { start: tokio::time::Instant::now(), epoch_ms }
    }
}

impl Clock for TokioClock {
    fn unix_ms(&self) -> i64 {
        self.epoch_ms + i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A small fast generator; the same seed gives the same numbers.
#[derive(Debug)]
pub struct SeededRandom(Mutex<SmallRng>);

impl SeededRandom {
    /// A generator with a fixed seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(SmallRng::seed_from_u64(seed)))
    }

    /// A generator seeded by the system.
    pub fn from_entropy() -> Self {
        Self(Mutex::new(SmallRng::from_os_rng()))
    }
}

impl Random for SeededRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }
}
