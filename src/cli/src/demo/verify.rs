//! Reads everything back through the three ports and compares it with the sample files.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use sample::SampleFile;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::demo::landed::Ports;
use crate::output::progress;

/// Every sample file stands byte for byte in the block store, has exactly one record and
/// exactly one document. A name that is not UTF-8 is stored under a readable one, so contents
/// are compared as a set, and paths where they are UTF-8.
pub(super) fn verify(ports: &Ports, files: &[SampleFile]) -> anyhow::Result<()> {
    let stored = verify_stored(ports, files).context("block store")?;
    let ids = verify_records(&ports.records()?, stored).context("topic")?;
    let documents = ports.document_ids()?;
    let found: BTreeSet<&str> = documents.iter().map(String::as_str).collect();
    if found.len() != documents.len() {
        bail!("index: {} documents have {} ids", documents.len(), found.len());
    }
    if let Some(id) = ids.iter().find(|id| !found.contains(id.as_str())) {
        bail!("index: no document for record {id}");
    }
    if found.len() != ids.len() {
        bail!("index: {} documents for {} records", found.len(), ids.len());
    }
    Ok(())
}

/// Checks the stored files and returns their number.
fn verify_stored(ports: &Ports, files: &[SampleFile]) -> anyhow::Result<usize> {
    let stored = ports.stored()?;
    let bar = progress(stored.len() as u64, "reading back");
    let mut contents: BTreeMap<[u8; 32], i64> = BTreeMap::new();
    let mut by_path = BTreeMap::new();
    for path in stored.keys() {
        let hash: [u8; 32] = Sha256::digest(ports.content(path)?).into();
        *contents.entry(hash).or_default() += 1;
        by_path.insert(path.as_str(), hash);
        bar.inc(1);
    }
    bar.finish_and_clear();
    for file in files {
        let shown = String::from_utf8_lossy(&file.path);
        let left = contents.entry(file.sha256).or_default();
        *left -= 1;
        if *left < 0 {
            bail!("the content of {shown} is not stored");
        }
        // Two names that differ only in their Unicode form cannot both keep theirs.
        let same_path = by_path.get(format!("/{shown}").as_str());
        if same_path.is_some_and(|hash| *hash != file.sha256) {
            bail!("{shown} holds another content");
        }
    }
    Ok(stored.len())
}

/// Checks the records of `files` stored files and returns their ids. A file that was changed
/// has one record per version, all with its id.
fn verify_records(records: &[Value], files: usize) -> anyhow::Result<BTreeSet<String>> {
    const FIELDS: [&str; 6] =
        ["id", "fileName", "fullPathName", "subject", "body", "writeDatetime"];
    let (mut ids, mut versions) = (BTreeSet::new(), BTreeSet::new());
    for record in records {
        let text = |field: &str| record[field].as_str().map(ToOwned::to_owned);
        if let Some(field) = FIELDS.iter().find(|f| text(f).is_none()) {
            bail!("a record without {field}: {record}");
        }
        ids.extend(text("id"));
        if !versions.insert(record.to_string()) {
            bail!("two equal records for {}", record["fullPathName"]);
        }
    }
    if ids.len() != files {
        bail!("{} files have records, {files} are stored", ids.len());
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(id: &str) -> Value {
        json!({"id": id, "fileName": "a", "fullPathName": "/a", "subject": "s", "body": "",
               "writeDatetime": "2025-01-01 00:00:00"})
    }

    #[test]
    fn each_file_needs_exactly_one_record() {
        assert_eq!(verify_records(&[record("1"), record("2")], 2).unwrap().len(), 2);
        for records in [vec![record("1")], vec![record("1"), record("1")], vec![json!({})]] {
            assert!(verify_records(&records, 2).is_err(), "{records:?}");
        }
    }
}
