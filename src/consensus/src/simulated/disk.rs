//! The disk as one life of a node sees it: after its crash everything fails, so that what still
//! runs of it cannot write into the files of the next life; and its syncs can be made to fail.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::Disk;
use base::env::sim_disk::{Crash, SimDisk};
use base::env::{DiskFile, OpenMode, Space};
use parking_lot::Mutex;

#[derive(Default)]
struct Gate {
    over: AtomicBool,
    /// Syncs of a file whose path contains this fail once.
    failing: Mutex<Option<String>>,
}

impl Gate {
    fn enter(&self) -> io::Result<()> {
        let over = self.over.load(Ordering::SeqCst);
        if over { Err(io::Error::other("this node crashed")) } else { Ok(()) }
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.enter()?;
        let path = path.to_string_lossy();
        match self.failing.lock().take_if(|part| path.contains(part.as_str())) {
            Some(_) => Err(io::Error::other("input/output error")),
            None => Ok(()),
        }
    }
}

/// A simulated disk until the node crashes. Cloning shares it.
#[derive(Clone)]
pub(super) struct LifeDisk {
    disk: SimDisk,
    gate: Arc<Gate>,
}

impl LifeDisk {
    pub(super) fn new(disk: &SimDisk) -> Self {
        Self { disk: disk.clone(), gate: Arc::default() }
    }

    /// Ends this life and crashes the disk.
    pub(super) fn crash(&self, how: Crash) {
        self.gate.over.store(true, Ordering::SeqCst);
        self.disk.crash(how);
    }

    /// Lets the next sync of a file whose path contains `part` fail. Those after it succeed.
    pub(super) fn fail_next_sync(&self, part: &str) {
        *self.gate.failing.lock() = Some(part.to_owned());
    }

    /// Whether a sync still has to fail.
    pub(super) fn will_fail(&self) -> bool {
        self.gate.failing.lock().is_some()
    }
}

struct LifeFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    gate: Arc<Gate>,
}

impl DiskFile for LifeFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.gate.enter()?;
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.gate.enter()?;
        self.file.write_all_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.sync(&self.path)?;
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.gate.enter()?;
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.gate.enter()?;
        self.file.set_len(len)
    }
}

impl Disk for LifeDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.gate.enter()?;
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(LifeFile { file, path: path.to_owned(), gate: self.gate.clone() }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.gate.enter()?;
        self.disk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.gate.enter()?;
        self.disk.read_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.gate.enter()?;
        self.disk.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.gate.enter()?;
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.gate.enter()?;
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.gate.enter()?;
        self.disk.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.gate.sync(path)?;
        self.disk.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.gate.enter()?;
        self.disk.space(path)
    }
}
