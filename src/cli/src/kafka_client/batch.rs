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

/// One record read from a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Its value; empty when null.
    pub value: Vec<u8>,
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
pub fn decode(bytes: &[u8], offset: i64) -> anyhow::Result<(Vec<Record>, i64)> {
    let mut records = Vec::new();
    let next = for_each(bytes, offset, |offset, value| {
        records.push(Record { offset, value: value.to_vec() });
    })?;
    Ok((records, next))
}

/// As [`decode`], without copies.
pub fn for_each(
    bytes: &[u8],
    offset: i64,
    mut take: impl FnMut(i64, &[u8]),
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
    take: &mut impl FnMut(i64, &[u8]),
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
            take(offset, value);
        }
    }
    Ok(base + last_delta + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_survive_and_a_cut_one_is_left() {
        let mut bytes = encode(&[b"one", b"two"], 1);
        let second = encode(&[b"cut"], 1);
        bytes.extend(&second[..second.len() - 1]);
        let (records, next) = decode(&bytes, 1).unwrap();
        assert_eq!(records, [Record { offset: 1, value: b"two".to_vec() }]);
        assert_eq!(next, 2);
    }

    #[test]
    fn a_changed_byte_is_found() {
        let mut bytes = encode(&[b"one"], 1);
        *bytes.last_mut().unwrap() ^= 1;
        assert!(decode(&bytes, 0).is_err());
    }
}
