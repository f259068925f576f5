//! Where the coordinators of consumer groups keep their rows.

use std::collections::BTreeMap;
use std::io;

use async_trait::async_trait;
use consensus::{Leadership, tags};
use tokio::sync::watch;

use super::LogService;
use crate::command;
use crate::groups::{GroupCommand, GroupRow, GroupStore, SaveFailed, load_rows};

#[async_trait]
impl GroupStore for LogService {
    fn shards(&self) -> usize {
        self.0.groups.data.len()
    }

    fn watch(&self, shard: usize) -> watch::Receiver<Leadership> {
        match self.0.groups.data.get(shard) {
            Some(group) => group.watch(),
            // Nobody leads a shard that is not there.
            None => watch::Sender::new(Leadership::default()).subscribe(),
        }
    }

    fn load(&self, shard: usize) -> io::Result<BTreeMap<String, GroupRow>> {
        self.0.readers.get(shard).map_or_else(|| Ok(BTreeMap::new()), load_rows)
    }

    async fn save(&self, shard: usize, term: u64, command: GroupCommand) -> Result<(), SaveFailed> {
        let missing = || SaveFailed(format!("no data group {shard}"));
        let group = self.0.groups.data.get(shard).ok_or_else(missing)?;
        let sent = group.propose_here(tags::LOG, command::groups(&command), Some(term)).await;
        sent.map(|_| ()).map_err(|e| SaveFailed(e.to_string()))
    }
}
