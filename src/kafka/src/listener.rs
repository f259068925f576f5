//! What a listener asks of its clients.

use std::time::Duration;

use secure::sasl::Mechanism;
use secure::tls::TlsServer;

/// Kafka's `security.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Neither encrypted nor asked.
    #[default]
    Plaintext,
    /// Encrypted; clients may show certificates.
    Ssl,
    /// Asked, not encrypted.
    SaslPlaintext,
    /// Encrypted and asked.
    SaslSsl,
}

impl Protocol {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// Whether clients must prove who they are by SASL.
    pub fn asks_who(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// Whether the bytes are encrypted.
    pub fn encrypts(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }
}

/// Security of one listener.
#[derive(Clone, Debug)]
pub struct ListenerSecurity {
    /// What is asked.
    pub protocol: Protocol,
    /// Certificates, where the protocol encrypts.
    pub tls: Option<TlsServer>,
    /// SASL mechanisms offered (`sasl.enabled.mechanisms`).
    pub mechanisms: Vec<Mechanism>,
    /// How long a proof holds (`connections.max.reauth.ms`); for ever where `None`.
    pub max_reauth: Option<Duration>,
    /// Pause before a failure is told (`connection.failed.authentication.delay.ms`).
    pub failed_delay: Duration,
}

impl Default for ListenerSecurity {
    fn default() -> Self {
        Self {
            protocol: Protocol::Plaintext,
            tls: None,
            mechanisms: Mechanism::ALL.to_vec(),
            max_reauth: None,
            failed_delay: Duration::from_millis(100),
        }
    }
}
