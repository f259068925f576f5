//! The three steps for a batch of fetched files, each repeated on its own while its outcome is
//! unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::ident::{FileKey, Stat, Version, partition_of};
use crate::names;
use crate::record::FileFacts;
use crate::runner::Job;
use crate::scanner::Candidate;
use crate::sink::{AppendItem, SinkError, Sinks, StoreFile};

/// Tries of one commit before its files are fetched again.
const COMMIT_TRIES: u32 = 5;

/// What became of a file in a commit.
pub(crate) struct Outcome {
    pub(crate) key: FileKey,
    pub(crate) path: String,
    pub(crate) stat: Stat,
    pub(crate) sha256: [u8; 32],
    pub(crate) bytes: u64,
    pub(crate) result: Result<(), SinkError>,
}

/// A fetched file on its way to a commit.
pub(crate) struct Ready {
    pub(crate) job: Candidate,
    pub(crate) partition: u32,
    pub(crate) file: StoreFile,
    pub(crate) item: AppendItem,
}

/// Builds the stored file and the record of a fetched file.
pub(crate) fn prepare(job: &Job, candidate: Candidate, bytes: Vec<u8>, sha256: [u8; 32]) -> Ready {
    let seen = &candidate.seen;
    let display = names::display_path(&seen.raw_path);
    let store = job.store.trim_end_matches('/');
    let path = format!("{store}/{}", names::twin_path(&seen.store_path, candidate.twin));
    let record_key = names::twin_path(&display, candidate.twin);
    let facts = FileFacts {
        source: &job.name,
        key: seen.key,
        raw_path: &seen.raw_path,
        display: &display,
        root: &job.source.path,
        record_key: &record_key,
        store_path: &path,
        stat: seen.stat,
        sha256: &sha256,
    };
    let record = job.record.build(&facts, &bytes);
    let version = Version { stat: seen.stat, sha256, twin: candidate.twin };
    let partition = partition_of(&display, job.partitions);
    let item = AppendItem { key: seen.key, version, record };
    let file = StoreFile { path, version, bytes: Bytes::from(bytes) };
    Ready { job: candidate, partition, file, item }
}

/// Steps 1 to 3 for a batch. Each step is repeated on its own while its outcome is unknown.
pub(crate) async fn commit_batch(sinks: &dyn Sinks, batch: Vec<Ready>) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(batch.len());
    let files: Vec<StoreFile> = batch.iter().map(|ready| ready.file.clone()).collect();
    let stored = match with_tries(|| sinks.store(files.clone())).await {
        Ok(stored) => stored,
        Err(e) => vec![Err(e); batch.len()],
    };
    let mut parts: BTreeMap<u32, Vec<Ready>> = BTreeMap::new();
    for (ready, stored) in batch.into_iter().zip(stored) {
        match stored {
            Ok(()) => parts.entry(ready.partition).or_default().push(ready),
            Err(e) => outcomes.push(outcome(&ready, Err(e))),
        }
    }
    let appends = parts.into_iter().map(|(partition, ready)| async move {
        let items: Vec<AppendItem> = ready.iter().map(|r| r.item.clone()).collect();
        let result = with_tries(|| sinks.append(partition, items.clone())).await;
        let results = match result {
            Ok(results) => results.into_iter().map(|r| r.map(|_| ())).collect(),
            Err(e) => vec![Err(e); ready.len()],
        };
        debug_assert_eq!(results.len(), ready.len());
        ready.iter().zip(results).map(|(r, result)| outcome(r, result)).collect::<Vec<_>>()
    });
    outcomes.extend(futures::future::join_all(appends).await.into_iter().flatten());
    outcomes
}

fn outcome(ready: &Ready, result: Result<(), SinkError>) -> Outcome {
    Outcome {
        key: ready.job.seen.key,
        path: names::display_path(&ready.job.seen.raw_path),
        stat: ready.job.seen.stat,
        sha256: ready.file.version.sha256,
        bytes: ready.job.seen.stat.size,
        result,
    }
}

async fn with_tries<T, F>(mut step: impl FnMut() -> F) -> Result<T, SinkError>
where
    F: Future<Output = Result<T, SinkError>>,
{
    let mut pause = Duration::from_millis(100);
    for _ in 1..COMMIT_TRIES {
        match step().await {
            Err(SinkError::Retry(_)) => {}
            other => return other,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    step().await
}
