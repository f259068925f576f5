//! Numbers that clients set and read: the committed offsets of groups, held against what was
//! acknowledged. This module knows neither nodes nor time.
//!
//! Each key is a register. What a read finds was written, was not refused, and nothing that
//! followed it was acknowledged, or read, before the read began. A write whose fate is unknown may
//! have counted, but not after its client gave it up: what is written later comes later.

use std::collections::BTreeMap;

/// How a write ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It counts.
    Acked,
    /// It never counts.
    Refused,
    /// It may count.
    Unknown,
}

#[derive(Debug)]
struct Write {
    value: i64,
    begun: u64,
    /// When its client heard of it, or gave it up.
    ended: Option<(u64, Fate)>,
    /// When it was first read.
    seen: Option<u64>,
}

impl Write {
    /// Since when it is known to count.
    fn counts(&self) -> Option<u64> {
        let acked = self.ended.filter(|(_, fate)| *fate == Fate::Acked).map(|(at, _)| at);
        acked.into_iter().chain(self.seen).min()
    }

    /// When nothing of it can come any more.
    fn over(&self) -> Option<u64> {
        self.ended.map(|(at, _)| at)
    }
}

/// All registers and what was done to them.
#[derive(Debug, Default)]
pub struct Registers {
    clock: u64,
    writes: BTreeMap<String, Vec<Write>>,
}

impl Registers {
    /// The moment at which something begins.
    pub fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A write begins; returns the number to write, which no other has.
    pub fn write(&mut self, key: &str) -> i64 {
        let begun = self.now();
        let writes = self.writes.entry(key.to_owned()).or_default();
        let value = i64::try_from(writes.len()).unwrap_or(i64::MAX).saturating_add(1);
        writes.push(Write { value, begun, ended: None, seen: None });
        value
    }

    /// A write ended.
    pub fn written(&mut self, key: &str, value: i64, fate: Fate) -> Result<(), String> {
        let now = self.now();
        let writes = self.writes.entry(key.to_owned()).or_default();
        let Some(write) = writes.iter_mut().find(|w| w.value == value) else {
            return Err(format!("{key}: nobody began to write {value}"));
        };
        write.ended = Some((now, fate));
        if fate == Fate::Refused && write.seen.is_some() {
            return Err(format!("{key}: {value} was read, and refused later"));
        }
        Ok(())
    }

    /// A read that began at a moment found a number, or none.
    pub fn read(&mut self, key: &str, begun: u64, found: Option<i64>) -> Result<(), String> {
        let now = self.now();
        let writes = self.writes.entry(key.to_owned()).or_default();
        let over = match found {
            None => Some(0),
            Some(value) => {
                let Some(write) = writes.iter_mut().find(|w| w.value == value) else {
                    return Err(format!("{key}: nobody wrote {value}"));
                };
                if write.ended.is_some_and(|(_, fate)| fate == Fate::Refused) {
                    return Err(format!("{key}: {value} was refused and yet is there"));
                }
                write.seen.get_or_insert(now);
                write.over()
            }
        };
        let follows = |w: &&Write| {
            Some(w.value) != found
                && over.is_some_and(|over| over < w.begun)
                && w.counts().is_some_and(|at| at < begun)
        };
        match writes.iter().find(follows) {
            Some(later) => {
                Err(format!("{key}: is {found:?}, though {} was written after that", later.value))
            }
            None => Ok(()),
        }
    }

    /// The highest number that was acknowledged of a register.
    pub fn acked(&self, key: &str) -> Option<i64> {
        let writes = self.writes.get(key)?;
        let acked = writes.iter().filter(|w| w.ended.is_some_and(|(_, f)| f == Fate::Acked));
        acked.map(|w| w.value).max()
    }

    /// How many writes were acknowledged.
    pub fn count(&self) -> usize {
        let all = self.writes.values().flatten();
        all.filter(|w| w.ended.is_some_and(|(_, fate)| fate == Fate::Acked)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes that follow each other with their fates, then a read.
    fn check(fates: &[Fate], found: Option<i64>) -> String {
        let mut registers = Registers::default();
        for fate in fates {
            let value = registers.write("r");
            registers.written("r", value, *fate).unwrap();
        }
        let begun = registers.now();
        registers.read("r", begun, found).err().unwrap_or_default()
    }

    #[test]
    fn what_was_acknowledged_last_is_read_or_something_later() {
        use Fate::{Acked, Refused, Unknown};
        assert_eq!(check(&[], None), "");
        assert_eq!(check(&[Unknown], None), "");
        assert_eq!(check(&[Acked, Acked], Some(2)), "");
        assert_eq!(check(&[Acked, Unknown], Some(1)), "");
        assert_eq!(check(&[Acked, Unknown], Some(2)), "");
        assert!(check(&[Acked], None).contains("is None"), "lost");
        assert!(check(&[Acked, Acked], Some(1)).contains("after that"), "gone back");
        assert!(check(&[Unknown, Acked], Some(1)).contains("after that"), "came late");
        assert!(check(&[Acked, Refused], Some(2)).contains("refused"));
        assert!(check(&[Acked], Some(7)).contains("nobody"));
    }

    #[test]
    fn writes_at_once_may_come_in_any_order_but_reads_follow_each_other() {
        let mut registers = Registers::default();
        let (one, two) = (registers.write("r"), registers.write("r"));
        registers.written("r", two, Fate::Acked).unwrap();
        registers.written("r", one, Fate::Acked).unwrap();
        let begun = registers.now();
        assert_eq!(registers.read("r", begun, Some(one)), Ok(()));
        assert_eq!(registers.read("r", begun, Some(two)), Ok(()));
        assert_eq!((registers.acked("r"), registers.count()), (Some(two), 2));
        // An unknown write that was read counts.
        let three = registers.write("r");
        registers.written("r", three, Fate::Unknown).unwrap();
        let begun = registers.now();
        assert_eq!(registers.read("r", begun, Some(three)), Ok(()));
        let begun = registers.now();
        assert!(registers.read("r", begun, Some(two)).is_err());
        let four = registers.write("r");
        let begun = registers.now();
        registers.read("r", begun, Some(four)).unwrap();
        assert!(registers.written("r", four, Fate::Refused).unwrap_err().contains("later"));
    }
}
