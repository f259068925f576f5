//! Whether what is there in the end is what transactions made.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fate, Record};

/// What there is of transactions.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Committed values of each partition with their offsets, in order.
    pub(super) records: Vec<Vec<(i64, String)>>,
    /// Where each client's group is.
    pub(super) offsets: BTreeMap<u64, Option<i64>>,
}

/// Holds what there is against what clients did and saw.
pub(super) fn fits(record: &Record, found: &Found) -> Result<(), String> {
    let present = records_fit(record, &found.records)?;
    offsets_fit(record, &present, &found.offsets)
}

/// Checks the values; returns the names of transactions whose values are there.
fn records_fit(record: &Record, all: &[Vec<(i64, String)>]) -> Result<BTreeSet<String>, String> {
    for ((partition, offset), value) in &record.seen {
        let found = usize::try_from(*partition).ok().and_then(|n| all.get(n));
        let stands = found.is_some_and(|f| f.iter().any(|(at, v)| at == offset && v == value));
        if !stands {
            return Err(format!("a reader was given {value:?} at {offset} of {partition}"));
        }
    }
    let (mut known, mut present) = (BTreeSet::new(), BTreeSet::new());
    for txn in &record.written {
        let mut whole_in = Vec::new();
        for (found, written) in all.iter().zip(&txn.values) {
            let prefix = format!("{} ", txn.name);
            let of_txn: Vec<&String> =
                found.iter().map(|(_, v)| v).filter(|v| v.starts_with(&prefix)).collect();
            let whole = of_txn.iter().copied().eq(written.iter());
            if !whole && !of_txn.is_empty() {
                return Err(format!("torn: of {written:?} there is {of_txn:?}"));
            }
            whole_in.push(whole && !written.is_empty());
        }
        let (some, every) = (whole_in.contains(&true), !whole_in.contains(&false));
        let right = match txn.fate {
            Fate::Committed => every,
            Fate::NotCommitted => !some,
            Fate::Unknown => every || !some,
        };
        if !right {
            return Err(format!("{txn:?}: present {whole_in:?}"));
        }
        if every {
            present.insert(txn.name.clone());
        }
        known.insert(txn.name.clone());
    }
    for (_, value) in all.iter().flatten() {
        let name = value.split(' ').next().unwrap_or_default();
        if !known.contains(name) {
            return Err(format!("nobody wrote {value:?}"));
        }
    }
    Ok(present)
}

/// A group is where the last transaction took it whose values are there, and was nowhere that a
/// transaction without values would have taken it.
fn offsets_fit(
    record: &Record,
    present: &BTreeSet<String>,
    offsets: &BTreeMap<u64, Option<i64>>,
) -> Result<(), String> {
    let mut expected: BTreeMap<u64, BTreeSet<i64>> = BTreeMap::new();
    for txn in record.written.iter().filter(|txn| present.contains(&txn.name)) {
        expected.entry(txn.client).or_default().extend(txn.offset);
    }
    for (client, found) in offsets {
        let last = expected.get(client).and_then(BTreeSet::last).copied();
        if *found != last {
            return Err(format!("the group of client {client} is at {found:?}, not {last:?}"));
        }
    }
    for (client, offset) in &record.seen_offsets {
        if !expected.get(client).is_some_and(|of| of.contains(offset)) {
            return Err(format!("the group of client {client} was at {offset}, never committed"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Written;
    use super::*;

    /// A transaction of client 1 with a value in both partitions, and its number as offset.
    fn txn(number: i64, fate: Fate) -> Written {
        let name = format!("client-1-{number}");
        let values = (0..2).map(|partition| vec![format!("{name} {partition} 0.0")]).collect();
        Written { name, client: 1, fate, values, offset: Some(number) }
    }

    /// Transactions with their fates, numbered from 1; those of which the values are there; where
    /// the group is.
    fn check(fates: &[Fate], there: &[i64], offset: Option<i64>) -> String {
        let written: Vec<Written> = (1..).zip(fates).map(|(n, fate)| txn(n, *fate)).collect();
        let values = |partition: i64| {
            let value = |n: &i64| (n * 10, format!("client-1-{n} {partition} 0.0"));
            there.iter().map(value).collect()
        };
        let record = Record { written, ..Record::default() };
        let offsets = BTreeMap::from([(1, offset)]);
        let found = Found { records: vec![values(0), values(1)], offsets };
        fits(&record, &found).err().unwrap_or_default()
    }

    #[test]
    fn values_and_offsets_are_there_together_or_not_at_all() {
        use Fate::{Committed, NotCommitted, Unknown};
        assert_eq!(check(&[], &[], None), "");
        assert_eq!(check(&[Committed, NotCommitted], &[1], Some(1)), "");
        assert_eq!(check(&[Committed, Unknown], &[1, 2], Some(2)), "");
        assert_eq!(check(&[Committed, Unknown], &[1], Some(1)), "");
        assert!(check(&[Committed], &[], None).contains("present"), "lost");
        assert!(check(&[NotCommitted], &[1], Some(1)).contains("present"), "aborted");
        assert!(check(&[Committed], &[1], None).contains("is at None"), "offset lost");
        assert!(check(&[Committed, NotCommitted], &[1], Some(2)).contains("is at Some(2)"));
        assert!(check(&[Committed, Unknown], &[1, 2], Some(1)).contains("not Some(2)"), "torn");
        assert!(check(&[Committed, Unknown], &[1], Some(2)).contains("not Some(1)"), "torn");
        assert!(check(&[Committed], &[1, 1], Some(1)).contains("torn"), "twice");
        assert!(check(&[], &[1], None).contains("nobody wrote"));
    }

    #[test]
    fn torn_transactions_and_what_readers_should_not_have_seen_are_found() {
        let judge = |record: &Record, both: bool| {
            let one = |n: usize| vec![(0, format!("client-1-1 {n} 0.0"))];
            let records = vec![one(0), if both { one(1) } else { Vec::new() }];
            let offsets = BTreeMap::from([(1, Some(1))]);
            fits(record, &Found { records, offsets }).err().unwrap_or_default()
        };
        let written = || vec![txn(1, Fate::Unknown)];
        let record = Record { written: written(), ..Record::default() };
        assert_eq!(judge(&record, true), "");
        assert!(judge(&record, false).contains("present"));
        let seen = BTreeMap::from([((0, 7), "client-1-1 0 0.0".to_owned())]);
        let record = Record { written: written(), seen, ..Record::default() };
        assert!(judge(&record, true).contains("was given"));
        let seen_offsets = BTreeSet::from([(1, 2)]);
        let record = Record { written: written(), seen_offsets, ..Record::default() };
        assert!(judge(&record, true).contains("never committed"));
    }
}
