//! Where collected files go: the three steps behind a trait, so that tests can break every one.

use async_trait::async_trait;
use bytes::Bytes;

use crate::ident::{FileKey, Stat, Version};
use crate::record::Record;

/// A file for the block store.
#[derive(Clone, Debug)]
pub struct StoreFile {
    /// Absolute path in the block store.
    pub path: String,
    /// Which version of the source's file this is.
    pub version: Version,
    /// Content.
    pub bytes: Bytes,
}

/// A record for one partition's log.
#[derive(Clone, Debug)]
pub struct AppendItem {
    /// The file's key in the ledger.
    pub key: FileKey,
    /// What the ledger is to hold afterwards.
    pub version: Version,
    /// The record.
    pub record: Record,
}

/// What the conditional append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The record has this offset now.
    New(u64),
    /// The ledger had this version already: a repetition.
    Known,
}

/// A file that is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Identity.
    pub key: FileKey,
    /// Shown path below the source's directory.
    pub path: String,
    /// Size and time it had.
    pub stat: Stat,
    /// Why.
    pub error: String,
    /// After how many attempts.
    pub attempts: u32,
}

/// Why a step did not happen, or is not known to have happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Try again: every step is idempotent.
    #[error("{0}")]
    Retry(String),
    /// Another node collects now: stop.
    #[error("another node collects this source now")]
    Fenced,
    /// This file can never be taken.
    #[error("{0}")]
    Refused(String),
}

/// The ledger, the block store, the topic, and the list of files given up.
#[async_trait]
pub trait Sinks: Send + Sync {
    /// What the ledger holds of a file, as this node knows it. May lag behind; a repetition is
    /// harmless. Must not block for long.
    fn known(&self, partition: u32, key: FileKey) -> Result<Option<Version>, SinkError>;

    /// The stat with which a file was given up.
    fn given_up(&self, key: FileKey) -> Option<Stat>;

    /// Remembers that a file is given up.
    async fn give_up(&self, file: GivenUp) -> Result<(), SinkError>;

    /// Steps 1 and 2: syncs the bytes on two nodes and puts the names. One result per file.
    async fn store(&self, files: Vec<StoreFile>) -> Result<Vec<Result<(), SinkError>>, SinkError>;

    /// Step 3: for each item, appends the record and sets the ledger unless the ledger has this
    /// version. One result per item, in order.
    async fn append(
        &self,
        partition: u32,
        items: Vec<AppendItem>,
    ) -> Result<Vec<Result<Appended, SinkError>>, SinkError>;
}
