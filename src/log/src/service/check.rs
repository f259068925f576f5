//! Checks of a batch before it is proposed: size, records, times.
//!
//! Small batches are looked through where they come in, what unfolds to much on a thread that may
//! block. The caller holds the partition's [`Partition::order`](crate::partition::Partition) while
//! a batch is checked and gives it back with the proposal, so that a batch whose check takes long
//! is not overtaken by a later one of its producer.

use bytes::Bytes;

use super::fetch::blocking;
use super::{LogService, refuse};
use crate::batch::{self, BatchHeader};
use crate::configs::TimestampType;
use crate::error::LogError;
use crate::limits::{INLINE_CHECK_BYTES, MAX_DECOMPRESSED_BYTES};
use crate::types::Topic;
use crate::walk::{WalkError, Walked, walk};

/// A batch that may be proposed.
pub(super) struct Checked {
    /// As it will be stored, but for what apply sets.
    pub(super) batch: Bytes,
    /// The newest timestamp of a record where the header has another: searches by time rely on
    /// it, so the broker puts it right, as Kafka does.
    pub(super) max_timestamp_ms: Option<i64>,
}

impl LogService {
    /// Checks a batch for a partition and its records, and compresses it as the topic says.
    pub(super) async fn check(
        &self,
        topic: &Topic,
        partition: i32,
        batch: Bytes,
    ) -> Result<Checked, LogError> {
        let settings = &topic.settings;
        if batch.len() > settings.max_message_bytes {
            let (bytes, limit) = (batch.len(), settings.max_message_bytes);
            return Err(LogError::MessageTooLarge { bytes, limit });
        }
        let header = batch::validate(&batch)?;
        let walked = self.walk(&batch, header).await?;
        if settings.timestamp_type == TimestampType::CreateTime {
            let now = self.now_ms();
            let late = now.saturating_add(settings.timestamp_after_max_ms);
            let early = now.saturating_sub(settings.timestamp_before_max_ms);
            // A record without a timestamp has −1.
            let too_early = walked.min_timestamp_ms >= 0 && walked.min_timestamp_ms < early;
            if walked.max_timestamp_ms > late || too_early {
                let batch = batch.clone();
                // The semaphore is never closed, here and below.
                let _turn = self.0.batch_checks.acquire().await;
                blocking(move || refuse::untimely(&batch, early, late)).await?;
                return Err(LogError::InvalidTimestamp);
            }
        }
        if walked.has_null_key && settings.compaction.is_some() {
            let (batch, name) = (batch.clone(), topic.name.clone());
            let _turn = self.0.batch_checks.acquire().await;
            blocking(move || refuse::keyless(&name, partition, &batch)).await?;
        }
        let other = walked.max_timestamp_ms != header.max_timestamp_ms;
        let max_timestamp_ms = other.then_some(walked.max_timestamp_ms);
        let batch = self.as_stored(topic, batch).await?;
        Ok(Checked { batch, max_timestamp_ms })
    }

    /// Looks through the records: small ones here, what unfolds to much where it blocks nobody.
    async fn walk(&self, batch: &Bytes, header: BatchHeader) -> Result<Walked, LogError> {
        let result = match walk(batch, &header, INLINE_CHECK_BYTES) {
            Err(WalkError::TooLarge) => {
                let _turn = self.0.batch_checks.acquire().await;
                let batch = batch.clone();
                let check = move || walk(&batch, &header, MAX_DECOMPRESSED_BYTES);
                let done = tokio::task::spawn_blocking(check).await;
                done.map_err(|e| LogError::Internal(e.to_string()))?
            }
            result => result,
        };
        result.map_err(|error| match error {
            WalkError::Batch(error) => error.into(),
            WalkError::TooLarge => {
                LogError::InvalidRecord("records decompress to too much".to_owned())
            }
        })
    }
}
