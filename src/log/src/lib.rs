//! The log: topics, partitions, idempotent producers, committed offsets, consumer groups,
//! retention, and the collector's ledger.
//!
//! The desired state (topics and their settings) is the machine of tag `LOG` in `m0`; partitions
//! live in the data groups, each in the one that `m0` assigned at creation. Both are made through
//! [`LogShared`] before the groups exist; [`LogService`] is what gateways call afterwards.
//!
//! A record batch is proposed as the client sent it, after [`batch::validate`] and
//! [`walk::walk`]. Apply judges its
//! producer, gives it the next offset of its partition and the term as leader epoch (both lie
//! outside its checksum), and hands it to the partition's segment stream. Nothing else consumes
//! offsets, so they are dense; the high watermark is the end of what is applied.
//!
//! Invariants:
//! * Apply writes no row for a produce and touches no disk: replicas are rows at checkpoints
//!   only, segments are written by their own thread, and both are replayed from the WAL.
//! * Equal commands give byte-equal segments: rolls, retention and expiry are commands, or
//!   follow from sizes and the time that the leader stamped.
//! * The log's start and the watermark never move back.
//! * A topic made anew has a new id, and nothing of the old one is found under it.
//! * A file's record and its ledger row are one command.
//!
//! Transactions are described in [`transactions`].

mod age;
pub mod batch;
mod command;
mod compact;
mod compression;
pub mod configs;
mod data;
mod error;
#[cfg(test)]
mod golden;
pub mod groups;
pub mod limits;
mod offsets;
mod partition;
mod producers;
pub mod records;
mod service;
mod shared;
mod topics;
pub mod transactions;
mod types;
mod unsettled;
mod waiters;
pub mod walk;

pub use command::grows;
pub use error::{LogError, RejectedRecord};
pub use producers::ActiveProducer;
pub use service::{
    Acks, ConfigChange, GroupTransaction, LogOptions, LogService, TxnDescription, check_name,
};
pub use shared::LogShared;
pub use types::{
    CommittedOffset, FetchSpec, Fetched, Isolation, LedgerRow, ListedOffset, Mode, OffsetQuery,
    OffsetToCommit, OnceFile, OnceOutcome, PartKey, PartitionStatus, Produced, SettingsOf, Topic,
    TopicRef, TopicSpec,
};
pub use waiters::{Bell, Watch};

#[cfg(test)]
mod tests;
