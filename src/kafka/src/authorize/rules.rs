//! Which operations on which resources an API needs, as Kafka's `KafkaApis` asks for them.
//!
//! One table for every API of the version table: an API without a rule does not compile.

use secure::acl::{Operation, ResourceType};

use crate::codec::ApiKey;

/// An operation on a kind of resource.
pub(crate) type Need = (Operation, ResourceType);

/// What an API needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// For the request as a whole, on the resource that it names or on the cluster, all of them;
    /// else it is refused.
    pub(crate) whole: &'static [Need],
    /// For each thing that the request names; a thing that lacks it is answered with an error.
    pub(crate) each: Option<Need>,
    /// For each thing in the response; a thing that lacks it is left out.
    pub(crate) shown: Option<Need>,
}

const fn rule(whole: &'static [Need], each: Option<Need>, shown: Option<Need>) -> Rule {
    Rule { whole, each, shown }
}

/// The rule of an API.
pub(crate) const fn rule_of(key: ApiKey) -> Rule {
    use Operation::*;
    use ResourceType::{Cluster, Group, Topic, TransactionalId};
    match key {
        // Before anybody is known, or what every client must be told.
        ApiKey::ApiVersions
        | ApiKey::SaslHandshake
        | ApiKey::SaslAuthenticate
        | ApiKey::DescribeCluster => rule(&[], None, None),
        // A transactional producer also needs to write its id.
        ApiKey::Produce => rule(&[], Some((Write, Topic)), None),
        // Asked again for every read, in the handler: a fetch session outlives a request.
        ApiKey::Fetch => rule(&[], Some((Read, Topic)), None),
        ApiKey::ListOffsets | ApiKey::OffsetForLeaderEpoch => {
            rule(&[], Some((Describe, Topic)), None)
        }
        // Making a topic by naming it needs to create it as well.
        ApiKey::Metadata => rule(&[], Some((Describe, Topic)), Some((Describe, Topic))),
        ApiKey::OffsetCommit => rule(&[(Read, Group)], Some((Read, Topic)), None),
        ApiKey::OffsetDelete => rule(&[(Delete, Group)], Some((Read, Topic)), None),
        // Topics need to be described too.
        ApiKey::OffsetFetch => rule(&[], Some((Describe, Group)), Some((Describe, Topic))),
        // Or to describe the transactional id, where the key is one.
        ApiKey::FindCoordinator => rule(&[], Some((Describe, Group)), None),
        ApiKey::JoinGroup | ApiKey::Heartbeat | ApiKey::LeaveGroup | ApiKey::SyncGroup => {
            rule(&[(Read, Group)], None, None)
        }
        ApiKey::ConsumerGroupHeartbeat => rule(&[(Read, Group)], Some((Describe, Topic)), None),
        // Topics need to be described too, or nothing of the group is told.
        ApiKey::ConsumerGroupDescribe => {
            rule(&[], Some((Describe, Group)), Some((Describe, Topic)))
        }
        ApiKey::DescribeGroups => rule(&[], Some((Describe, Group)), None),
        ApiKey::ListGroups => rule(&[], None, Some((Describe, Group))),
        ApiKey::DeleteGroups => rule(&[], Some((Delete, Group)), None),
        // Or to create in the whole cluster; settings are shown to those who may describe them.
        ApiKey::CreateTopics => rule(&[], Some((Create, Topic)), Some((DescribeConfigs, Topic))),
        ApiKey::DeleteTopics | ApiKey::DeleteRecords => rule(&[], Some((Delete, Topic)), None),
        ApiKey::CreatePartitions => rule(&[], Some((Alter, Topic)), None),
        // With a transactional id, to write that; else this, or to write to any topic.
        ApiKey::InitProducerId => rule(&[(IdempotentWrite, Cluster)], None, None),
        ApiKey::DescribeAcls | ApiKey::DescribeUserScramCredentials => {
            rule(&[(Describe, Cluster)], None, None)
        }
        ApiKey::CreateAcls | ApiKey::DeleteAcls | ApiKey::AlterUserScramCredentials => {
            rule(&[(Alter, Cluster)], None, None)
        }
        ApiKey::DescribeClientQuotas => rule(&[(DescribeConfigs, Cluster)], None, None),
        ApiKey::AlterClientQuotas => rule(&[(AlterConfigs, Cluster)], None, None),
        // From clients (up to version 3) with the transactional id; from brokers for the cluster.
        ApiKey::AddPartitionsToTxn => rule(&[], Some((Write, Topic)), None),
        ApiKey::AddOffsetsToTxn => rule(&[(Write, TransactionalId), (Read, Group)], None, None),
        ApiKey::EndTxn => rule(&[(Write, TransactionalId)], None, None),
        ApiKey::TxnOffsetCommit => {
            rule(&[(Write, TransactionalId), (Read, Group)], Some((Read, Topic)), None)
        }
        // Or to act for the cluster.
        ApiKey::WriteTxnMarkers => rule(&[(Alter, Cluster)], None, None),
        ApiKey::DescribeProducers => rule(&[], Some((Read, Topic)), None),
        ApiKey::DescribeTransactions => {
            rule(&[], Some((Describe, TransactionalId)), Some((Describe, Topic)))
        }
        ApiKey::ListTransactions => rule(&[], None, Some((Describe, TransactionalId))),
        ApiKey::DescribeLogDirs | ApiKey::ListPartitionReassignments | ApiKey::DescribeQuorum => {
            rule(&[(Describe, Cluster)], None, None)
        }
        ApiKey::ElectLeaders
        | ApiKey::AlterPartitionReassignments
        | ApiKey::AlterReplicaLogDirs => rule(&[(Alter, Cluster)], None, None),
        ApiKey::ListConfigResources => rule(&[(DescribeConfigs, Cluster)], None, None),
        ApiKey::DescribeTopicPartitions => {
            rule(&[], Some((Describe, Topic)), Some((Describe, Topic)))
        }
        // On the group or the cluster where the setting belongs to those.
        ApiKey::DescribeConfigs => rule(&[], Some((DescribeConfigs, Topic)), None),
        ApiKey::AlterConfigs | ApiKey::IncrementalAlterConfigs => {
            rule(&[], Some((AlterConfigs, Topic)), None)
        }
    }
}
