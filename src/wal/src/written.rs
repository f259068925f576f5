//! The state of the groups as the written records say, in their order. The writer keeps it to
//! begin a new file with, recovery rebuilds it and compares.

use std::collections::BTreeMap;

use base::GroupId;
use bytes::Bytes;

use crate::LogPos;
use crate::format::{Record, What};

/// What the written records say about one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupState {
    pub(crate) purged: Option<LogPos>,
    /// Index of the last entry, or of the last purged one.
    pub(crate) last: Option<u64>,
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<LogPos>,
}

/// The state of all groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) groups: BTreeMap<GroupId, GroupState>,
}

impl Written {
    /// Follows one record.
    pub(crate) fn apply(&mut self, record: &Record) {
        let state = self.groups.entry(record.group).or_default();
        let purged = state.purged.map(|p| p.index);
        match &record.what {
            What::Entry(pos, _) => state.last = Some(pos.index),
            What::Vote(vote) => state.vote = Some(vote.clone()),
            What::TruncateAfter(None) => state.last = purged,
            What::TruncateAfter(Some(index)) => {
                state.last = state.last.map(|last| last.min(*index)).max(purged);
            }
            What::Purge(pos) => {
                if purged.is_none_or(|p| p < pos.index) {
                    state.purged = Some(*pos);
                    state.last = state.last.max(Some(pos.index));
                }
            }
            What::Committed(pos) => state.committed = Some(*pos),
        }
    }

    /// The records that a new file begins with. Applied to an empty [`Written`] as
    /// [`Written::from_state`] does, they give this state again.
    pub(crate) fn state_records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (group, state) in &self.groups {
            let mut add = |what| records.push(Record { group: *group, what });
            // `last` goes first: a truncation is only meaningful with the end it leaves.
            add(What::TruncateAfter(state.last));
            if let Some(purged) = state.purged {
                add(What::Purge(purged));
            }
            if let Some(vote) = &state.vote {
                add(What::Vote(vote.clone()));
            }
            if let Some(committed) = state.committed {
                add(What::Committed(committed));
            }
        }
        records
    }

    /// The state that a file begins with.
    pub(crate) fn from_state(records: &[Record]) -> Self {
        let mut written = Self::default();
        for record in records {
            match record.what {
                // In a state flush this says where the log ends.
                What::TruncateAfter(last) => {
                    written.groups.entry(record.group).or_default().last = last;
                }
                _ => written.apply(record),
            }
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(written: &mut Written, what: What) {
        written.apply(&Record { group: GroupId::FS, what });
    }

    fn pos(index: u64) -> LogPos {
        LogPos { term: 1, node: 1, index }
    }

    #[test]
    fn state_records_carry_everything() {
        let mut written = Written::default();
        for i in 0..10 {
            apply(&mut written, What::Entry(pos(i), Bytes::new()));
        }
        apply(&mut written, What::Vote(Bytes::from_static(b"v")));
        apply(&mut written, What::Purge(pos(3)));
        apply(&mut written, What::TruncateAfter(Some(7)));
        apply(&mut written, What::Committed(pos(5)));
        written.groups.entry(GroupId::M0).or_default();
        let records = written.state_records();
        assert_eq!(Written::from_state(&records), written);
        assert_eq!(written.groups[&GroupId::FS].last, Some(7));
    }

    #[test]
    fn the_end_never_lies_below_the_purged() {
        let mut written = Written::default();
        apply(&mut written, What::Purge(pos(9)));
        apply(&mut written, What::TruncateAfter(Some(4)));
        assert_eq!(written.groups[&GroupId::FS].last, Some(9));
        apply(&mut written, What::TruncateAfter(None));
        assert_eq!(written.groups[&GroupId::FS].last, Some(9));
    }
}
