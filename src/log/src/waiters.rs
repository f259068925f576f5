//! Who waits for records.
//!
//! A reader of many partitions has one [`Bell`] and a [`Watch`] on each partition, which stays for
//! as long as the reader wants it. An append marks the reader's slot and adds its bytes; it wakes
//! the reader only when as much as the reader asked for has come. The reader then looks at the
//! marked slots and at no others, so that an idle partition costs nothing, however many there are.
//!
//! Nothing here has a task or a timer of its own: a wait is a future of the reader's.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::partition::Partition;

/// What has come since a reader looked last.
#[derive(Debug, Default)]
struct Rung {
    slots: Vec<Slot>,
    marked: Vec<u32>,
    /// Bytes that count, of all slots.
    bytes: usize,
    /// Bytes that wake the reader; 0 while it does not wait.
    wanted: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    marked: bool,
    /// Bytes of this slot that may still count: more than that would not fit an answer.
    room: usize,
    /// The room after a look.
    whole: usize,
}

/// A reader's bell. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rung: Mutex<Rung>,
    notify: Notify,
}

impl Bell {
    /// A bell that nothing rings yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Slots where something has come since the last call, in order of coming.
    pub fn take_marked(&self) -> Vec<u32> {
        let mut rung = self.0.rung.lock();
        rung.bytes = 0;
        let marked = std::mem::take(&mut rung.marked);
        for slot in &marked {
            if let Some(slot) = slot_mut(&mut rung.slots, *slot) {
                slot.marked = false;
                slot.room = slot.whole;
            }
        }
        marked
    }

    /// At most `room` bytes of a slot count from now on.
    pub fn set_room(&self, slot: u32, room: usize) {
        let mut rung = self.0.rung.lock();
        if let Some(slot) = slot_mut(&mut rung.slots, slot) {
            slot.room = room;
        }
    }

    /// Waits until `bytes` (at least one) have come since the last [`Self::take_marked`], or a
    /// watched partition was left. Dropping the future is fine at any point.
    pub async fn wait(&self, bytes: usize) {
        loop {
            let notified = self.0.notify.notified();
            tokio::pin!(notified);
            // Before the look: what comes in between is noticed.
            notified.as_mut().enable();
            {
                let mut rung = self.0.rung.lock();
                if rung.bytes >= bytes.max(1) {
                    rung.wanted = 0;
                    return;
                }
                let wanted = bytes.max(1);
                rung.wanted = if rung.wanted == 0 { wanted } else { rung.wanted.min(wanted) };
            }
            notified.await;
        }
    }

    /// Something of so many bytes has come, or without any something else has changed.
    fn ring(&self, slot: u32, bytes: usize) {
        let mut rung = self.0.rung.lock();
        let rung = &mut *rung;
        let Some(place) = slot_mut(&mut rung.slots, slot) else { return };
        if !std::mem::replace(&mut place.marked, true) {
            rung.marked.push(slot);
        }
        let counted = bytes.min(place.room);
        place.room -= counted;
        rung.bytes = rung.bytes.saturating_add(counted);
        if rung.wanted > 0 && rung.bytes >= rung.wanted {
            rung.wanted = 0;
            self.0.notify.notify_waiters();
        }
    }

    /// As if all that is wanted had come.
    fn alarm(&self, slot: u32) {
        self.set_room(slot, usize::MAX);
        self.ring(slot, usize::MAX);
    }

    fn make_slot(&self, slot: u32, room: usize) {
        let Ok(index) = usize::try_from(slot) else { return };
        let mut rung = self.0.rung.lock();
        if rung.slots.len() <= index {
            rung.slots.resize(index + 1, Slot::default());
        }
        if let Some(place) = rung.slots.get_mut(index) {
            (place.room, place.whole) = (room, room);
        }
    }
}

fn slot_mut(slots: &mut [Slot], slot: u32) -> Option<&mut Slot> {
    slots.get_mut(usize::try_from(slot).ok()?)
}

/// The readers of one partition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    next: AtomicU64,
    bells: Mutex<HashMap<u64, (Bell, u32)>>,
}

impl Waiters {
    /// Tells every reader of bytes that it may read now; 0 when only the log's start moved.
    pub(crate) fn tell(&self, bytes: usize) {
        for (bell, slot) in self.bells.lock().values() {
            bell.ring(*slot, bytes);
        }
    }

    /// Wakes every reader: the partition is here no longer.
    pub(crate) fn alarm(&self) {
        for (bell, slot) in self.bells.lock().values() {
            bell.alarm(*slot);
        }
    }
}

/// A reader's place at a partition; dropping it leaves the partition.
pub struct Watch {
    part: Arc<Partition>,
    id: u64,
}

impl Watch {
    /// Makes `bell` ring in `slot` for what comes to `part`, of which at most `room` bytes count.
    /// What came after `seen`, the log's end as the reader knows it, rings at once.
    pub(crate) fn new(
        part: Arc<Partition>,
        bell: &Bell,
        slot: u32,
        room: usize,
        seen: i64,
    ) -> Self {
        bell.make_slot(slot, room);
        let id = part.waiters.next.fetch_add(1, Ordering::Relaxed);
        part.waiters.bells.lock().insert(id, (bell.clone(), slot));
        // After the insertion: an append in between is noticed here or rings itself.
        if *part.end.borrow() != seen {
            bell.alarm(slot);
        }
        Self { part, id }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.part.waiters.bells.lock().remove(&self.id);
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("part", &self.part.key).field("id", &self.id).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn bell(rooms: &[usize]) -> Bell {
        let bell = Bell::new();
        (0..).zip(rooms).for_each(|(slot, room)| bell.make_slot(slot, *room));
        bell
    }

    #[test]
    fn a_reader_wakes_when_all_its_bytes_have_come() {
        let bell = bell(&[1000, 1000]);
        let mut wait = Box::pin(bell.wait(100));
        assert!((&mut wait).now_or_never().is_none());
        bell.ring(0, 60);
        assert!((&mut wait).now_or_never().is_none(), "60 of 100");
        bell.ring(1, 40);
        assert!((&mut wait).now_or_never().is_some());
        assert_eq!(bell.take_marked(), [0, 1]);
        assert!(bell.take_marked().is_empty());
    }

    #[test]
    fn bytes_beyond_the_room_of_a_partition_do_not_count() {
        let bell = bell(&[50, 1000]);
        let mut wait = Box::pin(bell.wait(100));
        assert!((&mut wait).now_or_never().is_none());
        bell.ring(0, 60);
        bell.ring(0, 60);
        assert!((&mut wait).now_or_never().is_none(), "only 50 of them fit");
        bell.ring(1, 50);
        assert!((&mut wait).now_or_never().is_some());
    }

    #[test]
    fn what_came_before_the_wait_counts() {
        let bell = bell(&[1000]);
        bell.ring(0, 100);
        assert!(bell.wait(100).now_or_never().is_some());
        assert_eq!(bell.take_marked(), [0]);
        assert!(bell.wait(100).now_or_never().is_none(), "those were looked at");
    }

    #[test]
    fn a_change_without_bytes_is_seen_at_the_next_look() {
        let bell = bell(&[1000]);
        let mut wait = Box::pin(bell.wait(1));
        bell.ring(0, 0);
        assert!((&mut wait).now_or_never().is_none());
        assert_eq!(bell.take_marked(), [0]);
        bell.alarm(0);
        assert!((&mut wait).now_or_never().is_some(), "a partition that goes wakes its readers");
    }
}
