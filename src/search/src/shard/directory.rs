//! A Tantivy directory that syncs only at checkpoints.
//!
//! Tantivy syncs every file of every commit. Durability of operations is the translog's duty
//! here, so a refresh needs no sync: files are written and remembered as dirty, and the small
//! files that name a commit (`meta.json`, `.managed.json`) stay in memory. [`sync`] makes dirty
//! files durable, then writes those small files, then removes what no commit on disk needs.
//!
//! Invariants: `meta.json` on disk names only synced files; a file that it names is never removed
//! before the next `meta.json` is durable, nor while a [`PinnedCommit`] exists. What a crash
//! leaves behind is removed by [`remove_orphans`].
//!
//! [`sync`]: DeferredDirectory::sync
//! [`remove_orphans`]: DeferredDirectory::remove_orphans

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, Directory, DirectoryLock, FileHandle, Lock, MmapDirectory, TerminatingWrite,
    WatchCallback, WatchHandle, WritePtr,
};

use crate::error::{EsError, Result};

const META: &str = "meta.json";

/// See the module text. Cloning shares the state.
#[derive(Clone, Debug)]
pub(crate) struct DeferredDirectory {
    root: PathBuf,
    inner: MmapDirectory,
    state: Arc<Mutex<State>>,
    /// Held while `meta.json` on disk changes or is pinned.
    gate: Arc<Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Written since the last sync.
    dirty: BTreeSet<PathBuf>,
    /// Small files newer than on disk.
    small: BTreeMap<PathBuf, Vec<u8>>,
    /// No longer wanted, but perhaps named by the commit on disk.
    doomed: BTreeSet<PathBuf>,
    /// Pinned commits.
    pins: usize,
    /// A sync is under way: the commit that it writes may name any file there is.
    syncing: bool,
}

/// What a sync makes durable.
struct Snapshot {
    dirty: BTreeSet<PathBuf>,
    small: BTreeMap<PathBuf, Vec<u8>>,
    doomed: BTreeSet<PathBuf>,
}

/// The files of a durable commit; they stay while this value lives.
#[derive(Debug)]
pub struct PinnedCommit {
    /// Names of the segment files, relative to the shard's directory.
    pub files: Vec<PathBuf>,
    /// What a copy has to write as `meta.json` once it has the files.
    pub meta: Vec<u8>,
    state: Arc<Mutex<State>>,
}

impl Drop for PinnedCommit {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.pins = state.pins.saturating_sub(1);
    }
}

impl DeferredDirectory {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let inner = MmapDirectory::open(root).map_err(|e| EsError::internal(e.to_string()))?;
        Ok(Self { root: root.to_owned(), inner, state: Arc::default(), gate: Arc::default() })
    }

    /// Makes the current commit durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let _gate = self.gate.lock();
        let snapshot = self.begin_sync();
        let written = self.write(&snapshot);
        self.end_sync(&snapshot, written.is_ok());
        written
    }

    fn begin_sync(&self) -> Snapshot {
        let mut state = self.state.lock();
        state.syncing = true;
        Snapshot {
            dirty: state.dirty.clone(),
            small: state.small.clone(),
            doomed: state.doomed.clone(),
        }
    }

    fn write(&self, Snapshot { dirty, small, .. }: &Snapshot) -> Result<()> {
        for path in dirty {
            File::open(self.root.join(path))?.sync_data()?;
        }
        self.inner.sync_directory()?;
        for (path, bytes) in small.iter().filter(|(path, _)| *path != Path::new(META)) {
            self.inner.atomic_write(path, bytes)?;
        }
        if let Some(bytes) = small.get(Path::new(META)) {
            self.inner.atomic_write(Path::new(META), bytes)?;
        }
        self.inner.sync_directory()?;
        Ok(())
    }

    fn end_sync(&self, Snapshot { dirty, small, doomed }: &Snapshot, written: bool) {
        let mut state = self.state.lock();
        state.syncing = false;
        if !written {
            return;
        }
        state.dirty.retain(|path| !dirty.contains(path));
        state.small.retain(|path, bytes| small.get(path) != Some(bytes));
        if state.pins == 0 {
            for path in doomed {
                if self.inner.delete(path).is_ok() {
                    state.doomed.remove(path);
                    state.dirty.remove(path);
                }
            }
        }
    }

    /// Removes files that the commit on disk does not name.
    pub(crate) fn remove_orphans(&self) -> Result<()> {
        let keep = self.durable_files()?;
        for entry in std::fs::read_dir(&self.root)? {
            let name = PathBuf::from(entry?.file_name());
            let text = name.to_string_lossy();
            let segment_file = !text.starts_with('.') && text != META && !text.ends_with(".lock");
            if segment_file && !keep.contains(&name) {
                std::fs::remove_file(self.root.join(&name))?;
            }
        }
        Ok(())
    }

    fn durable_files(&self) -> Result<BTreeSet<PathBuf>> {
        let index = tantivy::Index::open(self.inner.clone())?;
        Ok(index.load_metas()?.list_segment_files().into_iter().collect())
    }

    /// Keeps the files of the commit on disk.
    pub(crate) fn pin(&self) -> Result<PinnedCommit> {
        let _gate = self.gate.lock();
        let meta = std::fs::read(self.root.join(META))?;
        self.state.lock().pins += 1;
        let mut pinned = PinnedCommit { files: Vec::new(), meta, state: self.state.clone() };
        let exists = |path: &PathBuf| self.root.join(path).exists();
        pinned.files = self.durable_files()?.into_iter().filter(exists).collect();
        Ok(pinned)
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return 0 };
        entries.flatten().filter_map(|e| e.metadata().ok()).map(|meta| meta.len()).sum()
    }
}

struct DirtyFile {
    file: BufWriter<File>,
}

impl Write for DirtyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl TerminatingWrite for DirtyFile {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        self.file.flush()
    }
}

impl Directory for DeferredDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.inner.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        let mut state = self.state.lock();
        if !state.syncing && state.dirty.remove(path) {
            drop(state);
            return self.inner.delete(path);
        }
        state.doomed.insert(path.to_owned());
        Ok(())
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        if self.state.lock().small.contains_key(path) {
            return Ok(true);
        }
        self.inner.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let full = self.root.join(path);
        let file = OpenOptions::new().write(true).create_new(true).open(full).map_err(|e| {
            if e.kind() == io::ErrorKind::AlreadyExists {
                OpenWriteError::FileAlreadyExists(path.to_owned())
            } else {
                OpenWriteError::wrap_io_error(e, path.to_owned())
            }
        })?;
        self.state.lock().dirty.insert(path.to_owned());
        let file = BufWriter::with_capacity(1 << 16, file);
        Ok(BufWriter::new(Box::new(DirtyFile { file })))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        if let Some(bytes) = self.state.lock().small.get(path) {
            return Ok(bytes.clone());
        }
        self.inner.atomic_read(path)
    }

    fn atomic_write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.state.lock().small.insert(path.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        self.inner.acquire_lock(lock)
    }

    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        // Readers are reloaded by hand.
        Ok(WatchHandle::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sync_under_way_may_name_stays_until_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let deferred = DeferredDirectory::open(dir.path()).unwrap();
        let write = |name: &str| {
            deferred.open_write(Path::new(name)).unwrap().terminate().unwrap();
        };
        let exists = |name: &str| dir.path().join(name).exists();
        write("old");
        write("idle");
        deferred.delete(Path::new("idle")).unwrap();
        assert!(!exists("idle"), "no commit on disk knows it");

        let snapshot = deferred.begin_sync();
        deferred.delete(Path::new("old")).unwrap();
        write("young");
        deferred.delete(Path::new("young")).unwrap();
        deferred.write(&snapshot).unwrap();
        deferred.end_sync(&snapshot, true);
        assert!(exists("old"), "the commit that was just written may name it");
        deferred.sync().unwrap();
        assert!(!exists("old") && !exists("young"));
        assert_eq!(deferred.state.lock().dirty.len(), 0);

        write("again");
        let failed = deferred.begin_sync();
        deferred.end_sync(&failed, false);
        assert!(deferred.state.lock().dirty.contains(Path::new("again")));
        deferred.delete(Path::new("again")).unwrap();
        assert!(!exists("again"));
    }
}
