//! A real disk whose syncs can be held up and whose reads are counted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use base::Disk;
use base::env::{DiskFile, OpenMode, RealDisk, Space};
use parking_lot::{Condvar, Mutex};

/// Holds up syncs of files whose path contains a text. Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<State>);

#[derive(Default)]
struct State {
    held: Mutex<Option<String>>,
    opened: Condvar,
    waiting: AtomicUsize,
    free_bytes: Mutex<Option<u64>>,
    /// Bytes read of files of services.
    read_bytes: AtomicU64,
}

impl Gate {
    /// From now on syncs of files whose path contains `text` wait.
    pub(crate) fn hold(&self, text: &str) {
        *self.0.held.lock() = Some(text.to_owned());
    }

    /// Lets all syncs go on.
    pub(crate) fn open(&self) {
        *self.0.held.lock() = None;
        self.0.opened.notify_all();
    }

    /// Syncs that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
    }

    /// What the disk says is free, instead of the truth.
    pub(crate) fn set_free_bytes(&self, bytes: Option<u64>) {
        *self.0.free_bytes.lock() = bytes;
    }

    /// Bytes read so far of files below `parts`.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.0.read_bytes.load(Ordering::SeqCst)
    }

    pub(crate) fn disk(&self) -> GateDisk {
        GateDisk { gate: self.clone(), real: RealDisk }
    }

    fn pass(&self, path: &Path) {
        let path = path.to_string_lossy();
        let mut held = self.0.held.lock();
        while held.as_ref().is_some_and(|text| path.contains(text)) {
            self.0.waiting.fetch_add(1, Ordering::SeqCst);
            self.0.opened.wait(&mut held);
            self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

pub(crate) struct GateDisk {
    gate: Gate,
    real: RealDisk,
}

struct GateFile {
    gate: Gate,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for GateFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buf, offset)?;
        if self.path.components().any(|part| part.as_os_str() == "parts") {
            self.gate.0.read_bytes.fetch_add(read as u64, Ordering::SeqCst);
        }
        Ok(read)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.pass(&self.path);
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

impl Disk for GateDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        // A direct write is its own sync and could not be held up.
        if mode == OpenMode::DirectSync {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = self.real.open(path, mode)?;
        Ok(Arc::new(GateFile { gate: self.gate.clone(), path: path.to_owned(), file }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.real.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.real.read_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.real.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.real.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.real.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.real.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut space = self.real.space(path)?;
        if let Some(free_bytes) = *self.gate.0.free_bytes.lock() {
            space.free_bytes = free_bytes;
        }
        Ok(space)
    }
}
