//! The port: HTTP in, [`App`] out.
//!
//! Every length and time is bounded: head and body have deadlines, bodies of all requests share
//! a budget of bytes, and only so many requests are answered at once; further ones wait.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Response};
use base::TaskGroup;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use index::EsError;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::app::{App, Client, Request};
use crate::limits::{
    BODIES_BYTES, BODY_TIMEOUT, GZIP_FROM_BYTES, HEAD_TIMEOUT, MAX_BODY_BYTES, MAX_CONNECTIONS,
    MAX_REQUESTS, MAX_URL_BYTES, SMALL_BODY_KIB, SMALL_BODY_SHARE,
};
use crate::reply::{Reply, Style, render};
use crate::routes::{NotFound, find};

/// The running port.
pub struct ElasticGateway {
    /// The address it listens on.
    pub addr: SocketAddr,
}

/// What the port takes from its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections; further ones are closed at once.
    pub connections: usize,
    /// Largest request body, before and after decompression, in bytes.
    pub body_bytes: usize,
    /// Bodies of all requests together, in bytes; at least twice a body.
    pub bodies_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let (connections, body_bytes) = (MAX_CONNECTIONS, MAX_BODY_BYTES);
        Self { connections, body_bytes, bodies_bytes: BODIES_BYTES }
    }
}

/// What all connections share.
pub struct Shared {
    app: App,
    limits: Limits,
    requests: Semaphore,
    /// Budgets of bodies in KiB: large ones that are slow to arrive do not keep out small ones.
    small_kib: Semaphore,
    large_kib: Semaphore,
}

impl Shared {
    /// Wraps an app with its limits.
    pub fn new(app: App, limits: Limits) -> Self {
        let kib = limits.bodies_bytes / 1024;
        let small = kib / SMALL_BODY_SHARE;
        Self {
            app,
            limits,
            requests: Semaphore::new(MAX_REQUESTS),
            small_kib: Semaphore::new(small),
            large_kib: Semaphore::new(kib - small),
        }
    }
}

impl ElasticGateway {
    /// Serves `app` on `listener` until the tasks are told to stop.
    pub fn start(
        listener: TcpListener,
        app: App,
        limits: Limits,
        tasks: &TaskGroup,
    ) -> std::io::Result<Self> {
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new(app, limits));
        tasks.spawn("elastic-accept", accept(listener, shared, tasks.clone()));
        Ok(Self { addr })
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskGroup) {
    let connections = Arc::new(Semaphore::new(shared.limits.connections));
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others will close.
                tracing::warn!("the Elasticsearch port cannot accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else { continue };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("no TCP_NODELAY: {error}");
        }
        let shared = shared.clone();
        tasks.spawn("elastic-connection", async move {
            let _permit = permit;
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let shared = shared.clone();
                async move {
                    let request = request.map(Body::new);
                    Ok::<_, std::convert::Infallible>(shared.answer(request).await)
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(64 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!("an Elasticsearch connection ended: {error}");
            }
        });
    }
}

impl Shared {
    /// Answers one request.
    pub async fn answer(&self, request: hyper::Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let style = style_of(&head);
        let gzip = accepts_gzip(&head.headers);
        let reply = match self.run(&head, body).await {
            Ok(reply) => reply,
            Err(error) => error.into(),
        };
        compress(render(reply, &style), gzip && !style.head).await
    }

    async fn run(&self, head: &hyper::http::request::Parts, body: Body) -> Result<Reply, EsError> {
        let uri = head.uri.path_and_query().map_or("/", |p| p.as_str());
        if uri.len() > MAX_URL_BYTES {
            return Err(EsError::new(
                400,
                "too_long_http_line_exception",
                format!("An HTTP line is larger than {MAX_URL_BYTES} bytes."),
            ));
        }
        let (path, method) = (head.uri.path(), head.method.as_str());
        let found = match find(method, path, head.uri.query().unwrap_or("")) {
            Ok(found) => found,
            Err(NotFound::Path) => return Ok(no_handler(uri, method)),
            Err(NotFound::Method(allowed)) => return Ok(wrong_method(uri, method, &allowed)),
            Err(NotFound::Bad(error)) => return Err(error),
        };
        let most = self.limits.body_bytes;
        let kib = body_kib(&head.headers, most)?;
        let budget = if kib <= SMALL_BODY_KIB { &self.small_kib } else { &self.large_kib };
        let _room = budget.acquire_many(kib).await;
        let body = read_body(&head.headers, body, most).await?;
        // Only now: who is slow to send must not keep out who has sent.
        let _turn = self.requests.acquire().await;
        if !body.is_empty()
            && let Some(reply) = refuse_media_type(&head.headers)
        {
            return Ok(reply);
        }
        let mut params = found.params;
        if path.starts_with("/_cat") && params.get("format").is_none() && wants_json(head) {
            params.set("format", "json");
        }
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            params,
            body,
            client: client_of(&head.headers),
        };
        self.app.dispatch(found.endpoint, &request).await
    }
}

fn no_handler(uri: &str, method: &str) -> Reply {
    let text = format!("no handler found for uri [{uri}] and method [{method}]");
    Reply::with(400, json!({"error": text}))
}

fn wrong_method(uri: &str, method: &str, allowed: &[&str]) -> Reply {
    let list = allowed.join(", ");
    let text =
        format!("Incorrect HTTP method for uri [{uri}] and method [{method}], allowed: [{list}]");
    let mut reply = Reply::with(405, json!({"error": text, "status": 405}));
    reply.headers.push(("allow", allowed.join(",")));
    reply
}

fn header<'a>(headers: &'a HeaderMap, name: &hyper::header::HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Budget of the body in KiB: what it says, or the largest when it does not say.
fn body_kib(headers: &HeaderMap, most: usize) -> Result<u32, EsError> {
    let text = header(headers, &CONTENT_LENGTH);
    let chunked = headers.contains_key("transfer-encoding");
    let zipped = !header(headers, &CONTENT_ENCODING).is_empty();
    let length = match text.parse::<usize>() {
        Ok(length) if length > most => return Err(too_large(most)),
        // A zipped body grows, usually about tenfold.
        Ok(length) if zipped => length.saturating_mul(10).min(most),
        Ok(length) => length,
        Err(_) if chunked => most / 4,
        Err(_) => 0,
    };
    Ok(u32::try_from(length / 1024).unwrap_or(u32::MAX))
}

fn too_large(most: usize) -> EsError {
    EsError::new(
        413,
        "content_too_long_exception",
        format!("entity content is too long for the configured buffer limit [{most}]"),
    )
}

async fn read_body(headers: &HeaderMap, body: Body, most: usize) -> Result<Bytes, EsError> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, most)).await;
    let read = read.map_err(|_| {
        EsError::new(408, "timeout_exception", "the request body did not arrive in time")
    })?;
    let body = read.map_err(|_| too_large(most))?;
    match header(headers, &CONTENT_ENCODING) {
        "" | "identity" => Ok(body),
        "gzip" => {
            let unzipped = tokio::task::spawn_blocking(move || gunzip(&body, most)).await;
            unzipped.map_err(|e| EsError::internal(e.to_string()))?
        }
        other => Err(EsError::illegal(format!("Content-Encoding [{other}] is not supported"))),
    }
}

/// Never more than the limit, however small the input is.
fn gunzip(body: &[u8], most: usize) -> Result<Bytes, EsError> {
    let mut out = Vec::new();
    let limit = most as u64 + 1;
    GzDecoder::new(body)
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|e| EsError::illegal(format!("the gzip body is damaged: {e}")))?;
    if out.len() > most { Err(too_large(most)) } else { Ok(out.into()) }
}

/// Media types other than JSON and lines of JSON are refused.
fn refuse_media_type(headers: &HeaderMap) -> Option<Reply> {
    let full = header(headers, &CONTENT_TYPE);
    let kind = full.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let known = [
        "application/json",
        "application/x-ndjson",
        "application/vnd.elasticsearch+json",
        "application/vnd.elasticsearch+x-ndjson",
        // What curl sends without a header: Elasticsearch refuses it.
    ];
    if known.contains(&kind.as_str()) {
        return None;
    }
    let text = if full.is_empty() {
        "Content-Type header is missing".to_owned()
    } else {
        format!("Content-Type header [{full}] is not supported")
    };
    Some(Reply::with(406, json!({"error": text, "status": 406})))
}

fn client_of(headers: &HeaderMap) -> Client {
    let agent = header(headers, &hyper::header::USER_AGENT);
    for name in [ACCEPT, CONTENT_TYPE] {
        let value = header(headers, &name);
        if value.contains("compatible-with=8") {
            return Client::Eight;
        }
        if value.contains("compatible-with=9") {
            return Client::Nine;
        }
    }
    if agent.starts_with("opensearch") { Client::Fork } else { Client::Plain }
}

fn style_of(head: &hyper::http::request::Parts) -> Style {
    let params = crate::params::Params::parse(head.uri.query().unwrap_or("")).unwrap_or_default();
    let accept = header(&head.headers, &ACCEPT);
    let vendor = accept
        .split(',')
        .map(str::trim)
        .find(|kind| kind.starts_with("application/vnd.elasticsearch+json"));
    let is_yaml = |text: &str| text.starts_with("application/yaml") || text == "yaml";
    Style {
        pretty: params.flag("pretty", false).unwrap_or(false),
        filter: params.get("filter_path").filter(|f| !f.is_empty()).map(str::to_owned),
        vendor: vendor.map(str::to_owned),
        head: head.method == hyper::Method::HEAD,
        yaml: params.get("format").map_or_else(|| is_yaml(accept), is_yaml),
    }
}

/// Whether the client accepts JSON alone: then tables are JSON too.
fn wants_json(head: &hyper::http::request::Parts) -> bool {
    let accept = header(&head.headers, &ACCEPT).trim();
    let kinds = ["application/json", "application/vnd.elasticsearch+json"];
    !accept.contains(',') && kinds.iter().any(|kind| accept.starts_with(kind))
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = header(headers, &ACCEPT_ENCODING).split(',');
    accepted.map(str::trim).any(|coding| coding == "gzip" || coding.starts_with("gzip;"))
}

async fn compress(response: Response<Body>, wanted: bool) -> Response<Body> {
    if !wanted {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return Response::from_parts(head, Body::empty());
    };
    if bytes.len() < GZIP_FROM_BYTES {
        return Response::from_parts(head, Body::from(bytes));
    }
    let mut out = Vec::new();
    match GzEncoder::new(bytes.as_ref(), Compression::fast()).read_to_end(&mut out) {
        Ok(_) => {
            head.headers.insert(CONTENT_ENCODING, hyper::header::HeaderValue::from_static("gzip"));
            Response::from_parts(head, Body::from(out))
        }
        Err(_) => Response::from_parts(head, Body::from(bytes)),
    }
}

/// An error that a HEAD request cannot show.
pub(crate) fn unsupported(request: &Request) -> EsError {
    EsError::illegal(format!(
        "request [{}] with method [{}] is not supported by this server",
        request.path, request.method
    ))
}

/// The body of an answer as JSON; for tests.
#[cfg(test)]
pub(crate) async fn json_of(response: Response<Body>) -> (u16, serde_json::Value) {
    use serde_json::Value;

    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    (status, value)
}
