//! Drives one source: asks the lister for scans, feeds the scanner, hands ready files to the
//! fetch threads, and commits what they bring.
//!
//! One task owns the state and waits for one closed set of events. Commits run beside it, at
//! most [`MAX_COMMITS`] at a time; a file is in at most one of them, so versions of a file are
//! committed in order. Dropping the future stops everything: the threads see their queues close.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base::{Env, TaskGroup};
use parking_lot::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::{info, warn};

use crate::commit::{Outcome, Ready, commit_batch};
use crate::config::{ConfigError, SourceConfig, bad};
use crate::fetch::{self, FetchResult, Fetched, ListEvent, Listed};
use crate::glob::Filter;
use crate::ident::{FileKey, partition_of};
use crate::limits::{
    COMMIT_BYTES, COMMIT_FILES, MAX_COMMITS, MAX_INFLIGHT_BYTES, QUEUED_PER_SESSION,
};
use crate::names;
use crate::record::RecordBuilder;
use crate::remote::{Connect, LocalFs, RemoteError, SftpFs, SftpOptions};
use crate::scanner::{AfterFailure, Candidate, ScanEnd, Scanner, Seen, Totals};
use crate::sink::{GivenUp, SinkError, Sinks};

/// How often time-driven work is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often the totals are counted.
const TOTALS: Duration = Duration::from_millis(200);
/// Pause after a failure that is not the file's fault.
const OUTSIDE_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two connections to a server that does not answer.
const MAX_CONNECT_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause before a file that waits is fetched after its server was away.
const MAX_FETCH_PAUSE: Duration = Duration::from_secs(5);
/// Refused logins in a row before the source stops: servers lock accounts.
const MAX_LOGINS: u32 = 3;
/// Time stamps this close to now may hide another change in the same second.
const YOUNG_S: i64 = 2;

/// A source and where its files go.
#[derive(Clone)]
pub struct Job {
    /// Name of the source; part of every file's identity.
    pub name: String,
    /// Where files come from.
    pub source: SourceConfig,
    /// How they become records.
    pub record: RecordBuilder,
    /// Directory in the block store.
    pub store: String,
    /// Partitions of the topic, frozen when the pipeline was made.
    pub partitions: u32,
}

/// Why a source stopped by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// Another node collects now.
    #[error("another node collects this source now")]
    Fenced,
    /// The server's key is not the known one; someone must decide.
    #[error("host key: {0}")]
    HostKey(String),
    /// The server refuses the login; more tries could lock the account.
    #[error("login refused: {0}")]
    Auth(String),
    /// The settings cannot work.
    #[error("settings: {0}")]
    Config(#[from] ConfigError),
}

/// Numbers for people, kept up to date while a source runs.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Totals of the scans.
    pub totals: Totals,
    /// Files committed by this run.
    pub collected: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Failed attempts.
    pub failed: u64,
    /// Latest problem.
    pub last_error: Option<String>,
    /// Directories that could not be listed in the latest scan.
    pub bad_dirs: Vec<String>,
}

/// Progress shared with whoever shows it.
pub type SharedProgress = Arc<Mutex<Progress>>;

/// Makes the connector of a source.
pub fn connector(source: &SourceConfig) -> Connect {
    match source.kind {
        crate::config::SourceKind::Local => Arc::new(|| Ok(Box::new(LocalFs))),
        crate::config::SourceKind::Sftp => {
            let source = source.clone();
            Arc::new(move || {
                let options = SftpOptions::from_config(&source)?;
                Ok(Box::new(SftpFs::connect(&options)?))
            })
        }
    }
}

/// Connections of all sessions, one after the other. `refused` counts logins that were refused
/// since the latest that was accepted: a session that goes on working says nothing of the next
/// login, for which the password may have changed.
fn one_by_one(connect: Connect, refused: Arc<AtomicU32>) -> Connect {
    // Servers drop connections that log in at the same time (MaxStartups).
    let turn = Mutex::new(());
    Arc::new(move || {
        let _turn = turn.lock();
        if refused.load(Ordering::SeqCst) >= MAX_LOGINS {
            return Err(RemoteError::Auth("refused too often to be tried again".to_owned()));
        }
        let made = connect();
        match &made {
            Ok(_) => refused.store(0, Ordering::SeqCst),
            Err(RemoteError::Auth(_)) => drop(refused.fetch_add(1, Ordering::SeqCst)),
            Err(_) => {}
        }
        made
    })
}

enum Event {
    List(ListEvent),
    Fetched(FetchResult),
    Committed(Vec<Outcome>),
    Tick,
}

/// Collects until the source stops by itself. Drop the future to stop it.
pub async fn run(
    job: Job,
    connect: Connect,
    sinks: Arc<dyn Sinks>,
    env: Env,
    tasks: TaskGroup,
    progress: SharedProgress,
) -> Stopped {
    let filter = match Filter::new(&job.source.include, &job.source.exclude) {
        Ok(filter) => filter,
        Err(problem) => return Stopped::Config(bad("source.include/exclude", problem)),
    };
    let mut run = Run::start(job, &connect, filter, sinks, env, tasks, progress);
    loop {
        let event = run.next_event().await;
        if let Err(stopped) = run.handle(event) {
            return stopped;
        }
        if let Err(stopped) = run.pump().await {
            return stopped;
        }
    }
}

/// A server that does not answer.
struct Outage {
    /// Attempts to reach it that failed, those of several sessions at the same time as one.
    failures: u32,
    /// Until when failures belong to the latest attempt.
    attempt_ends: Duration,
    /// What people were told.
    problem: String,
}

struct Run {
    job: Arc<Job>,
    sinks: Arc<dyn Sinks>,
    env: Env,
    tasks: TaskGroup,
    progress: SharedProgress,
    scanner: Scanner,
    scans: Sender<()>,
    lists: Receiver<ListEvent>,
    jobs: Sender<Candidate>,
    fetched: Receiver<FetchResult>,
    commits: (Sender<Vec<Outcome>>, Receiver<Vec<Outcome>>),
    scanning: bool,
    next_scan: Duration,
    queue: VecDeque<Candidate>,
    inflight_bytes: u64,
    fetching: usize,
    ready: Vec<Ready>,
    ready_bytes: u64,
    committing: usize,
    give_up: Vec<GivenUp>,
    outage: Option<Outage>,
    refused_logins: Arc<AtomicU32>,
    fetch_after: Duration,
    next_totals: Duration,
}

impl Run {
    fn start(
        job: Job,
        connect: &Connect,
        filter: Filter,
        sinks: Arc<dyn Sinks>,
        env: Env,
        tasks: TaskGroup,
        progress: SharedProgress,
    ) -> Self {
        let sessions = job.source.sessions;
        let (scans, wanted) = channel(1);
        let (list_tx, lists) = channel(8);
        let (jobs, queue) = channel(sessions * QUEUED_PER_SESSION);
        let (result_tx, fetched) = channel(sessions * QUEUED_PER_SESSION);
        let job = Arc::new(job);
        let refused_logins = Arc::new(AtomicU32::new(0));
        let connect = one_by_one(connect.clone(), refused_logins.clone());
        let (list_connect, list_root) = (connect.clone(), job.source.path.clone().into_bytes());
        base::task::thread("collect-list", move || {
            fetch::lister(&list_connect, &list_root, &filter, wanted, &list_tx);
        });
        let queue = Arc::new(Mutex::new(queue));
        let handle = tokio::runtime::Handle::current();
        for _ in 0..sessions {
            let (connect, job, queue) = (connect.clone(), job.clone(), queue.clone());
            let (result_tx, handle) = (result_tx.clone(), handle.clone());
            base::task::thread("collect-fetch", move || {
                fetch::fetcher(&connect, &job, &queue, &result_tx, &handle);
            });
        }
        let now = env.clock.monotonic();
        Self {
            scanner: Scanner::new(job.source.clone()),
            job,
            sinks,
            env,
            tasks,
            progress,
            scans,
            lists,
            jobs,
            fetched,
            commits: channel(MAX_COMMITS),
            scanning: false,
            next_scan: now,
            queue: VecDeque::new(),
            inflight_bytes: 0,
            fetching: 0,
            ready: Vec::new(),
            ready_bytes: 0,
            committing: 0,
            give_up: Vec::new(),
            outage: None,
            refused_logins,
            fetch_after: now,
            next_totals: now,
        }
    }

    async fn next_event(&mut self) -> Event {
        // The senders of `commits` live here too, so that channel never closes; the threads'
        // channels close only when a thread died, and then the tick goes on alone.
        tokio::select! {
            Some(done) = self.commits.1.recv() => Event::Committed(done),
            Some(result) = self.fetched.recv() => Event::Fetched(result),
            Some(listed) = self.lists.recv() => Event::List(listed),
            () = tokio::time::sleep(TICK) => Event::Tick,
        }
    }

    fn now(&self) -> Duration {
        self.env.clock.monotonic()
    }

    fn handle(&mut self, event: Event) -> Result<(), Stopped> {
        match event {
            Event::Tick => Ok(()),
            Event::List(ListEvent::Files(files)) => {
                for file in files {
                    self.observe(file);
                }
                Ok(())
            }
            Event::List(ListEvent::End(outcome)) => self.scan_ended(outcome),
            Event::Fetched(result) => self.on_fetched(result),
            Event::Committed(outcomes) => self.on_committed(outcomes),
        }
    }

    fn observe(&mut self, file: Listed) {
        let key = FileKey::new(&self.job.name, &file.path);
        let display = names::display_path(&file.path);
        let partition = partition_of(&display, self.job.partitions);
        let known = match self.sinks.known(partition, key) {
            Ok(known) => known,
            Err(error) => return self.problem(format!("ledger: {error}")),
        };
        let seen = Seen {
            key,
            store_path: names::store_path(&display),
            raw_path: file.path,
            stat: file.stat,
        };
        if known.is_none() {
            self.remember_twins(&display, &seen);
        }
        let given_up = self.sinks.given_up(key);
        self.scanner.observe(self.now(), seen, known.as_ref(), given_up);
    }

    /// A new file may meet a twin that has left the server but still stands in the block store.
    fn remember_twins(&mut self, display: &str, seen: &Seen) {
        for raw in names::raw_variants(display) {
            if raw == seen.raw_path {
                continue;
            }
            let key = FileKey::new(&self.job.name, &raw);
            let partition = partition_of(display, self.job.partitions);
            if let Ok(Some(version)) = self.sinks.known(partition, key) {
                self.scanner.remember_twin(&seen.store_path, key, version.twin);
            }
        }
    }

    fn scan_ended(&mut self, outcome: Result<Vec<String>, RemoteError>) -> Result<(), Stopped> {
        self.scanning = false;
        let pause = Duration::from_millis(self.job.source.scan_interval_ms);
        match outcome {
            Ok(bad_dirs) => {
                self.connected();
                self.next_scan = self.now() + pause;
                let end = if bad_dirs.is_empty() { ScanEnd::Whole } else { ScanEnd::Gaps };
                self.scanner.end_scan(end);
                self.progress.lock().bad_dirs = bad_dirs;
            }
            Err(error) => {
                self.scanner.end_scan(ScanEnd::Failed);
                self.next_scan = self.now() + self.outside("listing", &error)?;
            }
        }
        Ok(())
    }

    fn connected(&mut self) {
        let Some(outage) = self.outage.take() else { return };
        info!(source = %self.job.name, "the server answers again");
        // What came meanwhile is looked for now, however long the pause had become.
        self.next_scan = self.next_scan.min(self.now());
        let mut progress = self.progress.lock();
        if progress.last_error.as_ref() == Some(&outage.problem) {
            progress.last_error = None;
        }
    }

    /// A failure of the whole source: how long to wait, or why to stop.
    fn outside(&mut self, doing: &str, error: &RemoteError) -> Result<Duration, Stopped> {
        let problem = format!("{doing}: {error}");
        self.problem(problem.clone());
        match error {
            RemoteError::HostKey(text) => Err(Stopped::HostKey(text.clone())),
            RemoteError::Auth(text) => {
                if self.refused_logins.load(Ordering::SeqCst) >= MAX_LOGINS {
                    return Err(Stopped::Auth(text.clone()));
                }
                Ok(OUTSIDE_PAUSE * 5)
            }
            RemoteError::Connection(_)
            | RemoteError::Unreachable(_)
            | RemoteError::NotFound
            | RemoteError::PermissionDenied
            | RemoteError::Changed(_)
            | RemoteError::File(_) => {
                let now = self.now();
                let (before, counted) = match &self.outage {
                    Some(outage) => (outage.failures, now < outage.attempt_ends),
                    None => (0, false),
                };
                let failures = if counted { before } else { before + 1 };
                let doubled = OUTSIDE_PAUSE * (1 << (failures - 1).min(6));
                let pause = doubled.min(MAX_CONNECT_PAUSE);
                let attempt_ends = now + pause.min(MAX_FETCH_PAUSE);
                if counted && let Some(outage) = &mut self.outage {
                    outage.problem = problem;
                } else {
                    self.outage = Some(Outage { failures, attempt_ends, problem });
                }
                Ok(pause)
            }
        }
    }

    fn problem(&mut self, text: String) {
        let mut progress = self.progress.lock();
        if progress.last_error.as_deref() != Some(&text) {
            warn!(source = %self.job.name, problem = %text, "collector");
        }
        progress.last_error = Some(text);
    }

    fn on_fetched(&mut self, result: FetchResult) -> Result<(), Stopped> {
        self.fetching -= 1;
        let FetchResult { job, fetched } = result;
        let size = job.seen.stat.size;
        match fetched {
            Err(error) => {
                self.inflight_bytes -= size;
                return self.fetch_failed(&job, error);
            }
            Ok(Fetched::AsBefore(sha256)) => {
                self.inflight_bytes -= size;
                self.scanner.committed(self.now(), job.seen.key, job.seen.stat, sha256, false);
            }
            Ok(Fetched::Ready(ready)) => {
                self.ready_bytes += size;
                self.ready.push(*ready);
            }
        }
        self.connected();
        Ok(())
    }

    fn fetch_failed(&mut self, job: &Candidate, error: RemoteError) -> Result<(), Stopped> {
        let (key, now) = (job.seen.key, self.now());
        match error {
            RemoteError::Changed(stat) => self.scanner.unsettled(now, key, stat),
            RemoteError::NotFound => self.scanner.vanished(key),
            RemoteError::PermissionDenied | RemoteError::File(_) => {
                self.file_failed(job, &error.to_string());
            }
            RemoteError::Connection(_) => {
                let pause = self.outside("fetching", &error)?;
                self.fetch_after = now + pause.min(MAX_FETCH_PAUSE);
                // Counted: a file that kills every connection must not block the others.
                self.file_failed(job, &error.to_string());
            }
            RemoteError::Unreachable(_) => {
                let pause = self.outside("fetching", &error)?.min(MAX_FETCH_PAUSE);
                self.fetch_after = now + pause;
                self.scanner.postponed(now, key, pause);
            }
            RemoteError::Auth(_) | RemoteError::HostKey(_) => {
                let pause = self.outside("fetching", &error)?;
                self.fetch_after = now + pause;
                self.scanner.postponed(now, key, pause);
            }
        }
        Ok(())
    }

    fn file_failed(&mut self, job: &Candidate, error: &str) {
        self.progress.lock().failed += 1;
        let jitter = u32::try_from(self.env.random.below(1000)).unwrap_or_default();
        let path = names::display_path(&job.seen.raw_path);
        self.problem(format!("{path}: {error}"));
        match self.scanner.failed(self.now(), job.seen.key, jitter) {
            AfterFailure::Retry => {}
            AfterFailure::Quarantine { attempts } => self.give_up.push(GivenUp {
                key: job.seen.key,
                path,
                stat: job.seen.stat,
                error: error.to_owned(),
                attempts,
            }),
        }
    }

    fn on_committed(&mut self, outcomes: Vec<Outcome>) -> Result<(), Stopped> {
        self.committing -= 1;
        let now = self.now();
        let wall_s = self.env.clock.unix_ms() / 1000;
        for outcome in outcomes {
            self.inflight_bytes -= outcome.bytes;
            match outcome.result {
                Ok(()) => {
                    let young = outcome.stat.mtime_s >= wall_s - YOUNG_S;
                    let (key, sha256) = (outcome.key, outcome.sha256);
                    self.scanner.committed(now, key, outcome.stat, sha256, young);
                    let mut progress = self.progress.lock();
                    progress.collected += 1;
                    progress.bytes += outcome.bytes;
                }
                Err(SinkError::Fenced) => return Err(Stopped::Fenced),
                Err(SinkError::Retry(text)) => {
                    self.progress.lock().failed += 1;
                    self.problem(format!("commit: {text}"));
                    self.scanner.postponed(now, outcome.key, OUTSIDE_PAUSE);
                }
                Err(SinkError::Refused(text)) => {
                    self.progress.lock().failed += 1;
                    self.problem(format!("{}: {text}", outcome.path));
                    let jitter = u32::try_from(self.env.random.below(1000)).unwrap_or_default();
                    if let AfterFailure::Quarantine { attempts } =
                        self.scanner.failed(now, outcome.key, jitter)
                    {
                        let (key, path, stat) = (outcome.key, outcome.path, outcome.stat);
                        self.give_up.push(GivenUp { key, path, stat, error: text, attempts });
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts whatever can start now.
    async fn pump(&mut self) -> Result<(), Stopped> {
        let now = self.now();
        if !self.scanning && now >= self.next_scan && self.scans.try_send(()).is_ok() {
            self.scanning = true;
            self.scanner.begin_scan();
        }
        self.dispatch(now);
        self.commit();
        while let Some(file) = self.give_up.pop() {
            info!(source = %self.job.name, path = %file.path, "file goes to quarantine");
            match self.sinks.give_up(file).await {
                Ok(()) => {}
                Err(SinkError::Fenced) => return Err(Stopped::Fenced),
                // Not remembered: the file is tried again after the next start, nothing is lost.
                Err(e) => self.problem(format!("quarantine: {e}")),
            }
        }
        // Counting walks over everything that waits: not for every event.
        if now >= self.next_totals {
            self.next_totals = now + TOTALS;
            let totals = self.scanner.totals();
            self.progress.lock().totals = totals;
        }
        Ok(())
    }

    fn dispatch(&mut self, now: Duration) {
        if now < self.fetch_after {
            return;
        }
        if self.queue.is_empty() {
            self.queue.extend(self.scanner.ready(now, COMMIT_FILES));
        }
        while let Some(job) = self.queue.pop_front() {
            let size = job.seen.stat.size;
            let fits = self.inflight_bytes == 0 || self.inflight_bytes + size <= MAX_INFLIGHT_BYTES;
            // Back-pressure: files that are fetched and not yet committed hold up fetching.
            if !fits || self.ready.len() >= COMMIT_FILES * MAX_COMMITS {
                self.queue.push_front(job);
                return;
            }
            match self.jobs.try_send(job) {
                Ok(()) => {
                    self.inflight_bytes += size;
                    self.fetching += 1;
                }
                Err(e) => {
                    let job = match e {
                        tokio::sync::mpsc::error::TrySendError::Full(job)
                        | tokio::sync::mpsc::error::TrySendError::Closed(job) => job,
                    };
                    self.queue.push_front(job);
                    return;
                }
            }
        }
    }

    /// Commits what is ready when a batch is full, or nothing more is coming soon.
    fn commit(&mut self) {
        while self.committing < MAX_COMMITS && !self.ready.is_empty() {
            let full = self.ready.len() >= COMMIT_FILES || self.ready_bytes >= COMMIT_BYTES;
            // While a commit runs, files gather for the next one.
            if !full && self.committing > 0 {
                return;
            }
            let mut batch = Vec::new();
            let mut bytes = 0;
            while batch.len() < COMMIT_FILES && bytes < COMMIT_BYTES && !self.ready.is_empty() {
                let next = self.ready.swap_remove(0);
                bytes += next.job.seen.stat.size;
                batch.push(next);
            }
            self.ready_bytes -= bytes;
            self.committing += 1;
            let (sinks, done) = (self.sinks.clone(), self.commits.0.clone());
            self.tasks.spawn("collect-commit", async move {
                let outcomes = commit_batch(&*sinks, batch).await;
                // The receiver is gone when the source was stopped.
                done.send(outcomes).await.ok();
            });
        }
    }
}
