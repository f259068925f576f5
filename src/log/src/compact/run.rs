//! Carrying a plan out: reading closed segments and writing what takes their place.

use std::io;

use segment::{FrameReader, SegmentInfo, Stream};

use super::filter::{Filter, Kept, Newest};
use super::survey::Survey;
use super::{Plan, PlanSpec};
use crate::batch::{BatchHeader, frame_info};
use crate::limits::COMPACTION_SPARE_BYTES;
use crate::partition::Partition;

/// Bytes read at once behind a plan's range.
const SURVEY_BYTES: usize = 256 * 1024;

/// Told of every byte read and written; may wait, and says whether to go on.
pub(crate) trait Pace {
    /// Waits as long as the rate asks for; false to give up.
    fn spend(&mut self, bytes: u64) -> bool;
    /// Free bytes where the partition lies.
    fn free_bytes(&self, stream: &Stream) -> io::Result<u64>;
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// There was no plan.
    Nothing,
    /// A plan was carried out: bytes before and after.
    Done { before: u64, after: u64 },
    /// The node stops, or the replica is gone; nothing was changed.
    Stopped,
}

/// Carries out a partition's oldest plan. Blocking; one thread of a node at a time.
pub(crate) fn run_next(part: &Partition, pace: &mut dyn Pace) -> io::Result<Ran> {
    // Held for as long as files are written: see `Partition::release`.
    let _alone = part.compacting.lock();
    let plan = part.state.lock().compaction.plans.first().cloned();
    let Some(plan) = plan else { return Ok(Ran::Nothing) };
    if part.stream.is_closed() {
        return Ok(Ran::Stopped);
    }
    part.stream.trim_aside(offset(plan.log_start));
    part.state.lock().dirty = true;
    part.stream.sync()?;
    let upto = offset(plan.spec.upto);
    let inputs: Vec<_> =
        part.stream.segments().into_iter().filter(|s| s.base_offset < upto).collect();
    let before: u64 = inputs.iter().map(|s| s.len).sum();
    let free = pace.free_bytes(&part.stream)?;
    if free < before.saturating_add(COMPACTION_SPARE_BYTES) {
        let text = format!("compaction of {before} bytes waits: {free} bytes are free");
        return Err(io::Error::new(io::ErrorKind::StorageFull, text));
    }
    let Some(made) = rewrite(&part.stream, &plan, &inputs, pace)? else {
        return Ok(Ran::Stopped);
    };
    part.stream.sync_names()?;
    if !part.finish_plan(&plan, &made)? {
        return Ok(Ran::Stopped);
    }
    Ok(Ran::Done { before, after: made.segments.iter().map(|s| s.len).sum() })
}

/// What a plan made.
pub(crate) struct Made {
    /// Takes the place of all segments of the range.
    pub(crate) segments: Vec<SegmentInfo>,
    /// When the next tombstone or marker may go.
    pub(crate) next_horizon_ms: i64,
    /// Offsets of the markers that went, in order.
    pub(crate) gone_markers: Vec<i64>,
}

/// Writes the new segments; `None` when told to give up.
fn rewrite(
    stream: &Stream,
    plan: &Plan,
    inputs: &[SegmentInfo],
    pace: &mut dyn Pace,
) -> io::Result<Option<Made>> {
    let mut survey = Survey::default();
    for segment in inputs {
        let mut frames = Frames { frames: stream.frames(segment)?, pace: &mut *pace };
        while let Some(Next { header, bytes }) = frames.next()? {
            survey.note(&header, &bytes, plan.spec.producers_since_ms);
        }
        if frames.gave_up(stream) {
            return Ok(None);
        }
    }
    if !survey_ends(stream, plan, &mut survey, pace)? {
        return Ok(None);
    }
    let mut newest = Newest::default();
    let dirty = |s: &&SegmentInfo| {
        s.next_offset > offset(plan.spec.from) && s.base_offset < offset(plan.spec.end)
    };
    for segment in inputs.iter().filter(dirty) {
        let mut frames = Frames { frames: stream.frames(segment)?, pace: &mut *pace };
        while let Some(Next { header, bytes }) = frames.next()? {
            if !header.is_control() && !survey.is_aborted(&header) && !survey.is_open(&header) {
                newest.note(&header, &bytes, plan);
            }
        }
        if frames.gave_up(stream) {
            return Ok(None);
        }
    }
    let range_end = inputs.last().map_or(0, |s| i64::try_from(s.next_offset).unwrap_or(i64::MAX));
    let mut filter = Filter::new(plan, &survey, &newest, range_end);
    let mut segments = Vec::new();
    for group in groups(inputs, &plan.spec) {
        match rewrite_group(stream, plan, group, &mut filter, pace)? {
            Some(segment) => segments.extend(segment),
            None => return Ok(None),
        }
    }
    let next_horizon_ms = filter.next_horizon_ms();
    Ok(Some(Made { segments, next_horizon_ms, gone_markers: filter.into_gone_markers() }))
}

/// Looks behind the range for the ends of transactions that began in it; false when told to give
/// up.
fn survey_ends(
    stream: &Stream,
    plan: &Plan,
    survey: &mut Survey,
    pace: &mut dyn Pace,
) -> io::Result<bool> {
    let (mut at, end) = (offset(plan.spec.upto), offset(plan.log_end));
    while survey.has_open() && at < end {
        let frames = stream.read(at, SURVEY_BYTES)?;
        if frames.is_empty() {
            break;
        }
        for bytes in frames {
            let header = BatchHeader::parse(&bytes).map_err(|e| damaged(&e.to_string()))?;
            at = offset(header.next_offset());
            // What came after the plan differs from node to node.
            if at <= end {
                survey.note_end(&header, &bytes);
            }
            if !pace.spend(bytes.len() as u64) || stream.is_closed() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// One new segment out of several old ones; no segment when no batch stays.
fn rewrite_group(
    stream: &Stream,
    plan: &Plan,
    group: &[SegmentInfo],
    filter: &mut Filter<'_>,
    pace: &mut dyn Pace,
) -> io::Result<Option<Option<SegmentInfo>>> {
    let base = group.first().map_or(0, |s| s.base_offset);
    let mut out = stream.rewrite(base, plan.generation);
    for segment in group {
        let mut frames = Frames { frames: stream.frames(segment)?, pace: &mut *pace };
        while let Some(Next { header, bytes }) = frames.next()? {
            let kept = match filter.judge(&header, &bytes) {
                Kept::Gone => continue,
                Kept::Same => bytes,
                Kept::Changed(bytes) => bytes,
            };
            let info = frame_info(&kept).ok_or_else(|| damaged("a compacted batch"))?;
            let (len, from) = (info.len, (info.base_offset, info.next_offset));
            assert_eq!(from, (offset(header.base_offset), offset(header.next_offset())));
            out.push(&info, kept)?;
            frames.spend(len);
        }
        if frames.gave_up(stream) {
            return Ok(None);
        }
    }
    out.finish().map(Some)
}

/// Old segments that become one new segment each: as many as fit by their lengths, as Kafka's
/// cleaner groups them.
fn groups<'a>(inputs: &'a [SegmentInfo], spec: &PlanSpec) -> Vec<&'a [SegmentInfo]> {
    let mut groups = Vec::new();
    let (mut start, mut bytes) = (0, 0u64);
    for (i, segment) in inputs.iter().enumerate() {
        let first = inputs.get(start).map_or(0, |s| s.base_offset);
        let wide = segment.next_offset.saturating_sub(first) > u64::from(i32::MAX.unsigned_abs());
        if i > start && (bytes.saturating_add(segment.len) > spec.segment_bytes || wide) {
            groups.extend(inputs.get(start..i));
            (start, bytes) = (i, 0);
        }
        bytes = bytes.saturating_add(segment.len);
    }
    groups.extend(inputs.get(start..).filter(|rest| !rest.is_empty()));
    groups
}

struct Next {
    header: BatchHeader,
    bytes: bytes::Bytes,
}

/// The batches of one segment, at the pace allowed.
struct Frames<'a> {
    frames: FrameReader,
    pace: &'a mut dyn Pace,
}

impl Frames<'_> {
    /// The next batch; `None` at the end or when told to give up.
    fn next(&mut self) -> io::Result<Option<Next>> {
        let Some((info, bytes)) = self.frames.next_frame()? else { return Ok(None) };
        if !self.pace.spend(info.len) {
            return Ok(None);
        }
        let header = BatchHeader::parse(&bytes).map_err(|e| damaged(&e.to_string()))?;
        Ok(Some(Next { header, bytes }))
    }

    fn spend(&mut self, bytes: u64) {
        // Whether to go on is asked again with the next batch.
        self.pace.spend(bytes);
    }

    /// Whether the end was not reached, or the replica is gone.
    fn gave_up(&mut self, stream: &Stream) -> bool {
        !self.pace.spend(0) || stream.is_closed()
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("compaction: {what}"))
}

fn offset(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
