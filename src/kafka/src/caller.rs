//! Who a connection speaks for.

use std::net::SocketAddr;

use secure::acl::{ANONYMOUS, Actor};
use tokio::time::Instant;

/// The client behind a connection, once it is known.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Principal and address, as access control sees them.
    pub(crate) actor: Actor,
    /// When the client must have proved again who it is (KIP-368).
    pub(crate) expires: Option<Instant>,
}

impl Caller {
    /// A client that nobody asked, or that has the certificate with this subject.
    pub(crate) fn of_subject(peer: SocketAddr, subject: Option<&str>) -> Self {
        let principal = subject.map_or(ANONYMOUS.to_owned(), |name| format!("User:{name}"));
        Self { actor: Actor { principal, host: host(peer) }, expires: None }
    }

    /// A client that proved to be this user.
    pub(crate) fn of_user(peer: SocketAddr, user: &str, expires: Option<Instant>) -> Self {
        Self { actor: Actor { principal: format!("User:{user}"), host: host(peer) }, expires }
    }

    /// The principal's name without its type, as quotas know it.
    pub(crate) fn name(&self) -> &str {
        self.actor.principal.split_once(':').map_or("", |(_, name)| name)
    }
}

/// An IPv4 address reads as such however it arrived.
fn host(peer: SocketAddr) -> String {
    peer.ip().to_canonical().to_string()
}
