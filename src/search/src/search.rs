//! One search, phase by phase.
//!
//! The coordinating node parses a [`SearchRequest`], sends it to one copy of each shard, which
//! answers [`execute_query_phase`] with a [`ShardTop`]; it [`merge()`]s them, asks the shards that
//! own the winners for [`fetch_phase`], and [`render`]s. Requests, tops and aggregation states are
//! serde types. A shard keeps its searcher between phases in [`Snapshots`].

mod fetch;
mod highlight;
mod merge;
mod phase;
mod request;
mod request_parts;
mod snapshots;
mod sort;
mod source;

pub use fetch::{fetch_phase, stored_fields};
pub use merge::{Merged, MergedHit, ShardCounts, merge, render};
pub use phase::{ShardTop, TopHit, count, execute_query_phase};
pub use request::{SearchRequest, TrackTotal};
pub use request_parts::{FieldFormat, HighlightField, HighlightSpec, IndexLimits, StoredFields};
pub use snapshots::Snapshots;
pub use sort::{SortField, SortKey, SortMode, SortOrder, SortValue};
pub use source::SourceFilter;

pub(crate) use sort::text_fielddata;

#[cfg(test)]
pub(crate) mod tests;
