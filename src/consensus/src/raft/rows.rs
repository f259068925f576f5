//! Row files: the durable rows of a checkpoint.
//!
//! `magic: 8 bytes`, then frames `len: u32 | crc32c: u32 | rows`, little endian, each row
//! `key_len: u32 | value_len: u32 (0xffff_ffff deletes) | key | value`; an empty frame ends the
//! file, so a cut file is noticed. Keys of a file ascend, so that any number of files is merged
//! while one frame of each is in memory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::crc::{crc32c, crc32c_append};
use base::env::{DiskFile, OpenMode};
use base::limits::MIB;
use base::{Disk, Env};
use bytes::{Buf, BufMut, Bytes};

use super::types::invalid;
use crate::table::Change;

const MAGIC: &[u8; 8] = b"trnrows1";
const FRAME_BYTES: usize = 256 * 1024;
const MAX_FRAME_BYTES: usize = 32 * MIB;
const DELETED: u32 = u32::MAX;

/// Length and checksum of a written file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

/// Writes rows, whose keys ascend, into an empty file. Not synced.
pub(crate) fn write(
    file: &dyn DiskFile,
    rows: impl Iterator<Item = io::Result<Change>>,
) -> io::Result<Written> {
    let mut written = Written { len: 0, crc: 0 };
    let mut put = |bytes: &[u8]| -> io::Result<()> {
        file.write_all_at(bytes, written.len)?;
        written.len += bytes.len() as u64;
        written.crc = crc32c_append(written.crc, bytes);
        Ok(())
    };
    put(MAGIC)?;
    let mut frame = Vec::with_capacity(FRAME_BYTES + FRAME_BYTES / 4);
    for row in rows {
        let (key, value) = row?;
        push_row(&mut frame, &key, value.as_deref())?;
        if frame.len() >= FRAME_BYTES {
            put(&frame_head(&frame)?)?;
            put(&frame)?;
            frame.clear();
        }
    }
    if !frame.is_empty() {
        put(&frame_head(&frame)?)?;
        put(&frame)?;
    }
    put(&frame_head(&[])?)?;
    Ok(written)
}

fn frame_head(frame: &[u8]) -> io::Result<[u8; 8]> {
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let mut head = [0; 8];
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[4..].copy_from_slice(&crc32c(frame).to_le_bytes());
    Ok(head)
}

fn push_row(frame: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
    frame.put_u32_le(u32::try_from(key.len()).map_err(io::Error::other)?);
    let value_len = value.map_or(Ok(DELETED), |v| u32::try_from(v.len()));
    frame.put_u32_le(value_len.map_err(io::Error::other)?);
    frame.put_slice(key);
    frame.put_slice(value.unwrap_or_default());
    Ok(())
}

/// Decodes the rows of one frame; the fuzz target of the table format.
pub(crate) fn decode_frame(
    mut frame: Bytes,
    take: &mut dyn FnMut(Vec<u8>, Option<Bytes>),
) -> io::Result<()> {
    while !frame.is_empty() {
        if frame.len() < 8 {
            return Err(invalid("row head is cut"));
        }
        let key_len = frame.get_u32_le() as usize;
        let value_len = frame.get_u32_le();
        let stored = if value_len == DELETED { 0 } else { value_len as usize };
        if frame.len() < key_len.saturating_add(stored) {
            return Err(invalid("row is longer than its frame"));
        }
        let key = frame.split_to(key_len).to_vec();
        let value = frame.split_to(stored);
        take(key, (value_len != DELETED).then_some(value));
    }
    Ok(())
}

/// Reads one file row by row.
struct RowFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    at: u64,
    frame: std::vec::IntoIter<Change>,
    ended: bool,
    last: Option<Vec<u8>>,
}

impl RowFile {
    fn open(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let file = disk.open(path, OpenMode::Read)?;
        let mut this = Self {
            file,
            path: path.to_owned(),
            at: MAGIC.len() as u64,
            frame: Vec::new().into_iter(),
            ended: false,
            last: None,
        };
        let mut magic = [0; 8];
        this.file.read_exact_at(&mut magic, 0).map_err(|e| this.named(e))?;
        if &magic != MAGIC {
            return Err(this.named(invalid("not a row file of this version")));
        }
        this.read_frame()?;
        Ok(this)
    }

    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }

    fn read_frame(&mut self) -> io::Result<()> {
        let mut head = [0; 8];
        self.file.read_exact_at(&mut head, self.at).map_err(|e| self.named(e))?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if len == 0 {
            self.ended = true;
            return Ok(());
        }
        if len > MAX_FRAME_BYTES {
            return Err(self.named(invalid("row frame is longer than any that is written")));
        }
        let mut frame = vec![0; len];
        self.file.read_exact_at(&mut frame, self.at + 8).map_err(|e| self.named(e))?;
        if frame_head(&frame)? != head {
            return Err(self.named(invalid("row frame has a wrong checksum")));
        }
        let mut rows = Vec::new();
        decode_frame(frame.into(), &mut |key, value| rows.push((key, value)))
            .map_err(|e| self.named(e))?;
        self.frame = rows.into_iter();
        self.at += 8 + len as u64;
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<Change>> {
        loop {
            if let Some((key, value)) = self.frame.next() {
                // A merge of files out of order would resurrect old values.
                if self.last.as_ref().is_some_and(|last| *last >= key) {
                    return Err(self.named(invalid("rows are out of order")));
                }
                self.last = Some(key.clone());
                return Ok(Some((key, value)));
            }
            if self.ended {
                return Ok(None);
            }
            self.read_frame()?;
        }
    }
}

/// The rows of several files, oldest file first, in key order: of rows with the same key only
/// the newest, and no deleted ones. One frame of each file is in memory.
pub(crate) struct Merge {
    /// Each file with the row that comes next in it.
    files: Vec<(RowFile, Option<Change>)>,
    failed: bool,
}

impl Merge {
    pub(crate) fn open(env: &Env, paths: &[PathBuf]) -> io::Result<Self> {
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let mut file = RowFile::open(&*env.disk, path)?;
            let first = file.next()?;
            files.push((file, first));
        }
        Ok(Self { files, failed: false })
    }

    fn step(&mut self) -> io::Result<Option<Change>> {
        loop {
            let heads = self.files.iter().filter_map(|(_, head)| Some(&head.as_ref()?.0));
            let Some(key) = heads.min().cloned() else { return Ok(None) };
            let mut newest = None;
            for (file, head) in &mut self.files {
                if head.as_ref().is_some_and(|(k, _)| *k == key) {
                    newest = std::mem::replace(head, file.next()?);
                }
            }
            if let Some((key, value @ Some(_))) = newest {
                return Ok(Some((key, value)));
            }
        }
    }
}

impl Iterator for Merge {
    type Item = io::Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.step();
        self.failed = next.is_err();
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use base::env::sim_disk::SimDisk;

    use super::*;

    fn row(key: &str, value: Option<&str>) -> io::Result<Change> {
        Ok((key.as_bytes().to_vec(), value.map(|v| Bytes::copy_from_slice(v.as_bytes()))))
    }

    fn put(disk: &SimDisk, name: &str, rows: Vec<io::Result<Change>>) -> PathBuf {
        let path = Path::new("/rows").join(name);
        disk.create_dir_all(Path::new("/rows")).unwrap();
        let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
        let written = write(&*file, rows.into_iter()).unwrap();
        let bytes = disk.read(&path, 1 << 30).unwrap();
        assert_eq!(written, Written { len: bytes.len() as u64, crc: crc32c(&bytes) });
        path
    }

    fn env(disk: &SimDisk) -> Env {
        Env { disk: Arc::new(disk.clone()), ..Env::real() }
    }

    #[test]
    fn the_newest_row_of_a_key_wins_and_deleted_rows_are_gone() {
        let disk = SimDisk::new(1);
        let paths = [
            put(&disk, "base", vec![row("a", Some("1")), row("b", Some("1")), row("d", Some("1"))]),
            put(&disk, "delta", vec![row("a", None), row("b", Some("2")), row("c", Some("2"))]),
            put(&disk, "newer", vec![row("a", Some("3")), row("d", None)]),
        ];
        let merged: Vec<_> =
            Merge::open(&env(&disk), &paths).unwrap().map(Result::unwrap).collect();
        let expected = [("a", "3"), ("b", "2"), ("c", "2")];
        assert_eq!(merged, expected.map(|(k, v)| row(k, Some(v)).unwrap()));
    }

    #[test]
    fn files_of_many_frames_are_merged() {
        let disk = SimDisk::new(1);
        let value = "v".repeat(1000);
        let of = |step: usize| -> Vec<_> {
            (0..3000).step_by(step).map(|n| row(&format!("{n:05}"), Some(&value))).collect()
        };
        let paths = [put(&disk, "base", of(2)), put(&disk, "delta", of(3))];
        let merged: Vec<_> =
            Merge::open(&env(&disk), &paths).unwrap().map(Result::unwrap).collect();
        assert_eq!(merged.len(), (0..3000).filter(|n| n % 2 == 0 || n % 3 == 0).count());
        assert!(merged.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn rows_out_of_order_are_an_error() {
        let disk = SimDisk::new(1);
        let path = put(&disk, "base", vec![row("b", Some("1")), row("a", Some("1"))]);
        let mut merge = Merge::open(&env(&disk), &[path]).unwrap();
        assert!(merge.next().unwrap().unwrap_err().to_string().contains("out of order"));
        assert!(merge.next().is_none());
    }

    #[test]
    fn cut_frames_are_errors() {
        let mut frame = Vec::new();
        push_row(&mut frame, b"key", Some(b"value")).unwrap();
        for cut in 1..frame.len() {
            assert!(decode_frame(frame[..cut].to_vec().into(), &mut |_, _| ()).is_err());
        }
    }
}
