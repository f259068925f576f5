//! Kafka's plain encoding: big-endian numbers, lengths before texts, bytes and arrays.

use anyhow::{Context, bail};

/// Builds a request.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn i8(&mut self, value: i8) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn i16(&mut self, value: i16) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn i32(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn i64(&mut self, value: i64) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A text; cut at what a length of 16 bits can say, which no name of ours reaches.
    pub(super) fn string(&mut self, text: &str) -> &mut Self {
        let len = i16::try_from(text.len()).unwrap_or(i16::MAX);
        self.i16(len);
        self.0.extend(text.bytes().take(usize::from(len.unsigned_abs())));
        self
    }

    pub(super) fn null_string(&mut self) -> &mut Self {
        self.i16(-1)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let len = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        self.i32(len);
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads an answer; every read checks what is left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    pub(super) fn take(&mut self, len: usize) -> anyhow::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).context("the answer ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> anyhow::Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>().context("the answer ends early")?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn i8(&mut self) -> anyhow::Result<i8> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub(super) fn i16(&mut self) -> anyhow::Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> anyhow::Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> anyhow::Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(super) fn nullable_string(&mut self) -> anyhow::Result<Option<String>> {
        let len = self.i16()?;
        if len == -1 {
            return Ok(None);
        }
        let bytes = self.take(usize::try_from(len).context("a negative length")?)?;
        Ok(Some(String::from_utf8(bytes.to_vec()).context("a text that is not UTF-8")?))
    }

    pub(super) fn string(&mut self) -> anyhow::Result<String> {
        self.nullable_string()?.context("a text is missing")
    }

    pub(super) fn nullable_bytes(&mut self) -> anyhow::Result<Option<&'a [u8]>> {
        let len = self.i32()?;
        if len == -1 {
            return Ok(None);
        }
        Ok(Some(self.take(usize::try_from(len).context("a negative length")?)?))
    }

    /// The length of an array that may be null.
    pub(super) fn nullable_count(&mut self, most: usize) -> anyhow::Result<usize> {
        let count = self.i32()?;
        if count == -1 {
            return Ok(0);
        }
        let count = usize::try_from(count).context("a negative count")?;
        if count > most {
            bail!("an array of {count} elements");
        }
        Ok(count)
    }

    pub(super) fn count(&mut self, most: usize) -> anyhow::Result<usize> {
        self.nullable_count(most)
    }

    /// A zigzag varint of up to 64 bits.
    pub(super) fn varlong(&mut self) -> anyhow::Result<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        bail!("a number of more than ten bytes")
    }

    /// Bytes behind a varint length; `None` for a negative one.
    pub(super) fn varint_bytes(&mut self) -> anyhow::Result<Option<&'a [u8]>> {
        match usize::try_from(self.varlong()?) {
            Ok(len) => Ok(Some(self.take(len)?)),
            Err(_) => Ok(None),
        }
    }
}

/// Appends a zigzag varint.
pub(super) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_survive() {
        for value in [0, -1, 1, 63, 64, -64, -65, 8191, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_varlong(&mut bytes, value);
            assert_eq!(Reader::new(&bytes).varlong().unwrap(), value);
        }
        assert!(Reader::new(&[0xff; 11]).varlong().is_err());
        assert!(Reader::new(&[0x80]).varlong().is_err());
    }

    #[test]
    fn lengths_are_checked() {
        assert!(Reader::new(&[0, 5, b'a']).string().is_err());
        assert!(Reader::new(&[0x7f, 0xff, 0xff, 0xff]).count(10).is_err());
        assert_eq!(Reader::new(&[0xff, 0xff]).nullable_string().unwrap(), None);
    }
}
