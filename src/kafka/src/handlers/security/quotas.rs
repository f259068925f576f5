//! Client quotas.

use std::collections::BTreeSet;
use std::sync::Arc;

use secure::limits::{MAX_CHANGES, MAX_NAME};
use secure::quota::{self, BadQuota, Entity, Who};
use secure::{AclResult, QuotaChange};

use super::code_of;
use crate::codec::messages::*;
use crate::errors;
use crate::gateway::Shared;

const USER: &str = "user";
const CLIENT: &str = "client-id";
const IP: &str = "ip";

fn parts(entity: &Entity) -> Vec<QuotaEntity> {
    let parts = [(USER, &entity.user), (CLIENT, &entity.client), (IP, &entity.ip)];
    let part = |(kind, who): (&str, &Option<Who>)| {
        let name = who.as_ref()?.name().map(ToOwned::to_owned);
        Some(QuotaEntity { entity_type: kind.to_owned(), entity_name: name })
    };
    parts.into_iter().filter_map(part).collect()
}

fn entity_of(parts: &[QuotaEntity]) -> Result<Entity, BadQuota> {
    let mut entity = Entity::default();
    for part in parts {
        let slot = match part.entity_type.as_str() {
            USER => &mut entity.user,
            CLIENT => &mut entity.client,
            IP => &mut entity.ip,
            other => return Err(BadQuota(format!("Unhandled client quota entity type: {other}"))),
        };
        if part.entity_name.as_ref().is_some_and(|name| name.len() > MAX_NAME) {
            return Err(BadQuota(format!("a name has more than {MAX_NAME} bytes")));
        }
        if slot.replace(Who::of(part.entity_name.clone())).is_some() {
            let text = "Invalid client quota entity, duplicate entity entry ";
            return Err(BadQuota(format!("{text}{}", part.entity_type)));
        }
    }
    quota::validate_entity(&entity)?;
    Ok(entity)
}

/// What a component of a filter wants of an entity's part.
enum Wanted {
    Exactly(Who),
    AnyName,
}

fn wanted_of(component: &QuotaComponent) -> Result<Wanted, String> {
    match (component.match_type, &component._match) {
        (0, Some(name)) => Ok(Wanted::Exactly(Who::Named(name.clone()))),
        (0, None) => Err("Request specified MATCH_TYPE_EXACT, but set match string to null".into()),
        (1, None) => Ok(Wanted::Exactly(Who::Default)),
        (2, None) => Ok(Wanted::AnyName),
        (1 | 2, Some(_)) => Err("the match string must be null with this match type".into()),
        (other, _) => Err(format!("Unknown match type {other}")),
    }
}

/// Entities that have every part asked for, and with `strict` no other.
fn filter(request: &DescribeClientQuotasRequest) -> Result<impl Fn(&Entity) -> bool, String> {
    let mut wanted: Vec<(String, Wanted)> = Vec::new();
    for component in &request.components {
        let kind = component.entity_type.clone();
        if ![USER, CLIENT, IP].contains(&kind.as_str()) {
            return Err(format!("Custom entity type '{kind}' not supported"));
        }
        if wanted.iter().any(|(known, _)| *known == kind) {
            return Err(format!("Duplicate filter component entity type {kind}"));
        }
        wanted.push((kind, wanted_of(component)?));
    }
    let has = |kind: &str| wanted.iter().any(|(known, _)| known == kind);
    if has(IP) && (has(USER) || has(CLIENT)) {
        return Err("Invalid entity filter component combination, IP filter component should not \
                    be used with User or ClientId filter component"
            .to_owned());
    }
    let strict = request.strict;
    Ok(move |entity: &Entity| {
        let parts = [(USER, &entity.user), (CLIENT, &entity.client), (IP, &entity.ip)];
        parts.into_iter().all(|(kind, who)| {
            let wanted = wanted.iter().find(|(known, _)| known == kind).map(|(_, w)| w);
            match (wanted, who) {
                (Some(Wanted::Exactly(name)), who) => who.as_ref() == Some(name),
                (Some(Wanted::AnyName), who) => who.is_some(),
                (None, Some(_)) => !strict,
                (None, None) => true,
            }
        })
    })
}

pub(crate) async fn describe_quotas(
    shared: &Arc<Shared>,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let failed = |error_code, text: String| DescribeClientQuotasResponse {
        error_code,
        error_message: Some(text),
        ..Default::default()
    };
    let chosen = match filter(&request) {
        Ok(chosen) => chosen,
        Err(text) => return failed(errors::INVALID_REQUEST, text),
    };
    let security = &shared.backend.security;
    if let Err(error) = security.fresh().await {
        return failed(code_of(&error), error.to_string());
    }
    let quotas = security.store().quotas();
    let entries = quotas.0.iter().filter(|(entity, _)| chosen(entity)).map(|(entity, values)| {
        let value =
            |(key, value): (&String, &f64)| QuotaValue { key: key.clone(), value: (*value).into() };
        QuotaEntry { entity: parts(entity), values: values.iter().map(value).collect() }
    });
    DescribeClientQuotasResponse { entries: Some(entries.collect()), ..Default::default() }
}

/// The change that an entry asks for, checked as Kafka does and in its words.
fn change_of(entry: &AlterQuotaEntry) -> Result<QuotaChange, BadQuota> {
    let entity = entity_of(&entry.entity)?;
    let mut keys = BTreeSet::new();
    let mut ops = Vec::new();
    for op in &entry.ops {
        if !keys.insert(&op.key) {
            return Err(BadQuota(format!("Duplicate quota key {}", op.key)));
        }
        let value = (!op.remove).then(|| op.value.get());
        if let Some(value) = value {
            quota::validate(&entity, &op.key, value)?;
        }
        ops.push((op.key.clone(), value));
    }
    Ok((entity, ops))
}

pub(crate) async fn alter_quotas(
    shared: &Arc<Shared>,
    request: AlterClientQuotasRequest,
) -> AlterClientQuotasResponse {
    let mut seen = BTreeSet::new();
    let too_many = request.entries.len() > MAX_CHANGES;
    let changes: Vec<Result<QuotaChange, BadQuota>> = request
        .entries
        .iter()
        .map(|entry| {
            if too_many {
                return Err(BadQuota(format!("more than {MAX_CHANGES} changes in one request")));
            }
            let change = change_of(entry)?;
            if !seen.insert(change.0.clone()) {
                return Err(BadQuota("Ignoring duplicate entity".to_owned()));
            }
            Ok(change)
        })
        .collect();
    let valid: Vec<QuotaChange> = changes.iter().flatten().cloned().collect();
    let done = match valid.is_empty() || request.validate_only {
        true => Ok(vec![AclResult::Done; valid.len()]),
        false => shared.backend.security.alter_quotas(valid).await,
    };
    let (done, failure) = match done {
        Ok(done) => (done, None),
        Err(error) => (Vec::new(), Some((code_of(&error), error.to_string()))),
    };
    let mut done = done.into_iter();
    let entries = request.entries.into_iter().zip(changes).map(|(entry, change)| {
        let (error_code, error_message) = match (change, &failure) {
            (Err(bad), _) => (errors::INVALID_REQUEST, Some(bad.0)),
            (Ok(_), Some((code, text))) => (*code, Some(text.clone())),
            (Ok(_), None) => match done.next() {
                Some(AclResult::Done) => (errors::NONE, None),
                _ => (errors::INVALID_REQUEST, Some("too many quotas".to_owned())),
            },
        };
        AlterQuotaResult { error_code, error_message, entity: entry.entity }
    });
    AlterClientQuotasResponse { entries: entries.collect(), ..Default::default() }
}
