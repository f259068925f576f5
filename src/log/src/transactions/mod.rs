//! Transactions (KIP-98), with the epoch bump of KIP-890 at the end of each.
//!
//! The coordinator of a transactional id is the data group that the id hashes to, its leader
//! acts. Everything is decided in apply: [`decide`] takes the id's row and a command and gives
//! the next row and a reply, so that no decision is lost with a leader and any node may ask. The
//! runtime (`service::transactions`) acts on what was decided: it writes the markers of
//! transactions that are prepared, and ends those that take too long.
//!
//! ```text
//! Empty ──► Ongoing ──► PrepareCommit / PrepareAbort ──► CompleteCommit / CompleteAbort
//!              ▲                                                     │
//!              └─────────────────────────────────────────────────────┘
//! ```
//!
//! Each transaction of an id has a **number** that only grows. A partition takes a transactional
//! batch only into a transaction that is open there, or with the number of one that its
//! coordinator confirmed and that no marker has ended there: a batch that comes late can neither
//! fall into a later transaction nor open one that nobody will end. Markers carry the number too,
//! so that writing them again changes nothing.
//!
//! Invariants: a transaction is decided once; its markers reach every partition and group that
//! was added before it completes, except those of topics that are gone; the last stable offset
//! is the first offset of the oldest transaction open in a partition; offsets committed in a
//! transaction are seen when its marker is applied, and never otherwise.

mod apply;
mod command;
mod decide;
mod held;
pub(crate) mod marker;
pub(crate) mod offsets;
mod row;

pub(crate) use apply::{ActiveTxns, apply, restore};
pub(crate) use command::{IdCommand, TxnCommand, TxnError, TxnReply};
pub use command::{ProducerEpoch, TxnVersion};
pub use held::AbortedTxn;
pub(crate) use held::{Claim, PartTxns};
pub(crate) use marker::Marker;
pub use marker::Outcome;
pub use row::TxnState;
pub(crate) use row::{PREFIX, Txn, TxnRow, key};

#[cfg(test)]
mod tests;
