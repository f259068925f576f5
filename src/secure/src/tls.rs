//! TLS for any port: certificates from PEM files, replaced without a restart.
//!
//! TLS 1.2 and 1.3 with the `ring` provider. The files are looked at every second; when their
//! content has changed they are loaded, and only a set that loads whole (the key belongs to the
//! certificate, the authorities parse) comes into use. Connections keep what they began with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{Env, TaskGroup};
use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::dn;
use crate::limits::{HANDSHAKE_TIMEOUT, MAX_PEM_BYTES, RELOAD_EVERY};

/// An encrypted connection of a client.
pub type TlsStream<S> = tokio_rustls::server::TlsStream<S>;

/// Where the PEM files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate with its chain.
    pub certificate: PathBuf,
    /// Its private key: PKCS 8, PKCS 1 or SEC 1.
    pub key: PathBuf,
    /// Authorities whose clients are believed.
    pub client_ca: Option<PathBuf>,
}

/// Whether clients show a certificate (`ssl.client.auth`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They are asked; one without is anonymous.
    Requested,
    /// One without is refused.
    Required,
}

impl ClientAuth {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Requested => "requested",
            Self::Required => "required",
        }
    }
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read; the error names it.
    #[error("cannot read {0}")]
    Read(std::io::Error),
    /// A file does not hold what it should.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Clients' certificates are wanted and nobody is trusted.
    #[error("client certificates need a file of authorities")]
    NoAuthority,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Slow,
    /// The two did not agree, or the bytes were no TLS.
    #[error("{0}")]
    Failed(std::io::Error),
}

/// Contents of the files.
#[derive(Clone, PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Pem {
    fn read(env: &Env, files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &Path| env.disk.read(path, MAX_PEM_BYTES).map_err(TlsError::Read);
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }
}

fn content(path: &Path, reason: impl ToString) -> TlsError {
    TlsError::Content { path: path.display().to_string(), reason: reason.to_string() }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|e| content(path, format!("not PEM: {e}")))?;
    if all.is_empty() {
        return Err(content(path, "holds no certificate"));
    }
    Ok(all)
}

fn build(files: &TlsFiles, pem: &Pem, auth: ClientAuth) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&files.certificate, &pem.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key);
    // The error of a key is not told: it might quote the key.
    let key = key.map_err(|_| content(&files.key, "holds no private key in PEM form"))?;
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| content(&files.certificate, e))?;
    let config = if auth == ClientAuth::None {
        config.with_no_client_auth()
    } else {
        let (Some(path), Some(pem)) = (&files.client_ca, &pem.client_ca) else {
            return Err(TlsError::NoAuthority);
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path, pem)? {
            roots.add(certificate).map_err(|e| content(path, e))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = match auth {
            ClientAuth::Requested => verifier.allow_unauthenticated(),
            ClientAuth::None | ClientAuth::Required => verifier,
        };
        config.with_client_cert_verifier(verifier.build().map_err(|e| content(path, e))?)
    };
    config.with_single_cert(chain, key).map_err(|e| content(&files.certificate, e))
}

struct Inner {
    files: TlsFiles,
    auth: ClientAuth,
    current: RwLock<Arc<ServerConfig>>,
    pem: RwLock<Pem>,
}

/// The server's side of TLS. Cloning shares it.
#[derive(Clone)]
pub struct TlsServer(Arc<Inner>);

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsServer({})", self.0.files.certificate.display())
    }
}

impl TlsServer {
    /// Loads the files.
    pub fn load(env: &Env, files: TlsFiles, auth: ClientAuth) -> Result<Self, TlsError> {
        let pem = Pem::read(env, &files)?;
        let current = RwLock::new(Arc::new(build(&files, &pem, auth)?));
        Ok(Self(Arc::new(Inner { files, auth, current, pem: RwLock::new(pem) })))
    }

    /// Whether clients show a certificate.
    pub fn client_auth(&self) -> ClientAuth {
        self.0.auth
    }

    /// Looks at the files and takes over what changed; whether anything did.
    pub fn refresh(&self, env: &Env) -> Result<bool, TlsError> {
        let pem = Pem::read(env, &self.0.files)?;
        if pem == *self.0.pem.read() {
            return Ok(false);
        }
        let config = build(&self.0.files, &pem, self.0.auth)?;
        *self.0.current.write() = Arc::new(config);
        *self.0.pem.write() = pem;
        Ok(true)
    }

    /// Keeps certificates fresh until the tasks stop.
    pub fn keep_fresh(&self, env: &Env, tasks: &TaskGroup) {
        let (server, env) = (self.clone(), env.clone());
        tasks.spawn("certificates", async move { server.watch(&env).await });
    }

    async fn watch(&self, env: &Env) {
        let shown = self.0.files.certificate.display().to_string();
        let mut told = String::new();
        loop {
            tokio::time::sleep(RELOAD_EVERY).await;
            let (server, env) = (self.clone(), env.clone());
            let Ok(result) = tokio::task::spawn_blocking(move || server.refresh(&env)).await else {
                return;
            };
            match result {
                Ok(true) => {
                    told.clear();
                    info!(certificate = %shown, "new certificate in use");
                }
                Ok(false) => told.clear(),
                Err(error) => {
                    let text = error.to_string();
                    if text != told {
                        warn!(%error, "new certificate files not used; the old ones stay");
                        told = text;
                    }
                }
            }
        }
    }

    /// Shakes hands with a client. Cancel-safe: the connection is then closed. How many do so at
    /// once is the caller's to bound, as connections: a bound for handshakes alone would let those
    /// who say nothing keep all others out.
    pub async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.0.current.read().clone());
        let shaking = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        shaking.await.map_err(|_| HandshakeError::Slow)?.map_err(HandshakeError::Failed)
    }
}

/// The subject of the certificate that the client showed.
pub fn subject_of<S>(stream: &TlsStream<S>) -> Option<String> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    dn::subject(certificate).ok()
}
