//! The collector's ledger: which version of which file was appended where.
//!
//! A ledger belongs to one partition and one source, and lives in the partition's data group,
//! so that appending a record and setting its row are one command.

use bytes::Bytes;
use consensus::tags;

use super::{LogService, decode_reply, key_of};
use crate::command::{self, Control, ControlReply, OnceEntry, OnceHead};
use crate::data::keys;
use crate::error::LogError;
use crate::limits::{MAX_BATCH_BYTES, MAX_LEDGER_KEY, ONCE_COMMAND_BYTES};
use crate::types::{LedgerRow, OnceFile, OnceOutcome, TopicRef};

/// Files in one conditional append.
const FILES_PER_COMMAND: usize = 1000;

impl LogService {
    /// Commits the epoch of a source's lister in every data group, after which nothing of an
    /// older epoch is appended. Fails with the newest epoch known when that is newer. Any node.
    pub async fn fence(&self, source: &str, epoch: u64) -> Result<Result<(), u64>, LogError> {
        check_key(source.as_bytes())?;
        let command = Control::Fence { source: source.to_owned(), epoch };
        let sent = self.0.groups.data.iter().map(|group| self.control(group, &command));
        let mut newest = epoch;
        for reply in futures::future::join_all(sent).await {
            match reply? {
                ControlReply::Fence(fence) => newest = newest.max(fence),
                other => return Err(LogError::Internal(format!("the group answered {other:?}"))),
            }
        }
        Ok(if newest == epoch { Ok(()) } else { Err(newest) })
    }

    /// Appends the record of each file whose version the ledger does not have yet. One outcome
    /// for each file, in order. Any step may be repeated. Any node.
    pub async fn append_once(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        source: &str,
        epoch: u64,
        files: &[OnceFile],
    ) -> Result<Vec<OnceOutcome>, LogError> {
        check_key(source.as_bytes())?;
        let topic = self.resolve(topic)?;
        let group = self.group_of(&topic, partition)?;
        let key = key_of(&topic, partition)?;
        let mut outcomes = Vec::with_capacity(files.len());
        let mut rest = files;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(part_of(rest)?);
            let head = OnceHead {
                key,
                source: source.to_owned(),
                epoch,
                files: now.iter().map(entry).collect(),
            };
            let batches: Vec<Bytes> = now.iter().map(|file| file.batch.clone()).collect();
            let applied = group.propose(tags::LOG, command::once(&head, &batches)).await?;
            let some: Vec<OnceOutcome> = decode_reply(&applied.reply)?;
            if some.len() != now.len() {
                return Err(LogError::Internal("outcomes and files differ in number".to_owned()));
            }
            outcomes.extend(some);
            rest = later;
        }
        Ok(outcomes)
    }

    /// A file's row, with everything acknowledged before the call. Any node.
    pub async fn ledger_get(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        source: &str,
        file_key: &[u8],
    ) -> Result<Option<LedgerRow>, LogError> {
        let topic = self.resolve(topic)?;
        let group = self.group_of(&topic, partition)?;
        group.read_barrier().await?;
        let key = keys::ledger(&key_of(&topic, partition)?, source, file_key);
        let number = group.id().data_number().map_or(usize::MAX, usize::from);
        let Some(reader) = self.0.readers.get(number) else { return Ok(None) };
        Ok(reader.get(&key)?.map(|value| base::codec::decode(&value)).transpose()?)
    }

    /// Up to `limit` rows of a source in one partition, by file key, after `after`. With
    /// everything acknowledged before the call. Any node.
    pub async fn ledger_scan(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        source: &str,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, LedgerRow)>, LogError> {
        let topic = self.resolve(topic)?;
        let group = self.group_of(&topic, partition)?;
        group.read_barrier().await?;
        let prefix = keys::ledger(&key_of(&topic, partition)?, source, b"");
        let number = group.id().data_number().map_or(usize::MAX, usize::from);
        let Some(reader) = self.0.readers.get(number) else { return Ok(Vec::new()) };
        let after = after.map(|file| [&prefix[..], file].concat());
        let rows = reader.scan(&prefix, after.as_deref(), limit)?;
        let row = |(key, value): (Vec<u8>, Bytes)| {
            let file = key.get(prefix.len()..).unwrap_or_default().to_vec();
            Ok((file, base::codec::decode(&value)?))
        };
        rows.into_iter().map(row).collect()
    }

    /// Notes what happened to a file after it was logged; false when the ledger has another
    /// version by now. Any node.
    pub async fn ledger_mark(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        source: &str,
        file: (&[u8], &[u8]),
        state: u8,
    ) -> Result<bool, LogError> {
        let topic = self.resolve(topic)?;
        let group = self.group_of(&topic, partition)?;
        let (file_key, version) = file;
        let command = Control::MarkLedger {
            key: key_of(&topic, partition)?,
            source: source.to_owned(),
            file_key: Bytes::copy_from_slice(file_key),
            version: Bytes::copy_from_slice(version),
            state,
        };
        Ok(self.control(group, &command).await? == ControlReply::Done)
    }
}

fn entry(file: &OnceFile) -> OnceEntry {
    OnceEntry {
        file_key: file.file_key.clone(),
        version: file.version.clone(),
        batch_len: u32::try_from(file.batch.len()).unwrap_or(u32::MAX),
    }
}

/// How many of the files fit the next command; at least one.
fn part_of(files: &[OnceFile]) -> Result<usize, LogError> {
    let (mut bytes, mut count) = (0usize, 0);
    for file in files.iter().take(FILES_PER_COMMAND) {
        check_key(&file.file_key)?;
        check_key(&file.version)?;
        if file.batch.len() > MAX_BATCH_BYTES {
            let (bytes, limit) = (file.batch.len(), MAX_BATCH_BYTES);
            return Err(LogError::MessageTooLarge { bytes, limit });
        }
        bytes += file.batch.len() + file.file_key.len() + file.version.len();
        if count > 0 && bytes > ONCE_COMMAND_BYTES {
            break;
        }
        count += 1;
    }
    Ok(count)
}

fn check_key(key: &[u8]) -> Result<(), LogError> {
    if key.len() > MAX_LEDGER_KEY {
        return Err(LogError::InvalidRequest("a ledger key is too long".to_owned()));
    }
    Ok(())
}
