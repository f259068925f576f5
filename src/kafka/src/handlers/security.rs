//! Access control entries, SCRAM credentials, client quotas; and SASL requests at the wrong time.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use secure::acl::{
    Binding, CLUSTER, Filter, Operation, PatternFilter, PatternType, Permission, ResourceType,
};
use secure::limits::{MAX_CHANGES, MAX_NAME};
use secure::scram::{BadVerifier, Hash, Verifier};
use secure::{AclResult, SecureError, UserChange, UserResult};

use crate::codec::messages::*;
use crate::errors::{self, Code};
use crate::gateway::Shared;

mod quotas;
pub(super) use quotas::{alter_quotas, describe_quotas};

/// After authentication, or where none is asked.
pub(super) fn unexpected_handshake() -> SaslHandshakeResponse {
    SaslHandshakeResponse { error_code: errors::ILLEGAL_SASL_STATE, ..Default::default() }
}

/// After authentication, or where none is asked.
pub(super) fn unexpected_token() -> SaslAuthenticateResponse {
    let text = "SaslAuthenticate request received after successful authentication";
    SaslAuthenticateResponse {
        error_code: errors::ILLEGAL_SASL_STATE,
        error_message: Some(text.to_owned()),
        ..Default::default()
    }
}

fn code_of(error: &SecureError) -> Code {
    match error {
        SecureError::Unavailable | SecureError::Unknown => errors::REQUEST_TIMED_OUT,
        SecureError::NotUnderstood => errors::UNKNOWN_SERVER_ERROR,
    }
}

const NO_AUTHORIZER: &str = "No Authorizer is configured.";

/// `ANY` of Kafka's enums in filters.
const ANY: i8 = 1;

/// A number of a filter: any, or one that is known.
fn filtered<T>(number: i8, of_number: impl Fn(i8) -> Option<T>) -> Result<Option<T>, ()> {
    if number == ANY { Ok(None) } else { of_number(number).map(Some).ok_or(()) }
}

fn filter_of(filter: DeleteAclsFilter) -> Result<Filter, ()> {
    let pattern = match filter.pattern_type_filter {
        ANY => PatternFilter::Any,
        2 => PatternFilter::Match,
        number => PatternFilter::Only(PatternType::of_number(number).ok_or(())?),
    };
    Ok(Filter {
        resource: filtered(filter.resource_type_filter, ResourceType::of_number)?,
        pattern,
        name: filter.resource_name_filter,
        principal: filter.principal_filter,
        host: filter.host_filter,
        operation: filtered(filter.operation, Operation::of_number)?,
        permission: filtered(filter.permission_type, Permission::of_number)?,
    })
}

const UNKNOWN_ELEMENTS: &str = "Filter contains UNKNOWN elements";

pub(super) async fn describe_acls(
    shared: &Arc<Shared>,
    request: DescribeAclsRequest,
) -> DescribeAclsResponse {
    let failed = |error_code, text: &str| DescribeAclsResponse {
        error_code,
        error_message: Some(text.to_owned()),
        ..Default::default()
    };
    let security = &shared.backend.security;
    if !security.is_controlled() {
        let text = "No Authorizer is configured on the broker";
        return failed(errors::SECURITY_DISABLED, text);
    }
    let filter = filter_of(DeleteAclsFilter {
        resource_type_filter: request.resource_type_filter,
        resource_name_filter: request.resource_name_filter,
        pattern_type_filter: request.pattern_type_filter,
        principal_filter: request.principal_filter,
        host_filter: request.host_filter,
        operation: request.operation,
        permission_type: request.permission_type,
    });
    let Ok(filter) = filter else { return failed(errors::INVALID_REQUEST, UNKNOWN_ELEMENTS) };
    if let Err(error) = security.fresh().await {
        return failed(code_of(&error), &error.to_string());
    }
    let table = security.store().acls();
    let mut resources: BTreeMap<(i8, &str, i8), Vec<AclDescription>> = BTreeMap::new();
    for entry in table.entries().iter().filter(|entry| filter.matches(entry)) {
        let key = (entry.resource.number(), entry.name.as_str(), entry.pattern.number());
        resources.entry(key).or_default().push(AclDescription {
            principal: entry.principal.clone(),
            host: entry.host.clone(),
            operation: entry.operation.number(),
            permission_type: entry.permission.number(),
        });
    }
    let resources = resources.into_iter().map(|((kind, name, pattern), acls)| {
        let resource_name = name.to_owned();
        DescribeAclsResource { resource_type: kind, resource_name, pattern_type: pattern, acls }
    });
    DescribeAclsResponse { resources: resources.collect(), ..Default::default() }
}

/// Kafka's checks, in its words.
fn binding_of(creation: AclCreation) -> Result<Binding, String> {
    let unknown = |what: &str| format!("Invalid {what} UNKNOWN");
    let resource = ResourceType::of_number(creation.resource_type);
    let resource = resource.ok_or_else(|| unknown("resourceType"))?;
    let pattern = PatternType::of_number(creation.resource_pattern_type);
    let pattern = pattern.ok_or_else(|| unknown("patternType"))?;
    let operation = Operation::of_number(creation.operation);
    let operation = operation.ok_or_else(|| unknown("operation"))?;
    let permission = Permission::of_number(creation.permission_type);
    let permission = permission.ok_or_else(|| unknown("permissionType"))?;
    if resource == ResourceType::Cluster && creation.resource_name != CLUSTER {
        return Err(format!("The only valid name for the CLUSTER resource is {CLUSTER}"));
    }
    if creation.resource_name.is_empty() {
        return Err("Invalid empty resource name".to_owned());
    }
    if !creation.principal.contains(':') {
        return Err(format!(
            "Could not parse principal from `{}` (no colon is present separating the principal \
             type from the principal name)",
            creation.principal
        ));
    }
    let texts = [&creation.resource_name, &creation.principal, &creation.host];
    if texts.iter().any(|text| text.len() > MAX_NAME) {
        return Err(format!("a name has more than {MAX_NAME} bytes"));
    }
    Ok(Binding {
        resource,
        pattern,
        name: creation.resource_name,
        principal: creation.principal,
        host: creation.host,
        operation,
        permission,
    })
}

pub(super) async fn create_acls(
    shared: &Arc<Shared>,
    request: CreateAclsRequest,
) -> CreateAclsResponse {
    let failed = |error_code, text: &str| AclCreationResult {
        error_code,
        error_message: Some(text.to_owned()),
    };
    let all = |result: AclCreationResult| CreateAclsResponse {
        results: vec![result; request.creations.len()],
        ..Default::default()
    };
    let security = &shared.backend.security;
    if !security.is_controlled() {
        return all(failed(errors::SECURITY_DISABLED, NO_AUTHORIZER));
    }
    if request.creations.len() > MAX_CHANGES {
        let text = format!("more than {MAX_CHANGES} entries in one request");
        return all(failed(errors::INVALID_REQUEST, &text));
    }
    let bindings: Vec<Result<Binding, String>> =
        request.creations.iter().cloned().map(binding_of).collect();
    let valid: Vec<Binding> = bindings.iter().flatten().cloned().collect();
    let made = match valid.is_empty() {
        true => Ok(Vec::new()),
        false => security.create_acls(valid).await,
    };
    let made = match made {
        Ok(made) => made,
        Err(error) => return all(failed(code_of(&error), &error.to_string())),
    };
    let mut made = made.into_iter();
    let results = bindings.into_iter().map(|binding| match binding.map(|_| made.next()) {
        Ok(Some(AclResult::Done)) => AclCreationResult::default(),
        Ok(_) => failed(errors::INVALID_REQUEST, "too many access control entries"),
        Err(text) => failed(errors::INVALID_REQUEST, &text),
    });
    CreateAclsResponse { results: results.collect(), ..Default::default() }
}

pub(super) async fn delete_acls(
    shared: &Arc<Shared>,
    request: DeleteAclsRequest,
) -> DeleteAclsResponse {
    let failed = |error_code, text: &str| DeleteAclsFilterResult {
        error_code,
        error_message: Some(text.to_owned()),
        ..Default::default()
    };
    let count = request.filters.len();
    let all =
        |result| DeleteAclsResponse { filter_results: vec![result; count], ..Default::default() };
    let security = &shared.backend.security;
    if !security.is_controlled() {
        return all(failed(errors::SECURITY_DISABLED, NO_AUTHORIZER));
    }
    if count > MAX_CHANGES {
        let text = format!("more than {MAX_CHANGES} filters in one request");
        return all(failed(errors::INVALID_REQUEST, &text));
    }
    let filters: Vec<Result<Filter, ()>> = request.filters.into_iter().map(filter_of).collect();
    let valid: Vec<Filter> = filters.iter().flatten().cloned().collect();
    let removed = match valid.is_empty() {
        true => Ok(Vec::new()),
        false => security.delete_acls(valid).await,
    };
    let removed = match removed {
        Ok(removed) => removed,
        Err(error) => return all(failed(code_of(&error), &error.to_string())),
    };
    let mut removed = removed.into_iter();
    let results = filters.into_iter().map(|filter| match filter {
        Err(()) => failed(errors::INVALID_REQUEST, UNKNOWN_ELEMENTS),
        Ok(_) => DeleteAclsFilterResult {
            matching_acls: removed.next().into_iter().flatten().map(matching).collect(),
            ..Default::default()
        },
    });
    DeleteAclsResponse { filter_results: results.collect(), ..Default::default() }
}

fn matching(entry: Binding) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl {
        resource_type: entry.resource.number(),
        resource_name: entry.name,
        pattern_type: entry.pattern.number(),
        principal: entry.principal,
        host: entry.host,
        operation: entry.operation.number(),
        permission_type: entry.permission.number(),
        ..Default::default()
    }
}

pub(super) async fn describe_users(
    shared: &Arc<Shared>,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let security = &shared.backend.security;
    if let Err(error) = security.fresh().await {
        return DescribeUserScramCredentialsResponse {
            error_code: code_of(&error),
            error_message: Some(error.to_string()),
            ..Default::default()
        };
    }
    let users = security.store().users();
    let asked: Vec<String> = match request.users.filter(|users| !users.is_empty()) {
        Some(users) => users.into_iter().map(|user| user.name).collect(),
        None => users.keys().cloned().collect(),
    };
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    asked.iter().for_each(|user| *counts.entry(user).or_default() += 1);
    let failed = |user: &String, error_code, text: &str| DescribeUserScramCredentialsResult {
        user: user.clone(),
        error_code,
        error_message: Some(format!("{text}: {user}")),
        ..Default::default()
    };
    let results = counts.into_iter().map(|(user, count)| match users.get(user) {
        _ if count > 1 => failed(
            user,
            errors::DUPLICATE_RESOURCE,
            "Cannot describe SCRAM credentials for the same user twice in a single request",
        ),
        None => failed(
            user,
            errors::RESOURCE_NOT_FOUND,
            "Attempt to describe a user credential that does not exist",
        ),
        Some(verifiers) => DescribeUserScramCredentialsResult {
            user: user.clone(),
            credential_infos: verifiers
                .iter()
                .map(|(hash, iterations)| CredentialInfo {
                    mechanism: hash.number(),
                    iterations: i32::try_from(*iterations).unwrap_or(i32::MAX),
                })
                .collect(),
            ..Default::default()
        },
    });
    DescribeUserScramCredentialsResponse { results: results.collect(), ..Default::default() }
}

type Refusal = (Code, String);

/// A user's one change in a request.
enum Alteration {
    Remove(ScramCredentialDeletion),
    Set(ScramCredentialUpsertion),
}

impl Alteration {
    fn name(&self) -> &str {
        match self {
            Self::Remove(change) => &change.name,
            Self::Set(change) => &change.name,
        }
    }

    /// Kafka's checks, in its words.
    fn change(self) -> Result<UserChange, Refusal> {
        let (name, number) = match &self {
            Self::Remove(change) => (change.name.clone(), change.mechanism),
            Self::Set(change) => (change.name.clone(), change.mechanism),
        };
        if name.is_empty() {
            let text = "Username must not be empty";
            return Err((errors::UNACCEPTABLE_CREDENTIAL, text.to_owned()));
        }
        if name.len() > MAX_NAME {
            let text = format!("the user's name has more than {MAX_NAME} bytes");
            return Err((errors::UNACCEPTABLE_CREDENTIAL, text));
        }
        let unknown = || (errors::UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism".to_owned());
        let hash = Hash::of_number(number).ok_or_else(unknown)?;
        match self {
            Self::Remove(_) => Ok(UserChange::Remove { name, hash }),
            Self::Set(change) => {
                let iterations = u32::try_from(change.iterations).unwrap_or(0);
                let salt = change.salt.to_vec();
                let verifier = Verifier::of_salted(hash, salt, iterations, &change.salted_password);
                let refused = |e: BadVerifier| (errors::UNACCEPTABLE_CREDENTIAL, e.to_string());
                let verifier = verifier.map_err(refused)?;
                Ok(UserChange::Set { name, hash, verifier })
            }
        }
    }
}

pub(super) async fn alter_users(
    shared: &Arc<Shared>,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let removed = request.deletions.into_iter().map(Alteration::Remove);
    let all: Vec<Alteration> =
        removed.chain(request.upsertions.into_iter().map(Alteration::Set)).collect();
    let mut refused: BTreeMap<String, Refusal> = BTreeMap::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for name in all.iter().map(Alteration::name) {
        if !seen.insert(name.to_owned()) {
            let text = "A user credential cannot be altered twice in the same request";
            refused.insert(name.to_owned(), (errors::DUPLICATE_RESOURCE, text.to_owned()));
        }
    }
    let too_many = all.len() > MAX_CHANGES;
    let mut changes: Vec<(String, UserChange)> = Vec::new();
    for alteration in all {
        let name = alteration.name().to_owned();
        let Entry::Vacant(fine) = refused.entry(name.clone()) else { continue };
        if too_many {
            let text = format!("more than {MAX_CHANGES} changes in one request");
            fine.insert((errors::INVALID_REQUEST, text));
            continue;
        }
        match alteration.change() {
            Ok(change) => changes.push((name, change)),
            Err(refusal) => drop(fine.insert(refusal)),
        }
    }
    let (names, changes): (Vec<String>, Vec<UserChange>) = changes.into_iter().unzip();
    let done = match changes.is_empty() {
        true => Ok(Vec::new()),
        false => shared.backend.security.alter_users(changes).await,
    };
    let results = outcome(names, done).into_iter().chain(refused.into_iter().map(
        |(user, (error_code, text))| AlterUserScramCredentialsResult {
            user,
            error_code,
            error_message: Some(text),
        },
    ));
    AlterUserScramCredentialsResponse { results: results.collect(), ..Default::default() }
}

fn outcome(
    names: Vec<String>,
    done: Result<Vec<UserResult>, SecureError>,
) -> Vec<AlterUserScramCredentialsResult> {
    let result = |user, error_code, text: Option<&str>| AlterUserScramCredentialsResult {
        user,
        error_code,
        error_message: text.map(ToOwned::to_owned),
    };
    match done {
        Err(error) => {
            let (code, text) = (code_of(&error), error.to_string());
            names.into_iter().map(|name| result(name, code, Some(&text))).collect()
        }
        Ok(done) => names
            .into_iter()
            .zip(done)
            .map(|(name, done)| match done {
                UserResult::Done => result(name, errors::NONE, None),
                UserResult::NotFound => result(
                    name,
                    errors::RESOURCE_NOT_FOUND,
                    Some("Attempt to delete a user credential that does not exist"),
                ),
                UserResult::TooMany => {
                    result(name, errors::UNACCEPTABLE_CREDENTIAL, Some("too many users"))
                }
            })
            .collect(),
    }
}
