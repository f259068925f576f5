//! Client quotas: what is set for whom, and which of it applies to a client.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes of produced records per second and node.
pub const PRODUCER_BYTE_RATE: &str = "producer_byte_rate";
/// Bytes of fetched records per second and node.
pub const CONSUMER_BYTE_RATE: &str = "consumer_byte_rate";
/// Share of a thread's time; kept, not enforced.
pub const REQUEST_PERCENTAGE: &str = "request_percentage";
/// Partition changes per second; kept, not enforced.
pub const CONTROLLER_MUTATION_RATE: &str = "controller_mutation_rate";
/// Connections per second from an address; kept, not enforced.
pub const CONNECTION_CREATION_RATE: &str = "connection_creation_rate";

/// A name, or everybody without a quota of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Who {
    /// `<default>`.
    Default,
    /// This one.
    Named(String),
}

impl Who {
    /// From Kafka's messages, where null is the default.
    pub fn of(name: Option<String>) -> Self {
        name.map_or(Self::Default, Self::Named)
    }

    /// As in Kafka's messages.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Default => None,
            Self::Named(name) => Some(name),
        }
    }
}

/// For whom a quota is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entity {
    /// User, where it is part of the entity.
    pub user: Option<Who>,
    /// Client id, where it is part of the entity.
    pub client: Option<Who>,
    /// Address, where the entity is one.
    pub ip: Option<Who>,
}

/// Values by key.
pub type Values = BTreeMap<String, f64>;

/// All quotas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuotaTable(pub BTreeMap<Entity, Values>);

/// Clients whose traffic is counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// The user; `None` when the quota is for a client id whatever the user.
    pub user: Option<String>,
    /// The client id; `None` when the quota is for a user whatever the client id.
    pub client: Option<String>,
}

impl QuotaTable {
    /// The quota that applies to a client, and with whom it is shared. Most specific first, as in
    /// Kafka: user and client, then user, then client, each before its default.
    pub fn resolve(&self, user: &str, client: &str, key: &str) -> Option<(Bucket, f64)> {
        if self.0.is_empty() {
            return None;
        }
        let users = [Who::Named(user.to_owned()), Who::Default];
        let clients = [Who::Named(client.to_owned()), Who::Default];
        let mut order = Vec::with_capacity(8);
        for user in users {
            for client in &clients {
                order.push((Some(user.clone()), Some(client.clone())));
            }
            order.push((Some(user), None));
        }
        order.extend(clients.map(|client| (None, Some(client))));
        order.into_iter().find_map(|(for_user, for_client)| {
            let bucket = Bucket {
                user: for_user.as_ref().map(|_| user.to_owned()),
                client: for_client.as_ref().map(|_| client.to_owned()),
            };
            let entity = Entity { user: for_user, client: for_client, ip: None };
            Some((bucket, *self.0.get(&entity)?.get(key)?))
        })
    }
}

/// What is wrong with a change of a quota; the texts are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadQuota(pub String);

/// Whether the entity may have this value for the key.
pub fn validate(entity: &Entity, key: &str, value: f64) -> Result<(), BadQuota> {
    let keys: &[&str] = if entity.ip.is_some() {
        &[CONNECTION_CREATION_RATE]
    } else {
        &[PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, REQUEST_PERCENTAGE, CONTROLLER_MUTATION_RATE]
    };
    let fail = |text: String| Err(BadQuota(text));
    if !keys.contains(&key) {
        return fail(format!("Invalid configuration key {key}"));
    }
    // Written so that NaN is refused too.
    if !(value > 0.0 && value.is_finite()) {
        return fail(format!("Quota {key} must be greater than 0"));
    }
    let whole = key != REQUEST_PERCENTAGE && key != CONTROLLER_MUTATION_RATE;
    if whole && (value % 1.0).abs() > 1e-6 {
        return fail(format!("{key} cannot be a fractional value."));
    }
    let (limit, kind) = if key == CONNECTION_CREATION_RATE {
        (f64::from(i32::MAX), "an INT.")
    } else {
        (9_223_372_036_854_775_807.0, "a LONG.")
    };
    if whole && value > limit {
        return fail(format!("Proposed value for {key} is too large for {kind}"));
    }
    Ok(())
}

/// Whether the combination of names makes an entity.
pub fn validate_entity(entity: &Entity) -> Result<(), BadQuota> {
    let fail = |text: &str| Err(BadQuota(text.to_owned()));
    let parts = [("user", &entity.user), ("client-id", &entity.client), ("ip", &entity.ip)];
    if parts.iter().all(|(_, part)| part.is_none()) {
        return fail("Invalid empty client quota entity");
    }
    for (kind, part) in parts {
        if part.as_ref().and_then(Who::name).is_some_and(str::is_empty) {
            return Err(BadQuota(format!("Empty {kind} not supported")));
        }
    }
    if let Some(ip) = &entity.ip {
        if entity.user.is_some() || entity.client.is_some() {
            return fail(
                "Invalid quota entity combination, IP entity shouldnot be combined with User or \
                 ClientId",
            );
        }
        if let Some(name) = ip.name().filter(|name| name.parse::<std::net::IpAddr>().is_err()) {
            return Err(BadQuota(format!("{name} is not a valid IP or resolvable host.")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(user: Option<&str>, client: Option<&str>) -> Entity {
        let who = |name: &str| match name {
            "" => Who::Default,
            name => Who::Named(name.to_owned()),
        };
        Entity { user: user.map(who), client: client.map(who), ip: None }
    }

    #[test]
    fn the_most_specific_quota_applies() {
        // Most specific first; "" is the default.
        let order = [
            entity(Some("u"), Some("c")),
            entity(Some("u"), Some("")),
            entity(Some("u"), None),
            entity(Some(""), Some("c")),
            entity(Some(""), Some("")),
            entity(Some(""), None),
            entity(None, Some("c")),
            entity(None, Some("")),
        ];
        for from in 0..order.len() {
            let mut table = QuotaTable::default();
            for (value, entity) in (1u8..).zip(&order).skip(from) {
                let values = [(PRODUCER_BYTE_RATE.to_owned(), f64::from(value))].into();
                table.0.insert(entity.clone(), values);
            }
            let (bucket, value) = table.resolve("u", "c", PRODUCER_BYTE_RATE).unwrap();
            assert_eq!(value, f64::from(u8::try_from(from + 1).unwrap()));
            assert_eq!(bucket.user.is_some(), order[from].user.is_some());
            assert_eq!(bucket.client.is_some(), order[from].client.is_some());
            assert_eq!(table.resolve("u", "c", CONSUMER_BYTE_RATE), None);
        }
    }

    #[test]
    fn wrong_values_and_entities_are_refused_in_kafkas_words() {
        let user = entity(Some("u"), None);
        let bad = |key, value| validate(&user, key, value).unwrap_err().0;
        assert_eq!(bad("speed", 1.0), "Invalid configuration key speed");
        assert_eq!(bad(PRODUCER_BYTE_RATE, 0.0), "Quota producer_byte_rate must be greater than 0");
        let text = "producer_byte_rate cannot be a fractional value.";
        assert_eq!(bad(PRODUCER_BYTE_RATE, 1.5), text);
        assert!(bad(REQUEST_PERCENTAGE, f64::NAN).ends_with("greater than 0"));
        assert_eq!(validate(&user, REQUEST_PERCENTAGE, 12.5), Ok(()));
        let ip = Entity { ip: Some(Who::Named("10.0.0.1".to_owned())), ..Entity::default() };
        assert_eq!(validate_entity(&ip), Ok(()));
        assert_eq!(validate(&ip, CONNECTION_CREATION_RATE, 5.0), Ok(()));
        assert!(validate(&ip, PRODUCER_BYTE_RATE, 5.0).is_err());
        let both = Entity { user: Some(Who::Default), ..ip };
        assert!(validate_entity(&both).is_err());
        assert!(validate_entity(&Entity::default()).is_err());
        assert!(validate_entity(&entity(Some("u"), Some(""))).is_ok());
    }
}
