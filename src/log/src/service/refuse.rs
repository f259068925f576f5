//! Refusing single records of a batch, with Kafka's texts (`LogValidator`).

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::error::{LogError, RejectedRecord};
use crate::limits::MAX_REJECTED_RECORDS;
use crate::records::{RecordHead, scan};

/// Records without a key that are on their way to a compacted topic; an error if there are any.
pub(super) fn keyless(topic: &str, partition: i32, batch: &Bytes) -> Result<(), LogError> {
    let text = format!(
        "Compacted topic cannot accept message without key in topic partition {topic}-{partition}."
    );
    let rejected = rejected(batch, |record| record.key.is_none().then(|| text.clone()))?;
    if rejected.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = rejected
        .iter()
        .take(3)
        .map(|r| format!("RecordError(batchIndex={}, message='{}')", r.index, r.message))
        .collect();
    let message = format!(
        "One or more records have been rejected due to {} record errors in total, and only \
         showing the first three errors at most: [{}]",
        rejected.len(),
        shown.join(", ")
    );
    Err(LogError::RejectedRecords { code: 87, message, records: rejected })
}

/// Records whose timestamp lies outside `early..=late`; an error if there are any.
pub(super) fn untimely(batch: &Bytes, early: i64, late: i64) -> Result<(), LogError> {
    let rejected = rejected(batch, |record| {
        let time = record.timestamp_ms;
        (time != -1 && !(early..=late).contains(&time)).then(|| {
            format!(
                "Timestamp {time} of message with offset {} is out of range. The timestamp should \
                 be within [{early}, {late}]",
                record.offset
            )
        })
    })?;
    if rejected.is_empty() {
        return Ok(());
    }
    let message = "One or more records have been rejected due to invalid timestamp".to_owned();
    Err(LogError::RejectedRecords { code: 32, message, records: rejected })
}

fn rejected(
    batch: &Bytes,
    why: impl Fn(&RecordHead) -> Option<String>,
) -> Result<Vec<RejectedRecord>, LogError> {
    let (mut found, mut index) = (Vec::new(), 0i32);
    scan(batch, |record| {
        found.extend(why(&record).map(|message| RejectedRecord { index, message }));
        index += 1;
        match found.len() < MAX_REJECTED_RECORDS {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::build;
    use crate::records::RecordRef;

    fn batch() -> Bytes {
        let key = |key: Option<&'static [u8]>, timestamp_ms| RecordRef {
            key: key.map(Into::into),
            timestamp_ms,
            ..Default::default()
        };
        build(&[key(Some(b"k"), 50), key(None, 150), key(Some(b""), 250), key(None, 350)])
    }

    #[test]
    fn records_without_a_key_are_named() {
        let Err(LogError::RejectedRecords { code, message, records }) = keyless("t", 3, &batch())
        else {
            panic!("not refused")
        };
        assert_eq!((code, records.iter().map(|r| r.index).collect()), (87, vec![1, 3]));
        let text = "Compacted topic cannot accept message without key in topic partition t-3.";
        assert_eq!(records[0].message, text);
        assert!(message.contains("due to 2 record errors"), "{message}");
        assert!(message.contains(&format!("[RecordError(batchIndex=1, message='{text}'), ")));
    }

    #[test]
    fn records_out_of_time_are_named() {
        assert_eq!(untimely(&batch(), 50, 350), Ok(()));
        let Err(LogError::RejectedRecords { code, records, .. }) = untimely(&batch(), 100, 300)
        else {
            panic!("not refused")
        };
        assert_eq!((code, records.iter().map(|r| r.index).collect()), (32, vec![0, 3]));
    }
}
