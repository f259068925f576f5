//! The disk as one life of a node sees it.
//!
//! After a crash the tasks of the dead life may still run for a moment. A [`LifeDisk`] fails
//! everything from then on, so that they cannot write into the next life's files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Disk;
use base::env::sim_disk::{Crash, SimDisk};
use base::env::{DiskFile, OpenMode, Space};
use parking_lot::{RwLock, RwLockReadGuard};

/// True once the life is over. Held for reading during every operation, for writing while the
/// disk crashes: an operation is before the crash or fails.
type Gate = Arc<RwLock<bool>>;

fn enter(gate: &Gate) -> io::Result<RwLockReadGuard<'_, bool>> {
    let over = gate.read();
    if *over { Err(io::Error::other("this node crashed")) } else { Ok(over) }
}

/// A simulated disk until the node crashes.
#[derive(Clone)]
pub struct LifeDisk {
    disk: SimDisk,
    gate: Gate,
}

impl LifeDisk {
    /// A new life on `disk`.
    pub fn new(disk: &SimDisk) -> Self {
        Self { disk: disk.clone(), gate: Gate::default() }
    }

    /// Ends this life and crashes the disk.
    pub fn crash(&self, how: Crash) {
        let mut over = self.gate.write();
        *over = true;
        self.disk.crash(how);
    }
}

struct LifeFile {
    file: Arc<dyn DiskFile>,
    gate: Gate,
}

impl DiskFile for LifeFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let _alive = enter(&self.gate)?;
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let _alive = enter(&self.gate)?;
        self.file.write_all_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let _alive = enter(&self.gate)?;
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        let _alive = enter(&self.gate)?;
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let _alive = enter(&self.gate)?;
        self.file.set_len(len)
    }
}

impl Disk for LifeDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let _alive = enter(&self.gate)?;
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(LifeFile { file, gate: self.gate.clone() }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let _alive = enter(&self.gate)?;
        self.disk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let _alive = enter(&self.gate)?;
        self.disk.read_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let _alive = enter(&self.gate)?;
        self.disk.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _alive = enter(&self.gate)?;
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let _alive = enter(&self.gate)?;
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let _alive = enter(&self.gate)?;
        self.disk.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let _alive = enter(&self.gate)?;
        self.disk.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let _alive = enter(&self.gate)?;
        self.disk.space(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_life_cannot_touch_the_next_ones_files() {
        let disk = SimDisk::new(1);
        let (before, dir) = (LifeDisk::new(&disk), Path::new("/d"));
        before.create_dir_all(dir).unwrap();
        let file = before.open(&dir.join("f"), OpenMode::ReadWrite).unwrap();
        before.crash(Crash::Process);
        let after = LifeDisk::new(&disk);
        assert!(after.exists(&dir.join("f")).unwrap());
        assert!(file.write_all_at(b"x", 0).is_err());
        assert!(before.remove_file(&dir.join("f")).is_err());
        assert!(before.open(&dir.join("g"), OpenMode::ReadWrite).is_err());
    }
}
