//! Endpoint → handler.

use index::EsError;
use index::model::IndexState;
use index::remote::Maintenance;
use serde_json::json;

use crate::app::{App, Request};
use crate::reply::Reply;
use crate::routes::Endpoint as E;
use crate::server::unsupported;

impl App {
    /// Answers a request whose route was found.
    pub async fn dispatch(&self, endpoint: E, request: &Request) -> Result<Reply, EsError> {
        match endpoint {
            E::Info => Ok(self.info(request)),
            E::IndexCreate => self.index_create(request).await,
            E::IndexDelete => self.index_delete(request).await,
            E::IndexGet => self.index_get(request).await,
            E::MappingGet => self.mapping_get(request).await,
            E::MappingPut => self.mapping_put(request).await,
            E::FieldMapping => self.field_mapping(request).await,
            E::SettingsGet => self.settings_get(request).await,
            E::SettingsPut => self.settings_put(request).await,
            E::AliasGet => self.alias_get(request).await,
            E::AliasPut => self.alias_put(request).await,
            E::AliasDelete => self.alias_delete(request).await,
            E::AliasesUpdate => self.aliases_update(request).await,
            E::Open => self.set_state(request, IndexState::Open).await,
            E::Close => self.set_state(request, IndexState::Closed).await,
            E::Refresh => self.refresh(request).await,
            E::Flush => self.maintain(request, Maintenance::Flush).await,
            E::ForceMerge => self.maintain(request, Maintenance::Merge).await,
            E::ClearCache => self.clear_cache(request).await,
            E::Stats => self.stats(request).await,
            E::Analyze => self.analyze(request).await,
            E::Resolve => self.resolve_index(request).await,
            E::DocIndex => self.doc_index(request, false).await,
            E::DocCreate => self.doc_index(request, true).await,
            E::DocGet => self.doc_get(request).await,
            E::DocDelete => self.doc_delete(request).await,
            E::DocSource => self.doc_source(request).await,
            E::DocUpdate => self.doc_update(request).await,
            E::Mget => self.mget(request).await,
            E::Bulk => self.bulk(request).await,
            E::Search => self.search(request).await,
            E::Msearch => self.msearch(request).await,
            E::Count => self.count(request).await,
            E::FieldCaps => self.field_caps(request).await,
            E::Validate | E::Explain | E::Unsupported => Err(unsupported(request)),
            E::CatHelp => Ok(self.cat_help()),
            E::CatIndices => self.cat_indices(request).await,
            E::CatHealth => self.cat_health(request).await,
            E::CatShards => self.cat_shards(request).await,
            E::CatNodes => self.cat_nodes(request).await,
            E::CatCount => self.cat_count(request).await,
            E::CatAliases => self.cat_aliases(request).await,
            E::CatMaster => self.cat_master(request),
            E::CatTemplates => self.cat_templates(request),
            E::CatAllocation => self.cat_allocation(request).await,
            E::ClusterHealth => self.cluster_health(request).await,
            E::ClusterStats => self.cluster_stats(request).await,
            E::ClusterState => self.cluster_state(request).await,
            E::ClusterSettings => self.cluster_settings(request),
            E::PendingTasks => Ok(Reply::ok(json!({"tasks": []}))),
            E::NodesInfo => Ok(self.nodes_info(request)),
            E::NodesStats => Ok(self.nodes_stats()),
            E::License => Ok(self.license()),
            E::Xpack => Ok(self.xpack()),
        }
    }
}
