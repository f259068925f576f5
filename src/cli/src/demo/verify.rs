//! Reads everything back through the three ports and matches it with the sample files, one by
//! one: a file has one record per version, and the newest tells its content; one stored file,
//! byte for byte; one document, with the fields of the newest record.
//!
//! What an earlier run has collected stays when its file is changed or removed, so a later run
//! may find more versions and more files than the server has. All of it must still agree.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use sample::SampleFile;
use sha2::{Digest, Sha256};

use crate::demo::NAME;
use crate::demo::landed::Ports;
use crate::demo::place::Run;
use crate::demo::version::{Fields, Version, hex, id_of};
use crate::kafka_client::batch::Record;
use crate::output::progress;

/// What the topic tells of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Collected {
    newest: Version,
    versions: usize,
}

/// Files by id.
type ById = BTreeMap<String, Collected>;

/// Compares everything that has landed with `files`.
pub(super) fn verify(ports: &Ports, files: &[SampleFile], run: Run) -> anyhow::Result<()> {
    let collected = ports.records().and_then(|records| collect(&records)).context("topic")?;
    match_files(files, &collected, run).context("topic")?;
    let stored = contents(ports).and_then(|contents| match_stored(&contents, &collected));
    stored.context("block store")?;
    let found = ports.documents().and_then(|documents| match_documents(&documents, &collected));
    found.context("index")
}

/// Versions by file; records of one file stand in one partition, in the order of its versions.
fn collect(records: &[Record]) -> anyhow::Result<ById> {
    let mut found = ById::new();
    for record in records {
        let place = || format!("record {}/{}", record.partition, record.offset);
        let newest = Version::of(record).with_context(place)?;
        match found.entry(newest.fields.id.clone()) {
            Entry::Vacant(free) => {
                free.insert(Collected { newest, versions: 1 });
            }
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                if known.newest.is_same(&newest) {
                    let (path, first) = (&newest.fields.full_path_name, &known.newest.place);
                    bail!("one version of {path} has two records: {first} and {}", newest.place);
                }
                known.newest = newest;
                known.versions += 1;
            }
        }
    }
    Ok(found)
}

/// Every file has its record.
fn match_files(files: &[SampleFile], collected: &ById, run: Run) -> anyhow::Result<()> {
    for file in files {
        let shown = String::from_utf8_lossy(&file.path);
        let Some(found) = collected.get(&id_of(NAME, &file.path)) else {
            bail!("no record for {shown}");
        };
        match_file(file, &found.newest).with_context(|| format!("the record of {shown}"))?;
        if run == Run::First && found.versions != 1 {
            bail!("{} records for {shown}", found.versions);
        }
    }
    if run == Run::First && collected.len() != files.len() {
        bail!("{} files have records, {} were sent", collected.len(), files.len());
    }
    Ok(())
}

/// A file's newest record tells its content and its names.
fn match_file(file: &SampleFile, newest: &Version) -> anyhow::Result<()> {
    let sha256 = hex(&file.sha256);
    if newest.sha256 != sha256 || newest.len != file.len {
        let (found, len) = (&newest.sha256, newest.len);
        bail!("tells {len} bytes with SHA-256 {found}, not {} with {sha256}", file.len);
    }
    let Fields { file_name, full_path_name, .. } = &newest.fields;
    let raw = newest.raw_path.as_deref();
    let told = raw.or_else(|| Some(full_path_name.strip_prefix('/')?.as_bytes()));
    if told != Some(file.path.as_slice()) {
        bail!("tells another path: {full_path_name}");
    }
    // What no encoding explains is shown in the collector's own way.
    if let Some(shown) = file.shown()
        && full_path_name.strip_prefix('/') != Some(shown.as_str())
    {
        bail!("shows {full_path_name}, not /{shown}");
    }
    if full_path_name.rsplit('/').next() != Some(file_name.as_str()) {
        bail!("the name of {full_path_name} is not {file_name}");
    }
    Ok(())
}

/// SHA-256 of every stored file, by path.
fn contents(ports: &Ports) -> anyhow::Result<BTreeMap<String, String>> {
    let stored = ports.stored()?;
    let bar = progress(stored.len() as u64, "reading back");
    let mut hashes = BTreeMap::new();
    for path in stored.into_keys() {
        let content = ports.content(&path)?;
        hashes.insert(path, hex(&Sha256::digest(content)));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(hashes)
}

/// Every file has its original, and there is nothing else.
fn match_stored(contents: &BTreeMap<String, String>, collected: &ById) -> anyhow::Result<()> {
    let mut claimed = BTreeSet::new();
    for Collected { newest, .. } in collected.values() {
        let (path, place) = (&newest.fields.full_path_name, &newest.stored_at);
        match contents.get(place) {
            None => bail!("{path} is not at {place}"),
            Some(sha256) if *sha256 != newest.sha256 => bail!("{place} is not what {path} was"),
            Some(_) => {}
        }
        if !claimed.insert(place) {
            bail!("two files are stored at {place}");
        }
    }
    if let Some(place) = contents.keys().find(|place| !claimed.contains(place)) {
        bail!("no record tells of {place}");
    }
    Ok(())
}

/// Every file has its document, and there is nothing else.
fn match_documents(documents: &[(String, Fields)], collected: &ById) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for (id, fields) in documents {
        if *id != fields.id || !seen.insert(id) {
            bail!("document {id} of file {} stands twice or under another id", fields.id);
        }
        let Some(Collected { newest, .. }) = collected.get(id) else {
            bail!("no record for document {id}, {}", fields.full_path_name);
        };
        if *fields != newest.fields {
            bail!("document {id} is not what record {} tells", newest.place);
        }
    }
    if let Some((id, found)) = collected.iter().find(|(id, _)| !seen.contains(id)) {
        bail!("no document for {}, id {id}", found.newest.fields.full_path_name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &str) -> SampleFile {
        let sha256 = Sha256::digest(content).into();
        SampleFile { path: path.into(), sha256, len: content.len() as u64, mtime: 0 }
    }

    fn version(path: &str, content: &str) -> Version {
        let name = path.rsplit('/').next().unwrap();
        let fields = Fields {
            id: id_of(NAME, path.as_bytes()),
            file_name: name.to_owned(),
            full_path_name: format!("/{path}"),
            ..Fields::default()
        };
        Version {
            fields,
            sha256: hex(&Sha256::digest(content)),
            len: content.len() as u64,
            stored_at: format!("/datalake/{NAME}/{path}"),
            ..Version::default()
        }
    }

    fn by_id(versions: &[&Version]) -> ById {
        let one = |version: &&Version| {
            let newest = (*version).clone();
            (newest.fields.id.clone(), Collected { newest, versions: 1 })
        };
        versions.iter().map(one).collect()
    }

    /// Fails with an error whose whole chain has `text` in it.
    #[track_caller]
    fn refused(result: anyhow::Result<()>, text: &str) {
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains(text), "{error}");
    }

    #[test]
    fn each_file_needs_its_own_record() {
        let files = [file("a.txt", "1"), file("d/b.txt", "2")];
        let (a, b) = (version("a.txt", "1"), version("d/b.txt", "2"));
        let whole = by_id(&[&a, &b]);
        match_files(&files, &whole, Run::First).unwrap();
        match_files(&files[..1], &whole, Run::Later).unwrap();
        refused(match_files(&files[..1], &whole, Run::First), "2 files have records, 1 were sent");
        refused(match_files(&files, &by_id(&[&a]), Run::Later), "no record for d/b.txt");
        // Contents that changed places are the same set.
        let files = [file("a.txt", "2"), file("d/b.txt", "1")];
        refused(match_files(&files, &whole, Run::Later), "the record of a.txt: tells 1 bytes");
        let mut twice = by_id(&[&a]);
        twice.values_mut().for_each(|found| found.versions = 2);
        let file = [file("a.txt", "1")];
        refused(match_files(&file, &twice, Run::First), "2 records for a.txt");
        match_files(&file, &twice, Run::Later).unwrap();
    }

    #[test]
    fn names_are_those_of_the_file() {
        let check = |change: fn(&mut Version), text| {
            let mut version = version("d/b.txt", "2");
            change(&mut version);
            refused(match_file(&file("d/b.txt", "2"), &version), text);
        };
        check(|v| v.fields.full_path_name = "/d/c.txt".into(), "another path: /d/c.txt");
        check(|v| v.raw_path = Some(b"c.txt".into()), "another path");
        check(|v| v.fields.file_name = "d".into(), "the name of /d/b.txt is not d");
        // Named right as raw bytes, but shown as another file.
        let other = |v: &mut Version| {
            v.raw_path = Some(b"d/b.txt".into());
            v.fields.full_path_name = "/d/c.txt".into();
        };
        check(other, "shows /d/c.txt, not /d/b.txt");
        let mut decomposed = version("\u{c790}.txt", "2");
        let path = "\u{110c}\u{1161}.txt";
        decomposed.raw_path = Some(path.into());
        match_file(&file(path, "2"), &decomposed).unwrap();
    }

    #[test]
    fn each_file_needs_its_own_original() {
        let (a, b) = (version("a.txt", "1"), version("b.txt", "2"));
        let place = |v: &Version| (v.stored_at.clone(), v.sha256.clone());
        let collected = by_id(&[&a, &b]);
        let stored = BTreeMap::from([place(&a), place(&b)]);
        match_stored(&stored, &collected).unwrap();
        refused(match_stored(&BTreeMap::from([place(&a)]), &collected), "/b.txt is not at");
        refused(match_stored(&stored, &by_id(&[&a])), "no record tells of");
        let swapped = BTreeMap::from([
            (a.stored_at.clone(), b.sha256.clone()),
            (b.stored_at.clone(), a.sha256.clone()),
        ]);
        refused(match_stored(&swapped, &collected), "is not what");
        let shared = Version { stored_at: a.stored_at.clone(), ..version("c.txt", "1") };
        let stored = BTreeMap::from([place(&a)]);
        refused(match_stored(&stored, &by_id(&[&a, &shared])), "two files are stored at");
    }

    #[test]
    fn each_file_needs_its_own_document() {
        let (a, b) = (version("a.txt", "1"), version("b.txt", "2"));
        let document = |v: &Version| (v.fields.id.clone(), v.fields.clone());
        let collected = by_id(&[&a, &b]);
        match_documents(&[document(&b), document(&a)], &collected).unwrap();
        refused(match_documents(&[document(&a)], &collected), "no document for /b.txt");
        refused(match_documents(&[document(&a), document(&a)], &collected), "stands twice");
        refused(match_documents(&[document(&a), document(&b)], &by_id(&[&a])), "no record");
        let mut old = document(&b);
        old.1.write_datetime = "2025-01-01 00:00:00".into();
        refused(match_documents(&[document(&a), old], &collected), "is not what record");
        let swapped = (a.fields.id.clone(), b.fields.clone());
        refused(match_documents(&[swapped], &collected), "under another id");
    }

    #[test]
    fn a_version_has_one_record() {
        let record = |offset: i64, content: &str| {
            let value = serde_json::json!({"id": "1", "fileName": "a", "fullPathName": "/a",
                "subject": "", "body": content, "writeDatetime": "2025-01-01 00:00:00"});
            let sha256 = hex(&Sha256::digest(content));
            let headers = [
                ("x-id", "1"),
                ("x-content-sha256", sha256.as_str()),
                ("x-content-length", "1"),
                ("x-content-ref", "/datalake/news/a"),
            ];
            let headers = headers.map(|(n, v)| (n.to_owned(), v.as_bytes().to_vec()));
            let value = value.to_string().into_bytes();
            Record { partition: 0, offset, value, headers: headers.into() }
        };
        let found = collect(&[record(0, "x"), record(1, "y"), record(2, "x")]).unwrap();
        let found = &found["1"];
        assert_eq!((found.versions, found.newest.place.as_str()), (3, "0/2"));
        let twice = collect(&[record(0, "x"), record(1, "x")]).map(drop);
        refused(twice, "one version of /a has two records: 0/0 and 0/1");
    }
}
