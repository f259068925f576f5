//! The blocks of this node on its disk.
//!
//! Small blocks lie in packs ([`pack`]), larger ones in files of their own ([`big`]). An index in
//! RAM says where. All disk work runs on threads of this module: one for pack writes, a few for
//! the rest; callers wait in bounded queues.

mod big;
mod pack;
pub(crate) mod record;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, Disk, Env, OpenMode};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use crate::chunks;
use crate::limits::{CHUNK_BYTES, DISK_QUEUE, DISK_THREADS, PACK_BLOCK_BYTES};
use big::OpenBlock;
pub(crate) use pack::SmallBlock;
use pack::{Pack, PackJob};
use record::{BlockMeta, HEADER, decode_crcs};

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Pack { number: u32, offset: u64 },
    File,
}

/// A block of this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local {
    pub meta: BlockMeta,
    pub place: Place,
    /// When it came, by the monotonic clock; the start of the process for older ones.
    pub written: Duration,
}

/// A verified part of a block, beginning at a chunk.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub data: Bytes,
    pub crcs: Vec<u32>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("block {0} is not here")]
    Missing(u64),
    #[error("block {0} is damaged")]
    Corrupt(u64),
    #[error("disk: {0}")]
    Io(#[from] io::Error),
}

pub(crate) struct Inner {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    pack_dir: PathBuf,
    file_dir: PathBuf,
    reserve_bytes: u64,
    free_bytes: AtomicU64,
    free_checked_ms: AtomicI64,
    index: RwLock<HashMap<u64, Local>>,
    packs: Mutex<BTreeMap<u32, Pack>>,
    open: Mutex<HashMap<u64, Arc<OpenBlock>>>,
}

type DiskJob = Box<dyn FnOnce(&Inner) + Send>;

/// The local store. Its threads end when it is dropped.
pub(crate) struct Store {
    inner: Arc<Inner>,
    packs: mpsc::Sender<PackJob>,
    disk: mpsc::Sender<DiskJob>,
}

impl Store {
    /// Opens the store below `dir`, reading indices and scanning the packs that have none.
    pub(crate) fn open(env: &Env, dir: &Path, reserve_bytes: u64) -> io::Result<Self> {
        let (pack_dir, file_dir) = (dir.join("packs"), dir.join("files"));
        env.disk.create_dir_all(&pack_dir)?;
        env.disk.create_dir_all(&file_dir)?;
        env.disk.sync_dir(dir)?;
        let inner = Arc::new(Inner {
            disk: env.disk.clone(),
            clock: env.clock.clone(),
            pack_dir,
            file_dir,
            reserve_bytes,
            free_bytes: AtomicU64::new(u64::MAX),
            free_checked_ms: AtomicI64::new(i64::MIN),
            index: RwLock::default(),
            packs: Mutex::default(),
            open: Mutex::default(),
        });
        pack::open_all(&inner)?;
        inner.open_files()?;
        let (packs, pack_jobs) = mpsc::channel(DISK_QUEUE);
        let (disk, disk_jobs) = mpsc::channel(DISK_QUEUE);
        let packer = inner.clone();
        base::task::thread("block-packs", move || pack::run(&packer, pack_jobs));
        let disk_jobs: Arc<Mutex<mpsc::Receiver<DiskJob>>> = Arc::new(Mutex::new(disk_jobs));
        for n in 0..DISK_THREADS {
            let (inner, jobs) = (inner.clone(), disk_jobs.clone());
            base::task::thread(&format!("block-disk{n}"), move || {
                loop {
                    let job = jobs.lock().blocking_recv();
                    let Some(job) = job else { return };
                    job(&inner);
                }
            });
        }
        Ok(Self { inner, packs, disk })
    }

    /// Runs `work` on a disk thread.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, answer) = oneshot::channel();
        let job: DiskJob = Box::new(move |inner| {
            // A caller that went away does not need the answer.
            let _ = done.send(work(inner));
        });
        self.disk.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Writes small blocks with one sync and makes them readable.
    pub(crate) async fn write_small(&self, blocks: Vec<SmallBlock>) -> Result<(), StoreError> {
        self.inner.check_space()?;
        self.pack_write(blocks, None).await
    }

    async fn pack_write(
        &self,
        blocks: Vec<SmallBlock>,
        moved_from: Option<Place>,
    ) -> Result<(), StoreError> {
        assert!(blocks.iter().all(|block| block.data.len() <= PACK_BLOCK_BYTES));
        let (done, answer) = oneshot::channel();
        let job = PackJob { blocks, moved_from, done };
        self.packs.send(job).await.map_err(|_| stopped())?;
        Ok(answer.await.map_err(|_| stopped())??)
    }

    /// Writes a piece of a large block.
    pub(crate) async fn write_piece(
        &self,
        id: u64,
        gs: u64,
        offset: u64,
        data: Bytes,
    ) -> Result<(), StoreError> {
        self.on_disk(move |inner| Ok(inner.write_piece(id, gs, offset, &data)?)).await
    }

    /// Syncs a large block and makes it readable.
    pub(crate) async fn finish(&self, meta: BlockMeta) -> Result<(), StoreError> {
        self.on_disk(move |inner| Ok(inner.finish(meta)?)).await
    }

    /// Forgets a large block that will not be finished.
    pub(crate) async fn abort(&self, id: u64) -> Result<(), StoreError> {
        self.on_disk(move |inner| Ok(inner.abort(id)?)).await
    }

    /// Drops large blocks whose writer fell silent.
    pub(crate) async fn abort_idle(&self, age: Duration) -> Result<(), StoreError> {
        self.on_disk(move |inner| Ok(inner.abort_idle(age)?)).await
    }

    /// Rewrites a damaged part of a large block in place.
    pub(crate) async fn patch(
        &self,
        meta: BlockMeta,
        offset: u64,
        data: Bytes,
    ) -> Result<(), StoreError> {
        self.on_disk(move |inner| Ok(inner.patch(meta, offset, &data)?)).await
    }

    /// Reads a part of a block, widened to whole chunks and verified.
    pub(crate) async fn read(&self, id: u64, offset: u64, len: u64) -> Result<Piece, StoreError> {
        self.on_disk(move |inner| inner.read(id, offset, len)).await
    }

    /// Removes blocks.
    pub(crate) async fn remove(&self, ids: Vec<u64>) -> Result<(), StoreError> {
        self.on_disk(move |inner| {
            for id in ids {
                inner.remove(id)?;
            }
            Ok(())
        })
        .await
    }

    /// Rewrites packs that are mostly dead until there are none, and says how many there were. One
    /// that cannot be rewritten is left out; its error is told at the end.
    pub(crate) async fn compact(&self) -> Result<usize, StoreError> {
        let (mut rewritten, mut failed, mut first_error) = (0, BTreeSet::new(), None);
        while let Some((number, live)) = self.inner.compactable(&failed) {
            match self.rewrite(number, live).await {
                Ok(()) => rewritten += 1,
                Err(error) => {
                    failed.insert(number);
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(rewritten), Err)
    }

    async fn rewrite(&self, number: u32, live: Vec<u64>) -> Result<(), StoreError> {
        for id in live {
            let Some(local) = self.get(id) else { continue };
            let piece = self.read(id, 0, local.meta.len).await?;
            let block = SmallBlock { meta: local.meta, crcs: piece.crcs, data: piece.data };
            self.pack_write(vec![block], Some(local.place)).await?;
        }
        self.on_disk(move |inner| Ok(inner.drop_pack(number)?)).await
    }

    /// A block of this node.
    pub(crate) fn get(&self, id: u64) -> Option<Local> {
        self.inner.index.read().get(&id).copied()
    }

    /// Up to `limit` blocks with an id above `after`, in order.
    pub(crate) fn page(&self, after: u64, limit: usize) -> Vec<Local> {
        let index = self.inner.index.read();
        let mut ids: Vec<u64> = index.keys().copied().filter(|id| *id > after).collect();
        ids.sort_unstable();
        ids.truncate(limit);
        ids.iter().filter_map(|id| index.get(id).copied()).collect()
    }

    /// Number of blocks and their bytes.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let index = self.inner.index.read();
        (index.len() as u64, index.values().map(|local| local.meta.len).sum())
    }
}

fn stopped() -> StoreError {
    StoreError::Io(io::Error::other("the block store has stopped"))
}

impl Inner {
    /// Refuses writes below the reserve. Asks the file system at most once a second.
    fn check_space(&self) -> io::Result<()> {
        let now = self.clock.unix_ms();
        let last = self.free_checked_ms.load(Ordering::Relaxed);
        if now.saturating_sub(last) >= 1000 || now < last {
            let free = self.disk.space(&self.pack_dir)?.free_bytes;
            self.free_bytes.store(free, Ordering::Relaxed);
            self.free_checked_ms.store(now, Ordering::Relaxed);
        }
        if self.free_bytes.load(Ordering::Relaxed) >= self.reserve_bytes {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is below its reserve"))
    }

    fn read(&self, id: u64, offset: u64, len: u64) -> Result<Piece, StoreError> {
        let local = *self.index.read().get(&id).ok_or(StoreError::Missing(id))?;
        let total = local.meta.len;
        let chunk = CHUNK_BYTES as u64;
        let start = (offset / chunk * chunk).min(total);
        let end = offset.saturating_add(len).div_ceil(chunk).saturating_mul(chunk).min(total);
        let (crcs, data) = match self.read_raw(&local, start, end) {
            Ok(raw) => raw,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing(id));
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(StoreError::Corrupt(id));
            }
            Err(error) => return Err(error.into()),
        };
        let crcs = decode_crcs(&crcs);
        if !chunks::matches(&data, &crcs) {
            return Err(StoreError::Corrupt(id));
        }
        Ok(Piece { data: data.into(), crcs })
    }

    fn read_raw(&self, local: &Local, start: u64, end: u64) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let size = |n: u64| usize::try_from(n).map_err(io::Error::other);
        let first_crc = start / CHUNK_BYTES as u64 * 4;
        let mut crcs = vec![0; size(chunks::count(end - start) * 4)?];
        let mut data = vec![0; size(end - start)?];
        match local.place {
            Place::Pack { number, offset } => {
                let file = self.packs.lock().get(&number).map(|pack| pack.file.clone());
                let file = file.ok_or(io::ErrorKind::NotFound)?;
                let crcs_at = offset + HEADER as u64;
                file.read_exact_at(&mut crcs, crcs_at + first_crc)?;
                file.read_exact_at(&mut data, crcs_at + local.meta.crc_bytes() + start)?;
            }
            Place::File => {
                let id = local.meta.id;
                let sidecar = self.disk.open(&self.sidecar_path(id), OpenMode::Read)?;
                sidecar.read_exact_at(&mut crcs, HEADER as u64 + first_crc)?;
                let file = self.disk.open(&self.data_path(id), OpenMode::Read)?;
                file.read_exact_at(&mut data, start)?;
            }
        }
        Ok((crcs, data))
    }

    fn remove(&self, id: u64) -> io::Result<()> {
        self.abort(id)?;
        let Some(local) = self.index.write().remove(&id) else { return Ok(()) };
        match local.place {
            Place::Pack { .. } => self.mark_dead(local.meta, local.place),
            Place::File => self.remove_files(id)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
