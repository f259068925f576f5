//! The WebHDFS gateway: the name node's port (9870) and the data node's port (9864), to which
//! CREATE, APPEND, OPEN and GETFILECHECKSUM are sent with a 307.
//!
//! The redirect leads to this same node under the host name the client used, so that nobody is
//! sent to a name he cannot reach. Step two carries no state: its URL may be used again. Both
//! ports understand both steps; a CREATE or APPEND that brings its body at once is not
//! redirected.
//!
//! Errors are Hadoop's `RemoteException` in JSON with its class names, texts and HTTP codes. An
//! operation that Hadoop has and this port has not yet answers `UnsupportedOperationException`.

mod data;
pub mod decoders;
mod error;
mod gateway;
mod handler;
mod json;
pub mod limits;
mod ops;
pub mod params;
#[cfg(test)]
mod tests;

pub use error::Refusal;
pub use gateway::{HdfsConfig, HdfsGateway};
pub use ops::Op;
