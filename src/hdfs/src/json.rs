//! Answers in WebHDFS's JSON.

use blocks::{ContentSummary, FileChecksum, FileKind, FileStatus, Listing};
use serde_json::{Value, json};

/// One `FileStatus` object; `suffix` is the name below the listed path.
pub(crate) fn status(status: &FileStatus, suffix: &str) -> Value {
    let kind = match status.kind {
        FileKind::Directory => "DIRECTORY",
        FileKind::File => "FILE",
    };
    json!({
        "accessTime": status.atime_ms,
        "blockSize": status.block_size,
        "childrenNum": status.children,
        "fileId": status.id,
        "group": &*status.group,
        "length": status.len,
        "modificationTime": status.mtime_ms,
        "owner": &*status.owner,
        "pathSuffix": suffix,
        "permission": format!("{:o}", status.mode),
        "replication": status.replication,
        "storagePolicy": 0,
        "type": kind,
    })
}

/// A whole listing.
pub(crate) fn statuses(entries: &[FileStatus]) -> Value {
    let list: Vec<Value> = entries.iter().map(|entry| status(entry, &entry.name)).collect();
    json!({"FileStatuses": {"FileStatus": list}})
}

/// A page of a listing.
pub(crate) fn page(listing: &Listing) -> Value {
    json!({"DirectoryListing": {
        "partialListing": statuses(&listing.entries),
        "remainingEntries": listing.remaining,
    }})
}

pub(crate) fn summary(sum: &ContentSummary) -> Value {
    json!({"ContentSummary": {
        "directoryCount": sum.directories,
        "fileCount": sum.files,
        "length": sum.len,
        "quota": -1,
        "spaceConsumed": sum.space,
        "spaceQuota": -1,
        "typeQuota": {},
    }})
}

pub(crate) fn quota_usage(sum: &ContentSummary) -> Value {
    json!({"QuotaUsage": {
        "fileAndDirectoryCount": sum.files + sum.directories,
        "quota": -1,
        "spaceConsumed": sum.space,
        "spaceQuota": -1,
        "typeQuota": {},
    }})
}

/// 28 bytes as Hadoop writes them: bytes per CRC, CRCs per block, MD5.
pub(crate) fn checksum(sum: &FileChecksum) -> Value {
    let mut bytes = sum.bytes_per_crc.to_be_bytes().to_vec();
    bytes.extend_from_slice(&sum.crc_per_block.to_be_bytes());
    bytes.extend_from_slice(&sum.md5);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // HDFS's checksums of files with no block name CRC32, whatever the files' own type.
    let kind = if sum.bytes_per_crc == 0 { "CRC32" } else { "CRC32C" };
    let algorithm = format!("MD5-of-{}MD5-of-{}{kind}", sum.crc_per_block, sum.bytes_per_crc);
    // HDFS hands out four more bytes than the length says.
    let bytes = format!("{hex}00000000");
    json!({"FileChecksum": {"algorithm": algorithm, "bytes": bytes, "length": 28}})
}

pub(crate) fn acl(status: &FileStatus) -> Value {
    json!({"AclStatus": {
        "entries": [],
        "group": &*status.group,
        "owner": &*status.owner,
        "permission": format!("{:o}", status.mode & 0o777),
        "stickyBit": status.mode & 0o1000 != 0,
    }})
}

pub(crate) fn server_defaults() -> Value {
    json!({"FsServerDefaults": {
        "replication": 3,
        "encryptDataTransfer": "false",
        "defaultStoragePolicyId": 7,
        "writePacketSize": 65536,
        "fileBufferSize": 4096,
        "checksumType": 2,
        "trashInterval": 0,
        "keyProviderUri": "",
        "blockSize": blocks::limits::DEFAULT_BLOCK_BYTES,
        "bytesPerChecksum": 512,
    }})
}
