//! Commands of the security machine in `m0` and their replies. Enums are append-only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::acl::{Binding, Filter};
use crate::quota::Entity;
use crate::scram::{Hash, Verifier};

/// A quota's values to set, or to remove where `None`.
pub type QuotaChange = (Entity, Vec<(String, Option<f64>)>);

/// Verifiers of a user by hash.
pub(crate) type Verifiers = BTreeMap<Hash, Verifier>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Makes a user that does not exist, and changes none that does.
    EnsureUser { name: String, verifiers: Verifiers },
    /// Sets or removes verifiers; a user without any is gone.
    AlterUsers { changes: Vec<UserChange> },
    /// Removes a user with all verifiers.
    DeleteUser { name: String },
    /// Adds entries; those that exist are kept.
    CreateAcls { entries: Vec<Binding> },
    /// Removes what each filter chooses.
    DeleteAcls { filters: Vec<Filter> },
    /// Sets values, or removes those that are `None`.
    AlterQuotas { changes: Vec<QuotaChange> },
}

/// A change of one verifier of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserChange {
    /// Sets the verifier for a hash.
    Set {
        /// The user.
        name: String,
        /// For which mechanism.
        hash: Hash,
        /// What is kept of the password.
        verifier: Verifier,
    },
    /// Removes it.
    Remove {
        /// The user.
        name: String,
        /// For which mechanism.
        hash: Hash,
    },
}

/// What became of a [`UserChange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserResult {
    /// Done.
    Done,
    /// There is no such user or verifier.
    NotFound,
    /// There are as many users as the cluster takes.
    TooMany,
}

/// What became of an entry that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AclResult {
    /// It is there now.
    Done,
    /// There are as many as the cluster takes.
    TooMany,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Users(Vec<UserResult>),
    Acls(Vec<AclResult>),
    /// What each filter removed.
    Removed(Vec<Vec<Binding>>),
    Quotas(Vec<AclResult>),
}
