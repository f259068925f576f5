//! Numbers in columns: ranges and sets of values.

use std::ops::RangeInclusive;

use tantivy::columnar::Column;
use tantivy::query::{
    BitSetDocSet, ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight,
};
use tantivy::{BitSet, DocId, Score, SegmentReader};

use crate::mapping::ValueClass;
use crate::shard::column_name;

/// The column of a number path in one segment.
#[derive(Clone)]
pub(crate) enum NumberColumn {
    /// Integers, dates, booleans.
    Long(Column<i64>),
    /// Floats.
    Double(Column<f64>),
}

impl NumberColumn {
    /// Opens a column; `None` when no document of the segment has a value.
    pub(crate) fn open(
        reader: &SegmentReader,
        class: ValueClass,
        path: &str,
    ) -> tantivy::Result<Option<Self>> {
        let name = column_name(class, path);
        let columns = reader.fast_fields();
        Ok(match class {
            ValueClass::Long => columns.column_opt::<i64>(&name)?.map(Self::Long),
            ValueClass::Double => columns.column_opt::<f64>(&name)?.map(Self::Double),
            ValueClass::Text | ValueClass::Keyword | ValueClass::None => None,
        })
    }

    /// Values of a document as floats, which is how Elasticsearch aggregates.
    pub(crate) fn each(&self, doc: DocId, mut visit: impl FnMut(f64)) {
        match self {
            Self::Long(column) => column.values_for_doc(doc).for_each(|v| visit(v as f64)),
            Self::Double(column) => column.values_for_doc(doc).for_each(visit),
        }
    }
}

/// Documents with a value in one of some ranges.
#[derive(Clone, Debug)]
pub(crate) enum ColumnRangeQuery {
    /// On a column of integers.
    Long { path: String, ranges: Vec<RangeInclusive<i64>> },
    /// On a column of floats.
    Double { path: String, ranges: Vec<RangeInclusive<f64>> },
}

impl Query for ColumnRangeQuery {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(ColumnRangeWeight(self.clone())))
    }
}

struct ColumnRangeWeight(ColumnRangeQuery);

impl ColumnRangeWeight {
    fn collect(&self, reader: &SegmentReader) -> tantivy::Result<BitSet> {
        let mut docs = BitSet::with_max_value(reader.max_doc());
        let mut found = Vec::new();
        match &self.0 {
            ColumnRangeQuery::Long { path, ranges } => {
                let column = NumberColumn::open(reader, ValueClass::Long, path)?;
                if let Some(NumberColumn::Long(column)) = column {
                    for range in ranges.iter().filter(|range| !range.is_empty()) {
                        scan(&column, range.clone(), reader, &mut found, &mut docs);
                    }
                }
            }
            ColumnRangeQuery::Double { path, ranges } => {
                let column = NumberColumn::open(reader, ValueClass::Double, path)?;
                if let Some(NumberColumn::Double(column)) = column {
                    for range in ranges.iter().filter(|range| !range.is_empty()) {
                        scan(&column, range.clone(), reader, &mut found, &mut docs);
                    }
                }
            }
        }
        Ok(docs)
    }
}

fn scan<T: PartialOrd + Copy + Send + Sync + std::fmt::Debug + 'static>(
    column: &Column<T>,
    range: RangeInclusive<T>,
    reader: &SegmentReader,
    found: &mut Vec<DocId>,
    docs: &mut BitSet,
) {
    // The bit-packed codec moves a bound below its lowest value up to that value, and would answer
    // a range that ends below all values with the lowest ones.
    if *range.end() < column.min_value() || *range.start() > column.max_value() {
        return;
    }
    found.clear();
    column.get_docids_for_value_range(range, 0..reader.max_doc(), found);
    for doc in found.iter() {
        docs.insert(*doc);
    }
}

impl Weight for ColumnRangeWeight {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let docs = BitSetDocSet::from(self.collect(reader)?);
        Ok(Box::new(ConstScorer::new(docs, boost)))
    }

    fn explain(&self, reader: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        super::multiterm::explain_constant(self, reader, doc)
    }
}
