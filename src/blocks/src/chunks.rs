//! Checksums of block bytes: one CRC32C per 512-byte chunk, and a digest over those.

use base::crc::{crc32c, crc32c_append};

use crate::limits::CHUNK_BYTES;

/// CRC32C of every chunk; the last chunk may be short.
pub(crate) fn crcs(data: &[u8]) -> Vec<u32> {
    data.chunks(CHUNK_BYTES).map(crc32c).collect()
}

/// One number for a whole block: CRC32C over its chunk CRCs, little endian.
pub(crate) fn digest(crcs: &[u32]) -> u32 {
    crcs.iter().fold(0, |sum, crc| crc32c_append(sum, &crc.to_le_bytes()))
}

/// Whether `data`, which begins at a chunk, has the CRCs `crcs`.
pub(crate) fn matches(data: &[u8], crcs: &[u32]) -> bool {
    data.len().div_ceil(CHUNK_BYTES) == crcs.len()
        && data.chunks(CHUNK_BYTES).zip(crcs).all(|(chunk, crc)| crc32c(chunk) == *crc)
}

/// Number of chunks of a block of `len` bytes.
pub(crate) fn count(len: u64) -> u64 {
    len.div_ceil(CHUNK_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut data = vec![7u8; 1300];
        let sums = crcs(&data);
        assert_eq!(sums.len(), 3);
        assert!(matches(&data, &sums));
        data[1299] ^= 1;
        assert!(!matches(&data, &sums));
        assert_ne!(digest(&crcs(&data)), digest(&sums));
    }
}
