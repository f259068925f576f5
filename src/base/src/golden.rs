//! Encodings that must not change: for the tests named `golden` of the crates that store or
//! replicate something.
//!
//! Such a test encodes fixed samples and compares them with a text file beside it: one line for
//! each, a name and the bytes as hexadecimal digits. The bytes of the file are also read and
//! encoded again. A change means that what earlier versions wrote is lost or misread, which no
//! round trip notices. With the environment variable `UPDATE_GOLDEN` set, a test writes its file
//! anew instead.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display, Write as _};
use std::path::PathBuf;

use serde::{Serialize, de::DeserializeOwned};

use crate::codec::{decode, encode};

/// Samples that are compared with the lines of a file.
#[must_use = "only `check` fails the test"]
pub struct Golden {
    path: PathBuf,
    kept: BTreeMap<String, String>,
    lines: Vec<(String, String)>,
    problems: Vec<String>,
    update: bool,
}

impl Golden {
    /// Reads the file; a missing one has no lines.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let kept = lines.map(|(name, bytes)| (name.to_owned(), bytes.to_owned())).collect();
        let update = std::env::var_os("UPDATE_GOLDEN").is_some();
        Self { path, kept, lines: Vec::new(), problems: Vec::new(), update }
    }

    /// Compares bytes; `again` reads those of the file and encodes what it read.
    pub fn bytes<E: Display>(
        &mut self,
        name: &str,
        bytes: &[u8],
        again: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) {
        let kept = self.line(name, hex(bytes));
        let kept = unhex(&kept).unwrap_or_default();
        match again(&kept) {
            Ok(again) if again == kept => {}
            Ok(again) => self.problems.push(format!(
                "{name} is read as something else: it is written again as {}",
                hex(&again)
            )),
            Err(error) => self.problems.push(format!("{name} can no longer be read: {error}")),
        }
    }

    /// Compares a value that [`crate::codec`] encodes.
    pub fn value<T: Serialize + DeserializeOwned>(&mut self, name: &str, value: &T) {
        self.bytes(name, &encode(value), |bytes| decode::<T>(bytes).map(|value| encode(&value)));
    }

    /// As [`Self::value`], for a type whose fields the test cannot name: `fields` has the same
    /// encoding, and `shown` is the value's [`Debug`] text.
    pub fn shown<T: Serialize + DeserializeOwned + Debug>(
        &mut self,
        name: &str,
        fields: &impl Serialize,
        shown: &str,
    ) {
        match decode::<T>(&encode(fields)) {
            Ok(value) => {
                let found = format!("{value:?}");
                if found != shown {
                    self.problems.push(format!("{name} is read as {found} and not as {shown}"));
                }
                self.value(name, &value);
            }
            Err(error) => self.problems.push(format!("{name} can no longer be read: {error}")),
        }
    }

    /// Compares at least one sample of each variant of an enum, and complains when one is
    /// missing.
    pub fn variants<T: Serialize + DeserializeOwned + Debug>(&mut self, name: &str, samples: &[T]) {
        let mut seen = BTreeMap::<u32, u32>::new();
        for sample in samples {
            let bytes = encode(sample);
            let tag = bytes.first_chunk::<4>().map_or(u32::MAX, |tag| u32::from_le_bytes(*tag));
            let count = seen.entry(tag).or_default();
            *count += 1;
            let shown = format!("{sample:?}");
            let variant = shown.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            let number = if *count > 1 { format!(".{count}") } else { String::new() };
            self.value(&format!("{name}::{variant}{number}"), sample);
        }
        let next = (0..).find(|tag| !seen.contains_key(tag)).unwrap_or(u32::MAX);
        // serde knows no such variant and says how many there are; a missing field it words
        // differently.
        let unknown = decode::<T>(&encode(&next)).err().map(|error| error.to_string());
        if !unknown.is_some_and(|error| error.contains("expected variant index")) {
            self.problems.push(format!("variant {next} of {name} has no sample: add one"));
        }
    }

    /// Compares rows of a state machine, named by the first byte of their keys.
    pub fn rows<V: AsRef<[u8]>>(
        &mut self,
        name: &str,
        rows: impl IntoIterator<Item = (Vec<u8>, V)>,
    ) {
        let mut seen = BTreeMap::<u8, u32>::new();
        for (key, value) in rows {
            let kind = key.first().copied().unwrap_or_default();
            let count = seen.entry(kind).or_default();
            *count += 1;
            let kind = char::from(kind);
            let kind = if kind.is_ascii_graphic() { kind } else { '-' };
            let line = format!("{} {}", hex(&key), hex(value.as_ref()));
            self.line(&format!("{name}.{kind}.{count}"), line);
        }
    }

    /// Fails the test when a sample and its line differ, or writes the file.
    ///
    /// # Panics
    /// With everything that differs, and what to do about it.
    pub fn check(self) {
        if let Err(problems) = self.finish() {
            panic!("{problems}");
        }
    }

    /// Notes a line; returns the one that the file has, where it has one.
    fn line(&mut self, name: &str, now: String) -> String {
        if self.lines.iter().any(|(other, _)| other == name) {
            self.problems.push(format!("{name} names two samples"));
        }
        self.lines.push((name.to_owned(), now.clone()));
        if self.update {
            return now;
        }
        let Some(kept) = self.kept.get(name).cloned() else {
            self.problems.push(format!("{name} has no line yet"));
            return now;
        };
        if kept != now {
            self.problems.push(format!(
                "the encoding of {name} changed: data written before can no longer be read; \
                 raise the format version and migrate, or undo\n  before: {kept}\n  now:    {now}"
            ));
        }
        kept
    }

    fn finish(mut self) -> Result<(), String> {
        if self.update && self.problems.is_empty() {
            let mut text = String::new();
            for (name, bytes) in &self.lines {
                text.push_str(&format!("{name} {bytes}\n"));
            }
            return std::fs::write(&self.path, text).map_err(|error| error.to_string());
        }
        if !self.update {
            for (name, _) in &self.lines {
                self.kept.remove(name);
            }
            for name in self.kept.keys() {
                self.problems.push(format!("{name} has a line and no sample"));
            }
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{}\nFor new names, or once old data is migrated, run the test with UPDATE_GOLDEN=1: \
             it writes {} anew.",
            self.problems.join("\n"),
            self.path.display()
        ))
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().as_chunks::<2>();
    let bytes = digits.0.iter().map(|two| {
        let two = std::str::from_utf8(two).ok()?;
        u8::from_str_radix(two, 16).ok()
    });
    if digits.1.is_empty() { bytes.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    enum Old {
        A,
        B(u16),
    }

    #[derive(Debug, Serialize, Deserialize)]
    enum Swapped {
        B(u16),
        A,
    }

    #[derive(Debug, Serialize, Deserialize)]
    enum Longer {
        A,
        B(u16),
        C(String),
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Pair {
        first: u8,
        second: u8,
    }

    fn problems(text: &str, fill: impl FnOnce(&mut Golden)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("golden.txt");
        std::fs::write(&path, text).unwrap();
        let mut golden = Golden { update: false, ..Golden::open(path) };
        fill(&mut golden);
        golden.finish().err().unwrap_or_default()
    }

    const ENUM: &str = "e::A 00000000\ne::B 010000000700\n";

    #[test]
    fn what_did_not_change_passes() {
        assert_eq!(problems(ENUM, |golden| golden.variants("e", &[Old::A, Old::B(7)])), "");
        let shown = "Pair { first: 1, second: 2 }";
        assert_eq!(
            problems("p 0102\n", |golden| golden.shown::<Pair>("p", &(1u8, 2u8), shown)),
            ""
        );
        let rows = || [(b"Tk".to_vec(), vec![9u8])];
        assert_eq!(problems("m.T.1 546b 09\n", |golden| golden.rows("m", rows())), "");
    }

    #[test]
    fn changes_are_named_with_what_to_do() {
        let found = problems(ENUM, |golden| golden.variants("e", &[Swapped::A, Swapped::B(7)]));
        assert!(found.contains("the encoding of e::A changed"), "{found}");
        assert!(found.contains("UPDATE_GOLDEN=1"), "{found}");
        let longer = [Longer::A, Longer::B(7)];
        let found = problems(ENUM, |golden| golden.variants("e", &longer));
        assert!(found.contains("variant 2 of e has no sample"), "{found}");
        let all = [Longer::A, Longer::B(7), Longer::C(String::new())];
        let found = problems(ENUM, |golden| golden.variants("e", &all));
        assert!(found.contains("e::C has no line yet"), "{found}");
        let found = problems(ENUM, |golden| golden.value("e::A", &0u32));
        assert!(found.contains("e::B has a line and no sample"), "{found}");
        let shown = "Pair { first: 2, second: 1 }";
        let found = problems("p 0102\n", |g| g.shown::<Pair>("p", &(1u8, 2u8), shown));
        assert!(found.contains("p is read as Pair { first: 1, second: 2 }"), "{found}");
    }
}
