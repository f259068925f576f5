//! `trine demo`: the whole job on sample files, and what landed where.
//!
//! Layout of the directory: `cluster/` as `trine local` lays it out, `sample/` the files that
//! the built-in SFTP server shows, `sftp/` its host key and password. Given the same directory
//! again, the cluster goes on where it stopped: the ledger knows every file it has collected.

mod landed;
mod pipeline;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use base::env::RealClock;
use base::{Clock, TaskGroup};
use sample::{SampleFile, SampleOptions, SampleServer};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::admin::{Admin, Ask};
use crate::args::{DemoArgs, Output};
use crate::demo::landed::{Counts, Ports};
use crate::local::cluster::Cluster;
use crate::local::{READY_DEADLINE, print_addresses};
use crate::output::{bytes, note, progress, say, table};
use crate::signals::Stop;

/// Topic, index and directory of the demo.
const NAME: &str = "news";
/// Seed of the sample tree: the same files on every machine.
const SEED: u64 = 1;
/// User of the sample server.
const USER: &str = "demo";
/// How long everything may take to land.
const LAND_DEADLINE: Duration = Duration::from_secs(300);
/// Pause between looks at what has landed.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Where the demo keeps its things; a temporary directory goes away at the end.
struct Place {
    root: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn new(dir: Option<&Path>) -> anyhow::Result<Self> {
        let (root, temporary) = match dir {
            Some(dir) => (dir.to_owned(), None),
            None => {
                let made = tempfile::Builder::new().prefix("trine-demo-").tempdir()?;
                (made.path().to_owned(), Some(made))
            }
        };
        for sub in ["sample", "sftp"] {
            let path = root.join(sub);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(Self { root: root.canonicalize()?, _temporary: temporary })
    }
}

/// The sample server with the runtime it lives on.
struct Sftp {
    runtime: Runtime,
    tasks: TaskGroup,
    server: SampleServer,
    password: String,
}

impl Sftp {
    fn start(place: &Place) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sample-sftp")
            .enable_all()
            .build()?;
        let file = place.root.join("sftp/password");
        let password = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(_) => {
                let text = format!("{:032x}", rand::random::<u128>());
                fs::write(&file, &text)?;
                text
            }
        };
        let options = SampleOptions {
            addr: ([127, 0, 0, 1], 0).into(),
            root: place.root.join("sample"),
            user: USER.to_owned(),
            password: password.clone(),
            authorized_keys: Vec::new(),
            host_key_file: Some(place.root.join("sftp/host_key")),
        };
        let tasks = TaskGroup::new();
        let server = runtime.block_on(SampleServer::start_with(options, &tasks))?;
        Ok(Self { runtime, tasks, server, password })
    }

    fn stop(self) {
        self.runtime.block_on(self.tasks.shutdown(Duration::from_secs(2)));
    }
}

/// Runs the command.
pub fn run(args: &DemoArgs, output: Output) -> anyhow::Result<()> {
    let stop = Stop::install()?;
    let place = Place::new(args.dir.as_deref())?;
    let files = sample::write_tree(&place.root.join("sample"), SEED)
        .context("cannot write the sample files")?;
    let mut cluster = Cluster::start(&place.root.join("cluster"), &args.cluster)?;
    if !args.once {
        print_addresses(&cluster, output)?;
    }
    let Some(_) = cluster.wait_ready(&stop, READY_DEADLINE)? else {
        cluster.stop();
        return Ok(());
    };
    let sftp = Sftp::start(&place)?;
    let result = show(args, output, &stop, &mut cluster, &sftp, &files, &place);
    cluster.stop();
    sftp.stop();
    result
}

fn show(
    args: &DemoArgs,
    output: Output,
    stop: &Stop,
    cluster: &mut Cluster,
    sftp: &Sftp,
    files: &[SampleFile],
    place: &Place,
) -> anyhow::Result<()> {
    let ports = Ports::of(cluster);
    let clock = RealClock::new();
    let admin = Admin::new(cluster.addresses("console"));
    let spec = pipeline::spec(sftp.server.addr, &sftp.server.host_key, &sftp.password);
    admin.call("/api/pipelines", Ask::Put(&spec)).context("cannot apply the pipeline")?;
    let Some(counts) = watch(stop, cluster, &ports, files.len() as u64, &clock)? else {
        return Ok(());
    };
    let seconds = (clock.monotonic().as_secs_f64() * 10.0).round() / 10.0;
    if args.once {
        verify::verify(&ports, files).context("what landed is not what was sent")?;
    }
    print(output, files.len(), &counts, seconds)?;
    if args.once {
        return Ok(());
    }
    if output == Output::Table {
        say(commands(cluster, place))?;
    }
    while !stop.sleep(Duration::from_millis(200)) {
        for ended in cluster.poll() {
            note(&ended.text);
        }
        if !cluster.any_alive() {
            bail!("all nodes have ended");
        }
    }
    Ok(())
}

/// Waits until every file has arrived at all three places; `None` when the user stops.
fn watch(
    stop: &Stop,
    cluster: &mut Cluster,
    ports: &Ports,
    files: u64,
    clock: &RealClock,
) -> anyhow::Result<Option<Counts>> {
    let bar = progress(files, "searchable");
    let deadline = clock.monotonic() + LAND_DEADLINE;
    loop {
        if let Some(ended) = cluster.poll().first() {
            bail!("{}", ended.text);
        }
        let looked = ports.count();
        if let Ok(counts) = &looked {
            bar.set_position(counts.documents.min(files));
            if counts.least() >= files {
                bar.finish_and_clear();
                return Ok(Some(counts.clone()));
            }
        }
        if clock.monotonic() > deadline {
            let counts = looked?;
            bail!(
                "after {} s of {files} files {} are records, {} stored, {} searchable",
                LAND_DEADLINE.as_secs(),
                counts.records(),
                counts.stored,
                counts.documents
            );
        }
        if stop.sleep(LOOK_PAUSE) {
            bar.finish_and_clear();
            return Ok(None);
        }
    }
}

fn print(output: Output, files: usize, counts: &Counts, seconds: f64) -> anyhow::Result<()> {
    if output == Output::Json {
        say(json!({
            "files": files,
            "records": counts.records(),
            "records_per_partition": counts.partitions,
            "stored": counts.stored,
            "stored_bytes": counts.stored_bytes,
            "documents": counts.documents,
            "seconds": seconds,
        }))?;
        return Ok(());
    }
    let row =
        |what: &str, count: u64, place: String| vec![what.to_owned(), count.to_string(), place];
    let mut rows = vec![row("files by SFTP", files as u64, "sample/".to_owned())];
    for (partition, count) in (0..).zip(&counts.partitions) {
        rows.push(row("records", *count, format!("topic {NAME}, partition {partition}")));
    }
    let (size, all) = (bytes(counts.stored_bytes), bytes(counts.replica_bytes));
    rows.push(row(
        "stored files",
        counts.stored,
        format!("/datalake/{NAME}, {size}, {all} with replicas"),
    ));
    rows.push(row("documents", counts.documents, format!("index {NAME}")));
    say(table(&["what", "count", "where"], rows))?;
    say(format!("{seconds} s from the first connection to searchable"))?;
    Ok(())
}

/// What a visitor may try, with the addresses of this run.
fn commands(cluster: &Cluster, place: &Place) -> String {
    let es = cluster.address(1, "elastic");
    let kafka = cluster.address(1, "kafka");
    let hdfs = cluster.address(1, "webhdfs");
    let sample = place.root.join("sample");
    let python = format!(
        "python3 -c \"from kafka import KafkaConsumer as C\n\
         for r in C('{NAME}', bootstrap_servers='{kafka}', auto_offset_reset='earliest', \
         consumer_timeout_ms=3000): print(r.value.decode())\""
    );
    format!(
        "\nTry:\n\
         curl '{es}/_cat/indices?v'\n\
         curl '{es}/_cat/health?v'\n\
         curl -G '{es}/{NAME}/_search?pretty' --data-urlencode 'q=body:회의'\n\
         kcat -b {kafka} -t {NAME} -C -e\n\
         {python}\n\
         curl 'http://{hdfs}/webhdfs/v1/datalake/{NAME}?op=LISTSTATUS'\n\
         echo '새 소식: 회의는 내일' > '{}/new.txt'    # searchable a few seconds later\n\
         \nCtrl-C stops.",
        sample.display()
    )
}
