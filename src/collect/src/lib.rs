//! The collector: every file of a source becomes one record in a topic and one file in the block
//! store, exactly once, whatever crashes.
//!
//! * [`scanner`] decides which file is ready; [`remote`] reaches the files; [`encoding`],
//!   [`names`] and [`record`] turn bytes into records. All of these are pure or blocking code
//!   without a runtime.
//! * [`runner`] drives one source: a lister thread, fetch threads, and commits through
//!   [`sink::Sinks`].
//!
//! Exactly once rests on three idempotent steps, in this order: the bytes are synced as blocks,
//! the name is put with the file's version, and one conditional command appends the record and
//! sets the ledger if the ledger has not this version and the source's epoch is current. After a
//! crash any step may be repeated.
//!
//! This crate does not decide who collects: the lease is the business of `flow`.

mod commit;
pub mod config;
pub mod encoding;
mod fetch;
pub mod glob;
#[cfg(test)]
mod golden;
pub mod ident;
pub mod limits;
pub mod names;
pub mod record;
pub mod remote;
pub mod runner;
pub mod scanner;
pub mod sink;
