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

#[derive(Default)]
struct Inner {
    users: RwLock<BTreeMap<String, Verifiers>>,
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
        self.0.users.read().get(user)?.get(&hash).cloned()
    }

    /// Every user with the hashes and iterations of the verifiers.
    pub fn users(&self) -> BTreeMap<String, Vec<(Hash, u32)>> {
        let users = self.0.users.read();
        let shown = |v: &Verifiers| v.iter().map(|(h, v)| (*h, v.iterations())).collect();
        users.iter().map(|(name, verifiers)| (name.clone(), shown(verifiers))).collect()
    }

    /// All access control entries.
    pub fn acls(&self) -> Arc<AclTable> {
        self.0.acls.read().clone()
    }

    /// All quotas.
    pub fn quotas(&self) -> Arc<QuotaTable> {
        self.0.quotas.read().clone()
    }

    pub(crate) fn verifiers(&self, user: &str) -> Option<Verifiers> {
        self.0.users.read().get(user).cloned()
    }

    pub(crate) fn user_count(&self) -> usize {
        self.0.users.read().len()
    }

    pub(crate) fn put_user(&self, name: &str, verifiers: Verifiers) {
        let mut users = self.0.users.write();
        if verifiers.is_empty() {
            users.remove(name);
        } else {
            users.insert(name.to_owned(), verifiers);
        }
    }

    pub(crate) fn clear_users(&self) {
        self.0.users.write().clear();
    }

    pub(crate) fn set_acls(&self, table: AclTable) {
        *self.0.acls.write() = Arc::new(table);
    }

    pub(crate) fn set_quotas(&self, table: QuotaTable) {
        *self.0.quotas.write() = Arc::new(table);
    }
}
