//! Who a file is and which version of it: keys, version tokens, partitions.

use std::fmt;

use sha2::{Digest, Sha256};

/// Identity of a file: the first 128 bits of SHA-256 over source name, NUL and raw path. Also the
/// id of its document and its key in the ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey(pub [u8; 16]);

impl FileKey {
    /// The key of a path below a source's directory.
    pub fn new(source: &str, raw_path: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(source.as_bytes());
        hash.update([0]);
        hash.update(raw_path);
        let full: [u8; 32] = hash.finalize().into();
        let mut key = [0; 16];
        key.copy_from_slice(full.split_at(16).0);
        Self(key)
    }

    /// As hexadecimal digits.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What a listing tells of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stat {
    /// Length in bytes.
    pub size: u64,
    /// Modification time in seconds since 1970; SFTP version 3 has no finer one.
    pub mtime_s: i64,
}

/// A version of a file as ledger and namespace remember it.
///
/// `1: u8 | twin: u8 | size: u64 | mtime_s: i64 | sha256: 32 bytes`, big endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Size and time.
    pub stat: Stat,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
    /// Which of several files with one name in the block store, from 1.
    pub twin: u8,
}

impl Version {
    /// The token.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, self.twin];
        out.extend(self.stat.size.to_be_bytes());
        out.extend(self.stat.mtime_s.to_be_bytes());
        out.extend(self.sha256);
        out
    }

    /// Reads a token; `None` for one of another format, which then counts as another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[1, twin], rest) = bytes.split_first_chunk()? else { return None };
        let (size, rest) = rest.split_first_chunk()?;
        let (mtime, rest) = rest.split_first_chunk()?;
        let stat = Stat { size: u64::from_be_bytes(*size), mtime_s: i64::from_be_bytes(*mtime) };
        Some(Self { stat, sha256: rest.try_into().ok()?, twin })
    }
}

/// The partition of a shown path, by the hash that Kafka's own clients use for keys.
pub fn partition_of(display_path: &str, partitions: u32) -> u32 {
    (murmur2(display_path.as_bytes()) & 0x7fff_ffff) % partitions.max(1)
}

/// Kafka's murmur2, seed included.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    // A key is a path: far below 4 GiB; Kafka's own hash takes the length as an int as well.
    let mut h = 0x9747_b28c_u32 ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = chunk.iter().rev().fold(0u32, |k, b| (k << 8) | u32::from(*b));
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        h ^= rest.iter().rev().fold(0u32, |k, b| (k << 8) | u32::from(*b));
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_kafkas() {
        // From Kafka's UtilsTest.
        for (text, want) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), want, "{text}");
        }
    }

    #[test]
    fn versions_come_back() {
        let version = Version { stat: Stat { size: 7, mtime_s: -1 }, sha256: [9; 32], twin: 2 };
        assert_eq!(Version::decode(&version.encode()), Some(version));
        assert_eq!(Version::decode(b""), None);
        assert_eq!(Version::decode(&version.encode()[..49]), None);
        let mut other = version.encode();
        other[0] = 2;
        assert_eq!(Version::decode(&other), None);
    }

    #[test]
    fn source_and_path_cannot_run_into_each_other() {
        assert_ne!(FileKey::new("ab", b"c"), FileKey::new("a", b"bc"));
        assert_eq!(FileKey::new("news", b"a.txt").hex().len(), 32);
    }
}
