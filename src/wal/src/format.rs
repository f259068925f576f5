//! Bytes of the write-ahead log: pure encoding and decoding.
//!
//! All numbers are little-endian. A **flush** starts at a multiple of 4 KiB and is padded with
//! zeros to the next one. Its header has [`HEADER_BYTES`] bytes:
//!
//! ```text
//! magic u32 | crc32c u32 of what follows | version u16 | flags u16 | file sequence u32 |
//! file id u64 | own offset u32 | length u32 (header and records) | records u32 | zero u32 |
//! synced LSN u64
//! ```
//!
//! and is followed by its records, each padded with zeros to a multiple of 8:
//!
//! ```text
//! crc32c u32 | body length u32 | file sequence u32 | kind u8 | flags u8 | group u16 |
//! term u64 | node u64 | index u64 | body
//! ```
//!
//! The checksum of a record covers the file id, then everything behind the checksum and the
//! body. The id is random per use of a file, so neither what a recycled file held before nor
//! bytes that a client chose can pass for a record or header of the file.

use std::fmt;

use base::GroupId;
use base::crc::{crc32c, crc32c_append};
use bytes::Bytes;

use crate::LogPos;
use crate::limits::{MAX_BODY_BYTES, MAX_RECOVERED_FLUSH_BYTES};

/// Flushes start at multiples of this and are padded to it: a synced block is never rewritten.
pub const BLOCK: usize = base::sys::ALIGN;
/// Size of a flush header.
pub const HEADER_BYTES: usize = 48;
/// Size of a record without its body.
pub const RECORD_BYTES: usize = 40;

const MAGIC: u32 = u32::from_le_bytes(*b"TWAL");
/// Version of the format that this build writes and reads.
pub const VERSION: u16 = 1;

const FLAG_STATE: u16 = 1;
const FLAG_PREPARED: u16 = 2;
const FLAG_CLOSED: u16 = 4;

const RECORD_FLAG_ALL: u8 = 1;

/// A place in the log: file sequence and offset in the file. Later places compare greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn {
    /// File sequence.
    pub file: u32,
    /// Offset in bytes.
    pub offset: u32,
}

impl Lsn {
    fn to_u64(self) -> u64 {
        u64::from(self.file) << 32 | u64::from(self.offset)
    }

    fn from_u64(value: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        Self { file: u32::from_le_bytes([e, f, g, h]), offset: u32::from_le_bytes([a, b, c, d]) }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

/// Which use of which file bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt {
    /// File sequence.
    pub file: u32,
    /// Random id of this use of the file.
    pub id: u64,
}

/// What a flush is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushKind {
    /// Records from the queue.
    Records,
    /// The first flush of a file: the state of every group.
    State,
    /// Not a flush: the file is prepared and not in use yet.
    Prepared,
    /// The last flush before an orderly stop; without records.
    Closed,
}

/// Header of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushHeader {
    /// What the flush is for.
    pub kind: FlushKind,
    /// The file's use that it belongs to.
    pub salt: Salt,
    /// Its own offset in the file.
    pub offset: u32,
    /// Bytes of header and records, without the padding at the end.
    pub length: u32,
    /// Number of records.
    pub records: u32,
    /// Everything before this place was synced before the flush was written.
    pub synced: Lsn,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A log entry.
    Entry(LogPos, Bytes),
    /// The vote of a group, opaque.
    Vote(Bytes),
    /// Entries above the index are gone; `None`: all entries.
    TruncateAfter(Option<u64>),
    /// Entries up to and including this one are gone.
    Purge(LogPos),
    /// This entry is known to be committed.
    Committed(LogPos),
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The group that it belongs to.
    pub group: GroupId,
    /// What it says.
    pub what: What,
}

/// Bytes that are not what was expected at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// Too short for what they say they hold.
    #[error("bytes end early")]
    Short,
    /// No header or record begins here.
    #[error("no header here")]
    NoHeader,
    /// The checksum does not match.
    #[error("checksum differs")]
    Checksum,
    /// Belongs to another file, another use of it, or another place.
    #[error("belongs elsewhere")]
    Foreign,
    /// Has a valid checksum but makes no sense.
    #[error("impossible content")]
    Content,
    /// Written by a newer version of the format.
    #[error("format version {0} is not known")]
    Version(u16),
}

impl Record {
    /// Bytes that [`Record::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        let body = match &self.what {
            What::Entry(_, body) | What::Vote(body) => body.len(),
            What::TruncateAfter(_) | What::Purge(_) | What::Committed(_) => 0,
        };
        (RECORD_BYTES + body).next_multiple_of(8)
    }

    /// Writes the record at the start of `out`, padding included; returns the bytes written.
    /// `out` must be long enough.
    pub fn encode(&self, salt: Salt, out: &mut [u8]) -> usize {
        let none = LogPos { term: 0, node: 0, index: 0 };
        let (kind, flags, pos, body): (u8, u8, LogPos, &[u8]) = match &self.what {
            What::Entry(pos, body) => (1, 0, *pos, body),
            What::Vote(body) => (2, 0, none, body),
            What::TruncateAfter(Some(index)) => (3, 0, LogPos { index: *index, ..none }, &[]),
            What::TruncateAfter(None) => (3, RECORD_FLAG_ALL, none, &[]),
            What::Purge(pos) => (4, 0, *pos, &[]),
            What::Committed(pos) => (5, 0, *pos, &[]),
        };
        assert!(body.len() <= MAX_BODY_BYTES, "appends bound the body");
        let total = (RECORD_BYTES + body.len()).next_multiple_of(8);
        let out = &mut out[..total];
        out[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
        out[8..12].copy_from_slice(&salt.file.to_le_bytes());
        out[12] = kind;
        out[13] = flags;
        out[14..16].copy_from_slice(&self.group.0.to_le_bytes());
        out[16..24].copy_from_slice(&pos.term.to_le_bytes());
        out[24..32].copy_from_slice(&pos.node.to_le_bytes());
        out[32..40].copy_from_slice(&pos.index.to_le_bytes());
        let end = RECORD_BYTES + body.len();
        out[RECORD_BYTES..end].copy_from_slice(body);
        out[end..].fill(0);
        let crc = crc32c_append(crc32c(&salt.id.to_le_bytes()), &out[4..end]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        total
    }
}

/// Decodes the record at the start of `bytes`; also returns the bytes it takes with padding.
pub fn decode_record(bytes: &[u8], salt: Salt) -> Result<(Record, usize), Bad> {
    let header: &[u8; RECORD_BYTES] = bytes.first_chunk().ok_or(Bad::Short)?;
    let length = u32_at(header, 4) as usize;
    if length > MAX_BODY_BYTES {
        return Err(Bad::NoHeader);
    }
    let end = RECORD_BYTES + length;
    let total = end.next_multiple_of(8);
    let body = bytes.get(RECORD_BYTES..end).ok_or(Bad::Short)?;
    let pad = bytes.get(end..total).ok_or(Bad::Short)?;
    let crc = crc32c_append(crc32c(&salt.id.to_le_bytes()), &header[4..]);
    if crc32c_append(crc, body) != u32_at(header, 0) {
        return Err(Bad::Checksum);
    }
    if u32_at(header, 8) != salt.file {
        return Err(Bad::Foreign);
    }
    if pad.iter().any(|b| *b != 0) {
        return Err(Bad::Content);
    }
    let group = GroupId(u16::from_le_bytes([header[14], header[15]]));
    let pos =
        LogPos { term: u64_at(header, 16), node: u64_at(header, 24), index: u64_at(header, 32) };
    let no_leader = pos.term == 0 && pos.node == 0;
    let nothing = no_leader && pos.index == 0;
    let what = match (header[12], header[13]) {
        (1, 0) => What::Entry(pos, Bytes::copy_from_slice(body)),
        (2, 0) if nothing => What::Vote(Bytes::copy_from_slice(body)),
        (3, 0) if no_leader && body.is_empty() => What::TruncateAfter(Some(pos.index)),
        (3, RECORD_FLAG_ALL) if nothing && body.is_empty() => What::TruncateAfter(None),
        (4, 0) if body.is_empty() => What::Purge(pos),
        (5, 0) if body.is_empty() => What::Committed(pos),
        _ => return Err(Bad::Content),
    };
    Ok((Record { group, what }, total))
}

impl FlushHeader {
    /// Writes the header at the start of `out`.
    pub fn encode(&self, out: &mut [u8]) {
        let flags = match self.kind {
            FlushKind::Records => 0,
            FlushKind::State => FLAG_STATE,
            FlushKind::Prepared => FLAG_PREPARED,
            FlushKind::Closed => FLAG_CLOSED,
        };
        let out = &mut out[..HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&flags.to_le_bytes());
        out[12..16].copy_from_slice(&self.salt.file.to_le_bytes());
        out[16..24].copy_from_slice(&self.salt.id.to_le_bytes());
        out[24..28].copy_from_slice(&self.offset.to_le_bytes());
        out[28..32].copy_from_slice(&self.length.to_le_bytes());
        out[32..36].copy_from_slice(&self.records.to_le_bytes());
        out[36..40].fill(0);
        out[40..48].copy_from_slice(&self.synced.to_u64().to_le_bytes());
        let crc = crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Decodes the header at the start of `bytes`, whatever file it belongs to.
    pub fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(Bad::Short)?;
        if u32_at(header, 0) != MAGIC {
            return Err(Bad::NoHeader);
        }
        if crc32c(&header[8..]) != u32_at(header, 4) {
            return Err(Bad::Checksum);
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION {
            return Err(Bad::Version(version));
        }
        let kind = match u16::from_le_bytes([header[10], header[11]]) {
            0 => FlushKind::Records,
            FLAG_STATE => FlushKind::State,
            FLAG_PREPARED => FlushKind::Prepared,
            FLAG_CLOSED => FlushKind::Closed,
            _ => return Err(Bad::Content),
        };
        let decoded = Self {
            kind,
            salt: Salt { file: u32_at(header, 12), id: u64_at(header, 16) },
            offset: u32_at(header, 24),
            length: u32_at(header, 28),
            records: u32_at(header, 32),
            synced: Lsn::from_u64(u64_at(header, 40)),
        };
        let length = decoded.length as usize;
        let most = length.saturating_sub(HEADER_BYTES) / RECORD_BYTES;
        let sane = (HEADER_BYTES..=MAX_RECOVERED_FLUSH_BYTES).contains(&length)
            && decoded.records as usize <= most
            && u32_at(header, 36) == 0
            && (decoded.offset as usize).is_multiple_of(BLOCK);
        if sane { Ok(decoded) } else { Err(Bad::Content) }
    }

    /// Bytes of the flush with its padding.
    pub fn padded_len(&self) -> usize {
        (self.length as usize).next_multiple_of(BLOCK)
    }
}

/// Decodes a whole flush at the start of `bytes`: its header and every record with its offset
/// from the start of the flush.
pub fn decode_flush(bytes: &[u8]) -> Result<(FlushHeader, Vec<(usize, Record)>), Bad> {
    let header = FlushHeader::decode(bytes)?;
    let bytes = bytes.get(..header.length as usize).ok_or(Bad::Short)?;
    let mut records = Vec::with_capacity(header.records as usize);
    let mut at = HEADER_BYTES;
    for _ in 0..header.records {
        let rest = bytes.get(at..).ok_or(Bad::Short)?;
        let (record, took) = decode_record(rest, header.salt)?;
        records.push((at, record));
        at += took;
    }
    if at == bytes.len() { Ok((header, records)) } else { Err(Bad::Content) }
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt { file: 7, id: 0x1234_5678_9abc_def0 };

    fn records() -> Vec<Record> {
        let pos = LogPos { term: 3, node: 99, index: 12 };
        [
            What::Entry(pos, Bytes::from_static(b"hello")),
            What::Entry(pos, Bytes::new()),
            What::Vote(Bytes::from_static(b"vote")),
            What::TruncateAfter(Some(4)),
            What::TruncateAfter(None),
            What::Purge(pos),
            What::Committed(pos),
        ]
        .map(|what| Record { group: GroupId::data(2), what })
        .into()
    }

    fn flush() -> Vec<u8> {
        let mut bytes = vec![0xaa; BLOCK];
        let mut at = HEADER_BYTES;
        for record in records() {
            let took = record.encode(SALT, &mut bytes[at..]);
            assert_eq!(took, record.encoded_len());
            at += took;
        }
        let header = FlushHeader {
            kind: FlushKind::Records,
            salt: SALT,
            offset: 8192,
            length: at as u32,
            records: records().len() as u32,
            synced: Lsn { file: 7, offset: 8192 },
        };
        header.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_flush_comes_back_as_it_was() {
        let (header, got) = decode_flush(&flush()).unwrap();
        assert_eq!(header.salt, SALT);
        assert_eq!(header.synced, Lsn { file: 7, offset: 8192 });
        assert_eq!(got.into_iter().map(|(_, r)| r).collect::<Vec<_>>(), records());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = flush();
        let length = FlushHeader::decode(&good).unwrap().length as usize;
        for bit in 0..length * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_flush(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let good = flush();
        let length = FlushHeader::decode(&good).unwrap().length as usize;
        for cut in 0..length {
            assert!(decode_flush(&good[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn records_of_another_use_of_the_file_do_not_parse() {
        let bytes = flush();
        let record = &bytes[HEADER_BYTES..];
        assert!(decode_record(record, SALT).is_ok());
        assert_eq!(decode_record(record, Salt { id: 1, ..SALT }), Err(Bad::Checksum));
        assert_eq!(decode_record(record, Salt { file: 8, ..SALT }), Err(Bad::Foreign));
    }

    #[test]
    fn the_format_of_version_1_does_not_change() {
        // Golden checksum of the flush above; a change here breaks existing data directories.
        let bytes = flush();
        let length = FlushHeader::decode(&bytes).unwrap().length as usize;
        expect_test::expect!["7fdba7ce"].assert_eq(&format!("{:08x}", crc32c(&bytes[..length])));
    }

    #[test]
    fn later_places_compare_greater() {
        let lsn = |file, offset| Lsn { file, offset };
        assert!(lsn(1, 9) < lsn(2, 0));
        assert_eq!(Lsn::from_u64(lsn(3, 4096).to_u64()), lsn(3, 4096));
        assert_eq!(lsn(3, 4096).to_string(), "3:4096");
    }
}
