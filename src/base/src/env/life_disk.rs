//! The disk as one life of a simulated node sees it.
//!
//! After a crash the tasks of the dead life may still run for a moment. A [`LifeDisk`] fails
//! everything from then on, so that they cannot write into the next life's files. Its syncs can
//! be made to fail while the node lives.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::sim_disk::{Crash, SimDisk};
use super::{Disk, DiskFile, OpenMode, Space};

#[derive(Debug, Default)]
struct Gate {
    /// True once the life is over. Held for reading during every operation, for writing while
    /// the disk crashes: an operation is before the crash or fails.
    over: RwLock<bool>,
    /// The next sync of a path that contains this fails.
    failing: Mutex<Option<String>>,
}

impl Gate {
    fn enter(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let over = self.over.read();
        if *over { Err(io::Error::other("this node crashed")) } else { Ok(over) }
    }

    fn enter_sync(&self, path: &Path) -> io::Result<RwLockReadGuard<'_, bool>> {
        let alive = self.enter()?;
        let path = path.to_string_lossy();
        match self.failing.lock().take_if(|part| path.contains(part.as_str())) {
            Some(_) => Err(io::Error::other("input/output error")),
            None => Ok(alive),
        }
    }
}

/// A simulated disk until the node crashes. Cloning shares it.
#[derive(Clone, Debug)]
pub struct LifeDisk {
    disk: SimDisk,
    gate: Arc<Gate>,
}

impl LifeDisk {
    /// A new life on `disk`.
    pub fn new(disk: &SimDisk) -> Self {
        Self { disk: disk.clone(), gate: Arc::default() }
    }

    /// Ends this life and crashes the disk.
    pub fn crash(&self, how: Crash) {
        let mut over = self.gate.over.write();
        *over = true;
        self.disk.crash(how);
    }

    /// Lets the next sync of a file or directory whose path contains `part` fail. Those after it
    /// succeed.
    pub fn fail_next_sync(&self, part: &str) {
        *self.gate.failing.lock() = Some(part.to_owned());
    }

    /// Whether a sync still has to fail.
    pub fn will_fail(&self) -> bool {
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
        let _alive = self.gate.enter()?;
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let _alive = self.gate.enter()?;
        self.file.write_all_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let _alive = self.gate.enter_sync(&self.path)?;
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        let _alive = self.gate.enter()?;
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let _alive = self.gate.enter()?;
        self.file.set_len(len)
    }
}

impl Disk for LifeDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let _alive = self.gate.enter()?;
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(LifeFile { file, path: path.to_owned(), gate: self.gate.clone() }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let _alive = self.gate.enter()?;
        self.disk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let _alive = self.gate.enter()?;
        self.disk.read_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let _alive = self.gate.enter()?;
        self.disk.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _alive = self.gate.enter()?;
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let _alive = self.gate.enter()?;
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let _alive = self.gate.enter()?;
        self.disk.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let _alive = self.gate.enter_sync(path)?;
        self.disk.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let _alive = self.gate.enter()?;
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

    #[test]
    fn a_sync_that_is_to_fail_fails_once_and_makes_nothing_durable() {
        let disk = SimDisk::new(1);
        let (life, dir) = (LifeDisk::new(&disk), Path::new("/d"));
        life.create_dir_all(dir).unwrap();
        let path = |name: &str| dir.join(name);
        let open = |name: &str| life.open(&path(name), OpenMode::ReadWrite).unwrap();
        let (failing, other) = (open("failing"), open("other"));
        for file in [&failing, &other] {
            file.write_all_at(b"x", 0).unwrap();
        }
        life.fail_next_sync("/failing");
        other.sync().unwrap();
        life.sync_dir(dir).unwrap();
        assert!(life.will_fail(), "paths of other names do not count");
        assert!(failing.sync().is_err());
        assert!(!life.will_fail());
        life.crash(Crash::LoseUnsynced);
        assert_eq!(disk.read(&path("failing"), 10).unwrap(), b"");
        assert_eq!(disk.read(&path("other"), 10).unwrap(), b"x");
        let again = LifeDisk::new(&disk).open(&path("failing"), OpenMode::ReadWrite).unwrap();
        again.sync().unwrap();
    }
}
