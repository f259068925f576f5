//! Reading entries: from the tail cache, else from the files.

use std::io;
use std::sync::Arc;

use base::{DiskFile, GroupId};
use bytes::Bytes;

use crate::format::{Record, Salt, What, decode_record};
use crate::index::Slot;
use crate::limits::READ_AHEAD_BYTES;
use crate::state::State;
use crate::window::Window;
use crate::{LogPos, WalEntry};

/// Where the body of an entry is to be had.
enum Source {
    Memory(Bytes),
    File { salt: Salt, reader: Arc<dyn DiskFile>, slot: Slot },
}

/// Entries to read, found under the lock and read without it.
#[derive(Default)]
pub(crate) struct Plan {
    entries: Vec<(LogPos, Source)>,
}

impl State {
    /// Plans to read entries from `from` on: consecutive, below `to`, at least one where there
    /// is one, and no more once `max_bytes` are exceeded.
    pub(crate) fn plan(&mut self, group: GroupId, from: u64, to: u64, max_bytes: usize) -> Plan {
        let mut plan = Plan::default();
        let Some(log) = self.groups.get(&group) else { return plan };
        let mut bytes = 0usize;
        for index in from..to {
            // The position of the last purged entry is known, but the entry has no slot.
            let (Some(slot), Some(pos)) = (log.slot(index), log.pos_at(index)) else { break };
            bytes = bytes.saturating_add(slot.len as usize);
            if bytes > max_bytes && !plan.entries.is_empty() {
                break;
            }
            let source = match (log.cached(index), self.files.get(&slot.file)) {
                (Some(body), _) => Source::Memory(body.clone()),
                (None, Some(file)) => {
                    self.stats.cache_misses += 1;
                    Source::File { salt: file.salt, reader: file.reader.clone(), slot }
                }
                (None, None) => unreachable!("the file of an entry in the log is in use"),
            };
            plan.entries.push((pos, source));
        }
        plan
    }
}

impl Plan {
    /// Reads what was planned.
    pub(crate) fn read(self, group: GroupId) -> io::Result<Vec<WalEntry>> {
        let mut window: Option<(u32, Window)> = None;
        let mut entries = Vec::with_capacity(self.entries.len());
        for (pos, source) in self.entries {
            let body = match source {
                Source::Memory(body) => body,
                Source::File { salt, reader, slot } => {
                    let open = match window.take() {
                        Some((file, open)) if file == slot.file => open,
                        _ => Window::new(reader, READ_AHEAD_BYTES)?,
                    };
                    let (_, window) = window.insert((slot.file, open));
                    read_one(window, group, pos, salt, slot)?
                }
            };
            entries.push(WalEntry { pos, body });
        }
        Ok(entries)
    }
}

fn read_one(
    window: &mut Window,
    group: GroupId,
    pos: LogPos,
    salt: Salt,
    slot: Slot,
) -> io::Result<Bytes> {
    let empty = Record { group, what: What::Entry(pos, Bytes::new()) };
    let length = (empty.encoded_len() + slot.len as usize).next_multiple_of(8);
    let bytes = window.bytes(u64::from(slot.offset), length)?;
    let wrong = |why: &str| {
        let place = format!("entry {} of group {group} in log file {}", pos.index, slot.file);
        io::Error::new(io::ErrorKind::InvalidData, format!("{place}: {why}"))
    };
    match decode_record(bytes, salt) {
        Ok((Record { group: g, what: What::Entry(p, body) }, _)) if g == group && p == pos => {
            Ok(body)
        }
        Ok(_) => Err(wrong("another record lies there")),
        Err(bad) => Err(wrong(&bad.to_string())),
    }
}
