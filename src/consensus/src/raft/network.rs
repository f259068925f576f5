//! Raft's messages to other nodes.
//!
//! Traps of openraft 0.10.0-alpha.37 minded here: heartbeats go through `stream_append`, so they
//! get a client of their own on the control lane; the default pre-vote grants and the default
//! leader transfer fails, so both are real; time limits are ours to enforce.
//!
//! Connections lead to a slot, Raft ids belong to a data directory: every message names the id it
//! is for, so that a wiped node never answers for the one whose place it takes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::limits::{KIB, MIB};
use base::{GroupId, NodeId};
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, Snapshot};
use prost::Message as _;
use tokio::sync::Semaphore;

use super::host::Manifest;
use super::silence::Silence;
use super::types::{LogId, Member, Types, Vote, decode_entry, encode_body, invalid};
use crate::machine::SnapshotFile;
use crate::net::{Answer, CallError, Link, methods, proto};
use crate::peer::{Lane, Message};

/// Append requests of one group on their way to one follower.
pub(crate) const PIPELINE: usize = 64;
/// Bytes of entries of one group on their way to one follower; a larger entry goes alone.
pub(crate) const PIPELINE_BYTES: usize = 32 * MIB;
/// An append answer waits for the follower's flush, and shared disks stall for 400 ms at times.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
/// A heartbeat answer waits for a pending flush as well.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(1);
/// A snapshot of hundreds of GB takes its time; the connection notices a dead peer earlier.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(3600);

type SnapshotOf = openraft::type_config::alias::SnapshotOf<Types, Manifest>;

/// Makes the clients of one group.
pub(crate) struct Factory {
    pub(crate) link: Arc<dyn Link>,
    pub(crate) group: GroupId,
    pub(crate) silence: Silence,
}

impl Factory {
    fn client(&self, target: u64, member: &Member, lane: Lane) -> Client {
        let (link, to) = (self.link.clone(), NodeId(member.slot));
        Client { link, group: self.group, silence: self.silence, target, to, lane }
    }
}

impl RaftNetworkFactory<Types> for Factory {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Member) -> Client {
        self.client(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Client {
        self.client(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Client {
        self.client(target, node, Lane::Bulk)
    }
}

/// Speaks to one node for one group.
pub(crate) struct Client {
    link: Arc<dyn Link>,
    group: GroupId,
    silence: Silence,
    target: u64,
    to: NodeId,
    lane: Lane,
}

type RpcError = RPCError<Types>;

fn rpc_error(error: &CallError) -> RpcError {
    match error {
        CallError::NotSent(_) => Unreachable::new(error).into(),
        CallError::Lost(_) | CallError::Refused(_) => NetworkError::new(error).into(),
    }
}

async fn wait(answer: Result<Answer, CallError>, limit: Duration) -> Result<Message, CallError> {
    let answer = answer?;
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(CallError::Lost("the node stops".to_owned())),
        Err(_) => Err(CallError::Lost(format!("no answer within {limit:?}"))),
    }
}

fn reply<M: prost::Message + Default>(message: &Message) -> Result<M, RpcError> {
    M::decode(message.head.clone()).map_err(|e| NetworkError::new(&e).into())
}

impl Client {
    async fn request(
        &self,
        lane: Lane,
        method: u16,
        head: &impl prost::Message,
        limit: Duration,
    ) -> Result<Message, CallError> {
        let begun = self.link.begin(self.to, lane, method, head.encode_to_vec().into(), Vec::new());
        wait(begun.await, limit).await
    }
}

fn encode_append(
    group: GroupId,
    target: u64,
    rpc: &AppendEntriesRequest<Types>,
) -> (Bytes, Vec<Bytes>) {
    let bodies: Vec<Bytes> = rpc.entries.iter().map(encode_body).collect();
    let heads = rpc.entries.iter().zip(&bodies).map(|(entry, body)| proto::EntryHead {
        term: entry.log_id.leader_id.term,
        index: entry.log_id.index,
        len: u32::try_from(body.len()).expect("entries are bounded far below 4 GiB"),
    });
    let head = proto::AppendRequest {
        group: u32::from(group.0),
        target,
        vote: Some((&rpc.vote).into()),
        prev: rpc.prev_log_id.as_ref().map(Into::into),
        commit: rpc.leader_commit.as_ref().map(Into::into),
        entries: heads.collect(),
    };
    (head.encode_to_vec().into(), bodies)
}

/// An append request from its message.
pub(crate) fn decode_append(
    message: Message,
) -> io::Result<(GroupId, u64, AppendEntriesRequest<Types>)> {
    let head = proto::AppendRequest::decode(message.head).map_err(io::Error::other)?;
    let mut payload = message.payload;
    let mut entries = Vec::with_capacity(head.entries.len());
    for entry in head.entries {
        let len = entry.len as usize;
        if payload.len() < len {
            return Err(invalid("append request is shorter than its entries"));
        }
        entries.push(decode_entry(entry.term, entry.index, payload.split_to(len))?);
    }
    let request = AppendEntriesRequest {
        vote: head.vote.ok_or_else(|| invalid("append request without a vote"))?.into(),
        prev_log_id: head.prev.map(Into::into),
        entries,
        leader_commit: head.commit.map(Into::into),
    };
    Ok((group_id(head.group)?, head.target, request))
}

/// A group number from the wire.
pub(crate) fn group_id(number: u32) -> io::Result<GroupId> {
    Ok(GroupId(u16::try_from(number).map_err(|_| invalid("group number out of range"))?))
}

/// The answer to an append request.
pub(crate) fn encode_append_reply(reply: &AppendEntriesResponse<Types>) -> Message {
    use proto::append_reply::Kind;
    let (kind, upto, vote) = match reply {
        AppendEntriesResponse::Success => (Kind::Success, None, None),
        AppendEntriesResponse::PartialSuccess(upto) => {
            (Kind::Partial, upto.as_ref().map(Into::into), None)
        }
        AppendEntriesResponse::Conflict => (Kind::Conflict, None, None),
        AppendEntriesResponse::HigherVote(vote) => (Kind::HigherVote, None, Some(vote.into())),
    };
    Message::head(proto::AppendReply { kind: kind.into(), upto, vote }.encode_to_vec())
}

fn decode_append_reply(message: &Message) -> Result<AppendEntriesResponse<Types>, RpcError> {
    use proto::append_reply::Kind;
    let head: proto::AppendReply = reply(message)?;
    Ok(match head.kind() {
        Kind::Success => AppendEntriesResponse::Success,
        Kind::Partial => AppendEntriesResponse::PartialSuccess(head.upto.map(Into::into)),
        Kind::Conflict => AppendEntriesResponse::Conflict,
        Kind::HigherVote => {
            let vote = head.vote.ok_or_else(|| missing("vote"))?;
            AppendEntriesResponse::HigherVote(vote.into())
        }
    })
}

fn missing(what: &str) -> RpcError {
    NetworkError::new(&invalid(&format!("answer without a {what}"))).into()
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Manifest;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RpcError> {
        let (head, payload) = encode_append(self.group, self.target, &rpc);
        let begun = self.link.begin(self.to, self.lane, methods::APPEND, head, payload).await;
        let limit = if self.lane == Lane::Control { HEARTBEAT_TIMEOUT } else { APPEND_TIMEOUT };
        let answer = wait(begun, limit).await.map_err(|e| rpc_error(&e))?;
        decode_append_reply(&answer)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RpcError>>, RpcError>>
    where
        S: futures::Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        if self.lane == Lane::Control {
            return stream_append_sequential(self, input, option);
        }
        let (link, to) = (self.link.clone(), self.to);
        let (group, target) = (self.group, self.target);
        let room = Arc::new(Semaphore::new(PIPELINE_BYTES / KIB));
        let answers = input
            .then(move |rpc| {
                let (link, room) = (link.clone(), room.clone());
                async move {
                    let prev = rpc.prev_log_id;
                    let last = rpc.entries.last().map(|e| e.log_id).or(prev);
                    let (head, payload) = encode_append(group, target, &rpc);
                    // Given back by answers, which go on being polled meanwhile.
                    let place = room.acquire_many_owned(places(&payload)).await;
                    let begun = link.begin(to, Lane::Append, methods::APPEND, head, payload).await;
                    (prev, last, begun, place)
                }
            })
            .map(|(prev, last, begun, place)| async move {
                let result = append_result(prev, last, begun).await;
                drop(place);
                result
            })
            .buffered(PIPELINE);
        // Whatever is not a full success ends the stream: openraft then starts again from what
        // the follower has.
        let ended = answers.scan(false, |ended, (result, full)| {
            let item = (!*ended).then_some(result);
            *ended |= !full;
            std::future::ready(item)
        });
        Box::pin(async move { Ok(ended.boxed() as BoxStream<'s, _>) })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        self.ask_vote(rpc, false, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        self.ask_vote(rpc, true, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let offer = encode_offer(self.group, self.target, &vote, &snapshot);
        let request = self.request(Lane::Bulk, methods::SNAPSHOT, &offer, SNAPSHOT_TIMEOUT);
        let answer = tokio::select! {
            closed = cancel => return Err(closed.into()),
            answer = request => answer.map_err(|e| rpc_error(&e))?,
        };
        let head: proto::SnapshotReply = reply(&answer)?;
        let vote = head.vote.ok_or_else(|| missing("vote"))?;
        Ok(SnapshotResponse::new(vote.into()))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        let head = proto::TransferRequest {
            group: u32::from(self.group.0),
            from: Some(req.from_leader().into()),
            to: *req.to_node_id(),
            last: req.last_log_id().map(Into::into),
        };
        let answer = self.request(Lane::Control, methods::TRANSFER, &head, HEARTBEAT_TIMEOUT).await;
        let answer: proto::TransferReply = reply(&answer.map_err(|e| rpc_error(&e))?)?;
        if answer.accepted {
            return Ok(Ok(()));
        }
        // The reason is the target's own business; openraft only logs it.
        let refused = CallError::Refused(format!("node {} is not ready to lead", self.target));
        Err(NetworkError::new(&refused).into())
    }
}

impl Client {
    async fn ask_vote(
        &self,
        rpc: VoteRequest<Types>,
        pre_vote: bool,
        limit: Duration,
    ) -> Result<VoteResponse<Types>, RpcError> {
        // A leader that hands over has given up its lease.
        if !rpc.leadership_transfer {
            self.silence.over().await;
        }
        let head = proto::VoteRequest {
            group: u32::from(self.group.0),
            target: self.target,
            vote: Some((&rpc.vote).into()),
            last: rpc.last_log_id.as_ref().map(Into::into),
            leadership_transfer: rpc.leadership_transfer,
            pre_vote,
        };
        let answer = self.request(Lane::Control, methods::VOTE, &head, limit).await;
        let answer: proto::VoteReply = reply(&answer.map_err(|e| rpc_error(&e))?)?;
        let vote: Vote = answer.vote.ok_or_else(|| missing("vote"))?.into();
        Ok(VoteResponse::new(vote, answer.last.map(Into::into), answer.granted))
    }
}

type Appended = (Result<StreamAppendResult<Types>, RpcError>, bool);

/// Places that entries take of [`PIPELINE_BYTES`], in KiB.
fn places(payload: &[Bytes]) -> u32 {
    let bytes: usize = payload.iter().map(Bytes::len).sum();
    u32::try_from(bytes.min(PIPELINE_BYTES).div_ceil(KIB)).unwrap_or(u32::MAX)
}

async fn append_result(
    prev: Option<LogId>,
    last: Option<LogId>,
    begun: Result<Answer, CallError>,
) -> Appended {
    let answer = match wait(begun, APPEND_TIMEOUT).await {
        Ok(answer) => answer,
        Err(e) => return (Err(rpc_error(&e)), false),
    };
    match decode_append_reply(&answer) {
        Ok(AppendEntriesResponse::Conflict) if prev.is_none() => (Err(missing("prev")), false),
        Ok(reply) => {
            let full = reply.is_success();
            (Ok(reply.into_stream_result(prev, last)), full)
        }
        Err(e) => (Err(e), false),
    }
}

fn wire_files(files: &[SnapshotFile]) -> Vec<proto::SnapshotFile> {
    let wire =
        |f: &SnapshotFile| proto::SnapshotFile { path: f.path.clone(), len: f.len, crc: f.crc };
    files.iter().map(wire).collect()
}

fn encode_offer(
    group: GroupId,
    target: u64,
    vote: &Vote,
    snapshot: &SnapshotOf,
) -> proto::SnapshotOffer {
    let Snapshot { meta, snapshot } = snapshot;
    let mut position = snapshot.position.clone();
    let files = std::mem::take(&mut position.files);
    let mut membership = BytesMut::new();
    membership.put_slice(&base::codec::encode(&position));
    proto::SnapshotOffer {
        group: u32::from(group.0),
        target,
        vote: Some(vote.into()),
        last: meta.last_log_id.as_ref().map(Into::into),
        membership: membership.freeze(),
        rows: wire_files(&snapshot.rows),
        files: wire_files(&files),
    }
}
