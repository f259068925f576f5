//! One node: configuration, wiring of services and gateways, start and stop.
//!
//! Start order: data directory, services' shared state, Raft groups with their machines,
//! services, gateways. Stop order is the reverse, so that nothing new arrives while state is
//! made durable.
#![cfg_attr(not(test), warn(missing_docs))]

pub mod config;

mod admin;
mod facts;
#[cfg(test)]
mod golden;
mod metrics;
mod registry;
mod run;
mod security;
mod services;
mod users;

pub use run::run;
