//! What of its indices a search looks at: shards by `routing` and `preference`, and what aliases
//! let through.

use std::sync::Arc;

use index::EsError;
use index::aliases::Leading;
use index::model::IndexMeta;
use index::routing::shard_of;
use search::query::{Query, QueryKind};
use search::search::SearchRequest;

use crate::params::Params;

/// What a request says about shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The indices, as the request names them.
    expression: String,
    /// Only shards that documents of these routings are in; all when empty.
    routing: Vec<String>,
    /// Only shards of these numbers.
    numbers: Option<Vec<u16>>,
    /// Whether some shards may be missing from an answer.
    pub partial: bool,
}

impl Scope {
    /// Reads `routing`, `preference` and `allow_partial_search_results`. Preferences other than
    /// `_shards:` choose among copies that are alike.
    pub(crate) fn of(params: &Params, expression: &str) -> Result<Self, EsError> {
        let routing = params.list("routing").unwrap_or_default();
        let shards = params.get("preference").and_then(|text| text.strip_prefix("_shards:"));
        Ok(Self {
            expression: expression.to_owned(),
            routing: routing.into_iter().map(str::to_owned).collect(),
            numbers: shards.map(numbers).transpose()?,
            partial: params.flag("allow_partial_search_results", true)?,
        })
    }

    /// Whether a shard is looked at.
    pub(crate) fn has(&self, meta: &IndexMeta, number: u16) -> bool {
        let count = meta.shard_count();
        let by_alias = Leading::of(meta, &self.expression).search_routing();
        let led = by_alias.iter().any(|routing| shard_of(routing, count) == number);
        self.fits(number, count) && (led || by_alias.is_empty())
    }

    /// The search as it is run in one index: what aliases let through, where only they lead there.
    pub(crate) fn within(
        &self,
        meta: &IndexMeta,
        search: &Arc<SearchRequest>,
    ) -> Result<Arc<SearchRequest>, EsError> {
        let filters = Leading::of(meta, &self.expression).filters();
        if filters.is_empty() {
            return Ok(search.clone());
        }
        let any = filters.into_iter().map(Query::parse).collect::<Result<Vec<_>, _>>()?;
        let mut search = SearchRequest::clone(search);
        let asked = std::mem::replace(&mut search.query, Query::match_all());
        search.query = all_of(vec![asked], vec![any_of(any)]);
        Ok(Arc::new(search))
    }

    fn fits(&self, number: u16, count: u16) -> bool {
        let routed = self.routing.iter().any(|routing| shard_of(routing, count) == number);
        let listed = self.numbers.as_ref().is_none_or(|numbers| numbers.contains(&number));
        listed && (routed || self.routing.is_empty())
    }
}

fn all_of(must: Vec<Query>, filter: Vec<Query>) -> Query {
    let (should, must_not, minimum) = (vec![], vec![], None);
    Query::new(QueryKind::Bool { must, should, filter, must_not, minimum })
}

fn any_of(should: Vec<Query>) -> Query {
    let (must, filter, must_not, minimum) = (vec![], vec![], vec![], None);
    Query::new(QueryKind::Bool { must, should, filter, must_not, minimum })
}

/// `2,3` or `2,3|_local`.
fn numbers(text: &str) -> Result<Vec<u16>, EsError> {
    let list = text.split('|').next().unwrap_or(text);
    let number = |word: &str| {
        word.parse().map_err(|_| EsError::illegal(format!("For input string: \"{word}\"")))
    };
    list.split(',').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(query: &str) -> Vec<u16> {
        let scope = Scope::of(&Params::parse(query).unwrap(), "i").unwrap();
        (0..5).filter(|number| scope.fits(*number, 5)).collect()
    }

    #[test]
    fn routing_and_preference_choose_shards() {
        let (a, b) = (shard_of("a", 5), shard_of("b", 5));
        assert_eq!(shards(""), [0, 1, 2, 3, 4]);
        assert_eq!(shards("preference=1795348891025"), [0, 1, 2, 3, 4]);
        assert_eq!(shards("routing=a"), [a]);
        let mut both = vec![a, b];
        both.sort_unstable();
        both.dedup();
        assert_eq!(shards("routing=a,b"), both);
        assert_eq!(shards("preference=_shards:1,3|_local"), [1, 3]);
        assert_eq!(shards("preference=_shards:7"), [0u16; 0]);
        assert!(Scope::of(&Params::parse("preference=_shards:x").unwrap(), "i").is_err());
    }
}
