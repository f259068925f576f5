//! SASL mechanisms: PLAIN (RFC 4616) and SCRAM, as Kafka's broker answers them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::limits::MAX_NAME;
use crate::scram::{ClientFirst, Exchange, Hash, Refused, Verifier, secret_bytes};
use crate::store::Store;

/// A mechanism that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Name and password in clear; only sensible over TLS.
    Plain,
    /// Challenge and response; the password does not travel.
    Scram(Hash),
}

impl Mechanism {
    /// All, in the order in which they are named to clients.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Scram(Hash::Sha256), Self::Scram(Hash::Sha512)];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(hash) => hash.mechanism(),
        }
    }

    /// The mechanism of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }
}

/// Where an exchange stands after a message of the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Send this and wait for more.
    Challenge(Vec<u8>),
    /// Send this; the client is who it says.
    Done {
        /// The last message, possibly empty.
        token: Vec<u8>,
        /// The user.
        user: String,
    },
}

/// Why a client is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The text may be told to the client.
    #[error("{0}")]
    Told(String),
    /// The reason would tell what users there are: the client gets a general text.
    #[error("{0}")]
    Hidden(&'static str),
}

impl From<Refused> for SaslError {
    fn from(refused: Refused) -> Self {
        Self::Hidden(refused.0)
    }
}

const OTHER_IDENTITY: &str =
    "Authentication failed: Client requested an authorization id that is different from username";

enum State {
    Plain,
    ScramFirst(Hash),
    ScramFinal(Box<Exchange>, String),
    Ended,
}

/// The server's side of one exchange.
pub struct SaslServer {
    state: State,
}

impl SaslServer {
    /// A fresh exchange.
    pub fn new(mechanism: Mechanism) -> Self {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Scram(hash) => State::ScramFirst(hash),
        };
        Self { state }
    }

    /// Whether the next message brings a password, which takes long to check.
    pub(crate) fn checks_a_password(&self) -> bool {
        matches!(self.state, State::Plain)
    }

    /// Takes a message of the client. PLAIN takes milliseconds: call it off the runtime's workers.
    /// After an error the exchange is over.
    pub fn step(&mut self, users: &Store, token: &[u8]) -> Result<Progress, SaslError> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Plain => plain(users, token),
            State::ScramFirst(hash) => {
                let first = ClientFirst::parse(token)?;
                let verifier = users.verifier(&first.user, hash);
                let verifier = verifier.ok_or(SaslError::Hidden("no such credential"))?;
                if !first.authorization.is_empty() && first.authorization != first.user {
                    return Err(SaslError::Told(OTHER_IDENTITY.to_owned()));
                }
                let nonce = STANDARD_NO_PAD.encode(secret_bytes(24));
                let (told, exchange) = Exchange::begin(hash, &first, verifier, &nonce);
                self.state = State::ScramFinal(Box::new(exchange), first.user);
                Ok(Progress::Challenge(told))
            }
            State::ScramFinal(exchange, user) => {
                let token = exchange.finish(token)?;
                Ok(Progress::Done { token, user })
            }
            State::Ended => Err(SaslError::Hidden("the exchange is over")),
        }
    }
}

/// `[authzid] NUL authcid NUL password`.
fn plain(users: &Store, token: &[u8]) -> Result<Progress, SaslError> {
    let told = |text: &str| Err(SaslError::Told(text.to_owned()));
    let text = String::from_utf8_lossy(token);
    let parts: Vec<&str> = text.splitn(4, '\0').collect();
    let &[identity, user, password] = parts.as_slice() else {
        let count = parts.len();
        let text = format!("Invalid SASL/PLAIN response: expected 3 tokens, got {count}");
        return Err(SaslError::Told(text));
    };
    if user.is_empty() {
        return told("Authentication failed: username not specified");
    }
    if password.is_empty() {
        return told("Authentication failed: password not specified");
    }
    if user.len() > MAX_NAME || password.len() > MAX_NAME || !check(users, user, password) {
        return told("Authentication failed: Invalid username or password");
    }
    if !identity.is_empty() && identity != user {
        return told(OTHER_IDENTITY);
    }
    Ok(Progress::Done { token: Vec::new(), user: user.to_owned() })
}

/// Checks a password against the verifier that was set last. An unknown user takes as long as a
/// known one.
fn check(users: &Store, user: &str, password: &str) -> bool {
    match users.newest_verifier(user) {
        Some((hash, verifier)) => verifier.is_password(hash, password),
        None => {
            Verifier::of_password(Hash::Sha256, password);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        let store = Store::default();
        let verifier = Verifier::of_password(Hash::Sha512, "secret");
        let verifiers = [(Hash::Sha512, verifier)].into();
        store.put_user("alice", crate::store::User { verifiers, newest: None });
        store
    }

    fn try_plain(token: &[u8]) -> Result<Progress, String> {
        let mut server = SaslServer::new(Mechanism::Plain);
        server.step(&store(), token).map_err(|e| e.to_string())
    }

    #[test]
    fn plain_takes_the_right_password_only() {
        let done = Progress::Done { token: Vec::new(), user: "alice".to_owned() };
        assert_eq!(try_plain(b"\0alice\0secret").as_ref(), Ok(&done));
        assert_eq!(try_plain(b"alice\0alice\0secret"), Ok(done));
        let invalid = Err("Authentication failed: Invalid username or password".to_owned());
        assert_eq!(try_plain(b"\0alice\0Secret"), invalid);
        assert_eq!(try_plain(b"\0bob\0secret"), invalid);
        assert_eq!(try_plain(b"bob\0alice\0secret"), Err(OTHER_IDENTITY.to_owned()));
        let tokens = |n| Err(format!("Invalid SASL/PLAIN response: expected 3 tokens, got {n}"));
        assert_eq!(try_plain(b"alice"), tokens(1));
        assert_eq!(try_plain(b"\0alice\0secret\0x"), tokens(4));
        let none = Err("Authentication failed: password not specified".to_owned());
        assert_eq!(try_plain(b"\0alice\0"), none);
    }

    #[test]
    fn scram_hides_who_is_there_and_ends_after_an_error() {
        let mut server = SaslServer::new(Mechanism::Scram(Hash::Sha512));
        let unknown = server.step(&store(), b"n,,n=bob,r=abc");
        assert!(matches!(unknown, Err(SaslError::Hidden(_))));
        let again = server.step(&store(), b"n,,n=alice,r=abc");
        assert_eq!(again, Err(SaslError::Hidden("the exchange is over")));
        let mut server = SaslServer::new(Mechanism::Scram(Hash::Sha256));
        let other = server.step(&store(), b"n,,n=alice,r=abc");
        assert!(matches!(other, Err(SaslError::Hidden(_))), "no verifier of this hash");
        let mut server = SaslServer::new(Mechanism::Scram(Hash::Sha512));
        let told = server.step(&store(), b"n,,n=alice,r=abc").unwrap();
        assert!(matches!(told, Progress::Challenge(text) if text.starts_with(b"r=abc")));
        assert!(server.step(&store(), b"c=biws,r=abc,p=AAAA").is_err());
    }
}
