//! Aligned reads of a file through a sliding window, for recovery and cache misses.

use std::io;
use std::sync::Arc;

use base::DiskFile;
use base::sys::AlignedBuf;

use crate::format::BLOCK;

/// A file and the part of it that was read last.
pub(crate) struct Window {
    file: Arc<dyn DiskFile>,
    file_len: u64,
    step: usize,
    buf: AlignedBuf,
    start: u64,
    filled: usize,
}

impl Window {
    /// A window that reads `step` bytes at a time, or more where more is asked for.
    pub(crate) fn new(file: Arc<dyn DiskFile>, step: usize) -> io::Result<Self> {
        // Whole blocks only: direct reads of a crooked end fail, and no flush lies there.
        let file_len = file.len()? / BLOCK as u64 * BLOCK as u64;
        Ok(Self { file, file_len, step, buf: AlignedBuf::zeroed(0), start: 0, filled: 0 })
    }

    /// Length of the file.
    pub(crate) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Bytes from `offset` on: `len`, or fewer where the file ends.
    pub(crate) fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let len = len.min(usize::try_from(self.file_len.saturating_sub(offset)).unwrap_or(len));
        let inside = offset >= self.start && offset + len as u64 <= self.start + self.filled as u64;
        if !inside {
            self.load(offset, len)?;
        }
        let at = usize::try_from(offset - self.start).map_err(io::Error::other)?;
        let end = (at + len).min(self.filled);
        Ok(self.buf.get(at..end).unwrap_or_default())
    }

    fn load(&mut self, offset: u64, len: usize) -> io::Result<()> {
        let start = offset / BLOCK as u64 * BLOCK as u64;
        let skip = usize::try_from(offset - start).map_err(io::Error::other)?;
        let left = usize::try_from(self.file_len.saturating_sub(start)).unwrap_or(usize::MAX);
        let want = (skip + len).max(self.step).min(left).next_multiple_of(BLOCK);
        if self.buf.len() < want {
            self.buf = AlignedBuf::zeroed(want);
        }
        self.start = start;
        self.filled = 0;
        let space = self.buf.get_mut(..want).unwrap_or_default();
        self.filled = self.file.read_at(space, start)?;
        Ok(())
    }
}
