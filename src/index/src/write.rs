//! Writes: what is asked of a shard, and what an operation comes to given the document's newest
//! state. Pure.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::command::LoggedOp;
use crate::copy::DocState;
use crate::error::EsError;
use crate::wire::{Malformed, Reader, Writer};

/// What is to be done with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// Put, whether it exists or not.
    Index(Bytes),
    /// Put, unless it exists.
    Create(Bytes),
    /// Remove.
    Delete,
    /// Change parts of what is there.
    Update(UpdateSpec),
}

/// An update without script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateSpec {
    /// Fields to merge in.
    pub doc: Option<Bytes>,
    /// The document if there is none.
    pub upsert: Option<Bytes>,
    /// Whether an update that changes nothing is no operation.
    pub detect_noop: bool,
    /// Whether the answer carries the new source.
    pub want_source: bool,
}

/// How a given version is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionType {
    /// Must be higher than what is there.
    External,
    /// Must not be lower than what is there.
    ExternalGte,
}

/// One write of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOp {
    /// What.
    pub kind: WriteKind,
    /// The document.
    pub id: String,
    /// Whether the id was minted by us, so that nothing can be there.
    pub auto_id: bool,
    /// Its routing.
    pub routing: Option<String>,
    /// A version kept outside.
    pub version: Option<(u64, VersionType)>,
    /// Sequence number and primary term that must be there.
    pub if_seq_no: Option<(u64, u64)>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The document is new.
    Created,
    /// The document was there.
    Updated,
    /// The document was there and is gone.
    Deleted,
    /// There was no document.
    NotFound,
    /// Nothing was to be changed.
    Noop,
}

impl Outcome {
    /// The `result` field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::NotFound => "not_found",
            Self::Noop => "noop",
        }
    }
}

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteResult {
    /// What became of it.
    pub outcome: Outcome,
    /// Number of the operation.
    pub seq_no: u64,
    /// Its primary term.
    pub primary_term: u64,
    /// The document's version.
    pub version: u64,
    /// The new source, when an update asked for it.
    pub source: Option<Vec<u8>>,
}

/// Facts about the shard that errors name.
#[derive(Clone, Debug)]
pub struct ShardNames {
    /// Name of the index.
    pub index: String,
    /// Its identity as text.
    pub uuid: String,
    /// Number of the shard.
    pub shard: u16,
}

impl ShardNames {
    fn error(&self, status: u16, kind: &str, reason: String) -> EsError {
        EsError::new(status, kind, reason)
            .with("index_uuid", self.uuid.as_str())
            .with("shard", self.shard.to_string())
            .with("index", self.index.as_str())
    }

    fn conflict(&self, id: &str, why: &str) -> EsError {
        let reason = format!("[{id}]: version conflict, {why}");
        self.error(409, "version_conflict_engine_exception", reason)
    }

    fn missing(&self, id: &str) -> EsError {
        self.error(404, "document_missing_exception", format!("[_doc][{id}]: document missing"))
    }
}

/// What an operation comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluated {
    /// To be appended.
    Log {
        /// The operation with its version.
        op: LoggedOp,
        /// What to answer.
        outcome: Outcome,
        /// Whether the answer carries the source.
        want_source: bool,
    },
    /// Nothing to append.
    Answer(WriteResult),
}

/// Evaluates one write against the document's newest state, tombstones included. `again`: the
/// write was sent before and its fate is unknown.
pub fn evaluate(
    op: &WriteOp,
    current: Option<&DocState>,
    again: bool,
    names: &ShardNames,
) -> Result<Evaluated, EsError> {
    let live = current.filter(|state| !state.deleted);
    if let (WriteKind::Create(source), Some(state)) = (&op.kind, live) {
        if again && state.source == *source {
            return Ok(Evaluated::Answer(answer(state, Outcome::Created)));
        }
        let why = format!("document already exists (current version [{}])", state.version);
        return Err(names.conflict(&op.id, &why));
    }
    if let WriteKind::Update(spec) = &op.kind {
        return evaluate_update(op, spec, live, current, names);
    }
    check_seq_no(op, live, names)?;
    let version = next_version(op, current, names)?;
    let (delete, source, outcome) = match &op.kind {
        WriteKind::Delete if live.is_some() => (true, Bytes::new(), Outcome::Deleted),
        WriteKind::Delete => (true, Bytes::new(), Outcome::NotFound),
        WriteKind::Index(source) | WriteKind::Create(source) => {
            let outcome = if live.is_some() { Outcome::Updated } else { Outcome::Created };
            (false, source.clone(), outcome)
        }
        WriteKind::Update(_) => unreachable!("handled above"),
    };
    let routing = op.routing.clone();
    let op = LoggedOp { delete, version, id: op.id.clone(), routing, source };
    Ok(Evaluated::Log { op, outcome, want_source: false })
}

fn answer(state: &DocState, outcome: Outcome) -> WriteResult {
    let DocState { seq_no, primary_term, version, .. } = *state;
    WriteResult { outcome, seq_no, primary_term, version, source: None }
}

fn check_seq_no(op: &WriteOp, live: Option<&DocState>, names: &ShardNames) -> Result<(), EsError> {
    let Some((seq_no, term)) = op.if_seq_no else { return Ok(()) };
    let found = match live {
        None => "but no document was found".to_owned(),
        Some(state) if state.seq_no == seq_no && state.primary_term == term => return Ok(()),
        Some(state) => format!(
            "current document has seqNo [{}] and primary term [{}]",
            state.seq_no, state.primary_term
        ),
    };
    let why = format!("required seqNo [{seq_no}], primary term [{term}]. {found}");
    Err(names.conflict(&op.id, &why))
}

fn next_version(
    op: &WriteOp,
    current: Option<&DocState>,
    names: &ShardNames,
) -> Result<u64, EsError> {
    let Some((version, kind)) = op.version else {
        return Ok(current.map_or(1, |state| state.version + 1));
    };
    let Some(found) = current.map(|state| state.version) else { return Ok(version) };
    let why = match kind {
        VersionType::External if found >= version => "higher or equal to",
        VersionType::ExternalGte if found > version => "higher than",
        VersionType::External | VersionType::ExternalGte => return Ok(version),
    };
    let why = format!("current version [{found}] is {why} the one provided [{version}]");
    Err(names.conflict(&op.id, &why))
}

fn evaluate_update(
    op: &WriteOp,
    spec: &UpdateSpec,
    live: Option<&DocState>,
    current: Option<&DocState>,
    names: &ShardNames,
) -> Result<Evaluated, EsError> {
    let Some(state) = live else {
        let Some(upsert) = &spec.upsert else { return Err(names.missing(&op.id)) };
        if op.if_seq_no.is_some() {
            return Err(names.missing(&op.id));
        }
        let version = current.map_or(1, |state| state.version + 1);
        let logged = LoggedOp {
            delete: false,
            version,
            id: op.id.clone(),
            routing: op.routing.clone(),
            source: upsert.clone(),
        };
        let want_source = spec.want_source;
        return Ok(Evaluated::Log { op: logged, outcome: Outcome::Created, want_source });
    };
    check_seq_no(op, live, names)?;
    let merged = match &spec.doc {
        Some(doc) => merge_sources(&state.source, doc)?,
        None => None,
    };
    let source = match merged {
        Some(source) => source,
        None if spec.detect_noop => {
            let mut result = answer(state, Outcome::Noop);
            result.source = spec.want_source.then(|| state.source.to_vec());
            return Ok(Evaluated::Answer(result));
        }
        None => state.source.clone(),
    };
    let logged = LoggedOp {
        delete: false,
        version: state.version + 1,
        id: op.id.clone(),
        routing: op.routing.clone().or_else(|| state.routing.clone()),
        source,
    };
    let want_source = spec.want_source;
    Ok(Evaluated::Log { op: logged, outcome: Outcome::Updated, want_source })
}

/// The source with `doc` merged in, objects deeply; `None` when nothing changed.
fn merge_sources(source: &Bytes, doc: &Bytes) -> Result<Option<Bytes>, EsError> {
    let read = |bytes: &Bytes| {
        serde_json::from_slice::<Map<String, Value>>(bytes)
            .map_err(|e| EsError::new(400, "mapper_parsing_exception", e.to_string()))
    };
    let (mut merged, doc) = (read(source)?, read(doc)?);
    if !merge_maps(&mut merged, doc) {
        return Ok(None);
    }
    let bytes = serde_json::to_vec(&merged).map_err(|e| EsError::internal(e.to_string()))?;
    Ok(Some(bytes.into()))
}

fn merge_maps(into: &mut Map<String, Value>, from: Map<String, Value>) -> bool {
    let mut changed = false;
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => changed |= merge_maps(old, new),
            (Some(old), new) => {
                changed |= *old != new;
                *old = new;
            }
            (None, new) => {
                into.insert(key, new);
                changed = true;
            }
        }
    }
    changed
}

impl WriteOp {
    /// Bytes that it weighs.
    pub fn weight(&self) -> usize {
        let body = match &self.kind {
            WriteKind::Index(source) | WriteKind::Create(source) => source.len(),
            WriteKind::Delete => 0,
            WriteKind::Update(spec) => {
                spec.doc.as_ref().map_or(0, Bytes::len) + spec.upsert.as_ref().map_or(0, Bytes::len)
            }
        };
        64 + self.id.len() + body
    }

    /// Writes the operation for another node.
    pub fn write(&self, out: &mut Writer) {
        match &self.kind {
            WriteKind::Index(source) => {
                out.u8(0);
                out.blob(source);
            }
            WriteKind::Create(source) => {
                out.u8(1);
                out.blob(source);
            }
            WriteKind::Delete => out.u8(2),
            WriteKind::Update(spec) => {
                out.u8(3);
                out.option(spec.doc.as_ref(), |w, doc| w.blob(doc));
                out.option(spec.upsert.as_ref(), |w, doc| w.blob(doc));
                out.u8(u8::from(spec.detect_noop));
                out.u8(u8::from(spec.want_source));
            }
        }
        out.blob(self.id.as_bytes());
        out.u8(u8::from(self.auto_id));
        out.option(self.routing.as_deref(), |w, routing| w.blob(routing.as_bytes()));
        out.option(self.version, |w, (version, kind)| {
            w.u64(version);
            w.u8(u8::from(kind == VersionType::ExternalGte));
        });
        out.option(self.if_seq_no, |w, (seq_no, term)| {
            w.u64(seq_no);
            w.u64(term);
        });
    }

    /// Reads what [`Self::write`] wrote.
    pub fn read(input: &mut Reader) -> Result<Self, Malformed> {
        let kind = match input.u8()? {
            0 => WriteKind::Index(input.blob()?),
            1 => WriteKind::Create(input.blob()?),
            2 => WriteKind::Delete,
            3 => WriteKind::Update(UpdateSpec {
                doc: input.option(Reader::blob)?,
                upsert: input.option(Reader::blob)?,
                detect_noop: input.u8()? != 0,
                want_source: input.u8()? != 0,
            }),
            _ => return Err(Malformed { at: 0 }),
        };
        Ok(Self {
            kind,
            id: input.text()?,
            auto_id: input.u8()? != 0,
            routing: input.option(Reader::text)?,
            version: input.option(|r| {
                let version = r.u64()?;
                let gte = r.u8()? != 0;
                Ok((version, if gte { VersionType::ExternalGte } else { VersionType::External }))
            })?,
            if_seq_no: input.option(|r| Ok((r.u64()?, r.u64()?)))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> ShardNames {
        ShardNames { index: "i".to_owned(), uuid: "u".to_owned(), shard: 0 }
    }

    fn op(kind: WriteKind) -> WriteOp {
        WriteOp {
            kind,
            id: "1".to_owned(),
            auto_id: false,
            routing: None,
            version: None,
            if_seq_no: None,
        }
    }

    fn state(source: &'static str) -> DocState {
        DocState {
            seq_no: 5,
            primary_term: 1,
            version: 2,
            deleted: false,
            routing: None,
            source: Bytes::from_static(source.as_bytes()),
        }
    }

    fn source() -> Bytes {
        Bytes::from_static(b"{}")
    }

    fn reason(op: &WriteOp, current: Option<&DocState>) -> String {
        evaluate(op, current, false, &names()).unwrap_err().reason
    }

    #[test]
    fn conflicts_have_the_texts_of_elasticsearch() {
        let state = state("{}");
        let create = op(WriteKind::Create(source()));
        assert_eq!(
            reason(&create, Some(&state)),
            "[1]: version conflict, document already exists (current version [2])"
        );
        let mut index = op(WriteKind::Index(source()));
        index.if_seq_no = Some((4, 1));
        assert_eq!(
            reason(&index, Some(&state)),
            "[1]: version conflict, required seqNo [4], primary term [1]. current document has \
             seqNo [5] and primary term [1]"
        );
        index.if_seq_no = None;
        index.version = Some((2, VersionType::External));
        assert_eq!(
            reason(&index, Some(&state)),
            "[1]: version conflict, current version [2] is higher or equal to the one provided [2]"
        );
        let update = op(WriteKind::Update(UpdateSpec::default()));
        assert_eq!(reason(&update, None), "[_doc][1]: document missing");
    }

    #[test]
    fn versions_go_on_after_a_delete() {
        let mut tombstone = state("");
        tombstone.deleted = true;
        let index = op(WriteKind::Index(source()));
        let done = evaluate(&index, Some(&tombstone), false, &names()).unwrap();
        let Evaluated::Log { op, outcome, .. } = done else { panic!("an operation") };
        assert_eq!((op.version, outcome), (3, Outcome::Created));
    }

    #[test]
    fn an_update_merges_deeply_or_does_nothing() {
        let state = state(r#"{"a":{"b":1,"c":2}}"#);
        let update = |doc: &'static str| {
            let doc = Some(Bytes::from_static(doc.as_bytes()));
            let spec = UpdateSpec { doc, detect_noop: true, ..UpdateSpec::default() };
            evaluate(&op(WriteKind::Update(spec)), Some(&state), false, &names()).unwrap()
        };
        let Evaluated::Log { op, .. } = update(r#"{"a":{"b":3},"d":4}"#) else { panic!("change") };
        assert_eq!(op.source, r#"{"a":{"b":3,"c":2},"d":4}"#);
        let Evaluated::Answer(result) = update(r#"{"a":{"c":2}}"#) else { panic!("no change") };
        assert_eq!((result.outcome, result.version), (Outcome::Noop, 2));
    }

    #[test]
    fn a_repeated_create_is_recognised() {
        let state = state("{}");
        let create = op(WriteKind::Create(source()));
        let done = evaluate(&create, Some(&state), true, &names()).unwrap();
        assert!(matches!(done, Evaluated::Answer(r) if r.outcome == Outcome::Created));
    }

    #[test]
    fn operations_travel() {
        let mut sent = op(WriteKind::Update(UpdateSpec {
            doc: Some(source()),
            upsert: None,
            detect_noop: true,
            want_source: false,
        }));
        sent.version = Some((7, VersionType::ExternalGte));
        sent.if_seq_no = Some((1, 2));
        let mut out = Writer::default();
        sent.write(&mut out);
        assert_eq!(WriteOp::read(&mut Reader::new(out.finish())).unwrap(), sent);
    }
}
