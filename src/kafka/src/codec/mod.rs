//! Kafka's wire format: frames, headers and the messages of every API that is served.
//!
//! A request is `size: i32 | api_key: i16 | api_version: i16 | correlation_id: i32 |
//! client_id: nullable string | [tags] | body`; a response `size: i32 | correlation_id: i32 |
//! [tags] | body`. Tags are there in flexible versions, except in the header of an ApiVersions
//! response, which a client must read before it knows what the broker speaks.
//!
//! Everything here is a pure function of bytes and bounded before it allocates (see [`wire`]).
//! Frames are cut by the connection, not here.

#[macro_use]
mod macros;
pub mod messages;
pub mod table;
pub mod wire;

use bytes::{BufMut, Bytes, BytesMut};

pub use table::{Api, ApiKey, RequestBody, ResponseBody, TABLE};
pub use wire::{CodecError, Ctx, Nullable, Reader, Records, Wire, Writer};

/// A decoded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Version of the API; the response has the same.
    pub version: i16,
    /// Returned with the response.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<String>,
    /// What is asked.
    pub body: RequestBody,
}

/// Form of the fields of a header that never are compact.
const PLAIN: Ctx = Ctx { version: 0, flexible: false };

/// Reads one request, without its size. Bytes after the body are ignored, as Kafka does.
pub fn decode_request(frame: &mut Bytes) -> Result<Request, CodecError> {
    let mut r = Reader::new(std::mem::take(frame));
    let api_key = i16::decode(&mut r, PLAIN)?;
    let version = i16::decode(&mut r, PLAIN)?;
    let correlation_id = i32::decode(&mut r, PLAIN)?;
    let api = Api::by_number(api_key).ok_or(CodecError::UnknownApi(api_key))?;
    if !(api.min..=api.max).contains(&version) {
        return Err(CodecError::UnsupportedVersion { api_key, version, correlation_id });
    }
    let ctx = api.ctx(version);
    let client_id = Option::<String>::decode(&mut r, PLAIN)?;
    r.tags(ctx, |_, _| Ok(false))?;
    let body = RequestBody::decode(api.key, &mut r, ctx)?;
    Ok(Request { version, correlation_id, client_id, body })
}

/// Writes one request with its size in front; the other side of [`decode_request`].
pub fn encode_request(request: &Request) -> Result<Vec<Bytes>, CodecError> {
    let key = request.body.key();
    let ctx = key.api().ctx(request.version);
    let mut w = Writer::default();
    key.number().encode(&mut w, PLAIN);
    request.version.encode(&mut w, PLAIN);
    request.correlation_id.encode(&mut w, PLAIN);
    request.client_id.encode(&mut w, PLAIN);
    w.tags(ctx, Vec::new());
    request.body.encode(&mut w, ctx);
    framed(w)
}

/// Writes one response with its size in front.
pub fn encode_response(
    correlation_id: i32,
    version: i16,
    body: &ResponseBody,
) -> Result<Vec<Bytes>, CodecError> {
    let key = body.key();
    let ctx = key.api().ctx(version);
    let mut w = Writer::default();
    correlation_id.encode(&mut w, PLAIN);
    if key != ApiKey::ApiVersions {
        w.tags(ctx, Vec::new());
    }
    body.encode(&mut w, ctx);
    framed(w)
}

/// Reads one response to a request of that API and version, without its size; the correlation
/// id comes with it. The other side of [`encode_response`].
pub fn decode_response(
    frame: &mut Bytes,
    key: ApiKey,
    version: i16,
) -> Result<(i32, ResponseBody), CodecError> {
    let ctx = key.api().ctx(version);
    let mut r = Reader::new(std::mem::take(frame));
    let correlation_id = i32::decode(&mut r, PLAIN)?;
    if key != ApiKey::ApiVersions {
        r.tags(ctx, |_, _| Ok(false))?;
    }
    Ok((correlation_id, ResponseBody::decode(key, &mut r, ctx)?))
}

fn framed(w: Writer) -> Result<Vec<Bytes>, CodecError> {
    let size = i32::try_from(w.len()).map_err(|_| CodecError::DoesNotFit(w.len()))?;
    let mut chunks = w.finish()?;
    let mut head = BytesMut::with_capacity(4);
    head.put_i32(size);
    chunks.insert(0, head.freeze());
    Ok(chunks)
}

#[cfg(test)]
mod counting;
#[cfg(test)]
mod oracle;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
