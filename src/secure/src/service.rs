//! What gateways and the admin API call: checks against this node's copy, changes through `m0`.

use std::sync::Arc;

use base::codec;
use consensus::{GroupRef, ProposeError, tags};
use tokio::sync::Semaphore;

use crate::acl::{Actor, Binding, Filter, Operation, ResourceType, Rules};
use crate::audit::Audit;
use crate::command::{AclResult, Command, QuotaChange, Reply, UserChange, UserResult};
use crate::limits::MAX_PASSWORD_CHECKS;
use crate::sasl::{Progress, SaslError, SaslServer};
use crate::scram::{Hash, Verifier};
use crate::store::Store;

/// Why users, entries or quotas could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecureError {
    /// Nothing was changed; try again.
    #[error("the cluster has no leader now")]
    Unavailable,
    /// The change may have been made, or may be yet. Repeating it is harmless.
    #[error("no confirmation in time")]
    Unknown,
    /// The nodes run versions that do not understand each other.
    #[error("the cluster did not understand the change")]
    NotUnderstood,
}

impl From<ProposeError> for SecureError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Unknown { .. } => Self::Unknown,
            ProposeError::NotLeader { .. } | ProposeError::DiskReserve { .. } => Self::Unavailable,
            ProposeError::TooLarge { .. } => Self::NotUnderstood,
        }
    }
}

/// Users, access control and quotas of the cluster. Cloning shares them.
#[derive(Clone)]
pub struct Security {
    store: Store,
    m0: GroupRef,
    rules: Option<Arc<Rules>>,
    audit: Arc<Audit>,
    passwords: Arc<Semaphore>,
}

impl Security {
    /// `rules` is `None` when access is not controlled: everybody may do everything.
    pub fn new(store: Store, m0: GroupRef, rules: Option<Rules>) -> Self {
        Self {
            store,
            m0,
            rules: rules.map(Arc::new),
            audit: Arc::default(),
            passwords: Arc::new(Semaphore::new(MAX_PASSWORD_CHECKS)),
        }
    }

    /// What this node knows.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Counters.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Whether access is controlled.
    pub fn is_controlled(&self) -> bool {
        self.rules.is_some()
    }

    /// Whether the actor may do this to the resource.
    pub fn allows(
        &self,
        actor: &Actor,
        operation: Operation,
        resource: ResourceType,
        name: &str,
    ) -> bool {
        let Some(rules) = &self.rules else { return true };
        self.store.acls().allows(rules, actor, operation, resource, name)
    }

    /// Whether the actor may do this to some resource of the kind.
    pub fn allows_somewhere(
        &self,
        actor: &Actor,
        operation: Operation,
        resource: ResourceType,
    ) -> bool {
        let Some(rules) = &self.rules else { return true };
        self.store.acls().allows_somewhere(rules, actor, operation, resource)
    }

    /// Takes a message of a SASL exchange. Checking a password takes milliseconds and is done off
    /// the runtime's workers, a few at once; the others wait, but not those whose password does not
    /// travel. When dropped, the exchange is lost.
    pub async fn step(
        &self,
        mut server: SaslServer,
        token: bytes::Bytes,
    ) -> (SaslServer, Result<Progress, SaslError>) {
        if !server.checks_a_password() {
            let result = server.step(&self.store, &token);
            return (server, result);
        }
        let Ok(_place) = self.passwords.acquire().await else {
            return (server, Err(SaslError::Hidden("the node stops")));
        };
        let store = self.store.clone();
        let work = tokio::task::spawn_blocking(move || {
            let result = server.step(&store, &token);
            (server, result)
        });
        match work.await {
            Ok(done) => done,
            Err(_) => {
                let server = SaslServer::new(crate::sasl::Mechanism::Plain);
                (server, Err(SaslError::Hidden("the node stops")))
            }
        }
    }

    /// Waits until this node knows everything that was acknowledged anywhere.
    pub async fn fresh(&self) -> Result<(), SecureError> {
        self.m0.read_barrier().await.map_err(|_| SecureError::Unavailable)
    }

    async fn propose(&self, command: &Command) -> Result<Reply, SecureError> {
        let command = codec::try_encode(command).map_err(|_| SecureError::NotUnderstood)?;
        let done = self.m0.propose(tags::SECURITY, command.into()).await?;
        // What was changed here is seen here. It stands either way.
        let _ = self.m0.read_barrier().await;
        codec::decode(&done.reply).map_err(|_| SecureError::NotUnderstood)
    }

    async fn users(&self, command: Command) -> Result<Vec<UserResult>, SecureError> {
        match self.propose(&command).await? {
            Reply::Users(results) => Ok(results),
            Reply::Acls(_) | Reply::Removed(_) | Reply::Quotas(_) => {
                Err(SecureError::NotUnderstood)
            }
        }
    }

    /// Makes the user with this password unless there is one of that name.
    pub async fn ensure_user(&self, name: &str, password: &str) -> Result<(), SecureError> {
        if self.store.knows(name) {
            return Ok(());
        }
        let verifiers = Hash::ALL.map(|hash| (hash, Verifier::of_password(hash, password))).into();
        let name = name.to_owned();
        self.users(Command::EnsureUser { name, verifiers }).await.map(drop)
    }

    /// Changes verifiers; one result for each.
    pub async fn alter_users(
        &self,
        changes: Vec<UserChange>,
    ) -> Result<Vec<UserResult>, SecureError> {
        self.users(Command::AlterUsers { changes }).await
    }

    /// Removes a user.
    pub async fn delete_user(&self, name: &str) -> Result<UserResult, SecureError> {
        let results = self.users(Command::DeleteUser { name: name.to_owned() }).await?;
        results.first().copied().ok_or(SecureError::NotUnderstood)
    }

    /// Adds entries; one result for each.
    pub async fn create_acls(&self, entries: Vec<Binding>) -> Result<Vec<AclResult>, SecureError> {
        match self.propose(&Command::CreateAcls { entries }).await? {
            Reply::Acls(results) => Ok(results),
            Reply::Users(_) | Reply::Removed(_) | Reply::Quotas(_) => {
                Err(SecureError::NotUnderstood)
            }
        }
    }

    /// Removes entries; what each filter removed.
    pub async fn delete_acls(
        &self,
        filters: Vec<Filter>,
    ) -> Result<Vec<Vec<Binding>>, SecureError> {
        match self.propose(&Command::DeleteAcls { filters }).await? {
            Reply::Removed(removed) => Ok(removed),
            Reply::Users(_) | Reply::Acls(_) | Reply::Quotas(_) => Err(SecureError::NotUnderstood),
        }
    }

    /// Changes quotas; one result for each.
    pub async fn alter_quotas(
        &self,
        changes: Vec<QuotaChange>,
    ) -> Result<Vec<AclResult>, SecureError> {
        match self.propose(&Command::AlterQuotas { changes }).await? {
            Reply::Quotas(results) => Ok(results),
            Reply::Users(_) | Reply::Acls(_) | Reply::Removed(_) => Err(SecureError::NotUnderstood),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::{EVERYBODY, PatternFilter, PatternType, Permission, WILDCARD};
    use crate::limits::MAX_TOLD_BYTES;
    use crate::quota::{Entity, PRODUCER_BYTE_RATE, Who};
    use crate::sasl::Mechanism;
    use base::GroupId;
    use consensus::Rows;
    use consensus::solo::SoloGroup;
    use std::collections::BTreeMap;

    fn start(rules: Option<Rules>) -> (Security, Arc<SoloGroup>) {
        let store = Store::default();
        let group = SoloGroup::new(GroupId::M0, vec![(tags::SECURITY, store.machine_m0())]);
        (Security::new(store, group.clone(), rules), group)
    }

    fn entry(name: &str) -> Binding {
        Binding {
            resource: ResourceType::Topic,
            pattern: PatternType::Literal,
            name: name.to_owned(),
            principal: EVERYBODY.to_owned(),
            host: WILDCARD.to_owned(),
            operation: Operation::Read,
            permission: Permission::Allow,
        }
    }

    fn actor() -> Actor {
        Actor { principal: "User:a".to_owned(), host: "127.0.0.1".to_owned() }
    }

    #[tokio::test]
    async fn users_are_made_once_changed_and_removed() {
        let (security, _) = start(None);
        security.ensure_user("admin", "one").await.unwrap();
        security.ensure_user("admin", "two").await.unwrap();
        let try_password = async |password: &str| {
            let token = format!("\0admin\0{password}").into_bytes().into();
            security.step(SaslServer::new(Mechanism::Plain), token).await.1.is_ok()
        };
        assert!(try_password("one").await && !try_password("two").await);
        let name = || "admin".to_owned();
        let verifier = Verifier::of_password(Hash::Sha256, "three");
        let set = UserChange::Set { name: name(), hash: Hash::Sha256, verifier };
        let remove = |hash| UserChange::Remove { name: name(), hash };
        let changes = vec![set, remove(Hash::Sha512), remove(Hash::Sha512)];
        let results = security.alter_users(changes).await.unwrap();
        assert_eq!(results, [UserResult::Done, UserResult::Done, UserResult::NotFound]);
        assert!(try_password("three").await && !try_password("one").await);
        // The verifier of the other hash is that of an old password now.
        let verifier = Verifier::of_password(Hash::Sha512, "four");
        let set = UserChange::Set { name: name(), hash: Hash::Sha512, verifier };
        security.alter_users(vec![set]).await.unwrap();
        assert!(try_password("four").await && !try_password("three").await);
        security.alter_users(vec![remove(Hash::Sha512)]).await.unwrap();
        assert!(try_password("three").await && !try_password("four").await);
        assert_eq!(security.store().users()["admin"], [(Hash::Sha256, 4096)]);
        assert_eq!(security.delete_user("admin").await, Ok(UserResult::Done));
        assert_eq!(security.delete_user("admin").await, Ok(UserResult::NotFound));
        assert!(!try_password("three").await);
    }

    #[tokio::test]
    async fn entries_decide_and_go_by_filter() {
        let (security, _) = start(Some(Rules::default()));
        let may =
            |topic: &str| security.allows(&actor(), Operation::Read, ResourceType::Topic, topic);
        assert!(!may("a"));
        let created = security.create_acls(vec![entry("a"), entry("b"), entry("a")]).await.unwrap();
        assert_eq!(created, [AclResult::Done; 3]);
        assert!(may("a") && may("b"));
        let filter = Filter {
            resource: None,
            pattern: PatternFilter::Any,
            name: Some("a".to_owned()),
            principal: None,
            host: None,
            operation: None,
            permission: None,
        };
        let removed = security.delete_acls(vec![filter.clone(), filter]).await.unwrap();
        assert_eq!(removed, [vec![entry("a")], vec![entry("a")]]);
        assert!(!may("a") && may("b"));
    }

    #[tokio::test]
    async fn an_answer_tells_of_no_more_entries_than_it_has_room_for() {
        let (security, _) = start(Some(Rules::default()));
        let entries = |from: usize| (from..from + 1000).map(|n| entry(&format!("{n:01000}")));
        for from in [0, 1000] {
            security.create_acls(entries(from).collect()).await.unwrap();
        }
        let every = Filter {
            resource: None,
            pattern: PatternFilter::Any,
            name: None,
            principal: None,
            host: None,
            operation: None,
            permission: None,
        };
        let removed = security.delete_acls(vec![every.clone(); 10]).await.unwrap();
        let told: Vec<usize> = removed.iter().map(Vec::len).collect();
        assert_eq!((told[0], told.len()), (2000, 10));
        let bytes = told.iter().sum::<usize>() * 1000;
        assert!((MAX_TOLD_BYTES / 2..MAX_TOLD_BYTES).contains(&bytes), "{bytes}");
        let left = security.delete_acls(vec![every]).await.unwrap();
        assert_eq!(left, [vec![]], "all are gone, told or not");
    }

    #[tokio::test]
    async fn a_machine_restores_what_it_had() {
        let (security, group) = start(Some(Rules::default()));
        security.ensure_user("u", "p").await.unwrap();
        security.create_acls(vec![entry("a")]).await.unwrap();
        let entity = Entity { user: Some(Who::Default), ..Entity::default() };
        let ops = |value| vec![(PRODUCER_BYTE_RATE.to_owned(), value)];
        let gone = Entity { client: Some(Who::Default), ..Entity::default() };
        let changes = vec![(entity.clone(), ops(Some(5.0))), (gone.clone(), ops(Some(6.0)))];
        security.alter_quotas(changes).await.unwrap();
        security.alter_quotas(vec![(gone, ops(None))]).await.unwrap();
        let reader = group.reader(tags::SECURITY);
        let rows: BTreeMap<Vec<u8>, bytes::Bytes> =
            reader.scan(b"", None, 100).unwrap().into_iter().collect();
        let (store, image) = (Store::default(), consensus::MemStore::default());
        let mut pending = BTreeMap::new();
        let mut all = Rows::new(&image, &mut pending, tags::SECURITY);
        rows.iter().for_each(|(key, value)| all.put(key, value.clone()));
        store.machine_m0().restore(&all).unwrap();
        assert_eq!(store.users(), security.store().users());
        assert_eq!(store.verifier("u", Hash::Sha512), security.store().verifier("u", Hash::Sha512));
        assert_eq!(store.acls(), security.store().acls());
        assert_eq!(store.quotas(), security.store().quotas());
        assert_eq!(store.quotas().0.keys().collect::<Vec<_>>(), [&entity]);
    }
}
