//! What every other crate of trine stands on: identifiers, units, limits, the environment
//! (clock, randomness, disk) behind traits, the task group, and checksums.
//!
//! Nothing here knows about Raft, Kafka, HDFS or Elasticsearch.

pub mod broken;
pub mod codec;
pub mod crc;
pub mod env;
pub mod golden;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod sys;
pub mod task;

pub use env::{Clock, Disk, DiskFile, Env, OpenMode, Random};
pub use ids::{GroupId, NodeId};
pub use task::TaskGroup;
