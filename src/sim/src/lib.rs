//! A cluster of three nodes in one process, one thread and simulated time, with faults drawn
//! from a seed.
//!
//! # What runs
//! The real write-ahead log, consensus, segments and log, on `consensus`'s `SimNet` for sockets,
//! `base`'s `SimDisk` for disks and tokio's paused clock for time. One seed in five keeps rows in
//! sled on the real disk, and damages what it left before each start. Clients propose to a list
//! machine and produce to a topic while [`faults`] crashes nodes (killed processes, power loss
//! with lost or torn unsynced writes, power cuts in the middle of a write or of recovery, one
//! node or all at once), cuts the network both ways or one way, slows it and breaks
//! connections. Then everything heals and [`history`] is held against every replica.
//!
//! # What is checked
//! * What was acknowledged is on every replica, at the place that was acknowledged, once.
//! * What was refused as "nothing was proposed" is nowhere. What has an unknown outcome is there
//!   at most once.
//! * Places respect real time: what begins after an acknowledgement comes after it.
//! * A read behind a read barrier sees everything acknowledged before the barrier.
//! * Idempotent producers: every batch once, in the order of sending, through all retries.
//! * What a consumer was given stays where it was.
//! * Of a transaction that committed, readers of committed records see everything, once and in
//!   order; of any other nothing, then and later; and none stays open (see [`txn`]).
//! * In a compacted topic the newest record of each key is the one written last, on every node,
//!   with a batch to read at or after every offset.
//! * A group is at the offset whose commit was acknowledged last, and a log begins no earlier than
//!   it was said to, with every record from there on (see [`marks`]).
//! * Of a consumer group: no partition has two owners, generations and epochs do not go back,
//!   nothing is committed in the name of an old one, a static member keeps what it has, committed
//!   offsets stand, and every node has the coordinator's rows (see [`groups`]).
//! * At most one node leads a group in a term.
//! * All nodes end with equal digests in every group, and none gives up unless its disk failed.
//!
//! # What a seed fixes
//! Faults, network delays, flush times and what clients send. It does not fix everything:
//! openraft draws election timeouts from a generator of its own, and checkpoint files are
//! written on real blocking threads while simulated time stands still. A seed that failed
//! may need a few runs to fail again; `TRINE_SIM_SEED` and `TRINE_SIM_RUNS` (see
//! `tests/cluster.rs`) do that.
//!
//! # What it does not do
//! Messages are not duplicated or reordered within a connection, because TCP does neither.
//! Clocks differ between nodes by a constant. Disks lose only what was not synced.

pub mod compacted;
pub mod faults;
pub mod groups;
pub mod history;
pub mod list;
pub mod marks;
pub mod node;
pub mod topic;
pub mod txn;
pub mod world;

pub use world::{Report, run};
