//! The Elasticsearch REST port.
//!
//! It translates: HTTP requests into calls of [`index::IndexService`] and the `search` crate,
//! and their results into the JSON and text tables of Elasticsearch 7.10, with the media types
//! and headers that newer clients insist on. It keeps no state of its own.
//!
//! A request goes [`server`] → [`routes`] → `dispatch` → one of the `*_api` modules.

mod active;
pub mod app;
pub mod bulk;
mod bulk_api;
mod cat_api;
mod cluster_api;
mod dispatch;
mod docs_api;
pub mod filter;
mod get_api;
mod indices_api;
pub mod limits;
mod not_here;
pub mod params;
pub mod reply;
pub mod routes;
mod scope;
mod search_api;
pub mod server;
pub mod source;
pub mod table;
mod takes;

pub use app::{App, ClusterFacts, NodeFacts};
pub use server::{ElasticGateway, Limits};

#[cfg(test)]
mod tests;
