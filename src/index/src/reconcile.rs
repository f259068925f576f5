//! The leader of `m0` compares the catalog with the shards that the groups have, creates what is
//! missing and removes what belongs to no index, until they agree. Both are idempotent.
//!
//! Why a shard of an index that is just being created is not taken for an orphan: the groups are
//! read first, then `m0` behind a read barrier, and an index is in `m0` before it has shards.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use base::GroupId;
use consensus::tags;

use crate::command::ShardCommand;
use crate::limits::RECONCILE_EVERY;
use crate::model::ShardId;
use crate::service::IndexService;

/// Runs until the service is gone.
pub(crate) async fn run(service: Weak<IndexService>) {
    loop {
        {
            let Some(service) = service.upgrade() else { return };
            if service.groups.m0.leadership().ready_here {
                compare(&service).await;
            }
            remove_left_engines(&service).await;
        }
        tokio::time::sleep(RECONCILE_EVERY).await;
    }
}

async fn compare(service: &IndexService) {
    let mut there: BTreeSet<(ShardId, GroupId)> = BTreeSet::new();
    for group in &service.groups.data {
        if group.read_barrier().await.is_err() {
            return;
        }
    }
    there.extend(service.shared.copies().iter().map(|copy| (copy.id, copy.group)));
    let Ok(catalog) = service.fresh_catalog().await else { return };
    let wanted: BTreeSet<(ShardId, GroupId)> =
        catalog.indices.values().flat_map(|meta| meta.shards().collect::<Vec<_>>()).collect();
    let missing = wanted.difference(&there).map(|(id, g)| (*g, ShardCommand::Create(*id)));
    let orphans = there.difference(&wanted).map(|(id, g)| (*g, ShardCommand::Delete(*id)));
    for (group, command) in missing.chain(orphans) {
        let Ok(group) = service.group(group) else { continue };
        tracing::info!(group = %group.id(), ?command, "bringing a group in line with the catalog");
        if let Err(error) = group.propose(tags::INDEX, command.encode()).await {
            tracing::debug!(group = %group.id(), "trying again later: {error}");
        }
    }
}

/// Deletes search indices on this node whose shard is gone everywhere: the catalog must be known
/// to be current, for a starting node knows no shards yet.
async fn remove_left_engines(service: &Arc<IndexService>) {
    let disk = service.shared.env.disk.clone();
    let dir = service.shared.engines_dir();
    let Ok(true) = disk.exists(&dir) else { return };
    let Ok(paths) = disk.read_dir(&dir) else { return };
    let known: BTreeSet<ShardId> = service.shared.copies().iter().map(|copy| copy.id).collect();
    let id_of = |path: &PathBuf| ShardId::from_dir_name(path.file_name()?.to_str()?);
    let left = paths.into_iter().filter_map(|path| id_of(&path).map(|id| (id, path)));
    let left: Vec<_> = left.filter(|(id, _)| !known.contains(id)).collect();
    if left.is_empty() {
        return;
    }
    let Ok(catalog) = service.fresh_catalog().await else { return };
    for (id, path) in left {
        if catalog.by_uuid(id.index).is_some() {
            continue;
        }
        if let Err(error) = disk.remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), "a deleted search index stays: {error}");
        }
    }
}
