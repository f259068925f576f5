//! Looks through the records of a batch that a client sent, and keeps none of them.
//!
//! A consumer believes a batch: a count that is not the number of records, an offset that does
//! not follow or a length that leads elsewhere breaks every one of them, so Kafka's broker checks
//! all of it before it appends (`LogValidator`), and so does this. Compressed records are unpacked
//! in a stream, through a small buffer; how much they may unfold to is the caller's to say.

use std::io::{BufRead, BufReader};

use crate::batch::{BatchError, BatchHeader, Compression, HEADER_BYTES};
use crate::limits::ZSTD_WINDOW_LOG;
use crate::records::snappy_bounded;

/// Bytes unpacked at a time.
const BUFFER_BYTES: usize = 16 * 1024;

/// What a look through a batch found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// The newest timestamp of a record.
    pub max_timestamp_ms: i64,
    /// The oldest; −1 when none has one.
    pub min_timestamp_ms: i64,
    /// Whether a record has no key.
    pub has_null_key: bool,
}

/// Why a batch was not accepted, or not looked through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// Its records unfold to more bytes than allowed.
    TooLarge,
    /// It is not acceptable.
    Batch(BatchError),
}

const SHORT: WalkError = refused("a record reaches beyond its batch");
const UNPACK: WalkError = refused("records do not decompress");

const fn refused(text: &'static str) -> WalkError {
    WalkError::Batch(BatchError::Refused(text))
}

/// Checks the records of a whole batch of which `header` was read and is sound. They may unfold to
/// `most` bytes.
pub fn walk(batch: &[u8], header: &BatchHeader, most: usize) -> Result<Walked, WalkError> {
    let body = batch.get(HEADER_BYTES..header.len).ok_or(SHORT)?;
    match header.compression().map_err(WalkError::Batch)? {
        Compression::None => Walker::new(body, most.max(body.len())).run(header),
        Compression::Gzip => streamed(flate2::bufread::MultiGzDecoder::new(body), header, most),
        Compression::Lz4 => streamed(lz4_flex::frame::FrameDecoder::new(body), header, most),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(|_| UNPACK)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|_| UNPACK)?;
            streamed(decoder, header, most)
        }
        Compression::Snappy => match snappy_bounded(body, most) {
            Ok(Some(records)) => Walker::new(&records[..], most).run(header),
            Ok(None) => Err(WalkError::TooLarge),
            Err(_) => Err(UNPACK),
        },
    }
}

fn streamed(
    records: impl std::io::Read,
    header: &BatchHeader,
    most: usize,
) -> Result<Walked, WalkError> {
    Walker::new(BufReader::with_capacity(BUFFER_BYTES, records), most).run(header)
}

struct Walker<R> {
    records: R,
    /// Bytes read so far.
    at: usize,
    most: usize,
}

impl<R: BufRead> Walker<R> {
    fn new(records: R, most: usize) -> Self {
        Self { records, at: 0, most }
    }

    fn run(mut self, header: &BatchHeader) -> Result<Walked, WalkError> {
        let mut walked = Walked { max_timestamp_ms: -1, min_timestamp_ms: -1, has_null_key: false };
        for index in 0..header.record_count {
            let (time_delta, null_key) = self.record(index)?;
            let time = header.base_timestamp_ms.wrapping_add(time_delta);
            walked.max_timestamp_ms = walked.max_timestamp_ms.max(time);
            if time >= 0 && (time < walked.min_timestamp_ms || walked.min_timestamp_ms < 0) {
                walked.min_timestamp_ms = time;
            }
            walked.has_null_key |= null_key;
        }
        if self.buffer()?.is_empty() {
            return Ok(walked);
        }
        Err(refused("the batch has more records than it says"))
    }

    /// Passes one record; returns its time delta and whether it has no key.
    fn record(&mut self, index: i32) -> Result<(i64, bool), WalkError> {
        let len = self.length()?.ok_or(refused("a record without a length"))?;
        let end = self.at.checked_add(len).ok_or(SHORT)?;
        self.skip(1)?;
        let time_delta = self.varint()?;
        if self.varint()? != i64::from(index) {
            return Err(refused(
                "an inner record inside the batch does not have incremental offsets",
            ));
        }
        let key = self.length()?;
        self.skip(key.unwrap_or(0))?;
        let value = self.length()?;
        self.skip(value.unwrap_or(0))?;
        let headers = self.length()?.ok_or(refused("a negative number of headers"))?;
        for _ in 0..headers {
            // A header takes two bytes at least, which ends the loop of a number that lies.
            let name = self.length()?.ok_or(refused("a header without a name"))?;
            self.skip(name)?;
            let value = self.length()?;
            self.skip(value.unwrap_or(0))?;
            if self.at > end {
                break;
            }
        }
        if self.at != end {
            return Err(refused("a record is not as long as it says"));
        }
        Ok((time_delta, key.is_none()))
    }

    fn buffer(&mut self) -> Result<&[u8], WalkError> {
        self.records.fill_buf().map_err(|_| UNPACK)
    }

    fn consume(&mut self, bytes: usize) -> Result<(), WalkError> {
        self.records.consume(bytes);
        self.at += bytes;
        if self.at > self.most { Err(WalkError::TooLarge) } else { Ok(()) }
    }

    fn skip(&mut self, mut bytes: usize) -> Result<(), WalkError> {
        while bytes > 0 {
            let there = self.buffer()?.len();
            if there == 0 {
                return Err(SHORT);
            }
            let step = there.min(bytes);
            self.consume(step)?;
            bytes -= step;
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<i64, WalkError> {
        let mut value = 0u64;
        let mut shift = 0u32;
        loop {
            let buffer = self.buffer()?;
            if buffer.is_empty() {
                return Err(SHORT);
            }
            let mut used = 0;
            let mut ended = false;
            for byte in buffer.iter().take(10) {
                if shift > 63 {
                    return Err(refused("a number that does not end"));
                }
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                used += 1;
                if byte & 0x80 == 0 {
                    ended = true;
                    break;
                }
            }
            self.consume(used)?;
            if ended {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
    }

    /// A length, `None` for −1 and everything else below 0.
    fn length(&mut self) -> Result<Option<usize>, WalkError> {
        Ok(usize::try_from(self.varint()?).ok())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use bytes::{BufMut, Bytes, BytesMut};

    use super::*;
    use crate::batch::{build, with_producer};
    use crate::records::RecordRef;

    const MOST: usize = 1 << 20;

    fn sample(n: usize) -> Vec<RecordRef<'static>> {
        let one = |i: usize| RecordRef {
            key: (i != 1).then(|| b"key"[..].into()),
            value: (i != 2).then(|| vec![7; i * 10].into()),
            headers: vec![("h".into(), b"v"[..].into()); i % 3],
            timestamp_ms: 1000 + (i as i64 * 7) % 50,
        };
        (0..n).map(one).collect()
    }

    type Pack = fn(&[u8]) -> Vec<u8>;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn lz4(bytes: &[u8]) -> Vec<u8> {
        let mut out = lz4_flex::frame::FrameEncoder::new(vec![]);
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    const PACKS: [(u8, Pack); 5] = [
        (0, |b| b.to_vec()),
        (1, gzip),
        (2, |b| snap::raw::Encoder::new().compress_vec(b).unwrap()),
        (3, lz4),
        (4, |b| zstd::encode_all(b, 1).unwrap()),
    ];

    /// A batch with these records packed, after `change` had its way with header and records.
    fn packed(kind: u8, pack: Pack, change: impl Fn(&mut [u8], &mut Vec<u8>)) -> Bytes {
        let plain = build(&sample(100));
        let mut head = plain[..HEADER_BYTES].to_vec();
        let mut records = plain[HEADER_BYTES..].to_vec();
        change(&mut head, &mut records);
        let mut out = BytesMut::from(&head[..]);
        out.put_slice(&pack(&records));
        let len = i32::try_from(out.len() - 12).unwrap();
        out[8..12].copy_from_slice(&len.to_be_bytes());
        out[22] = kind;
        with_producer(&out, -1, -1, -1)
    }

    fn walk_of(batch: &[u8], most: usize) -> Result<Walked, WalkError> {
        walk(batch, &BatchHeader::parse(batch).unwrap(), most)
    }

    #[test]
    fn sound_batches_pass_in_every_compression() {
        for (kind, pack) in PACKS {
            let batch = packed(kind, pack, |_, _| {});
            let walked = walk_of(&batch, MOST).unwrap();
            let expected =
                Walked { max_timestamp_ms: 1049, min_timestamp_ms: 1000, has_null_key: true };
            assert_eq!(walked, expected, "compression {kind}");
            assert_eq!(crate::records::records(&batch).unwrap().len(), 100);
        }
    }

    fn check_refused(text: &'static str, change: impl Fn(&mut [u8], &mut Vec<u8>)) {
        for (kind, pack) in PACKS {
            let batch = packed(kind, pack, &change);
            assert_eq!(walk_of(&batch, MOST), Err(refused(text)), "compression {kind}");
        }
    }

    #[test]
    fn counts_and_lengths_that_lie_are_refused() {
        let count = |n: i32| {
            move |head: &mut [u8], _: &mut Vec<u8>| {
                head[23..27].copy_from_slice(&(n - 1).to_be_bytes());
                head[57..61].copy_from_slice(&n.to_be_bytes());
            }
        };
        check_refused("the batch has more records than it says", count(99));
        check_refused("a record reaches beyond its batch", count(101));
        check_refused("a record reaches beyond its batch", |_, records| {
            records.truncate(records.len() - 1);
        });
        check_refused("the batch has more records than it says", |_, records| records.push(2));
        check_refused("a record is not as long as it says", |_, records| records[0] += 2);
        check_refused(
            "an inner record inside the batch does not have incremental offsets",
            |_, records| records[3] = 2,
        );
        check_refused("a record without a length", |_, records| records[0] = 1);
    }

    #[test]
    fn what_does_not_decompress_is_refused() {
        for (kind, _) in &PACKS[1..] {
            let batch = packed(*kind, |b| b.to_vec(), |_, _| {});
            assert_eq!(walk_of(&batch, MOST), Err(UNPACK), "compression {kind}");
        }
    }

    #[test]
    fn a_batch_that_unfolds_to_too_much_is_not_unfolded() {
        for (kind, pack) in &PACKS[1..] {
            let bomb = packed(*kind, *pack, |_, records| {
                *records = vec![0; 3 << 20];
                // One record of 2^21 bytes and more.
                records[..4].copy_from_slice(&[0x80, 0x80, 0x80, 0x02]);
                // Attributes, time, offset, and a key as long.
                records[7..11].copy_from_slice(&[0x80, 0x80, 0x80, 0x02]);
            });
            assert_eq!(walk_of(&bomb, MOST), Err(WalkError::TooLarge), "compression {kind}");
        }
    }

    #[test]
    fn any_change_of_a_byte_is_an_answer() {
        for (kind, pack) in PACKS {
            let batch = packed(kind, pack, |_, _| {});
            for at in HEADER_BYTES..batch.len().min(HEADER_BYTES + 600) {
                for value in [0, 0x7f, 0x80, 0xff] {
                    let mut changed = batch.to_vec();
                    changed[at] = value;
                    let _ = walk_of(&changed, MOST);
                }
            }
        }
    }
}
