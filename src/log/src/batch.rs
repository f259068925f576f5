//! The v2 record batch, Kafka's unit of storage and transfer: header, checks, and a builder.
//!
//! ```text
//! 0  base offset i64        21 attributes i16          51 producer epoch i16
//! 8  length i32 (after it)  23 last offset delta i32   53 base sequence i32
//! 12 leader epoch i32       27 base timestamp i64      57 record count i32
//! 16 magic i8 = 2           35 max timestamp i64       61 records
//! 17 crc32c of 21.. u32     43 producer id i64
//! ```
//! Big-endian. Base offset and leader epoch lie outside the checksum, so that the broker can set
//! them. Pure functions over bytes; nothing here allocates by what a batch says about itself.

use bytes::{BufMut, Bytes, BytesMut};
use segment::FrameInfo;

use crate::records::{RecordRef, put_record};

/// Length of a batch's header in bytes.
pub const HEADER_BYTES: usize = 61;

const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
/// KIP-534: the base timestamp is the delete horizon.
const DELETE_HORIZON: i16 = 1 << 6;

/// Why bytes are not an acceptable batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Too short, or not what the format says.
    #[error("{0}")]
    Damaged(&'static str),
    /// The length field is not the length.
    #[error("batch says it has {stated} bytes, there are {found}")]
    Length {
        /// What the header says.
        stated: i64,
        /// Bytes found.
        found: usize,
    },
    /// A message set of format v0 or v1.
    #[error("message formats v0 and v1 are not supported")]
    OldFormat,
    /// The checksum does not match.
    #[error("checksum does not match")]
    Checksum,
    /// A compression type that does not exist.
    #[error("unknown compression type {0}")]
    UnknownCompression(i16),
    /// Well-formed and still refused.
    #[error("{0}")]
    Refused(&'static str),
}

/// Compression of a batch's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// None.
    None,
    /// gzip.
    Gzip,
    /// Snappy, framed as Java's xerial library does or raw.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Its number in a batch's attributes.
    fn number(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
}

/// The header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Whole length of the batch in bytes, this header included.
    pub len: usize,
    /// Term in which it was appended.
    pub leader_epoch: i32,
    /// Checksum of everything from the attributes on.
    pub crc: u32,
    /// Compression, timestamp type, transactional and control bits.
    pub attributes: i16,
    /// Offset of the last record, less the base offset.
    pub last_offset_delta: i32,
    /// Timestamp of the first record.
    pub base_timestamp_ms: i64,
    /// Newest timestamp.
    pub max_timestamp_ms: i64,
    /// Producer, or −1.
    pub producer_id: i64,
    /// Producer epoch, or −1.
    pub producer_epoch: i16,
    /// Sequence number of the first record, or −1.
    pub base_sequence: i32,
    /// Records.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the beginning of `bytes`, which need not hold the whole batch.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.get(16).is_some_and(|magic| *magic < 2) {
            return Err(BatchError::OldFormat);
        }
        let short = BatchError::Damaged("shorter than a batch header");
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(short) };
        if header[16] != 2 {
            return Err(BatchError::Damaged("unknown magic"));
        }
        let stated = i64::from(i32::from_be_bytes(at(header, 8))) + 12;
        let len = usize::try_from(stated).ok().filter(|len| *len >= HEADER_BYTES);
        let Some(len) = len else {
            return Err(BatchError::Length { stated, found: bytes.len() });
        };
        Ok(Self {
            base_offset: i64::from_be_bytes(at(header, 0)),
            len,
            leader_epoch: i32::from_be_bytes(at(header, 12)),
            crc: u32::from_be_bytes(at(header, 17)),
            attributes: i16::from_be_bytes(at(header, 21)),
            last_offset_delta: i32::from_be_bytes(at(header, 23)),
            base_timestamp_ms: i64::from_be_bytes(at(header, 27)),
            max_timestamp_ms: i64::from_be_bytes(at(header, 35)),
            producer_id: i64::from_be_bytes(at(header, 43)),
            producer_epoch: i16::from_be_bytes(at(header, 51)),
            base_sequence: i32::from_be_bytes(at(header, 53)),
            record_count: i32::from_be_bytes(at(header, 57)),
        })
    }

    /// How the records are compressed.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        match self.attributes & 7 {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            other => Err(BatchError::UnknownCompression(other)),
        }
    }

    /// Whether the broker stamped the time, so that all records have the newest timestamp.
    pub fn has_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Time of a record whose timestamp delta is `delta`, in milliseconds.
    pub(crate) fn time_of(&self, delta: i64) -> i64 {
        match self.has_append_time() {
            true => self.max_timestamp_ms,
            false => self.base_timestamp_ms.wrapping_add(delta),
        }
    }

    /// Whether it is a transaction marker.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether its records belong to a transaction, or it is a marker of one.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// From when on compaction may drop the batch's tombstones, or the marker that it is.
    pub(crate) fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp_ms)
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta)).saturating_add(1)
    }

    /// Sequence number of the last record; they wrap after 2³¹−1 to 0.
    pub fn last_sequence(&self) -> i32 {
        add_sequence(self.base_sequence, self.last_offset_delta)
    }
}

/// Adds to a sequence number as producers do.
pub fn add_sequence(sequence: i32, n: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(n);
    i32::try_from(sum % (i64::from(i32::MAX) + 1)).unwrap_or(0)
}

/// Fixed bytes at a constant place of the header.
fn at<const N: usize>(header: &[u8; HEADER_BYTES], offset: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&header[offset..offset + N]);
    out
}

/// Checks a batch that a client sent: exactly one, whole, intact, and something that a producer
/// may send. The records inside are not looked at.
pub fn validate(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    if header.len > bytes.len() {
        return Err(BatchError::Length { stated: header.len as i64, found: bytes.len() });
    }
    if header.len < bytes.len() {
        // KIP-98: since v2 a produce request holds one batch for each partition.
        return Err(BatchError::Refused("more than one batch for a partition"));
    }
    if base::crc::crc32c(bytes.get(21..).unwrap_or_default()) != header.crc {
        return Err(BatchError::Checksum);
    }
    header.compression()?;
    let count = header.last_offset_delta.checked_add(1);
    if header.record_count <= 0 || count != Some(header.record_count) {
        return Err(BatchError::Refused("record count and last offset delta disagree"));
    }
    if header.attributes & !0x7 & !LOG_APPEND_TIME & !TRANSACTIONAL & !CONTROL != 0 {
        return Err(BatchError::Refused("unknown attributes"));
    }
    if header.is_control() {
        return Err(BatchError::Refused("producers may not write control batches"));
    }
    if header.is_transactional() && header.producer_id < 0 {
        return Err(BatchError::Refused("transactional records without a producer id"));
    }
    if header.has_append_time() {
        return Err(BatchError::Refused("producers may not set the append time"));
    }
    let idempotent = header.producer_id >= 0;
    if idempotent && (header.producer_epoch < 0 || header.base_sequence < 0) {
        return Err(BatchError::Refused("producer id without epoch or sequence"));
    }
    let room = bytes.len() - HEADER_BYTES;
    // A record takes seven bytes at least, before compression.
    if header.compression() == Ok(Compression::None)
        && usize::try_from(header.record_count).is_ok_and(|n| n > room / 7)
    {
        return Err(BatchError::Refused("more records than bytes"));
    }
    Ok(header)
}

/// Sets the fields that the broker assigns and that the checksum leaves out.
pub(crate) fn assign(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    if let Some(field) = batch.get_mut(..8) {
        field.copy_from_slice(&base_offset.to_be_bytes());
    }
    if let Some(field) = batch.get_mut(12..16) {
        field.copy_from_slice(&leader_epoch.to_be_bytes());
    }
}

/// Stamps the broker's time on a whole batch and renews its checksum.
pub(crate) fn stamp(batch: &mut [u8], now_ms: i64) {
    let Some(header) = batch.first_chunk_mut::<HEADER_BYTES>() else { return };
    let attributes = i16::from_be_bytes([header[21], header[22]]) | LOG_APPEND_TIME;
    header[21..23].copy_from_slice(&attributes.to_be_bytes());
    header[35..43].copy_from_slice(&now_ms.to_be_bytes());
    let crc = base::crc::crc32c(batch.get(21..).unwrap_or_default());
    if let Some(field) = batch.get_mut(17..21) {
        field.copy_from_slice(&crc.to_be_bytes());
    }
}

/// Puts the newest timestamp into a batch's header and renews its checksum.
pub(crate) fn set_max_timestamp(batch: &mut [u8], max_ms: i64) {
    if let Some(field) = batch.get_mut(35..43) {
        field.copy_from_slice(&max_ms.to_be_bytes());
    }
    seal(batch);
}

/// What compaction leaves of a batch whose records all went: the header, with offsets, producer,
/// sequence and newest timestamp as they were.
pub(crate) fn emptied(batch: &[u8]) -> Bytes {
    let mut out = BytesMut::from(batch.get(..HEADER_BYTES).unwrap_or_default());
    if let Some(header) = out.first_chunk_mut::<HEADER_BYTES>() {
        let attributes = i16::from_be_bytes([header[21], header[22]]);
        let kept = attributes & (LOG_APPEND_TIME | TRANSACTIONAL | CONTROL);
        header[8..12].copy_from_slice(&(HEADER_BYTES as i32 - 12).to_be_bytes());
        header[21..23].copy_from_slice(&kept.to_be_bytes());
        header[27..35].copy_from_slice(&(-1i64).to_be_bytes());
        header[57..61].copy_from_slice(&0i32.to_be_bytes());
    }
    seal(&mut out);
    out.freeze()
}

/// Makes the header of a batch that got other records fit them. A delete horizon takes the place
/// of the base timestamp.
pub(crate) fn renew(
    batch: &mut [u8],
    records: usize,
    max_timestamp_ms: i64,
    delete_horizon_ms: Option<i64>,
) {
    let length = i32::try_from(batch.len().saturating_sub(12)).unwrap_or(i32::MAX);
    let Some(header) = batch.first_chunk_mut::<HEADER_BYTES>() else { return };
    header[8..12].copy_from_slice(&length.to_be_bytes());
    if let Some(horizon) = delete_horizon_ms {
        let attributes = i16::from_be_bytes([header[21], header[22]]) | DELETE_HORIZON;
        header[21..23].copy_from_slice(&attributes.to_be_bytes());
        header[27..35].copy_from_slice(&horizon.to_be_bytes());
    }
    header[35..43].copy_from_slice(&max_timestamp_ms.to_be_bytes());
    let count = i32::try_from(records).unwrap_or(i32::MAX);
    header[57..61].copy_from_slice(&count.to_be_bytes());
    seal(batch);
}

/// Sets how the records of a batch are compressed, and makes its header fit them.
pub(crate) fn recompressed(batch: &[u8], compression: Compression, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + body.len());
    out.put_slice(batch.get(..HEADER_BYTES).unwrap_or_default());
    out.put_slice(body);
    let length = i32::try_from(out.len().saturating_sub(12)).unwrap_or(i32::MAX);
    if let Some(header) = out.first_chunk_mut::<HEADER_BYTES>() {
        let attributes = i16::from_be_bytes([header[21], header[22]]) & !0x7;
        let attributes = attributes | compression.number();
        header[8..12].copy_from_slice(&length.to_be_bytes());
        header[21..23].copy_from_slice(&attributes.to_be_bytes());
    }
    seal(&mut out);
    out.freeze()
}

/// How segments find batches.
pub fn frame_info(bytes: &[u8]) -> Option<FrameInfo> {
    let header = BatchHeader::parse(bytes).ok()?;
    Some(FrameInfo {
        len: header.len as u64,
        base_offset: u64::try_from(header.base_offset).ok()?,
        next_offset: u64::try_from(header.next_offset()).ok()?,
        max_timestamp_ms: header.max_timestamp_ms,
    })
}

/// Splits concatenated batches, as read from the wire or a file; stops with an error at the
/// first that is not whole.
pub fn split(mut bytes: Bytes) -> Result<Vec<Bytes>, BatchError> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let header = BatchHeader::parse(&bytes)?;
        if header.len > bytes.len() {
            return Err(BatchError::Length { stated: header.len as i64, found: bytes.len() });
        }
        batches.push(bytes.split_to(header.len));
    }
    Ok(batches)
}

/// Builds one uncompressed batch without producer id. `records` must not be empty; their
/// offsets are taken from their order.
pub fn build(records: &[RecordRef<'_>]) -> Bytes {
    let base_ms = records.first().map_or(0, |r| r.timestamp_ms);
    let max_ms = records.iter().map(|r| r.timestamp_ms).max().unwrap_or(0);
    let payload: usize = records.iter().map(RecordRef::size_hint).sum();
    let mut out = BytesMut::with_capacity(HEADER_BYTES + payload);
    out.put_bytes(0, HEADER_BYTES);
    for (delta, record) in (0i64..).zip(records) {
        put_record(&mut out, record, delta, record.timestamp_ms.wrapping_sub(base_ms));
    }
    let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
    let length = i32::try_from(out.len() - 12).unwrap_or(i32::MAX);
    let mut header: &mut [u8] = &mut out[..HEADER_BYTES];
    header.put_i64(0);
    header.put_i32(length);
    header.put_i32(-1);
    header.put_i8(2);
    header.put_u32(0);
    header.put_i16(0);
    header.put_i32(count - 1);
    header.put_i64(base_ms);
    header.put_i64(max_ms);
    header.put_i64(-1);
    header.put_i16(-1);
    header.put_i32(-1);
    header.put_i32(count);
    seal(&mut out);
    out.freeze()
}

/// Renews the checksum of a whole batch.
fn seal(batch: &mut [u8]) {
    let crc = base::crc::crc32c(batch.get(21..).unwrap_or_default());
    if let Some(field) = batch.get_mut(17..21) {
        field.copy_from_slice(&crc.to_be_bytes());
    }
}

/// A copy of a batch with producer fields set, for tests and internal producers.
pub fn with_producer(batch: &[u8], producer_id: i64, epoch: i16, sequence: i32) -> Bytes {
    let mut out = BytesMut::from(batch);
    if let Some(mut fields) = out.get_mut(43..57) {
        fields.put_i64(producer_id);
        fields.put_i16(epoch);
        fields.put_i32(sequence);
    }
    seal(&mut out);
    out.freeze()
}

/// A copy of a batch as part of a transaction, for tests and internal producers.
pub fn with_transaction(batch: &[u8], producer_id: i64, epoch: i16, sequence: i32) -> Bytes {
    let mut out = BytesMut::from(batch);
    add_attributes(&mut out, TRANSACTIONAL);
    with_producer(&out, producer_id, epoch, sequence)
}

/// A copy of a batch of control records as a marker of a producer's transaction.
pub(crate) fn with_control(batch: &[u8], producer_id: i64, epoch: i16) -> Bytes {
    let mut out = BytesMut::from(batch);
    add_attributes(&mut out, TRANSACTIONAL | CONTROL);
    with_producer(&out, producer_id, epoch, -1)
}

fn add_attributes(batch: &mut [u8], more: i16) {
    if let Some(field) = batch.get_mut(21..23) {
        let attributes = i16::from_be_bytes([field[0], field[1]]) | more;
        field.copy_from_slice(&attributes.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn batch(values: &[&str]) -> Bytes {
        let records: Vec<_> = values.iter().map(|v| RecordRef::value(v.as_bytes(), 1000)).collect();
        build(&records)
    }

    #[test]
    fn a_built_batch_is_valid() {
        let bytes = batch(&["a", "b", "c"]);
        let header = validate(&bytes).unwrap();
        assert_eq!((header.record_count, header.next_offset(), header.len), (3, 3, bytes.len()));
        assert_eq!(split([bytes.clone(), bytes].concat().into()).unwrap().len(), 2);
    }

    #[test]
    fn offset_and_epoch_are_set_without_touching_the_checksum() {
        let mut bytes = BytesMut::from(&batch(&["a"])[..]);
        assign(&mut bytes, 77, 5);
        let header = validate(&bytes).unwrap();
        assert_eq!((header.base_offset, header.leader_epoch), (77, 5));
        stamp(&mut bytes, 4242);
        let header = BatchHeader::parse(&bytes).unwrap();
        assert!(header.has_append_time());
        assert_eq!(base::crc::crc32c(&bytes[21..]), header.crc);
    }

    fn check_refused(change: impl Fn(&mut BytesMut), error: BatchError) {
        let mut bytes = BytesMut::from(&batch(&["a", "b"])[..]);
        change(&mut bytes);
        assert_eq!(validate(&bytes), Err(error));
    }

    #[test]
    fn bad_batches_are_refused_with_their_reason() {
        check_refused(|b| b[70] ^= 1, BatchError::Checksum);
        check_refused(|b| b[16] = 1, BatchError::OldFormat);
        check_refused(|b| b[16] = 9, BatchError::Damaged("unknown magic"));
        check_refused(|b| b.truncate(40), BatchError::Damaged("shorter than a batch header"));
        check_refused(|b| b[8..12].fill(0xff), BatchError::Length { stated: 11, found: 77 });
        check_refused(|b| b.put_u8(0), BatchError::Refused("more than one batch for a partition"));
        check_refused(
            |b| {
                b[22] = 7;
                seal(b);
            },
            BatchError::UnknownCompression(7),
        );
        check_refused(
            |b| {
                b[60] = 9;
                seal(b);
            },
            BatchError::Refused("record count and last offset delta disagree"),
        );
        check_refused(
            |b| {
                b[22] = 0x20;
                seal(b);
            },
            BatchError::Refused("producers may not write control batches"),
        );
    }

    #[test]
    fn every_truncation_is_an_error_and_never_a_panic() {
        let bytes = batch(&["a", "b"]);
        for len in 0..bytes.len() {
            assert!(validate(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(add_sequence(i32::MAX, 1), 0);
        assert_eq!(add_sequence(i32::MAX - 1, 3), 1);
    }
}
