//! The leader's writer of one shard.
//!
//! One task per shard and node takes requests in order, evaluates as many as fit into one
//! command against the newest documents, and proposes the result. One command is in flight at a
//! time; requests that arrive meanwhile go into the next one, so load makes commands larger
//! rather than more. Nothing is kept between commands but what the machine applied: after a
//! change of leader the new one starts from its own copy.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::codec::decode;
use consensus::machine::tags;
use consensus::{GroupRef, ProposeError};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::command::{LoggedOp, MarkChange, OpsCommand, OpsReply, ShardCommand};
use crate::copy::{DocState, ShardCopy};
use crate::error::EsError;
use crate::limits::{
    COMMAND_BYTES, COMMAND_OPS, MAX_DOCUMENT_BYTES, SHOWN_SOURCE_BYTES, STAGED_BYTES,
};
use crate::service::disk_reserve;
use crate::wire::Writer;
use crate::write::{Evaluated, Outcome, ShardNames, WriteOp, WriteResult, evaluate};

/// Writes for one shard, answered together.
pub(crate) struct Batch {
    pub(crate) ops: Vec<WriteOp>,
    pub(crate) mapping_version: u64,
    pub(crate) mark: Option<MarkChange>,
    /// Sent before, with unknown outcome.
    pub(crate) again: bool,
    pub(crate) names: ShardNames,
    /// Operations for a later command, behind `ops`.
    pub(crate) rest: Vec<WriteOp>,
    /// What became of those of earlier commands, before `ops`.
    pub(crate) done: Vec<Result<WriteResult, EsError>>,
    /// Nobody waits for it longer.
    pub(crate) until: Instant,
    pub(crate) reply: oneshot::Sender<WriteReply>,
}

impl Batch {
    /// Leaves only the first operations for now.
    fn shorten(&mut self, count: usize) {
        let mut rest = self.ops.split_off(count);
        rest.append(&mut self.rest);
        self.rest = rest;
    }

    /// Nothing of it was written just now: all that is left is for a later command.
    fn lengthen(&mut self) {
        self.ops.append(&mut self.rest);
    }

    /// The results so far, and this error for what is left.
    fn end_with(&mut self, error: &EsError) -> Vec<Result<WriteResult, EsError>> {
        let mut results = std::mem::take(&mut self.done);
        results.extend(self.ops.iter().chain(&self.rest).map(|_| Err(error.clone())));
        results
    }

    fn shown_bytes(&self) -> usize {
        self.done.iter().flatten().filter_map(|r| r.source.as_ref()).map(Vec::len).sum()
    }
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WriteReply {
    /// One result for each operation.
    Done(Vec<Result<WriteResult, EsError>>),
    /// Nothing was written: this node does not lead, or not yet. Try again.
    NotReady,
    /// The shard does not exist here.
    NoShard,
    /// Nothing was written: the disk is nearly full.
    DiskReserve,
    /// It may have been written.
    Unknown,
    /// Nothing was written: the pipeline's mark is another one.
    MarkMismatch(Option<u64>),
    /// Nothing was written, nor was the mark moved. Only for writes with a mark.
    Failed(EsError),
}

/// One command's worth of evaluated operations.
#[derive(Default)]
struct Staged {
    ops: Writer,
    count: u32,
    mapping_version: u64,
    /// Newest state of documents touched by this command.
    touched: HashMap<String, DocState>,
    /// For each batch taken whole or in part: which results are final, in order.
    results: Vec<Vec<Slot>>,
    /// Sources asked back by the batch that is being staged, in bytes.
    shown_bytes: usize,
}

enum Slot {
    Error(EsError),
    Answer(WriteResult),
    /// The n-th logged operation.
    Logged {
        nth: u32,
        outcome: Outcome,
        version: u64,
        source: Option<Vec<u8>>,
    },
}

/// Runs until the copy is closed or nobody can send any more.
pub(crate) async fn run(
    copy: Arc<ShardCopy>,
    group: GroupRef,
    mut requests: mpsc::Receiver<Batch>,
) {
    let mut waiting: VecDeque<Batch> = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match requests.recv().await {
                Some(batch) => waiting.push_back(batch),
                None => return,
            }
        }
        while waiting.len() < 1024
            && let Ok(batch) = requests.try_recv()
        {
            waiting.push_back(batch);
        }
        if copy.is_closed() {
            waiting.drain(..).for_each(|batch| answer(batch, WriteReply::NoShard));
            return;
        }
        wait_for_room(&copy).await;
        step(&copy, &group, &mut waiting).await;
    }
}

/// Back-pressure: what was applied but not indexed here is bounded. Waits for a little room, not
/// for all of it: else requests would stand still for as long as the whole backlog takes.
async fn wait_for_room(copy: &ShardCopy) {
    let mut searchable = copy.watch_searchable();
    while copy.is_full() && !copy.is_closed() {
        copy.want_searchable(copy.searchable_to() + 1);
        // The sender lives in the copy; a timeout only makes a closed copy noticed.
        let _ = tokio::time::timeout(Duration::from_millis(200), searchable.changed()).await;
    }
}

fn answer(mut batch: Batch, reply: WriteReply) {
    // Where a part was written by an earlier command, all of it must not be sent again.
    let reply = match reply {
        WriteReply::Done(_) => reply,
        _ if batch.done.is_empty() => reply,
        WriteReply::DiskReserve => WriteReply::Done(batch.end_with(&disk_reserve())),
        _ => {
            let (index, shard) = (&batch.names.index, batch.names.shard);
            let reason = format!("[{index}][{shard}] did not confirm in time");
            WriteReply::Done(batch.end_with(&EsError::unavailable(reason)))
        }
    };
    // The client may have gone; the write stands.
    let _ = batch.reply.send(reply);
}

/// Takes batches off the queue, one command's worth, and answers them.
async fn step(copy: &Arc<ShardCopy>, group: &GroupRef, waiting: &mut VecDeque<Batch>) {
    let leadership = group.leadership();
    if !leadership.ready_here || !copy.knows_all() {
        waiting.drain(..).for_each(|batch| answer(batch, WriteReply::NotReady));
        return;
    }
    copy.set_led(leadership.term);
    let taken = take_batches(waiting);
    let base_seq_no = copy.next_seq_no();
    let evaluation = {
        let copy = copy.clone();
        // Look-ups read the Tantivy index: not on the runtime's worker.
        tokio::task::spawn_blocking(move || {
            let staged = stage(&copy, &taken, base_seq_no);
            (taken, staged)
        })
    };
    let Ok((mut taken, staged)) = evaluation.await else { return };
    // What did not fit into the command is next.
    for batch in taken.split_off(staged.results.len()).into_iter().rev() {
        waiting.push_front(batch);
    }
    if let (Some(last), Some(slots)) = (taken.last_mut(), staged.results.last()) {
        last.shorten(slots.len());
    }
    let mark = taken.first_mut().and_then(|batch| batch.mark.clone());
    if let Some(mark) = &mark {
        let marks = copy.marks(&mark.pipeline);
        let found = marks.get(&mark.partition).copied();
        if found != mark.expected {
            let reply = WriteReply::MarkMismatch(found);
            taken.into_iter().for_each(|batch| answer(batch, reply.clone()));
            return;
        }
        // A mark says that its documents were written; those refused for good were left out.
        if let Some(error) = staged.error() {
            taken.into_iter().for_each(|batch| answer(batch, WriteReply::Failed(error.clone())));
            return;
        }
    }
    if staged.count == 0 && mark.is_none() {
        finish(taken, staged, base_seq_no, 0, waiting);
        return;
    }
    propose(copy, group, leadership.term, base_seq_no, mark, taken, staged, waiting).await;
}

/// Whole batches up to the limits of one command; one with a mark goes alone.
fn take_batches(waiting: &mut VecDeque<Batch>) -> Vec<Batch> {
    let (mut taken, mut bytes, mut ops) = (Vec::<Batch>::new(), 0, 0);
    while let Some(next) = waiting.front() {
        let weight: usize = next.ops.iter().map(WriteOp::weight).sum();
        let full = bytes + weight > COMMAND_BYTES || ops + next.ops.len() > COMMAND_OPS;
        if !taken.is_empty() && (full || next.mark.is_some()) {
            break;
        }
        let alone = next.mark.is_some();
        bytes += weight;
        ops += next.ops.len();
        taken.extend(waiting.pop_front());
        if alone {
            break;
        }
    }
    taken
}

fn stage(copy: &ShardCopy, batches: &[Batch], base_seq_no: u64) -> Staged {
    let mut staged = Staged::default();
    let primary_term = copy.with_live(|live| live.primary_term);
    for batch in batches {
        staged.mapping_version = staged.mapping_version.max(batch.mapping_version);
        staged.shown_bytes = batch.shown_bytes();
        let mut slots = Vec::with_capacity(batch.ops.len());
        for op in &batch.ops {
            // Documents and their mark are one command; theirs are no updates.
            if staged.ops.len() >= STAGED_BYTES && batch.mark.is_none() {
                break;
            }
            slots.push(staged.stage_one(copy, op, batch, base_seq_no, primary_term));
        }
        let is_full = slots.len() < batch.ops.len();
        staged.results.push(slots);
        if is_full {
            break;
        }
    }
    staged
}

impl Staged {
    fn error(&self) -> Option<EsError> {
        let slots = self.results.iter().flatten();
        slots.into_iter().find_map(|slot| match slot {
            Slot::Error(error) => Some(error.clone()),
            Slot::Answer(_) | Slot::Logged { .. } => None,
        })
    }

    /// What an update makes of a document is known only here.
    fn check_size(&mut self, op: &LoggedOp, want_source: bool) -> Result<(), EsError> {
        let bytes = op.source.len();
        if bytes > MAX_DOCUMENT_BYTES {
            let reason = format!("a document of more than {MAX_DOCUMENT_BYTES} bytes");
            return Err(EsError::new(413, "illegal_argument_exception", reason));
        }
        if want_source { self.show(bytes) } else { Ok(()) }
    }

    /// An answer holds so many bytes of source more.
    fn show(&mut self, bytes: usize) -> Result<(), EsError> {
        let shown = self.shown_bytes + bytes;
        if shown > SHOWN_SOURCE_BYTES {
            let reason = format!(
                "[request] Data too large, data for [update] would be [{shown}], which is larger \
                 than the limit of [{SHOWN_SOURCE_BYTES}]"
            );
            return Err(EsError::new(429, "circuit_breaking_exception", reason));
        }
        self.shown_bytes = shown;
        Ok(())
    }

    fn stage_one(
        &mut self,
        copy: &ShardCopy,
        op: &WriteOp,
        batch: &Batch,
        base_seq_no: u64,
        primary_term: u64,
    ) -> Slot {
        let found = match self.touched.get(&op.id) {
            Some(state) => Ok(Some(state.clone())),
            // Nothing can be there under an id minted a moment ago, unless it was sent before.
            None if op.auto_id && !batch.again => Ok(None),
            None => crate::engine::newest(copy, &op.id),
        };
        let evaluated =
            found.and_then(|current| evaluate(op, current.as_ref(), batch.again, &batch.names));
        match evaluated {
            Err(error) => Slot::Error(error),
            Ok(Evaluated::Answer(result)) => {
                let bytes = result.source.as_ref().map_or(0, Vec::len);
                self.show(bytes).map_or_else(Slot::Error, |()| Slot::Answer(result))
            }
            Ok(Evaluated::Log { op, outcome, want_source }) => {
                if let Err(error) = self.check_size(&op, want_source) {
                    return Slot::Error(error);
                }
                let nth = self.count;
                op.write(&mut self.ops);
                self.count += 1;
                let LoggedOp { delete, version, id, routing, source } = op;
                let shown = want_source.then(|| source.to_vec());
                let seq_no = base_seq_no + u64::from(nth);
                let state =
                    DocState { seq_no, primary_term, version, deleted: delete, routing, source };
                self.touched.insert(id, state);
                Slot::Logged { nth, outcome, version, source: shown }
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one step of the writer, split for length")]
async fn propose(
    copy: &ShardCopy,
    group: &GroupRef,
    term: u64,
    base_seq_no: u64,
    mark: Option<MarkChange>,
    taken: Vec<Batch>,
    mut staged: Staged,
    waiting: &mut VecDeque<Batch>,
) {
    let command = ShardCommand::Ops(OpsCommand {
        shard: copy.id,
        term,
        base_seq_no,
        mapping_version: staged.mapping_version,
        mark,
        count: staged.count,
        ops: std::mem::take(&mut staged.ops).finish(),
    });
    let all = |taken: Vec<Batch>, reply: WriteReply| {
        taken.into_iter().for_each(|batch| answer(batch, reply.clone()));
    };
    match group.propose_here(tags::INDEX, command.encode(), Some(term)).await {
        Ok(applied) => match decode::<OpsReply>(&applied.reply) {
            Ok(OpsReply::Done { primary_term }) => {
                finish(taken, staged, base_seq_no, primary_term, waiting);
            }
            Ok(OpsReply::NoShard) => all(taken, WriteReply::NoShard),
            Ok(OpsReply::MarkMismatch { found }) => all(taken, WriteReply::MarkMismatch(found)),
            // Evaluated against numbers that have moved on: evaluate again.
            Ok(OpsReply::Stale) => taken.into_iter().rev().for_each(|mut batch| {
                batch.lengthen();
                waiting.push_front(batch);
            }),
            Err(error) => {
                let shard = copy.id;
                tracing::error!(?shard, "a group answered what nobody understands: {error}");
                all(taken, WriteReply::Unknown);
            }
        },
        Err(ProposeError::NotLeader { .. }) => all(taken, WriteReply::NotReady),
        Err(ProposeError::Unknown { .. }) => all(taken, WriteReply::Unknown),
        Err(ProposeError::DiskReserve { .. }) => all(taken, WriteReply::DiskReserve),
        Err(ProposeError::TooLarge { bytes, limit }) => {
            let error = EsError::illegal(format!("{bytes} bytes of operations exceed {limit}"));
            for mut batch in taken {
                if batch.mark.is_some() {
                    answer(batch, WriteReply::Failed(error.clone()));
                    continue;
                }
                let results = batch.end_with(&error);
                answer(batch, WriteReply::Done(results));
            }
        }
    }
}

/// Answers those batches that are done; one that is not goes on with the next command.
fn finish(
    taken: Vec<Batch>,
    staged: Staged,
    base_seq_no: u64,
    primary_term: u64,
    waiting: &mut VecDeque<Batch>,
) {
    for (mut batch, slots) in taken.into_iter().zip(staged.results) {
        let results = slots.into_iter().map(|slot| match slot {
            Slot::Error(error) => Err(error),
            Slot::Answer(result) => Ok(result),
            Slot::Logged { nth, outcome, version, source } => {
                let seq_no = base_seq_no + u64::from(nth);
                Ok(WriteResult { outcome, seq_no, primary_term, version, source })
            }
        });
        batch.done.extend(results);
        batch.ops.clear();
        if batch.rest.is_empty() {
            let results = std::mem::take(&mut batch.done);
            answer(batch, WriteReply::Done(results));
        } else {
            batch.lengthen();
            if Instant::now() < batch.until {
                // Behind the others: they need not wait for all of it.
                waiting.push_back(batch);
            } else {
                answer(batch, WriteReply::NotReady);
            }
        }
    }
}
