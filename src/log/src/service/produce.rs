//! Writing: produce, producer ids, delete records.

use base::NodeId;
use bytes::Bytes;
use consensus::{GroupRef, tags};

use super::check::Checked;
use super::{LogService, key_of};
use crate::batch;
use crate::command::{self, Control, ControlReply, MetaCommand, MetaReply, ProduceReply};
use crate::configs::TimestampType;
use crate::error::LogError;
use crate::partition::Partition;
use crate::transactions::Claim;
use crate::types::{Produced, Topic, TopicRef};

/// What a producer waits for. Both wait for commit; only `All` asks for
/// `min.insync.replicas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// acks=0 and acks=1.
    Leader,
    /// acks=all.
    All,
}

/// Where a batch may be proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    Here,
    Anywhere,
}

impl LogService {
    /// Appends one batch; returns when it is committed and applied. Only on the leader.
    pub async fn produce(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        batch: Bytes,
        acks: Acks,
    ) -> Result<Produced, LogError> {
        let topic = self.resolve(topic)?;
        let (_, part, leadership) = self.led(&topic, partition)?;
        let produced = self.produce_here(&topic, partition, &part, batch, acks).await;
        self.settled(&part, leadership.term, produced)
    }

    /// A batch was given up by who waited for it; it may never come, and its producer sends it
    /// again.
    pub fn gave_up(&self, topic: TopicRef<'_>, partition: i32) {
        if let Ok(topic) = self.resolve(topic)
            && let Ok((_, part, _)) = self.led(&topic, partition)
        {
            part.unsettled.lock().refused(self.0.shared.0.env.clock.monotonic());
        }
    }

    /// What a producer is told of its batch: see [`crate::unsettled`].
    pub(super) fn settled(
        &self,
        part: &Partition,
        term: u64,
        produced: Result<Produced, LogError>,
    ) -> Result<Produced, LogError> {
        let now = self.0.shared.0.env.clock.monotonic();
        let mut unsettled = part.unsettled.lock();
        unsettled.came(term, part.inherits(term), now);
        match produced {
            Err(LogError::OutOfOrderSequence) if unsettled.lasts(now) => {
                Err(LogError::NotLeader { leader: None })
            }
            Err(error) if error.is_passing() => {
                unsettled.refused(now);
                Err(error)
            }
            other => other,
        }
    }

    async fn produce_here(
        &self,
        topic: &Topic,
        partition: i32,
        part: &Partition,
        batch: Bytes,
        acks: Acks,
    ) -> Result<Produced, LogError> {
        let turn = part.order.lock().await;
        let checked = self.check(topic, partition, batch).await?;
        // The next one gets through once this one is proposed: both are polled by the task of
        // their connection, in order.
        drop(turn);
        self.append(topic, partition, checked, acks, Where::Here, Claim::Plain).await
    }

    /// As [`Self::produce`], on any node: for the console and for tools.
    pub async fn produce_any(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        batch: Bytes,
    ) -> Result<Produced, LogError> {
        let topic = self.resolve(topic)?;
        let checked = self.check(&topic, partition, batch).await?;
        self.append(&topic, partition, checked, Acks::All, Where::Anywhere, Claim::Plain).await
    }

    /// Appends a batch that was checked.
    pub(super) async fn append(
        &self,
        topic: &Topic,
        partition: i32,
        checked: Checked,
        acks: Acks,
        place: Where,
        claim: Claim,
    ) -> Result<Produced, LogError> {
        let Checked { batch, max_timestamp_ms } = checked;
        let group = self.group_of(topic, partition)?;
        let wanted = if acks == Acks::All { topic.settings.min_insync_replicas } else { 1 };
        if self.in_sync(group) < wanted {
            return Err(LogError::NotEnoughReplicas);
        }
        let (mut command, head) = command::produce(key_of(topic, partition)?, claim, &batch);
        let mut log_append_time_ms = -1;
        if topic.settings.timestamp_type == TimestampType::LogAppendTime {
            log_append_time_ms = self.now_ms();
            batch::stamp(command.get_mut(head..).unwrap_or_default(), log_append_time_ms);
        } else if let Some(max_ms) = max_timestamp_ms {
            batch::set_max_timestamp(command.get_mut(head..).unwrap_or_default(), max_ms);
        }
        drop(batch);
        let command = command.freeze();
        let applied = match place {
            Where::Here => group.propose_here(tags::LOG, command, None).await?,
            Where::Anywhere => group.propose(tags::LOG, command).await?,
        };
        let reply = ProduceReply::decode(&applied.reply);
        match reply.map_err(|e| LogError::Internal(e.to_string()))? {
            ProduceReply::Done { base_offset, log_start } => {
                // What is applied has a majority.
                let majority = self.0.peers.all().len() / 2 + 1;
                if wanted > majority && !group.reach_all(applied.index).await {
                    return Err(LogError::NotEnoughReplicasAfterAppend);
                }
                Ok(Produced { base_offset, log_append_time_ms, log_start_offset: log_start })
            }
            ProduceReply::UnknownPartition => Err(LogError::UnknownTopicOrPartition),
            ProduceReply::OutOfOrder => Err(LogError::OutOfOrderSequence),
            ProduceReply::OldEpoch => Err(LogError::InvalidProducerEpoch),
            ProduceReply::NotInTransaction => Err(LogError::InvalidTxnState),
            ProduceReply::Corrupt => Err(LogError::CorruptMessage("not a batch".to_owned())),
        }
    }

    /// How many replicas of a group keep up.
    fn in_sync(&self, group: &GroupRef) -> usize {
        let (peers, behind) = (&self.0.peers, group.behind());
        let keeps_up = |node: &NodeId| peers.is_alive(*node) && !behind.contains(node);
        peers.all().iter().filter(|node| keeps_up(node)).count()
    }

    /// A producer id that no producer has; its epoch is 0.
    pub async fn init_producer_id(&self) -> Result<i64, LogError> {
        // One at a time, where Kafka's nodes take blocks: what partitions know of producers that
        // they have forgotten is the highest id, which says something while later ids are higher.
        match self.meta(&MetaCommand::AllocateProducerIds { count: 1 }).await? {
            MetaReply::ProducerIds { first } => Ok(first),
            other => Err(LogError::Internal(format!("m0 answered {other:?}"))),
        }
    }

    /// Deletes records below `offset`, −1 for all; returns the log's new start. Only on the
    /// leader, and as in Kafka only where the topic's `cleanup.policy` deletes at all.
    pub async fn delete_records(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        offset: i64,
    ) -> Result<i64, LogError> {
        let topic = self.resolve(topic)?;
        let (group, part, _) = self.led(&topic, partition)?;
        if !topic.settings.deletes {
            return Err(LogError::PolicyViolation(format!(
                "Records of partition {}-{partition} can not be deleted due to the configured \
                 policy",
                topic.name
            )));
        }
        // A leader that was deposed without knowing may not know of the newest records.
        group.read_barrier().await?;
        let (start, end) = part.bounds();
        let wanted = if offset == -1 { end } else { offset };
        if wanted < 0 || wanted > end {
            return Err(LogError::OffsetOutOfRange { offset, start, end });
        }
        let command = Control::SetLogStart { key: part.key, offset: wanted };
        match self.control_here(group, &command).await? {
            ControlReply::LogStart(start) => Ok(start),
            ControlReply::OutOfRange { start, end } => {
                Err(LogError::OffsetOutOfRange { offset, start, end })
            }
            ControlReply::UnknownPartition => Err(LogError::UnknownTopicOrPartition),
            other => Err(LogError::Internal(format!("the group answered {other:?}"))),
        }
    }
}
