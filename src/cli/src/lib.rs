//! The `trine` command: runs nodes, and administers and measures clusters.
//!
//! Results go to stdout (tables, or JSON lines with `-o json`), notes and progress to stderr.
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration with nothing touched.

pub mod admin;
pub mod args;
pub mod bench;
pub mod demo;
pub mod flow;
pub mod http;
pub mod kafka_client;
pub mod local;
pub mod output;
pub mod signals;
pub mod status;
pub mod topic;
pub mod user;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use node::config::{Config, Refused, Sources};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::args::{Cli, Command, ConfigCommand, NodeArgs};

/// What `trine node` runs: a node until it was told to stop.
pub type RunNode = fn(Config) -> anyhow::Result<()>;

/// A mistake of the user that was found before anything was touched: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Runs the command line of this process.
pub fn main(run_node: RunNode) -> ExitCode {
    // Clap prints help and its own errors itself and exits with 0 or 2.
    let cli = Cli::parse();
    match run(cli, run_node) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            output::note(format!("trine: {e:#}"));
            ExitCode::from(if e.is::<Usage>() || e.is::<Refused>() { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli, run_node: RunNode) -> anyhow::Result<()> {
    let output = cli.output;
    match cli.command {
        Command::Node(args) => {
            die_with_parent(&args)?;
            run_node(load(&args.config, &args.sets)?)
        }
        Command::Local(args) => local::run(&args, output),
        Command::Demo(args) => demo::run(&args, output),
        Command::Status(admin) => status::run(&admin, output),
        Command::Topic(command) => topic::run(command, output),
        Command::User(command) => user::run(command, output),
        Command::Source(command) => flow::run(flow::Kind::Source, command, output),
        Command::Pipeline(command) => flow::run(flow::Kind::Pipeline, command, output),
        Command::Config(ConfigCommand::Validate { file, sets }) => {
            let config = load(&file, &sets)?;
            let (node, cluster) = (config.node_id, config.cluster);
            let shown = file.display();
            Ok(output::say(format!("{shown}: node {node} of cluster \"{cluster}\" is valid"))?)
        }
        Command::Bench(args) => bench::run(&args, output),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "trine", &mut text);
            Ok(output::say(String::from_utf8_lossy(&text).trim_end())?)
        }
    }
}

/// Reads and checks a node's configuration; every mistake is a [`Usage`].
fn load(file: &Path, sets: &[String]) -> anyhow::Result<Config> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).with_context(|| Usage(format!("cannot read {name}")))?;
    let env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    let sources = Sources { file: &name, text: &text, env: &env, sets };
    Config::parse(&sources).map_err(|e| Usage(e.to_string()).into())
}

/// Asks the kernel for SIGTERM when the parent ends, and ends now if it already has.
fn die_with_parent(args: &NodeArgs) -> anyhow::Result<()> {
    let Some(parent) = args.parent_pid else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot follow the parent")?;
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        anyhow::bail!("the parent process {parent} has ended");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_missing_file_is_a_usage_error() {
        let error = load(Path::new("/nowhere/node.toml"), &[]).unwrap_err();
        assert!(error.is::<Usage>());
        assert!(format!("{error:#}").contains("/nowhere/node.toml"));
    }
}
