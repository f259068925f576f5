//! Merging an update into a mapping.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Field, Mapping, Node, Object, parse};
use crate::error::{EsError, Result};

/// Parameters that may change on a field that exists.
const UPDATABLE: &[&str] = &[
    "ignore_above",
    "search_analyzer",
    "search_quote_analyzer",
    "fielddata",
    "eager_global_ordinals",
    "boost",
    "ignore_malformed",
    "copy_to",
    "coerce",
    "meta",
    "split_queries_on_whitespace",
    "path",
];

pub(super) fn merge(base: &Mapping, update: &Mapping) -> Result<Mapping> {
    let mut out = base.clone();
    object(&mut out.root, &update.root, "")?;
    out.settings.extend(update.settings.clone());
    parse::check_total(&out)?;
    Ok(out)
}

fn object(base: &mut Object, update: &Object, prefix: &str) -> Result<()> {
    if update.dynamic.is_some() {
        base.dynamic = update.dynamic;
    }
    if base.enabled != update.enabled && !prefix.is_empty() && !update.enabled {
        let text =
            format!("the [enabled] parameter can't be updated for the object mapping [{prefix}]");
        return Err(EsError::illegal(text));
    }
    nodes(&mut base.properties, &update.properties, prefix)
}

fn nodes(
    base: &mut BTreeMap<String, Node>,
    update: &BTreeMap<String, Node>,
    prefix: &str,
) -> Result<()> {
    for (name, new) in update {
        let path = join(prefix, name);
        match (base.get_mut(name), new) {
            (None, new) => {
                base.insert(name.clone(), new.clone());
            }
            (Some(Node::Object(old)), Node::Object(new)) => object(old, new, &path)?,
            (Some(Node::Field(old)), Node::Field(new)) => field(old, new, &path)?,
            (Some(Node::Object(_)), Node::Field(_)) => {
                let text =
                    format!("can't merge a non object mapping [{path}] with an object mapping");
                return Err(EsError::illegal(text));
            }
            (Some(Node::Field(_)), Node::Object(_)) => {
                let text =
                    format!("can't merge a non object mapping [{path}] with an object mapping");
                return Err(EsError::illegal(text));
            }
        }
    }
    Ok(())
}

pub(super) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn field(old: &mut Field, new: &Field, path: &str) -> Result<()> {
    if old.type_name != new.type_name {
        return Err(EsError::illegal(format!(
            "mapper [{path}] cannot be changed from type [{}] to [{}]",
            old.type_name, new.type_name
        )));
    }
    let mut conflicts = Vec::new();
    let keys: std::collections::BTreeSet<&String> =
        old.params.keys().chain(new.params.keys()).collect();
    for key in keys {
        let (before, after) = (old.params.get(key), new.params.get(key));
        if before != after && !UPDATABLE.contains(&key.as_str()) {
            conflicts.push(format!(
                "Cannot update parameter [{key}] from [{}] to [{}]",
                shown(key, before),
                shown(key, after)
            ));
        }
    }
    if !conflicts.is_empty() {
        return Err(EsError::illegal(format!(
            "Mapper for [{path}] conflicts with existing mapper:\n\t{}",
            conflicts.join("\n\t")
        )));
    }
    old.params = new.params.clone();
    for (name, sub) in &new.fields {
        match old.fields.get_mut(name) {
            Some(there) => field(there, sub, &join(path, name))?,
            None => {
                old.fields.insert(name.clone(), sub.clone());
            }
        }
    }
    Ok(())
}

fn shown(key: &str, value: Option<&Value>) -> String {
    match (key, value) {
        (_, Some(value)) => parse::java_text(value),
        ("index" | "doc_values" | "norms", None) => "true".to_owned(),
        ("store", None) => "false".to_owned(),
        ("analyzer", None) => "default".to_owned(),
        ("format", None) => crate::dates::DEFAULT_FORMAT.to_owned(),
        (_, None) => "null".to_owned(),
    }
}
