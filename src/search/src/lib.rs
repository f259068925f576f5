//! The local search engine: mappings, analysis, one Tantivy index per shard, Elasticsearch's
//! query and aggregation model.
//!
//! It knows nothing of replication or HTTP. The `index` crate feeds a [`shard::Shard`] with
//! operations in order and asks [`search`] for one phase of a search at a time; the `elastic`
//! crate renders. Errors are Elasticsearch's own, see [`error::EsError`].

pub mod aggs;
pub mod analysis;
pub mod dates;
pub mod error;
pub mod limits;
pub mod mapping;
pub mod query;
pub mod search;
pub mod shard;

pub use error::{EsError, Result};
