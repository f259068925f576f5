//! The routes: method and path → endpoint, with the parameters each takes (`takes`).
//!
//! A fixed segment wins over a variable one, from left to right, as in Elasticsearch.

use index::EsError;
use percent_encoding::percent_decode_str;

use crate::not_here;
use crate::params::Params;
use crate::takes::{
    ANALYZE, BULK, CAT, CLUSTER, COUNT, DOC_DELETE, DOC_GET, DOC_INDEX, DOC_SOURCE, DOC_UPDATE,
    FIELD_CAPS, HEALTH, INDICES, MAINTAIN, META, MGET, MSEARCH, NOTHING, SEARCH, Takes, XPACK,
};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the routes below say what each one is")]
pub enum Endpoint {
    Info,
    IndexCreate,
    IndexDelete,
    IndexGet,
    MappingGet,
    MappingPut,
    FieldMapping,
    SettingsGet,
    SettingsPut,
    AliasGet,
    AliasPut,
    AliasDelete,
    AliasesUpdate,
    Open,
    Close,
    Refresh,
    Flush,
    ForceMerge,
    ClearCache,
    Stats,
    Analyze,
    Resolve,
    DocIndex,
    DocCreate,
    DocGet,
    DocDelete,
    DocSource,
    DocUpdate,
    Mget,
    Bulk,
    Search,
    Msearch,
    Count,
    FieldCaps,
    Validate,
    Explain,
    CatHelp,
    CatIndices,
    CatHealth,
    CatShards,
    CatNodes,
    CatCount,
    CatAliases,
    CatMaster,
    CatTemplates,
    CatAllocation,
    ClusterHealth,
    ClusterStats,
    ClusterState,
    ClusterSettings,
    PendingTasks,
    NodesInfo,
    NodesStats,
    License,
    Xpack,
    /// A part of Elasticsearch that is not there yet.
    Unsupported,
}

use Endpoint as E;

type Def = (&'static str, &'static str, Takes, Endpoint);

/// Methods are separated by `|`. HEAD goes where GET goes.
const ROUTES: &[Def] = &[
    ("GET", "/", NOTHING, E::Info),
    ("PUT", "/{index}", META, E::IndexCreate),
    ("DELETE", "/{index}", META, E::IndexDelete),
    ("GET", "/{index}", META, E::IndexGet),
    ("GET", "/_mapping", META, E::MappingGet),
    ("GET", "/_mappings", META, E::MappingGet),
    ("GET", "/{index}/_mapping", META, E::MappingGet),
    ("GET", "/{index}/_mappings", META, E::MappingGet),
    ("PUT|POST", "/{index}/_mapping", META, E::MappingPut),
    ("PUT|POST", "/{index}/_mappings", META, E::MappingPut),
    ("GET", "/_mapping/field/{fields}", META, E::FieldMapping),
    ("GET", "/{index}/_mapping/field/{fields}", META, E::FieldMapping),
    ("GET", "/_settings", META, E::SettingsGet),
    ("GET", "/_settings/{name}", META, E::SettingsGet),
    ("GET", "/{index}/_settings", META, E::SettingsGet),
    ("GET", "/{index}/_settings/{name}", META, E::SettingsGet),
    ("PUT", "/_settings", META, E::SettingsPut),
    ("PUT", "/{index}/_settings", META, E::SettingsPut),
    ("GET", "/_alias", META, E::AliasGet),
    ("GET", "/_aliases", META, E::AliasGet),
    ("GET", "/_alias/{name}", META, E::AliasGet),
    ("GET", "/{index}/_alias", META, E::AliasGet),
    ("GET", "/{index}/_alias/{name}", META, E::AliasGet),
    ("PUT|POST", "/{index}/_alias/{name}", META, E::AliasPut),
    ("PUT|POST", "/{index}/_aliases/{name}", META, E::AliasPut),
    ("DELETE", "/{index}/_alias/{name}", META, E::AliasDelete),
    ("DELETE", "/{index}/_aliases/{name}", META, E::AliasDelete),
    ("POST", "/_aliases", META, E::AliasesUpdate),
    ("POST", "/{index}/_open", META, E::Open),
    ("POST", "/{index}/_close", META, E::Close),
    ("GET|POST", "/_refresh", INDICES, E::Refresh),
    ("GET|POST", "/{index}/_refresh", INDICES, E::Refresh),
    ("GET|POST", "/_flush", MAINTAIN, E::Flush),
    ("GET|POST", "/{index}/_flush", MAINTAIN, E::Flush),
    ("POST", "/_forcemerge", MAINTAIN, E::ForceMerge),
    ("POST", "/{index}/_forcemerge", MAINTAIN, E::ForceMerge),
    ("POST", "/_cache/clear", MAINTAIN, E::ClearCache),
    ("POST", "/{index}/_cache/clear", MAINTAIN, E::ClearCache),
    ("GET", "/_stats", CLUSTER, E::Stats),
    ("GET", "/_stats/{metric}", CLUSTER, E::Stats),
    ("GET", "/{index}/_stats", CLUSTER, E::Stats),
    ("GET", "/{index}/_stats/{metric}", CLUSTER, E::Stats),
    ("GET|POST", "/_analyze", ANALYZE, E::Analyze),
    ("GET|POST", "/{index}/_analyze", NOTHING, E::Analyze),
    ("GET", "/_resolve/index/{name}", INDICES, E::Resolve),
    ("POST", "/{index}/_doc", DOC_INDEX, E::DocIndex),
    ("PUT|POST", "/{index}/_doc/{id}", DOC_INDEX, E::DocIndex),
    ("PUT|POST", "/{index}/_create/{id}", DOC_INDEX, E::DocCreate),
    ("PUT|POST", "/{index}/_doc/{id}/_create", DOC_INDEX, E::DocCreate),
    ("GET", "/{index}/_doc/{id}", DOC_GET, E::DocGet),
    ("DELETE", "/{index}/_doc/{id}", DOC_DELETE, E::DocDelete),
    ("GET", "/{index}/_source/{id}", DOC_SOURCE, E::DocSource),
    ("POST", "/{index}/_update/{id}", DOC_UPDATE, E::DocUpdate),
    ("POST", "/{index}/_doc/{id}/_update", DOC_UPDATE, E::DocUpdate),
    ("GET|POST", "/_mget", MGET, E::Mget),
    ("GET|POST", "/{index}/_mget", MGET, E::Mget),
    ("PUT|POST", "/_bulk", BULK, E::Bulk),
    ("PUT|POST", "/{index}/_bulk", BULK, E::Bulk),
    ("GET|POST", "/_search", SEARCH, E::Search),
    ("GET|POST", "/{index}/_search", SEARCH, E::Search),
    ("GET|POST", "/_msearch", MSEARCH, E::Msearch),
    ("GET|POST", "/{index}/_msearch", MSEARCH, E::Msearch),
    ("GET|POST", "/_count", COUNT, E::Count),
    ("GET|POST", "/{index}/_count", COUNT, E::Count),
    ("GET|POST", "/_field_caps", FIELD_CAPS, E::FieldCaps),
    ("GET|POST", "/{index}/_field_caps", FIELD_CAPS, E::FieldCaps),
    ("GET|POST", "/_validate/query", NOTHING, E::Validate),
    ("GET|POST", "/{index}/_validate/query", NOTHING, E::Validate),
    ("GET|POST", "/{index}/_explain/{id}", NOTHING, E::Explain),
    ("GET", "/_cat", CAT, E::CatHelp),
    ("GET", "/_cat/indices", CAT, E::CatIndices),
    ("GET", "/_cat/indices/{index}", CAT, E::CatIndices),
    ("GET", "/_cat/health", CAT, E::CatHealth),
    ("GET", "/_cat/shards", CAT, E::CatShards),
    ("GET", "/_cat/shards/{index}", CAT, E::CatShards),
    ("GET", "/_cat/nodes", CAT, E::CatNodes),
    ("GET", "/_cat/count", CAT, E::CatCount),
    ("GET", "/_cat/count/{index}", CAT, E::CatCount),
    ("GET", "/_cat/aliases", CAT, E::CatAliases),
    ("GET", "/_cat/aliases/{name}", CAT, E::CatAliases),
    ("GET", "/_cat/master", CAT, E::CatMaster),
    ("GET", "/_cat/templates", CAT, E::CatTemplates),
    ("GET", "/_cat/templates/{name}", CAT, E::CatTemplates),
    ("GET", "/_cat/allocation", CAT, E::CatAllocation),
    ("GET", "/_cluster/health", HEALTH, E::ClusterHealth),
    ("GET", "/_cluster/health/{index}", HEALTH, E::ClusterHealth),
    ("GET", "/_cluster/stats", CLUSTER, E::ClusterStats),
    ("GET", "/_cluster/state", CLUSTER, E::ClusterState),
    ("GET", "/_cluster/state/{metric}", CLUSTER, E::ClusterState),
    ("GET", "/_cluster/state/{metric}/{index}", CLUSTER, E::ClusterState),
    ("GET", "/_cluster/settings", CLUSTER, E::ClusterSettings),
    ("GET", "/_cluster/pending_tasks", CLUSTER, E::PendingTasks),
    ("GET", "/_nodes", CLUSTER, E::NodesInfo),
    ("GET", "/_nodes/{node_id}", CLUSTER, E::NodesInfo),
    ("GET", "/_nodes/{node_id}/{metric}", CLUSTER, E::NodesInfo),
    ("GET", "/_nodes/stats", CLUSTER, E::NodesStats),
    ("GET", "/_nodes/stats/{metric}", CLUSTER, E::NodesStats),
    ("GET", "/_nodes/{node_id}/stats", CLUSTER, E::NodesStats),
    ("GET", "/_nodes/{node_id}/stats/{metric}", CLUSTER, E::NodesStats),
    ("GET", "/_license", CLUSTER, E::License),
    ("GET", "/_xpack", XPACK, E::Xpack),
    // What has routes, with other methods; the rest is in `not_here`.
    ("PUT|POST", "/_cluster/settings", NOTHING, E::Unsupported),
];

/// A route found.
#[derive(Debug)]
pub struct Found {
    /// What is asked for.
    pub endpoint: Endpoint,
    /// Parameters of the URL and the path.
    pub params: Params,
}

/// Why there is no route.
#[derive(Debug, PartialEq, Eq)]
pub enum NotFound {
    /// No such path.
    Path,
    /// Other methods only.
    Method(Vec<&'static str>),
    /// The path has broken escapes or the parameters are refused.
    Bad(EsError),
}

/// Finds the route of a request.
pub fn find(method: &str, path: &str, query: &str) -> Result<Found, NotFound> {
    let segments = split(path).map_err(NotFound::Bad)?;
    let asked = if method == "HEAD" { "GET" } else { method };
    let matching = || ROUTES.iter().filter(|(_, pattern, ..)| fits(pattern, &segments));
    let with_method = matching().filter(|(methods, ..)| methods.split('|').any(|m| m == asked));
    let best = with_method.max_by_key(|(_, pattern, ..)| fixed_mask(pattern));
    let no_index = segments.first().is_some_and(|s| s.starts_with('_') && s != "_all");
    let fixed = best.is_some_and(|(_, pattern, ..)| !no_index || !pattern.starts_with("/{"));
    if !fixed && (no_index || matching().next().is_none()) && not_here::is_known(&segments) {
        let params = Params::parse(query).map_err(NotFound::Bad)?;
        return Ok(Found { endpoint: E::Unsupported, params });
    }
    let Some((_, pattern, takes, endpoint)) = best else {
        let mut allowed: Vec<&str> = matching().flat_map(|(m, ..)| m.split('|')).collect();
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        allowed.sort_unstable();
        allowed.dedup();
        return Err(if allowed.is_empty() { NotFound::Path } else { NotFound::Method(allowed) });
    };
    let mut params = Params::parse(query).map_err(NotFound::Bad)?;
    if !matches!(endpoint, E::Validate | E::Explain | E::Unsupported) {
        params.refuse_unknown(path, takes.known).map_err(NotFound::Bad)?;
        takes.refuse_unsupported(&params).map_err(NotFound::Bad)?;
    }
    for (name, segment) in pattern.split('/').skip(1).zip(&segments) {
        if let Some(name) = name.strip_prefix('{').and_then(|n| n.strip_suffix('}')) {
            params.set(name, segment);
        }
    }
    Ok(Found { endpoint: *endpoint, params })
}

/// Segments are decoded after splitting: an id may hold an escaped slash.
fn split(path: &str) -> Result<Vec<String>, EsError> {
    let path = path.trim_start_matches('/').trim_end_matches('/');
    if path.is_empty() {
        return Ok(vec![String::new()]);
    }
    path.split('/')
        .map(|segment| {
            let decoded = percent_decode_str(segment).decode_utf8();
            decoded
                .map(|s| s.into_owned())
                .map_err(|_| EsError::illegal(format!("the path segment [{segment}] is not UTF-8")))
        })
        .collect()
}

fn fits(pattern: &str, segments: &[String]) -> bool {
    let mut parts = pattern.split('/').skip(1);
    let all = segments.iter().all(|segment| {
        parts.next().is_some_and(|part| {
            if part.starts_with('{') { !segment.is_empty() } else { part == segment }
        })
    });
    all && parts.next().is_none()
}

/// One bit per segment, the leftmost the highest: fixed segments win.
fn fixed_mask(pattern: &str) -> u32 {
    let parts = pattern.split('/').skip(1);
    let bits = parts.enumerate().filter(|(_, part)| !part.starts_with('{'));
    bits.fold(0, |mask, (i, _)| mask | 1 << (16 - i.min(16)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, endpoint: Endpoint) -> Params {
        let found = find(method, path, "").unwrap();
        assert_eq!(found.endpoint, endpoint, "{method} {path}");
        found.params
    }

    #[test]
    fn paths_lead_to_endpoints() {
        check("HEAD", "/", E::Info);
        check("GET", "/_cat/indices", E::CatIndices);
        check("GET", "/_search", E::Search);
        check("GET", "/_nodes/stats", E::NodesStats);
        let params = check("PUT", "/news/_doc/a%2Fb%20c", E::DocIndex);
        assert_eq!((params.get("index"), params.get("id")), (Some("news"), Some("a/b c")));
        check("GET", "/news/", E::IndexGet);
    }

    #[test]
    fn parts_that_are_not_here_are_no_index_names() {
        for (method, path) in [
            ("GET", "/_template"),
            ("PUT", "/_index_template/news"),
            ("GET", "/_cat/segments"),
            ("GET", "/_data_stream"),
            ("PUT", "/_security/user/kim"),
            ("POST", "/news/_rollover"),
            ("PUT", "/_cluster/settings"),
            ("GET", "/_tasks"),
        ] {
            check(method, path, E::Unsupported);
        }
        check("GET", "/_all", E::IndexGet);
        check("GET", "/_all/_search", E::Search);
        check("GET", "/_news", E::IndexGet);
    }

    #[test]
    fn other_methods_are_named() {
        let error = find("POST", "/_cat/indices", "").unwrap_err();
        assert_eq!(error, NotFound::Method(vec!["GET", "HEAD"]));
        assert_eq!(find("GET", "/a/b/c/d/e", "").unwrap_err(), NotFound::Path);
    }
}
