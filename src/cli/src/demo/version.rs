//! A version of a file as its record tells it: the value's fields, and what headers say of the
//! original.

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::kafka_client::batch::Record;

/// The fields that record and document share; a document's body may be longer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fields {
    /// Identity of the file.
    pub(super) id: String,
    /// Its shown name.
    pub(super) file_name: String,
    /// Its shown path on the server.
    pub(super) full_path_name: String,
    /// Its subject.
    pub(super) subject: String,
    /// Its modification time.
    pub(super) write_datetime: String,
}

/// A collected version of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Version {
    /// Partition and offset of its record.
    pub(super) place: String,
    /// What the value says.
    pub(super) fields: Fields,
    /// SHA-256 of the original, in hexadecimal digits.
    pub(super) sha256: String,
    /// Its length in bytes.
    pub(super) len: u64,
    /// Path of the original in the block store.
    pub(super) stored_at: String,
    /// The path on the server, where it is not the shown one.
    pub(super) raw_path: Option<Vec<u8>>,
}

impl Version {
    /// Reads a record of the collector; all that it promises must be there.
    pub(super) fn of(record: &Record) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_slice(&record.value).context("the value is no JSON")?;
        if !value["body"].is_string() {
            bail!("there is no body");
        }
        let fields: Fields = serde_json::from_value(value)?;
        if record.text("x-id")? != fields.id {
            bail!("header and value have different ids");
        }
        let raw_path = record.header("x-path-raw").map(|raw| STANDARD.decode(raw));
        Ok(Self {
            place: format!("{}/{}", record.partition, record.offset),
            fields,
            sha256: record.text("x-content-sha256")?.to_owned(),
            len: record.text("x-content-length")?.parse().context("x-content-length")?,
            stored_at: record.text("x-content-ref")?.to_owned(),
            raw_path: raw_path.transpose().context("x-path-raw")?,
        })
    }

    /// Whether two records tell of one version: a file is collected again only when its content
    /// or its time has changed.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.fields == other.fields && self.sha256 == other.sha256
    }
}

/// The id of a file: half of the SHA-256 over the source's name, NUL and the path.
pub(super) fn id_of(source: &str, path: &[u8]) -> String {
    let hash = Sha256::new().chain_update(source).chain_update([0_u8]).chain_update(path);
    hex(hash.finalize().iter().take(16))
}

/// Hexadecimal digits.
pub(super) fn hex<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> String {
    bytes.into_iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(value: &Value, without: &str) -> Record {
        let headers = [
            ("x-id", "1"),
            ("x-content-sha256", "ab"),
            ("x-content-length", "7"),
            ("x-content-ref", "/datalake/news/a"),
            ("x-path-raw", "Yf8="),
        ];
        let kept = headers.into_iter().filter(|(name, _)| *name != without);
        Record {
            partition: 2,
            offset: 5,
            value: value.to_string().into_bytes(),
            headers: kept.map(|(n, v)| (n.to_owned(), v.as_bytes().to_vec())).collect(),
        }
    }

    fn value() -> Value {
        json!({"id": "1", "fileName": "a", "fullPathName": "/a", "subject": "s", "body": "",
               "writeDatetime": "2025-01-01 00:00:00"})
    }

    #[test]
    fn a_record_tells_of_its_file() {
        let version = Version::of(&record(&value(), "")).unwrap();
        assert_eq!((version.place.as_str(), version.len), ("2/5", 7));
        assert_eq!(version.raw_path.as_deref(), Some(&b"a\xff"[..]));
        assert_eq!(version.fields.full_path_name, "/a");
        assert_eq!(Version::of(&record(&value(), "x-path-raw")).unwrap().raw_path, None);
    }

    #[test]
    fn what_a_record_lacks_is_named() {
        for name in ["x-id", "x-content-sha256", "x-content-length", "x-content-ref"] {
            let error = Version::of(&record(&value(), name)).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        for name in ["id", "fileName", "fullPathName", "subject", "body", "writeDatetime"] {
            let mut value = value();
            value.as_object_mut().unwrap().remove(name);
            let error = Version::of(&record(&value, "")).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let mut other = value();
        other["id"] = "2".into();
        assert!(Version::of(&record(&other, "")).is_err());
    }

    #[test]
    fn ids_are_the_collectors() {
        // printf 'news\0a.txt' | sha256sum
        assert_eq!(id_of("news", b"a.txt"), "826fbc00240ac60013caf2138e26e99d");
    }
}
