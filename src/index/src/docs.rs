//! Writing and reading documents from any node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::codec::decode;
use base::{GroupId, NodeId};
use bytes::Bytes;
use consensus::{Lane, Message, PeerError};
use search::mapping::Mapping;
use tokio::sync::oneshot;

use crate::command::{CatalogCommand, MarkChange, read_shard, write_shard};
use crate::copy::DocState;
use crate::engine;
use crate::error::EsError;
use crate::limits::{FORWARD_BYTES, MAX_DOCUMENT_BYTES, MAX_ID_BYTES, WRITE_TIMEOUT};
use crate::model::{IndexMeta, ShardId};
use crate::remote::{METHOD_GET, METHOD_WRITE};
use crate::routing::shard_of;
use crate::service::{IndexService, disk_reserve};
use crate::wire::{Malformed, Reader, Writer};
use crate::write::{ShardNames, WriteKind, WriteOp, WriteResult};
use crate::writer::{Batch, WriteReply};

/// How often a document is checked against a mapping that others change meanwhile.
const MAPPING_ATTEMPTS: usize = 20;

/// Results of writes to one index, in order: the shard's number and what became of it.
pub type Results = Vec<(u16, Result<WriteResult, EsError>)>;

/// Writes for one shard on their way to its leader.
#[derive(Clone, Debug)]
pub(crate) struct ShardWrite {
    pub(crate) shard: ShardId,
    pub(crate) index: String,
    pub(crate) mapping_version: u64,
    pub(crate) mark: Option<MarkChange>,
    pub(crate) again: bool,
    pub(crate) ops: Vec<WriteOp>,
}

/// What became of writes that carry a pipeline's mark.
#[derive(Debug)]
pub enum MarkedError {
    /// The mark there is another one; nothing was written.
    Mismatch {
        /// The mark that is there.
        found: Option<u64>,
    },
    /// These documents, by number, are refused for good; nothing was written.
    Refused(Vec<(usize, EsError)>),
    /// Anything else. The outcome may be unknown; the same call may be made again.
    Failed(EsError),
}

impl IndexService {
    /// Writes documents of one index, each to its shard, all shards at once. A shard's leader is
    /// waited for as long as `patience`; one that is there may take longer to write.
    pub async fn write(
        &self,
        meta: &Arc<IndexMeta>,
        ops: Vec<WriteOp>,
        patience: Duration,
    ) -> Results {
        let (meta, checked) = self.check_mapping(meta, &ops).await;
        let mut results: Vec<Option<(u16, Result<WriteResult, EsError>)>> =
            (0..ops.len()).map(|_| None).collect();
        let mut by_shard: BTreeMap<u16, (Vec<usize>, Vec<WriteOp>)> = BTreeMap::new();
        for (at, (op, checked)) in ops.into_iter().zip(checked).enumerate() {
            let number = shard_of(op.routing.as_deref().unwrap_or(&op.id), meta.shard_count());
            match checked.and_then(|()| check_limits(&op)) {
                Ok(()) => {
                    let slot = by_shard.entry(number).or_default();
                    slot.0.push(at);
                    slot.1.push(op);
                }
                Err(error) => {
                    if let Some(slot) = results.get_mut(at) {
                        *slot = Some((number, Err(error)));
                    }
                }
            }
        }
        let calls = by_shard.into_iter().map(|(number, (places, ops))| {
            let meta = &meta;
            async move { (number, places, self.write_shard(meta, number, ops, patience).await) }
        });
        for (number, places, done) in futures::future::join_all(calls).await {
            for (at, result) in places.into_iter().zip(done) {
                if let Some(slot) = results.get_mut(at) {
                    *slot = Some((number, result));
                }
            }
        }
        let lost = || (0, Err(EsError::internal("a write got no result")));
        results.into_iter().map(|slot| slot.unwrap_or_else(lost)).collect()
    }

    /// One shard's writes, in parts that fit into a call.
    async fn write_shard(
        &self,
        meta: &IndexMeta,
        number: u16,
        ops: Vec<WriteOp>,
        patience: Duration,
    ) -> Vec<Result<WriteResult, EsError>> {
        let mut results = Vec::with_capacity(ops.len());
        let mut ops = ops.into_iter().peekable();
        while ops.peek().is_some() {
            let (mut part, mut bytes) = (Vec::new(), 0);
            while let Some(next) = ops.peek() {
                if !part.is_empty() && bytes + next.weight() > FORWARD_BYTES {
                    break;
                }
                bytes += next.weight();
                part.extend(ops.next());
            }
            let count = part.len();
            match self.send(meta, number, part, None, patience).await {
                Ok(done) => results.extend(done),
                Err(MarkedError::Failed(error)) => {
                    results.extend((0..count).map(|_| Err(error.clone())));
                }
                Err(MarkedError::Mismatch { .. } | MarkedError::Refused(_)) => {
                    let error = EsError::internal("a mark where none was asked for");
                    results.extend((0..count).map(|_| Err(error.clone())));
                }
            }
        }
        results
    }

    async fn send(
        &self,
        meta: &IndexMeta,
        number: u16,
        ops: Vec<WriteOp>,
        mark: Option<MarkChange>,
        patience: Duration,
    ) -> Result<Vec<Result<WriteResult, EsError>>, MarkedError> {
        let group = *meta.row.shards.get(usize::from(number)).ok_or_else(|| {
            MarkedError::Failed(EsError::internal("a shard that the index does not have"))
        })?;
        let mut write = ShardWrite {
            shard: ShardId { index: meta.uuid(), number },
            index: meta.name().to_owned(),
            mapping_version: meta.row.mapping_version,
            mark,
            again: false,
            ops,
        };
        let clock = self.shared.env.clock.clone();
        let deadline = clock.monotonic() + patience;
        let mut pause = Duration::from_millis(2);
        loop {
            let reply = self.send_once(group, &write).await;
            match reply {
                Some(WriteReply::Done(results)) => return Ok(results),
                Some(WriteReply::MarkMismatch(found)) => {
                    return Err(MarkedError::Mismatch { found });
                }
                Some(WriteReply::Failed(error)) => return Err(MarkedError::Failed(error)),
                Some(WriteReply::DiskReserve) => return Err(MarkedError::Failed(disk_reserve())),
                Some(WriteReply::NoShard) if self.is_gone(meta).await => {
                    return Err(MarkedError::Failed(EsError::no_index(meta.name())));
                }
                Some(WriteReply::NotReady | WriteReply::NoShard) => {}
                Some(WriteReply::Unknown) | None => {
                    write.again = true;
                    // With a condition the second try could fail because the first succeeded.
                    if write.ops.iter().any(|op| op.if_seq_no.is_some() || op.version.is_some()) {
                        return Err(MarkedError::Failed(timed_out(&write, patience)));
                    }
                }
            }
            if clock.monotonic() + pause >= deadline {
                return Err(MarkedError::Failed(timed_out(&write, patience)));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    async fn is_gone(&self, meta: &IndexMeta) -> bool {
        match self.fresh_catalog().await {
            Ok(catalog) => catalog.by_uuid(meta.uuid()).is_none(),
            Err(_) => false,
        }
    }

    /// `None`: the outcome is unknown.
    async fn send_once(&self, group: GroupId, write: &ShardWrite) -> Option<WriteReply> {
        let Some(leader) = self.leadership(group).leader else { return Some(WriteReply::NotReady) };
        if leader == self.me() {
            return Some(self.write_here(write.clone()).await);
        }
        if !self.peers.is_alive(leader) {
            return Some(WriteReply::NotReady);
        }
        let request = Message { head: Bytes::new(), payload: write.encode() };
        let answer = self.peers.call(leader, Lane::Bulk, METHOD_WRITE, request, WRITE_TIMEOUT);
        match answer.await {
            Ok(message) => decode(&message.head).ok(),
            Err(PeerError::Unreachable { .. }) => None,
            Err(PeerError::Refused { reason, .. }) => {
                tracing::warn!(node = %leader, "a write was refused: {reason}");
                None
            }
        }
    }

    /// Writes as the shard's leader, when this node is.
    pub(crate) async fn write_here(&self, write: ShardWrite) -> WriteReply {
        let Some(copy) = self.shared.copy(write.shard) else { return WriteReply::NoShard };
        let Ok(queue) = self.writer_of(&copy) else { return WriteReply::NotReady };
        let names = ShardNames {
            index: write.index,
            uuid: write.shard.index.to_string(),
            shard: write.shard.number,
        };
        let (reply, answer) = oneshot::channel();
        let batch = Batch {
            ops: write.ops,
            mapping_version: write.mapping_version,
            mark: write.mark,
            again: write.again,
            names,
            rest: Vec::new(),
            done: Vec::new(),
            until: tokio::time::Instant::now() + WRITE_TIMEOUT,
            reply,
        };
        if queue.send(batch).await.is_err() {
            return WriteReply::NotReady;
        }
        answer.await.unwrap_or(WriteReply::Unknown)
    }

    /// Writes documents of one pipeline with its mark, to one shard: all of them and the mark,
    /// or nothing. `docs` are those whose shard is `number`; none moves the mark only.
    ///
    /// Documents refused for good are named and nothing is written: the caller remembers them
    /// first and calls again without them, so that a mark never passes what nobody knows of. A
    /// mark that is at `mark.new` already is success: an earlier try whose answer was lost has
    /// moved it.
    pub async fn apply_marked(
        &self,
        meta: &Arc<IndexMeta>,
        number: u16,
        mark: MarkChange,
        docs: Vec<WriteOp>,
    ) -> Result<(), MarkedError> {
        let (meta, checked) = self.check_mapping(meta, &docs).await;
        let results: Vec<_> = checked
            .into_iter()
            .zip(&docs)
            .map(|(checked, op)| checked.and_then(|()| check_limits(op)))
            .collect();
        if let Some(error) = first_passing(&results) {
            return Err(MarkedError::Failed(error));
        }
        let refused = results.into_iter().enumerate();
        let refused: Vec<_> = refused.filter_map(|(n, r)| r.err().map(|e| (n, e))).collect();
        if !refused.is_empty() {
            return Err(MarkedError::Refused(refused));
        }
        let new = mark.new;
        match self.send(&meta, number, docs, Some(mark), WRITE_TIMEOUT).await {
            Ok(_) => Ok(()),
            Err(MarkedError::Mismatch { found }) if found == Some(new) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Marks of a pipeline in every shard of an index, with everything acknowledged before the
    /// call: shard, partition, mark.
    pub async fn marks(
        &self,
        meta: &IndexMeta,
        pipeline: &str,
    ) -> Result<BTreeMap<(u16, u32), u64>, EsError> {
        let mut all = BTreeMap::new();
        for (id, group) in meta.shards() {
            let barrier = self.group(group)?.read_barrier().await;
            barrier.map_err(|e| EsError::unavailable(e.to_string()))?;
            let copy = self.shared.copy(id);
            let copy = copy.ok_or_else(|| EsError::unavailable("the shard is being created"))?;
            let marks = copy.marks(pipeline).into_iter();
            all.extend(marks.map(|(partition, mark)| ((id.number, partition), mark)));
        }
        Ok(all)
    }

    /// Checks documents against the mapping and extends it where they bring new fields. Returns
    /// the index with a mapping that fits all that are `Ok`.
    async fn check_mapping(
        &self,
        meta: &Arc<IndexMeta>,
        ops: &[WriteOp],
    ) -> (Arc<IndexMeta>, Vec<Result<(), EsError>>) {
        let mut meta = meta.clone();
        let mut failure = EsError::internal("the mapping keeps changing");
        for _ in 0..MAPPING_ATTEMPTS {
            let (checked, update) = check_all(&meta, ops);
            let Some(update) = update else { return (meta, checked) };
            let mapping = update.to_json().to_string();
            let command = CatalogCommand::PutMapping { uuid: meta.uuid(), mapping };
            match self.change(&command).await {
                Ok(done) => {
                    if let Some(newer) = self.wait_for_mapping(&meta, done.mapping_version).await {
                        meta = newer;
                    }
                }
                Err(error) => {
                    failure = error;
                    if let Ok(catalog) = self.fresh_catalog().await
                        && let Some(newer) = catalog.by_uuid(meta.uuid())
                        && newer.row.mapping_version > meta.row.mapping_version
                    {
                        // Somebody else's fields contradict ours: see which documents fit now.
                        meta = newer.clone();
                        continue;
                    }
                    break;
                }
            }
        }
        let (checked, _) = check_all(&meta, ops);
        let needs = |op: &WriteOp| check_one(&meta, op).is_ok_and(|update| update.is_some());
        let all = checked.into_iter().zip(ops).map(|(checked, op)| match checked {
            Ok(()) if needs(op) => Err(failure.clone()),
            other => other,
        });
        let all = all.collect();
        (meta, all)
    }

    async fn wait_for_mapping(&self, meta: &IndexMeta, version: u64) -> Option<Arc<IndexMeta>> {
        let mut changes = self.shared.watch_catalog();
        let wait = async {
            loop {
                changes.borrow_and_update();
                let catalog = self.catalog();
                let newer = catalog.by_uuid(meta.uuid())?;
                if newer.row.mapping_version >= version {
                    return Some(newer.clone());
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(WRITE_TIMEOUT, wait).await.ok().flatten()
    }

    /// The newest states of documents, realtime: whatever was acknowledged before the call is
    /// seen. Every id comes with its routing.
    pub async fn get_many(
        &self,
        meta: &IndexMeta,
        ids: &[(String, Option<String>)],
    ) -> Vec<Result<Option<DocState>, EsError>> {
        let mut results: Vec<_> = ids.iter().map(|_| Ok(None)).collect();
        let mut by_shard: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (at, (id, routing)) in ids.iter().enumerate() {
            let number = shard_of(routing.as_deref().unwrap_or(id), meta.shard_count());
            by_shard.entry(number).or_default().push(at);
        }
        for (number, places) in by_shard {
            let wanted = places.iter().filter_map(|at| ids.get(*at)).map(|(id, _)| id.clone());
            let found = self.get_shard(meta, number, wanted.collect()).await;
            for (nth, at) in places.into_iter().enumerate() {
                let result = match &found {
                    Ok(states) => Ok(states.get(nth).cloned().flatten()),
                    Err(error) => Err(error.clone()),
                };
                if let Some(slot) = results.get_mut(at) {
                    *slot = result.map(|state| state.filter(|state| !state.deleted));
                }
            }
        }
        results
    }

    async fn get_shard(
        &self,
        meta: &IndexMeta,
        number: u16,
        ids: Vec<String>,
    ) -> Result<Vec<Option<DocState>>, EsError> {
        let shard = ShardId { index: meta.uuid(), number };
        let group = meta.row.shards.get(usize::from(number)).copied();
        let group = group.ok_or_else(|| EsError::internal("no such shard"))?;
        let barrier = self.group(group)?.read_barrier().await;
        barrier.map_err(|e| EsError::unavailable(e.to_string()))?;
        let error = match self.get_here(shard, ids.clone()).await {
            Ok(states) => return Ok(states),
            Err(error) => error,
        };
        // This node's copy is being built: another one answers.
        for (node, alive) in self.nodes() {
            if node != self.me()
                && alive
                && let Some(states) = self.get_there(node, shard, &ids).await
            {
                return Ok(states);
            }
        }
        Err(error)
    }

    /// Looks documents up on this node, blocking work off the runtime.
    pub(crate) async fn get_here(
        &self,
        shard: ShardId,
        ids: Vec<String>,
    ) -> Result<Vec<Option<DocState>>, EsError> {
        let copy = self.shared.copy(shard).filter(|copy| copy.knows_all());
        let copy = copy.ok_or_else(|| EsError::unavailable("the shard is starting"))?;
        let recent: Vec<_> = ids.iter().map(|id| copy.recent(id)).collect();
        if recent.iter().all(Option::is_some) {
            return Ok(recent);
        }
        let look_up =
            move || ids.iter().map(|id| engine::newest(&copy, id)).collect::<Result<Vec<_>, _>>();
        let found = tokio::task::spawn_blocking(look_up).await;
        found.map_err(|e| EsError::internal(e.to_string()))?
    }

    async fn get_there(
        &self,
        node: NodeId,
        shard: ShardId,
        ids: &[String],
    ) -> Option<Vec<Option<DocState>>> {
        let mut out = Writer::default();
        write_shard(&mut out, shard);
        out.u32(u32::try_from(ids.len()).ok()?);
        ids.iter().for_each(|id| out.blob(id.as_bytes()));
        let request = Message { head: Bytes::new(), payload: out.finish() };
        let timeout = crate::limits::FACTS_TIMEOUT;
        let answer = self.peers.call(node, Lane::Bulk, METHOD_GET, request, timeout).await.ok()?;
        read_states(answer.payload, ids.len()).ok()
    }
}

/// Writes states for another node.
pub(crate) fn write_states(states: &[Option<DocState>]) -> Bytes {
    let mut out = Writer::default();
    for state in states {
        out.option(state.as_ref(), |w, state| {
            w.u64(state.seq_no);
            w.u64(state.primary_term);
            w.u64(state.version);
            w.u8(u8::from(state.deleted));
            w.option(state.routing.as_deref(), |w, routing| w.blob(routing.as_bytes()));
            w.blob(&state.source);
        });
    }
    out.finish()
}

fn read_states(bytes: Bytes, count: usize) -> Result<Vec<Option<DocState>>, Malformed> {
    let mut input = Reader::new(bytes);
    let mut states = Vec::new();
    for _ in 0..count {
        states.push(input.option(|r| {
            Ok(DocState {
                seq_no: r.u64()?,
                primary_term: r.u64()?,
                version: r.u64()?,
                deleted: r.u8()? != 0,
                routing: r.option(Reader::text)?,
                source: r.blob()?,
            })
        })?);
    }
    Ok(states)
}

/// Elasticsearch's words for a primary that was not there. They mean that nothing was written, so a
/// write that may have been gets others.
fn timed_out(write: &ShardWrite, patience: Duration) -> EsError {
    let (index, shard) = (&write.index, write.shard.number);
    let what = match write.again {
        true => "primary shard did not confirm in time, the outcome is unknown",
        false => "primary shard is not active",
    };
    EsError::unavailable(format!(
        "[{index}][{shard}] {what} Timeout: [{}], request: [BulkShardRequest [[{index}][{shard}]] \
         containing [{}] requests]",
        time_text(patience),
        write.ops.len()
    ))
}

/// As Elasticsearch writes a time value: in the largest unit that makes it a whole number.
fn time_text(time: Duration) -> String {
    let ms = time.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let unit = units.iter().find(|(_, of)| ms > 0 && ms.is_multiple_of(*of));
    unit.map_or_else(|| format!("{ms}ms"), |(name, of)| format!("{}{name}", ms / of))
}

fn first_passing(results: &[Result<(), EsError>]) -> Option<EsError> {
    results.iter().find_map(|result| result.as_ref().err().filter(|e| e.passes()).cloned())
}

fn check_limits(op: &WriteOp) -> Result<(), EsError> {
    if op.id.len() > MAX_ID_BYTES {
        let reason = format!(
            "id [{}] is too long, must be no longer than {MAX_ID_BYTES} bytes but was: {}",
            op.id,
            op.id.len()
        );
        return Err(EsError::illegal(reason));
    }
    if op.weight() > MAX_DOCUMENT_BYTES {
        return Err(EsError::new(
            413,
            "illegal_argument_exception",
            format!("a document of more than {MAX_DOCUMENT_BYTES} bytes"),
        ));
    }
    Ok(())
}

/// Each document's verdict, and what has to be added to the mapping first.
fn check_all(meta: &IndexMeta, ops: &[WriteOp]) -> (Vec<Result<(), EsError>>, Option<Mapping>) {
    let mut update: Option<Mapping> = None;
    let checked = ops.iter().map(|op| {
        let Some(more) = check_one(meta, op)? else { return Ok(()) };
        // Documents of one request may contradict each other: the first one wins.
        update = Some(match update.take() {
            None => more,
            Some(known) => match known.merge(&more) {
                Ok(merged) => merged,
                // It is checked again once the mapping has what came first.
                Err(_) => known,
            },
        });
        Ok(())
    });
    (checked.collect(), update)
}

fn check_one(meta: &IndexMeta, op: &WriteOp) -> Result<Option<Mapping>, EsError> {
    let parse = |source: &Bytes| -> Result<Option<Mapping>, EsError> {
        Ok(meta.schema.parse_document(&op.id, source)?.update)
    };
    match &op.kind {
        WriteKind::Index(source) | WriteKind::Create(source) => parse(source),
        WriteKind::Delete => Ok(None),
        WriteKind::Update(spec) => {
            let mut update: Option<Mapping> = None;
            for source in [&spec.doc, &spec.upsert].into_iter().flatten() {
                let Some(more) = parse(source)? else { continue };
                update = Some(match update {
                    None => more,
                    Some(known) => known.merge(&more)?,
                });
            }
            Ok(update)
        }
    }
}

impl ShardWrite {
    pub(crate) fn encode(&self) -> Bytes {
        let weight: usize = self.ops.iter().map(WriteOp::weight).sum();
        let mut out = Writer::with_capacity(weight + 128);
        write_shard(&mut out, self.shard);
        out.blob(self.index.as_bytes());
        out.u64(self.mapping_version);
        out.option(self.mark.as_ref(), |w, mark| mark.write(w));
        out.u8(u8::from(self.again));
        out.u32(u32::try_from(self.ops.len()).expect("a call's bytes bound its operations"));
        self.ops.iter().for_each(|op| op.write(&mut out));
        out.finish()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut input = Reader::new(bytes);
        let mut write = Self {
            shard: read_shard(&mut input)?,
            index: input.text()?,
            mapping_version: input.u64()?,
            mark: input.option(MarkChange::read)?,
            again: input.u8()? != 0,
            ops: Vec::new(),
        };
        for _ in 0..input.u32()? {
            write.ops.push(WriteOp::read(&mut input)?);
        }
        input.end()?;
        Ok(write)
    }
}
