//! What landed where, as a table or as JSON.

use serde_json::{Value, json};

use crate::demo::NAME;
use crate::demo::landed::Counts;
use crate::output::{bytes, table};

/// What is told at the end.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// Files on the server.
    pub(super) files: usize,
    /// What the ports count.
    pub(super) counts: Counts,
    /// Blocks of the stored files.
    pub(super) blocks: u64,
    /// Copies of blocks on each node, where the nodes tell.
    pub(super) copies: Option<Vec<u64>>,
    /// From the first connection to searchable.
    pub(super) seconds: f64,
}

impl Report {
    /// One JSON document.
    pub(super) fn json(&self) -> Value {
        let counts = &self.counts;
        json!({
            "files": self.files,
            "records": counts.records(),
            "records_per_partition": counts.partitions,
            "stored": counts.stored,
            "stored_bytes": counts.stored_bytes,
            "blocks": self.blocks,
            "block_copies": self.copies,
            "documents": counts.documents,
            "seconds": self.seconds,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let row =
            |what: &str, count: u64, place: String| vec![what.to_owned(), count.to_string(), place];
        let counts = &self.counts;
        let mut rows = vec![row("files by SFTP", self.files as u64, "sample/".to_owned())];
        for (partition, count) in (0..).zip(&counts.partitions) {
            rows.push(row("records", *count, format!("topic {NAME}, partition {partition}")));
        }
        let size = bytes(counts.stored_bytes);
        rows.push(row("stored files", counts.stored, format!("/datalake/{NAME}, {size}")));
        rows.push(row("blocks", self.blocks, "of these files".to_owned()));
        for (node, count) in (1..).zip(self.copies.iter().flatten()) {
            rows.push(row("block copies", *count, format!("on node {node}")));
        }
        rows.push(row("documents", counts.documents, format!("index {NAME}")));
        let table = table(&["what", "count", "where"], rows);
        format!("{table}\n{} s from the first connection to searchable", self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn report(copies: Option<Vec<u64>>) -> Report {
        let counts =
            Counts { partitions: vec![80, 90], stored: 170, stored_bytes: 4 << 20, documents: 170 };
        Report { files: 170, counts, blocks: 169, copies, seconds: 6.5 }
    }

    #[test]
    fn the_table_counts_what_each_node_has() {
        expect![[r#"
            what           count  where
            files by SFTP  170    sample/
            records        80     topic news, partition 0
            records        90     topic news, partition 1
            stored files   170    /datalake/news, 4.0 MiB
            blocks         169    of these files
            block copies   169    on node 1
            block copies   168    on node 2
            block copies   169    on node 3
            documents      170    index news
            6.5 s from the first connection to searchable"#]]
        .assert_eq(&report(Some(vec![169, 168, 169])).text());
    }

    #[test]
    fn copies_that_nobody_tells_are_not_made_up() {
        let report = report(None);
        assert!(!report.text().contains("copies"));
        assert_eq!(report.json()["block_copies"], Value::Null);
    }
}
