//! Which files are to be fetched when: pure, fed with listings and results.
//!
//! A file is ready when two looks at least `settle` apart agree in size and time; the second
//! look is the `fstat` before its first byte is read. Time is our monotonic clock; the server's
//! clock decides nothing. A file that the ledger holds with the same size and time is done.
//!
//! Twins (different raw names with one path in the block store) are numbered when they are
//! ready, after at least one scan of all that can be listed, so that all of them are known: first
//! those that the ledger remembers, then by bytes, the composed name first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::config::SourceConfig;
use crate::ident::{FileKey, Stat, Version};
use crate::limits::MAX_BACKLOG;

/// First pause after a failure; doubles up to [`MAX_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest pause after a failure.
const MAX_BACKOFF: Duration = Duration::from_secs(600);
/// How long after a commit a file with a young time stamp is read once more.
const RECHECK_AFTER: Duration = Duration::from_secs(3);

/// A file as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Identity.
    pub key: FileKey,
    /// Raw path below the source's directory.
    pub raw_path: Vec<u8>,
    /// Path below the store's directory, without number.
    pub store_path: String,
    /// Size and time.
    pub stat: Stat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for its due time.
    Waiting,
    /// With a fetch thread or in a commit.
    InFlight,
    /// Committed, but the ledger here did not show it yet.
    Done,
    /// Given up until its stat changes or someone asks for a retry.
    Quarantined,
}

#[derive(Clone, Debug)]
struct Entry {
    seen: Seen,
    /// When this stat was first seen.
    since: Duration,
    due: Duration,
    attempts: u32,
    phase: Phase,
    scan: u64,
    /// Hash of the committed content when this is the second reading of a young file.
    recheck: Option<[u8; 32]>,
}

/// A file to be fetched now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The file.
    pub seen: Seen,
    /// Its number among twins.
    pub twin: u8,
    /// Hash of the content that is committed already, when this is a second reading.
    pub recheck: Option<[u8; 32]>,
}

/// What to do after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// It is tried again by itself.
    Retry,
    /// Attempts are used up.
    Quarantine {
        /// How many there were.
        attempts: u32,
    },
}

/// How a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanEnd {
    /// It saw everything.
    Whole,
    /// Some directories could not be listed.
    Gaps,
    /// It broke off somewhere.
    Failed,
}

/// Totals of the latest complete scan and of what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files listed that the filter takes.
    pub listed: u64,
    /// Of those, in the ledger with this version.
    pub done: u64,
    /// Waiting or in flight.
    pub pending: u64,
    /// Given up.
    pub quarantined: u64,
    /// Complete scans so far.
    pub scans: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    key: FileKey,
    twin: u8,
    /// Sorts composed names in front.
    composed: bool,
    scan: u64,
}

/// The state of one source's scans.
#[derive(Debug)]
pub struct Scanner {
    config: SourceConfig,
    entries: HashMap<FileKey, Entry>,
    due: BTreeSet<(Duration, FileKey)>,
    /// Who stands where in the block store; number 0 is not assigned yet.
    claims: BTreeMap<[u8; 16], Vec<Claim>>,
    scan: u64,
    /// A scan came to its end.
    looked: bool,
    listed: u64,
    done: u64,
    totals: Totals,
}

impl Scanner {
    /// A scanner that has seen nothing.
    pub fn new(config: SourceConfig) -> Self {
        Self {
            config,
            entries: HashMap::new(),
            due: BTreeSet::new(),
            claims: BTreeMap::new(),
            scan: 0,
            looked: false,
            listed: 0,
            done: 0,
            totals: Totals::default(),
        }
    }

    /// A scan begins.
    pub fn begin_scan(&mut self) {
        self.scan += 1;
        self.listed = 0;
        self.done = 0;
    }

    /// A file was listed; `known` is what the ledger has of it, `quarantined` the stat it was
    /// given up with.
    pub fn observe(
        &mut self,
        now: Duration,
        seen: Seen,
        known: Option<&Version>,
        quarantined: Option<Stat>,
    ) {
        self.listed += 1;
        self.claim(&seen, known.map(|v| v.twin));
        let is_known = known.is_some_and(|v| v.stat == seen.stat);
        if is_known {
            self.done += 1;
        }
        let full = self.entries.len() >= MAX_BACKLOG;
        match self.entries.get_mut(&seen.key) {
            Some(entry) => {
                entry.scan = self.scan;
                if is_known && entry.phase != Phase::InFlight && entry.recheck.is_none() {
                    self.remove(&seen.key);
                } else if entry.seen.stat != seen.stat {
                    self.changed(now, seen.key, seen.stat);
                } else if entry.phase == Phase::Quarantined && quarantined != Some(seen.stat) {
                    self.release(now, seen.key);
                } else if entry.phase == Phase::Done && !is_known {
                    // The ledger here lags behind the commit.
                    self.done += 1;
                }
            }
            None if is_known => {}
            None if full => {}
            None => self.insert(now, seen, quarantined),
        }
    }

    fn insert(&mut self, now: Duration, seen: Seen, quarantined: Option<Stat>) {
        let key = seen.key;
        let given_up = quarantined == Some(seen.stat);
        let due = now + self.config.settle(seen.stat.size);
        let phase = if given_up { Phase::Quarantined } else { Phase::Waiting };
        if !given_up {
            self.due.insert((due, key));
        }
        let scan = self.scan;
        let entry = Entry { seen, since: now, due, attempts: 0, phase, scan, recheck: None };
        self.entries.insert(key, entry);
    }

    /// A scan ended. When it saw everything, files it did not see are forgotten.
    pub fn end_scan(&mut self, end: ScanEnd) {
        // A directory that cannot be listed holds up no file elsewhere.
        self.looked |= end != ScanEnd::Failed;
        if end == ScanEnd::Whole {
            let scan = self.scan;
            let gone: Vec<FileKey> = (self.entries.iter())
                .filter(|(_, e)| e.scan != scan && e.phase != Phase::InFlight)
                .map(|(key, _)| *key)
                .collect();
            for key in gone {
                self.remove(&key);
            }
            self.claims.retain(|_, claims| {
                claims.retain(|claim| claim.scan == scan || claim.twin > 0);
                !claims.is_empty()
            });
            self.totals.scans += 1;
        }
        self.totals.listed = self.listed;
        self.totals.done = self.done;
    }

    /// Files that are ready now, at most `limit`; they are in flight until a result comes.
    /// `remembered` finds the twin number of a path that is no longer listed.
    pub fn ready(&mut self, now: Duration, limit: usize) -> Vec<Candidate> {
        let mut out = Vec::new();
        // Before the end of the first scan a twin may not be known yet.
        if !self.looked {
            return out;
        }
        while out.len() < limit {
            let Some((due, key)) = self.due.first().copied() else { break };
            if due > now {
                break;
            }
            self.due.pop_first();
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.phase = Phase::InFlight;
            let (seen, recheck) = (entry.seen.clone(), entry.recheck);
            let twin = self.number(&seen);
            out.push(Candidate { seen, twin, recheck });
        }
        out
    }

    /// When the next file gets ready.
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// A file was committed as it was with this stat and content. `young` says that its time
    /// stamp is so close to now that another change could hide in the same second.
    pub fn committed(
        &mut self,
        now: Duration,
        key: FileKey,
        stat: Stat,
        sha256: [u8; 32],
        young: bool,
    ) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.seen.stat != stat {
            // A scan saw it change after it had been fetched.
            return self.unsettled(now, key, None);
        }
        entry.attempts = 0;
        if young {
            entry.recheck = Some(sha256);
            self.wait(key, now + RECHECK_AFTER);
        } else {
            entry.recheck = None;
            entry.phase = Phase::Done;
        }
    }

    /// A file had another size or time than expected: its settle time begins again.
    pub fn changed(&mut self, now: Duration, key: FileKey, stat: Stat) {
        let settle = self.config.settle(stat.size);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.seen.stat = stat;
        entry.since = now;
        entry.attempts = 0;
        entry.recheck = None;
        // A fetch of the old stat that is under way finds the change itself, and where the fetch
        // is over, its commit.
        if entry.phase != Phase::InFlight {
            self.wait(key, now + settle);
        }
    }

    /// A fetch found that the file changes: it settles again with what was seen last.
    pub fn unsettled(&mut self, now: Duration, key: FileKey, stat: Option<Stat>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let stat = stat.unwrap_or(entry.seen.stat);
        entry.phase = Phase::Waiting;
        self.changed(now, key, stat);
    }

    /// A file is no longer there.
    pub fn vanished(&mut self, key: FileKey) {
        self.remove(&key);
    }

    /// A step failed for this file; `jitter` is below 1000.
    pub fn failed(&mut self, now: Duration, key: FileKey, jitter: u32) -> AfterFailure {
        let Some(entry) = self.entries.get_mut(&key) else { return AfterFailure::Retry };
        entry.attempts += 1;
        let attempts = entry.attempts;
        if attempts >= self.config.max_attempts {
            entry.phase = Phase::Quarantined;
            return AfterFailure::Quarantine { attempts };
        }
        let doubled = FIRST_BACKOFF.saturating_mul(1 << (attempts - 1).min(20));
        let pause = doubled.min(MAX_BACKOFF);
        self.wait(key, now + pause / 2 + pause / 2 * jitter / 1000);
        AfterFailure::Retry
    }

    /// A step failed for reasons outside the file: tried again after `pause`, not counted.
    pub fn postponed(&mut self, now: Duration, key: FileKey, pause: Duration) {
        self.wait(key, now + pause);
    }

    fn release(&mut self, now: Duration, key: FileKey) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.attempts = 0;
        }
        self.wait(key, now);
    }

    fn wait(&mut self, key: FileKey, due: Duration) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        self.due.remove(&(entry.due, key));
        entry.due = due;
        entry.phase = Phase::Waiting;
        self.due.insert((due, key));
    }

    fn remove(&mut self, key: &FileKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.due.remove(&(entry.due, *key));
        }
    }

    fn claim(&mut self, seen: &Seen, known: Option<u8>) {
        let scan = self.scan;
        let composed = seen.raw_path == seen.store_path.as_bytes();
        let claims = self.claims.entry(place(&seen.store_path)).or_default();
        match claims.iter_mut().find(|claim| claim.key == seen.key) {
            Some(claim) => {
                claim.scan = scan;
                claim.twin = known.unwrap_or(claim.twin);
            }
            None => {
                let twin = known.unwrap_or(0);
                claims.push(Claim { key: seen.key, twin, composed, scan });
            }
        }
    }

    /// Remembers a number that the ledger holds for a path that may not be listed any more.
    pub fn remember_twin(&mut self, store_path: &str, key: FileKey, twin: u8) {
        let scan = self.scan;
        let claims = self.claims.entry(place(store_path)).or_default();
        if !claims.iter().any(|claim| claim.key == key) {
            claims.push(Claim { key, twin, composed: false, scan });
        }
    }

    /// The number of a file among its twins, assigned now if it has none.
    fn number(&mut self, seen: &Seen) -> u8 {
        let Some(claims) = self.claims.get_mut(&place(&seen.store_path)) else { return 1 };
        claims.sort_by_key(|claim| (!claim.composed, claim.key));
        let mut taken: BTreeSet<u8> = claims.iter().map(|c| c.twin).filter(|n| *n > 0).collect();
        for claim in claims.iter_mut().filter(|claim| claim.twin == 0) {
            let free = (1..=u8::MAX).find(|n| !taken.contains(n)).unwrap_or(u8::MAX);
            taken.insert(free);
            claim.twin = free;
        }
        claims.iter().find(|claim| claim.key == seen.key).map_or(1, |claim| claim.twin)
    }

    /// Counts for people.
    pub fn totals(&self) -> Totals {
        let count = |f: fn(&Entry) -> bool| self.entries.values().filter(|e| f(e)).count() as u64;
        Totals {
            pending: count(|e| {
                matches!(e.phase, Phase::Waiting | Phase::InFlight) && e.recheck.is_none()
            }),
            quarantined: count(|e| e.phase == Phase::Quarantined),
            ..self.totals
        }
    }
}

/// The key of a path in the block store.
fn place(store_path: &str) -> [u8; 16] {
    FileKey::new("", store_path.as_bytes()).0
}

#[cfg(test)]
mod tests {
    use unicode_normalization::UnicodeNormalization;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seen(path: &str, size: u64, mtime_s: i64) -> Seen {
        Seen {
            key: FileKey::new("t", path.as_bytes()),
            raw_path: path.as_bytes().to_vec(),
            store_path: path.nfc().collect(),
            stat: Stat { size, mtime_s },
        }
    }

    fn version(seen: &Seen, twin: u8) -> Version {
        Version { stat: seen.stat, sha256: [7; 32], twin }
    }

    fn scan(scanner: &mut Scanner, now: u64, files: &[&Seen]) {
        scanner.begin_scan();
        for file in files {
            scanner.observe(s(now), (*file).clone(), None, None);
        }
        scanner.end_scan(ScanEnd::Whole);
    }

    fn ready(scanner: &mut Scanner, now: u64) -> Vec<String> {
        let found = scanner.ready(s(now), 100);
        found.into_iter().map(|c| String::from_utf8(c.seen.raw_path).unwrap()).collect()
    }

    #[test]
    fn a_file_waits_until_it_settles() {
        let mut scanner = Scanner::new(SourceConfig::default());
        let (file, empty) = (seen("a", 3, 10), seen("e", 0, 10));
        scan(&mut scanner, 100, &[&file, &empty]);
        assert_eq!(scanner.next_due(), Some(s(105)));
        assert!(ready(&mut scanner, 104).is_empty());
        assert_eq!(ready(&mut scanner, 105), ["a"]);
        assert!(ready(&mut scanner, 110).is_empty(), "in flight");
        assert_eq!(ready(&mut scanner, 160), ["e"]);
    }

    #[test]
    fn a_change_starts_the_clock_again() {
        let mut scanner = Scanner::new(SourceConfig::default());
        scan(&mut scanner, 100, &[&seen("a", 3, 10)]);
        scan(&mut scanner, 104, &[&seen("a", 4, 10)]);
        assert!(ready(&mut scanner, 108).is_empty());
        scan(&mut scanner, 108, &[&seen("a", 4, 11)]);
        assert!(ready(&mut scanner, 112).is_empty());
        assert_eq!(ready(&mut scanner, 113), ["a"]);
        scanner.unsettled(s(114), seen("a", 0, 0).key, Some(Stat { size: 9, mtime_s: 12 }));
        assert!(ready(&mut scanner, 118).is_empty());
        assert_eq!(ready(&mut scanner, 119), ["a"]);
    }

    #[test]
    fn what_the_ledger_has_is_done_until_it_changes() {
        let mut scanner = Scanner::new(SourceConfig::default());
        let file = seen("a", 3, 10);
        scanner.begin_scan();
        scanner.observe(s(1), file.clone(), Some(&version(&file, 1)), None);
        scanner.end_scan(ScanEnd::Whole);
        assert_eq!(scanner.totals(), Totals { listed: 1, done: 1, scans: 1, ..Default::default() });
        assert!(ready(&mut scanner, 99).is_empty());
        let newer = seen("a", 3, 11);
        scanner.begin_scan();
        scanner.observe(s(100), newer, Some(&version(&file, 1)), None);
        scanner.end_scan(ScanEnd::Whole);
        assert_eq!(ready(&mut scanner, 105), ["a"]);
    }

    #[test]
    fn a_commit_that_the_local_ledger_lags_behind_is_not_fetched_again() {
        let mut scanner = Scanner::new(SourceConfig::default());
        let file = seen("a", 3, 10);
        scan(&mut scanner, 0, &[&file]);
        assert_eq!(ready(&mut scanner, 5), ["a"]);
        scanner.committed(s(6), file.key, file.stat, [7; 32], false);
        scan(&mut scanner, 10, &[&file]);
        assert!(ready(&mut scanner, 30).is_empty());
        assert_eq!(scanner.totals().done, 1);
        scanner.begin_scan();
        scanner.observe(s(31), file.clone(), Some(&version(&file, 1)), None);
        scanner.end_scan(ScanEnd::Whole);
        assert!(scanner.entries.is_empty());
    }

    #[test]
    fn a_young_file_is_read_once_more() {
        let mut scanner = Scanner::new(SourceConfig::default());
        let file = seen("a", 3, 10);
        scan(&mut scanner, 0, &[&file]);
        assert_eq!(ready(&mut scanner, 5), ["a"]);
        scanner.committed(s(6), file.key, file.stat, [7; 32], true);
        scanner.begin_scan();
        scanner.observe(s(7), file.clone(), Some(&version(&file, 1)), None);
        scanner.end_scan(ScanEnd::Whole);
        assert_eq!(scanner.totals().pending, 0, "a second reading is not backlog");
        let again = scanner.ready(s(9), 10);
        assert_eq!(again[0].recheck, Some([7; 32]));
        scanner.committed(s(9), file.key, file.stat, [7; 32], false);
        assert!(scanner.ready(s(99), 10).is_empty());
    }

    #[test]
    fn what_changes_while_it_is_committed_is_fetched_again() {
        for young in [false, true] {
            let mut scanner = Scanner::new(SourceConfig::default());
            let (file, newer) = (seen("a", 3, 10), seen("a", 4, 11));
            scan(&mut scanner, 0, &[&file]);
            assert_eq!(ready(&mut scanner, 5), ["a"]);
            scan(&mut scanner, 6, &[&newer]);
            assert!(ready(&mut scanner, 20).is_empty(), "in flight");
            scanner.committed(s(20), file.key, file.stat, [7; 32], young);
            scanner.begin_scan();
            scanner.observe(s(21), newer.clone(), Some(&version(&file, 1)), None);
            scanner.end_scan(ScanEnd::Whole);
            assert_eq!(scanner.totals().done, 0);
            let again = scanner.ready(s(25), 10);
            assert_eq!((again[0].seen.stat, again[0].recheck), (newer.stat, None));
        }
    }

    #[test]
    fn failures_back_off_and_end_in_quarantine() {
        let config = SourceConfig { max_attempts: 3, settle_ms: 0, ..Default::default() };
        let mut scanner = Scanner::new(config);
        let file = seen("a", 3, 10);
        scan(&mut scanner, 0, &[&file]);
        assert_eq!(ready(&mut scanner, 0), ["a"]);
        assert_eq!(scanner.failed(s(0), file.key, 999), AfterFailure::Retry);
        assert!(ready(&mut scanner, 0).is_empty());
        assert_eq!(ready(&mut scanner, 1), ["a"]);
        assert_eq!(scanner.failed(s(1), file.key, 999), AfterFailure::Retry);
        assert_eq!(ready(&mut scanner, 3), ["a"]);
        assert_eq!(scanner.failed(s(3), file.key, 0), AfterFailure::Quarantine { attempts: 3 });
        let again = |scanner: &mut Scanner, now, file: &Seen, given_up| {
            scanner.begin_scan();
            scanner.observe(s(now), file.clone(), None, given_up);
            scanner.end_scan(ScanEnd::Whole);
        };
        again(&mut scanner, 10, &file, Some(file.stat));
        assert!(ready(&mut scanner, 999).is_empty());
        assert_eq!(scanner.totals().quarantined, 1);
        again(&mut scanner, 1000, &file, None);
        assert_eq!(ready(&mut scanner, 1000), ["a"], "released by hand");
        assert_eq!(scanner.failed(s(1000), file.key, 0), AfterFailure::Retry);
    }

    #[test]
    fn files_that_disappear_are_forgotten_only_by_a_complete_scan() {
        let mut scanner = Scanner::new(SourceConfig::default());
        scan(&mut scanner, 0, &[&seen("a", 1, 1), &seen("b", 1, 1)]);
        scanner.begin_scan();
        scanner.observe(s(1), seen("a", 1, 1), None, None);
        scanner.end_scan(ScanEnd::Gaps);
        assert_eq!(scanner.totals().pending, 2);
        scan(&mut scanner, 2, &[&seen("a", 1, 1)]);
        assert_eq!(scanner.totals().pending, 1);
    }

    #[test]
    fn twins_are_numbered_the_same_in_any_order() {
        let nfc = seen("회의.txt", 1, 1);
        let nfd = seen(&"회의.txt".nfd().collect::<String>(), 1, 1);
        for order in [[&nfc, &nfd], [&nfd, &nfc]] {
            let mut scanner = Scanner::new(SourceConfig::default());
            scan(&mut scanner, 0, &order);
            let got: BTreeMap<_, _> =
                scanner.ready(s(9), 9).into_iter().map(|c| (c.seen.key, c.twin)).collect();
            assert_eq!(got, BTreeMap::from([(nfc.key, 1), (nfd.key, 2)]));
        }
    }

    #[test]
    fn a_twin_in_the_ledger_keeps_its_number() {
        let nfc = seen("회의.txt", 1, 1);
        let nfd = seen(&"회의.txt".nfd().collect::<String>(), 1, 1);
        let mut scanner = Scanner::new(SourceConfig::default());
        scanner.begin_scan();
        scanner.observe(s(0), nfc.clone(), None, None);
        scanner.observe(s(0), nfd.clone(), Some(&version(&nfd, 1)), None);
        scanner.end_scan(ScanEnd::Whole);
        let got = scanner.ready(s(9), 9);
        assert_eq!((got.len(), got[0].seen.key, got[0].twin), (1, nfc.key, 2));
        // One that left the server but not the ledger keeps its place too.
        let mut scanner = Scanner::new(SourceConfig::default());
        scan(&mut scanner, 0, &[&nfc]);
        scanner.remember_twin(&nfc.store_path, nfd.key, 1);
        assert_eq!(scanner.ready(s(9), 9)[0].twin, 2);
    }
    #[test]
    fn a_directory_that_cannot_be_listed_holds_up_no_other_file() {
        let mut scanner = Scanner::new(SourceConfig::default());
        let look = |scanner: &mut Scanner, now, end| {
            scanner.begin_scan();
            scanner.observe(s(now), seen("a", 3, 10), None, None);
            scanner.end_scan(end);
        };
        look(&mut scanner, 0, ScanEnd::Failed);
        assert!(ready(&mut scanner, 10).is_empty(), "a twin may have come later");
        look(&mut scanner, 11, ScanEnd::Gaps);
        assert_eq!(scanner.totals().scans, 0, "only complete ones are counted");
        assert_eq!(ready(&mut scanner, 11), ["a"]);
    }

    #[test]
    fn what_does_not_fit_the_backlog_waits_for_a_later_scan() {
        let mut scanner = Scanner::new(SourceConfig { settle_ms: 0, ..Default::default() });
        let more = 50;
        let files: Vec<Seen> =
            (0..MAX_BACKLOG + more).map(|n| seen(&format!("{n}"), 1, 1)).collect();
        let all: Vec<&Seen> = files.iter().collect();
        scan(&mut scanner, 0, &all);
        let totals = scanner.totals();
        assert_eq!(totals.listed, files.len() as u64);
        assert_eq!(totals.pending, MAX_BACKLOG as u64, "no more are remembered");
        let taken = scanner.ready(s(0), 80);
        for candidate in &taken {
            let seen = &candidate.seen;
            scanner.committed(s(0), seen.key, seen.stat, [7; 32], false);
        }
        let taken: BTreeSet<FileKey> = taken.iter().map(|candidate| candidate.seen.key).collect();
        // What the ledger has by now makes room; the scan goes on behind it.
        scanner.begin_scan();
        let (old, new): (Vec<&Seen>, Vec<&Seen>) =
            files.iter().partition(|file| taken.contains(&file.key));
        for file in old {
            scanner.observe(s(1), file.clone(), Some(&version(file, 1)), None);
        }
        for file in new {
            scanner.observe(s(1), file.clone(), None, None);
        }
        scanner.end_scan(ScanEnd::Whole);
        assert_eq!(scanner.totals().pending, files.len() as u64 - 80, "all have come in now");
        assert_eq!(scanner.ready(s(1), files.len()).len(), files.len() - 80);
    }
}
