//! Blocks that the settings of an index put on it, with the numbers and texts of Elasticsearch.
//!
//! The port asks here before it does what a client wants. Pipelines write on: their documents
//! would go to quarantine, and a block on clients is not meant for that.

use std::sync::Arc;

use crate::error::EsError;
use crate::model::IndexMeta;
use crate::settings::Settings;

/// What a request wants of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To look at documents.
    Read,
    /// To change documents.
    Write,
    /// To look at its definition.
    ReadMetadata,
    /// To change its definition.
    WriteMetadata,
    /// To remove it.
    Delete,
}

use Access::{Delete, Read, ReadMetadata, Write, WriteMetadata};

struct Block {
    setting: &'static str,
    status: u16,
    text: &'static str,
    forbids: &'static [Access],
}

const BLOCKS: &[Block] = &[
    Block {
        setting: "index.blocks.read_only",
        status: 403,
        text: "FORBIDDEN/5/index read-only (api)",
        forbids: &[Write, WriteMetadata, Delete],
    },
    Block {
        setting: "index.blocks.read",
        status: 403,
        text: "FORBIDDEN/7/index read (api)",
        forbids: &[Read],
    },
    Block {
        setting: "index.blocks.write",
        status: 403,
        text: "FORBIDDEN/8/index write (api)",
        forbids: &[Write],
    },
    Block {
        setting: "index.blocks.metadata",
        status: 403,
        text: "FORBIDDEN/9/index metadata (api)",
        forbids: &[ReadMetadata, WriteMetadata, Delete],
    },
    Block {
        setting: "index.blocks.read_only_allow_delete",
        status: 429,
        text: "TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has \
               read-only-allow-delete block",
        forbids: &[Write, WriteMetadata],
    },
];

/// Blocks that can be lifted while they forbid changes of the definition.
const LIFTED: &[&str] =
    &["index.blocks.read_only", "index.blocks.metadata", "index.blocks.read_only_allow_delete"];

/// Refuses what a block of one of these indices forbids.
pub fn check(indices: &[Arc<IndexMeta>], access: Access) -> Result<(), EsError> {
    let blocks = |meta: &Arc<IndexMeta>| blocks_of(&meta.settings, access);
    let found: Vec<_> = indices.iter().map(|meta| (meta.name(), blocks(meta))).collect();
    refuse(&found)
}

/// Refuses a change of settings that a block forbids. As in Elasticsearch, a change of such a
/// block alone is let through.
pub fn check_settings(indices: &[Arc<IndexMeta>], change: &Settings) -> Result<(), EsError> {
    let lifts = change.len() == 1 && change.keys().all(|name| LIFTED.contains(&name.as_str()));
    if lifts { Ok(()) } else { check(indices, WriteMetadata) }
}

fn blocks_of(settings: &Settings, access: Access) -> Vec<&'static Block> {
    let is_set = |name: &str| settings.get(name).and_then(|v| v.as_str()) == Some("true");
    let blocks = BLOCKS.iter().filter(|block| block.forbids.contains(&access));
    blocks.filter(|block| is_set(block.setting)).collect()
}

fn refuse(found: &[(&str, Vec<&'static Block>)]) -> Result<(), EsError> {
    let mut text = String::new();
    for (name, blocks) in found.iter().filter(|(_, blocks)| !blocks.is_empty()) {
        text.push_str(&format!("index [{name}] blocked by: "));
        blocks.iter().for_each(|block| text.push_str(&format!("[{}];", block.text)));
    }
    let statuses = found.iter().flat_map(|(_, blocks)| blocks).map(|block| block.status);
    // What is not to be tried again wins over what is.
    match statuses.min() {
        None => Ok(()),
        Some(status) => Err(EsError::new(status, "cluster_block_exception", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::flatten;
    use serde_json::{Value, json};

    fn answer(settings: Value, access: Access) -> Option<(u16, String)> {
        let blocks = blocks_of(&flatten(&settings).unwrap(), access);
        refuse(&[("a", blocks)]).err().map(|error| (error.status, error.reason))
    }

    #[test]
    fn each_block_forbids_what_it_forbids_in_elasticsearch() {
        const ALL: [Access; 5] = [Read, Write, ReadMetadata, WriteMetadata, Delete];
        for (name, forbidden) in [
            ("read_only", &[Write, WriteMetadata, Delete][..]),
            ("read_only_allow_delete", &[Write, WriteMetadata][..]),
            ("read", &[Read][..]),
            ("write", &[Write][..]),
            ("metadata", &[ReadMetadata, WriteMetadata, Delete][..]),
        ] {
            for access in ALL {
                let name = format!("blocks.{name}");
                let answered = answer(json!({ &name: true }), access).is_some();
                assert_eq!(answered, forbidden.contains(&access), "{name} {access:?}");
                assert_eq!(answer(json!({ name: false }), access), None);
            }
        }
    }

    #[test]
    fn texts_are_those_of_elasticsearch() {
        let text = "index [a] blocked by: [FORBIDDEN/8/index write (api)];".to_owned();
        assert_eq!(answer(json!({"blocks.write": true}), Write), Some((403, text)));
        let both = json!({"blocks": {"write": true, "read_only_allow_delete": true}});
        assert_eq!(answer(both, Write).map(|(status, _)| status), Some(403));
        let flood = json!({"blocks.read_only_allow_delete": true});
        assert_eq!(answer(flood, Write).map(|(status, _)| status), Some(429));
    }

    #[test]
    fn a_block_can_be_lifted() {
        let change = |value: Value| flatten(&value).unwrap();
        let lifted = check_settings(&[], &change(json!({"blocks.read_only": false})));
        assert_eq!(lifted, Ok(()));
    }
}
