//! Blocks above 1 MiB: a file of their own, received in pieces.
//!
//! `files/<two hex digits>/<id>.blk` holds the bytes and `<id>.crc` the header and the chunk
//! CRCs. The sidecar is written and synced after the data: a block without a sound sidecar was
//! never acknowledged and is removed at start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{DiskFile, OpenMode};
use parking_lot::Mutex;

use super::record::{BlockMeta, HEADER};
use super::{Inner, Place};
use crate::chunks;
use crate::limits::{CHUNK_BYTES, MAX_BLOCK_BYTES, MAX_OPEN_BLOCKS};

/// A block that is being received.
pub(crate) struct OpenBlock {
    gs: u64,
    file: Arc<dyn DiskFile>,
    state: Mutex<OpenState>,
}

struct OpenState {
    crcs: Vec<u32>,
    len: u64,
    touched: Duration,
}

fn folder(id: u64) -> String {
    format!("{:02x}", id & 0xff)
}

impl Inner {
    pub(crate) fn data_path(&self, id: u64) -> PathBuf {
        self.file_dir.join(folder(id)).join(format!("{id}.blk"))
    }

    pub(crate) fn sidecar_path(&self, id: u64) -> PathBuf {
        self.file_dir.join(folder(id)).join(format!("{id}.crc"))
    }

    fn open_block(&self, id: u64, gs: u64) -> io::Result<Arc<OpenBlock>> {
        let mut open = self.open.lock();
        if let Some(block) = open.get(&id) {
            return match block.gs == gs {
                true => Ok(block.clone()),
                false => Err(io::Error::other(format!("block {id} is open with another stamp"))),
            };
        }
        if open.len() >= MAX_OPEN_BLOCKS {
            return Err(io::Error::other("too many blocks are being written"));
        }
        self.disk.create_dir_all(&self.file_dir.join(folder(id)))?;
        let file = self.disk.open(&self.data_path(id), OpenMode::ReadWrite)?;
        file.set_len(0)?;
        let touched = self.clock.monotonic();
        let state = Mutex::new(OpenState { crcs: Vec::new(), len: 0, touched });
        let block = Arc::new(OpenBlock { gs, file, state });
        open.insert(id, block.clone());
        Ok(block)
    }

    /// Writes one piece; pieces may come in any order and begin at a chunk.
    pub(crate) fn write_piece(&self, id: u64, gs: u64, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= MAX_BLOCK_BYTES);
        let (Some(end), true) = (end, offset.is_multiple_of(CHUNK_BYTES as u64)) else {
            return Err(io::Error::other(format!("piece at {offset} of block {id} is no piece")));
        };
        // Blocks never change: a second sender has nothing to add to a finished one.
        let finished = self.index.read().get(&id).copied();
        if finished.is_some_and(|local| local.meta.gs == gs && local.place == Place::File) {
            return Ok(());
        }
        self.check_space()?;
        let block = self.open_block(id, gs)?;
        block.file.write_all_at(data, offset)?;
        let sums = chunks::crcs(data);
        let first = usize::try_from(offset).map_err(io::Error::other)? / CHUNK_BYTES;
        let mut state = block.state.lock();
        if state.crcs.len() < first + sums.len() {
            state.crcs.resize(first + sums.len(), 0);
        }
        for (slot, sum) in state.crcs.iter_mut().skip(first).zip(sums) {
            *slot = sum;
        }
        state.len = state.len.max(end);
        state.touched = self.clock.monotonic();
        Ok(())
    }

    /// Syncs a received block and makes it readable. It must be what the sender says.
    pub(crate) fn finish(&self, meta: BlockMeta) -> io::Result<()> {
        let Some(block) = self.open.lock().remove(&meta.id) else {
            return match self.index.read().get(&meta.id) {
                Some(local) if local.meta == meta => Ok(()),
                _ => Err(io::Error::other(format!("block {} is not being written", meta.id))),
            };
        };
        let state = block.state.lock();
        if block.gs != meta.gs
            || state.len != meta.len
            || chunks::digest(&state.crcs) != meta.digest
        {
            return Err(io::Error::other(format!("block {} arrived damaged", meta.id)));
        }
        block.file.sync()?;
        let mut sidecar = meta.header().to_vec();
        state.crcs.iter().for_each(|crc| sidecar.extend_from_slice(&crc.to_le_bytes()));
        let path = self.sidecar_path(meta.id);
        let file = self.disk.open(&path, OpenMode::ReadWrite)?;
        file.set_len(sidecar.len() as u64)?;
        file.write_all_at(&sidecar, 0)?;
        file.sync()?;
        self.disk.sync_dir(path.parent().unwrap_or(&self.file_dir))?;
        self.disk.sync_dir(&self.file_dir)?;
        self.place(meta, Place::File, None);
        Ok(())
    }

    /// Forgets a block that will not be finished.
    pub(crate) fn abort(&self, id: u64) -> io::Result<()> {
        let was_open = self.open.lock().remove(&id).is_some();
        if was_open && !self.index.read().contains_key(&id) {
            self.disk.remove_file(&self.data_path(id))?;
        }
        Ok(())
    }

    /// Drops blocks whose writer fell silent.
    pub(crate) fn abort_idle(&self, age: Duration) -> io::Result<()> {
        let now = self.clock.monotonic();
        let idle = |block: &OpenBlock| now.saturating_sub(block.state.lock().touched) > age;
        let ids: Vec<u64> =
            self.open.lock().iter().filter(|(_, b)| idle(b)).map(|(id, _)| *id).collect();
        ids.into_iter().try_for_each(|id| self.abort(id))
    }

    pub(crate) fn remove_files(&self, id: u64) -> io::Result<()> {
        for path in [self.sidecar_path(id), self.data_path(id)] {
            if self.disk.exists(&path)? {
                self.disk.remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Indexes the block files of a directory and removes unfinished ones.
    pub(crate) fn open_files(&self) -> io::Result<()> {
        for folder in self.disk.read_dir(&self.file_dir)? {
            for path in self.disk.read_dir(&folder)? {
                let is_data = path.extension().is_some_and(|extension| extension == "blk");
                let id = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
                let (true, Some(id)) = (is_data, id) else { continue };
                match self.finished(id, &path)? {
                    Some(meta) => self.place(meta, Place::File, None),
                    None => self.remove_files(id)?,
                }
            }
        }
        Ok(())
    }

    fn finished(&self, id: u64, data: &Path) -> io::Result<Option<BlockMeta>> {
        let sidecar = self.sidecar_path(id);
        if !self.disk.exists(&sidecar)? {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        let file = self.disk.open(&sidecar, OpenMode::Read)?;
        let whole = file.read_at(&mut header, 0)? == HEADER;
        let meta = BlockMeta::parse(&header).filter(|meta| whole && meta.id == id);
        let Some(meta) = meta else { return Ok(None) };
        let lengths = (self.disk.open(data, OpenMode::Read)?.len()?, file.len()?);
        let expected = (meta.len, HEADER as u64 + meta.crc_bytes());
        Ok((lengths == expected).then_some(meta))
    }
}

impl Inner {
    /// Rewrites a damaged part of a finished block in place. `offset` begins a chunk.
    pub(crate) fn patch(&self, meta: BlockMeta, offset: u64, data: &[u8]) -> io::Result<()> {
        let file = self.disk.open(&self.data_path(meta.id), OpenMode::ReadWrite)?;
        file.write_all_at(data, offset)?;
        file.sync()?;
        let crcs: Vec<u8> = chunks::crcs(data).iter().flat_map(|crc| crc.to_le_bytes()).collect();
        let sidecar = self.disk.open(&self.sidecar_path(meta.id), OpenMode::ReadWrite)?;
        sidecar.write_all_at(&meta.header(), 0)?;
        sidecar.write_all_at(&crcs, HEADER as u64 + offset / CHUNK_BYTES as u64 * 4)?;
        sidecar.sync()
    }
}
