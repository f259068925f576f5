//! Frames of a shard's translog: what one command appended.
//!
//! ```text
//! len: u32 | count: u32 | base_seq_no: u64 | time_ms: i64 | primary_term: u64
//!   | mapping_version: u64 | op*        (little endian; len covers everything)
//! ```
//!
//! The stream's offsets are the shard's sequence numbers. The translog is kept whole: any copy
//! of the search index can be built from it alone. Its size is therefore that of everything
//! ever written to the shard.

use bytes::Bytes;
use segment::FrameInfo;

use crate::command::LoggedOp;
use crate::wire::{Malformed, Reader, Writer};

const HEADER_BYTES: usize = 40;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Number of the first operation.
    pub base_seq_no: u64,
    /// How many operations.
    pub count: u32,
    /// When it was applied.
    pub time_ms: i64,
    /// The shard's primary term.
    pub primary_term: u64,
    /// The mapping it needs.
    pub mapping_version: u64,
    /// The operations.
    pub ops: Bytes,
}

impl Frame {
    /// Bytes of the frame.
    pub fn encode(&self) -> Bytes {
        let len = HEADER_BYTES + self.ops.len();
        let mut out = Writer::with_capacity(len);
        out.u32(u32::try_from(len).expect("a command is far below 4 GiB"));
        out.u32(self.count);
        out.u64(self.base_seq_no);
        out.u64(self.time_ms.cast_unsigned());
        out.u64(self.primary_term);
        out.u64(self.mapping_version);
        out.raw(&self.ops);
        out.finish()
    }

    /// Reads a frame.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let len = bytes.len();
        let mut input = Reader::new(bytes);
        if usize::try_from(input.u32()?) != Ok(len) {
            return Err(Malformed { at: 0 });
        }
        Ok(Self {
            count: input.u32()?,
            base_seq_no: input.u64()?,
            time_ms: input.u64()?.cast_signed(),
            primary_term: input.u64()?,
            mapping_version: input.u64()?,
            ops: input.rest(),
        })
    }

    /// The operations with their numbers.
    pub fn read_ops(&self) -> Result<Vec<(u64, LoggedOp)>, Malformed> {
        let mut input = Reader::new(self.ops.clone());
        let mut ops = Vec::new();
        for i in 0..u64::from(self.count) {
            ops.push((self.base_seq_no + i, LoggedOp::read(&mut input)?));
        }
        input.end()?;
        Ok(ops)
    }
}

/// Reads a frame's header for the segment files.
pub fn parse_header(bytes: &[u8]) -> Option<FrameInfo> {
    let number = |at: usize, len: usize| -> Option<u64> {
        let bytes = bytes.get(at..at + len)?;
        Some(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    };
    let (len, count, base_offset) = (number(0, 4)?, number(4, 4)?, number(8, 8)?);
    let next_offset = base_offset.checked_add(count)?;
    (len >= HEADER_BYTES as u64 && count > 0).then_some(FrameInfo {
        len,
        base_offset,
        next_offset,
        max_timestamp_ms: number(16, 8)?.cast_signed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_tell_length_and_numbers() {
        let frame = Frame {
            base_seq_no: 7,
            count: 2,
            time_ms: 99,
            primary_term: 1,
            mapping_version: 3,
            ops: Bytes::from_static(b"abc"),
        };
        let bytes = frame.encode();
        let info = parse_header(&bytes).unwrap();
        assert_eq!((info.len, info.base_offset, info.next_offset), (43, 7, 9));
        assert_eq!(info.max_timestamp_ms, 99);
        assert_eq!(Frame::decode(bytes).unwrap(), frame);
        assert_eq!(parse_header(&[0; 64]), None);
    }
}
