//! The command line: every command and option with its help text.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Log, block store and search index of three nodes in one binary.
#[derive(Debug, Parser)]
#[command(name = "trine", version, propagate_version = true)]
pub struct Cli {
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: one JSON document per line.
    Json,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one node until it is told to stop.
    Node(NodeArgs),
    /// Run three nodes on this machine until Ctrl-C.
    Local(LocalArgs),
    /// Run three nodes, feed them sample files by SFTP, and show what landed where.
    Demo(DemoArgs),
    /// Show nodes, groups, disk and the flow's lag.
    Status(AdminArgs),
    /// Topics.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Users of the secured ports.
    #[command(subcommand)]
    User(UserCommand),
    /// Where files come from.
    #[command(subcommand)]
    Source(FlowCommand),
    /// What happens to records.
    #[command(subcommand)]
    Pipeline(FlowCommand),
    /// Configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Measure a cluster through its real ports.
    Bench(BenchArgs),
    /// Print shell completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// Where the configuration of a node comes from.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The node's TOML file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Overrides a key of the file, such as wal.sync=interval. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Ends this node when the process with this id, its parent, ends.
    #[arg(long, hide = true)]
    pub parent_pid: Option<i32>,
}

/// A cluster on this machine.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// Ports: a number takes 24 consecutive ports from there; "free" takes any. By default node 1
    /// has the standard ports, node 2 those + 10000, node 3 those + 20000.
    #[arg(long, value_name = "N|free")]
    pub port_base: Option<String>,
    /// Sets a key of every node's configuration, such as wal.sync=interval. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// Options of `local`.
#[derive(Clone, Debug, Args)]
pub struct LocalArgs {
    /// Directory of the cluster; made when missing, continued when it has been used before.
    #[arg(long)]
    pub dir: PathBuf,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Options of `demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Directory of the cluster and the sample files; a temporary one when not given. Given
    /// again, the demo goes on where it stopped.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Verify through the three ports what landed, then stop.
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// How to reach a cluster's admin API.
#[derive(Clone, Debug, Args)]
pub struct AdminArgs {
    /// Console addresses of the cluster, host:port, separated by commas; the first that answers
    /// is used.
    #[arg(
        long,
        env = "TRINE_CONSOLE",
        value_delimiter = ',',
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:5600,127.0.0.1:15600,127.0.0.1:25600"
    )]
    pub console: Vec<String>,
}

/// Commands about topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Names all topics.
    List(AdminArgs),
    /// Shows the partitions of a topic.
    Describe {
        /// The topic.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Creates a topic.
    Create {
        /// The topic.
        name: String,
        /// Number of partitions; the cluster's default when not given.
        #[arg(long)]
        partitions: Option<u32>,
        /// Replication factor that is reported; storage is threefold whatever is asked.
        #[arg(long, default_value_t = 3)]
        replication_factor: u16,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Deletes a topic and its records.
    Delete {
        /// The topic.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// Commands about users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Names all users.
    List(AdminArgs),
    /// Creates a user, or gives it another password: the first line of a file, else the variable
    /// TRINE_USER_PASSWORD, else the first line of standard input.
    Create {
        /// The user.
        name: String,
        /// File whose first line is the password.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Deletes a user; its open connections stay.
    Delete {
        /// The user.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// Commands about sources or pipelines.
#[derive(Debug, Subcommand)]
pub enum FlowCommand {
    /// Creates or changes the pipeline that the TOML file declares; for a source, the file has the
    /// pipeline's name and a table `source`.
    Apply {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Shows all with their state, counts and lag.
    List(AdminArgs),
    /// Stops taking new work until `resume`.
    Pause(FlowName),
    /// Goes on after `pause`.
    Resume(FlowName),
    /// Collects files that stand in quarantine again, and starts a source that stopped.
    Retry(FlowName),
    /// Shows what was given up, and why.
    Quarantine(FlowName),
    /// Forgets it; what has landed stays.
    Delete(FlowName),
}

/// One source or pipeline.
#[derive(Debug, Args)]
pub struct FlowName {
    /// Its name.
    pub name: String,
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Commands about configuration files.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Checks a node's configuration file and touches nothing.
    Validate {
        /// The file.
        file: PathBuf,
        /// Overrides a key of the file. May be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
    },
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchKind {
    /// Kafka Produce, acks=all.
    Produce,
    /// Kafka Fetch of what was produced before.
    Consume,
    /// Files written and read back through WebHDFS.
    Fs,
    /// Documents through `_bulk`.
    Index,
    /// Files of 2 KB from a directory until they can be searched.
    Pipeline,
    /// CPU of nodes that nobody uses, and under consumers with nothing to read.
    Idle,
    /// Time from the start of all nodes until they serve, with much data.
    Restart,
    /// Time from the end of a leader until the next acknowledgement.
    Failover,
    /// Kafka Fetch of data that no cache holds, from its start to its end.
    ColdRead,
}

/// Options of `bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// What is measured.
    #[arg(value_enum)]
    pub kind: BenchKind,
    /// Measure a cluster that is made for this run in a temporary directory.
    #[arg(long)]
    pub local: bool,
    /// Where the throwaway cluster's directory is made.
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Sets a key of the throwaway cluster's nodes. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Kafka addresses, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:9092")]
    pub kafka: Vec<String>,
    /// WebHDFS addresses, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:9870")]
    pub webhdfs: Vec<String>,
    /// Elasticsearch addresses, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:9200")]
    pub elastic: Vec<String>,
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Process ids of the nodes, for CPU and memory figures.
    #[arg(long, value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// Seconds that count.
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,
    /// Seconds before those.
    #[arg(long, default_value_t = 5)]
    pub warm_up: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 6)]
    pub connections: usize,
    /// Bytes of a record, file or document; 1024, for files and the pipeline 2048.
    #[arg(long)]
    pub size: Option<usize>,
    /// Records or documents of one request.
    #[arg(long, default_value_t = 64)]
    pub batch: usize,
    /// Requests under way per connection (produce only).
    #[arg(long, default_value_t = 4)]
    pub in_flight: usize,
    /// Files of the pipeline measurement.
    #[arg(long, default_value_t = 4000)]
    pub files: usize,
    /// Partitions of the topic; 6, for the idle measurement 1000.
    #[arg(long)]
    pub partitions: Option<i32>,
    /// Megabytes per second of all connections together, on a schedule that does not wait for
    /// answers; as fast as answers come when not given (produce only).
    #[arg(long, value_name = "MB/S")]
    pub rate: Option<f64>,
    /// Gigabytes written before the restart and cold-read measurements.
    #[arg(long, default_value_t = 2.0)]
    pub gb: f64,
    /// How often the failover measurement kills a leader.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
}
