//! Trust in a server: lines of a `known_hosts` file, or fingerprints.
//!
//! Lines are taken one by one, because one malformed line must not make every host unknown. The
//! key types that are known for a host are asked for first: otherwise a server with several keys
//! shows one we do not know, which looks like an attack.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// What is trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownHosts {
    /// Lines in OpenSSH's format.
    pub lines: Vec<String>,
    /// SHA-256 of host keys.
    pub fingerprints: Vec<Vec<u8>>,
    /// Lines that cannot be read, for the log.
    pub bad_lines: Vec<String>,
}

impl KnownHosts {
    /// Reads lines of a file and of the configuration.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known = Self::default();
        for line in lines {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(print) = line.strip_prefix("SHA256:") {
                match STANDARD_NO_PAD.decode(print.trim_end_matches('=')) {
                    Ok(hash) if hash.len() == 32 => known.fingerprints.push(hash),
                    _ => known.bad_lines.push(line.to_owned()),
                }
            } else if fields(line).is_some() {
                known.lines.push(line.to_owned());
            } else {
                known.bad_lines.push(line.to_owned());
            }
        }
        known
    }

    /// Host key algorithms to prefer for a host, most preferred first; empty for no wish.
    pub fn algorithms(&self, host: &str, port: u16) -> Vec<&'static str> {
        let mut wanted = Vec::new();
        for line in &self.lines {
            let Some((hosts, kind)) = fields(line) else { continue };
            if !may_match(hosts, host, port) {
                continue;
            }
            let names: &[&'static str] = match kind {
                "ssh-ed25519" => &["ssh-ed25519"],
                "ecdsa-sha2-nistp256" => &["ecdsa-sha2-nistp256"],
                "ecdsa-sha2-nistp384" => &["ecdsa-sha2-nistp384"],
                "ecdsa-sha2-nistp521" => &["ecdsa-sha2-nistp521"],
                "ssh-rsa" => &["rsa-sha2-512", "rsa-sha2-256"],
                _ => &[],
            };
            for name in names {
                if !wanted.contains(name) {
                    wanted.push(name);
                }
            }
        }
        wanted
    }
}

/// Host field and key type of a line whose key is base64.
fn fields(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_ascii_whitespace().peekable();
    if words.peek().is_some_and(|word| word.starts_with('@')) {
        words.next();
    }
    let (hosts, kind, key) = (words.next()?, words.next()?, words.next()?);
    base64::engine::general_purpose::STANDARD.decode(key).ok()?;
    Some((hosts, kind))
}

/// Whether a host field is, or when hashed may be, about this host.
fn may_match(hosts: &str, host: &str, port: u16) -> bool {
    if hosts.starts_with("|1|") {
        return true;
    }
    let with_port = format!("[{host}]:{port}");
    hosts.split(',').any(|name| {
        let name = name.to_ascii_lowercase();
        name == with_port.to_ascii_lowercase()
            || (port == 22 && name == host.to_ascii_lowercase())
            || name.contains(['*', '?'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_are_set_aside_and_the_rest_counts() {
        let known = KnownHosts::parse([
            "# comment",
            "",
            "[h]:2222 ssh-ed25519 AAAAC3Nz",
            "h ssh-rsa AAAAB3Nz comment here",
            "h ssh-rsa not*base64",
            "broken",
            "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "SHA256:short",
        ]);
        assert_eq!((known.lines.len(), known.fingerprints.len(), known.bad_lines.len()), (2, 1, 3));
    }

    #[test]
    fn known_types_of_the_host_are_preferred() {
        let known = KnownHosts::parse([
            "[h]:2222 ssh-ed25519 AAAAC3Nz",
            "h ssh-rsa AAAAB3Nz",
            "other ecdsa-sha2-nistp256 AAAAE2Vj",
        ]);
        assert_eq!(known.algorithms("H", 2222), ["ssh-ed25519"]);
        assert_eq!(known.algorithms("h", 22), ["rsa-sha2-512", "rsa-sha2-256"]);
        assert!(known.algorithms("third", 22).is_empty());
    }
}
