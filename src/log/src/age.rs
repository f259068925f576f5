//! How old a segment is, for retention.
//!
//! A segment's newest timestamp decides. Where none of its records has one (timestamp −1), Kafka
//! takes the time at which the segment's file was last changed. Here it is the time that the
//! leader stamped on the command of the newest batch: the same on all nodes, and the same again
//! when a command is replayed. It is kept in [`SegmentInfo::max_timestamp_ms`] as well, so that
//! rows have the format they always had: as `i64::MIN` plus the time, which lies below every
//! timestamp, so that searches by time pass it over and the first timestamp replaces it.

use segment::SegmentInfo;

/// What a stream is told of a batch: its newest timestamp, or when it was appended if it has none.
pub(crate) fn newest_or_appended(max_timestamp_ms: i64, appended_ms: i64) -> i64 {
    match max_timestamp_ms {
        0.. => max_timestamp_ms,
        // `i64::MIN` itself stands for a segment without a batch.
        ..0 => i64::MIN.saturating_add(appended_ms.max(1)),
    }
}

/// When the newest record of a segment was made, or appended if no record says. `None` for what an
/// earlier version or a compaction wrote, which note no time for records without timestamps.
pub(crate) fn newest_ms(segment: &SegmentInfo) -> Option<i64> {
    match segment.max_timestamp_ms {
        i64::MIN | -1 => None,
        newest @ 0.. => Some(newest),
        appended @ ..0 => Some(appended.wrapping_sub(i64::MIN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(batches: &[(i64, i64)]) -> Option<i64> {
        let noted = batches.iter().map(|(stamp, appended)| newest_or_appended(*stamp, *appended));
        let max_timestamp_ms = noted.fold(i64::MIN, i64::max);
        newest_ms(&SegmentInfo {
            base_offset: 0,
            generation: 0,
            len: 1,
            crc: 0,
            next_offset: 1,
            max_timestamp_ms,
        })
    }

    #[test]
    fn a_segment_is_as_old_as_its_timestamps_or_else_as_its_last_append() {
        assert_eq!(newest(&[]), None);
        assert_eq!(newest(&[(70, 1000), (60, 2000)]), Some(70));
        assert_eq!(newest(&[(-1, 1000), (-1, 2000)]), Some(2000));
        assert_eq!(newest(&[(-1, 1000), (0, 2000), (-1, 3000)]), Some(0), "as Kafka's");
        assert_eq!(newest(&[(i64::MIN, 1000)]), Some(1000));
        assert_eq!(newest(&[(-1, 1_700_000_000_000)]), Some(1_700_000_000_000));
    }
}
