//! Commands about blocks: reservations, replica bits, doomed blocks.

use super::{BlockRow, Doomed, Namespace, Reservation};
use crate::command::{NewBlock, Outcome};
use crate::error::{FsError, FsErrorKind};
use crate::limits::{MAX_BLOCK_BYTES, MAX_RESERVE_IDS, RESERVE_MS};

/// Nodes that a bitmap can name.
const MAX_SLOTS: u8 = 8;

impl Namespace {
    pub(super) fn reserve(&mut self, count: u32) -> Outcome {
        let count = count.clamp(1, MAX_RESERVE_IDS);
        let (start, gs) = (self.meta.next_block, self.meta.next_stamp);
        self.meta.next_block += u64::from(count);
        self.meta.next_stamp += 1;
        self.dirty.meta = true;
        self.reservations.insert(start, Reservation { count, gs, time_ms: self.time_ms });
        self.dirty.reservations.insert(start);
        self.forget_reservations();
        Outcome::Reserved { start, count, gs }
    }

    pub(super) fn forget_reservations(&mut self) {
        let now = self.time_ms;
        let old = self.reservations.iter().filter(|(_, r)| now - r.time_ms > RESERVE_MS);
        for start in old.map(|(start, _)| *start).collect::<Vec<_>>() {
            self.reservations.remove(&start);
            self.dirty.reservations.insert(start);
        }
    }

    /// Blocks may become part of a file only while no node can hold them for garbage.
    pub(super) fn check_fresh(&self, blocks: &[NewBlock]) -> Result<(), FsError> {
        for block in blocks {
            let range = self.reservations.range(..=block.id).next_back();
            let fresh = range.is_some_and(|(start, r)| {
                block.id - start < u64::from(r.count)
                    && block.gs == r.gs
                    && self.time_ms - r.time_ms <= RESERVE_MS
            });
            let known = self.blocks.contains_key(&block.id) || self.doomed.contains_key(&block.id);
            if !fresh || known {
                let text = format!("block {} was written too long ago or is known", block.id);
                return Err(FsError::new(FsErrorKind::StaleBlocks, text));
            }
            if block.len == 0 || block.len > MAX_BLOCK_BYTES || block.replicas == 0 {
                return Err(FsError::io(format!("block {} is empty or too long", block.id)));
            }
        }
        Ok(())
    }

    /// Makes blocks part of a file that names them.
    pub(super) fn adopt(&mut self, file: u64, blocks: &[NewBlock]) {
        for block in blocks {
            let NewBlock { id, gs, len, digest, replicas } = *block;
            let before = self.blocks.insert(id, BlockRow { gs, len, digest, replicas, file });
            assert!(before.is_none(), "the block was checked to be unknown");
            self.dirty.blocks.insert(id);
            self.note_copies(id, replicas);
        }
    }

    /// A file's block becomes garbage.
    pub(super) fn doom(&mut self, id: u64) {
        let Some(block) = self.blocks.remove(&id) else { return };
        self.dirty.blocks.insert(id);
        self.partial.remove(&id);
        self.doom_copies(id, block.replicas);
    }

    /// Blocks of a refused command, except those that an earlier copy of it made part of a file.
    pub(super) fn doom_unclaimed(&mut self, blocks: &[NewBlock]) {
        for block in blocks {
            let reserved = block.id < self.meta.next_block;
            if reserved && !self.blocks.contains_key(&block.id) {
                self.doom_copies(block.id, block.replicas);
            }
        }
    }

    fn doom_copies(&mut self, id: u64, replicas: u8) {
        if replicas == 0 {
            return;
        }
        self.doomed.insert(id, Doomed { replicas, since_ms: self.time_ms });
        self.dirty.doomed.insert(id);
    }

    pub(super) fn replicas(&mut self, slot: u8, added: &[u64], lost: &[u64]) -> Outcome {
        if slot >= MAX_SLOTS {
            return Outcome::Done;
        }
        for id in added {
            self.set_copies(*id, |replicas| replicas | 1 << slot);
            // A late copy of a block that was deleted meanwhile has to go as well.
            if let Some(doomed) = self.doomed.get_mut(id) {
                doomed.replicas |= 1 << slot;
                self.dirty.doomed.insert(*id);
            }
        }
        for id in lost {
            self.set_copies(*id, |replicas| replicas & !(1 << slot));
        }
        Outcome::Done
    }

    fn set_copies(&mut self, id: u64, change: impl FnOnce(u8) -> u8) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        let replicas = change(block.replicas);
        if replicas != block.replicas {
            block.replicas = replicas;
            self.dirty.blocks.insert(id);
            self.note_copies(id, replicas);
        }
    }

    pub(super) fn removed(&mut self, slot: u8, ids: &[u64]) -> Outcome {
        if slot >= MAX_SLOTS {
            return Outcome::Done;
        }
        for id in ids {
            if let Some(doomed) = self.doomed.get_mut(id) {
                doomed.replicas &= !(1 << slot);
                if doomed.replicas == 0 {
                    self.doomed.remove(id);
                }
                self.dirty.doomed.insert(*id);
            }
        }
        Outcome::Done
    }

    pub(super) fn reset_slot(&mut self, slot: u8) -> Outcome {
        if slot >= MAX_SLOTS {
            return Outcome::Done;
        }
        let bit = 1u8 << slot;
        let held = |replicas: u8| replicas & bit != 0;
        let ids: Vec<u64> =
            self.blocks.iter().filter(|(_, b)| held(b.replicas)).map(|(id, _)| *id).collect();
        self.replicas(slot, &[], &ids);
        let doomed: Vec<u64> =
            self.doomed.iter().filter(|(_, d)| held(d.replicas)).map(|(id, _)| *id).collect();
        self.removed(slot, &doomed)
    }
}
