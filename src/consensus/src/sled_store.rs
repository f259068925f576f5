//! Rows in sled 0.34.7.
//!
//! sled's `flush` is no fsync, so the tree is only an image: it is emptied at every start and
//! filled again from the checkpoint (see [`crate::raft::checkpoint`]), which makes a damaged
//! directory harmless.

use std::io;
use std::ops::Bound;
use std::path::Path;

use base::limits::MIB;
use bytes::Bytes;

use crate::table::{Change, TableStore};

/// Memory that sled may use for its page cache, for all groups of a node together.
const CACHE_BYTES: u64 = 32 * MIB as u64;
/// The row that holds the applied index. Service rows begin with a tag above 0.
const APPLIED_KEY: &[u8] = &[0];

/// The sled database of a node; one tree per group.
#[derive(Clone)]
pub struct SledDb(sled::Db);

impl SledDb {
    /// Opens an empty database at `path`, deleting what an earlier run left there.
    pub fn open_blank(path: &Path) -> io::Result<Self> {
        match std::fs::remove_dir_all(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        Ok(Self(config.open().map_err(other)?))
    }

    /// The rows of one group.
    pub fn store(&self, name: &str) -> io::Result<SledStore> {
        Ok(SledStore(self.0.open_tree(name).map_err(other)?))
    }
}

/// The rows of one group in sled.
pub struct SledStore(sled::Tree);

fn other(error: sled::Error) -> io::Error {
    io::Error::other(format!("sled: {error}"))
}

impl TableStore for SledStore {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        let value = self.0.get(key).map_err(other)?;
        Ok(value.map(|v| Bytes::copy_from_slice(&v)))
    }

    fn scan(
        &self,
        prefix: &[u8],
        from: Bound<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Vec<u8>, Bytes)>> {
        let rows = self.0.range::<&[u8], _>((from, Bound::Unbounded));
        let mut found = Vec::new();
        for row in rows.take(limit) {
            let (key, value) = row.map_err(other)?;
            if !key.starts_with(prefix) {
                break;
            }
            found.push((key.to_vec(), Bytes::copy_from_slice(&value)));
        }
        Ok(found)
    }

    fn write_batch(&self, applied: u64, changes: &[Change]) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&key[..], &value[..]),
                None => batch.remove(&key[..]),
            }
        }
        batch.insert(APPLIED_KEY, &applied.to_be_bytes());
        self.0.apply_batch(batch).map_err(other)
    }

    fn applied(&self) -> io::Result<u64> {
        let value = self.0.get(APPLIED_KEY).map_err(other)?;
        Ok(value.and_then(|v| v[..].try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    fn clear(&self) -> io::Result<()> {
        self.0.clear().map_err(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_written_with_their_index_and_scanned_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let db = SledDb::open_blank(&dir.path().join("t")).unwrap();
        let store = db.store("d0").unwrap();
        let row = |k: &[u8], v: &'static [u8]| (k.to_vec(), Some(Bytes::from_static(v)));
        store
            .write_batch(7, &[row(b"\x02b", b"2"), row(b"\x02a", b"1"), row(b"\x03", b"x")])
            .unwrap();
        let keys = |limit| -> Vec<Vec<u8>> {
            let rows = store.scan(b"\x02", Bound::Included(b"\x02"), limit).unwrap();
            rows.into_iter().map(|(k, _)| k).collect()
        };
        assert_eq!(keys(9), [b"\x02a", b"\x02b"]);
        assert_eq!(keys(1), [b"\x02a"]);
        assert_eq!(store.applied().unwrap(), 7);
        assert_eq!(store.get(b"\x02a").unwrap().unwrap(), "1");
    }
}
