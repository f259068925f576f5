//! What has landed, asked through the three ports.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::demo::NAME;
use crate::http::Http;
use crate::kafka_client::{Connection, batch};
use crate::local::cluster::Cluster;

/// Bytes of one fetch.
const FETCH_BYTES: i32 = 4 << 20;
/// Longest listing of the stored tree.
const MAX_STORED: usize = 1_000_000;

/// The ports of node 1, where everything can be asked.
#[derive(Debug)]
pub(super) struct Ports {
    http: Http,
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
    /// Their bytes on all nodes.
    pub(super) replica_bytes: u64,
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

impl Ports {
    pub(super) fn of(cluster: &Cluster) -> Self {
        Self {
            http: Http::new(Duration::from_secs(30)),
            kafka: cluster.address(1, "kafka"),
            webhdfs: cluster.address(1, "webhdfs"),
            elastic: cluster.address(1, "elastic"),
        }
    }

    /// Looks at all three ports; fails while topic, directory or index are still to be made.
    pub(super) fn count(&self) -> anyhow::Result<Counts> {
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
        counts.replica_bytes = number(&summary["spaceConsumed"]);
        Ok(counts)
    }

    /// Every record of the topic as JSON, partition by partition.
    pub(super) fn records(&self) -> anyhow::Result<Vec<Value>> {
        let mut kafka = Connection::open(&self.kafka)?;
        let mut values = Vec::new();
        for (partition, leader) in kafka.topic(NAME)?.leaders {
            let mut connection = Connection::open(&leader)?;
            let (mut offset, end) = connection.offsets(NAME, partition)?;
            while offset < end {
                let fetched = connection.fetch(NAME, partition, offset, FETCH_BYTES)?;
                let (records, next) = batch::decode(&fetched.records, offset)?;
                if next == offset {
                    bail!("partition {partition} ends at {offset}, before {end}");
                }
                for record in records {
                    let value = serde_json::from_slice(&record.value);
                    let what = || format!("record {partition}/{} is no JSON", record.offset);
                    values.push(value.with_context(what)?);
                }
                offset = next;
            }
        }
        Ok(values)
    }

    /// Every stored file below the demo's directory: path below it to length.
    pub(super) fn stored(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut found = BTreeMap::new();
        let mut open = vec![String::new()];
        while let Some(dir) = open.pop() {
            let listing = self.webhdfs(&format!("/datalake/{NAME}{dir}"), "LISTSTATUS")?;
            let entries = listing["FileStatuses"]["FileStatus"].as_array();
            for entry in entries.context("a listing without FileStatus")? {
                let name = entry["pathSuffix"].as_str().context("an entry without name")?;
                let path = format!("{dir}/{name}");
                if entry["type"] == "DIRECTORY" {
                    open.push(path);
                } else {
                    found.insert(path, number(&entry["length"]));
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
        let url = self.webhdfs_url(&format!("/datalake/{NAME}{path}"), "OPEN");
        let answer = self.http.get(&url)?;
        if answer.status != 307 {
            return Ok(answer.ok(path)?.body);
        }
        let location = answer.location.context("a redirect without Location")?;
        Ok(self.http.get(&location)?.ok(path)?.body)
    }

    /// Ids of all documents.
    pub(super) fn document_ids(&self) -> anyhow::Result<Vec<String>> {
        let url = format!("http://{}/{NAME}/_search", self.elastic);
        let body = json!({"size": 10_000, "_source": ["id"], "query": {"match_all": {}}});
        let body = serde_json::to_vec(&body)?;
        let found = self.http.post(&url, "application/json", &body)?.ok("_search")?.json()?;
        let hits = found["hits"]["hits"].as_array().context("an answer without hits")?;
        let id = |hit: &Value| Some(hit["_source"]["id"].as_str()?.to_owned());
        hits.iter().map(|h| id(h).context("a document without id")).collect()
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

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
