//! Operations with file content.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base::Clock;
use blocks::limits::PACK_BLOCK_BYTES;
use blocks::{Caller, Writer};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use crate::error::Refusal;
use crate::handler::{App, ascii, authority, create_options, not_found};
use crate::json;
use crate::limits::{BODY_PATIENCE, MIN_BODY_BYTES_PER_S};
use crate::ops::Op;
use crate::params::Call;

pub(crate) async fn serve(
    app: &Arc<App>,
    who: &Caller,
    call: &Call,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    match call.op {
        Op::Create => {
            create(app, who, call, body).await?;
            let name_node = authority(headers, &app.config.advertised_name_node);
            let path = percent_encoding::utf8_percent_encode(&call.path, PATH).to_string();
            let location = format!("webhdfs://{name_node}{}", ascii(&path));
            let headers = [(header::LOCATION, location)];
            Ok((StatusCode::CREATED, headers, Body::empty()).into_response())
        }
        Op::Append => {
            append(app, who, call, body).await?;
            Ok((StatusCode::OK, Body::empty()).into_response())
        }
        Op::GetFileChecksum => {
            let sum = app.service.checksum(who, &call.path).await;
            let sum = sum.map_err(|e| not_found(e, &call.path))?;
            Ok(axum::Json(json::checksum(&sum)).into_response())
        }
        _ => open(app, who, call).await,
    }
}

/// What is encoded in the path of a `Location`.
const PATH: &percent_encoding::AsciiSet =
    &percent_encoding::CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'?');

/// Start and length of what `OPEN` asks for.
pub(crate) fn range(call: &Call, len: u64) -> Result<(u64, u64), Refusal> {
    let offset = call.unsigned("offset")?.unwrap_or(0);
    if offset > len {
        let path = &call.path;
        return Err(Refusal::io(format!(
            "Offset={offset} out of the range [0, {len}); OPEN, path={path}"
        )));
    }
    let rest = len - offset;
    Ok((offset, call.unsigned("length")?.map_or(rest, |length| length.min(rest))))
}

async fn open(app: &App, who: &Caller, call: &Call) -> Result<Response, Refusal> {
    let file = app.service.open(who, &call.path).await.map_err(|e| not_found(e, &call.path))?;
    let (offset, length) = range(call, file.len())?;
    let mut pieces = Box::pin(file.stream(offset, length));
    // The first piece is read before the head is sent, so that its failure can be told.
    let first = pieces.next().await.transpose()?.unwrap_or_default();
    let rest = futures::stream::once(async { Ok(first) }).chain(pieces);
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((StatusCode::OK, headers, Body::from_stream(rest)).into_response())
}

/// A request's body, bounded in time.
struct Upload {
    parts: BodyDataStream,
    clock: Arc<dyn Clock>,
    started: Duration,
    received: u64,
}

impl Upload {
    fn new(app: &App, body: Body) -> Self {
        let started = app.clock.monotonic();
        Self { parts: body.into_data_stream(), clock: app.clock.clone(), started, received: 0 }
    }

    /// The next part; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let next = tokio::time::timeout(BODY_PATIENCE, self.parts.next()).await;
        let part = match next.map_err(|_| Refusal::io("the body stalled"))? {
            None => return Ok(None),
            Some(part) => part.map_err(|e| Refusal::io(format!("the body broke off: {e}")))?,
        };
        self.received += part.len() as u64;
        let seconds = self.clock.monotonic().saturating_sub(self.started).as_secs();
        let overdue = seconds > BODY_PATIENCE.as_secs();
        if overdue && self.received / seconds.max(1) < MIN_BODY_BYTES_PER_S {
            return Err(Refusal::io("the body comes too slowly"));
        }
        Ok(Some(part))
    }

    /// What comes first: all of a small body, or the start of a large one.
    async fn start(&mut self) -> Result<(Bytes, bool), Refusal> {
        let mut head = BytesMut::new();
        while head.len() <= PACK_BLOCK_BYTES {
            match self.next().await? {
                Some(part) => head.extend_from_slice(&part),
                None => return Ok((head.freeze(), true)),
            }
        }
        Ok((head.freeze(), false))
    }

    /// Writes the rest. A body that breaks off leaves no new file.
    async fn write(mut self, mut writer: Writer, head: Bytes) -> Result<(), Refusal> {
        let mut next = Ok(Some(head));
        while let Ok(Some(part)) = next {
            writer.write(part).await?;
            next = self.next().await;
        }
        match next {
            Ok(_) => Ok(writer.close().await?),
            Err(refusal) => {
                writer.abort().await?;
                Err(refusal)
            }
        }
    }
}

async fn create(app: &App, who: &Caller, call: &Call, body: Body) -> Result<(), Refusal> {
    let options = create_options(call)?;
    let mut upload = Upload::new(app, body);
    let (head, whole) = upload.start().await?;
    if whole {
        return Ok(app.service.create_whole(who, &call.path, options, head).await?);
    }
    let writer = app.service.create(who, &call.path, options).await?;
    upload.write(writer, head).await
}

async fn append(app: &App, who: &Caller, call: &Call, body: Body) -> Result<(), Refusal> {
    let mut upload = Upload::new(app, body);
    let (head, whole) = upload.start().await?;
    let writer = app.service.append(who, &call.path).await;
    let mut writer = writer.map_err(|e| not_found(e, &call.path))?;
    if whole {
        writer.write(head).await?;
        return Ok(writer.close().await?);
    }
    upload.write(writer, head).await
}
