//! Parameters of the routes: what Elasticsearch knows, and what of it this server refuses.
//!
//! A known parameter that no handler reads changes no answer here: it says which copy is asked,
//! what is cached, how work is cut into pieces. What would change an answer and does not exist
//! here is on the route's list of refusals. Clients send defaults along, so values that ask for
//! what is done anyway pass.

use index::EsError;

use crate::params::Params;

/// Parameters of a route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Takes {
    /// Those that Elasticsearch knows.
    pub known: &'static [&'static str],
    /// Those of them that are refused.
    pub refused: &'static [Refused],
}

/// A parameter that Elasticsearch acts on and this server does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    name: &'static str,
    values: Values,
}

#[derive(Clone, Copy, Debug)]
enum Values {
    /// All but these are refused.
    Except(&'static [&'static str]),
    /// These are refused.
    Only(&'static [&'static str]),
}

const fn known(known: &'static [&'static str]) -> Takes {
    Takes { known, refused: &[] }
}

const fn refused(name: &'static str) -> Refused {
    Refused { name, values: Values::Except(&[]) }
}

const fn unless(name: &'static str, values: &'static [&'static str]) -> Refused {
    Refused { name, values: Values::Except(values) }
}

/// Of the parameters that every request takes.
const EVERYWHERE: &[Refused] =
    &[Refused { name: "format", values: Values::Only(&["smile", "cbor"]) }];

impl Takes {
    /// Refuses what no route and what this route does not support.
    pub(crate) fn refuse_unsupported(&self, params: &Params) -> Result<(), EsError> {
        let lists = EVERYWHERE.iter().chain(self.refused);
        for Refused { name, values } in lists {
            let Some(value) = params.get(name) else { continue };
            let passes = match values {
                Values::Except(values) => values.contains(&value),
                Values::Only(values) => !values.contains(&value),
            };
            if !passes {
                return Err(unsupported(name, value));
            }
        }
        Ok(())
    }
}

/// The error of a parameter, a header's key or a key of an action line.
pub(crate) fn unsupported(name: &str, value: &str) -> EsError {
    let shown = if value.is_empty() { String::new() } else { format!(" with value [{value}]") };
    EsError::illegal(format!("parameter [{name}]{shown} is not supported by this server"))
}

/// The pipeline that means none.
pub(crate) const NO_PIPELINE: &str = "_none";

pub(crate) const NOTHING: Takes = known(&[]);
pub(crate) const ANALYZE: Takes = known(&["index"]);
pub(crate) const XPACK: Takes = known(&["categories", "accept_enterprise"]);
pub(crate) const INDICES: Takes =
    known(&["ignore_unavailable", "allow_no_indices", "expand_wildcards"]);
pub(crate) const META: Takes = known(&[
    "ignore_unavailable",
    "allow_no_indices",
    "expand_wildcards",
    "local",
    "master_timeout",
    "timeout",
    "include_type_name",
    "include_defaults",
    "flat_settings",
    "features",
    "wait_for_active_shards",
    "preserve_existing",
    "write_index_only",
    "name",
    "fields",
]);
pub(crate) const DOC_INDEX: Takes = Takes {
    known: &[
        "wait_for_active_shards",
        "op_type",
        "refresh",
        "routing",
        "timeout",
        "version",
        "version_type",
        "if_seq_no",
        "if_primary_term",
        "pipeline",
        "require_alias",
    ],
    refused: &[unless("pipeline", &[NO_PIPELINE])],
};
pub(crate) const DOC_DELETE: Takes = known(&[
    "wait_for_active_shards",
    "refresh",
    "routing",
    "timeout",
    "version",
    "version_type",
    "if_seq_no",
    "if_primary_term",
]);
pub(crate) const DOC_UPDATE: Takes = known(&[
    "wait_for_active_shards",
    "refresh",
    "routing",
    "timeout",
    "version",
    "version_type",
    "if_seq_no",
    "if_primary_term",
    "require_alias",
    "_source",
    "_source_excludes",
    "_source_includes",
    // An update is evaluated where its document cannot change meanwhile.
    "retry_on_conflict",
    "lang",
]);
pub(crate) const BULK: Takes = Takes {
    known: &[
        "wait_for_active_shards",
        "refresh",
        "routing",
        "timeout",
        "type",
        "pipeline",
        "require_alias",
        "_source",
        "_source_excludes",
        "_source_includes",
    ],
    refused: &[unless("pipeline", &[NO_PIPELINE])],
};
pub(crate) const DOC_GET: Takes = known(&[
    "stored_fields",
    "preference",
    "realtime",
    "refresh",
    "routing",
    "_source",
    "_source_excludes",
    "_source_includes",
    "version",
    "version_type",
]);
pub(crate) const DOC_SOURCE: Takes = known(&[
    "preference",
    "realtime",
    "refresh",
    "routing",
    "_source",
    "_source_excludes",
    "_source_includes",
    "version",
    "version_type",
]);
pub(crate) const MGET: Takes = known(&[
    "stored_fields",
    "preference",
    "realtime",
    "refresh",
    "routing",
    "_source",
    "_source_excludes",
    "_source_includes",
]);
pub(crate) const SEARCH: Takes = Takes {
    known: &[
        "analyzer",
        "analyze_wildcard",
        "ccs_minimize_roundtrips",
        "default_operator",
        "df",
        "explain",
        "stored_fields",
        "docvalue_fields",
        "from",
        "ignore_unavailable",
        "ignore_throttled",
        "allow_no_indices",
        "expand_wildcards",
        "lenient",
        "preference",
        "q",
        "routing",
        "scroll",
        "search_type",
        "size",
        "sort",
        "_source",
        "_source_excludes",
        "_source_includes",
        "terminate_after",
        "stats",
        "timeout",
        "track_scores",
        "track_total_hits",
        "allow_partial_search_results",
        "typed_keys",
        "version",
        "seq_no_primary_term",
        "request_cache",
        "batched_reduce_size",
        "max_concurrent_shard_requests",
        "pre_filter_shard_size",
        "rest_total_hits_as_int",
        "suggest_field",
        "suggest_mode",
        "suggest_size",
        "suggest_text",
        "min_compatible_shard_node",
    ],
    refused: &[
        unless("explain", &["false"]),
        refused("scroll"),
        refused("suggest_field"),
        refused("suggest_mode"),
        refused("suggest_size"),
        refused("suggest_text"),
    ],
};
pub(crate) const MSEARCH: Takes = known(&[
    "ccs_minimize_roundtrips",
    "ignore_unavailable",
    "ignore_throttled",
    "allow_no_indices",
    "expand_wildcards",
    "max_concurrent_searches",
    "max_concurrent_shard_requests",
    "pre_filter_shard_size",
    "rest_total_hits_as_int",
    "routing",
    "search_type",
    "typed_keys",
]);
pub(crate) const COUNT: Takes = known(&[
    "analyzer",
    "analyze_wildcard",
    "default_operator",
    "df",
    "ignore_unavailable",
    "ignore_throttled",
    "allow_no_indices",
    "expand_wildcards",
    "lenient",
    "min_score",
    "preference",
    "q",
    "routing",
    "terminate_after",
]);
pub(crate) const FIELD_CAPS: Takes = known(&[
    "fields",
    "ignore_unavailable",
    "allow_no_indices",
    "expand_wildcards",
    "include_unmapped",
]);
pub(crate) const CAT: Takes = known(&[
    "v",
    "h",
    "s",
    "help",
    "bytes",
    "time",
    "ts",
    "local",
    "master_timeout",
    "health",
    "pri",
    "include_unloaded_segments",
    "expand_wildcards",
    "full_id",
    "active_only",
    "detailed",
]);
pub(crate) const HEALTH: Takes = known(&[
    "expand_wildcards",
    "level",
    "local",
    "master_timeout",
    "timeout",
    "wait_for_active_shards",
    "wait_for_nodes",
    "wait_for_events",
    "wait_for_no_relocating_shards",
    "wait_for_no_initializing_shards",
    "wait_for_status",
]);
pub(crate) const CLUSTER: Takes = known(&[
    "flat_settings",
    "timeout",
    "master_timeout",
    "local",
    "include_defaults",
    "metric",
    "level",
    "types",
    "groups",
    "completion_fields",
    "fielddata_fields",
    "fields",
    "include_segment_file_sizes",
    "include_unloaded_segments",
    "forbid_closed_indices",
    "expand_wildcards",
    "ignore_unavailable",
    "allow_no_indices",
    "wait_for_metadata_version",
    "wait_for_timeout",
]);
pub(crate) const MAINTAIN: Takes = known(&[
    "ignore_unavailable",
    "allow_no_indices",
    "expand_wildcards",
    "force",
    "wait_if_ongoing",
    "max_num_segments",
    "only_expunge_deletes",
    "flush",
    "fielddata",
    "fields",
    "query",
    "request",
]);

/// Keys of the header of one search of `_msearch`, and what they are called in a URL.
pub(crate) const MSEARCH_HEADER: &[(&str, &str)] = &[
    ("index", "index"),
    ("indices", "index"),
    ("type", "type"),
    ("types", "type"),
    ("search_type", "search_type"),
    ("searchType", "search_type"),
    ("request_cache", "request_cache"),
    ("requestCache", "request_cache"),
    ("preference", "preference"),
    ("routing", "routing"),
    ("allow_partial_search_results", "allow_partial_search_results"),
    ("expand_wildcards", "expand_wildcards"),
    ("expandWildcards", "expand_wildcards"),
    ("ignore_unavailable", "ignore_unavailable"),
    ("ignoreUnavailable", "ignore_unavailable"),
    ("allow_no_indices", "allow_no_indices"),
    ("allowNoIndices", "allow_no_indices"),
    ("ignore_throttled", "ignore_throttled"),
    ("ignoreThrottled", "ignore_throttled"),
    ("ccs_minimize_roundtrips", "ccs_minimize_roundtrips"),
];

#[cfg(test)]
mod tests {
    use crate::routes::{NotFound, find};

    fn answer(method: &str, path: &str, query: &str) -> Result<(), String> {
        match find(method, path, query) {
            Ok(_) => Ok(()),
            Err(NotFound::Bad(error)) => Err(error.reason),
            Err(other) => panic!("{method} {path}: {other:?}"),
        }
    }

    /// The first of each list is refused as unsupported, the second passes, and the third is what
    /// Elasticsearch does not know on this route either.
    fn check(method: &str, path: &str, lists: [&[&str]; 3]) {
        let [unsupported, fine, unknown] = lists;
        for query in unsupported {
            let reason = answer(method, path, query).unwrap_err();
            assert!(reason.ends_with(" is not supported by this server"), "{query}: {reason}");
        }
        for query in fine {
            assert_eq!(answer(method, path, query), Ok(()), "{method} {path}?{query}");
        }
        for query in unknown {
            let reason = answer(method, path, query).unwrap_err();
            assert!(reason.contains("contains unrecognized parameter"), "{query}: {reason}");
        }
    }

    #[test]
    fn searches() {
        check(
            "POST",
            "/news/_search",
            [
                &[
                    "explain",
                    "explain=true",
                    "scroll=1m",
                    "suggest_field=a",
                    "suggest_mode=always",
                    "suggest_size=2",
                    "suggest_text=b",
                ],
                &[
                    "explain=false",
                    "typed_keys",
                    "stored_fields=_none_",
                    "routing=a",
                    "timeout=30000ms&preference=1795348891025&ignore_unavailable=true",
                    "from=0&rest_total_hits_as_int=true&max_concurrent_shard_requests=5",
                ],
                &["min_score=1", "max_concurrent_searches=2", "include_unmapped=true"],
            ],
        );
        assert_eq!(
            answer("GET", "/_search", "suggest_field=a").unwrap_err(),
            "parameter [suggest_field] with value [a] is not supported by this server"
        );
    }

    #[test]
    fn other_reads() {
        check(
            "GET",
            "/news/_count",
            [&[], &["min_score=1&routing=a", "terminate_after=1"], &["size=1", "explain=false"]],
        );
        check(
            "POST",
            "/_msearch",
            [&[], &["typed_keys&max_concurrent_shard_requests=5"], &["size=1"]],
        );
        check(
            "GET",
            "/news/_field_caps",
            [&[], &["fields=*&include_unmapped=true&allow_no_indices=true"], &["size=1"]],
        );
        check("GET", "/news/_mget", [&[], &["stored_fields=a&realtime=false"], &["version=1"]]);
        check("GET", "/news/_doc/1", [&[], &["stored_fields=a&version=1"], &["pipeline=p"]]);
        check("GET", "/news/_source/1", [&[], &["_source=a&version=1"], &["stored_fields=a"]]);
    }

    #[test]
    fn writes() {
        let pipeline: &[&str] = &["pipeline=p", "pipeline"];
        check(
            "PUT",
            "/news/_doc/1",
            [
                pipeline,
                &["pipeline=_none", "wait_for_active_shards=all&op_type=create&require_alias"],
                &["_source=a", "retry_on_conflict=3"],
            ],
        );
        check("PUT", "/news/_create/1", [pipeline, &["pipeline=_none"], &["_source=a"]]);
        check(
            "POST",
            "/_bulk",
            [
                pipeline,
                &["pipeline=_none", "wait_for_active_shards=all&refresh=false&_source_includes=a"],
                &["if_seq_no=1", "op_type=index"],
            ],
        );
        check("POST", "/news/_update/1", [&[], &["retry_on_conflict=3&_source"], pipeline]);
        check("DELETE", "/news/_doc/1", [&[], &["wait_for_active_shards=1"], pipeline]);
    }

    #[test]
    fn binary_formats() {
        let binary: &[&str] = &["format=smile", "format=cbor"];
        for path in ["/", "/_cat/indices", "/_search", "/_cluster/health"] {
            check("GET", path, [binary, &["format=json", "format=yaml", "pretty"], &["vv"]]);
        }
    }
}
