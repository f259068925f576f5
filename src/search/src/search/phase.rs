//! The query phase on one shard.

use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};
use tantivy::query::{EnableScoring, Query as TantivyQuery, Weight};
use tantivy::{DocId, DocSet, SegmentReader, TERMINATED};

use super::SearchRequest;
use super::sort::{Comparable, SegmentLevel, SortField, SortValue};
use crate::aggs::{AggregationStates, SegmentRun};
use crate::error::Result;
use crate::query::{Query, QueryContext, compile};
use crate::shard::ShardSnapshot;

/// A candidate of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopHit {
    /// Score, when scores were asked for.
    pub score: Option<f32>,
    /// One value per level of order.
    pub sort: Vec<SortValue>,
    /// Segment in the snapshot.
    pub segment: u32,
    /// Document in the segment.
    pub doc: u32,
}

/// What a shard found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardTop {
    /// Documents that match.
    pub total: u64,
    /// Highest score.
    pub max_score: Option<f32>,
    /// The best documents in order, at most `from + size`.
    pub hits: Vec<TopHit>,
    /// Aggregations.
    pub aggs: AggregationStates,
    /// Whether `terminate_after` stopped the collection.
    pub terminated_early: bool,
}

/// Number of live documents that match a query.
pub fn count(snapshot: &ShardSnapshot, query: &Query, context: &QueryContext) -> Result<u64> {
    let query = compile(query, snapshot, context)?;
    Ok(query.count(&snapshot.searcher)? as u64)
}

/// Finds the best documents of a shard and aggregates.
pub fn execute_query_phase(
    snapshot: &ShardSnapshot,
    request: &SearchRequest,
    context: &QueryContext,
) -> Result<ShardTop> {
    let searcher = &snapshot.searcher;
    let query = compile(&request.query, snapshot, context)?;
    let scoring = if request.needs_scores() {
        EnableScoring::enabled_from_searcher(searcher)
    } else {
        EnableScoring::disabled_from_searcher(searcher)
    };
    let weight = query.weight(scoring)?;
    let post_filter = match &request.post_filter {
        Some(filter) => {
            let filter = compile(filter, snapshot, context)?;
            Some(filter.weight(EnableScoring::disabled_from_searcher(searcher))?)
        }
        None => None,
    };
    let order = request.order();
    let mut top = ShardTop::default();
    let mut base = 0;
    for (segment, reader) in searcher.segment_readers().iter().enumerate() {
        let mut collector = Collector {
            request,
            reader,
            levels: levels(&order, snapshot, context, reader, base)?,
            after: None,
            heap: BinaryHeap::new(),
            top: &mut top,
        };
        collector.after = collector.after_key()?;
        if collector.is_plain() {
            collector.plain(weight.as_ref())?;
        } else {
            let docs = collector.full(weight.as_ref(), post_filter.as_deref())?;
            if !request.aggs.is_empty() {
                let run = SegmentRun { snapshot, context, reader, query: &request.query };
                let states = run.collect(&request.aggs, &docs)?;
                collector.top.aggs.merge(states)?;
            }
        }
        collector.finish(segment as u32)?;
        base += u64::from(reader.max_doc());
        if top.terminated_early {
            break;
        }
    }
    if top.aggs.is_empty() && !request.aggs.is_empty() {
        top.aggs = request.aggs.empty_states(snapshot)?;
    }
    top.aggs.shrink(&request.aggs);
    sort_hits(&mut top.hits, &order);
    top.hits.truncate(request.window());
    Ok(top)
}

fn levels<'a>(
    order: &'a [SortField],
    snapshot: &ShardSnapshot,
    context: &QueryContext,
    reader: &SegmentReader,
    base: u64,
) -> Result<Vec<SegmentLevel<'a>>> {
    order.iter().map(|spec| SegmentLevel::open(spec, snapshot, context, reader, base)).collect()
}

pub(super) fn compare(left: &TopHit, right: &TopHit, order: &[SortField]) -> std::cmp::Ordering {
    for (index, spec) in order.iter().enumerate() {
        if let (Some(a), Some(b)) = (left.sort.get(index), right.sort.get(index)) {
            let found = spec.compare(a, b);
            if found.is_ne() {
                return found;
            }
        }
    }
    std::cmp::Ordering::Equal
}

fn sort_hits(hits: &mut [TopHit], order: &[SortField]) {
    hits.sort_by(|a, b| compare(a, b, order).then((a.segment, a.doc).cmp(&(b.segment, b.doc))));
}

type Candidate = (Vec<Comparable>, DocId, u32);

struct Collector<'a> {
    request: &'a SearchRequest,
    reader: &'a SegmentReader,
    levels: Vec<SegmentLevel<'a>>,
    after: Option<Vec<Comparable>>,
    /// The worst of the best on top.
    heap: BinaryHeap<Candidate>,
    top: &'a mut ShardTop,
}

impl Collector<'_> {
    fn after_key(&self) -> Result<Option<Vec<Comparable>>> {
        let Some(values) = &self.request.search_after else { return Ok(None) };
        let keys = self.levels.iter().zip(values).map(|(level, value)| level.after(value));
        keys.collect::<Result<Vec<_>>>().map(Some)
    }

    /// Best scores only: documents that cannot win need not be scored.
    fn is_plain(&self) -> bool {
        let request = self.request;
        request.sort.is_empty()
            && request.aggs.is_empty()
            && request.post_filter.is_none()
            && request.min_score.is_none()
            && request.search_after.is_none()
            && request.terminate_after.is_none()
            && !request.track_scores
    }

    fn plain(&mut self, weight: &dyn Weight) -> Result<()> {
        let request = self.request;
        if request.track_total != super::TrackTotal::Off || request.window() == 0 {
            self.top.total += u64::from(weight.count(self.reader)?);
        }
        if request.window() == 0 {
            return Ok(());
        }
        let alive = self.reader.alive_bitset();
        let window = request.window();
        let (levels, heap) = (&self.levels, &mut self.heap);
        weight.for_each_pruning(f32::MIN, self.reader, &mut |doc, score| {
            if alive.is_none_or(|alive| alive.is_alive(doc)) {
                offer(heap, levels, doc, score, window, None);
            }
            match heap.peek() {
                Some((_, _, worst)) if heap.len() >= window => f32::from_bits(*worst),
                _ => f32::MIN,
            }
        })?;
        Ok(())
    }

    /// Every document is looked at; those that match are returned for aggregations.
    fn full(
        &mut self,
        weight: &dyn Weight,
        post_filter: Option<&dyn Weight>,
    ) -> Result<Vec<DocId>> {
        let request = self.request;
        let scored = request.needs_scores();
        let mut filter = post_filter.map(|w| w.scorer(self.reader, 1.0)).transpose()?;
        let mut scorer = weight.scorer(self.reader, 1.0)?;
        let alive = self.reader.alive_bitset();
        let keep = !request.aggs.is_empty();
        let mut docs = Vec::new();
        let mut doc = scorer.doc();
        while doc != TERMINATED {
            let current = doc;
            let score =
                if scored && alive.is_none_or(|a| a.is_alive(doc)) { scorer.score() } else { 0.0 };
            doc = scorer.advance();
            if alive.is_some_and(|alive| !alive.is_alive(current))
                || request.min_score.is_some_and(|min| score < min)
            {
                continue;
            }
            if keep {
                docs.push(current);
            }
            if let Some(filter) = &mut filter {
                if filter.doc() < current {
                    filter.seek(current);
                }
                if filter.doc() != current {
                    continue;
                }
            }
            self.top.total += 1;
            if scored {
                self.top.max_score = Some(self.top.max_score.unwrap_or(f32::MIN).max(score));
            }
            let after = self.after.as_deref();
            offer(&mut self.heap, &self.levels, current, score, request.window(), after);
            if request.terminate_after.is_some_and(|limit| self.top.total >= limit) {
                self.top.terminated_early = true;
                break;
            }
        }
        Ok(docs)
    }

    /// Moves the best of this segment to the result.
    fn finish(self, segment: u32) -> Result<()> {
        let scored = self.request.needs_scores();
        for (keys, doc, score) in self.heap.into_vec() {
            let values = self.levels.iter().zip(&keys).map(|(level, key)| level.value(*key));
            let sort = values.collect::<Result<Vec<_>>>()?;
            let score = scored.then(|| f32::from_bits(score));
            if let Some(score) = score {
                self.top.max_score = Some(self.top.max_score.unwrap_or(f32::MIN).max(score));
            }
            self.top.hits.push(TopHit { score, sort, segment, doc });
        }
        Ok(())
    }
}

fn offer(
    heap: &mut BinaryHeap<Candidate>,
    levels: &[SegmentLevel<'_>],
    doc: DocId,
    score: f32,
    window: usize,
    after: Option<&[Comparable]>,
) {
    if window == 0 {
        return;
    }
    let keys: Vec<Comparable> = levels.iter().map(|level| level.key(doc, score)).collect();
    if after.is_some_and(|after| keys.as_slice() <= after) {
        return;
    }
    if heap.len() < window {
        heap.push((keys, doc, score.to_bits()));
    } else if heap.peek().is_some_and(|(worst, _, _)| keys < *worst) {
        heap.pop();
        heap.push((keys, doc, score.to_bits()));
    }
}
