//! The machine for users, access control lists and quotas in `m0`.
//!
//! Rows: `U` + name: verifiers; `N` + name: the hash whose verifier was set last, if one was set by
//! itself; `A` + entry: nothing; `Q` + entity: values.

use std::collections::{BTreeMap, BTreeSet};

use base::codec;
use bytes::Bytes;
use consensus::{ApplyAt, Fatal, Rows, StateMachine};

use crate::acl::{AclTable, Binding, Filter};
use crate::command::{AclResult, Command, Reply, UserChange, UserResult};
use crate::limits::{MAX_ACLS, MAX_QUOTAS, MAX_TOLD_BYTES, MAX_USERS};
use crate::quota::{Entity, QuotaTable, Values};
use crate::store::{Store, User};

/// Bytes of an encoded entry beside its three texts, and some more.
const FIXED_BYTES: usize = 64;

pub(crate) struct Machine {
    store: Store,
}

fn key(kind: u8, name: &[u8]) -> Vec<u8> {
    [&[kind], name].concat()
}

fn name_of(row: &[u8]) -> Result<String, Fatal> {
    let name = row.get(1..).and_then(|name| std::str::from_utf8(name).ok());
    name.map(str::to_owned).ok_or_else(|| Fatal("bad key of a user's row".to_owned()))
}

impl Machine {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    fn run(&self, command: Command, rows: &mut Rows<'_>) -> Reply {
        match command {
            Command::EnsureUser { name, verifiers } => {
                let result = if self.store.knows(&name) {
                    UserResult::Done
                } else {
                    self.save_user(&name, User { verifiers, newest: None }, rows)
                };
                Reply::Users(vec![result])
            }
            Command::AlterUsers { changes } => {
                Reply::Users(changes.into_iter().map(|c| self.alter_user(c, rows)).collect())
            }
            Command::DeleteUser { name } => Reply::Users(vec![if self.store.knows(&name) {
                self.save_user(&name, User::default(), rows)
            } else {
                UserResult::NotFound
            }]),
            Command::CreateAcls { entries } => Reply::Acls(self.create_acls(entries, rows)),
            Command::DeleteAcls { filters } => Reply::Removed(self.delete_acls(&filters, rows)),
            Command::AlterQuotas { changes } => {
                let mut table = QuotaTable(self.store.quotas().0.clone());
                let changes = changes.into_iter();
                let results =
                    changes.map(|(entity, ops)| alter_quota(&mut table, entity, ops, rows));
                let results = results.collect();
                self.store.set_quotas(table);
                Reply::Quotas(results)
            }
        }
    }

    fn alter_user(&self, change: UserChange, rows: &mut Rows<'_>) -> UserResult {
        match change {
            UserChange::Set { name, hash, verifier } => {
                let mut user = self.store.user(&name).unwrap_or_default();
                user.verifiers.insert(hash, verifier);
                user.newest = Some(hash);
                self.save_user(&name, user, rows)
            }
            UserChange::Remove { name, hash } => {
                let mut user = self.store.user(&name).unwrap_or_default();
                if user.verifiers.remove(&hash).is_none() {
                    return UserResult::NotFound;
                }
                user.newest = user.newest.filter(|newest| *newest != hash);
                self.save_user(&name, user, rows)
            }
        }
    }

    fn save_user(&self, name: &str, user: User, rows: &mut Rows<'_>) -> UserResult {
        let stays = !user.verifiers.is_empty();
        if stays && !self.store.knows(name) && self.store.user_count() >= MAX_USERS {
            return UserResult::TooMany;
        }
        let row = key(b'U', name.as_bytes());
        if stays {
            rows.put(&row, codec::encode(&user.verifiers));
        } else {
            rows.delete(&row);
        }
        let row = key(b'N', name.as_bytes());
        match user.newest.filter(|_| stays) {
            Some(hash) => rows.put(&row, codec::encode(&hash)),
            None => rows.delete(&row),
        }
        self.store.put_user(name, user);
        UserResult::Done
    }

    fn create_acls(&self, entries: Vec<Binding>, rows: &mut Rows<'_>) -> Vec<AclResult> {
        let mut all = self.store.acls().entries().clone();
        let mut results = Vec::with_capacity(entries.len());
        for entry in entries {
            if all.len() >= MAX_ACLS && !all.contains(&entry) {
                results.push(AclResult::TooMany);
                continue;
            }
            rows.put(&key(b'A', &codec::encode(&entry)), Bytes::new());
            all.insert(entry);
            results.push(AclResult::Done);
        }
        self.store.set_acls(AclTable::new(all));
        results
    }

    /// Returns what each filter removed. What [`MAX_TOLD_BYTES`] has no room for is removed without
    /// being told: an answer that cannot be encoded would end every node.
    fn delete_acls(&self, filters: &[Filter], rows: &mut Rows<'_>) -> Vec<Vec<Binding>> {
        let all = self.store.acls().entries().clone();
        let mut gone: BTreeSet<&Binding> = BTreeSet::new();
        let mut room = MAX_TOLD_BYTES;
        let removed = filters.iter().map(|filter| {
            let mut told = Vec::new();
            for entry in all.iter().filter(|entry| filter.matches(entry)) {
                gone.insert(entry);
                let bytes = FIXED_BYTES + entry.name.len() + entry.principal.len();
                let bytes = bytes + entry.host.len();
                if bytes <= room {
                    room -= bytes;
                    told.push(entry.clone());
                }
            }
            told
        });
        let removed = removed.collect();
        for entry in &gone {
            rows.delete(&key(b'A', &codec::encode(entry)));
        }
        let kept = all.iter().filter(|entry| !gone.contains(entry)).cloned().collect();
        self.store.set_acls(AclTable::new(kept));
        removed
    }
}

fn alter_quota(
    table: &mut QuotaTable,
    entity: Entity,
    ops: Vec<(String, Option<f64>)>,
    rows: &mut Rows<'_>,
) -> AclResult {
    if table.0.len() >= MAX_QUOTAS && !table.0.contains_key(&entity) {
        return AclResult::TooMany;
    }
    let row = key(b'Q', &codec::encode(&entity));
    let mut values: Values = table.0.remove(&entity).unwrap_or_default();
    for (key, value) in ops {
        match value {
            Some(value) => values.insert(key, value),
            None => values.remove(&key),
        };
    }
    if values.is_empty() {
        rows.delete(&row);
    } else {
        rows.put(&row, codec::encode(&values));
        table.0.insert(entity, values);
    }
    AclResult::Done
}

impl StateMachine for Machine {
    fn apply(&mut self, _: &ApplyAt, command: Bytes, rows: &mut Rows<'_>) -> Result<Bytes, Fatal> {
        // What does not decode was proposed by a newer version or is damaged: no reply decodes
        // from nothing, so the proposer sees an error.
        let Ok(command) = codec::decode(&command) else { return Ok(Bytes::new()) };
        Ok(codec::encode(&self.run(command, rows)).into())
    }

    fn restore(&mut self, rows: &Rows<'_>) -> Result<(), Fatal> {
        let mut users = BTreeMap::new();
        for (row, value) in rows.scan(b"U")? {
            let user = User { verifiers: codec::decode(&value)?, newest: None };
            users.insert(name_of(&row)?, user);
        }
        for (row, value) in rows.scan(b"N")? {
            if let Some(user) = users.get_mut(&name_of(&row)?) {
                user.newest = Some(codec::decode(&value)?);
            }
        }
        self.store.set_users(users);
        let mut entries = BTreeSet::new();
        for (row, _) in rows.scan(b"A")? {
            entries.insert(codec::decode(row.get(1..).unwrap_or_default())?);
        }
        self.store.set_acls(AclTable::new(entries));
        let mut table = QuotaTable::default();
        for (row, value) in rows.scan(b"Q")? {
            let entity = codec::decode(row.get(1..).unwrap_or_default())?;
            table.0.insert(entity, codec::decode(&value)?);
        }
        self.store.set_quotas(table);
        Ok(())
    }
}
