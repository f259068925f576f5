//! Record batches of format 2, uncompressed.

use anyhow::{Context, bail};
use base::crc::crc32c;

use crate::kafka_client::wire::{Reader, put_varlong};

/// Bytes before the length field ends: base offset and length.
const PREFIX_BYTES: usize = 12;
/// Bytes of a batch before its records.
const HEADER_BYTES: usize = 61;
/// Where the checksum ends; it covers all that follows.
const CRC_END: usize = 21;

/// Most headers of a record that is read; the collector writes ten at most.
const MAX_HEADERS: i64 = 100;

/// One record read from a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its value; empty when null.
    pub value: Vec<u8>,
    /// Names and values of its headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// A header that may be missing.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// A header that must be there, as text.
    pub fn text(&self, name: &str) -> anyhow::Result<&str> {
        let value = self.header(name).with_context(|| format!("there is no header {name}"))?;
        std::str::from_utf8(value).with_context(|| format!("header {name} is no text"))
    }
}

/// A batch of the given values without keys, stamped `time_ms`.
pub fn encode(values: &[&[u8]], time_ms: i64) -> Vec<u8> {
    let size: usize = values.iter().map(|v| v.len() + 20).sum();
    let mut out = Vec::with_capacity(HEADER_BYTES + size);
    let count = i32::try_from(values.len()).unwrap_or(i32::MAX);
    out.extend(0_i64.to_be_bytes());
    out.extend(0_i32.to_be_bytes());
    out.extend((-1_i32).to_be_bytes());
    out.push(2);
    out.extend(0_u32.to_be_bytes());
    out.extend(0_i16.to_be_bytes());
    out.extend((count - 1).to_be_bytes());
    out.extend(time_ms.to_be_bytes());
    out.extend(time_ms.to_be_bytes());
    out.extend((-1_i64).to_be_bytes());
    out.extend((-1_i16).to_be_bytes());
    out.extend((-1_i32).to_be_bytes());
    out.extend(count.to_be_bytes());
    let mut head = Vec::with_capacity(20);
    for (delta, value) in (0_i64..).zip(values) {
        head.clear();
        head.push(0);
        put_varlong(&mut head, 0);
        put_varlong(&mut head, delta);
        put_varlong(&mut head, -1);
        put_varlong(&mut head, value.len() as i64);
        put_varlong(&mut out, (head.len() + value.len() + 1) as i64);
        out.extend(&head);
        out.extend_from_slice(value);
        out.push(0);
    }
    let len = i32::try_from(out.len() - PREFIX_BYTES).unwrap_or(i32::MAX);
    out[8..PREFIX_BYTES].copy_from_slice(&len.to_be_bytes());
    let crc = crc32c(&out[CRC_END..]);
    out[17..CRC_END].copy_from_slice(&crc.to_be_bytes());
    out
}

/// Every record of the whole batches in `bytes` from `offset` on, and the offset to go on with.
pub fn decode(partition: i32, bytes: &[u8], offset: i64) -> anyhow::Result<(Vec<Record>, i64)> {
    let mut records = Vec::new();
    let next = read(bytes, offset, |offset, value, rest| {
        let headers = read_headers(rest)?;
        records.push(Record { partition, offset, value: value.to_vec(), headers });
        Ok(())
    })?;
    Ok((records, next))
}

/// Offset and value of every record, as [`decode`] but without copies and headers.
pub fn for_each(
    bytes: &[u8],
    offset: i64,
    mut take: impl FnMut(i64, &[u8]),
) -> anyhow::Result<i64> {
    read(bytes, offset, |offset, value, _| {
        take(offset, value);
        Ok(())
    })
}

/// Hands on offset, value and what stands behind it, the headers.
fn read(
    bytes: &[u8],
    offset: i64,
    mut take: impl FnMut(i64, &[u8], Reader<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<i64> {
    let mut reader = Reader::new(bytes);
    let mut next = offset;
    while reader.left() >= PREFIX_BYTES {
        let base = reader.i64()?;
        let len = usize::try_from(reader.i32()?).context("a batch of negative length")?;
        // The last batch may be cut by the size limit of the fetch.
        let Ok(body) = reader.take(len) else { break };
        next = read_batch(base, body, offset, &mut take)?;
    }
    Ok(next)
}

fn read_batch(
    base: i64,
    body: &[u8],
    from: i64,
    take: &mut impl FnMut(i64, &[u8], Reader<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<i64> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    if reader.i8()? != 2 {
        bail!("batch {base} is not of format 2");
    }
    let crc = reader.i32()?;
    let covered = body.get(CRC_END - PREFIX_BYTES..).unwrap_or_default();
    if crc32c(covered) != crc.cast_unsigned() {
        bail!("batch {base} does not match its checksum");
    }
    let attributes = reader.i16()?;
    let last_delta = i64::from(reader.i32()?);
    reader.take(8 + 8 + 8 + 2 + 4)?;
    let count = reader.i32()?;
    // Bit 5 marks control batches, which carry no user records.
    if attributes & 0x20 != 0 {
        return Ok(base + last_delta + 1);
    }
    if attributes & 7 != 0 {
        bail!("batch {base} is compressed");
    }
    for _ in 0..count {
        let mut record = Reader::new(reader.varint_bytes()?.context("a record without length")?);
        record.i8()?;
        record.varlong()?;
        let offset = base + record.varlong()?;
        record.varint_bytes()?;
        let value = record.varint_bytes()?.unwrap_or_default();
        if offset >= from {
            take(offset, value, record)?;
        }
    }
    Ok(base + last_delta + 1)
}

fn read_headers(mut reader: Reader<'_>) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let count = reader.varlong()?;
    if !(0..=MAX_HEADERS).contains(&count) {
        bail!("a record of {count} headers");
    }
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = reader.varint_bytes()?.context("a header without name")?;
        let value = reader.varint_bytes()?.unwrap_or_default();
        headers.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_survive_and_a_cut_one_is_left() {
        let mut bytes = encode(&[b"one", b"two"], 1);
        let second = encode(&[b"cut"], 1);
        bytes.extend(&second[..second.len() - 1]);
        let (records, next) = decode(2, &bytes, 1).unwrap();
        let two = Record { partition: 2, offset: 1, value: b"two".to_vec(), headers: vec![] };
        assert_eq!((records, next), (vec![two], 2));
    }

    #[test]
    fn headers_are_read() {
        // `a: 1` and `b` without value.
        let bytes = [4, 2, b'a', 2, b'1', 2, b'b', 1];
        let headers = read_headers(Reader::new(&bytes)).unwrap();
        let record = Record { headers, ..Record::default() };
        assert_eq!(record.text("a").unwrap(), "1");
        assert_eq!(record.header("b"), Some(&b""[..]));
        assert!(record.text("c").unwrap_err().to_string().contains("no header c"));
        for end in 0..bytes.len() {
            assert!(read_headers(Reader::new(&bytes[..end])).is_err(), "{end}");
        }
    }

    #[test]
    fn a_changed_byte_is_found() {
        let mut bytes = encode(&[b"one"], 1);
        *bytes.last_mut().unwrap() ^= 1;
        assert!(decode(0, &bytes, 0).is_err());
    }
}
