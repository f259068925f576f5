//! Pipelines: from a source of files to topic, block store and index.
//!
//! A pipeline is declared in TOML or JSON ([`spec`]) and kept in `m0` ([`state`]). Every node
//! runs a [`FlowService`], which compares what it does with what is declared: the node that holds
//! a source's lease collects (crate `collect`); the node that leads a partition's data group
//! turns its records into documents ([`processor`]).
//!
//! Invariants:
//! * A lister first commits its epoch as a fence in every data group, then reads the ledger;
//!   nothing of an older epoch is appended after that.
//! * A document and the mark that says it was written are one command in its shard's group.
//! * Secrets of a declaration are replicated, but never logged and never listed.
//!
//! Fetching runs on the lister's node only; lending fetch work to other nodes is not here yet.

mod document;
mod error;
#[cfg(test)]
mod golden;
pub mod ports;
pub mod processor;
mod real;
mod service;
mod sinks;
mod source;
pub mod spec;
pub mod state;
pub mod status;

pub use error::FlowError;
pub use service::FlowService;
pub use state::{FlowShared, Part, Quarantined};

#[cfg(test)]
mod tests;
