//! What a source is: the part of a pipeline's TOML that says where files come from, which are
//! taken, and how they become records. Unknown keys are refused.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::glob::Glob;
use crate::limits;

/// A text that is never shown: `Debug` prints stars.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How files are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// An SFTP server.
    #[default]
    Sftp,
    /// A directory of the node that lists.
    Local,
}

/// What to do with symbolic links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symlinks {
    /// Leave them alone.
    #[default]
    Skip,
}

/// Where files come from and which are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceConfig {
    /// SFTP or local.
    #[serde(rename = "type")]
    pub kind: SourceKind,
    /// Host of the server.
    pub host: String,
    /// Port of the server.
    pub port: u16,
    /// User on the server.
    pub user: String,
    /// Password. `password_file` keeps it out of the cluster's metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// File on the nodes that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// Private key file on the nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Passphrase of the private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Secret>,
    /// `known_hosts` file on the nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<String>,
    /// Lines of a `known_hosts` file, or fingerprints `SHA256:...`, given here.
    pub host_keys: Vec<String>,
    /// Directory on the server; everything below it is looked at.
    pub path: String,
    /// Patterns of names to take; one with a slash matches the path below `path`.
    pub include: Vec<String>,
    /// Patterns of names, directories included, to leave alone.
    pub exclude: Vec<String>,
    /// What to do with symbolic links.
    pub symlinks: Symlinks,
    /// Sessions that fetch.
    pub sessions: usize,
    /// How long a file must stay the same before it is read.
    pub settle_ms: u64,
    /// The same for empty files, which are often only begun.
    pub settle_empty_ms: u64,
    /// Pause between two scans.
    pub scan_interval_ms: u64,
    /// Deadline of one SSH operation.
    pub timeout_ms: u64,
    /// How often a file that fails is tried before it goes to quarantine.
    pub max_attempts: u32,
}

impl Default for SourceConfig {
    fn default() -> Self {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Self {
            kind: SourceKind::Sftp,
            host: String::new(),
            port: 22,
            user: String::new(),
            password: None,
            password_file: None,
            key_file: None,
            passphrase: None,
            known_hosts: None,
            host_keys: Vec::new(),
            path: "/".to_owned(),
            include: own(&["*.txt"]),
            exclude: own(&[".*", "*.tmp", "*.part", "*.filepart", "*~", "*.swp"]),
            symlinks: Symlinks::Skip,
            sessions: 4,
            settle_ms: 5_000,
            settle_empty_ms: 60_000,
            scan_interval_ms: 5_000,
            timeout_ms: 30_000,
            max_attempts: 8,
        }
    }
}

/// What the record of a file looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// `id, fileName, fullPathName, subject, body, writeDatetime`.
    #[default]
    Document,
    /// `{"<file name>": "<text>"}`.
    Plain,
}

/// What `body` holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyPart {
    /// The text without the subject's line.
    #[default]
    Rest,
    /// The whole text.
    All,
}

/// What happens to line ends in `body`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Newlines {
    /// They stay.
    #[default]
    Keep,
    /// Each run of them becomes a space.
    Space,
}

/// How a file becomes a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordConfig {
    /// Shape of the value.
    pub shape: Shape,
    /// What `body` holds.
    pub body: BodyPart,
    /// Line ends in `body`.
    pub body_newlines: Newlines,
    /// Pattern of a line that holds the subject in its first group.
    pub subject_line: String,
    /// Zone of `writeDatetime`.
    pub zone: String,
    /// Format of `writeDatetime`.
    pub time_format: String,
    /// Encoding of every file; detected when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Country hint for the detection.
    pub encoding_hint: String,
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self {
            shape: Shape::Document,
            body: BodyPart::Rest,
            body_newlines: Newlines::Keep,
            subject_line: r"(?i)^\s*(?:subject|제목)\s*[:：]\s*(.+)$".to_owned(),
            zone: "Asia/Seoul".to_owned(),
            time_format: "%Y-%m-%d %H:%M:%S".to_owned(),
            encoding: None,
            encoding_hint: "kr".to_owned(),
        }
    }
}

/// A source that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The key at fault.
    pub key: &'static str,
    /// What is wrong.
    pub problem: String,
}

/// Shorthand for a [`ConfigError`].
pub fn bad(key: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError { key, problem: problem.into() }
}

impl SourceConfig {
    /// Checks what the type system cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !self.path.starts_with('/') {
            return Err(bad("source.path", "must be absolute"));
        }
        if self.sessions == 0 || self.sessions > limits::MAX_SESSIONS {
            return Err(bad("source.sessions", format!("1 to {}", limits::MAX_SESSIONS)));
        }
        if self.include.is_empty() {
            return Err(bad("source.include", "names no file; use [\"*\"] for all"));
        }
        if self.scan_interval_ms < 100 || self.timeout_ms < 100 || self.max_attempts == 0 {
            return Err(bad("source", "scan_interval_ms, timeout_ms below 100 or no attempt"));
        }
        for pattern in self.include.iter().chain(&self.exclude) {
            Glob::parse(pattern).map_err(|p| bad("source.include/exclude", p))?;
        }
        if self.kind == SourceKind::Sftp {
            self.validate_sftp()?;
        }
        Ok(())
    }

    fn validate_sftp(&self) -> Result<(), ConfigError> {
        if self.host.is_empty() || self.user.is_empty() {
            return Err(bad("source", "host and user are needed for sftp"));
        }
        let logins =
            [self.password.is_some(), self.password_file.is_some(), self.key_file.is_some()];
        if !logins.contains(&true) {
            return Err(bad("source", "password, password_file or key_file is needed"));
        }
        if self.known_hosts.is_none() && self.host_keys.is_empty() {
            return Err(bad("source", "known_hosts or host_keys is needed: hosts are checked"));
        }
        Ok(())
    }

    /// The settle time of a file of this size.
    pub fn settle(&self, size: u64) -> Duration {
        let ms = if size == 0 { self.settle_empty_ms } else { self.settle_ms };
        Duration::from_millis(ms)
    }

    /// Without the secrets, for people to see.
    pub fn shown(&self) -> Self {
        let mut shown = self.clone();
        let stars = || Secret("***".to_owned());
        shown.password = shown.password.map(|_| stars());
        shown.passphrase = shown.passphrase.map(|_| stars());
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let config =
            SourceConfig { password: Some(Secret("hunter2".into())), ..Default::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&config.shown()).unwrap().contains("hunter2"));
    }

    #[test]
    fn a_source_without_host_check_is_refused() {
        let mut config = SourceConfig {
            host: "h".into(),
            user: "u".into(),
            password: Some(Secret("p".into())),
            ..Default::default()
        };
        assert_eq!(config.validate().unwrap_err().key, "source");
        config.host_keys.push("SHA256:x".into());
        assert_eq!(config.validate(), Ok(()));
        config.sessions = 0;
        assert!(config.validate().is_err());
    }
}
