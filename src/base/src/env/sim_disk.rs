//! A disk in memory that forgets like a real one.
//!
//! Writes reach a file's current content at once, its durable content only with a sync (or at
//! once for [`OpenMode::DirectSync`]). Creations, renames and removals become durable with
//! [`Disk::sync_dir`]. [`SimDisk::crash`] throws away what is not durable, except that each
//! unsynced 512-byte sector may have landed or not, as a seeded generator decides: that is a
//! torn write.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Disk, DiskFile, OpenMode, Random, SeededRandom, Space};
use crate::sys::ALIGN;

const SECTOR: usize = 512;

/// What happens to unsynced bytes when the disk crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process died, the machine lives: everything written is still there.
    Process,
    /// Power loss: unsynced writes are lost.
    LoseUnsynced,
    /// Power loss: each unsynced sector landed or not by chance.
    TearUnsynced,
}

#[derive(Debug)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeMap<usize, ()>,
}

#[derive(Debug)]
struct Node {
    content: Mutex<Content>,
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<PathBuf, Arc<Node>>,
    durable_files: BTreeMap<PathBuf, Arc<Node>>,
    dirs: BTreeMap<PathBuf, ()>,
}

/// Faults to come and how the disk behaves.
#[derive(Debug, Default)]
struct Faults {
    /// Rises with each crash; files opened before are dead.
    generation: AtomicU64,
    /// Writes, syncs and directory changes until the power fails; 0 or less: it does not.
    steps_left: AtomicI64,
    power_is_off: AtomicBool,
    refuses_direct: AtomicBool,
    full: AtomicBool,
}

impl Faults {
    fn off() -> io::Error {
        io::Error::other("the simulated machine crashed")
    }

    fn powered(&self) -> io::Result<()> {
        if self.power_is_off.load(Ordering::SeqCst) { Err(Self::off()) } else { Ok(()) }
    }

    /// Counts a change. An error when the power fails in the middle of it.
    fn change(&self) -> io::Result<()> {
        self.powered()?;
        let left = self.steps_left.load(Ordering::SeqCst);
        if left > 0 {
            self.steps_left.store(left - 1, Ordering::SeqCst);
            if left == 1 {
                self.power_is_off.store(true, Ordering::SeqCst);
                return Err(Self::off());
            }
        }
        Ok(())
    }
}

/// A simulated disk. Cloning shares it, so that a restarted node finds its files.
#[derive(Clone, Debug)]
pub struct SimDisk {
    tree: Arc<Mutex<Tree>>,
    random: Arc<SeededRandom>,
    free_bytes: Arc<AtomicU64>,
    faults: Arc<Faults>,
}

impl SimDisk {
    /// An empty disk; `seed` decides which sectors survive a torn crash.
    pub fn new(seed: u64) -> Self {
        Self {
            tree: Arc::default(),
            random: Arc::new(SeededRandom::new(seed)),
            free_bytes: Arc::new(AtomicU64::new(1 << 40)),
            faults: Arc::default(),
        }
    }

    /// Lets the power fail in the middle of the `steps`-th change from now (a write, sync, or
    /// directory change): it fails, as does everything after, until [`SimDisk::crash`]. The
    /// bytes of a failed write are unsynced, direct or not: the crash may tear them. 0: never.
    pub fn power_off_in(&self, steps: u64) {
        let steps = i64::try_from(steps).unwrap_or(i64::MAX);
        self.faults.steps_left.store(steps, Ordering::SeqCst);
    }

    /// Refuses direct I/O from now on, as some file systems do.
    pub fn refuse_direct(&self) {
        self.faults.refuses_direct.store(true, Ordering::SeqCst);
    }

    /// Whether writes that make a file longer fail for want of room.
    pub fn set_full(&self, full: bool) {
        self.faults.full.store(full, Ordering::SeqCst);
    }

    /// Sets what [`Disk::space`] reports as free.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.free_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Crashes the machine or process. Files opened before fail from now on, so that tasks of
    /// the dead node cannot write into the next life.
    pub fn crash(&self, how: Crash) {
        let generation = self.faults.generation.fetch_add(1, Ordering::SeqCst) + 1;
        self.faults.steps_left.store(0, Ordering::SeqCst);
        self.faults.power_is_off.store(false, Ordering::SeqCst);
        let mut tree = self.tree.lock();
        let tree = &mut *tree;
        if how != Crash::Process {
            tree.files = tree.durable_files.clone();
        }
        for node in tree.files.values() {
            node.generation.store(generation, Ordering::SeqCst);
            let mut content = node.content.lock();
            match how {
                Crash::Process => {}
                Crash::LoseUnsynced => content.now = content.durable.clone(),
                Crash::TearUnsynced => self.tear(&mut content),
            }
            if how != Crash::Process {
                content.durable = content.now.clone();
                content.dirty.clear();
            }
        }
        if how != Crash::Process {
            tree.durable_files = tree.files.clone();
        }
    }

    fn tear(&self, content: &mut Content) {
        let mut after = content.durable.clone();
        for sector in content.dirty.keys() {
            let (start, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(content.now.len()));
            if start >= end || self.random.below(2) == 0 {
                continue;
            }
            if after.len() < end {
                after.resize(end, 0);
            }
            after[start..end].copy_from_slice(&content.now[start..end]);
        }
        content.now = after;
    }

    /// Flips one bit of a stored file, as a failing medium would. Errors when out of range.
    pub fn flip_bit(&self, path: &Path, offset: usize) -> io::Result<()> {
        let tree = self.tree.lock();
        let node = tree.files.get(path).ok_or_else(|| missing(path))?;
        let mut content = node.content.lock();
        for side in [0, 1] {
            let bytes = if side == 0 { &mut content.now } else { &mut content.durable };
            let byte = bytes.get_mut(offset).ok_or(io::ErrorKind::InvalidInput)?;
            *byte ^= 1;
        }
        Ok(())
    }
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{}: no such file", path.display()))
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.faults.powered()?;
        let direct = matches!(mode, OpenMode::Direct | OpenMode::DirectSync);
        if direct && self.faults.refuses_direct.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut tree = self.tree.lock();
        let generation = self.faults.generation.load(Ordering::SeqCst);
        let node = match tree.files.get(path) {
            Some(node) => node.clone(),
            None if mode == OpenMode::Read => return Err(missing(path)),
            None => {
                let parent = path.parent().unwrap_or(Path::new(""));
                if !tree.dirs.contains_key(parent) {
                    return Err(missing(parent));
                }
                let content = Content { now: vec![], durable: vec![], dirty: BTreeMap::new() };
                let node = Arc::new(Node {
                    content: Mutex::new(content),
                    generation: AtomicU64::new(generation),
                });
                tree.files.insert(path.to_owned(), node.clone());
                node
            }
        };
        Ok(Arc::new(SimFile { node, mode, generation, faults: self.faults.clone() }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        for dir in path.ancestors() {
            tree.dirs.insert(dir.to_owned(), ());
        }
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let tree = self.tree.lock();
        if !tree.dirs.contains_key(path) {
            return Err(missing(path));
        }
        let names = tree.files.keys().chain(tree.dirs.keys());
        let mut found: Vec<_> = names.filter(|p| p.parent() == Some(path)).cloned().collect();
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let tree = self.tree.lock();
        Ok(tree.files.contains_key(path) || tree.dirs.contains_key(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.change()?;
        let mut tree = self.tree.lock();
        if let Some(node) = tree.files.remove(from) {
            tree.files.insert(to.to_owned(), node);
            return Ok(());
        }
        if !tree.dirs.contains_key(from) {
            return Err(missing(from));
        }
        let moved = |p: &Path| p.strip_prefix(from).ok().map(|rest| to.join(rest));
        tree.dirs = tree.dirs.keys().map(|p| (moved(p).unwrap_or_else(|| p.clone()), ())).collect();
        let files = std::mem::take(&mut tree.files);
        tree.files =
            files.into_iter().map(|(p, n)| (moved(&p).unwrap_or_else(|| p.clone()), n)).collect();
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.faults.change()?;
        self.tree.lock().files.remove(path).map(|_| ()).ok_or_else(|| missing(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        tree.files.retain(|p, _| !p.starts_with(path));
        tree.dirs.retain(|p, ()| !p.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.faults.change()?;
        let mut tree = self.tree.lock();
        let here = |p: &PathBuf| p.parent() == Some(path);
        let now: Vec<_> = tree
            .files
            .iter()
            .filter(|(p, _)| here(p))
            .map(|(p, n)| (p.clone(), n.clone()))
            .collect();
        tree.durable_files.retain(|p, _| !here(p));
        tree.durable_files.extend(now);
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let free_bytes = self.free_bytes.load(Ordering::Relaxed);
        Ok(Space { free_bytes, total_bytes: 1 << 41 })
    }
}

struct SimFile {
    node: Arc<Node>,
    mode: OpenMode,
    generation: u64,
    faults: Arc<Faults>,
}

impl SimFile {
    fn alive(&self) -> io::Result<()> {
        if self.faults.generation.load(Ordering::SeqCst) == self.generation {
            return self.faults.powered();
        }
        Err(Faults::off())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.alive()?;
        let content = self.node.content.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?.min(content.now.len());
        let n = buf.len().min(content.now.len() - start);
        buf[..n].copy_from_slice(&content.now[start..start + n]);
        Ok(n)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.alive()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let direct = matches!(self.mode, OpenMode::Direct | OpenMode::DirectSync);
        if self.mode == OpenMode::Read || direct && !(start | buf.len()).is_multiple_of(ALIGN) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut content = self.node.content.lock();
        let end = start + buf.len();
        if content.now.len() < end {
            if self.faults.full.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            content.now.resize(end, 0);
        }
        content.now[start..end].copy_from_slice(buf);
        content.dirty.extend((start / SECTOR..end.div_ceil(SECTOR)).map(|sector| (sector, ())));
        drop(content);
        self.faults.change()?;
        if self.mode == OpenMode::DirectSync { self.settle() } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        self.alive()?;
        self.faults.change()?;
        self.settle()
    }

    fn len(&self) -> io::Result<u64> {
        self.alive()?;
        Ok(self.node.content.lock().now.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.alive()?;
        self.faults.change()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut content = self.node.content.lock();
        let old = content.now.len();
        content.now.resize(len, 0);
        content
            .dirty
            .extend((len.min(old) / SECTOR..len.max(old).div_ceil(SECTOR)).map(|s| (s, ())));
        Ok(())
    }
}

impl SimFile {
    /// Makes the content durable.
    fn settle(&self) -> io::Result<()> {
        let mut content = self.node.content.lock();
        // Only what changed is copied: logs grow large in long simulations.
        let Content { now, durable, dirty } = &mut *content;
        durable.resize(now.len(), 0);
        for sector in std::mem::take(dirty).into_keys() {
            let (start, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(now.len()));
            if start < end {
                durable[start..end].copy_from_slice(&now[start..end]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with_file() -> (SimDisk, PathBuf, Arc<dyn DiskFile>) {
        let disk = SimDisk::new(1);
        let path = PathBuf::from("/d/file");
        disk.create_dir_all(Path::new("/d")).unwrap();
        let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
        (disk, path, file)
    }

    #[test]
    fn unsynced_bytes_are_lost_with_the_power() {
        let (disk, path, file) = disk_with_file();
        file.write_all_at(b"kept", 0).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_all_at(b"lost", 0).unwrap();
        disk.crash(Crash::LoseUnsynced);
        assert_eq!(disk.read(&path, 100).unwrap(), b"kept");
        assert!(file.write_all_at(b"late", 0).is_err(), "the dead process cannot write");
    }

    #[test]
    fn a_file_without_a_synced_directory_is_gone() {
        let (disk, path, file) = disk_with_file();
        file.write_all_at(b"x", 0).unwrap();
        file.sync().unwrap();
        disk.crash(Crash::LoseUnsynced);
        assert!(!disk.exists(&path).unwrap());
    }

    #[test]
    fn a_direct_write_that_the_power_cuts_is_torn() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let disk = SimDisk::new(seed);
            let dir = Path::new("/d");
            disk.create_dir_all(dir).unwrap();
            let file = disk.open(&dir.join("f"), OpenMode::DirectSync).unwrap();
            file.write_all_at(&[1; ALIGN], 0).unwrap();
            disk.sync_dir(dir).unwrap();
            disk.power_off_in(1);
            assert!(file.write_all_at(&[2; ALIGN], 0).is_err());
            assert!(disk.exists(&dir.join("f")).unwrap());
            assert!(file.sync().is_err(), "the power is off");
            disk.crash(Crash::TearUnsynced);
            let bytes = disk.read(&dir.join("f"), 1 << 20).unwrap();
            assert_eq!(bytes.len(), ALIGN);
            seen.extend(bytes.chunks(SECTOR).map(|sector| sector[0]));
        }
        assert_eq!(Vec::from_iter(seen), [1, 2]);
    }

    #[test]
    fn a_full_disk_still_takes_overwrites() {
        let (disk, _, file) = disk_with_file();
        file.write_all_at(b"abc", 0).unwrap();
        disk.set_full(true);
        file.write_all_at(b"xyz", 0).unwrap();
        let error = file.write_all_at(b"more", 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_killed_process_loses_nothing_written() {
        let (disk, path, file) = disk_with_file();
        file.write_all_at(b"x", 0).unwrap();
        disk.crash(Crash::Process);
        assert_eq!(disk.read(&path, 100).unwrap(), b"x");
    }
}
