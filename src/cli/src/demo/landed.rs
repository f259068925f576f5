//! What has landed, asked through the three ports and the console's.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Admin, Ask};
use crate::demo::NAME;
use crate::demo::version::Fields;
use crate::http::Http;
use crate::kafka_client::Connection;
use crate::kafka_client::batch::{self, Record};
use crate::local::cluster::Cluster;

/// Bytes of one fetch.
const FETCH_BYTES: i32 = 4 << 20;
/// Longest listing of the stored tree.
const MAX_STORED: usize = 1_000_000;
/// Documents that one search returns at most; more are not read back.
const MAX_DOCUMENTS: usize = 10_000;
/// How many copies of blocks a node has on its disk. Nodes that do not tell this are not counted:
/// the replication that WebHDFS reports says how many there should be, not how many there are.
const COPIES_METRIC: &str = "trine_block_copies";

/// The ports of node 1, where everything can be asked, and the consoles of all.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) admin: Admin,
    http: Http,
    consoles: Vec<String>,
    kafka: String,
    webhdfs: String,
    elastic: String,
}

/// How much has landed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Records per partition.
    pub(super) partitions: Vec<u64>,
    /// Stored files.
    pub(super) stored: u64,
    /// Their bytes.
    pub(super) stored_bytes: u64,
    /// Documents that a search finds.
    pub(super) documents: u64,
}

impl Counts {
    /// All records.
    pub(super) fn records(&self) -> u64 {
        self.partitions.iter().sum()
    }

    /// The place where least has arrived.
    pub(super) fn least(&self) -> u64 {
        self.records().min(self.stored).min(self.documents)
    }
}

/// What the pipeline says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Flow {
    /// `running`, unless something is wrong.
    pub(super) state: String,
    /// Complete scans since the cluster started.
    pub(super) scans: u64,
    /// Files that wait to settle, to be fetched or to be committed.
    pub(super) pending: u64,
    /// Files and records that were given up.
    pub(super) quarantined: u64,
    /// Records that are not in the index yet.
    pub(super) lag: u64,
    /// Partitions that a node processes.
    pub(super) partitions: usize,
    /// Its latest problem.
    pub(super) last_error: Option<String>,
}

impl Flow {
    /// The demo's row of a list of pipelines.
    fn of(list: &Value) -> Option<Self> {
        let row = crate::flow::rows(list).iter().find(|row| row["pipeline"] == NAME)?;
        Self::deserialize(row).ok()
    }

    /// Whether all that stood on the server is in the topic, and all of the topic in the index.
    /// The scan was made after the start: counts of an earlier run prove nothing.
    fn is_idle(&self, partitions: usize) -> bool {
        let collected = self.state == "running" && self.scans > 0 && self.pending == 0;
        collected && self.partitions == partitions && self.lag == 0
    }
}

/// One look at everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) counts: Counts,
    flow: Flow,
}

impl Look {
    /// Whether so many files have arrived everywhere and nothing is on its way.
    pub(super) fn is_done(&self, files: u64) -> bool {
        self.counts.least() >= files && self.flow.is_idle(self.counts.partitions.len())
    }

    /// What is missing, for people.
    pub(super) fn missing(&self, files: u64) -> String {
        let Self { counts, flow } = self;
        let mut text = format!(
            "of {files} files {} are records, {} stored, {} searchable; the pipeline is {} after \
             {} scans with {} pending, {} given up and a lag of {}",
            counts.records(),
            counts.stored,
            counts.documents,
            flow.state,
            flow.scans,
            flow.pending,
            flow.quarantined,
            flow.lag
        );
        if let Some(problem) = &flow.last_error {
            text += &format!("; its latest problem: {problem}");
        }
        text
    }
}

/// A stored file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Length in bytes.
    len: u64,
    /// Blocks; an empty file has none.
    pub(super) blocks: u64,
}

impl Stored {
    fn of(status: &Value) -> Self {
        let (len, block_size) = (number(&status["length"]), number(&status["blockSize"]));
        Self { len, blocks: len.div_ceil(block_size.max(1)) }
    }
}

impl Ports {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let consoles = cluster.addresses("console");
        Self {
            admin: Admin::new(consoles.clone()),
            http: Http::new(Duration::from_secs(30)),
            consoles,
            kafka: cluster.address(1, "kafka"),
            webhdfs: cluster.address(1, "webhdfs"),
            elastic: cluster.address(1, "elastic"),
        }
    }

    /// Looks at pipeline and ports; fails while topic, directory or index are still to be made.
    pub(super) fn look(&self) -> anyhow::Result<Look> {
        let list = self.admin.call("/api/pipelines", Ask::Get)?;
        let flow = Flow::of(&list).with_context(|| format!("there is no pipeline {NAME}"))?;
        Ok(Look { flow, counts: self.count()? })
    }

    fn count(&self) -> anyhow::Result<Counts> {
        let mut counts = Counts::default();
        let mut kafka = Connection::open(&self.kafka)?;
        for (partition, leader) in kafka.topic(NAME)?.leaders {
            let (first, next) = Connection::open(&leader)?.offsets(NAME, partition)?;
            counts.partitions.push(u64::try_from(next - first).unwrap_or(0));
        }
        let url = format!("http://{}/{NAME}/_count", self.elastic);
        counts.documents = number(&self.http.get(&url)?.ok("_count")?.json()?["count"]);
        let summary = self.webhdfs(&format!("/datalake/{NAME}"), "GETCONTENTSUMMARY")?;
        let summary = &summary["ContentSummary"];
        counts.stored = number(&summary["fileCount"]);
        counts.stored_bytes = number(&summary["length"]);
        Ok(counts)
    }

    /// Every record of the topic, partition by partition.
    pub(super) fn records(&self) -> anyhow::Result<Vec<Record>> {
        let mut kafka = Connection::open(&self.kafka)?;
        let mut found = Vec::new();
        for (partition, leader) in kafka.topic(NAME)?.leaders {
            let mut connection = Connection::open(&leader)?;
            let (mut offset, end) = connection.offsets(NAME, partition)?;
            while offset < end {
                let fetched = connection.fetch(NAME, partition, offset, FETCH_BYTES)?;
                let (records, next) = batch::decode(partition, &fetched.records, offset)?;
                if next == offset {
                    bail!("partition {partition} ends at {offset}, before {end}");
                }
                found.extend(records);
                offset = next;
            }
        }
        Ok(found)
    }

    /// Every stored file below the demo's directory, by its whole path.
    pub(super) fn stored(&self) -> anyhow::Result<BTreeMap<String, Stored>> {
        let mut found = BTreeMap::new();
        let mut open = vec![format!("/datalake/{NAME}")];
        while let Some(dir) = open.pop() {
            let listing = self.webhdfs(&dir, "LISTSTATUS")?;
            let entries = listing["FileStatuses"]["FileStatus"].as_array();
            for entry in entries.context("a listing without FileStatus")? {
                let name = entry["pathSuffix"].as_str().context("an entry without name")?;
                let path = format!("{dir}/{name}");
                if entry["type"] == "DIRECTORY" {
                    open.push(path);
                } else {
                    found.insert(path, Stored::of(entry));
                }
            }
            if found.len() + open.len() > MAX_STORED {
                bail!("more than {MAX_STORED} stored files");
            }
        }
        Ok(found)
    }

    /// The content of a stored file; follows the step to the data node.
    pub(super) fn content(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let answer = self.http.get(&self.webhdfs_url(path, "OPEN"))?;
        if answer.status != 307 {
            return Ok(answer.ok(path)?.body);
        }
        let location = answer.location.context("a redirect without Location")?;
        Ok(self.http.get(&location)?.ok(path)?.body)
    }

    /// Copies of blocks on the disk of each node; `None` unless every node tells.
    pub(super) fn copies(&self) -> Option<Vec<u64>> {
        let copies = |console: &String| {
            let answer = self.http.get(&format!("http://{console}/metrics")).ok()?;
            metric(&String::from_utf8_lossy(&answer.body), COPIES_METRIC)
        };
        self.consoles.iter().map(copies).collect()
    }

    /// Every document with its id in the index.
    pub(super) fn documents(&self) -> anyhow::Result<Vec<(String, Fields)>> {
        // What was written last may not be searchable yet.
        let url = format!("http://{}/{NAME}/_refresh", self.elastic);
        self.http.get(&url)?.ok("_refresh")?;
        let url = format!("http://{}/{NAME}/_search", self.elastic);
        let fields = ["id", "fileName", "fullPathName", "subject", "writeDatetime"];
        let body = json!({"size": MAX_DOCUMENTS, "_source": fields, "query": {"match_all": {}}});
        let body = serde_json::to_vec(&body)?;
        let found = self.http.post(&url, "application/json", &body)?.ok("_search")?.json()?;
        let hits = found["hits"]["hits"].as_array().context("an answer without hits")?;
        if hits.len() >= MAX_DOCUMENTS {
            bail!("only fewer than {MAX_DOCUMENTS} documents can be read back");
        }
        hits.iter().map(document).collect()
    }

    fn webhdfs_url(&self, path: &str, op: &str) -> String {
        const KEEP: percent_encoding::AsciiSet =
            percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
        let path = percent_encoding::utf8_percent_encode(path, &KEEP);
        format!("http://{}/webhdfs/v1{path}?op={op}", self.webhdfs)
    }

    fn webhdfs(&self, path: &str, op: &str) -> anyhow::Result<Value> {
        self.http.get(&self.webhdfs_url(path, op))?.ok(op)?.json()
    }
}

fn document(hit: &Value) -> anyhow::Result<(String, Fields)> {
    let id = hit["_id"].as_str().context("a document without id")?;
    let fields = Fields::deserialize(&hit["_source"]);
    Ok((id.to_owned(), fields.with_context(|| format!("document {id}"))?))
}

/// A value without labels of a text in the Prometheus format.
fn metric(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Value {
        json!({"pipeline": NAME, "state": "running", "node": 1, "seen": 9, "pending": 0,
               "quarantined": 0, "lag": 0, "partitions": 3, "scans": 1, "last_error": null})
    }

    #[test]
    fn work_is_done_when_files_are_there_and_the_pipeline_rests() {
        let counts = Counts { partitions: vec![3, 3, 3], stored: 9, stored_bytes: 1, documents: 9 };
        let look = |key: &str, value: Value| {
            let mut row = flow();
            row[key] = value;
            let flow = Flow::of(&json!([{"pipeline": "other"}, row])).unwrap();
            Look { counts: counts.clone(), flow }
        };
        assert!(look("pending", 0.into()).is_done(9));
        assert!(!look("pending", 0.into()).is_done(10));
        // Counts that an earlier run has met do not suffice.
        for (key, value) in [("scans", 0), ("pending", 1), ("lag", 1), ("partitions", 2)] {
            assert!(!look(key, value.into()).is_done(9), "{key}");
        }
        assert!(!look("state", "paused".into()).is_done(9));
        let missing = look("last_error", "no space".into()).missing(10);
        assert!(missing.starts_with("of 10 files 9 are records"), "{missing}");
        assert!(missing.ends_with("latest problem: no space"), "{missing}");
        assert_eq!(Flow::of(&json!([{"pipeline": "other"}])), None);
    }

    #[test]
    fn blocks_are_counted_as_the_file_system_cuts_them() {
        let blocks = |len: u64| Stored::of(&json!({"length": len, "blockSize": 10})).blocks;
        assert_eq!([0, 1, 10, 11].map(blocks), [0, 1, 1, 2]);
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# HELP a_b Of b.\n# TYPE a_b gauge\na_b_c 7\na_b{x=\"y\"} 8\na_b 9\n";
        assert_eq!(metric(text, "a_b"), Some(9));
        assert_eq!(metric(text, "a"), None);
    }
}
