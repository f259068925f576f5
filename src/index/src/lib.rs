//! Replicated search indices.
//!
//! The catalog (names, settings, mappings, aliases) is the state machine of `m0`
//! ([`shared::IndexShared::machine_m0`]); shards are state machines of the data groups
//! ([`shared::IndexShared::machine_data`]). The node that leads a shard's data group evaluates
//! writes (`writer`, [`mod@write`]) and replicates the outcome; applying it appends to the shard's
//! translog ([`translog`]), from which every node feeds its own Tantivy index (`feeder`). Any
//! node takes any request ([`service::IndexService`]) and forwards writes to the leader.
//!
//! Every node keeps a searchable copy of every shard, whatever `number_of_replicas` says: any
//! node may have to lead a data group from one moment to the next, and the leader must be able
//! to look documents up. Replicas are reported as asked for; more than two make an index yellow.
//!
//! Invariants: sequence numbers of a shard are contiguous and equal on all nodes; what a leader
//! evaluated is refused unless it is applied in the term and at the number it was evaluated for;
//! a document's newest state is found among the operations applied since the searcher was opened
//! or else in the searcher.

pub mod admin;
pub mod aliases;
pub mod blocks;
mod budget;
mod catalog;
pub mod command;
pub mod copy;
pub mod docs;
mod engine;
pub mod error;
mod feeder;
#[cfg(test)]
mod golden;
pub mod limits;
mod machine;
mod mapping;
pub mod model;
pub mod names;
mod reconcile;
pub mod remote;
pub mod routing;
pub mod searching;
pub mod service;
pub mod settings;
pub mod shared;
pub mod translog;
pub mod wire;
pub mod write;
mod writer;

pub use error::EsError;
pub use service::IndexService;
pub use shared::IndexShared;

#[cfg(test)]
mod tests;
