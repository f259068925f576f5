//! Documents on their way to Tantivy's indexing thread.
//!
//! Tantivy queues ten thousand documents for each writer, and a tokenized document weighs ten to
//! twenty times its source. So a document is tokenized by the thread that takes it off the queue,
//! and what stands in the queues of a node is bounded in bytes by a [`Pipeline`].

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tantivy::TantivyDocument;
use tantivy::schema::Document;

use super::IndexOp;
use super::layout::{self, Fields, Slots};
use crate::limits;
use crate::mapping::ParsedDocument;

/// Bytes of documents in the queues of all shards that share it.
#[derive(Debug)]
pub struct Pipeline {
    limit: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self::new(limits::PIPELINE_BYTES)
    }
}

impl Pipeline {
    /// Holds up to `limit` bytes, and one document that is larger.
    pub fn new(limit: usize) -> Self {
        Self { limit, used: Mutex::new(0), freed: Condvar::new() }
    }

    /// Bytes in the queues now.
    pub fn used(&self) -> usize {
        *self.used.lock()
    }

    fn enter(self: &Arc<Self>, bytes: usize) -> Place {
        let mut used = self.used.lock();
        // A writer that failed drops its queue, so this ends; the time-out is for nothing missed.
        while *used > 0 && *used + bytes > self.limit {
            self.freed.wait_for(&mut used, Duration::from_millis(100));
        }
        *used += bytes;
        Place { pipeline: self.clone(), bytes }
    }
}

/// A document's share of the pipeline.
struct Place {
    pipeline: Arc<Pipeline>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.pipeline.used.lock() -= self.bytes;
        self.pipeline.freed.notify_all();
    }
}

/// A document that is not tokenized yet.
pub(crate) struct PendingDocument {
    fields: Arc<Fields>,
    slots: Arc<Slots>,
    op: IndexOp,
    parsed: ParsedDocument,
    built: OnceLock<TantivyDocument>,
    _place: Place,
}

impl PendingDocument {
    /// Waits for room in the pipeline.
    pub(crate) fn new(
        pipeline: &Arc<Pipeline>,
        fields: &Arc<Fields>,
        slots: Arc<Slots>,
        op: IndexOp,
        parsed: ParsedDocument,
    ) -> Self {
        // The source, and about as much again in parsed values.
        let place = pipeline.enter(limits::PENDING_DOCUMENT_BYTES + 2 * op.source.len());
        let fields = fields.clone();
        Self { fields, slots, op, parsed, built: OnceLock::new(), _place: place }
    }

    fn build(&self) -> TantivyDocument {
        layout::document(&self.fields, &self.slots, &self.op, &self.parsed)
    }
}

impl Document for PendingDocument {
    type Value<'a> = <TantivyDocument as Document>::Value<'a>;
    type FieldsValuesIter<'a> = <TantivyDocument as Document>::FieldsValuesIter<'a>;

    fn iter_fields_and_values(&self) -> Self::FieldsValuesIter<'_> {
        self.built.get_or_init(|| self.build()).iter_fields_and_values()
    }

    fn into_tantivy_document(self) -> TantivyDocument {
        self.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_wait_while_the_pipeline_is_full_but_a_large_one_goes_alone() {
        let pipeline = Arc::new(Pipeline::new(100));
        let large = pipeline.enter(500);
        let (entered, seen) = std::sync::mpsc::channel();
        let own = pipeline.clone();
        let thread = base::task::thread("waits", move || {
            let place = own.enter(60);
            entered.send(own.used()).unwrap();
            drop(place);
        });
        assert!(seen.recv_timeout(Duration::from_millis(300)).is_err(), "it waits");
        drop(large);
        assert_eq!(seen.recv().unwrap(), 60);
        thread.join().unwrap();
        assert_eq!(pipeline.used(), 0);
    }
}
