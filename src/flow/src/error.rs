//! What can go wrong in the flow, by what its user can do.

/// Errors of the flow service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// Fix the declaration.
    #[error("{0}")]
    Invalid(String),
    /// No pipeline has this name.
    #[error("no pipeline {0:?}")]
    NotFound(String),
    /// Try again: a group has no leader, or a disk is nearly full.
    #[error("{0}")]
    Unavailable(String),
}
