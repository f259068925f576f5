//! `trine demo`: the whole job on sample files, and what landed where.
//!
//! Layout of the directory: `cluster/` as `trine local` lays it out, `sample/` the files that
//! the built-in SFTP server shows, `sample.written` once these are complete, `sftp/` the server's
//! host key and password. Given the same directory again, the cluster goes on where it stopped:
//! the ledger knows every file it has collected, and the sample files stay as their user left
//! them.

mod landed;
mod pipeline;
mod place;
mod report;
mod verify;
mod version;

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};
use base::env::RealClock;
use base::{Clock, TaskGroup};
use sample::{SampleFile, SampleOptions, SampleServer};
use tokio::runtime::Runtime;

use crate::admin::Ask;
use crate::args::{DemoArgs, Output};
use crate::demo::landed::{Counts, Ports};
use crate::demo::place::Place;
use crate::demo::report::Report;
use crate::local::cluster::Cluster;
use crate::local::{READY_DEADLINE, print_addresses};
use crate::output::{note, progress, say};
use crate::signals::Stop;

/// Topic, index and directory of the demo.
const NAME: &str = "news";
/// User of the sample server.
const USER: &str = "demo";
/// How long everything may take to land.
const LAND_DEADLINE: Duration = Duration::from_secs(300);
/// Pause between looks at what has landed.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

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
        let file = place.sftp("password");
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
            root: place.sample(),
            user: USER.to_owned(),
            password: password.clone(),
            authorized_keys: Vec::new(),
            host_key_file: Some(place.sftp("host_key")),
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
    let files = place.files()?;
    let mut cluster = Cluster::start(&place.cluster(), &args.cluster)?;
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
    let spec = pipeline::spec(sftp.server.addr, &sftp.server.host_key, &sftp.password);
    let applied = ports.admin.call("/api/pipelines", Ask::Put(&spec));
    applied.context("cannot apply the pipeline")?;
    let Some(landed) = watch(stop, cluster, &ports, files.len() as u64, &clock)? else {
        return Ok(());
    };
    if args.once {
        verify::verify(&ports, files, place.run).context("what landed is not what was sent")?;
    }
    tell(&report(&ports, files.len(), landed)?, output)?;
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

/// What has landed, and when it had.
struct Landed {
    counts: Counts,
    at: Duration,
}

/// Waits until every file has arrived at all three places and nothing more is on its way; `None`
/// when the user stops.
fn watch(
    stop: &Stop,
    cluster: &mut Cluster,
    ports: &Ports,
    files: u64,
    clock: &RealClock,
) -> anyhow::Result<Option<Landed>> {
    let bar = progress(files, "searchable");
    let deadline = clock.monotonic() + LAND_DEADLINE;
    let mut since = None;
    loop {
        if let Some(ended) = cluster.poll().first() {
            bail!("{}", ended.text);
        }
        let looked = ports.look();
        let done = looked.as_ref().ok().filter(|look| look.is_done(files));
        // Nodes tell of different moments: the lag may be older than the last commit. What a
        // second look still shows is so.
        if let (Some(at), Some(look)) = (since, done) {
            bar.finish_and_clear();
            return Ok(Some(Landed { counts: look.counts.clone(), at }));
        }
        since = done.map(|_| clock.monotonic());
        if let Ok(look) = &looked {
            bar.set_position(look.counts.documents.min(files));
        }
        if clock.monotonic() > deadline {
            bail!("after {} s {}", LAND_DEADLINE.as_secs(), looked?.missing(files));
        }
        if stop.sleep(LOOK_PAUSE) {
            bar.finish_and_clear();
            return Ok(None);
        }
    }
}

fn report(ports: &Ports, files: usize, landed: Landed) -> anyhow::Result<Report> {
    let Landed { counts, at } = landed;
    let blocks = ports.stored()?.values().map(|stored| stored.blocks).sum();
    let seconds = (at.as_secs_f64() * 10.0).round() / 10.0;
    Ok(Report { files, counts, blocks, copies: ports.copies(), seconds })
}

fn tell(report: &Report, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => say(report.json())?,
        Output::Table => say(report.text())?,
    }
    Ok(())
}

/// What a visitor may try, with the addresses of this run.
fn commands(cluster: &Cluster, place: &Place) -> String {
    let es = cluster.address(1, "elastic");
    let kafka = cluster.address(1, "kafka");
    let hdfs = cluster.address(1, "webhdfs");
    let sample = place.sample();
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
