//! Rows of state machines.
//!
//! A [`TableStore`] is the materialised image: sled in production, a map in memory in tests and
//! simulations. It is never the durable copy: that is the fsynced base and delta files that the
//! checkpointer writes, so a damaged store is deleted and rebuilt.
//!
//! Keys begin with the service's tag, which [`Rows`] adds and removes. Order is bytewise:
//! encode numbers big-endian.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

/// A changed row: its full key and new value, `None` for a deleted one.
pub type Change = (Vec<u8>, Option<Bytes>);

/// An ordered map of rows with the applied index they stand at.
pub trait TableStore: Send + Sync {
    /// Value of a key.
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>>;
    /// Up to `limit` rows from `from` on, in key order, while the key starts with `prefix`.
    fn scan(
        &self,
        prefix: &[u8],
        from: Bound<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Vec<u8>, Bytes)>>;
    /// Writes rows and the index they bring the store to, atomically.
    fn write_batch(&self, applied: u64, changes: &[Change]) -> io::Result<()>;
    /// The index of the latest batch; 0 when there was none.
    fn applied(&self) -> io::Result<u64>;
    /// Removes every row and sets the applied index to 0.
    fn clear(&self) -> io::Result<()>;
}

/// Rows in memory.
#[derive(Debug, Default)]
pub struct MemStore(RwLock<(u64, BTreeMap<Vec<u8>, Bytes>)>);

impl TableStore for MemStore {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.0.read().1.get(key).cloned())
    }

    fn scan(
        &self,
        prefix: &[u8],
        from: Bound<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Vec<u8>, Bytes)>> {
        let inner = self.0.read();
        let rows = inner.1.range::<[u8], _>((from, Bound::Unbounded));
        let hits = rows.take_while(|(k, _)| k.starts_with(prefix)).take(limit);
        Ok(hits.map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn write_batch(&self, applied: u64, changes: &[Change]) -> io::Result<()> {
        let mut inner = self.0.write();
        inner.0 = applied;
        for (key, value) in changes {
            match value {
                Some(value) => inner.1.insert(key.clone(), value.clone()),
                None => inner.1.remove(key),
            };
        }
        Ok(())
    }

    fn applied(&self) -> io::Result<u64> {
        Ok(self.0.read().0)
    }

    fn clear(&self) -> io::Result<()> {
        *self.0.write() = (0, BTreeMap::new());
        Ok(())
    }
}

/// The rows of one service in one group while a command is applied: reads see earlier writes of
/// the same entry.
pub struct Rows<'a> {
    store: &'a dyn TableStore,
    pending: &'a mut BTreeMap<Vec<u8>, Option<Bytes>>,
    tag: u8,
}

impl<'a> Rows<'a> {
    /// The rows of service `tag` over `store`, writes going to `pending`.
    pub fn new(
        store: &'a dyn TableStore,
        pending: &'a mut BTreeMap<Vec<u8>, Option<Bytes>>,
        tag: u8,
    ) -> Self {
        Self { store, pending, tag }
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&[self.tag], key].concat()
    }

    /// Value of a key.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        let key = self.key(key);
        match self.pending.get(&key) {
            Some(value) => Ok(value.clone()),
            None => self.store.get(&key),
        }
    }

    /// Sets a key. Values should stay below 100 KB.
    pub fn put(&mut self, key: &[u8], value: impl Into<Bytes>) {
        let key = self.key(key);
        self.pending.insert(key, Some(value.into()));
    }

    /// Removes a key; nothing happens when it is missing.
    pub fn delete(&mut self, key: &[u8]) {
        let key = self.key(key);
        self.pending.insert(key, None);
    }

    /// All rows whose key starts with `prefix`, in key order. Meant for `restore` and for small
    /// prefixes: everything is collected.
    pub fn scan(&self, prefix: &[u8]) -> io::Result<Vec<(Vec<u8>, Bytes)>> {
        let full = self.key(prefix);
        let stored = self.store.scan(&full, Bound::Included(&full), usize::MAX)?;
        let mut merged: BTreeMap<Vec<u8>, Bytes> = stored.into_iter().collect();
        let pending = self.pending.range::<[u8], _>((Bound::Included(&full[..]), Bound::Unbounded));
        for (key, value) in pending.take_while(|(k, _)| k.starts_with(&full)) {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().map(|(k, v)| (k.get(1..).unwrap_or_default().to_vec(), v)).collect())
    }
}

/// Reads the rows of one service from outside `apply`. Sees whole applied entries.
#[derive(Clone)]
pub struct RowsReader {
    store: Arc<dyn TableStore>,
    tag: u8,
}

impl RowsReader {
    /// The rows of service `tag` in `store`.
    pub fn new(store: Arc<dyn TableStore>, tag: u8) -> Self {
        Self { store, tag }
    }

    /// Value of a key.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        self.store.get(&[&[self.tag], key].concat())
    }

    /// Up to `limit` rows whose key starts with `prefix`, in key order, after `after` where
    /// given (a full key without tag, exclusive).
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Vec<u8>, Bytes)>> {
        let full = [&[self.tag], prefix].concat();
        let after = after.map(|key| [&[self.tag], key].concat());
        let from = after.as_deref().map_or(Bound::Included(&full[..]), Bound::Excluded);
        let rows = self.store.scan(&full, from, limit)?;
        Ok(rows.into_iter().map(|(k, v)| (k.get(1..).unwrap_or_default().to_vec(), v)).collect())
    }
}
