//! The messages of every API that is served, as Kafka's protocol definition has them.
//!
//! Field names follow Kafka's. Versions that are not served are left out of the ranges' ends
//! only: a range that begins below the served minimum is harmless.

pub mod admin;
pub mod cluster;
pub mod configs;
pub mod consumer_groups;
pub mod fetch;
pub mod groups;
pub mod offsets;
pub mod produce;
pub mod security;
pub mod topics;
pub mod transactions;

pub use admin::*;
pub use cluster::*;
pub use configs::*;
pub use consumer_groups::*;
pub use fetch::*;
pub use groups::*;
pub use offsets::*;
pub use produce::*;
pub use security::*;
pub use topics::*;
pub use transactions::*;
