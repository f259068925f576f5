//! What can go wrong, in Hadoop's classes and words.

use consensus::{PeerError, ProposeError, ReadError};
use serde::{Deserialize, Serialize};

/// Hadoop's exception classes. Append-only: replies that carry them are encoded by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FsErrorKind {
    /// `java.io.FileNotFoundException`
    FileNotFound,
    /// `org.apache.hadoop.fs.FileAlreadyExistsException`
    FileAlreadyExists,
    /// `org.apache.hadoop.security.AccessControlException`
    AccessControl,
    /// `org.apache.hadoop.fs.PathIsNotEmptyDirectoryException`
    PathIsNotEmptyDirectory,
    /// `org.apache.hadoop.fs.ParentNotDirectoryException`
    ParentNotDirectory,
    /// `org.apache.hadoop.hdfs.server.namenode.LeaseExpiredException`
    LeaseExpired,
    /// `org.apache.hadoop.hdfs.protocol.AlreadyBeingCreatedException`
    AlreadyBeingCreated,
    /// `org.apache.hadoop.fs.InvalidPathException`
    InvalidPath,
    /// `org.apache.hadoop.hdfs.protocol.FSLimitException$PathComponentTooLongException`
    PathComponentTooLong,
    /// `java.lang.IllegalArgumentException`
    IllegalArgument,
    /// `java.lang.UnsupportedOperationException`
    Unsupported,
    /// `java.io.IOException`
    Io,
    /// Ours: the blocks were written too long ago to be accepted; write them again.
    StaleBlocks,
    /// Ours: the source that puts files has a newer epoch.
    Fenced,
}

impl FsErrorKind {
    /// The full Java class name.
    pub fn java_class(self) -> &'static str {
        match self {
            Self::FileNotFound => "java.io.FileNotFoundException",
            Self::FileAlreadyExists => "org.apache.hadoop.fs.FileAlreadyExistsException",
            Self::AccessControl => "org.apache.hadoop.security.AccessControlException",
            Self::PathIsNotEmptyDirectory => {
                "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException"
            }
            Self::ParentNotDirectory => "org.apache.hadoop.fs.ParentNotDirectoryException",
            Self::LeaseExpired => "org.apache.hadoop.hdfs.server.namenode.LeaseExpiredException",
            Self::AlreadyBeingCreated => {
                "org.apache.hadoop.hdfs.protocol.AlreadyBeingCreatedException"
            }
            Self::InvalidPath => "org.apache.hadoop.fs.InvalidPathException",
            Self::PathComponentTooLong => {
                "org.apache.hadoop.hdfs.protocol.FSLimitException$PathComponentTooLongException"
            }
            Self::IllegalArgument => "java.lang.IllegalArgumentException",
            Self::Unsupported => "java.lang.UnsupportedOperationException",
            Self::Io | Self::StaleBlocks | Self::Fenced => "java.io.IOException",
        }
    }
}

/// The namespace refused a request: fix the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct FsError {
    /// Hadoop's class.
    pub kind: FsErrorKind,
    /// Hadoop's words.
    pub message: String,
}

impl FsError {
    /// An error of a class with its text.
    pub fn new(kind: FsErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn missing(path: &str) -> Self {
        Self::new(FsErrorKind::FileNotFound, format!("File does not exist: {path}"))
    }

    pub(crate) fn io(message: impl Into<String>) -> Self {
        Self::new(FsErrorKind::Io, message)
    }
}

/// Why a call of the block service failed.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Fix the request.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Try again later: no leader, or too few nodes with a good copy or a working disk.
    #[error("{0}")]
    Unavailable(String),
    /// Free some space: a disk is below its reserve.
    #[error("not enough free space: {0}")]
    NoSpace(String),
    /// No node has a good copy of a block.
    #[error("block {block} has no good copy: {reason}")]
    Corrupt {
        /// The block.
        block: u64,
        /// What the nodes said.
        reason: String,
    },
    /// The local disk failed.
    #[error("disk: {0}")]
    Disk(#[from] std::io::Error),
}

impl From<ProposeError> for BlockError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::DiskReserve { .. } => Self::NoSpace(error.to_string()),
            ProposeError::NotLeader { .. }
            | ProposeError::Unknown { .. }
            | ProposeError::TooLarge { .. } => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<ReadError> for BlockError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<PeerError> for BlockError {
    fn from(error: PeerError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
