//! openraft behind [`crate::Group`]: nothing outside this folder names one of its types.

pub(crate) mod batch;
pub(crate) mod checkpoint;
#[cfg(test)]
mod golden;
pub(crate) mod group;
pub(crate) mod host;
pub(crate) mod leading;
pub(crate) mod network;
pub(crate) mod rows;
pub(crate) mod runtime;
pub(crate) mod serve;
pub(crate) mod silence;
pub(crate) mod snapshot;
pub(crate) mod store;
#[cfg(test)]
mod suite;
pub(crate) mod types;
