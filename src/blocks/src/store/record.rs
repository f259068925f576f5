//! The header that stands before every pack record and in every sidecar file.
//!
//! 40 bytes, little-endian: `magic u32 | crc32c of what follows u32 | block id u64 |
//! generation stamp u64 | length u64 | digest u32 | reserved u32`. In a pack the chunk CRCs
//! (u32 each), the data and zeros up to a multiple of 8 follow; in a sidecar the chunk CRCs.

use base::crc::crc32c;

use crate::chunks;
use crate::limits::{CHUNK_BYTES, MAX_BLOCK_BYTES, RECORD_ALIGN};

pub(crate) const MAGIC: u32 = 0x314b_4254; // "TBK1"
pub(crate) const HEADER: usize = 40;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct BlockMeta {
    pub id: u64,
    pub gs: u64,
    pub len: u64,
    /// CRC32C over the chunk CRCs.
    pub digest: u32,
}

impl BlockMeta {
    /// Bytes of the chunk CRCs.
    pub(crate) fn crc_bytes(&self) -> u64 {
        chunks::count(self.len) * 4
    }

    /// Bytes of the whole pack record.
    pub(crate) fn record_bytes(&self) -> u64 {
        (HEADER as u64 + self.crc_bytes() + self.len).next_multiple_of(RECORD_ALIGN as u64)
    }

    pub(crate) fn header(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.gs.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.len.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.digest.to_le_bytes());
        let sum = crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if there is a sound one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let u32_at = |at: usize| header.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let u64_at = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        if u32_at(0)? != MAGIC || u32_at(4)? != crc32c(&header[8..]) {
            return None;
        }
        let (id, gs, len, digest) = (u64_at(8)?, u64_at(16)?, u64_at(24)?, u32_at(32)?);
        (len <= MAX_BLOCK_BYTES).then_some(Self { id, gs, len, digest })
    }

    /// Appends the whole pack record.
    pub(crate) fn append_record(&self, data: &[u8], crcs: &[u32], out: &mut Vec<u8>) {
        assert_eq!(data.len() as u64, self.len);
        assert_eq!(crcs.len(), data.len().div_ceil(CHUNK_BYTES));
        out.extend_from_slice(&self.header());
        crcs.iter().for_each(|crc| out.extend_from_slice(&crc.to_le_bytes()));
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(RECORD_ALIGN), 0);
    }
}

/// Chunk CRCs from their bytes.
pub(crate) fn decode_crcs(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|crc| u32::from_le_bytes(*crc)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_and_damage_shows() {
        let meta = BlockMeta { id: 7, gs: 8, len: 9, digest: 10 };
        let mut bytes = meta.header();
        assert_eq!(BlockMeta::parse(&bytes), Some(meta));
        bytes[24] ^= 1;
        assert_eq!(BlockMeta::parse(&bytes), None);
        assert_eq!(BlockMeta::parse(&bytes[..39]), None);
    }
}
