//! Index names: what is allowed, and which indices an expression such as `logs-*,-logs-old`
//! means.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::EsError;
use crate::model::{Catalog, IndexMeta, IndexState};

/// Checks the name of a new index.
pub fn validate_index_name(name: &str) -> Result<(), EsError> {
    validate(name, "invalid_index_name_exception", "index")?;
    if name.to_lowercase() != name {
        return Err(invalid(name, "invalid_index_name_exception", "index", "must be lowercase"));
    }
    Ok(())
}

/// Checks the name of a new alias.
pub fn validate_alias_name(name: &str) -> Result<(), EsError> {
    validate(name, "invalid_alias_name_exception", "alias")
}

fn invalid(name: &str, kind: &str, what: &str, why: &str) -> EsError {
    EsError::new(400, kind, format!("Invalid {what} name [{name}], {why}"))
        .with("index_uuid", "_na_")
        .with("index", name)
}

fn validate(name: &str, kind: &str, what: &str) -> Result<(), EsError> {
    let bad = |why: &str| Err(invalid(name, kind, what, why));
    if name.is_empty() || name.chars().any(|c| " \"*\\<|,>/?".contains(c)) {
        return bad("must not contain the following characters \
                    [ , \", *, \\, <, |, ,, >, /, ?]");
    }
    if name.contains('#') {
        return bad("must not contain '#'");
    }
    if name.contains(':') {
        return bad("must not contain ':'");
    }
    if name.starts_with(['_', '-', '+']) {
        return bad("must not start with '_', '-', or '+'");
    }
    if name.len() > 255 {
        return bad(&format!("index name is too long, ({} > 255)", name.len()));
    }
    if name == "." || name == ".." {
        return bad("must not be '.' or '..'");
    }
    Ok(())
}

/// Whether `name` matches `pattern`, where `*` stands for any text.
pub fn wildcard_match(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if Some(c) == name.get(n) => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((star_p, star_n)) => {
                    star = Some((star_p, star_n + 1));
                    p = star_p + 1;
                    n = star_n + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == b'*')
}

/// How an expression is resolved: `ignore_unavailable`, `allow_no_indices`, `expand_wildcards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndicesOptions {
    /// A missing or closed index is passed over.
    pub ignore_unavailable: bool,
    /// A wildcard without a match is no error.
    pub allow_no_indices: bool,
    /// Wildcards mean open indices.
    pub expand_open: bool,
    /// Wildcards mean closed indices.
    pub expand_closed: bool,
    /// Wildcards mean hidden indices too.
    pub expand_hidden: bool,
    /// A closed index named outright is an error.
    pub forbid_closed: bool,
    /// Names may be aliases.
    pub aliases: bool,
}

impl IndicesOptions {
    /// Searches: open indices; naming a closed one is an error.
    pub const SEARCH: Self = Self {
        ignore_unavailable: false,
        allow_no_indices: true,
        expand_open: true,
        expand_closed: false,
        expand_hidden: false,
        forbid_closed: true,
        aliases: true,
    };

    /// Reading definitions: closed indices may be named.
    pub const READ_META: Self = Self { forbid_closed: false, ..Self::SEARCH };

    /// Deleting: aliases are refused, wildcards mean open and closed indices.
    pub const DELETE: Self =
        Self { expand_closed: true, forbid_closed: false, aliases: false, ..Self::SEARCH };
}

/// The indices that an expression means, in order of name. Empty, `_all` and `*` mean all.
pub fn resolve(
    catalog: &Catalog,
    expression: &str,
    options: IndicesOptions,
) -> Result<Vec<Arc<IndexMeta>>, EsError> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    let parts: Vec<&str> = match expression {
        "" | "_all" => vec!["*"],
        other => other.split(',').filter(|part| !part.is_empty()).collect(),
    };
    let mut wildcard_seen = false;
    for part in &parts {
        if wildcard_seen && let Some(excluded) = part.strip_prefix('-') {
            let out: Vec<String> = matching(catalog, excluded, options);
            names.retain(|name| !out.contains(name) && name != excluded);
        } else if part.contains('*') || *part == "_all" {
            wildcard_seen = true;
            let pattern = if *part == "_all" { "*" } else { part };
            let found = matching(catalog, pattern, options);
            if found.is_empty() && !options.allow_no_indices {
                return Err(EsError::no_index(part));
            }
            names.extend(found);
        } else {
            names.extend(resolve_name(catalog, part, options)?);
        }
    }
    if names.is_empty() && !options.allow_no_indices {
        let shown = if expression.is_empty() { "_all" } else { expression };
        return Err(EsError::no_index(shown));
    }
    Ok(names.iter().filter_map(|name| catalog.indices.get(name).cloned()).collect())
}

fn resolve_name(
    catalog: &Catalog,
    name: &str,
    options: IndicesOptions,
) -> Result<Vec<String>, EsError> {
    let mut found = Vec::new();
    if let Some(meta) = catalog.indices.get(name) {
        found.push(meta.clone());
    } else {
        found.extend(catalog.with_alias(name).cloned());
        if !found.is_empty() && !options.aliases {
            return if options.ignore_unavailable {
                Ok(Vec::new())
            } else {
                Err(alias_refused(name))
            };
        }
    }
    if found.is_empty() {
        if options.ignore_unavailable {
            return Ok(Vec::new());
        }
        if name.starts_with('_') {
            let error = EsError::new(
                400,
                "invalid_index_name_exception",
                format!("Invalid index name [{name}], must not start with '_'."),
            );
            return Err(error.with("index_uuid", "_na_").with("index", name));
        }
        return Err(EsError::no_index(name));
    }
    let closed = found.iter().find(|meta| meta.row.state == IndexState::Closed);
    if let Some(meta) = closed.filter(|_| options.forbid_closed) {
        if !options.ignore_unavailable {
            return Err(closed_error(meta));
        }
        found.retain(|meta| meta.row.state == IndexState::Open);
    }
    Ok(found.iter().map(|meta| meta.name().to_owned()).collect())
}

fn alias_refused(name: &str) -> EsError {
    EsError::illegal(format!(
        "The provided expression [{name}] matches an alias, specify the corresponding concrete \
         indices instead."
    ))
}

/// The error of a request to a closed index.
pub fn closed_error(meta: &IndexMeta) -> EsError {
    EsError::new(400, "index_closed_exception", "closed")
        .with("index_uuid", meta.uuid().to_string())
        .with("index", meta.name())
}

fn matching(catalog: &Catalog, pattern: &str, options: IndicesOptions) -> Vec<String> {
    let state_fits = |meta: &IndexMeta| match meta.row.state {
        IndexState::Open => options.expand_open,
        IndexState::Closed => options.expand_closed,
    };
    // A pattern that begins with a dot names hidden dot indices explicitly.
    let hidden_fits = |meta: &IndexMeta, name: &str| {
        !meta.is_hidden()
            || options.expand_hidden
            || pattern.starts_with('.') && name.starts_with('.')
    };
    let fits = |meta: &IndexMeta| {
        let by_name = wildcard_match(pattern, meta.name()) && hidden_fits(meta, meta.name());
        let by_alias = || {
            options.aliases
                && meta.aliases.iter().any(|(alias, definition)| {
                    let hidden = definition.get("is_hidden").and_then(serde_json::Value::as_bool);
                    wildcard_match(pattern, alias)
                        && (hidden != Some(true)
                            || options.expand_hidden
                            || pattern.starts_with('.') && alias.starts_with('.'))
                        && hidden_fits(meta, alias)
                })
        };
        state_fits(meta) && (by_name || by_alias())
    };
    let found = catalog.indices.values().filter(|meta| fits(meta));
    found.map(|meta| meta.name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_with_the_texts_of_elasticsearch() {
        let reason = |name: &str| validate_index_name(name).unwrap_err().reason;
        assert_eq!(reason("Abc"), "Invalid index name [Abc], must be lowercase");
        assert_eq!(
            reason("a b"),
            "Invalid index name [a b], must not contain the following characters \
             [ , \", *, \\, <, |, ,, >, /, ?]"
        );
        assert_eq!(reason("_x"), "Invalid index name [_x], must not start with '_', '-', or '+'");
        validate_index_name("뉴스-2026").unwrap();
    }

    #[test]
    fn stars_match_any_text() {
        for (pattern, name, expected) in [
            ("*", "x", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("*b*", "abc", true),
            ("abc", "abc", true),
            ("a", "ab", false),
        ] {
            assert_eq!(wildcard_match(pattern, name), expected, "{pattern} {name}");
        }
    }
}
