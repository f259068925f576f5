//! What clients saw, held against what replicas hold.
//!
//! A log is anything with places counted from 0 that values are appended to: the list of a
//! group, a partition of a topic. This module knows neither nodes nor time.

use std::collections::{BTreeMap, BTreeSet};

/// How an append ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is at this place.
    Acked(u64),
    /// It was promised that it never happens.
    NotDone,
    /// It may have happened, or may happen yet.
    Unknown,
}

/// Whether the sender repeats what has an unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Once only.
    Plain,
    /// Until it is acknowledged; the log must tell repetitions, and keep the order.
    Idempotent,
}

/// One append.
#[derive(Clone, Debug)]
pub struct Append {
    /// Which log.
    pub log: String,
    /// Who.
    pub client: u64,
    /// The client's own count.
    pub number: u64,
    /// How.
    pub sending: Sending,
    /// What; no two appends have the same.
    pub value: String,
    /// The highest place in this log that was acknowledged before it began.
    pub floor: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Everything that clients saw.
#[derive(Debug, Default)]
pub struct History {
    appends: Vec<Append>,
    highest: BTreeMap<String, u64>,
    reads: BTreeMap<(String, u64), String>,
    leaders: BTreeMap<(u16, u64), u16>,
    /// The first thing that must not have happened.
    violation: Option<String>,
}

/// Number of appends by outcome, and of reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged.
    pub acked: usize,
    /// Promised not to happen.
    pub not_done: usize,
    /// Unknown.
    pub unknown: usize,
    /// Places read by consumers.
    pub read: usize,
}

impl History {
    /// The highest place that is acknowledged in a log. Ask when an append or read begins.
    pub fn floor(&self, log: &str) -> Option<u64> {
        self.highest.get(log).copied()
    }

    /// An append of `log` that was acknowledged at `place`.
    pub fn acked_at(&self, log: &str, place: u64) -> Option<&str> {
        let mut of_log = self.appends.iter().rev().filter(|a| a.log == log);
        of_log.find(|a| a.outcome == Outcome::Acked(place)).map(|a| &a.value[..])
    }

    /// Notes an append that ended.
    pub fn ended(&mut self, append: Append) {
        if let Outcome::Acked(place) = append.outcome {
            let highest = self.highest.entry(append.log.clone()).or_default();
            *highest = place.max(*highest);
            if append.floor.is_some_and(|floor| place <= floor) {
                self.violate(format!("an append went before one acknowledged earlier: {append:?}"));
            }
        }
        self.appends.push(append);
    }

    /// Notes what a consumer found at a place.
    pub fn read(&mut self, log: &str, place: u64, value: &str) {
        let old = self.reads.insert((log.to_owned(), place), value.to_owned());
        if let Some(old) = old.filter(|old| old != value) {
            self.violate(format!("{log} had {old} at {place} and later {value}"));
        }
    }

    /// Notes that a node says it leads a group in a term.
    pub fn leads(&mut self, group: u16, term: u64, node: u16) {
        let leader = *self.leaders.entry((group, term)).or_insert(node);
        if leader != node {
            self.violate(format!("nodes {leader} and {node} both lead group {group} in {term}"));
        }
    }

    /// The newest term in which somebody said to lead a group.
    pub fn newest_term(&self, group: u16) -> u64 {
        let terms = self.leaders.range((group, 0)..=(group, u64::MAX));
        terms.map(|((_, term), _)| *term).next_back().unwrap_or(0)
    }

    /// Notes something that must not happen; the first is kept.
    pub fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// The first violation.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Figures for reports.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { read: self.reads.len(), ..Counts::default() };
        for append in &self.appends {
            match append.outcome {
                Outcome::Acked(_) => counts.acked += 1,
                Outcome::NotDone => counts.not_done += 1,
                Outcome::Unknown => counts.unknown += 1,
            }
        }
        counts
    }

    /// Leaders seen, over all groups.
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }

    /// Holds the history against all values of a log as one replica has them, by place.
    pub fn check(&self, log: &str, found: &[String]) -> Result<(), String> {
        let appends: BTreeMap<&str, &Append> =
            self.appends.iter().filter(|a| a.log == log).map(|a| (&a.value[..], a)).collect();
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for (place, value) in found.iter().enumerate() {
            let Some(append) = appends.get(&value[..]) else {
                return Err(format!("{log} at {place}: nobody sent {value}"));
            };
            if !seen.insert(value) {
                return Err(format!("{log} at {place}: twice: {append:?}"));
            }
            if append.outcome == Outcome::NotDone {
                return Err(format!("{log} at {place}: refused and yet there: {append:?}"));
            }
            if append.sending == Sending::Idempotent {
                let before = last.insert(append.client, append.number);
                let next = before.map_or(0, |n| n + 1);
                if append.number != next {
                    return Err(format!("{log} at {place}: expected number {next}: {append:?}"));
                }
            }
        }
        for append in appends.values() {
            if let Outcome::Acked(place) = append.outcome {
                let there = usize::try_from(place).ok().and_then(|place| found.get(place));
                if there != Some(&append.value) {
                    return Err(format!("acknowledged, but {there:?} is there: {append:?}"));
                }
            }
        }
        for ((_, place), value) in self.reads.iter().filter(|((l, _), _)| l == log) {
            let there = usize::try_from(*place).ok().and_then(|place| found.get(place));
            if there != Some(value) {
                return Err(format!("{log} at {place}: read {value}, but {there:?} is there"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(value: &str, number: u64, sending: Sending, outcome: Outcome) -> Append {
        let (log, value) = ("l".to_owned(), value.to_owned());
        Append { log, client: 1, number, sending, value, floor: None, outcome }
    }

    fn check(appends: &[Append], found: &[&str]) -> String {
        let mut history = History::default();
        appends.iter().for_each(|a| history.ended(a.clone()));
        let found: Vec<String> = found.iter().map(|v| (*v).to_owned()).collect();
        history.check("l", &found).err().unwrap_or_default()
    }

    #[test]
    fn lost_doubled_refused_and_invented_values_are_found() {
        use Outcome::{Acked, NotDone, Unknown};
        let plain = |value, outcome| append(value, 0, Sending::Plain, outcome);
        assert_eq!(check(&[plain("a", Acked(0)), plain("b", Unknown)], &["a"]), "");
        assert_eq!(check(&[plain("a", Acked(0)), plain("b", Unknown)], &["a", "b"]), "");
        assert!(check(&[plain("a", Acked(0))], &[]).starts_with("acknowledged"));
        assert!(check(&[plain("a", Unknown)], &["a", "a"]).contains("twice"));
        assert!(check(&[plain("a", NotDone)], &["a"]).contains("refused"));
        assert!(check(&[], &["a"]).contains("nobody"));
    }

    #[test]
    fn gaps_and_disorder_of_idempotent_producers_are_found() {
        let number = |n: u64| append(&n.to_string(), n, Sending::Idempotent, Outcome::Unknown);
        let appends = [number(0), number(1), number(2)];
        assert_eq!(check(&appends, &["0", "1", "2"]), "");
        assert!(check(&appends, &["0", "2"]).contains("expected number 1"));
        assert!(check(&appends, &["0", "2", "1"]).contains("expected number 1"));
    }

    #[test]
    fn two_leaders_of_a_term_and_changed_reads_are_violations() {
        let mut history = History::default();
        history.leads(2, 5, 1);
        history.leads(2, 6, 2);
        assert_eq!((history.newest_term(2), history.newest_term(3)), (6, 0));
        history.read("l", 3, "a");
        assert_eq!(history.violation(), None);
        history.leads(2, 5, 3);
        assert!(history.violation().is_some_and(|v| v.contains("both lead")));
        let mut history = History::default();
        history.read("l", 3, "a");
        history.read("l", 3, "b");
        assert!(history.violation().is_some_and(|v| v.contains("later b")));
    }
}
