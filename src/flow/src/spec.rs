//! What a pipeline is: where files come from, where they go, how they become documents.
//! Declared as TOML or JSON with the same keys; unknown keys are refused.

use collect::config::{ConfigError, RecordConfig, SourceConfig, bad};
use collect::record::RecordBuilder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Length of a pipeline's name.
const MAX_NAME_BYTES: usize = 100;
/// Partitions of a topic that a pipeline makes.
const MAX_PARTITIONS: u32 = 1_000;

/// One pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSpec {
    /// Its name; also the name of its source, which is part of every file's identity.
    pub name: String,
    /// Where files come from.
    pub source: SourceConfig,
    /// Topic that receives one record for each file.
    pub topic: String,
    /// Partitions of the topic when it has to be made.
    #[serde(default = "default_partitions")]
    pub partitions: u32,
    /// Directory in the block store for the originals.
    #[serde(alias = "store")]
    pub directory: String,
    /// Index that receives one document for each file; none when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// How a file becomes a record.
    #[serde(default)]
    pub record: RecordConfig,
    /// How a record becomes a document.
    #[serde(default)]
    pub document: DocumentConfig,
}

fn default_partitions() -> u32 {
    3
}

/// How a record becomes a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DocumentConfig {
    /// Replaces NUL and other control characters but tab and line ends in indexed text.
    pub strip_controls: bool,
    /// Text of a large file that is indexed, in bytes.
    pub index_max_bytes: u64,
    /// Shards of the index when it has to be made.
    pub shards: u16,
    /// Copies of each shard beside the first, likewise.
    pub replicas: u16,
}

impl Default for DocumentConfig {
    fn default() -> Self {
        Self { strip_controls: false, index_max_bytes: 10 << 20, shards: 3, replicas: 2 }
    }
}

impl PipelineSpec {
    /// Reads a declaration and checks it.
    pub fn from_json(json: Value) -> Result<Self, String> {
        let spec: Self = serde_json::from_value(json).map_err(|e| e.to_string())?;
        spec.validate().map_err(|e| e.to_string())?;
        Ok(spec)
    }

    /// Reads a declaration in TOML and checks it; errors name the line.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let spec: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        spec.validate().map_err(|e| e.to_string())?;
        Ok(spec)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let plain = |c: char| !c.is_control() && !"/\\\"*?<>|".contains(c);
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES || !self.name.chars().all(plain)
        {
            return Err(bad("name", format!("1 to {MAX_NAME_BYTES} bytes without / or wildcards")));
        }
        if self.topic.is_empty() {
            return Err(bad("topic", "is empty"));
        }
        if self.partitions == 0 || self.partitions > MAX_PARTITIONS {
            return Err(bad("partitions", format!("1 to {MAX_PARTITIONS}")));
        }
        if !self.directory.starts_with('/') || self.directory.contains("//") {
            return Err(bad("directory", "must be an absolute path"));
        }
        if self.document.index_max_bytes > 64 << 20 || self.document.shards == 0 {
            return Err(bad("document", "index_max_bytes up to 64 MiB, at least one shard"));
        }
        self.source.validate()?;
        RecordBuilder::new(&self.record).map(drop)
    }

    /// The declaration without its secrets.
    pub fn shown(&self) -> Self {
        Self { source: self.source.shown(), ..self.clone() }
    }
}

/// Settings and mapping of an index that a pipeline makes: Korean text as bigrams.
pub fn index_mapping() -> Value {
    let text = serde_json::json!({
        "type": "text",
        "analyzer": "cjk",
        "fields": {"keyword": {"type": "keyword", "ignore_above": 256}},
    });
    serde_json::json!({"properties": {
        "id": {"type": "keyword"},
        "fileName": text,
        "fullPathName": {"type": "keyword"},
        "subject": text,
        "body": {"type": "text", "analyzer": "cjk"},
        "writeDatetime": {
            "type": "date",
            "format": "yyyy-MM-dd HH:mm:ss||strict_date_optional_time||epoch_millis",
        },
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
name = "news"
topic = "news"
directory = "/datalake/news"
index = "news"

[source]
type = "sftp"
host = "files.example"
user = "reader"
password = "hunter2"
host_keys = ["SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
path = "/out"
settle_ms = 1000

[record]
encoding = "cp949"
"#;

    #[test]
    fn toml_and_json_mean_the_same_and_secrets_stay_secret() {
        let spec = PipelineSpec::from_toml(TOML).unwrap();
        assert_eq!((spec.partitions, spec.source.settle_ms), (3, 1000));
        let json = serde_json::to_value(&spec).unwrap();
        assert_eq!(PipelineSpec::from_json(json).unwrap(), spec);
        assert!(!format!("{spec:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&spec.shown()).unwrap().contains("hunter2"));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |from: &str, to: &str, want: &str| {
            let error = PipelineSpec::from_toml(&TOML.replace(from, to)).unwrap_err();
            assert!(error.contains(want), "{error}");
        };
        check("settle_ms", "setle_ms", "unknown field `setle_ms`");
        check("directory = \"/", "directory = \"", "directory: must be an absolute path");
        check("cp949", "cp94", "record.encoding: cp94 is not known");
        check("path = \"/out\"", "path = \"out\"", "source.path: must be absolute");
        check("name = \"news\"", "name = \"a/b\"", "name:");
    }
}
