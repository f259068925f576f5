//! Replicated state machines: the only crate that knows openraft.
//!
//! A service implements [`StateMachine`] and proposes commands through a [`Group`]. Everything
//! else (election, replication, the WAL, checkpoints, snapshots, tables) happens behind these
//! two traits. Nodes talk to each other through [`Peers`].

pub mod group;
pub mod machine;
pub mod peer;
pub mod solo;
pub mod table;

pub use group::{Applied, Group, GroupRef, Groups, Leadership, ProposeError, ReadError};
pub use machine::{ApplyAt, Fatal, SnapshotFile, StateMachine, tags};
pub use peer::{Lane, Message, PeerError, PeerHandler, Peers, PeersRef};
pub use table::{MemStore, Rows, RowsReader, TableStore};
