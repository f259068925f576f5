//! Settings of TLS, SASL, access control and the first user.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kafka::Protocol;
use secure::acl::Rules;
use secure::sasl::Mechanism;
use secure::tls::{ClientAuth, TlsFiles};

use super::HostPort;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Security of the Kafka port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSecurity {
    /// What `listen.kafka` asks of its clients.
    pub protocol: Protocol,
    /// A second, encrypted listener.
    pub tls_listener: Option<TlsListener>,
    /// Whether clients of `ssl` listeners show certificates.
    pub client_auth: ClientAuth,
    /// SASL mechanisms offered.
    pub mechanisms: Vec<Mechanism>,
    /// How long a proof of identity holds; for ever where `None`.
    pub max_reauth: Option<Duration>,
    /// Pause before a failed authentication is told.
    pub failed_delay: Duration,
    /// Who may do everything and what holds without entries; `None` when access is not
    /// controlled.
    pub rules: Option<Rules>,
}

impl KafkaSecurity {
    /// Whether a listener of that protocol lets in only whom it knows, over encrypted
    /// connections.
    pub(crate) fn is_secured(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::SaslSsl => true,
            Protocol::Ssl => self.client_auth == ClientAuth::Required,
            Protocol::Plaintext | Protocol::SaslPlaintext => false,
        }
    }

    /// Whether any listener encrypts.
    pub(crate) fn encrypts(&self) -> bool {
        self.protocol.encrypts() || self.tls_listener.is_some()
    }
}

/// The encrypted listener beside the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsListener {
    /// What is bound.
    pub listen: SocketAddr,
    /// What clients are told.
    pub advertise: HostPort,
    /// `ssl` or `sasl_ssl`.
    pub protocol: Protocol,
}

/// The user that is made when the cluster has none of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminUser {
    /// Name.
    pub name: String,
    /// Where the password comes from.
    pub password: PasswordFrom,
}

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordFrom {
    /// The first line of a file.
    File(PathBuf),
    /// The configuration or the environment.
    Given(Secret),
}

/// Security of all ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityConfig {
    /// Certificates.
    pub tls: Option<TlsFiles>,
    /// The first user.
    pub admin: Option<AdminUser>,
}
