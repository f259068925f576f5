//! Reading and writing of Kafka's primitive types.
//!
//! A [`Reader`] never trusts a length. An array of `n` elements needs `n` times their least size
//! still to come; and all that decoding allocates is charged, before it is taken, to a budget of
//! [`DECODED_PER_BYTE`] times the message's own bytes, at most [`MAX_DECODED_BYTES`]. A [`Writer`]
//! collects chunks, so that record batches travel without a copy.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::limits::{DECODED_PER_BYTE, MAX_DECODED_BYTES, SHARED_CHUNK_BYTES};

/// Bytes that are not a Kafka message, or a message that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The message ends inside a field.
    #[error("message ends inside a field")]
    Truncated,
    /// A length is negative or exceeds what follows.
    #[error("a length of {0} is out of bounds")]
    BadLength(i64),
    /// A field that must be there in this version is null.
    #[error("a field that must not be null is null")]
    Null,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A variable-length number does not end.
    #[error("a variable-length number is too long")]
    BadVarint,
    /// The decoded form would take more memory than a request may.
    #[error("the request would take more than {MAX_DECODED_BYTES} bytes when decoded")]
    TooLarge,
    /// A value does not fit the type that the message version has for it.
    #[error("a value of {0} bytes or elements does not fit its field")]
    DoesNotFit(usize),
    /// No such API is served.
    #[error("api key {0} is not served")]
    UnknownApi(i16),
    /// The API is served, but not in this version.
    #[error("version {version} of api key {api_key} is not served")]
    UnsupportedVersion {
        /// The API.
        api_key: i16,
        /// The version asked for.
        version: i16,
        /// Correlates the answer, where there is one.
        correlation_id: i32,
    },
}

/// The version of the message at hand, and whether that version uses compact lengths and tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ctx {
    /// Version of the API.
    pub version: i16,
    /// Whether the version is a flexible one (KIP-482).
    pub flexible: bool,
}

/// A type that stands in messages.
pub trait Wire: Sized {
    /// Reads a value.
    fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, CodecError>;
    /// Writes a value.
    fn encode(&self, w: &mut Writer, ctx: Ctx);
    /// The fewest bytes that a value takes; at least 1.
    fn min_bytes(ctx: Ctx) -> usize;
    /// Whether this is the null of a type that has one.
    fn is_null(&self) -> bool {
        false
    }

    /// Names every value of a field `error_code`, at any depth; this value is the field `field`.
    fn errors(&self, field: &str, note: &mut dyn FnMut(i16)) {
        // Most types hold none.
        let _ = (field, note);
    }
}

/// Reads a message.
#[derive(Debug)]
pub struct Reader {
    bytes: Bytes,
    budget: usize,
}

impl Reader {
    /// A reader over one whole message.
    pub fn new(bytes: Bytes) -> Self {
        let budget = bytes.len().saturating_mul(DECODED_PER_BYTE).min(MAX_DECODED_BYTES);
        Self { bytes, budget }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// The next `len` bytes, without a copy.
    pub fn take(&mut self, len: usize) -> Result<Bytes, CodecError> {
        if len > self.bytes.len() {
            return Err(CodecError::Truncated);
        }
        Ok(self.bytes.split_to(len))
    }

    fn charge(&mut self, bytes: usize) -> Result<(), CodecError> {
        self.budget = self.budget.checked_sub(bytes).ok_or(CodecError::TooLarge)?;
        Ok(())
    }

    /// An unsigned number of at most 32 bits in groups of seven.
    pub fn uvarint(&mut self) -> Result<u32, CodecError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.bytes.try_get_u8().map_err(|_| CodecError::Truncated)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| CodecError::BadVarint);
            }
        }
        Err(CodecError::BadVarint)
    }

    /// A length whose null form is −1, or 0 in flexible versions.
    fn length(&mut self, ctx: Ctx, wide: Wide) -> Result<Option<usize>, CodecError> {
        let length = if ctx.flexible {
            i64::from(self.uvarint()?) - 1
        } else if wide == Wide::No {
            i64::from(i16::decode(self, ctx)?)
        } else {
            i64::from(i32::decode(self, ctx)?)
        };
        if length == -1 {
            return Ok(None);
        }
        let bounded = usize::try_from(length).ok().filter(|n| *n <= self.remaining());
        bounded.map(Some).ok_or(CodecError::BadLength(length))
    }

    /// Reads the tagged fields of a flexible message; `known` reads a field and says whether it
    /// knew the tag.
    pub fn tags(
        &mut self,
        ctx: Ctx,
        mut known: impl FnMut(u32, &mut Reader) -> Result<bool, CodecError>,
    ) -> Result<(), CodecError> {
        if !ctx.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let size = usize::try_from(self.uvarint()?).map_err(|_| CodecError::Truncated)?;
            let mut field = Reader { bytes: self.take(size)?, budget: self.budget };
            known(tag, &mut field)?;
            self.budget = field.budget;
        }
        Ok(())
    }
}

/// Whether a length takes four bytes instead of two in versions that are not flexible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wide {
    No,
    Yes,
}

/// Writes a message as a list of chunks.
#[derive(Debug, Default)]
pub struct Writer {
    chunks: Vec<Bytes>,
    chunk_bytes: usize,
    tail: BytesMut,
    error: Option<CodecError>,
}

impl Writer {
    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.chunk_bytes + self.tail.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The chunks of the message, unless a value did not fit its field in this version.
    pub fn finish(mut self) -> Result<Vec<Bytes>, CodecError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.seal();
        Ok(self.chunks)
    }

    /// The message cannot be written.
    pub fn fail(&mut self, error: CodecError) {
        self.error.get_or_insert(error);
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.push(tail);
        }
    }

    fn push(&mut self, chunk: Bytes) {
        self.chunk_bytes += chunk.len();
        self.chunks.push(chunk);
    }

    /// Raw bytes: large ones are shared, small ones copied.
    pub fn raw(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARED_CHUNK_BYTES {
            self.tail.put_slice(bytes);
            return;
        }
        self.seal();
        self.push(bytes.clone());
    }

    fn append(&mut self, other: Writer) {
        self.error = self.error.take().or(other.error);
        for chunk in &other.chunks {
            self.raw(chunk);
        }
        self.tail.put_slice(&other.tail);
    }

    /// An unsigned number in groups of seven bits.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.tail.put_u8(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.tail.put_u8(u8::try_from(value).unwrap_or_default());
    }

    fn length(&mut self, ctx: Ctx, wide: Wide, length: Option<usize>) {
        let Some(length) = length else {
            match (ctx.flexible, wide) {
                (true, _) => self.uvarint(0),
                (false, Wide::No) => self.tail.put_i16(-1),
                (false, Wide::Yes) => self.tail.put_i32(-1),
            }
            return;
        };
        let fits = match (ctx.flexible, wide) {
            (true, _) => u32::try_from(length + 1).map(|n| self.uvarint(n)).is_ok(),
            (false, Wide::No) => i16::try_from(length).map(|n| self.tail.put_i16(n)).is_ok(),
            (false, Wide::Yes) => i32::try_from(length).map(|n| self.tail.put_i32(n)).is_ok(),
        };
        if !fits {
            self.fail(CodecError::DoesNotFit(length));
        }
    }

    /// Writes tagged fields, in ascending order of tags, in a flexible message.
    pub fn tags(&mut self, ctx: Ctx, fields: Vec<(u32, Writer)>) {
        if !ctx.flexible {
            return;
        }
        self.uvarint(u32::try_from(fields.len()).unwrap_or_default());
        for (tag, field) in fields {
            self.uvarint(tag);
            match u32::try_from(field.len()) {
                Ok(size) => self.uvarint(size),
                Err(_) => self.fail(CodecError::DoesNotFit(field.len())),
            }
            self.append(field);
        }
    }
}

macro_rules! numbers {
    ($($t:ty, $get:ident, $put:ident;)*) => {$(
        impl Wire for $t {
            fn decode(r: &mut Reader, _ctx: Ctx) -> Result<Self, CodecError> {
                r.bytes.$get().map_err(|_| CodecError::Truncated)
            }

            fn encode(&self, w: &mut Writer, _ctx: Ctx) {
                w.tail.$put(*self);
            }

            fn min_bytes(_ctx: Ctx) -> usize {
                size_of::<Self>()
            }
        }
    )*};
}

numbers! {
    i8, try_get_i8, put_i8;
    u16, try_get_u16, put_u16;
    i32, try_get_i32, put_i32;
    i64, try_get_i64, put_i64;
}

impl Wire for i16 {
    fn decode(r: &mut Reader, _ctx: Ctx) -> Result<Self, CodecError> {
        r.bytes.try_get_i16().map_err(|_| CodecError::Truncated)
    }

    fn encode(&self, w: &mut Writer, _ctx: Ctx) {
        w.tail.put_i16(*self);
    }

    fn min_bytes(_ctx: Ctx) -> usize {
        2
    }

    fn errors(&self, field: &str, note: &mut dyn FnMut(i16)) {
        if field == "error_code" {
            note(*self);
        }
    }
}

/// A 64-bit floating point number, by its bits: messages are compared in tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Double(u64);

impl Double {
    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f64> for Double {
    fn from(value: f64) -> Self {
        Self(value.to_bits())
    }
}

impl Wire for Double {
    fn decode(r: &mut Reader, _ctx: Ctx) -> Result<Self, CodecError> {
        r.bytes.try_get_u64().map(Self).map_err(|_| CodecError::Truncated)
    }

    fn encode(&self, w: &mut Writer, _ctx: Ctx) {
        w.tail.put_u64(self.0);
    }

    fn min_bytes(_ctx: Ctx) -> usize {
        8
    }
}

impl Wire for bool {
    fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, CodecError> {
        Ok(i8::decode(r, ctx)? != 0)
    }

    fn encode(&self, w: &mut Writer, ctx: Ctx) {
        i8::from(*self).encode(w, ctx);
    }

    fn min_bytes(_ctx: Ctx) -> usize {
        1
    }
}

impl Wire for Uuid {
    fn decode(r: &mut Reader, _ctx: Ctx) -> Result<Self, CodecError> {
        let bytes = r.take(16)?;
        Uuid::from_slice(&bytes).map_err(|_| CodecError::Truncated)
    }

    fn encode(&self, w: &mut Writer, _ctx: Ctx) {
        w.tail.put_slice(self.as_bytes());
    }

    fn min_bytes(_ctx: Ctx) -> usize {
        16
    }
}

impl Wire for Option<String> {
    fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, CodecError> {
        let Some(length) = r.length(ctx, Wide::No)? else { return Ok(None) };
        // Kafka's bound, which the length of a version that is not flexible cannot exceed.
        if length > i16::MAX as usize {
            return Err(CodecError::BadLength(length as i64));
        }
        r.charge(length)?;
        let bytes = r.take(length)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| CodecError::NotUtf8)?;
        Ok(Some(text.to_owned()))
    }

    fn encode(&self, w: &mut Writer, ctx: Ctx) {
        w.length(ctx, Wide::No, self.as_ref().map(String::len));
        w.tail.put_slice(self.as_deref().unwrap_or_default().as_bytes());
    }

    fn min_bytes(ctx: Ctx) -> usize {
        String::min_bytes(ctx)
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }
}

impl Wire for String {
    fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, CodecError> {
        Option::<Self>::decode(r, ctx)?.ok_or(CodecError::Null)
    }

    fn encode(&self, w: &mut Writer, ctx: Ctx) {
        w.length(ctx, Wide::No, Some(self.len()));
        w.tail.put_slice(self.as_bytes());
    }

    fn min_bytes(ctx: Ctx) -> usize {
        if ctx.flexible { 1 } else { 2 }
    }
}

impl Wire for Option<Bytes> {
    fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, CodecError> {
        let length = r.length(ctx, Wide::Yes)?;
        length.map(|length| r.take(length)).transpose()
    }

    fn encode(&self, w: &mut Writer, ctx: Ctx) {
        w.length(ctx, Wide::Yes, self.as_ref().map(Bytes::len));
        if let Some(bytes) = self {
            w.raw(bytes);
        }
    }

    fn min_bytes(ctx: Ctx) -> usize {
        Bytes::min_bytes(ctx)
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }
}

impl Wire for Bytes {
    fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, CodecError> {
        Option::<Self>::decode(r, ctx)?.ok_or(CodecError::Null)
    }

    fn encode(&self, w: &mut Writer, ctx: Ctx) {
        w.length(ctx, Wide::Yes, Some(self.len()));
        w.raw(self);
    }

    fn min_bytes(ctx: Ctx) -> usize {
        if ctx.flexible { 1 } else { 4 }
    }
}

/// Record batches back to back. Null on the wire reads as empty; empty is written with length 0,
/// because librdkafka takes null for a broken answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(pub Vec<Bytes>);

impl Wire for Records {
    fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, CodecError> {
        Ok(Self(Option::<Bytes>::decode(r, ctx)?.into_iter().collect()))
    }

    fn encode(&self, w: &mut Writer, ctx: Ctx) {
        w.length(ctx, Wide::Yes, Some(self.0.iter().map(Bytes::len).sum()));
        for part in &self.0 {
            w.raw(part);
        }
    }

    fn min_bytes(ctx: Ctx) -> usize {
        Bytes::min_bytes(ctx)
    }
}

/// A structure that may be null: a byte says whether it follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nullable<T>(pub Option<T>);

impl<T: Wire> Wire for Nullable<T> {
    fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, CodecError> {
        match i8::decode(r, ctx)? {
            mark if mark < 0 => Ok(Self(None)),
            _ => Ok(Self(Some(T::decode(r, ctx)?))),
        }
    }

    fn encode(&self, w: &mut Writer, ctx: Ctx) {
        match &self.0 {
            None => (-1i8).encode(w, ctx),
            Some(value) => {
                1i8.encode(w, ctx);
                value.encode(w, ctx);
            }
        }
    }

    fn min_bytes(_ctx: Ctx) -> usize {
        1
    }

    fn is_null(&self) -> bool {
        self.0.is_none()
    }

    fn errors(&self, field: &str, note: &mut dyn FnMut(i16)) {
        self.0.iter().for_each(|item| item.errors(field, note));
    }
}

impl<T: Wire> Wire for Option<Vec<T>> {
    fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, CodecError> {
        let Some(count) = r.length(ctx, Wide::Yes)? else { return Ok(None) };
        let (in_memory, on_wire) = (size_of::<T>().max(1), T::min_bytes(ctx));
        debug_assert!(in_memory <= DECODED_PER_BYTE * on_wire, "an honest message is not refused");
        if count > r.remaining() / on_wire {
            return Err(CodecError::BadLength(i64::try_from(count).unwrap_or(i64::MAX)));
        }
        // All at once: a vector that grows by itself takes up to three times what it holds.
        r.charge(count.saturating_mul(in_memory))?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::decode(r, ctx)?);
        }
        Ok(Some(items))
    }

    fn encode(&self, w: &mut Writer, ctx: Ctx) {
        w.length(ctx, Wide::Yes, self.as_ref().map(Vec::len));
        for item in self.iter().flatten() {
            item.encode(w, ctx);
        }
    }

    fn min_bytes(ctx: Ctx) -> usize {
        Vec::<T>::min_bytes(ctx)
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }

    fn errors(&self, field: &str, note: &mut dyn FnMut(i16)) {
        self.iter().flatten().for_each(|item| item.errors(field, note));
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, CodecError> {
        Option::<Self>::decode(r, ctx)?.ok_or(CodecError::Null)
    }

    fn encode(&self, w: &mut Writer, ctx: Ctx) {
        w.length(ctx, Wide::Yes, Some(self.len()));
        for item in self {
            item.encode(w, ctx);
        }
    }

    fn min_bytes(ctx: Ctx) -> usize {
        if ctx.flexible { 1 } else { 4 }
    }

    fn errors(&self, field: &str, note: &mut dyn FnMut(i16)) {
        self.iter().for_each(|item| item.errors(field, note));
    }
}
