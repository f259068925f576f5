//! The files of the log in their directory.
//!
//! ```text
//! 0000000017.wal   in use, or prepared for use: then its first block says so
//! spare-3          zeroed or used before, of full length, free
//! new-4.tmp        being zeroed; removed at start
//! ```
//!
//! A file goes from `new` over `spare` to a number, and back to `spare` when nothing in it is
//! needed any more. Each rename is made durable before the next one, so the numbers in use are
//! always without a gap.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::sys::AlignedBuf;
use base::{Disk, DiskFile, Env, OpenMode};
use tracing::{info, warn};

use crate::format::{BLOCK, FlushHeader, FlushKind, HEADER_BYTES, Lsn, Salt};
use crate::limits::ZERO_STEP_BYTES;
use crate::{Options, SyncMode};

/// How flushes become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteMode {
    /// `O_DIRECT|O_DSYNC`: durable when written.
    Direct,
    /// Through the page cache: durable after a sync.
    Buffered,
}

/// Whether zeroing may take all of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Somebody waits.
    Full,
    /// Leave the disk to the flushes.
    Gentle,
}

/// A file under its next number, not in use yet.
pub(crate) struct Prepared {
    pub(crate) seq: u32,
    pub(crate) writer: Arc<dyn DiskFile>,
    pub(crate) reader: Arc<dyn DiskFile>,
}

/// The directory.
pub(crate) struct Store {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file_bytes: u64,
    keep_spares: usize,
    most_spares: usize,
    mode: WriteMode,
    spares: Vec<PathBuf>,
    next_name: u64,
}

/// What [`Store::open`] finds: numbers of the files, ascending.
pub(crate) type Found = Vec<u32>;

impl Store {
    /// Opens or creates the directory and removes what a crash left half made.
    pub(crate) fn open(env: &Env, options: &Options) -> io::Result<(Self, Found)> {
        let mut store = Self {
            disk: env.disk.clone(),
            dir: options.dir.clone(),
            file_bytes: options.file_bytes,
            keep_spares: options.keep_spare_files.max(1),
            most_spares: options.most_spare_files.max(options.keep_spare_files).max(1),
            mode: WriteMode::Buffered,
            spares: Vec::new(),
            next_name: 0,
        };
        store.disk.create_dir_durably(&store.dir)?;
        let mut found = Vec::new();
        for path in store.disk.read_dir(&store.dir)? {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
            if let Some(seq) = name.strip_suffix(".wal").and_then(|n| n.parse().ok()) {
                found.push(seq);
            } else if let Some(n) = name.strip_prefix("spare-").and_then(|n| n.parse().ok()) {
                store.next_name = store.next_name.max(n);
                store.adopt_spare(path)?;
            } else if name.ends_with(".tmp") {
                store.disk.remove_file(&path)?;
            }
        }
        found.sort_unstable();
        let existing = found.first().map(|seq| store.path(*seq));
        if options.sync == SyncMode::EveryFlush && store.takes_direct(existing)? {
            store.mode = WriteMode::Direct;
        }
        // What a killed process renamed may not be durable yet.
        store.disk.sync_dir(&store.dir)?;
        Ok((store, found))
    }

    fn adopt_spare(&mut self, path: PathBuf) -> io::Result<()> {
        let len = self.disk.open(&path, OpenMode::Read)?.len()?;
        if len == self.file_bytes {
            self.spares.push(path);
            return Ok(());
        }
        self.disk.remove_file(&path)
    }

    /// Whether the file system takes direct, synchronous I/O. Asks an existing file where there
    /// is one: a node must start on a full disk too.
    fn takes_direct(&self, existing: Option<PathBuf>) -> io::Result<bool> {
        let took = match existing {
            Some(path) => self.probe_read(&path),
            None => self.probe_write(),
        };
        match took {
            Ok(()) => Ok(true),
            Err(e) if is_refusal(&e) => {
                info!(dir = %self.dir.display(), "no direct I/O here, syncing buffered writes");
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    fn probe_read(&self, path: &Path) -> io::Result<()> {
        let file = self.disk.open(path, OpenMode::DirectSync)?;
        file.read_at(&mut AlignedBuf::zeroed(BLOCK), 0).map(drop)
    }

    fn probe_write(&self) -> io::Result<()> {
        let path = self.dir.join("probe.tmp");
        let open = self.disk.open(&path, OpenMode::DirectSync);
        let took = open.and_then(|file| file.write_all_at(&AlignedBuf::zeroed(BLOCK), 0));
        if self.disk.exists(&path)? {
            self.disk.remove_file(&path)?;
        }
        took
    }

    pub(crate) fn mode(&self) -> WriteMode {
        self.mode
    }

    pub(crate) fn path(&self, seq: u32) -> PathBuf {
        self.dir.join(format!("{seq:010}.wal"))
    }

    pub(crate) fn reader(&self, seq: u32) -> io::Result<Arc<dyn DiskFile>> {
        // Direct reads see direct writes without relying on the page cache being told.
        let mode = match self.mode {
            WriteMode::Direct => OpenMode::Direct,
            WriteMode::Buffered => OpenMode::Read,
        };
        self.disk.open(&self.path(seq), mode)
    }

    pub(crate) fn writer(&self, seq: u32) -> io::Result<Arc<dyn DiskFile>> {
        let mode = match self.mode {
            WriteMode::Direct => OpenMode::DirectSync,
            WriteMode::Buffered => OpenMode::ReadWrite,
        };
        self.disk.open(&self.path(seq), mode)
    }

    /// Gives a free file the number `seq`, making one where none is spare. Its first block says
    /// that it is not in use, so that recovery need not search it.
    pub(crate) fn prepare(&mut self, seq: u32, pace: Pace) -> io::Result<Prepared> {
        let spare = match self.spares.pop() {
            Some(spare) => spare,
            None => self.make(pace)?,
        };
        let header = FlushHeader {
            kind: FlushKind::Prepared,
            salt: Salt { file: seq, id: 0 },
            offset: 0,
            length: HEADER_BYTES as u32,
            records: 0,
            synced: Lsn::default(),
        };
        let mut block = AlignedBuf::zeroed(BLOCK);
        header.encode(&mut block);
        let file = self.disk.open(&spare, self.raw_mode())?;
        file.write_all_at(&block, 0)?;
        file.sync()?;
        self.disk.rename(&spare, &self.path(seq))?;
        self.disk.sync_dir(&self.dir)?;
        Ok(Prepared { seq, writer: self.writer(seq)?, reader: self.reader(seq)? })
    }

    fn raw_mode(&self) -> OpenMode {
        match self.mode {
            WriteMode::Direct => OpenMode::Direct,
            WriteMode::Buffered => OpenMode::ReadWrite,
        }
    }

    /// Writes a new file full of zeros and returns its name as a spare.
    fn make(&mut self, pace: Pace) -> io::Result<PathBuf> {
        self.next_name += 1;
        let new = self.dir.join(format!("new-{}.tmp", self.next_name));
        let zeroed = self.zero_new(&new, pace);
        if let Err(e) = zeroed {
            // A disk without room must not be filled further by our attempt.
            if let Err(e) = self.disk.remove_file(&new) {
                warn!(path = %new.display(), "cannot remove an unfinished file: {e}");
            }
            return Err(e);
        }
        let spare = self.dir.join(format!("spare-{}", self.next_name));
        self.disk.rename(&new, &spare)?;
        self.disk.sync_dir(&self.dir)?;
        Ok(spare)
    }

    fn zero_new(&self, path: &Path, pace: Pace) -> io::Result<()> {
        let file = self.disk.open(path, self.raw_mode())?;
        zero(&*file, 0, self.file_bytes, pace)?;
        file.sync()
    }

    /// Makes spare files until there are as many as wanted beside the prepared one.
    pub(crate) fn fill_spares(&mut self, pace: Pace) -> io::Result<()> {
        while self.spares.len() + 1 < self.keep_spares {
            let spare = self.make(pace)?;
            self.spares.push(spare);
        }
        Ok(())
    }

    /// Takes a numbered file out of use: a spare where one more has room, else removed.
    pub(crate) fn recycle(&mut self, seq: u32) -> io::Result<Recycled> {
        let path = self.path(seq);
        let full = self.disk.open(&path, OpenMode::Read)?.len()? == self.file_bytes;
        let done = if full && self.spares.len() < self.most_spares {
            self.next_name += 1;
            let spare = self.dir.join(format!("spare-{}", self.next_name));
            self.disk.rename(&path, &spare)?;
            self.spares.push(spare);
            Recycled::Spare
        } else {
            self.disk.remove_file(&path)?;
            Recycled::Removed
        };
        self.disk.sync_dir(&self.dir)?;
        Ok(done)
    }

    /// Zeroes what lies behind `from` in a file that is in use, and makes it durable.
    pub(crate) fn zero_tail(&self, seq: u32, from: u64) -> io::Result<()> {
        let file = self.disk.open(&self.path(seq), self.raw_mode())?;
        zero(&*file, from, file.len()? / BLOCK as u64 * BLOCK as u64, Pace::Full)?;
        file.sync()
    }
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recycled {
    Spare,
    Removed,
}

/// What a file system answers that has no direct I/O.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

fn zero(file: &dyn DiskFile, from: u64, to: u64, pace: Pace) -> io::Result<()> {
    let zeros = AlignedBuf::zeroed(ZERO_STEP_BYTES);
    let mut at = from;
    while at < to {
        let step = usize::try_from(to - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(zeros.get(..step).unwrap_or_default(), at)?;
        at += step as u64;
        if pace == Pace::Gentle {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}
