//! Hadoop's file checksum.
//!
//! MD5 over the MD5s of each block's chunk CRCs, in a buffer padded with zeros to a power of
//! two of at least 32. Blocks are counted here as HDFS would cut the file, by its block size,
//! however it was written: equal files have equal checksums.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use md5::{Digest, Md5};

use super::BlockService;
use crate::error::BlockError;
use crate::limits::CHUNK_BYTES;
use crate::types::{Caller, FileChecksum, LocatedBlock};

impl BlockService {
    /// MD5-of-MD5-of-CRC32C of a file. Reads the whole file.
    pub async fn checksum(
        self: &Arc<Self>,
        who: &Caller,
        path: &str,
    ) -> Result<FileChecksum, BlockError> {
        let file = self.open(who, path).await?;
        if file.status.open {
            let text = format!("Fail to get checksum, since file {path} is under construction.");
            return Err(crate::error::FsError::io(text).into());
        }
        let mut sum = Summer::new(file.status.block_size);
        let mut pieces = Box::pin(file.stream(0, file.len()));
        while let Some(piece) = pieces.try_next().await? {
            sum.add(&piece);
        }
        Ok(sum.finish())
    }

    /// All bytes of one small block.
    pub(crate) async fn read_block(
        self: &Arc<Self>,
        block: LocatedBlock,
    ) -> Result<Bytes, BlockError> {
        let status = self.shared.namespace.read().status_of_root();
        let file = super::OpenFile {
            service: self.clone(),
            status: crate::types::FileStatus { len: block.len, ..status },
            blocks: vec![block],
        };
        let pieces: Vec<Bytes> = file.stream(0, block.len).try_collect().await?;
        Ok(pieces.concat().into())
    }
}

struct Summer {
    block_size: u64,
    /// Bytes of the current block that went into `crcs`, and those of the started chunk.
    block_len: u64,
    chunk: Vec<u8>,
    crcs: Md5,
    md5s: Vec<u8>,
    len: u64,
}

impl Summer {
    fn new(block_size: u64) -> Self {
        let block_size = block_size.max(CHUNK_BYTES as u64);
        Self { block_size, block_len: 0, chunk: vec![], crcs: Md5::new(), md5s: vec![], len: 0 }
    }

    fn add(&mut self, mut data: &[u8]) {
        self.len += data.len() as u64;
        while !data.is_empty() {
            let room = (CHUNK_BYTES - self.chunk.len()) as u64;
            let room = room.min(self.block_size - self.block_len);
            let take = usize::try_from(room).unwrap_or(data.len()).min(data.len());
            let (part, rest) = data.split_at(take);
            self.chunk.extend_from_slice(part);
            self.block_len += take as u64;
            data = rest;
            if self.chunk.len() == CHUNK_BYTES || self.block_len == self.block_size {
                self.end_chunk();
            }
            if self.block_len == self.block_size {
                self.end_block();
            }
        }
    }

    fn end_chunk(&mut self) {
        if !self.chunk.is_empty() {
            self.crcs.update(base::crc::crc32c(&self.chunk).to_be_bytes());
            self.chunk.clear();
        }
    }

    fn end_block(&mut self) {
        self.end_chunk();
        if self.block_len > 0 {
            self.md5s.extend_from_slice(&self.crcs.finalize_reset());
            self.block_len = 0;
        }
    }

    fn finish(mut self) -> FileChecksum {
        self.end_block();
        let blocks = self.md5s.len() / 16;
        self.md5s.resize(self.md5s.len().next_power_of_two().max(32), 0);
        FileChecksum {
            crc_per_block: if blocks > 1 { self.block_size / CHUNK_BYTES as u64 } else { 0 },
            // Hadoop reports no CRC size for a file without blocks.
            bytes_per_crc: if blocks == 0 { 0 } else { CHUNK_BYTES as u32 },
            md5: Md5::digest(&self.md5s).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: [u8; 16]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn checksums_are_hadoops() {
        // An empty file has Hadoop's well-known checksum.
        let empty = Summer::new(1 << 27).finish();
        assert_eq!(hex(empty.md5), "70bc8f4b72a86921468bf8e8441dce51");
        // One block of ten bytes: MD5 of the padded MD5 of the CRC 280c069e.
        let mut one = Summer::new(1 << 27);
        one.add(b"01234");
        one.add(b"56789");
        let mut padded = Md5::digest([0x28, 0x0c, 0x06, 0x9e]).to_vec();
        padded.resize(32, 0);
        let expected: [u8; 16] = Md5::digest(&padded).into();
        let sum = one.finish();
        assert_eq!((sum.md5, sum.crc_per_block, sum.bytes_per_crc), (expected, 0, 512));
    }
}
