//! Files written through WebHDFS, each with its step to the data node; afterwards a few of them
//! are read back and compared.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::bench::measure::{self, Figures};
use crate::bench::{Bench, payload};
use crate::http::Http;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Who writes; one of Hadoop's usual superusers, so that `/` is writable.
const USER: &str = "hdfs";
/// Files read back per connection.
const READ_BACK: u64 = 20;

/// Writes one file.
fn create(http: &Http, base: &str, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let kind = "application/octet-stream";
    let url = format!("{base}/{name}?op=CREATE&overwrite=false&user.name={USER}");
    let step = http.put(&url, kind, b"")?;
    if step.status != 307 {
        bail!("CREATE: status {}: {}", step.status, step.text());
    }
    let location = step.location.context("a redirect without Location")?;
    http.put(&location, kind, bytes)?.ok("CREATE")?;
    Ok(())
}

/// Reads one file.
fn open(http: &Http, base: &str, name: &str) -> anyhow::Result<Vec<u8>> {
    let step = http.get(&format!("{base}/{name}?op=OPEN&user.name={USER}"))?;
    match step.location {
        Some(location) if step.status == 307 => Ok(http.get(&location)?.ok("OPEN")?.body),
        _ => Ok(step.ok("OPEN")?.body),
    }
}

/// Measures.
pub(super) fn run(bench: &Bench<'_>) -> anyhow::Result<Figures> {
    let target = Arc::clone(&bench.target);
    let bytes = payload::random(bench.args.size.unwrap_or(2048), 1);
    measure::run(bench, "fs", move |number, window, tally| {
        let address = target.webhdfs.get(number % target.webhdfs.len().max(1));
        let address = address.context("no WebHDFS address")?;
        let base = format!("http://{address}/webhdfs/v1/{}/{number}", target.name);
        let http = Http::new(TIMEOUT);
        let mut files = 0_u64;
        while !window.over() {
            let began = window.now();
            create(&http, &base, &files.to_string(), &bytes)?;
            tally.add(began, 1, bytes.len());
            files += 1;
        }
        for name in (0..files).rev().step_by((files / READ_BACK).max(1) as usize) {
            if open(&http, &base, &name.to_string())? != bytes {
                bail!("file {name} of connection {number} reads back differently");
            }
        }
        Ok(())
    })
}
