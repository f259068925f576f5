//! Packs: files of small blocks, only ever appended to.
//!
//! `packs/<number>.pack` is a run of records (see [`super::record`]). One thread per node owns
//! the open pack: it takes every write that waits, writes them at once and syncs once. A pack
//! is sealed when it is full and after every restart: its index is written beside it as
//! `<number>.idx` (header-like lines, CRC at the end) so that a start reads no data. A pack
//! without a sound index is scanned; where a record is damaged the scan goes on at the next
//! sound header, so that damage costs one record and not the rest of the pack.
//!
//! Deleting marks nothing on disk: after a restart the record is there again, nothing claims
//! it, and the collection of garbage removes it again.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::codec;
use base::crc::crc32c;
use base::{Disk, DiskFile, OpenMode};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::record::{BlockMeta, HEADER, decode_crcs};
use super::{Inner, Local, Place};
use crate::chunks;
use crate::limits::{
    MAX_INDEX_BYTES, PACK_BATCH_BYTES, PACK_BLOCK_BYTES, PACK_TARGET_BYTES, RECORD_ALIGN,
};

/// An open or sealed pack.
pub(crate) struct Pack {
    pub file: Arc<dyn DiskFile>,
    pub len: u64,
    pub dead: u64,
    pub sealed: bool,
}

/// One small block on its way to the disk.
pub(crate) struct SmallBlock {
    pub meta: BlockMeta,
    pub crcs: Vec<u32>,
    pub data: Bytes,
}

/// What the pack thread is asked.
pub(crate) struct PackJob {
    pub blocks: Vec<SmallBlock>,
    /// Given by compaction: the move counts only if the block is still there.
    pub moved_from: Option<Place>,
    pub done: oneshot::Sender<io::Result<()>>,
}

impl PackJob {
    fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.data.len() + HEADER).sum()
    }
}

pub(crate) fn pack_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.pack"))
}

fn index_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.idx"))
}

/// The pack thread: runs until every sender is gone.
pub(crate) fn run(inner: &Inner, mut jobs: mpsc::Receiver<PackJob>) {
    let mut open: Option<u32> = None;
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        let mut bytes = batch.iter().map(PackJob::bytes).sum::<usize>();
        while bytes < PACK_BATCH_BYTES
            && let Ok(job) = jobs.try_recv()
        {
            bytes += job.bytes();
            batch.push(job);
        }
        let result = write_batch(inner, &mut open, &batch);
        if let Err(error) = &result {
            // What the failed write left is unknown: this pack takes nothing more.
            warn!(%error, "a pack write failed");
            open = None;
        }
        for job in batch {
            let copy =
                result.as_ref().map(|_| ()).map_err(|e| io::Error::new(e.kind(), e.to_string()));
            // A caller that went away does not need the answer.
            let _ = job.done.send(copy);
        }
    }
}

fn write_batch(inner: &Inner, open: &mut Option<u32>, batch: &[PackJob]) -> io::Result<()> {
    let (number, file, start) = writable(inner, open)?;
    let mut bytes = Vec::new();
    let mut places = Vec::new();
    for job in batch {
        for block in &job.blocks {
            let offset = start + bytes.len() as u64;
            block.meta.append_record(&block.data, &block.crcs, &mut bytes);
            places.push((block.meta, Place::Pack { number, offset }, job.moved_from));
        }
    }
    file.write_all_at(&bytes, start)?;
    file.sync()?;
    if let Some(pack) = inner.packs.lock().get_mut(&number) {
        pack.len = start + bytes.len() as u64;
    }
    for (meta, place, moved_from) in places {
        inner.place(meta, place, moved_from);
    }
    Ok(())
}

/// The open pack with room, a new one where needed.
fn writable(inner: &Inner, open: &mut Option<u32>) -> io::Result<(u32, Arc<dyn DiskFile>, u64)> {
    if let Some(number) = *open {
        let found = inner.packs.lock().get(&number).map(|pack| (pack.file.clone(), pack.len));
        match found {
            Some((file, len)) if len < PACK_TARGET_BYTES => return Ok((number, file, len)),
            Some(_) => inner.seal(number)?,
            None => {}
        }
        *open = None;
    }
    let number = inner.packs.lock().last_key_value().map_or(1, |(last, _)| last + 1);
    let path = pack_path(&inner.pack_dir, number);
    let file = inner.disk.open(&path, OpenMode::ReadWrite)?;
    inner.disk.sync_dir(&inner.pack_dir)?;
    let pack = Pack { file: file.clone(), len: 0, dead: 0, sealed: false };
    inner.packs.lock().insert(number, pack);
    *open = Some(number);
    Ok((number, file, 0))
}

type IndexLine = (BlockMeta, u64);

/// Writes the index of a pack.
pub(crate) fn write_index(
    disk: &dyn Disk,
    dir: &Path,
    number: u32,
    lines: &[IndexLine],
) -> io::Result<()> {
    let mut bytes = codec::encode(&lines);
    let sum = crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    disk.write_durably(&index_path(dir, number), &bytes)
}

fn read_index(disk: &dyn Disk, dir: &Path, number: u32) -> Option<Vec<IndexLine>> {
    let bytes = disk.read(&index_path(dir, number), MAX_INDEX_BYTES).ok()?;
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    if crc32c(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    codec::decode(body).ok()
}

/// Opens every pack of a directory: by its index, or by a scan that then writes the index.
pub(crate) fn open_all(inner: &Inner) -> io::Result<()> {
    for path in inner.disk.read_dir(&inner.pack_dir)? {
        let is_pack = path.extension().is_some_and(|extension| extension == "pack");
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u32>().ok());
        let (true, Some(number)) = (is_pack, number) else { continue };
        let file = inner.disk.open(&path, OpenMode::ReadWrite)?;
        let len = file.len()?;
        let lines = match read_index(&*inner.disk, &inner.pack_dir, number) {
            Some(lines) => lines,
            None => {
                let lines = scan(&*file)?;
                write_index(&*inner.disk, &inner.pack_dir, number, &lines)?;
                lines
            }
        };
        let live: u64 = lines.iter().map(|(meta, _)| meta.record_bytes()).sum();
        let pack = Pack { file, len, dead: len.saturating_sub(live), sealed: true };
        inner.packs.lock().insert(number, pack);
        for (meta, offset) in lines {
            inner.place(meta, Place::Pack { number, offset }, None);
        }
    }
    Ok(())
}

/// Every sound record of a pack.
fn scan(file: &dyn DiskFile) -> io::Result<Vec<IndexLine>> {
    let len = file.len()?.min(PACK_TARGET_BYTES * 2);
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    let filled = file.read_at(&mut bytes, 0)?;
    bytes.truncate(filled);
    let mut lines = Vec::new();
    let mut at = 0;
    let mut damaged = 0u64;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEADER) {
        match sound_record(rest) {
            Some(meta) => {
                lines.push((meta, at as u64));
                at += usize::try_from(meta.record_bytes()).map_err(io::Error::other)?;
            }
            None => {
                damaged += 1;
                at += RECORD_ALIGN;
            }
        }
    }
    if damaged > 0 {
        warn!(bytes = damaged * RECORD_ALIGN as u64, "skipped torn or damaged parts of a pack");
    }
    Ok(lines)
}

fn sound_record(bytes: &[u8]) -> Option<BlockMeta> {
    let meta = BlockMeta::parse(bytes)?;
    if meta.len > PACK_BLOCK_BYTES as u64 {
        return None;
    }
    let crcs_end = HEADER + usize::try_from(meta.crc_bytes()).ok()?;
    let crcs = decode_crcs(bytes.get(HEADER..crcs_end)?);
    let data = bytes.get(crcs_end..crcs_end + usize::try_from(meta.len).ok()?)?;
    (chunks::digest(&crcs) == meta.digest && chunks::matches(data, &crcs)).then_some(meta)
}

impl Inner {
    /// Closes a pack for writing and stores its index.
    pub(crate) fn seal(&self, number: u32) -> io::Result<()> {
        let mut lines: Vec<IndexLine> = self
            .index
            .read()
            .values()
            .filter_map(|local| match local.place {
                Place::Pack { number: n, offset } if n == number => Some((local.meta, offset)),
                Place::Pack { .. } | Place::File => None,
            })
            .collect();
        lines.sort_by_key(|(_, offset)| *offset);
        write_index(&*self.disk, &self.pack_dir, number, &lines)?;
        if let Some(pack) = self.packs.lock().get_mut(&number) {
            pack.sealed = true;
        }
        Ok(())
    }

    /// Records where a block lies; what it replaces becomes dead.
    pub(crate) fn place(&self, meta: BlockMeta, place: Place, moved_from: Option<Place>) {
        let now = self.clock.monotonic();
        let mut index = self.index.write();
        let old = index.get(&meta.id).copied();
        if moved_from.is_some() && old.map(|local| local.place) != moved_from {
            drop(index);
            self.mark_dead(meta, place);
            return;
        }
        let written = old.filter(|_| moved_from.is_some()).map_or(now, |local| local.written);
        index.insert(meta.id, Local { meta, place, written });
        drop(index);
        if let Some(old) = old {
            self.mark_dead(old.meta, old.place);
        }
    }

    /// Counts a pack record as dead; files are removed by their owner.
    pub(crate) fn mark_dead(&self, meta: BlockMeta, place: Place) {
        if let Place::Pack { number, .. } = place
            && let Some(pack) = self.packs.lock().get_mut(&number)
        {
            pack.dead += meta.record_bytes();
        }
    }

    /// A sealed pack that is worth rewriting, with its live blocks; none of `except`.
    pub(crate) fn compactable(&self, except: &BTreeSet<u32>) -> Option<(u32, Vec<u64>)> {
        let packs = self.packs.lock();
        let wanted = |pack: &Pack| pack.dead * 2 > pack.len || pack.len < PACK_TARGET_BYTES / 8;
        let (number, _) = packs
            .iter()
            .find(|(number, pack)| pack.sealed && wanted(pack) && !except.contains(number))?;
        let number = *number;
        drop(packs);
        let index = self.index.read();
        let live = index
            .values()
            .filter(|local| matches!(local.place, Place::Pack { number: n, .. } if n == number));
        Some((number, live.map(|local| local.meta.id).collect()))
    }

    /// Removes a sealed pack without live blocks.
    pub(crate) fn drop_pack(&self, number: u32) -> io::Result<()> {
        self.packs.lock().remove(&number);
        let index = index_path(&self.pack_dir, number);
        if self.disk.exists(&index)? {
            self.disk.remove_file(&index)?;
        }
        self.disk.remove_file(&pack_path(&self.pack_dir, number))?;
        self.disk.sync_dir(&self.pack_dir)
    }
}
