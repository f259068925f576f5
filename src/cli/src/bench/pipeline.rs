//! Files of a directory until they can be searched: collected, recorded, stored, indexed.
//!
//! There is no window: all files stand there at the start, and the time runs from the moment
//! the pipeline is applied until the last file is searchable, less the settle time. The
//! percentiles say after how long that share of the files was searchable.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};
use base::Clock;
use serde_json::json;

use crate::admin::Ask;
use crate::bench::measure::{Figures, cpu_seconds, rss_mb};
use crate::bench::{Bench, payload};
use crate::http::Http;
use crate::output::progress;

/// How long a file must stay the same before it is read; not counted.
const SETTLE_MS: u64 = 200;
/// Files of one directory.
const FILES_PER_DIRECTORY: usize = 500;
/// How long all may take.
const DEADLINE: Duration = Duration::from_secs(600);

/// Measures.
pub(super) fn run(bench: &Bench<'_>) -> anyhow::Result<Figures> {
    let (files, size) = (bench.args.files, bench.args.size.unwrap_or(2048));
    let name = &bench.target.name;
    let root = bench.target.work_dir.join("files");
    write_files(&root, files, size)?;
    let spec = json!({
        "name": name,
        "source": {
            "type": "local",
            "path": root.to_str().context("the directory's path must be UTF-8")?,
            "settle_ms": SETTLE_MS,
            "scan_interval_ms": 500,
        },
        "topic": name,
        "partitions": 3,
        "directory": format!("/datalake/{name}"),
        "index": name,
    });
    let (began, cpu) = (bench.clock.monotonic(), cpu_seconds(&bench.target.pids));
    bench.target.admin.call("/api/pipelines", Ask::Put(&spec))?;
    let shares = watch(bench, files as u64, began + Duration::from_millis(SETTLE_MS))?;
    let seconds = shares.all.as_secs_f64();
    let bytes = (files * size) as f64;
    let rss = rss_mb(&bench.target.pids);
    let cpu = cpu_seconds(&bench.target.pids) - cpu;
    Ok(Figures {
        what: "pipeline",
        mb_per_s: bytes / 1e6 / seconds,
        ops_per_s: files as f64 / seconds,
        p50_ms: shares.half.as_secs_f64() * 1e3,
        p99_ms: shares.most.as_secs_f64() * 1e3,
        cpu_s_per_gb: rss.map(|_| cpu / (bytes / 1e9)),
        rss_mb: rss,
        seconds,
        more: Vec::new(),
    })
}

/// When shares of the files were searchable.
#[derive(Clone, Copy, Debug, Default)]
struct Shares {
    half: Duration,
    most: Duration,
    all: Duration,
}

fn watch(bench: &Bench<'_>, files: u64, began: Duration) -> anyhow::Result<Shares> {
    let address = bench.target.elastic.first().context("no Elasticsearch address")?;
    let url = format!("http://{address}/{}/_count", bench.target.name);
    let http = Http::new(Duration::from_secs(10));
    let bar = progress(files, "pipeline");
    let (mut half, mut most) = (None, None);
    loop {
        // The index comes to be with the first file.
        let answer = http.get(&url)?;
        let count = if answer.status < 300 { answer.json()?["count"].as_u64() } else { None };
        let count = count.unwrap_or(0);
        let passed = bench.clock.monotonic().saturating_sub(began);
        bar.set_position(count);
        if count * 2 >= files && half.is_none() {
            half = Some(passed);
        }
        if count * 100 >= files * 99 && most.is_none() {
            most = Some(passed);
        }
        if count >= files {
            bar.finish_and_clear();
            let (half, most) = (half.unwrap_or(passed), most.unwrap_or(passed));
            return Ok(Shares { half, most, all: passed });
        }
        if passed > DEADLINE {
            bail!("{count} of {files} files are searchable after {} s", passed.as_secs());
        }
        if bench.stop.sleep(Duration::from_millis(50)) {
            bail!("stopped");
        }
    }
}

fn write_files(root: &std::path::Path, files: usize, size: usize) -> anyhow::Result<()> {
    let mut random = payload::generator(7);
    for number in 0..files {
        let dir = root.join((number / FILES_PER_DIRECTORY).to_string());
        if number % FILES_PER_DIRECTORY == 0 {
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        let mut text = payload::text(size.saturating_sub(10), &mut random);
        text.truncate(text.floor_char_boundary(size));
        fs::write(dir.join(format!("{number}.txt")), text)?;
    }
    Ok(())
}
