//! SFTP version 3 packets (draft-ietf-secsh-filexfer-02), names as raw bytes.
//!
//! A packet is `length: u32 | type: u8 | id: u32 | ...`, big endian; `length` counts what follows
//! it. Strings are `length: u32 | bytes` and are never decoded: file names may be CP949.
//! Everything read is bounded by the packet, and a packet by [`MAX_PACKET_BYTES`].

use std::time::UNIX_EPOCH;

/// Largest packet taken or sent, in bytes. OpenSSH uses the same limit.
pub const MAX_PACKET_BYTES: usize = 256 * 1024;

/// Largest answer to one READ, in bytes: a packet less its own fields.
pub const MAX_READ_BYTES: usize = MAX_PACKET_BYTES - 1024;

/// The protocol version spoken.
pub const VERSION: u32 = 3;

/// Bits of OPEN that ask for anything but reading.
const OPEN_WRITE_BITS: u32 = 0x02 | 0x04 | 0x08 | 0x10 | 0x20;

/// Status codes of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// Done.
    Ok = 0,
    /// No more bytes or names.
    Eof = 1,
    /// No such file.
    NoSuchFile = 2,
    /// The server is read-only, or the file is outside its tree.
    PermissionDenied = 3,
    /// Anything else.
    Failure = 4,
    /// The packet could not be read.
    BadMessage = 5,
    /// Not in this server.
    OpUnsupported = 8,
}

impl Code {
    fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Eof => "end of file",
            Self::NoSuchFile => "no such file",
            Self::PermissionDenied => "permission denied",
            Self::Failure => "failure",
            Self::BadMessage => "bad message",
            Self::OpUnsupported => "operation unsupported",
        }
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// OPEN for reading.
    Open(Vec<u8>),
    /// CLOSE of a handle.
    Close(Vec<u8>),
    /// READ from a handle.
    Read {
        /// The handle.
        handle: Vec<u8>,
        /// First byte wanted.
        offset: u64,
        /// Bytes wanted.
        len: u32,
    },
    /// LSTAT of a path.
    Lstat(Vec<u8>),
    /// STAT of a path.
    Stat(Vec<u8>),
    /// FSTAT of a handle.
    Fstat(Vec<u8>),
    /// OPENDIR of a path.
    Opendir(Vec<u8>),
    /// READDIR of a handle.
    Readdir(Vec<u8>),
    /// REALPATH of a path.
    Realpath(Vec<u8>),
    /// READLINK of a path.
    Readlink(Vec<u8>),
    /// Something that changes the tree.
    Change,
    /// A type this server does not know.
    Unknown,
}

/// A packet's fields could not be read.
#[derive(Debug, PartialEq, Eq)]
pub struct BadPacket;

/// Reads the fields of one packet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], BadPacket> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(BadPacket)?;
        self.0 = rest;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32, BadPacket> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes(bytes.try_into().map_err(|_| BadPacket)?))
    }

    fn u64(&mut self) -> Result<u64, BadPacket> {
        let bytes = self.take(8)?;
        Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| BadPacket)?))
    }

    fn string(&mut self) -> Result<Vec<u8>, BadPacket> {
        let len = self.u32()?;
        let len = usize::try_from(len).map_err(|_| BadPacket)?;
        Ok(self.take(len)?.to_vec())
    }
}

/// Splits one packet off the front of `bytes`: its body (type and rest) and the bytes used.
/// `None` when it has not arrived whole.
pub fn split_packet(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, BadPacket> {
    let Some((head, rest)) = bytes.split_at_checked(4) else { return Ok(None) };
    let len = u32::from_be_bytes(head.try_into().map_err(|_| BadPacket)?);
    let len = usize::try_from(len).map_err(|_| BadPacket)?;
    if len == 0 || len > MAX_PACKET_BYTES {
        return Err(BadPacket);
    }
    Ok(rest.get(..len).map(|body| (body, 4 + len)))
}

/// The version of an INIT packet; `None` for any other type.
pub fn parse_init(body: &[u8]) -> Result<Option<u32>, BadPacket> {
    let mut fields = Fields(body);
    match fields.take(1)? {
        [1] => Ok(Some(fields.u32()?)),
        _ => Ok(None),
    }
}

/// Parses a request into its id and what it asks.
pub fn parse(body: &[u8]) -> Result<(u32, Ask), BadPacket> {
    let mut fields = Fields(body);
    let kind = *fields.take(1)?.first().ok_or(BadPacket)?;
    let id = fields.u32()?;
    let ask = match kind {
        3 => {
            let path = fields.string()?;
            let flags = fields.u32()?;
            if flags & OPEN_WRITE_BITS == 0 { Ask::Open(path) } else { Ask::Change }
        }
        4 => Ask::Close(fields.string()?),
        5 => {
            let handle = fields.string()?;
            Ask::Read { handle, offset: fields.u64()?, len: fields.u32()? }
        }
        7 => Ask::Lstat(fields.string()?),
        8 => Ask::Fstat(fields.string()?),
        11 => Ask::Opendir(fields.string()?),
        12 => Ask::Readdir(fields.string()?),
        16 => Ask::Realpath(fields.string()?),
        17 => Ask::Stat(fields.string()?),
        19 => Ask::Readlink(fields.string()?),
        // WRITE, SETSTAT, FSETSTAT, REMOVE, MKDIR, RMDIR, RENAME, SYMLINK.
        6 | 9 | 10 | 13 | 14 | 15 | 18 | 20 => Ask::Change,
        _ => Ask::Unknown,
    };
    Ok((id, ask))
}

/// Attributes of a file as version 3 has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attrs {
    /// Length in bytes.
    pub size: u64,
    /// Type and permission bits as `stat` gives them.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u32,
}

impl Attrs {
    /// Attributes of an entry of the local file system, without the write bits.
    pub fn of(meta: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let since = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let mtime = since.map_or(0, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX));
        Self { size: meta.len(), mode: meta.mode() & !0o222, mtime }
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend(0x0000_000du32.to_be_bytes()); // SIZE | PERMISSIONS | ACMODTIME
        out.extend(self.size.to_be_bytes());
        out.extend(self.mode.to_be_bytes());
        out.extend(self.mtime.to_be_bytes());
        out.extend(self.mtime.to_be_bytes());
    }

    /// The line that `ls -l` would show; version 3 wants one with every name.
    fn long_name(&self, name: &[u8]) -> Vec<u8> {
        let kind = match self.mode & 0o170_000 {
            0o040_000 => 'd',
            0o120_000 => 'l',
            _ => '-',
        };
        let head =
            format!("{kind}r--r--r--    1 sample   sample   {:>12} {} ", self.size, self.mtime);
        [head.as_bytes(), name].concat()
    }

    /// Upper bound of the bytes one name takes in a NAME answer.
    pub fn name_bytes(name: &[u8]) -> usize {
        2 * name.len() + 160
    }
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    // Names and reads are far below 4 GiB: both are bounded by MAX_PACKET_BYTES.
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(bytes);
}

fn packet(kind: u8, id: u32, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = vec![kind];
    body.extend(id.to_be_bytes());
    fill(&mut body);
    let mut out = Vec::with_capacity(body.len() + 4);
    put_string(&mut out, &body);
    out
}

/// VERSION, the answer to INIT.
pub fn version() -> Vec<u8> {
    packet(2, VERSION, |_| {})
}

/// STATUS.
pub fn status(id: u32, code: Code) -> Vec<u8> {
    packet(101, id, |out| {
        out.extend((code as u32).to_be_bytes());
        put_string(out, code.text().as_bytes());
        put_string(out, b"en");
    })
}

/// HANDLE.
pub fn handle(id: u32, handle: &[u8]) -> Vec<u8> {
    packet(102, id, |out| put_string(out, handle))
}

/// DATA.
pub fn data(id: u32, bytes: &[u8]) -> Vec<u8> {
    packet(103, id, |out| put_string(out, bytes))
}

/// NAME with any number of entries.
pub fn names(id: u32, entries: &[(Vec<u8>, Attrs)]) -> Vec<u8> {
    packet(104, id, |out| {
        out.extend(u32::try_from(entries.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (name, attrs) in entries {
            put_string(out, name);
            put_string(out, &attrs.long_name(name));
            attrs.put(out);
        }
    })
}

/// NAME with one entry without attributes, as REALPATH and READLINK answer.
pub fn bare_name(id: u32, name: &[u8]) -> Vec<u8> {
    packet(104, id, |out| {
        out.extend(1u32.to_be_bytes());
        put_string(out, name);
        put_string(out, name);
        out.extend(0u32.to_be_bytes());
    })
}

/// ATTRS.
pub fn attrs(id: u32, attrs: &Attrs) -> Vec<u8> {
    packet(105, id, |out| attrs.put(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_packet_waits_for_its_end() {
        let whole = status(7, Code::Eof);
        for end in 0..whole.len() {
            assert_eq!(split_packet(&whole[..end]), Ok(None));
        }
        let (body, used) = split_packet(&whole).unwrap().unwrap();
        assert_eq!((body[0], used), (101, whole.len()));
    }

    #[test]
    fn lying_lengths_are_refused_before_any_allocation() {
        assert_eq!(split_packet(&[0xff; 8]), Err(BadPacket));
        assert_eq!(split_packet(&[0, 0, 0, 0]), Err(BadPacket));
        let mut body = vec![17, 0, 0, 0, 1];
        body.extend(u32::MAX.to_be_bytes());
        assert_eq!(parse(&body), Err(BadPacket));
        assert_eq!(parse(&[17]), Err(BadPacket));
    }

    #[test]
    fn names_stay_raw_bytes() {
        let cp949 = [0xc8, 0xb8, 0xc0, 0xc7]; // 회의
        let mut body = vec![17, 0, 0, 0, 9];
        put_string(&mut body, &cp949);
        assert_eq!(parse(&body), Ok((9, Ask::Stat(cp949.to_vec()))));
    }

    #[test]
    fn every_way_to_write_is_a_change() {
        let mut open = vec![3, 0, 0, 0, 1];
        put_string(&mut open, b"/x");
        let with = |flags: u32| [&open[..], &flags.to_be_bytes(), &[0; 4]].concat();
        assert_eq!(parse(&with(1)), Ok((1, Ask::Open(b"/x".to_vec()))));
        for flags in [0x02, 0x03, 0x08 | 0x01, 0x10] {
            assert_eq!(parse(&with(flags)).unwrap().1, Ask::Change);
        }
        for kind in [6, 9, 10, 13, 14, 15, 18, 20] {
            assert_eq!(parse(&[kind, 0, 0, 0, 1]).unwrap().1, Ask::Change);
        }
        assert_eq!(parse(&[200, 0, 0, 0, 1]).unwrap().1, Ask::Unknown);
    }
}
