//! Parts of Elasticsearch that are not here: said clearly, never taken for an index name.

/// Paths of Elasticsearch 8 without a route here, with all that is below them.
const PATHS: &[&str] = &[
    "/_async_search",
    "/_autoscaling",
    "/_cat/component_templates",
    "/_cat/fielddata",
    "/_cat/ml",
    "/_cat/nodeattrs",
    "/_cat/pending_tasks",
    "/_cat/plugins",
    "/_cat/recovery",
    "/_cat/repositories",
    "/_cat/segments",
    "/_cat/snapshots",
    "/_cat/tasks",
    "/_cat/thread_pool",
    "/_cat/transforms",
    "/_ccr",
    "/_cluster/allocation",
    "/_cluster/reroute",
    "/_cluster/voting_config_exclusions",
    "/_component_template",
    "/_dangling",
    "/_data_stream",
    "/_enrich",
    "/_eql",
    "/_features",
    "/_ilm",
    "/_index_template",
    "/_ingest",
    "/_ml",
    "/_mtermvectors",
    "/_msearch/template",
    "/_pit",
    "/_query",
    "/_rank_eval",
    "/_recovery",
    "/_reindex",
    "/_remote",
    "/_render",
    "/_rollup",
    "/_script_context",
    "/_script_language",
    "/_scripts",
    "/_search/scroll",
    "/_search/template",
    "/_search_shards",
    "/_security",
    "/_segments",
    "/_shard_stores",
    "/_slm",
    "/_snapshot",
    "/_sql",
    "/_tasks",
    "/_template",
    "/_transform",
    "/_watcher",
    "/{index}/_async_search",
    "/{index}/_block",
    "/{index}/_ccr",
    "/{index}/_clone",
    "/{index}/_delete_by_query",
    "/{index}/_disk_usage",
    "/{index}/_downsample",
    "/{index}/_eql",
    "/{index}/_field_usage_stats",
    "/{index}/_graph",
    "/{index}/_ilm",
    "/{index}/_knn_search",
    "/{index}/_msearch/template",
    "/{index}/_mtermvectors",
    "/{index}/_mvt",
    "/{index}/_pit",
    "/{index}/_rank_eval",
    "/{index}/_recovery",
    "/{index}/_rollover",
    "/{index}/_rollup",
    "/{index}/_search/template",
    "/{index}/_search_shards",
    "/{index}/_segments",
    "/{index}/_shard_stores",
    "/{index}/_shrink",
    "/{index}/_split",
    "/{index}/_terms_enum",
    "/{index}/_termvectors",
    "/{index}/_update_by_query",
];

/// Whether the path, in decoded segments, is or lies below one of Elasticsearch that is not here.
pub(crate) fn is_known(segments: &[String]) -> bool {
    PATHS.iter().any(|known| {
        let mut left = segments.iter();
        known.split('/').skip(1).all(|part| match (part, left.next()) {
            (_, None) => false,
            ("{index}", Some(index)) => !index.starts_with('_') || index == "_all",
            (part, Some(segment)) => part == segment,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(path: &str) -> bool {
        is_known(&path.split('/').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_lies_below_a_known_path_is_known() {
        assert!(known("_template") && known("_template/news") && known("_all/_segments"));
        assert!(known("news/_rollover/next"));
        assert!(!known("_templates") && !known("news/_doc/1") && !known("_news/_segments"));
        assert!(!known("news") && !known(""));
    }
}
