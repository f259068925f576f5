//! Joining the answers of shards.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::phase::{ShardTop, TopHit, compare};
use super::{SearchRequest, TrackTotal};
use crate::aggs::AggregationStates;
use crate::error::Result;

/// A hit that made it, with the shard it is from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergedHit {
    /// Position of the shard in the list that was merged.
    pub shard: usize,
    /// The hit.
    pub hit: TopHit,
}

/// All shards together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// Documents that match.
    pub total: u64,
    /// Highest score.
    pub max_score: Option<f32>,
    /// Hits of the page in order.
    pub hits: Vec<MergedHit>,
    /// Aggregations.
    pub aggs: AggregationStates,
    /// Whether a shard stopped early.
    pub terminated_early: bool,
}

/// Numbers of the `_shards` object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardCounts {
    /// Shards asked.
    pub total: usize,
    /// Shards that answered.
    pub successful: usize,
    /// Shards left out because they cannot match.
    pub skipped: usize,
    /// Failures in Elasticsearch's shape.
    pub failures: Vec<Value>,
}

/// Chooses the hits of the page; the order of `tops` breaks ties.
pub fn merge(request: &SearchRequest, tops: Vec<ShardTop>) -> Result<Merged> {
    let mut merged = Merged::default();
    let order = request.order();
    for (shard, top) in tops.into_iter().enumerate() {
        merged.total += top.total;
        merged.terminated_early |= top.terminated_early;
        if let Some(score) = top.max_score {
            merged.max_score = Some(merged.max_score.unwrap_or(f32::MIN).max(score));
        }
        merged.aggs.merge(top.aggs)?;
        merged.hits.extend(top.hits.into_iter().map(|hit| MergedHit { shard, hit }));
    }
    // Stable: equal hits stay in order of shard and document.
    merged.hits.sort_by(|a, b| compare(&a.hit, &b.hit, &order));
    merged.hits = merged.hits.into_iter().skip(request.from).take(request.size).collect();
    Ok(merged)
}

/// The answer to `_search`. `hits` are the fetched documents in the order of `merged.hits`.
pub fn render(
    request: &SearchRequest,
    merged: &Merged,
    hits: Vec<Value>,
    shards: &ShardCounts,
    took_ms: u64,
) -> Result<Value> {
    let mut out = Map::new();
    out.insert("took".into(), json!(took_ms));
    out.insert("timed_out".into(), json!(false));
    if request.terminate_after.is_some() {
        out.insert("terminated_early".into(), json!(merged.terminated_early));
    }
    let mut counts = json!({
        "total": shards.total,
        "successful": shards.successful,
        "skipped": shards.skipped,
        "failed": shards.failures.len(),
    });
    if let (Value::Object(counts), false) = (&mut counts, shards.failures.is_empty()) {
        counts.insert("failures".into(), json!(shards.failures));
    }
    out.insert("_shards".into(), counts);
    let mut body = Map::new();
    let total = match request.track_total {
        TrackTotal::Off => None,
        TrackTotal::UpTo(limit) if merged.total > limit => Some((limit, "gte")),
        TrackTotal::Exact | TrackTotal::UpTo(_) => Some((merged.total, "eq")),
    };
    if let Some((value, relation)) = total {
        body.insert("total".into(), json!({"value": value, "relation": relation}));
    }
    let by_score = request.sort.is_empty() || request.track_scores || scored_first(request);
    let max_score = merged.max_score.filter(|_| by_score && request.size > 0);
    body.insert("max_score".into(), max_score.map_or(Value::Null, score_json));
    body.insert("hits".into(), Value::Array(hits));
    out.insert("hits".into(), Value::Object(body));
    if !request.aggs.is_empty() {
        out.insert("aggregations".into(), merged.aggs.render(&request.aggs)?);
    }
    Ok(Value::Object(out))
}

fn scored_first(request: &SearchRequest) -> bool {
    request.sort.iter().any(super::SortField::is_score)
}

/// A score with the digits of a 32-bit float.
pub(super) fn score_json(score: f32) -> Value {
    serde_json::from_str(&format!("{score:?}")).unwrap_or_else(|_| json!(score))
}
