//! The beginning of a connection on a SASL listener: who is it?
//!
//! ApiVersions at most once, then SaslHandshake, then tokens: inside SaslAuthenticate after a
//! handshake of version 1, bare with a length before them after one of version 0 (KIP-152).
//! Anything else closes the connection without an answer, as in Kafka. A failure is answered after
//! a delay (`connection.failed.authentication.delay.ms`) and closes the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use secure::limits::MAX_SASL_BYTES;
use secure::sasl::{Mechanism, Progress, SaslError, SaslServer};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use crate::caller::Caller;
use crate::codec::messages::{
    SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use crate::codec::{self, ApiKey, CodecError, Request, RequestBody, ResponseBody};
use crate::connection::{End, Frame, write};
use crate::errors;
use crate::gateway::Shared;
use crate::handlers;

/// Which sizes of requests a connection may send now.
pub(crate) struct Bounds {
    min: AtomicUsize,
    max: AtomicUsize,
    known: AtomicBool,
}

/// A request header takes eight bytes.
const HEADER: usize = 8;

impl Bounds {
    /// For a client that need not prove who it is, or has yet to.
    pub(crate) fn new(max: usize, known: bool) -> Self {
        let max = if known { max } else { MAX_SASL_BYTES.min(max) };
        let (min, max) = (AtomicUsize::new(HEADER), AtomicUsize::new(max));
        Self { min, max, known: AtomicBool::new(known) }
    }

    /// Whether the client need not prove who it is, or has.
    pub(crate) fn are_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Whether a request of that size may come.
    pub(crate) fn admit(&self, bytes: usize) -> bool {
        let (min, max) = (self.min.load(Ordering::Relaxed), self.max.load(Ordering::Relaxed));
        (min..=max).contains(&bytes)
    }

    fn set(&self, min: usize, max: usize) {
        self.min.store(min, Ordering::Relaxed);
        self.max.store(max, Ordering::Relaxed);
    }
}

/// How tokens travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrapping {
    /// In SaslAuthenticate.
    Requests,
    /// Bare.
    Bare,
}

/// Who the client was before, and how it proved it, when it has to prove it again.
pub(crate) struct Before {
    pub(crate) principal: String,
    pub(crate) mechanism: Mechanism,
}

/// A client that proved who it is.
pub(crate) struct Proven {
    pub(crate) caller: Caller,
    pub(crate) mechanism: Mechanism,
}

/// What authenticating works with.
pub(crate) struct Conversation<'a, W> {
    pub(crate) shared: &'a Shared,
    pub(crate) frames: &'a mut mpsc::Receiver<Frame>,
    pub(crate) writer: &'a mut W,
    pub(crate) peer: SocketAddr,
    pub(crate) bounds: &'a Bounds,
    pub(crate) before: Option<Before>,
}

impl<W: AsyncWrite + Unpin> Conversation<'_, W> {
    /// Finds out who the client is. `first` is a handshake that has been read already.
    pub(crate) async fn run(mut self, first: Option<Frame>) -> Result<Proven, End> {
        self.bounds.set(HEADER, MAX_SASL_BYTES.min(self.shared.config.max_request_bytes));
        let (mechanism, wrapping) = self.handshake(first).await?;
        if let Some(before) = &self.before
            && before.mechanism != mechanism
        {
            self.shared.backend.security.audit().refused();
            return Err(End::Refused);
        }
        if wrapping == Wrapping::Bare {
            self.bounds.set(0, MAX_SASL_BYTES.min(self.shared.config.max_request_bytes));
        }
        let caller = self.exchange(mechanism, wrapping).await?;
        self.shared.backend.security.audit().authenticated();
        Ok(Proven { caller, mechanism })
    }

    async fn frame(&mut self) -> Result<Frame, End> {
        self.frames.recv().await.ok_or(End::Closed)
    }

    async fn send(&mut self, request: &Request, body: ResponseBody) -> Result<(), End> {
        let chunks = codec::encode_response(request.correlation_id, request.version, &body)?;
        write(self.writer, chunks).await
    }

    async fn handshake(&mut self, mut first: Option<Frame>) -> Result<(Mechanism, Wrapping), End> {
        let mut told_versions = first.is_some();
        loop {
            let Frame { bytes, permit } = match first.take() {
                Some(frame) => frame,
                None => self.frame().await?,
            };
            let key = api_key(&bytes);
            let versions = ApiKey::ApiVersions.number();
            if key != Some(ApiKey::SaslHandshake.number())
                && (key != Some(versions) || told_versions)
            {
                return Err(End::NotAuthenticated(key.unwrap_or(-1)));
            }
            match codec::decode_request(&mut bytes.clone()) {
                Ok(request) => match &request.body {
                    RequestBody::SaslHandshake(wanted) => {
                        return self.choose(&request, wanted).await;
                    }
                    RequestBody::ApiVersions(body) => {
                        let version = request.version;
                        let answer = handlers::cluster::api_versions(body.clone(), version);
                        told_versions = answer.error_code == errors::NONE;
                        self.send(&request, answer.into()).await?;
                    }
                    _ => return Err(End::NotAuthenticated(key.unwrap_or(-1))),
                },
                Err(CodecError::UnsupportedVersion { api_key, correlation_id, .. })
                    if api_key == versions =>
                {
                    let body = handlers::cluster::unsupported_api_versions();
                    let chunks = codec::encode_response(correlation_id, 0, &body)?;
                    write(self.writer, chunks).await?;
                }
                Err(error) => return Err(error.into()),
            }
            drop(permit);
        }
    }

    async fn choose(
        &mut self,
        request: &Request,
        wanted: &SaslHandshakeRequest,
    ) -> Result<(Mechanism, Wrapping), End> {
        let offered = &self.shared.config.security.mechanisms;
        let names = offered.iter().map(|m| m.name().to_owned()).collect();
        let chosen = Mechanism::of_name(&wanted.mechanism).filter(|m| offered.contains(m));
        let error_code = match chosen {
            Some(_) => errors::NONE,
            None => errors::UNSUPPORTED_SASL_MECHANISM,
        };
        let body = SaslHandshakeResponse { error_code, mechanisms: names };
        let Some(mechanism) = chosen else {
            self.failed().await;
            self.send(request, body.into()).await?;
            return Err(End::Refused);
        };
        self.send(request, body.into()).await?;
        let wrapping = if request.version == 0 { Wrapping::Bare } else { Wrapping::Requests };
        Ok((mechanism, wrapping))
    }

    async fn exchange(&mut self, mechanism: Mechanism, wrapping: Wrapping) -> Result<Caller, End> {
        let mut server = SaslServer::new(mechanism);
        loop {
            let Frame { bytes, permit } = self.frame().await?;
            let (token, request) = match wrapping {
                Wrapping::Bare => (bytes, None),
                Wrapping::Requests => {
                    let (token, request) = unwrapped(bytes)?;
                    (token, Some(request))
                }
            };
            let result;
            (server, result) = self.shared.backend.security.step(server, token).await;
            drop(permit);
            let result = result.and_then(|progress| self.same_user(progress));
            match result {
                Ok(Progress::Challenge(token)) => self.reply(request, token, 0).await?,
                Ok(Progress::Done { token, user }) => {
                    let lifetime = self.shared.config.security.max_reauth;
                    let expires = lifetime.map(|lifetime| now() + lifetime);
                    let max = self.shared.config.max_request_bytes;
                    // Before the client hears of it and sends more.
                    self.bounds.set(HEADER, max);
                    self.bounds.known.store(true, Ordering::Relaxed);
                    let lifetime_ms = lifetime.map_or(0, |l| l.as_millis());
                    let lifetime_ms = i64::try_from(lifetime_ms).unwrap_or(i64::MAX);
                    self.reply(request, token, lifetime_ms).await?;
                    return Ok(Caller::of_user(self.peer, &user, expires));
                }
                Err(error) => {
                    debug!(peer = %self.peer, mechanism = mechanism.name(), %error, "not let in");
                    self.failed().await;
                    if let Some(request) = request {
                        let text = self.text_of(mechanism, error);
                        let body = SaslAuthenticateResponse {
                            error_code: errors::SASL_AUTHENTICATION_FAILED,
                            error_message: Some(text),
                            ..Default::default()
                        };
                        self.send(&request, body.into()).await?;
                    }
                    return Err(End::Refused);
                }
            }
        }
    }

    /// KIP-368: a connection keeps its principal.
    fn same_user(&self, progress: Progress) -> Result<Progress, SaslError> {
        if let (Some(before), Progress::Done { user, .. }) = (&self.before, &progress) {
            let principal = format!("User:{user}");
            if before.principal != principal {
                let dotted = |p: &str| p.replacen(':', ".", 1);
                return Err(SaslError::Told(format!(
                    "Cannot change principals during re-authentication from {}: {}",
                    dotted(&before.principal),
                    dotted(&principal)
                )));
            }
        }
        Ok(progress)
    }

    fn text_of(&self, mechanism: Mechanism, error: SaslError) -> String {
        match error {
            SaslError::Told(text) => text,
            // What users there are is nobody's business.
            SaslError::Hidden(_) => format!(
                "Authentication failed during {} due to invalid credentials with SASL mechanism {}",
                if self.before.is_some() { "re-authentication" } else { "authentication" },
                mechanism.name()
            ),
        }
    }

    async fn reply(
        &mut self,
        request: Option<Request>,
        token: Vec<u8>,
        session_lifetime_ms: i64,
    ) -> Result<(), End> {
        let auth_bytes = Bytes::from(token);
        match request {
            Some(request) => {
                let body = SaslAuthenticateResponse {
                    auth_bytes,
                    session_lifetime_ms,
                    ..Default::default()
                };
                self.send(&request, body.into()).await
            }
            None => {
                let mut head = BytesMut::with_capacity(4);
                head.put_i32(i32::try_from(auth_bytes.len()).unwrap_or(i32::MAX));
                write(self.writer, vec![head.freeze(), auth_bytes]).await
            }
        }
    }

    /// Slows down who guesses passwords.
    async fn failed(&self) {
        self.shared.backend.security.audit().refused();
        tokio::time::sleep(self.shared.config.security.failed_delay).await;
    }
}

/// Tokio's clock: simulations pause it.
pub(crate) fn now() -> Instant {
    Instant::now() + Duration::ZERO
}

/// The API key of a request that need not be whole.
pub(crate) fn api_key(bytes: &[u8]) -> Option<i16> {
    bytes.first_chunk().map(|key| i16::from_be_bytes(*key))
}

fn unwrapped(mut bytes: Bytes) -> Result<(Bytes, Request), End> {
    let key = api_key(&bytes);
    // Nothing but this API is decoded for strangers.
    if key != Some(ApiKey::SaslAuthenticate.number()) {
        return Err(End::NotAuthenticated(key.unwrap_or(-1)));
    }
    let request = codec::decode_request(&mut bytes)?;
    let RequestBody::SaslAuthenticate(body) = &request.body else {
        return Err(End::NotAuthenticated(key.unwrap_or(-1)));
    };
    Ok((body.auth_bytes.clone(), request))
}

/// Whether a session has ended.
pub(crate) fn has_expired(caller: &Arc<Caller>) -> bool {
    caller.expires.is_some_and(|end| now() > end)
}
