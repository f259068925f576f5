//! Rebuilds the logs of the groups from the records, in their order.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{DiskFile, GroupId};
use tracing::warn;

use crate::LogPos;
use crate::format::{FlushHeader, FlushKind, Record, Salt, What};
use crate::index::{GroupLog, Slot};
use crate::state::{Effect, LiveFile, State};
use crate::written::Written;

/// The logs as far as they were read.
#[derive(Default)]
pub(crate) struct Replay {
    /// What the records say; what the next file will begin with.
    pub(crate) written: Written,
    groups: BTreeMap<GroupId, GroupLog>,
    /// Entries up to this index lay in files that are gone. A later record must say that they
    /// were purged or truncated: that was the condition for the files to go.
    gone: BTreeMap<GroupId, u64>,
    effects: Vec<Effect>,
    ends: BTreeMap<u32, u32>,
    files: BTreeMap<u32, (Salt, Arc<dyn DiskFile>)>,
    flushes: u64,
    last_kind: Option<FlushKind>,
}

impl Replay {
    /// Whether the log was closed in order.
    pub(crate) fn closed(&self) -> bool {
        self.last_kind == Some(FlushKind::Closed)
    }

    /// Notes where the flushes of a file end.
    pub(crate) fn ends(&mut self, seq: u32, offset: u32) {
        self.ends.insert(seq, offset);
    }

    /// Adds a file that is in use.
    pub(crate) fn attach(&mut self, salt: Salt, reader: Arc<dyn DiskFile>) {
        self.files.insert(salt.file, (salt, reader));
    }

    /// Follows one flush. An error says what is impossible about it.
    pub(crate) fn flush(
        &mut self,
        header: &FlushHeader,
        records: Vec<(usize, Record)>,
    ) -> Result<(), String> {
        if header.kind == FlushKind::State {
            let state: Vec<Record> = records.into_iter().map(|(_, record)| record).collect();
            self.state(Written::from_state(&state))?;
        } else {
            for (at, record) in records {
                let offset = header.offset + u32::try_from(at).unwrap_or(u32::MAX);
                self.record(header.salt.file, offset, &record)?;
            }
        }
        self.flushes += 1;
        self.last_kind = Some(header.kind);
        Ok(())
    }

    fn state(&mut self, state: Written) -> Result<(), String> {
        if self.flushes > 0 {
            if state == self.written {
                return Ok(());
            }
            return Err("the state of the groups differs from the older files".to_owned());
        }
        for (group, begin) in &state.groups {
            let log = self.groups.entry(*group).or_default();
            log.vote = begin.vote.clone();
            log.committed = begin.committed;
            if let Some(purged) = begin.purged {
                log.purge(purged);
                self.effects.push(Effect::Purge { group: *group, index: purged.index });
            }
            if let Some(last) = begin.last
                && begin.purged.is_none_or(|purged| purged.index < last)
            {
                Self::set_gone(&mut self.gone, log, *group, last);
            }
        }
        self.written = state;
        Ok(())
    }

    /// Lets a log go on above entries that are gone, as if they were purged.
    fn set_gone(gone: &mut BTreeMap<GroupId, u64>, log: &mut GroupLog, group: GroupId, last: u64) {
        gone.insert(group, last);
        log.purged = None;
        log.purge(LogPos { term: 0, node: 0, index: last });
    }

    fn record(&mut self, file: u32, offset: u32, record: &Record) -> Result<(), String> {
        let group = record.group;
        self.written.apply(record);
        let purged = self.written.groups.get(&group).and_then(|state| state.purged);
        let log = self.groups.entry(group).or_default();
        match &record.what {
            What::Vote(vote) => log.vote = Some(vote.clone()),
            What::Committed(pos) => log.committed = Some(*pos),
            What::Entry(pos, body) => {
                if log.next().is_some_and(|next| next != pos.index) {
                    let index = pos.index;
                    return Err(format!("entry {index} of group {group} is out of order"));
                }
                let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
                log.push_slot(*pos, Slot { file, offset, len });
                self.effects.push(Effect::Entry { file, group, index: pos.index });
            }
            What::TruncateAfter(index) => {
                log.truncate_after(*index);
                self.effects.push(Effect::Truncate { group, index: *index });
                if let Some(gone) = self.gone.remove(&group) {
                    let left = index.map(|index| index.min(gone));
                    let left = left.filter(|left| purged.is_none_or(|p| p.index < *left));
                    match left {
                        Some(left) => Self::set_gone(&mut self.gone, log, group, left),
                        None => log.purged = purged,
                    }
                }
            }
            What::Purge(pos) => {
                if self.gone.get(&group).is_some_and(|gone| *gone <= pos.index) {
                    self.gone.remove(&group);
                    log.purged = None;
                }
                if !self.gone.contains_key(&group) {
                    log.purge(*pos);
                }
                self.effects.push(Effect::Purge { group, index: pos.index });
            }
        }
        Ok(())
    }

    /// Checks what only the end can tell.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        if let Some((group, last)) = self.gone.first_key_value() {
            return Err(format!("entries of group {group} up to {last} are missing"));
        }
        for (group, log) in &mut self.groups {
            let next = log.next().unwrap_or(0);
            (log.written_next, log.durable_next) = (next, next);
            if let Some(pos) = log.committed
                && !believable(log, pos)
            {
                // Never written by this code; without it the owner only applies less at first.
                warn!(%group, index = pos.index, "ignoring a committed position not in the log");
                log.committed = None;
            }
        }
        Ok(())
    }

    /// Hands over what was read.
    pub(crate) fn into_state(self, state: &mut State) -> Written {
        state.groups = self.groups;
        for (seq, (salt, reader)) in self.files {
            let end = self.ends.get(&seq).copied().unwrap_or(0);
            state.files.insert(seq, LiveFile { salt, reader, end, highest: BTreeMap::new() });
        }
        for effect in self.effects {
            state.settle(effect);
        }
        self.written
    }
}

/// Whether a position is in the log or below it.
fn believable(log: &GroupLog, pos: LogPos) -> bool {
    let below = log.purged.is_some_and(|purged| pos.index < purged.index);
    below || log.pos_at(pos.index) == Some(pos)
}
