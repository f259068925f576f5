//! Documents through `_bulk`; afterwards their number is compared with what was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use base::Clock as _;
use serde_json::{Value, json};

use crate::bench::measure::{self, Figures};
use crate::bench::{Bench, payload};
use crate::http::Http;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long until everything that was acknowledged can be found.
const SEARCHABLE_DEADLINE: Duration = Duration::from_secs(120);
/// Different bulk bodies per connection.
const BODIES: u64 = 32;

/// Measures.
pub(super) fn run(bench: &Bench<'_>) -> anyhow::Result<Figures> {
    let (docs, size) = (bench.args.batch, bench.args.size.unwrap_or(1024));
    let target = Arc::clone(&bench.target);
    let first = target.elastic.first().context("no Elasticsearch address")?.clone();
    let index = format!("http://{first}/{}", target.name);
    let http = Http::new(TIMEOUT);
    let settings = json!({
        "settings": {"number_of_shards": 3, "number_of_replicas": 2},
        "mappings": {"properties": {"body": {"type": "text"}, "n": {"type": "long"}}},
    });
    let body = serde_json::to_vec(&settings)?;
    http.put(&index, "application/json", &body)?.ok("create the index")?;
    let sent = Arc::new(AtomicU64::new(0));
    let all = Arc::clone(&sent);
    let figures = measure::run(bench, "index", move |number, window, tally| {
        let address = target.elastic.get(number % target.elastic.len().max(1));
        let url = format!("http://{}/{}/_bulk", address.unwrap_or(&first), target.name);
        let http = Http::new(TIMEOUT);
        let bodies: Vec<Vec<u8>> =
            (0..BODIES).map(|b| bulk(docs, size, number as u64 * BODIES + b)).collect();
        for body in bodies.iter().cycle() {
            if window.over() {
                break;
            }
            let began = window.now();
            let answer = http.post(&url, "application/x-ndjson", body)?.ok("_bulk")?.json()?;
            if answer["errors"] != Value::Bool(false) {
                bail!("_bulk has errors: {}", answer["items"][0]);
            }
            all.fetch_add(docs as u64, Ordering::Relaxed);
            tally.add(began, docs, docs * size);
        }
        Ok(())
    })?;
    let sent = sent.load(Ordering::Relaxed);
    let deadline = bench.clock.monotonic() + SEARCHABLE_DEADLINE;
    loop {
        http.post(&format!("{index}/_refresh"), "application/json", b"")?.ok("_refresh")?;
        let count = http.get(&format!("{index}/_count"))?.ok("_count")?.json()?["count"].as_u64();
        if count == Some(sent) {
            return Ok(figures);
        }
        if count > Some(sent) || bench.clock.monotonic() > deadline {
            bail!("{sent} documents were acknowledged, {count:?} are found");
        }
    }
}

fn bulk(docs: usize, size: usize, seed: u64) -> Vec<u8> {
    let mut random = payload::generator(seed);
    let mut body = Vec::with_capacity(docs * (size + 64));
    for number in 0..docs {
        let doc = json!({"body": payload::text(size, &mut random), "n": number});
        body.extend_from_slice(b"{\"index\":{}}\n");
        body.extend_from_slice(doc.to_string().as_bytes());
        body.push(b'\n');
    }
    body
}
