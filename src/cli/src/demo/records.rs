//! Records with their headers, which [`batch`] leaves out: benchmarks need values only.

use anyhow::{Context, bail};

use crate::kafka_client::batch;

/// Bytes before the body of a batch: base offset and length.
const PREFIX_BYTES: usize = 12;
/// Bytes of a body in front of its attributes: epoch, format and checksum.
const BEFORE_ATTRIBUTES: usize = 9;
/// Bytes between the attributes and the number of records.
const BEFORE_COUNT: usize = 34;
/// Most headers of a record; the collector writes ten at most.
const MAX_HEADERS: i64 = 100;

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Its partition.
    pub(super) partition: i32,
    /// Its offset.
    pub(super) offset: i64,
    /// Its value; empty when null.
    pub(super) value: Vec<u8>,
    /// Names and values.
    pub(super) headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// A header that may be missing.
    pub(super) fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// A header that must be there, as text.
    pub(super) fn text(&self, name: &str) -> anyhow::Result<&str> {
        let value = self.header(name).with_context(|| format!("there is no header {name}"))?;
        std::str::from_utf8(value).with_context(|| format!("header {name} is no text"))
    }
}

/// Every record of the whole batches in `bytes` from offset `from` on, and the offset to go on
/// with.
pub(super) fn decode(
    partition: i32,
    bytes: &[u8],
    from: i64,
) -> anyhow::Result<(Vec<Record>, i64)> {
    // Checks format, compression and checksums, too.
    let next = batch::for_each(bytes, from, |_, _| {})?;
    let mut records = Vec::new();
    let mut reader = Reader(bytes);
    while reader.0.len() >= PREFIX_BYTES {
        let base = i64::from_be_bytes(reader.array()?);
        let len = usize::try_from(i32::from_be_bytes(reader.array()?))?;
        // The last batch may be cut by the size limit of the fetch.
        let Ok(body) = reader.take(len) else { break };
        for mut record in read_batch(body)? {
            record.partition = partition;
            record.offset += base;
            if record.offset >= from {
                records.push(record);
            }
        }
    }
    Ok((records, next))
}

/// The records of a batch; their offsets count from its first.
fn read_batch(body: &[u8]) -> anyhow::Result<Vec<Record>> {
    let mut reader = Reader(body);
    reader.take(BEFORE_ATTRIBUTES)?;
    let attributes = i16::from_be_bytes(reader.array()?);
    reader.take(BEFORE_COUNT)?;
    let count = i32::from_be_bytes(reader.array()?);
    // Bit 5 marks control batches, which carry no user records.
    if attributes & 0x20 != 0 {
        return Ok(Vec::new());
    }
    (0..count).map(|_| read_record(reader.field()?.context("a record without length")?)).collect()
}

fn read_record(bytes: &[u8]) -> anyhow::Result<Record> {
    let mut reader = Reader(bytes);
    let [_attributes] = reader.array()?;
    let _time = reader.varint()?;
    let offset = reader.varint()?;
    let _key = reader.field()?;
    let value = reader.field()?.unwrap_or_default().to_vec();
    let count = reader.varint()?;
    if !(0..=MAX_HEADERS).contains(&count) {
        bail!("a record of {count} headers");
    }
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = reader.field()?.context("a header without name")?;
        let value = reader.field()?.unwrap_or_default();
        headers.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
    }
    Ok(Record { partition: 0, offset, value, headers })
}

/// Every read checks what is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> anyhow::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).context("the batch ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> anyhow::Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().context("the batch ends early")?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A zigzag number of up to 64 bits.
    fn varint(&mut self) -> anyhow::Result<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        bail!("a number of more than ten bytes")
    }

    /// Bytes behind their length; `None` for a negative one.
    fn field(&mut self) -> anyhow::Result<Option<&'a [u8]>> {
        match usize::try_from(self.varint()?) {
            Ok(len) => Ok(Some(self.take(len)?)),
            Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attributes, time, offset 3, no key, value `v`, headers `a: 1` and `b` without value.
    const RECORD: [u8; 14] = [0, 0, 6, 1, 2, b'v', 4, 2, b'a', 2, b'1', 2, b'b', 1];

    #[test]
    fn headers_are_read() {
        let record = read_record(&RECORD).unwrap();
        assert_eq!((record.offset, record.value.as_slice()), (3, &b"v"[..]));
        assert_eq!(record.text("a").unwrap(), "1");
        assert_eq!(record.header("b"), Some(&b""[..]));
        assert!(record.text("c").unwrap_err().to_string().contains("no header c"));
        for end in 0..RECORD.len() {
            assert!(read_record(&RECORD[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_cut_batch_and_what_stands_before_are_left() {
        let mut bytes = batch::encode(&[b"one", b"two"], 1);
        let second = batch::encode(&[b"cut"], 1);
        bytes.extend(&second[..second.len() - 1]);
        let (records, next) = decode(2, &bytes, 1).unwrap();
        let two = Record { partition: 2, offset: 1, value: b"two".to_vec(), headers: vec![] };
        assert_eq!((records, next), (vec![two], 2));
    }

    #[test]
    fn a_changed_byte_is_found() {
        let mut bytes = batch::encode(&[b"one"], 1);
        *bytes.last_mut().unwrap() ^= 1;
        assert!(decode(0, &bytes, 0).is_err());
    }
}
