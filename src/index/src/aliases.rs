//! What an alias adds to a request that came by its name: a filter, and routing.

use serde_json::Value;

use crate::error::EsError;
use crate::model::IndexMeta;
use crate::names::wildcard_match;

/// The definitions of the aliases by which an expression leads to an index. None where it leads
/// there by the index's own name as well: then no alias has a say.
pub struct Leading<'a>(Vec<&'a Value>);

impl<'a> Leading<'a> {
    /// How an expression leads to an index.
    pub fn of(meta: &'a IndexMeta, expression: &str) -> Self {
        let parts = || expression.split(',').filter(|part| !part.is_empty());
        let means_all = matches!(expression, "" | "_all");
        if means_all || parts().any(|part| part == "_all" || wildcard_match(part, meta.name())) {
            return Self(Vec::new());
        }
        let leads = |alias: &str| parts().any(|part| wildcard_match(part, alias));
        let found = meta.aliases.iter().filter(|(alias, _)| leads(alias));
        Self(found.map(|(_, definition)| definition).collect())
    }

    /// Queries of which a document must match one; all documents fit where there are none.
    pub fn filters(&self) -> Vec<&'a Value> {
        self.of_each(|definition| definition.get("filter").filter(|filter| !filter.is_null()))
    }

    /// Routings to whose shards a search is limited; all shards where there are none.
    pub fn search_routing(&self) -> Vec<&'a str> {
        let lists = self.of_each(|definition| routing(definition, "search_routing"));
        lists.into_iter().flat_map(|list| list.split(',')).collect()
    }

    /// What every alias says; nothing when one says nothing: it leads to everything.
    fn of_each<T>(&self, read: impl Fn(&'a Value) -> Option<T>) -> Vec<T> {
        let said: Option<Vec<T>> = self.0.iter().map(|definition| read(definition)).collect();
        said.unwrap_or_default()
    }
}

fn routing<'a>(definition: &'a Value, kind: &str) -> Option<&'a str> {
    definition.get(kind).and_then(Value::as_str)
}

/// The routing of a document that is written or read by a name.
///
/// # Errors
/// The request gives another routing than the alias of that name, or the alias has several.
pub fn document_routing(
    meta: &IndexMeta,
    name: &str,
    given: Option<String>,
) -> Result<Option<String>, EsError> {
    let Some(own) = meta.aliases.get(name).and_then(|alias| routing(alias, "index_routing")) else {
        return Ok(given);
    };
    if let Some(given) = given.filter(|given| given != own) {
        return Err(EsError::illegal(format!(
            "Alias [{name}] has index routing associated with it [{own}], and was provided with \
             routing value [{given}], rejecting operation"
        )));
    }
    if own.contains(',') {
        return Err(EsError::illegal(format!(
            "index/alias [{name}] provided with routing value [{own}] that resolved to several \
             routing values, rejecting operation"
        )));
    }
    Ok(Some(own.to_owned()))
}
