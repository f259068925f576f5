//! Sources that cannot go on, and files that cannot be read: over servers of the test's making, on
//! time that passes while nothing else is left to do.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use base::env::TokioClock;
use collect::remote::{DirEntry, LocalFs, RemoteFile, RemoteFs};

use super::*;

/// 2026-01-01.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// Simulated time for whatever is waited for.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Collects from `root` until `done`, or until the source stops by itself.
fn collect_until(
    fake: &Arc<Fake>,
    root: &Path,
    connect: Connect,
    done: impl Fn(&Progress) -> bool,
) -> (Option<Stopped>, Progress) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let tasks = TaskGroup::new();
        let progress = SharedProgress::default();
        let env = Env { clock: Arc::new(TokioClock::new(EPOCH_MS)), ..Env::real() };
        let sinks: Arc<dyn Sinks> = fake.clone();
        let running = run(job(root), connect, sinks, env, tasks.clone(), progress.clone());
        let settled = async {
            while !done(&progress.lock()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let stopped = tokio::select! {
            stopped = running => Some(stopped),
            () = settled => None,
            () = tokio::time::sleep(PATIENCE) => panic!("{:?}", progress.lock()),
        };
        tasks.shutdown(Duration::from_secs(5)).await;
        let progress = progress.lock().clone();
        (stopped, progress)
    })
}

/// A server that takes its turn from a list for each login, and the last of it for ever.
struct Logins {
    answers: Vec<Option<RemoteError>>,
    tried: AtomicUsize,
}

impl Logins {
    fn new(answers: Vec<Option<RemoteError>>) -> Arc<Self> {
        Arc::new(Self { answers, tried: AtomicUsize::new(0) })
    }

    fn tried(&self) -> usize {
        self.tried.load(Ordering::SeqCst)
    }

    fn connect(self: &Arc<Self>) -> Connect {
        let this = self.clone();
        Arc::new(move || {
            let number = this.tried.fetch_add(1, Ordering::SeqCst);
            match this.answers.get(number).or(this.answers.last()).unwrap() {
                Some(error) => Err(error.clone()),
                None => Ok(Box::new(LocalFs)),
            }
        })
    }
}

fn refused() -> Option<RemoteError> {
    Some(RemoteError::Auth("wrong password".into()))
}

fn never(_: &Progress) -> bool {
    false
}

fn one_file() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.txt", "text");
    dir
}

#[test]
fn a_source_stops_when_its_login_was_refused_three_times() {
    let (dir, fake, logins) = (one_file(), Arc::new(Fake::default()), Logins::new(vec![refused()]));
    let (stopped, progress) = collect_until(&fake, dir.path(), logins.connect(), never);
    assert_eq!(stopped, Some(Stopped::Auth("wrong password".into())));
    assert_eq!(logins.tried(), 3);
    assert_eq!(progress.last_error.as_deref(), Some("listing: login: wrong password"));
}

/// The lister's session goes on listing; a password that has changed shows in new ones only.
#[test]
fn a_session_that_works_does_not_excuse_logins_that_are_refused() {
    let (dir, fake) = (one_file(), Arc::new(Fake::default()));
    let logins = Logins::new(vec![None, refused()]);
    let (stopped, _) = collect_until(&fake, dir.path(), logins.connect(), never);
    assert_eq!(stopped, Some(Stopped::Auth("wrong password".into())));
    assert_eq!(logins.tried(), 4);
    assert!(fake.state.lock().given_up.is_empty(), "it is no file's fault");
}

/// With many sessions and files, those that wait for their turn do not try as well.
#[test]
fn no_login_is_tried_more_often_by_many_sessions() {
    let (dir, fake) = (one_file(), Arc::new(Fake::default()));
    (0..50).for_each(|n| write(dir.path(), &format!("{n}.txt"), "text"));
    let logins = Logins::new(vec![None, refused()]);
    let (stopped, _) = collect_until(&fake, dir.path(), logins.connect(), never);
    assert!(matches!(stopped, Some(Stopped::Auth(_))), "{stopped:?}");
    assert_eq!(logins.tried(), 4);
}

#[test]
fn a_login_that_is_accepted_excuses_those_before_it() {
    let (dir, fake) = (one_file(), Arc::new(Fake::default()));
    let logins = Logins::new(vec![refused(), refused(), None, refused(), refused(), None]);
    let collected = |progress: &Progress| progress.collected == 1;
    let (stopped, _) = collect_until(&fake, dir.path(), logins.connect(), collected);
    assert_eq!((stopped, logins.tried()), (None, 6));
    let state = fake.state.lock();
    assert_eq!((state.log.len(), state.given_up.len()), (1, 0));
}

#[test]
fn a_source_stops_at_once_when_the_servers_key_is_another() {
    let (dir, fake) = (one_file(), Arc::new(Fake::default()));
    let other = RemoteError::HostKey("not the known one".into());
    for (answers, tried) in [(vec![Some(other.clone())], 1), (vec![None, Some(other)], 2)] {
        let logins = Logins::new(answers);
        let (stopped, _) = collect_until(&fake, dir.path(), logins.connect(), never);
        assert_eq!(stopped, Some(Stopped::HostKey("not the known one".into())));
        assert_eq!(logins.tried(), tried, "by whichever session meets it");
    }
    assert!(fake.state.lock().log.is_empty());
}

#[test]
fn a_source_that_is_started_again_begins_with_all_its_tries() {
    let (dir, fake) = (one_file(), Arc::new(Fake::default()));
    let logins = Logins::new(vec![refused(), refused(), refused(), refused(), refused(), None]);
    let (stopped, _) = collect_until(&fake, dir.path(), logins.connect(), never);
    assert!(matches!(stopped, Some(Stopped::Auth(_))), "{stopped:?}");
    let collected = |progress: &Progress| progress.collected == 1;
    let (stopped, _) = collect_until(&fake, dir.path(), logins.connect(), collected);
    assert_eq!((stopped, fake.state.lock().log.len()), (None, 1));
}

/// What a server does not let us have.
#[derive(Clone, Default)]
struct Denied {
    names: BTreeSet<&'static str>,
    opened: Arc<Mutex<Vec<PathBuf>>>,
}

/// A local directory as a server that denies some of it.
struct Watched(LocalFs, Denied);

fn path_of(raw: &[u8]) -> PathBuf {
    String::from_utf8(raw.to_vec()).unwrap().into()
}

impl Denied {
    fn connect(&self) -> Connect {
        let denied = self.clone();
        Arc::new(move || Ok(Box::new(Watched(LocalFs, denied.clone()))))
    }

    fn check(&self, path: &Path) -> Result<(), RemoteError> {
        let name = path.file_name().unwrap().to_str().unwrap();
        let denied = self.names.contains(name);
        if denied { Err(RemoteError::PermissionDenied) } else { Ok(()) }
    }
}

impl RemoteFs for Watched {
    fn list(
        &mut self,
        dir: &[u8],
        each: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<(), RemoteError> {
        self.1.check(&path_of(dir))?;
        self.0.list(dir, each)
    }

    fn open(&mut self, path: &[u8]) -> Result<Box<dyn RemoteFile + '_>, RemoteError> {
        self.1.opened.lock().push(path_of(path));
        self.1.check(&path_of(path))?;
        self.0.open(path)
    }

    fn stat(&mut self, path: &[u8]) -> Result<Stat, RemoteError> {
        self.0.stat(path)
    }
}

#[test]
fn what_may_not_be_read_is_told_and_holds_up_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["good.txt", "secret.txt", "shut/inside.txt", "open/inside.txt"] {
        write(dir.path(), name, "text");
    }
    let fake = Arc::new(Fake::default());
    let denied = Denied { names: ["secret.txt", "shut"].into(), ..Denied::default() };
    let all = |progress: &Progress| progress.collected == 2 && progress.totals.quarantined == 1;
    let (stopped, progress) = collect_until(&fake, dir.path(), denied.connect(), all);
    assert_eq!(stopped, None);
    let shut = dir.path().join("shut").display().to_string();
    assert_eq!(progress.bad_dirs, [format!("{shut}: permission denied")]);
    assert_eq!(progress.last_error.as_deref(), Some("secret.txt: permission denied"));
    let state = fake.state.lock();
    let stored: Vec<&str> = state.files.keys().map(String::as_str).collect();
    assert_eq!(stored, ["/datalake/news/good.txt", "/datalake/news/open/inside.txt"]);
    assert_eq!((state.log.len(), state.given_up.len()), (2, 1));
}

#[test]
fn links_pipes_and_sockets_are_never_opened() {
    let (dir, fake) = (one_file(), Arc::new(Fake::default()));
    write(dir.path(), "deep/b.txt", "text");
    let at = |name: &str| dir.path().join(name);
    std::os::unix::fs::symlink(at("a.txt"), at("link.txt")).unwrap();
    std::os::unix::fs::symlink(at("deep"), at("linked")).unwrap();
    std::os::unix::fs::symlink(at("nothing"), at("dangling.txt")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket.txt")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(at("pipe.txt")).status().unwrap();
    assert!(made.success());
    let denied = Denied::default();
    let done = |progress: &Progress| progress.collected == 2 && progress.totals.scans > 3;
    let (stopped, progress) = collect_until(&fake, dir.path(), denied.connect(), done);
    assert_eq!((stopped, progress.totals.listed), (None, 2));
    let opened: BTreeSet<PathBuf> = denied.opened.lock().iter().cloned().collect();
    assert_eq!(opened, BTreeSet::from([at("a.txt"), at("deep/b.txt")]));
    // Nor is one that took a file's place since it was listed: to open a pipe is to wait for ever.
    for name in ["link.txt", "pipe.txt", "socket.txt"] {
        let opened = LocalFs.open(at(name).to_str().unwrap().as_bytes()).map(|_| ());
        assert_eq!(opened, Err(RemoteError::File("not a regular file".into())), "{name}");
    }
}
