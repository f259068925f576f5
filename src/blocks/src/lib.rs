//! The block store: a namespace of directories and files, and the blocks their bytes live in.
//!
//! The namespace is the state machine of group `fs` ([`BlockShared::machine`]); every change is
//! a command there. Block bytes never go through Raft: the node that receives them writes them
//! to its own disk and to the other nodes', and a command makes them part of a file only after
//! two nodes have synced them. Blocks never change once they are committed: growing a file adds
//! a block, or replaces a small last one by a longer one.
//!
//! Invariants:
//! * a committed block was synced on every node whose bit is set in its replica bitmap;
//! * a block id is used once. Ids come from replicated reservations, and a block is accepted into
//!   a file only while its reservation is young; bytes on disk that no file and no young
//!   reservation can claim are garbage and are collected by age;
//! * a block leaves the disks only after its row left the namespace (`doomed` rows).
//!
//! This crate knows nothing of HTTP or of Hadoop's wire formats; it speaks Hadoop's error
//! classes and messages because users see those texts.

mod chunks;
mod command;
mod error;
pub mod limits;
mod machine;
mod namespace;
pub mod path;
mod service;
mod store;
mod types;

pub use command::{CreateOptions, NewBlock, OpId, PutOutcome};
pub use error::{BlockError, FsError, FsErrorKind};
pub use machine::{BlockOptions, BlockShared};
pub use service::reader::OpenFile;
pub use service::writer::Writer;
pub use service::{BlockService, Stats};
pub use types::{
    Access, Caller, ContentSummary, FileChecksum, FileKind, FileStatus, Listing, LocatedBlock,
    PutFile, Putter,
};
