//! Compressing the records of a batch, as a producer does.
//!
//! The result follows from the input and the versions of the libraries, which the lock file
//! pins: compaction needs equal bytes on all nodes.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use crate::batch::{BatchError, Compression};

/// Block of Java's snappy stream, in bytes.
const SNAPPY_BLOCK: usize = 32 * 1024;

/// How hard to try; `None` is the default of the compression. LZ4 and snappy have one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(pub(crate) Option<i32>);

impl Level {
    pub(crate) const DEFAULT: Self = Self(None);
}

/// Compresses records.
pub(crate) fn compress(
    compression: Compression,
    level: Level,
    records: &[u8],
) -> Result<Bytes, BatchError> {
    const FAILED: BatchError = BatchError::Damaged("records do not compress");
    match compression {
        Compression::None => Ok(Bytes::copy_from_slice(records)),
        Compression::Gzip => {
            let level = level.0.and_then(|level| u32::try_from(level).ok());
            let level = level.map_or(flate2::Compression::default(), flate2::Compression::new);
            let mut out = flate2::write::GzEncoder::new(Vec::new(), level);
            out.write_all(records).map_err(|_| FAILED)?;
            Ok(out.finish().map_err(|_| FAILED)?.into())
        }
        Compression::Lz4 => {
            // Java's reader takes independent blocks only.
            let info =
                FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
            let mut out = FrameEncoder::with_frame_info(info, Vec::new());
            out.write_all(records).map_err(|_| FAILED)?;
            Ok(out.finish().map_err(|_| FAILED)?.into())
        }
        Compression::Zstd => {
            let level = level.0.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            Ok(zstd::bulk::compress(records, level).map_err(|_| FAILED)?.into())
        }
        Compression::Snappy => snappy(records),
    }
}

/// Java's snappy stream: magic, version 1, compatible with 1, blocks with their length.
fn snappy(records: &[u8]) -> Result<Bytes, BatchError> {
    let mut out = BytesMut::from(&b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"[..]);
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(SNAPPY_BLOCK) {
        let packed = encoder.compress_vec(block);
        let packed = packed.map_err(|_| BatchError::Damaged("records do not compress"))?;
        out.put_u32(u32::try_from(packed.len()).unwrap_or(u32::MAX));
        out.put_slice(&packed);
    }
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::decompress;

    #[test]
    fn what_is_compressed_can_be_read() {
        let records: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_be_bytes()).collect();
        for compression in [
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ] {
            for level in [Level::DEFAULT, Level(Some(1)), Level(Some(9))] {
                let packed = compress(compression, level, &records).unwrap();
                assert!(compression == Compression::None || packed.len() < records.len() / 2);
                assert_eq!(decompress(compression, packed).unwrap(), records);
            }
        }
    }
}
