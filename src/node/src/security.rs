//! From configuration to listeners: certificates, the first user, what each listener asks.

use std::time::Duration;

use anyhow::anyhow;
use base::{Env, TaskGroup};
use kafka::{Advertised, KafkaConfig, ListenerSecurity, Protocol};
use secure::Security;
use secure::tls::{ClientAuth, TlsServer};
use tokio::net::TcpListener;
use tracing::{debug, info};

use crate::config::security::{PasswordFrom, Secret};
use crate::config::{Config, Refused};
use crate::registry::Registry;

/// Longest password file, in bytes.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// What was read from files before anything was touched.
pub(crate) struct Certificates {
    /// For listeners that know their clients by certificate, where they ask for one.
    ssl: Option<TlsServer>,
    /// For listeners that know them by SASL.
    sasl_ssl: Option<TlsServer>,
    admin: Option<(String, Secret)>,
}

impl Certificates {
    /// Reads certificates and the first user's password.
    ///
    /// # Errors
    /// [`Refused`] when a file is missing or does not hold what it should.
    pub(crate) fn load(env: &Env, config: &Config) -> anyhow::Result<Self> {
        let kafka = &config.kafka;
        let used = [Some(kafka.protocol), kafka.tls_listener.as_ref().map(|l| l.protocol)];
        let load = |protocol, auth| match &config.security.tls {
            Some(files) if used.contains(&Some(protocol)) => {
                let server = TlsServer::load(env, files.clone(), auth);
                server.map(Some).map_err(|e| anyhow!(Refused(format!("tls: {e}"))))
            }
            _ => Ok(None),
        };
        // As in Kafka, `client_auth` does not concern listeners with SASL.
        Ok(Self {
            ssl: load(Protocol::Ssl, kafka.client_auth)?,
            sasl_ssl: load(Protocol::SaslSsl, ClientAuth::None)?,
            admin: admin(env, config)?,
        })
    }

    fn of(&self, protocol: Protocol) -> Option<TlsServer> {
        match protocol {
            Protocol::Ssl => self.ssl.clone(),
            Protocol::SaslSsl => self.sasl_ssl.clone(),
            Protocol::Plaintext | Protocol::SaslPlaintext => None,
        }
    }

    /// Follows the files until the tasks stop.
    pub(crate) fn keep_fresh(&self, env: &Env, tasks: &TaskGroup) {
        for server in self.ssl.iter().chain(&self.sasl_ssl) {
            server.keep_fresh(env, tasks);
        }
    }

    /// Makes the first user unless the cluster has one of that name.
    pub(crate) async fn ensure_admin(&self, security: &Security) {
        let Some((name, password)) = &self.admin else { return };
        while let Err(error) = security.ensure_user(name, &password.0).await {
            debug!(%error, "cannot make the first user yet");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        info!(user = name, "the first user is there");
    }
}

fn admin(env: &Env, config: &Config) -> anyhow::Result<Option<(String, Secret)>> {
    let Some(admin) = &config.security.admin else { return Ok(None) };
    let password = match &admin.password {
        PasswordFrom::Given(secret) => secret.clone(),
        PasswordFrom::File(path) => {
            let refused = |text: String| anyhow!(Refused(text));
            let bytes = env.disk.read(path, MAX_PASSWORD_BYTES);
            let bytes = bytes
                .map_err(|e| refused(format!("security.admin_password_file: cannot read {e}")))?;
            let text = String::from_utf8_lossy(&bytes);
            let line = text.lines().next().unwrap_or_default().to_owned();
            if line.is_empty() {
                let path = path.display();
                return Err(refused(format!("security.admin_password_file: {path} is empty")));
            }
            Secret(line)
        }
    };
    Ok(Some((admin.name.clone(), password)))
}

/// The Kafka listeners, each with what it asks and the addresses of all nodes for its clients.
pub(crate) fn open_kafka(
    (first, second): (TcpListener, Option<TcpListener>),
    common: &KafkaConfig,
    config: &Config,
    certificates: &Certificates,
    registry: &Registry,
) -> Vec<(TcpListener, KafkaConfig)> {
    let kafka = &config.kafka;
    let security = |protocol| ListenerSecurity {
        protocol,
        tls: certificates.of(protocol),
        mechanisms: kafka.mechanisms.clone(),
        max_reauth: kafka.max_reauth,
        failed_delay: kafka.failed_delay,
    };
    let known = registry.clone();
    let advertised =
        Advertised::by(move || known.all().into_iter().map(|(node, a)| (node, a.kafka)).collect());
    let main = KafkaConfig { advertised, security: security(kafka.protocol), ..common.clone() };
    let mut listeners = vec![(first, main)];
    if let (Some(listener), Some(tls)) = (second, &kafka.tls_listener) {
        let known = registry.clone();
        let told = move || {
            let all = known.all().into_iter();
            all.filter_map(|(node, a)| Some((node, a.kafka_tls?))).collect()
        };
        let encrypted = KafkaConfig {
            listen: tls.listen,
            advertised: Advertised::by(told),
            security: security(tls.protocol),
            ..common.clone()
        };
        listeners.push((listener, encrypted));
    }
    listeners
}
