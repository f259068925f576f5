//! Users, entries and quotas as this node has applied them, for readers.

use std::collections::BTreeMap;
use std::sync::Arc;

use consensus::StateMachine;
use parking_lot::RwLock;

use crate::acl::AclTable;
use crate::command::Verifiers;
use crate::machine::Machine;
use crate::quota::QuotaTable;
use crate::scram::{Hash, Verifier};

/// What is kept of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) verifiers: Verifiers,
    /// Whose verifier was set last by itself: a password that PLAIN brings is compared with it.
    pub(crate) newest: Option<Hash>,
}

#[derive(Default)]
struct Inner {
    users: RwLock<BTreeMap<String, User>>,
    acls: RwLock<Arc<AclTable>>,
    quotas: RwLock<Arc<QuotaTable>>,
}

/// What the machine has applied. Cloning shares it.
#[derive(Clone, Default)]
pub struct Store(Arc<Inner>);

impl Store {
    /// The machine that fills this store, for the group `m0` and the tag `SECURITY`.
    pub fn machine_m0(&self) -> Box<dyn StateMachine> {
        Box::new(Machine::new(self.clone()))
    }

    /// A user's verifier for a hash.
    pub fn verifier(&self, user: &str, hash: Hash) -> Option<Verifier> {
        self.0.users.read().get(user)?.verifiers.get(&hash).cloned()
    }

    /// The verifier that a user's password is compared with: the one that was set last, so that no
    /// old password is good for what knows no hash.
    pub fn newest_verifier(&self, user: &str) -> Option<(Hash, Verifier)> {
        let users = self.0.users.read();
        let User { verifiers, newest } = users.get(user)?;
        let newest = newest.and_then(|hash| verifiers.get_key_value(&hash));
        newest.or_else(|| verifiers.iter().next()).map(|(hash, verifier)| (*hash, verifier.clone()))
    }

    /// Every user with the hashes and iterations of the verifiers.
    pub fn users(&self) -> BTreeMap<String, Vec<(Hash, u32)>> {
        let users = self.0.users.read();
        let shown =
            |user: &User| user.verifiers.iter().map(|(h, v)| (*h, v.iterations())).collect();
        users.iter().map(|(name, user)| (name.clone(), shown(user))).collect()
    }

    /// All access control entries.
    pub fn acls(&self) -> Arc<AclTable> {
        self.0.acls.read().clone()
    }

    /// All quotas.
    pub fn quotas(&self) -> Arc<QuotaTable> {
        self.0.quotas.read().clone()
    }

    /// Whether there is a user of this name.
    pub(crate) fn knows(&self, user: &str) -> bool {
        self.0.users.read().contains_key(user)
    }

    pub(crate) fn user(&self, user: &str) -> Option<User> {
        self.0.users.read().get(user).cloned()
    }

    pub(crate) fn user_count(&self) -> usize {
        self.0.users.read().len()
    }

    /// Keeps a user; one without verifiers is forgotten.
    pub(crate) fn put_user(&self, name: &str, user: User) {
        let mut users = self.0.users.write();
        if user.verifiers.is_empty() {
            users.remove(name);
        } else {
            users.insert(name.to_owned(), user);
        }
    }

    /// All users at once: who logs in meanwhile finds those of before or these.
    pub(crate) fn set_users(&self, users: BTreeMap<String, User>) {
        *self.0.users.write() = users;
    }

    pub(crate) fn set_acls(&self, table: AclTable) {
        *self.0.acls.write() = Arc::new(table);
    }

    pub(crate) fn set_quotas(&self, table: QuotaTable) {
        *self.0.quotas.write() = Arc::new(table);
    }
}
