//! Hand-laid little-endian encoding for commands and calls that carry documents: the bytes of a
//! document are copied once and never go through serde.
//!
//! [`Reader`] never allocates from a length it read: everything it returns is a slice of the
//! bytes that are there.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes that do not follow the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed index message at byte {at}")]
pub struct Malformed {
    /// Where reading stopped.
    pub at: usize,
}

/// Reads what [`Writer`] wrote.
pub struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `len` bytes, shared and not copied.
    pub fn take(&mut self, len: usize) -> Result<Bytes, Malformed> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(Malformed { at: self.at })?;
        let taken = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let at = self.at;
        let bytes = self.take(N)?;
        bytes.as_ref().try_into().map_err(|_| Malformed { at })
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Sixteen bytes.
    pub fn id(&mut self) -> Result<[u8; 16], Malformed> {
        self.array()
    }

    /// A value behind a presence byte.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Malformed { at: self.at }),
        }
    }

    /// Bytes behind a four-byte length.
    pub fn blob(&mut self) -> Result<Bytes, Malformed> {
        let len = self.u32()?;
        self.take(usize::try_from(len).map_err(|_| Malformed { at: self.at })?)
    }

    /// Text behind a four-byte length.
    pub fn text(&mut self) -> Result<String, Malformed> {
        let at = self.at;
        let bytes = self.blob()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed { at })
    }

    /// What is left.
    pub fn rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.at..);
        self.at = self.bytes.len();
        rest
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Fails when bytes are left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.remaining() == 0 { Ok(()) } else { Err(Malformed { at: self.at }) }
    }
}

/// Builds a message.
#[derive(Default)]
pub struct Writer(BytesMut);

impl Writer {
    /// Room for about `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(BytesMut::with_capacity(capacity))
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.0.put_u16_le(value);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.0.put_u32_le(value);
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.0.put_u64_le(value);
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.put_slice(bytes);
    }

    /// A presence byte and the value.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                write(self, value);
            }
        }
    }

    /// A four-byte length and the bytes. Panics above 4 GiB: callers bound what they send.
    pub fn blob(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("documents are bounded far below 4 GiB"));
        self.raw(bytes);
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The message.
    pub fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lying_length_is_an_error() {
        let mut writer = Writer::default();
        writer.u32(u32::MAX);
        writer.raw(b"x");
        assert!(Reader::new(writer.finish()).blob().is_err());
    }

    #[test]
    fn values_come_back() {
        let mut writer = Writer::default();
        writer.option(Some("id"), |w, id| w.blob(id.as_bytes()));
        writer.option(None::<u64>, Writer::u64);
        writer.u64(7);
        let mut reader = Reader::new(writer.finish());
        assert_eq!(reader.option(Reader::text).unwrap().as_deref(), Some("id"));
        assert_eq!(reader.option(Reader::u64).unwrap(), None);
        assert_eq!(reader.u64().unwrap(), 7);
        reader.end().unwrap();
    }
}
