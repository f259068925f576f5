//! Who may connect and what they may do: TLS with certificates that are replaced while running,
//! users, SASL, access control lists and client quotas.
//!
//! Nothing here knows a wire protocol. Users, lists and quotas are rows of the group `m0` (tag
//! `SECURITY`), so every node decides from its own copy and needs no leader to let a client in.
//!
//! Invariants:
//! * Of a password only SCRAM verifiers are kept: salt, iterations, stored key, server key.
//! * Secrets are compared in constant time and never appear in `Debug` output or logs.
//! * New certificate files that do not load change nothing: the old ones stay in use.
#![cfg_attr(not(test), warn(missing_docs))]

pub mod acl;
mod audit;
mod command;
pub mod dn;
#[cfg(test)]
mod golden;
pub mod limits;
mod machine;
pub mod quota;
pub mod sasl;
pub mod scram;
mod service;
mod store;
pub mod throttle;
pub mod tls;

pub use audit::{Audit, Counts};
pub use command::{AclResult, QuotaChange, UserChange, UserResult};
pub use service::{SecureError, Security};
pub use store::Store;
