//! Reading and checking of what [`crate::config::security`] holds.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use kafka::Protocol;
use secure::acl::Rules;
use secure::sasl::Mechanism;
use secure::tls::{ClientAuth, TlsFiles};

use super::{Given, Key, Kind, Reader, int, key};
use crate::config::security::{
    AdminUser, KafkaSecurity, PasswordFrom, Secret, SecurityConfig, TlsListener,
};

const PROTOCOLS: &[&str] = &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
const TLS_LISTENERS: &[&str] = &["off", "ssl", "sasl_ssl"];
const CLIENT_AUTHS: &[&str] = &["none", "requested", "required"];
const MECHANISMS: &str = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512";
const DAY_MS: u64 = 24 * 3600 * 1000;

/// The keys of this page, sections together.
pub(super) const KEYS: &[Key] = &[
    key("kafka.security_protocol", Kind::Choice(PROTOCOLS), "plaintext"),
    key("kafka.tls_listener", Kind::Choice(TLS_LISTENERS), "off"),
    key("kafka.client_auth", Kind::Choice(CLIENT_AUTHS), "none"),
    key("kafka.sasl_mechanisms", Kind::Text, MECHANISMS),
    key("kafka.max_reauth_ms", int(0, 365 * DAY_MS), "0"),
    key("kafka.failed_authentication_delay_ms", int(0, 10_000), "100"),
    key("kafka.authorizer", Kind::Bool, "false"),
    key("kafka.super_users", Kind::Text, ""),
    key("kafka.allow_everyone_if_no_acl_found", Kind::Bool, "false"),
    key("kafka.broker_session_timeout_ms", int(1, DAY_MS), "9000"),
    key("tls.certificate_file", Kind::Text, ""),
    key("tls.key_file", Kind::Text, ""),
    key("tls.client_ca_file", Kind::Text, ""),
    key("security.admin_user", Kind::Text, ""),
    key("security.admin_password_file", Kind::Text, ""),
    key("security.admin_password", Kind::Text, ""),
];

impl Reader<'_> {
    /// One of the words that the key takes.
    fn choice(&mut self, path: &'static str, words: &[&str]) -> String {
        let Given { text, place } = self.get(path);
        if !words.contains(&text.as_str()) {
            let words = words.join("\", \"");
            self.fail(place, format!("{path} must be one of \"{words}\", not \"{text}\""));
        }
        text
    }

    fn is_given(&self, path: &'static str) -> bool {
        !self.get(path).text.is_empty()
    }

    pub(super) fn kafka_security(&mut self, host: &str) -> KafkaSecurity {
        let protocol = protocol(&self.choice("kafka.security_protocol", PROTOCOLS));
        let second = self.choice("kafka.tls_listener", TLS_LISTENERS);
        let tls_listener = (second != "off").then(|| {
            let listen = self.bind("listen.kafka_tls");
            let advertise = self.advertised("advertise.kafka_tls", listen, host);
            TlsListener { listen, advertise, protocol: self::protocol(&second) }
        });
        let client_auth = match self.choice("kafka.client_auth", CLIENT_AUTHS).as_str() {
            "required" => ClientAuth::Required,
            "requested" => ClientAuth::Requested,
            _ => ClientAuth::None,
        };
        let reauth = self.number("kafka.max_reauth_ms");
        let security = KafkaSecurity {
            protocol,
            tls_listener,
            client_auth,
            mechanisms: self.mechanisms(),
            max_reauth: (reauth > 0).then(|| Duration::from_millis(reauth)),
            failed_delay: Duration::from_millis(
                self.number("kafka.failed_authentication_delay_ms"),
            ),
            rules: self.rules(),
        };
        self.check_certificates(&security);
        security
    }

    fn mechanisms(&mut self) -> Vec<Mechanism> {
        let Given { text, place } = self.get("kafka.sasl_mechanisms");
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut mechanisms = Vec::new();
        for name in names {
            match Mechanism::of_name(name) {
                Some(mechanism) if !mechanisms.contains(&mechanism) => mechanisms.push(mechanism),
                Some(_) => {}
                None => {
                    let text = format!("kafka.sasl_mechanisms: \"{name}\" is not known");
                    self.fail(place.clone(), format!("{text}; known are {MECHANISMS}"));
                }
            }
        }
        if mechanisms.is_empty() {
            self.fail(place, "kafka.sasl_mechanisms names no mechanism");
        }
        mechanisms
    }

    fn rules(&mut self) -> Option<Rules> {
        let controlled = self.flag("kafka.authorizer");
        let Given { text, place } = self.get("kafka.super_users");
        let mut super_users = BTreeSet::new();
        // Kafka separates them by semicolons: names of certificates contain commas.
        for user in text.split(';').map(str::trim).filter(|user| !user.is_empty()) {
            if user.split_once(':').is_none_or(|(kind, name)| kind.is_empty() || name.is_empty()) {
                let text = format!("kafka.super_users: \"{user}\" is not like User:admin");
                self.fail(place.clone(), text + "; separate several by ;");
            }
            super_users.insert(user.to_owned());
        }
        let admin = self.get("security.admin_user").text;
        if !admin.is_empty() {
            super_users.insert(format!("User:{admin}"));
        }
        let allow_without_entries = self.flag("kafka.allow_everyone_if_no_acl_found");
        controlled.then_some(Rules { super_users, allow_without_entries })
    }

    fn check_certificates(&mut self, security: &KafkaSecurity) {
        if security.encrypts() {
            let first = security.protocol.encrypts();
            let path = if first { "kafka.security_protocol" } else { "kafka.tls_listener" };
            for needed in ["tls.certificate_file", "tls.key_file"] {
                if !self.is_given(needed) {
                    let Given { text, place } = self.get(path);
                    self.fail(place, format!("{path} = \"{text}\" needs {needed}"));
                }
            }
        }
        if security.client_auth != ClientAuth::None && !self.is_given("tls.client_ca_file") {
            let Given { text, place } = self.get("kafka.client_auth");
            self.fail(place, format!("kafka.client_auth = \"{text}\" needs tls.client_ca_file"));
        }
    }

    pub(super) fn security(&mut self) -> SecurityConfig {
        let path = |given: Given| (!given.text.is_empty()).then(|| PathBuf::from(given.text));
        let certificate = path(self.get("tls.certificate_file"));
        let key = path(self.get("tls.key_file"));
        let client_ca = path(self.get("tls.client_ca_file"));
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key, client_ca }),
            (None, None) => None,
            (Some(_), None) => {
                let place = self.get("tls.certificate_file").place;
                self.fail(place, "tls.certificate_file needs tls.key_file");
                None
            }
            (None, Some(_)) => {
                let place = self.get("tls.key_file").place;
                self.fail(place, "tls.key_file needs tls.certificate_file");
                None
            }
        };
        SecurityConfig { tls, admin: self.admin() }
    }

    fn admin(&mut self) -> Option<AdminUser> {
        let (file, given) = ("security.admin_password_file", "security.admin_password");
        let name = self.get("security.admin_user");
        let password = match (self.is_given(file), self.is_given(given)) {
            (true, false) => PasswordFrom::File(PathBuf::from(self.get(file).text)),
            (false, true) => PasswordFrom::Given(Secret(self.get(given).text)),
            (true, true) => {
                self.fail(self.get(given).place, format!("{file} and {given} are both given"));
                return None;
            }
            (false, false) if name.text.is_empty() => return None,
            (false, false) => {
                let text = format!("security.admin_user needs {file}");
                self.fail(name.place, text + " or TRINE_SECURITY_ADMIN_PASSWORD");
                return None;
            }
        };
        if name.text.is_empty() {
            let path = if self.is_given(file) { file } else { given };
            self.fail(self.get(path).place, format!("{path} needs security.admin_user"));
            return None;
        }
        Some(AdminUser { name: name.text, password })
    }
}

fn protocol(word: &str) -> Protocol {
    match word {
        "ssl" => Protocol::Ssl,
        "sasl_plaintext" => Protocol::SaslPlaintext,
        "sasl_ssl" => Protocol::SaslSsl,
        _ => Protocol::Plaintext,
    }
}
