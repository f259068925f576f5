//! The collector's sinks over log, block store and the replicated quarantine.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use base::codec::{decode, try_encode};
use collect::ident::{FileKey, Stat, Version};
use collect::sink::{AppendItem, Appended, GivenUp, SinkError, Sinks, StoreFile};
use consensus::{GroupRef, tags};
use parking_lot::Mutex;

use crate::ports::{BlockPort, LogPort, OnceRecord, PutFile};
use crate::processor::{BadRecord, Quarantine};
use crate::state::{Command, FlowShared, Quarantined, Reply};

/// First byte of a file's id in the quarantine.
pub(crate) const FILE: u8 = 0;
/// First byte of a record's id in the quarantine.
pub(crate) const RECORD: u8 = 1;

/// Sinks of one source in one epoch.
pub(crate) struct ServiceSinks {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) epoch: u64,
    pub(crate) log: Arc<dyn LogPort>,
    pub(crate) blocks: Arc<dyn BlockPort>,
    pub(crate) shared: Arc<FlowShared>,
    pub(crate) m0: GroupRef,
    /// The ledger as it stands: read once the fence was set, kept up to date by every append,
    /// since nobody else can append in this epoch.
    pub(crate) ledger: Mutex<HashMap<FileKey, Version>>,
}

impl ServiceSinks {
    /// Reads the whole ledger of the source; call after the fence was set.
    pub(crate) async fn load(&self, partitions: u32) -> Result<(), SinkError> {
        for partition in 0..partitions {
            let mut after = None;
            loop {
                let page = self.log.ledger(&self.topic, partition, &self.name, after).await?;
                let Some((last, _)) = page.last() else { break };
                after = Some(*last);
                let known = page.iter().filter_map(|(k, v)| Some((*k, Version::decode(v)?)));
                self.ledger.lock().extend(known);
            }
        }
        Ok(())
    }
}

fn file_id(key: FileKey) -> Vec<u8> {
    [&[FILE], key.0.as_slice()].concat()
}

/// Proposes to `m0`.
pub(crate) async fn propose(m0: &GroupRef, command: &Command) -> Result<Reply, String> {
    let command = try_encode(command).map_err(|e| e.to_string())?;
    let applied = m0.propose(tags::FLOW, command.into()).await;
    let applied = applied.map_err(|e| e.to_string())?;
    decode(&applied.reply).map_err(|e| e.to_string())
}

#[async_trait]
impl Sinks for ServiceSinks {
    fn known(&self, _partition: u32, key: FileKey) -> Result<Option<Version>, SinkError> {
        Ok(self.ledger.lock().get(&key).copied())
    }

    fn given_up(&self, key: FileKey) -> Option<Stat> {
        self.shared.read(|state| {
            let (size, mtime_s) = state.quarantine.get(&self.name)?.get(&file_id(key))?.stat?;
            Some(Stat { size, mtime_s })
        })
    }

    async fn give_up(&self, file: GivenUp) -> Result<(), SinkError> {
        let item = Quarantined {
            what: file.path,
            error: file.error,
            attempts: file.attempts,
            stat: Some((file.stat.size, file.stat.mtime_s)),
            time_ms: 0,
        };
        let command = Command::Quarantine { name: self.name.clone(), id: file_id(file.key), item };
        match propose(&self.m0, &command).await {
            Ok(_) => Ok(()),
            Err(e) => Err(SinkError::Retry(e)),
        }
    }

    async fn store(&self, files: Vec<StoreFile>) -> Result<Vec<Result<(), SinkError>>, SinkError> {
        let puts = files.into_iter().map(|file| PutFile {
            path: file.path,
            version: file.version.encode(),
            bytes: file.bytes,
            mtime_ms: file.version.stat.mtime_s.saturating_mul(1000),
        });
        self.blocks.put(&self.name, self.epoch, puts.collect()).await
    }

    async fn append(
        &self,
        partition: u32,
        items: Vec<AppendItem>,
    ) -> Result<Vec<Result<Appended, SinkError>>, SinkError> {
        let versions: Vec<_> = items.iter().map(|item| (item.key, item.version)).collect();
        let records = items.into_iter().map(|item| OnceRecord {
            key: item.key,
            version: item.version.encode(),
            record: item.record,
        });
        let (topic, source) = (&self.topic, &self.name);
        let records = records.collect();
        let results = self.log.append_once(topic, partition, source, self.epoch, records).await?;
        let mut ledger = self.ledger.lock();
        for ((key, version), result) in versions.into_iter().zip(&results) {
            if result.is_ok() {
                ledger.insert(key, version);
            }
        }
        Ok(results)
    }
}

/// The quarantine of a pipeline's records.
pub(crate) struct RecordQuarantine {
    pub(crate) name: String,
    pub(crate) m0: GroupRef,
}

#[async_trait]
impl Quarantine for RecordQuarantine {
    async fn put(&self, bad: BadRecord) -> Result<(), String> {
        let mut id = vec![RECORD];
        id.extend(bad.partition.to_be_bytes());
        id.extend(bad.offset.to_be_bytes());
        let item = Quarantined {
            what: format!("record {}/{}", bad.partition, bad.offset),
            error: bad.error,
            attempts: 1,
            stat: None,
            time_ms: 0,
        };
        let command = Command::Quarantine { name: self.name.clone(), id, item };
        propose(&self.m0, &command).await.map(drop)
    }
}
