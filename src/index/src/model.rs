//! Indices and shards as the cluster knows them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base::GroupId;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use search::mapping::IndexSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The identity of one index: a name used again is another index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IndexUuid(pub [u8; 16]);

impl fmt::Display for IndexUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// One shard of one index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId {
    /// The index.
    pub index: IndexUuid,
    /// Its number, from 0.
    pub number: u16,
}

impl ShardId {
    /// Bytes of a row key, in order.
    pub(crate) fn key(self) -> [u8; 18] {
        let mut key = [0; 18];
        key[..16].copy_from_slice(&self.index.0);
        key[16..].copy_from_slice(&self.number.to_be_bytes());
        key
    }

    /// A name for files: 32 hexadecimal digits, a dash, the number.
    pub fn dir_name(self) -> String {
        let hex: String = self.index.0.iter().map(|b| format!("{b:02x}")).collect();
        format!("{hex}-{}", self.number)
    }

    /// The reverse of [`Self::dir_name`].
    pub(crate) fn from_dir_name(name: &str) -> Option<Self> {
        let (hex, number) = name.split_once('-')?;
        let bits = u128::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 32)?;
        Some(Self { index: IndexUuid(bits.to_be_bytes()), number: number.parse().ok()? })
    }
}

/// Whether an index takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexState {
    /// Open.
    Open,
    /// Closed: kept, but neither searched nor written.
    Closed,
}

/// One index as `m0` keeps it. JSON parts are kept as text: bincode has no dynamic values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRow {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: IndexUuid,
    /// When it was created, in milliseconds.
    pub created_ms: i64,
    /// The data group of each shard.
    pub shards: Vec<GroupId>,
    /// Copies beside the first that the user asked for.
    pub replicas: u32,
    /// Flat settings as JSON: `{"index.refresh_interval":"1s"}`.
    pub settings: String,
    /// Mapping as JSON.
    pub mapping: String,
    /// Grows with each change of the mapping, from 1.
    pub mapping_version: u64,
    /// Grows with each change of the settings, from 1.
    pub settings_version: u64,
    /// Aliases: name and definition as JSON.
    pub aliases: BTreeMap<String, String>,
    /// Open or closed.
    pub state: IndexState,
}

/// An index with its JSON parts parsed; shared by readers.
#[derive(Debug)]
pub struct IndexMeta {
    /// As replicated.
    pub row: IndexRow,
    /// Flat settings by name.
    pub settings: BTreeMap<String, Value>,
    /// The mapping, ready for use.
    pub schema: Arc<IndexSchema>,
    /// Aliases by name.
    pub aliases: BTreeMap<String, Value>,
}

impl IndexMeta {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.row.name
    }

    /// Its identity.
    pub fn uuid(&self) -> IndexUuid {
        self.row.uuid
    }

    /// Number of shards.
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.row.shards.len()).unwrap_or(u16::MAX)
    }

    /// Its shards with their groups, in order.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, GroupId)> + '_ {
        let index = self.row.uuid;
        (0u16..).zip(&self.row.shards).map(move |(number, g)| (ShardId { index, number }, *g))
    }

    /// A setting as text, by its full name.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).and_then(Value::as_str)
    }

    /// Whether wildcards pass over it unless they ask for hidden indices.
    pub fn is_hidden(&self) -> bool {
        self.setting("index.hidden") == Some("true")
    }

    /// How often new documents become visible; `None` when never by themselves.
    pub fn refresh_interval_ms(&self) -> Option<u64> {
        match self.setting("index.refresh_interval").map(crate::settings::parse_time_ms) {
            None | Some(None) => Some(crate::limits::REFRESH_INTERVAL_MS),
            Some(Some(ms)) => u64::try_from(ms).ok(),
        }
    }
}

/// Every index by name, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Indices by name.
    pub indices: BTreeMap<String, Arc<IndexMeta>>,
    /// Other named definitions (templates), by kind and name, as JSON.
    pub blobs: BTreeMap<(String, String), Value>,
    /// Grows with each change.
    pub version: u64,
}

impl Catalog {
    /// The index of this identity.
    pub fn by_uuid(&self, uuid: IndexUuid) -> Option<&Arc<IndexMeta>> {
        self.indices.values().find(|meta| meta.uuid() == uuid)
    }

    /// The indices that have this alias.
    pub fn with_alias<'a>(&'a self, alias: &'a str) -> impl Iterator<Item = &'a Arc<IndexMeta>> {
        self.indices.values().filter(move |meta| meta.row.aliases.contains_key(alias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_directories_name_their_shard() {
        let id = ShardId { index: IndexUuid([7; 16]), number: 12 };
        assert_eq!(ShardId::from_dir_name(&id.dir_name()), Some(id));
        assert_eq!(ShardId::from_dir_name("lost+found"), None);
        assert_eq!(id.index.to_string().len(), 22);
    }
}
