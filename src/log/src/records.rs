//! Records inside a batch: reading, with every length bounded, and writing.
//!
//! A record is: length varint, attributes i8, timestamp delta varlong, offset delta varint, key,
//! value (length varint, −1 for null), number of headers varint, headers. Varints are zigzag.

use std::borrow::Cow;
use std::io::Read;
use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::{BatchError, BatchHeader, Compression, HEADER_BYTES};
use crate::compact::survey::Marker;
use crate::limits::{MAX_DECOMPRESSED_BYTES, MAX_RECORD_PARTS, ZSTD_WINDOW_LOG};

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Key.
    pub key: Option<Cow<'a, [u8]>>,
    /// Value.
    pub value: Option<Cow<'a, [u8]>>,
    /// Headers.
    pub headers: Vec<(Cow<'a, str>, Cow<'a, [u8]>)>,
    /// Time in milliseconds.
    pub timestamp_ms: i64,
}

impl<'a> RecordRef<'a> {
    /// A record with only a value.
    pub fn value(value: &'a [u8], timestamp_ms: i64) -> Self {
        Self { value: Some(value.into()), timestamp_ms, ..Self::default() }
    }

    pub(crate) fn size_hint(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |k| k.len());
        let value = self.value.as_ref().map_or(0, |v| v.len());
        let headers: usize = self.headers.iter().map(|(k, v)| k.len() + v.len() + 10).sum();
        key + value + headers + 40
    }
}

/// A record that was read; its bytes are slices of the batch where it is not compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset in the partition.
    pub offset: i64,
    /// Time in milliseconds.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
    /// Headers: name and value.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// What can be looked at of a record without keeping all of its batch's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    /// Offset in the partition.
    pub(crate) offset: i64,
    /// Time in milliseconds.
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Bytes>,
}

/// Looks at the records of one whole batch one after the other, until `look` has found what it
/// looks for. Takes memory for the records as they are unpacked and no more.
pub(crate) fn scan<T>(
    batch: &Bytes,
    mut look: impl FnMut(RecordHead) -> ControlFlow<T>,
) -> Result<Option<T>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let mut body = body_of(&header, batch)?;
    while !body.is_empty() {
        let mut record = next_record(&mut body)?;
        take(&mut record, 1)?;
        let timestamp_ms = header.time_of(take_varint(&mut record)?);
        let offset = header.base_offset.wrapping_add(take_varint(&mut record)?);
        let key = take_sized(&mut record)?;
        if let ControlFlow::Break(found) = look(RecordHead { offset, timestamp_ms, key }) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The records of a batch, unpacked.
fn body_of(header: &BatchHeader, batch: &Bytes) -> Result<Bytes, BatchError> {
    if header.len > batch.len() {
        return Err(BatchError::Length { stated: header.len as i64, found: batch.len() });
    }
    decompress(header.compression()?, batch.slice(HEADER_BYTES..header.len))
}

fn next_record(body: &mut Bytes) -> Result<Bytes, BatchError> {
    let len = take_len(body)?.ok_or(BatchError::Damaged("record without length"))?;
    take(body, len)
}

/// How many records a batch has: no more than are read at once.
fn count_of(header: &BatchHeader) -> Result<usize, BatchError> {
    let count = usize::try_from(header.record_count).unwrap_or(0);
    if count > MAX_RECORD_PARTS {
        return Err(TOO_MANY);
    }
    Ok(count)
}

const TOO_MANY: BatchError = BatchError::Damaged("more records and headers than are read at once");

/// Reads the records of one whole batch, decompressing where needed. Control batches have none.
/// Fails for more than [`MAX_RECORD_PARTS`] records and headers: each takes far more memory than
/// it takes bytes.
pub fn records(batch: &Bytes) -> Result<Vec<Record>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.is_control() {
        return Ok(Vec::new());
    }
    let count = count_of(&header)?;
    let mut body = body_of(&header, batch)?;
    // A record takes seven bytes at least, so the stated count decides nothing beyond that.
    let mut out = Vec::with_capacity(count.min(body.len() / 7));
    let mut parts = count;
    while !body.is_empty() && out.len() <= count {
        let record = read_record(&header, &mut next_record(&mut body)?, parts)?;
        parts += record.headers.len();
        out.push(record);
    }
    if i32::try_from(out.len()) != Ok(header.record_count) {
        return Err(BatchError::Damaged("record count does not match"));
    }
    Ok(out)
}

/// A record as it stands in its batch, for copying it into another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawRecord {
    /// Offset in the partition, less the batch's base offset.
    pub(crate) offset_delta: i64,
    /// Time, less the batch's base timestamp.
    pub(crate) time_delta: i64,
    pub(crate) key: Option<Bytes>,
    /// Whether it has a value; one without is a tombstone.
    pub(crate) has_value: bool,
    attributes: u8,
    /// Key, value and headers, encoded.
    rest: Bytes,
}

impl RawRecord {
    /// Appends the record; its time delta grows by `shift`.
    pub(crate) fn put(&self, out: &mut BytesMut, shift: Option<i64>) {
        let mut head = BytesMut::with_capacity(24);
        head.put_u8(self.attributes);
        put_varint(&mut head, self.time_delta.wrapping_add(shift.unwrap_or(0)));
        put_varint(&mut head, self.offset_delta);
        let len = head.len().saturating_add(self.rest.len());
        put_varint(out, i64::try_from(len).unwrap_or(i64::MAX));
        out.put_slice(&head);
        out.put_slice(&self.rest);
    }
}

/// The records of one whole batch, markers included, decompressed where needed.
pub(crate) fn raw_records(
    header: &BatchHeader,
    batch: &Bytes,
) -> Result<Vec<RawRecord>, BatchError> {
    let count = count_of(header)?;
    let mut body = body_of(header, batch)?;
    let mut out = Vec::with_capacity(count.min(body.len() / 7));
    while !body.is_empty() && out.len() <= count {
        let mut record = next_record(&mut body)?;
        let attributes = take(&mut record, 1)?.first().copied().unwrap_or_default();
        let time_delta = take_varint(&mut record)?;
        let offset_delta = take_varint(&mut record)?;
        if !(0..=i64::from(header.last_offset_delta)).contains(&offset_delta) {
            return Err(BatchError::Damaged("record lies outside its batch"));
        }
        let rest = record.clone();
        let key = take_sized(&mut record)?;
        let has_value = take_sized(&mut record)?.is_some();
        out.push(RawRecord { offset_delta, time_delta, key, has_value, attributes, rest });
    }
    if i32::try_from(out.len()) != Ok(header.record_count) {
        return Err(BatchError::Damaged("record count does not match"));
    }
    Ok(out)
}

/// What a control batch says of its transaction; `None` for an empty one and for others.
pub(crate) fn marker(header: &BatchHeader, batch: &Bytes) -> Option<Marker> {
    let records = raw_records(header, batch).ok()?;
    // Its key: version i16, type i16.
    match records.first()?.key.as_deref()?.get(2..4)? {
        [0, 0] => Some(Marker::Abort),
        [0, 1] => Some(Marker::Commit),
        _ => None,
    }
}

/// Reads a record of a batch that has `parts` records and headers so far.
fn read_record(
    header: &BatchHeader,
    bytes: &mut Bytes,
    parts: usize,
) -> Result<Record, BatchError> {
    take(bytes, 1)?;
    let timestamp_ms = header.time_of(take_varint(bytes)?);
    let offset_delta = take_varint(bytes)?;
    let key = take_sized(bytes)?;
    let value = take_sized(bytes)?;
    let count = take_len(bytes)?.ok_or(BatchError::Damaged("negative header count"))?;
    if count > MAX_RECORD_PARTS.saturating_sub(parts) {
        return Err(TOO_MANY);
    }
    let mut headers = Vec::with_capacity(count.min(bytes.len() / 2));
    for _ in 0..count {
        let name = take_sized(bytes)?.ok_or(BatchError::Damaged("header without name"))?;
        headers.push((name, take_sized(bytes)?));
    }
    let offset = header.base_offset.wrapping_add(offset_delta);
    Ok(Record { offset, timestamp_ms, key, value, headers })
}

fn take(bytes: &mut Bytes, len: usize) -> Result<Bytes, BatchError> {
    if len > bytes.len() {
        return Err(BatchError::Damaged("record reaches beyond its batch"));
    }
    Ok(bytes.split_to(len))
}

fn take_varint(bytes: &mut Bytes) -> Result<i64, BatchError> {
    let mut value: u64 = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i).min(63);
        if byte & 0x80 == 0 {
            let _ = bytes.split_to(i + 1);
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    Err(BatchError::Damaged("varint does not end"))
}

fn take_len(bytes: &mut Bytes) -> Result<Option<usize>, BatchError> {
    Ok(usize::try_from(take_varint(bytes)?).ok())
}

fn take_sized(bytes: &mut Bytes) -> Result<Option<Bytes>, BatchError> {
    match take_len(bytes)? {
        Some(len) => take(bytes, len).map(Some),
        None => Ok(None),
    }
}

/// Decompresses a batch's records; the result is bounded, whatever the input says.
pub fn decompress(compression: Compression, body: Bytes) -> Result<Bytes, BatchError> {
    const BAD: BatchError = BatchError::Damaged("records do not decompress");
    match compression {
        Compression::None => Ok(body),
        Compression::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(&body[..])),
        Compression::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(&body[..])),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(&body[..]).map_err(|_| BAD)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|_| BAD)?;
            read_bounded(decoder)
        }
        Compression::Snappy => {
            let too_much = BatchError::Damaged("records decompress to too much");
            snappy_bounded(&body, MAX_DECOMPRESSED_BYTES)?.ok_or(too_much)
        }
    }
}

fn read_bounded(reader: impl Read) -> Result<Bytes, BatchError> {
    let mut out = Vec::new();
    let read = reader.take(MAX_DECOMPRESSED_BYTES as u64 + 1).read_to_end(&mut out);
    if read.is_err() {
        return Err(BatchError::Damaged("records do not decompress"));
    }
    if out.len() > MAX_DECOMPRESSED_BYTES {
        return Err(BatchError::Damaged("records decompress to too much"));
    }
    Ok(out.into())
}

/// Java's snappy stream: a magic, two versions, then blocks with a big-endian length each. Other
/// clients send one raw block. `None` when it is more than `most` bytes.
pub(crate) fn snappy_bounded(body: &[u8], most: usize) -> Result<Option<Bytes>, BatchError> {
    const MAGIC: &[u8] = b"\x82SNAPPY\0";
    let Some(framed) = body.strip_prefix(MAGIC) else {
        let mut out = BytesMut::new();
        let fits = snappy_block(body, &mut out, most)?;
        return Ok(fits.then(|| out.freeze()));
    };
    let mut rest = framed.get(8..).ok_or(BatchError::Damaged("short snappy header"))?;
    let mut out = BytesMut::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
        let block = after.get(..len).ok_or(BatchError::Damaged("short snappy block"))?;
        if !snappy_block(block, &mut out, most)? {
            return Ok(None);
        }
        rest = after.get(len..).unwrap_or_default();
    }
    Ok(Some(out.freeze()))
}

/// Unpacks one block behind `out`; false when that would be more than `most` bytes in all.
fn snappy_block(block: &[u8], out: &mut BytesMut, most: usize) -> Result<bool, BatchError> {
    const BAD: BatchError = BatchError::Damaged("records do not decompress");
    let len = snap::raw::decompress_len(block).map_err(|_| BAD)?;
    // Snappy copies at most 64 bytes for each three bytes of input.
    if len / 32 > block.len() {
        return Err(BAD);
    }
    if len > most.saturating_sub(out.len()) {
        return Ok(false);
    }
    let start = out.len();
    out.put_bytes(0, len);
    let target = out.get_mut(start..).unwrap_or_default();
    snap::raw::Decoder::new().decompress(block, target).map_err(|_| BAD)?;
    Ok(true)
}

pub(crate) fn put_record(
    out: &mut BytesMut,
    record: &RecordRef<'_>,
    offset_delta: i64,
    time_delta: i64,
) {
    let mut body = BytesMut::with_capacity(record.size_hint());
    body.put_i8(0);
    put_varint(&mut body, time_delta);
    put_varint(&mut body, offset_delta);
    put_sized(&mut body, record.key.as_deref());
    put_sized(&mut body, record.value.as_deref());
    put_varint(&mut body, record.headers.len() as i64);
    for (name, value) in &record.headers {
        put_sized(&mut body, Some(name.as_bytes()));
        put_sized(&mut body, Some(value));
    }
    put_varint(out, body.len() as i64);
    out.put(body);
}

fn put_sized(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut rest = (value << 1 ^ value >> 63).cast_unsigned();
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::batch::build;

    fn sample() -> Vec<RecordRef<'static>> {
        vec![
            RecordRef {
                key: Some(b"k"[..].into()),
                value: Some("값 \"quoted\"".as_bytes().into()),
                headers: vec![("h".into(), b"v"[..].into())],
                timestamp_ms: 1_700_000_000_000,
            },
            RecordRef { timestamp_ms: 1_699_999_999_000, ..Default::default() },
        ]
    }

    #[test]
    fn records_survive_a_round_trip() {
        let batch = build(&sample());
        let read = records(&batch).unwrap();
        assert_eq!(read[0].value.as_deref(), sample()[0].value.as_deref());
        assert_eq!(read[0].headers, vec![(Bytes::from("h"), Some(Bytes::from("v")))]);
        assert_eq!((read[1].offset, read[1].timestamp_ms), (1, 1_699_999_999_000));
        assert_eq!((&read[1].key, &read[1].value), (&None, &None));
    }

    fn compressed(kind: u8, pack: impl Fn(&[u8]) -> Vec<u8>) -> Bytes {
        let plain = build(&sample());
        let mut out = BytesMut::from(&plain[..HEADER_BYTES]);
        out.extend_from_slice(&pack(&plain[HEADER_BYTES..]));
        let len = out.len() as i32 - 12;
        out[8..12].copy_from_slice(&len.to_be_bytes());
        out[22] = kind;
        crate::batch::with_producer(&out, -1, -1, -1)
    }

    #[test]
    fn all_compressions_are_read() {
        let plain = records(&build(&sample())).unwrap();
        let gzip = |b: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
            out.write_all(b).unwrap();
            out.finish().unwrap()
        };
        let raw = |b: &[u8]| snap::raw::Encoder::new().compress_vec(b).unwrap();
        let xerial = |b: &[u8]| {
            let block = raw(b);
            let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
            out.extend((block.len() as u32).to_be_bytes());
            out.extend(block);
            out
        };
        let lz4 = |b: &[u8]| {
            let mut out = lz4_flex::frame::FrameEncoder::new(vec![]);
            out.write_all(b).unwrap();
            out.finish().unwrap()
        };
        let zstd = |b: &[u8]| zstd::encode_all(b, 1).unwrap();
        for batch in [
            compressed(1, gzip),
            compressed(2, raw),
            compressed(2, xerial),
            compressed(3, lz4),
            compressed(4, zstd),
        ] {
            crate::batch::validate(&batch).unwrap();
            assert_eq!(records(&batch).unwrap(), plain);
        }
    }

    #[test]
    fn few_bytes_do_not_become_much_memory() {
        let many = |records: usize, headers: usize| {
            let record = RecordRef {
                key: Some(b"k"[..].into()),
                headers: vec![("".into(), b""[..].into()); headers],
                ..Default::default()
            };
            build(&vec![record; records])
        };
        for batch in [many(MAX_RECORD_PARTS + 1, 0), many(2, MAX_RECORD_PARTS / 2)] {
            assert_eq!(records(&batch), Err(TOO_MANY));
            // Without memory for all, they can be looked at.
            let mut seen = 0;
            let last = scan(&batch, |record| {
                seen += 1;
                match record.offset == 1 {
                    true => ControlFlow::Break(record),
                    false => ControlFlow::Continue(()),
                }
            });
            assert_eq!((seen, last.unwrap().unwrap().key), (2, Some(Bytes::from("k"))));
        }
        let header = BatchHeader::parse(&many(MAX_RECORD_PARTS + 1, 0)).unwrap();
        assert_eq!(raw_records(&header, &many(MAX_RECORD_PARTS + 1, 0)), Err(TOO_MANY));
        assert_eq!(records(&many(MAX_RECORD_PARTS / 2, 1)).unwrap().len(), MAX_RECORD_PARTS / 2);
    }

    #[test]
    fn lying_lengths_are_errors() {
        let bomb = zstd::encode_all(&vec![0u8; MAX_DECOMPRESSED_BYTES + 1][..], 1).unwrap();
        let batch = compressed(4, |_| bomb.clone());
        assert_eq!(records(&batch), Err(BatchError::Damaged("records decompress to too much")));
        let batch = compressed(2, |_| vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert!(records(&batch).is_err());
        let plain = build(&sample());
        for i in HEADER_BYTES..plain.len() {
            let mut broken = plain.to_vec();
            broken[i] ^= 0xff;
            // Any result will do, a panic or a huge allocation will not.
            let _ = records(&broken.into());
        }
    }
}
