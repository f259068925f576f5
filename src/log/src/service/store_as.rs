//! `compression.type`: batches are stored as the topic says, whatever the producer sent.

use bytes::Bytes;

use super::LogService;
use super::fetch::blocking;
use crate::batch::{self, BatchHeader, Compression, HEADER_BYTES};
use crate::compression::{Level, compress};
use crate::configs::StoredAs;
use crate::error::LogError;
use crate::records::decompress;
use crate::types::Topic;

impl LogService {
    /// The batch as the topic wants it. Compressing takes one of a few turns on threads that may
    /// block; a batch that is stored as it was sent takes none.
    pub(super) async fn as_stored(&self, topic: &Topic, batch: Bytes) -> Result<Bytes, LogError> {
        let StoredAs::Compressed { compression, level } = topic.settings.stored_as else {
            return Ok(batch);
        };
        let header = BatchHeader::parse(&batch)?;
        if header.compression()? == compression {
            return Ok(batch);
        }
        let turn = self.0.compressions.acquire().await;
        let turn = turn.map_err(|e| LogError::Internal(e.to_string()))?;
        let stored =
            blocking(move || recompress(&header, &batch, compression, Level(level))).await?;
        drop(turn);
        let (bytes, limit) = (stored.len(), topic.settings.max_message_bytes);
        if bytes > limit {
            return Err(LogError::MessageTooLarge { bytes, limit });
        }
        Ok(stored)
    }
}

fn recompress(
    header: &BatchHeader,
    batch: &Bytes,
    compression: Compression,
    level: Level,
) -> Result<Bytes, LogError> {
    let body = decompress(header.compression()?, batch.slice(HEADER_BYTES..header.len))?;
    let packed = compress(compression, level, &body)?;
    Ok(batch::recompressed(batch, compression, &packed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{build, validate, with_producer};
    use crate::records::{RecordRef, records};

    #[test]
    fn records_and_producer_survive_every_change_of_compression() {
        let rows: Vec<_> = (0..50).map(|n| RecordRef::value(b"some value", n)).collect();
        let mut batch = with_producer(&build(&rows), 7, 2, 40);
        let expected = records(&batch).unwrap();
        let all = [Compression::Zstd, Compression::Lz4, Compression::Snappy, Compression::Gzip];
        for compression in all.into_iter().chain([Compression::None]) {
            let header = BatchHeader::parse(&batch).unwrap();
            batch = recompress(&header, &batch, compression, Level::DEFAULT).unwrap();
            let header = validate(&batch).unwrap();
            assert_eq!(header.compression(), Ok(compression));
            assert_eq!((header.producer_id, header.base_sequence), (7, 40));
            assert_eq!(records(&batch).unwrap(), expected);
        }
        assert_eq!(batch, with_producer(&build(&rows), 7, 2, 40));
    }
}
