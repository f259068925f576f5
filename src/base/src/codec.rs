//! The one encoding of commands, table values and snapshot rows: bincode 1.3.3, fixed-size
//! integers, little endian, with a size limit and trailing bytes rejected.
//!
//! Enums are append-only and structs frozen once released: bincode has no field names, so a
//! changed struct would misread old bytes. Never use it for payloads: megabytes through serde
//! cost milliseconds.

use std::io;

use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};

use crate::limits::MAX_VALUE_BYTES;

/// Bytes that are not a value of the expected type.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {what}: {reason}")]
pub struct DecodeError {
    what: &'static str,
    reason: String,
}

fn options(limit: u64) -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(limit)
}

/// Encodes a value. Panics when it exceeds [`MAX_VALUE_BYTES`]: callers bound what they build.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let bytes = options(MAX_VALUE_BYTES).serialize(value);
    bytes.expect("own types serialize, and their size is bounded before")
}

/// A value that is larger than [`MAX_VALUE_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it takes more than {MAX_VALUE_BYTES} bytes")]
pub struct TooLarge;

/// As [`encode`], for what clients decide the size of.
pub fn try_encode<T: Serialize>(value: &T) -> Result<Vec<u8>, TooLarge> {
    options(MAX_VALUE_BYTES).serialize(value).map_err(|_| TooLarge)
}

/// As [`encode`], for a file: an error when it exceeds `limit` bytes.
pub fn encode_file<T: Serialize>(value: &T, limit: u64) -> io::Result<Vec<u8>> {
    options(limit).serialize(value).map_err(io::Error::other)
}

/// Decodes a value; rejects trailing bytes and anything above [`MAX_VALUE_BYTES`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_file(bytes, MAX_VALUE_BYTES)
}

/// As [`decode`], for what [`encode_file`] wrote.
pub fn decode_file<T: DeserializeOwned>(bytes: &[u8], limit: u64) -> Result<T, DecodeError> {
    options(limit)
        .deserialize(bytes)
        .map_err(|e| DecodeError { what: std::any::type_name::<T>(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_an_error_where_clients_decide() {
        let limit = usize::try_from(MAX_VALUE_BYTES).unwrap();
        // A length of eight bytes comes first.
        assert_eq!(try_encode(&"x".repeat(limit - 8)).map(|bytes| bytes.len()), Ok(limit));
        assert_eq!(try_encode(&"x".repeat(limit - 7)), Err(TooLarge));
    }

    #[test]
    fn trailing_bytes_are_rejected() {
        let mut bytes = encode(&(7u32, "x".to_owned()));
        assert_eq!(decode::<(u32, String)>(&bytes).unwrap(), (7, "x".to_owned()));
        bytes.push(0);
        assert!(decode::<(u32, String)>(&bytes).is_err());
    }

    #[test]
    fn a_lying_length_is_an_error_and_not_an_allocation() {
        assert!(decode::<Vec<u64>>(&[0xff; 12]).is_err());
    }
}
