//! Threads that block: one that lists, several that fetch. Each has its own connection.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::{Receiver, Sender};

use crate::commit::{Ready, prepare};
use crate::glob::Filter;
use crate::ident::Stat;
use crate::limits::{LIST_BATCH, MAX_DEPTH, MAX_SHOWN_ERRORS, READ_BUFFER_BYTES};
use crate::remote::{Connect, Content, Kind, RemoteError, RemoteFs, join, read_stable};
use crate::runner::Job;
use crate::scanner::Candidate;

/// Idle time after which a fetch thread asks the server for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A file found by the lister.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Raw path below the source's directory.
    pub(crate) path: Vec<u8>,
    pub(crate) stat: Stat,
}

/// What the lister tells.
#[derive(Debug)]
pub(crate) enum ListEvent {
    Files(Vec<Listed>),
    /// The scan is over: directories that failed, or why nothing could be listed.
    End(Result<Vec<String>, RemoteError>),
}

/// What became of a job.
pub(crate) struct FetchResult {
    pub(crate) job: Candidate,
    pub(crate) fetched: Result<Fetched, RemoteError>,
}

/// A file that was read.
pub(crate) enum Fetched {
    /// A second reading found the content that is committed, with this SHA-256.
    AsBefore([u8; 32]),
    Ready(Box<Ready>),
}

/// Lists the tree once for each message in `wanted`, until it closes.
pub(crate) fn lister(
    connect: &Connect,
    root: &[u8],
    filter: &Filter,
    mut wanted: Receiver<()>,
    events: &Sender<ListEvent>,
) {
    let mut fs: Option<Box<dyn RemoteFs>> = None;
    while wanted.blocking_recv().is_some() {
        let outcome = list_tree(&mut fs, connect, root, filter, events);
        if matches!(outcome, Err(ListFailure::Remote(_))) {
            fs = None;
        }
        let end = match outcome {
            Ok(errors) => Ok(errors),
            Err(ListFailure::Remote(error)) => Err(error),
            Err(ListFailure::NobodyListens) => return,
        };
        if events.blocking_send(ListEvent::End(end)).is_err() {
            return;
        }
    }
}

enum ListFailure {
    Remote(RemoteError),
    NobodyListens,
}

fn list_tree(
    slot: &mut Option<Box<dyn RemoteFs>>,
    connect: &Connect,
    root: &[u8],
    filter: &Filter,
    events: &Sender<ListEvent>,
) -> Result<Vec<String>, ListFailure> {
    let fs = match slot {
        Some(fs) => fs,
        None => slot.insert(open(connect).map_err(ListFailure::Remote)?),
    };
    let mut errors = Vec::new();
    let mut dirs: Vec<(Vec<u8>, usize)> = vec![(Vec::new(), 0)];
    let mut batch = Vec::with_capacity(LIST_BATCH);
    while let Some((dir, depth)) = dirs.pop() {
        let full = if dir.is_empty() { root.to_vec() } else { join(root, &dir) };
        let mut lost = false;
        let listed = fs.list(&full, &mut |entry| {
            let path = if dir.is_empty() { entry.name } else { join(&dir, &entry.name) };
            match entry.kind {
                Kind::Dir if filter.enters(&path) => dirs.push((path, depth + 1)),
                Kind::File if filter.takes_file(&path) => {
                    batch.push(Listed { path, stat: entry.stat });
                }
                Kind::Dir | Kind::File | Kind::Symlink | Kind::Other => {}
            }
            if batch.len() >= LIST_BATCH {
                lost = events.blocking_send(ListEvent::Files(std::mem::take(&mut batch))).is_err();
            }
            if lost { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if lost {
            return Err(ListFailure::NobodyListens);
        }
        let shown = || String::from_utf8_lossy(&full).into_owned();
        match listed {
            Ok(()) => {}
            // Without its root or its connection there is no scan.
            Err(e) if depth == 0 => return Err(ListFailure::Remote(e)),
            Err(e @ (RemoteError::Connection(_) | RemoteError::Auth(_))) => {
                return Err(ListFailure::Remote(e));
            }
            Err(e) => errors.push(format!("{}: {e}", shown())),
        }
        if depth >= MAX_DEPTH && dirs.iter().any(|(_, d)| *d > MAX_DEPTH) {
            dirs.retain(|(_, d)| *d <= MAX_DEPTH);
            errors.push(format!("{}: deeper than {MAX_DEPTH} directories", shown()));
        }
        errors.truncate(MAX_SHOWN_ERRORS);
    }
    if !batch.is_empty() && events.blocking_send(ListEvent::Files(batch)).is_err() {
        return Err(ListFailure::NobodyListens);
    }
    Ok(errors)
}

/// Fetches jobs until the queue closes. A connection error is told with the job that met it; the
/// next job makes a new connection.
pub(crate) fn fetcher(
    connect: &Connect,
    source: &Job,
    jobs: &Arc<Mutex<Receiver<Candidate>>>,
    results: &Sender<FetchResult>,
    handle: &tokio::runtime::Handle,
) {
    let mut fs: Option<Box<dyn RemoteFs>> = None;
    let mut buf = vec![0; READ_BUFFER_BYTES];
    loop {
        let job = match next_job(jobs, handle) {
            Next::Job(job) => job,
            Next::Closed => return,
            Next::Idle => {
                if fs.as_mut().is_some_and(|fs| fs.keepalive().is_err()) {
                    fs = None;
                }
                continue;
            }
        };
        let path = join(source.source.path.as_bytes(), &job.seen.raw_path);
        let mut content = fetch_one(&mut fs, connect, &path, &job, &mut buf);
        if content == Err(RemoteError::Changed(None)) {
            // After a broken pipeline libssh2's session is not to be trusted either.
            fs = None;
            content = Err(why_unreadable(&mut fs, connect, &path, &job));
        }
        if let Err(RemoteError::Connection(_)) = &content {
            fs = None;
        }
        let fetched = content.map(|content| {
            if job.recheck == Some(content.sha256) {
                return Fetched::AsBefore(content.sha256);
            }
            let ready = prepare(source, job.clone(), content.bytes, content.sha256);
            Fetched::Ready(Box::new(ready))
        });
        if results.blocking_send(FetchResult { job, fetched }).is_err() {
            return;
        }
    }
}

enum Next {
    Job(Candidate),
    Idle,
    Closed,
}

/// Threads take turns at the queue: one waits in it, the others for the lock.
fn next_job(jobs: &Arc<Mutex<Receiver<Candidate>>>, handle: &tokio::runtime::Handle) -> Next {
    let Some(mut queue) = jobs.try_lock_for(KEEPALIVE) else { return Next::Idle };
    let waiting = async { tokio::time::timeout(KEEPALIVE, queue.recv()).await };
    match handle.block_on(waiting) {
        Ok(Some(job)) => Next::Job(job),
        Ok(None) => Next::Closed,
        Err(_) => Next::Idle,
    }
}

fn open(connect: &Connect) -> Result<Box<dyn RemoteFs>, RemoteError> {
    connect().map_err(|error| match error {
        RemoteError::Connection(text) => RemoteError::Unreachable(text),
        other => other,
    })
}

fn fetch_one(
    slot: &mut Option<Box<dyn RemoteFs>>,
    connect: &Connect,
    path: &[u8],
    job: &Candidate,
    buf: &mut [u8],
) -> Result<Content, RemoteError> {
    let fs = match slot {
        Some(fs) => fs,
        None => slot.insert(open(connect)?),
    };
    read_stable(&mut **fs, path, job.seen.stat, buf)
}

/// Why a file could not be read to its listed end: it has changed, or the fault is its own.
fn why_unreadable(
    slot: &mut Option<Box<dyn RemoteFs>>,
    connect: &Connect,
    path: &[u8],
    job: &Candidate,
) -> RemoteError {
    let fs = match open(connect) {
        Ok(fs) => slot.insert(fs),
        Err(error) => return error,
    };
    match fs.stat(path) {
        Ok(found) if found == job.seen.stat => {
            let size = found.size;
            RemoteError::File(format!("not {size} bytes can be read, as many as are listed"))
        }
        Ok(found) => RemoteError::Changed(Some(found)),
        Err(error) => error,
    }
}
