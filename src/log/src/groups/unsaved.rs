//! Rows that wait to be saved, and how many of them one command takes.

use tokio::sync::oneshot;

use super::coordinator::Write;
use super::row::{GroupCommand, GroupRow};
use super::types::GroupError;
use crate::limits::GROUPS_PER_COMMAND_BYTES;

/// Groups saved with one command.
const SAVE_BATCH: usize = 64;

/// What waits to be saved of a group.
pub(super) struct Unsaved {
    pub(super) group: String,
    pub(super) ticket: u64,
    pub(super) write: Write,
    /// Hears how it went.
    pub(super) done: Option<oneshot::Sender<Result<(), GroupError>>>,
}

impl Unsaved {
    fn size_at_most(&self) -> usize {
        match &self.write {
            Write::Consumer(save) => save.size_at_most(),
            Write::Classic(row) => {
                let row = row.as_ref().map_or(0, GroupRow::size_at_most);
                // Beside them the length of the name and what tells a row from none.
                self.group.len() + row + 16
            }
        }
    }
}

/// How many of the first are of one kind and fit one command together.
pub(super) fn batch(waiting: &[Unsaved]) -> usize {
    let mut bytes = 0;
    let first = waiting.first().map(|save| std::mem::discriminant(&save.write));
    let fits = |save: &&Unsaved| {
        bytes += save.size_at_most();
        Some(std::mem::discriminant(&save.write)) == first && bytes <= GROUPS_PER_COMMAND_BYTES
    };
    let count = waiting.iter().take(SAVE_BATCH).take_while(fits).count();
    // A large group goes alone.
    count.max(1).min(waiting.len())
}

/// The command that saves a batch: all of it is of one kind.
pub(super) fn command(batch: &[Unsaved]) -> GroupCommand {
    let consumers: Vec<_> = batch
        .iter()
        .filter_map(|save| match &save.write {
            Write::Consumer(save) => Some(save.clone()),
            Write::Classic(_) => None,
        })
        .collect();
    if !consumers.is_empty() {
        assert_eq!(consumers.len(), batch.len(), "a batch is of one kind");
        return GroupCommand::SaveConsumers(consumers);
    }
    let rows = batch.iter().filter_map(|save| match &save.write {
        Write::Classic(row) => Some((save.group.clone(), row.clone())),
        Write::Consumer(_) => None,
    });
    GroupCommand::Save(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::super::consumer::{ConsumerGroupRow, ConsumerGroupRowV1, ConsumerSave};
    use super::super::row::GroupRowV1;
    use super::*;

    fn classic() -> Write {
        Write::Classic(None)
    }

    fn described(metadata_bytes: usize) -> Write {
        let protocol = Some("x".repeat(metadata_bytes));
        let row = GroupRowV1 { protocol_type: protocol, ..GroupRowV1::default() };
        Write::Classic(Some(GroupRow::V1(row)))
    }

    fn consumer(name_bytes: usize) -> Write {
        Write::Consumer(ConsumerSave {
            group: "g".repeat(name_bytes),
            row: ConsumerGroupRow::V1(ConsumerGroupRowV1::default()),
            members: Vec::new(),
        })
    }

    fn check(writes: Vec<Write>, expected: usize) {
        let unsaved = |write| Unsaved { group: String::new(), ticket: 0, write, done: None };
        let waiting: Vec<Unsaved> = writes.into_iter().map(unsaved).collect();
        let count = batch(&waiting);
        assert_eq!(count, expected);
        if count > 0 {
            match command(&waiting[..count]) {
                GroupCommand::Save(rows) => assert_eq!(rows.len(), count),
                GroupCommand::SaveConsumers(saves) => assert_eq!(saves.len(), count),
            }
        }
    }

    #[test]
    fn a_batch_is_of_one_kind_and_bounded() {
        check(vec![], 0);
        check(vec![classic(), classic(), consumer(1), classic()], 2);
        check(vec![consumer(1), consumer(1), classic()], 2);
        check((0..100).map(|_| classic()).collect(), SAVE_BATCH);
        let half = GROUPS_PER_COMMAND_BYTES / 2;
        check(vec![consumer(half), consumer(10), consumer(half)], 2);
        check(vec![consumer(2 * half + 1), consumer(10)], 1);
        check(vec![described(half), described(10), described(half)], 2);
    }
}
