//! Replicated state machines: the only crate that knows openraft.
//!
//! A service implements [`StateMachine`] and proposes commands through a [`Group`]. Everything
//! else (election, replication, the WAL, checkpoints, snapshots, tables) happens behind these
//! two traits. Nodes talk to each other through [`Peers`].

mod birth;
pub mod cluster;
pub mod group;
pub mod identity;
pub mod machine;
pub mod net;
pub mod peer;
mod raft;
#[cfg(test)]
mod simulated;
mod sled_store;
pub mod solo;
pub mod table;

pub use birth::SlotReset;
pub use cluster::{Cluster, ClusterOptions, Ground, GroupStatus, MakeMachines, StartError};
pub use group::{
    Applied, Group, GroupRef, Groups, Leadership, LogState, ProposeError, ReadError, ReplicaLog,
    TransferError,
};
pub use machine::{ApplyAt, DiskWork, Fatal, SnapshotFile, StateMachine, tags};
pub use peer::{Lane, Message, PeerError, PeerHandler, Peers, PeersRef};
pub use sled_store::SledDb;
pub use table::{MemStore, Rows, RowsReader, TableStore};

/// Decoders of bytes from disk, for the fuzzer.
pub mod decoders {
    use bytes::Bytes;

    /// Decodes a frame of a checkpoint's row file; returns the number of rows.
    pub fn rows(frame: Bytes) -> std::io::Result<usize> {
        let mut rows = 0;
        crate::raft::rows::decode_frame(frame, &mut |_, _| rows += 1)?;
        Ok(rows)
    }

    /// Decodes the body of a log entry that holds commands; returns their number.
    pub fn commands(body: Bytes) -> std::io::Result<usize> {
        Ok(crate::raft::batch::decode(body)?.1.len())
    }
}
