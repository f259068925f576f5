//! Consumer groups: the classic protocol of Kafka (JoinGroup, SyncGroup, Heartbeat, LeaveGroup),
//! static members (KIP-345) included.
//!
//! The coordinator of a group is the leader of the data group that the group's id hashes to.
//! Membership lives in that leader's memory as a pure state machine ([`Coordinator`]): it takes
//! requests and the time, and gives replies, rows to save and deadlines. [`GroupService`] runs
//! it: it routes, waits, proposes rows and drives the timers.
//!
//! What survives a leader change is the group's row (generation, protocol, members, assignment),
//! replicated when a generation is complete and before any member hears its assignment. A new
//! leader loads the rows: members go on heartbeating in their generation, and a rebalance under
//! way is answered with `NOT_COORDINATOR` and begins again at the new leader.
//!
//! Invariants: an assignment is saved before a member sees it; a generation number is never
//! given out twice for different assignments that a member saw; rows of one data group are saved
//! in the order in which the coordinator asked. Committed offsets are rows of the partitions'
//! machine, not of this module: the coordinator only judges whether a commit is allowed.

mod beats;
mod classic;
mod consumer;
mod coordinator;
mod expire;
mod expiry;
mod row;
mod service;
mod types;
mod unsaved;

pub use beats::MaySee;
pub use consumer::{
    Beat, BeatReply, BeatSettings, ConsumerDescription, ConsumerGroupRow, ConsumerGroupRowV1,
    ConsumerMemberDescription, ConsumerMemberRow, ConsumerMemberRowV1, ConsumerSave, ConsumerState,
    JOINS, LEAVES, LEAVES_FOR_A_WHILE, PackedParts, Progress, Refusal, StoredConsumerGroup,
    TopicShape, TopicView,
};
pub use coordinator::{Coordinator, Effect, Write};
pub use expiry::{ExpiredOffsets, Retention, StoredOffset, StoredOffsets, expired};
pub(crate) use row::empty_key;
pub use row::{
    GroupCommand, GroupRow, GroupRowV1, MemberRow, StoredGroups, apply_command, load_rows,
};
pub use service::{GroupService, GroupStore, SaveFailed};
pub use types::{
    CommitCheck, CommitVia, Described, FetchCheck, GroupConfig, GroupDescription, GroupError,
    GroupListing, GroupState, GroupStats, Heartbeat, Join, JoinMember, JoinReply, Leave,
    LeaveResult, MemberDescription, MemberName, Sync, SyncReply, Token,
};

#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;
