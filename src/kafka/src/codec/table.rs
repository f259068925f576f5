//! The version table: what a broker of Kafka 4.0.1 serves, restricted to what trine implements.
//!
//! Two quirks of that release are part of it. Produce is advertised from version 0, although
//! versions 0 to 2 are refused: without it librdkafka before 2.11.1 stops compressing. JoinGroup
//! is served from version 0: librdkafka's feature test and kafka-go look for it.

use super::messages::*;
use super::wire::{CodecError, Ctx, Reader, Wire, Writer};

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// The API.
    pub key: ApiKey,
    /// Lowest version that ApiVersions names.
    pub advertised_min: i16,
    /// Lowest version served.
    pub min: i16,
    /// Highest version served and advertised.
    pub max: i16,
    /// First version with compact lengths and tags.
    pub flexible_from: i16,
}

/// No version of the API is flexible.
const NEVER: i16 = i16::MAX;

apis! {
    Produce = 0, 0, 3..=12, 9, ProduceRequest, ProduceResponse;
    Fetch = 1, 4, 4..=17, 12, FetchRequest, FetchResponse;
    ListOffsets = 2, 1, 1..=10, 6, ListOffsetsRequest, ListOffsetsResponse;
    Metadata = 3, 0, 0..=13, 9, MetadataRequest, MetadataResponse;
    OffsetCommit = 8, 2, 2..=9, 8, OffsetCommitRequest, OffsetCommitResponse;
    OffsetFetch = 9, 1, 1..=9, 6, OffsetFetchRequest, OffsetFetchResponse;
    FindCoordinator = 10, 0, 0..=6, 3, FindCoordinatorRequest, FindCoordinatorResponse;
    JoinGroup = 11, 0, 0..=9, 6, JoinGroupRequest, JoinGroupResponse;
    Heartbeat = 12, 0, 0..=4, 4, HeartbeatRequest, HeartbeatResponse;
    LeaveGroup = 13, 0, 0..=5, 4, LeaveGroupRequest, LeaveGroupResponse;
    SyncGroup = 14, 0, 0..=5, 4, SyncGroupRequest, SyncGroupResponse;
    DescribeGroups = 15, 0, 0..=6, 5, DescribeGroupsRequest, DescribeGroupsResponse;
    ListGroups = 16, 0, 0..=5, 3, ListGroupsRequest, ListGroupsResponse;
    SaslHandshake = 17, 0, 0..=1, NEVER, SaslHandshakeRequest, SaslHandshakeResponse;
    ApiVersions = 18, 0, 0..=4, 3, ApiVersionsRequest, ApiVersionsResponse;
    CreateTopics = 19, 2, 2..=7, 5, CreateTopicsRequest, CreateTopicsResponse;
    DeleteTopics = 20, 1, 1..=6, 4, DeleteTopicsRequest, DeleteTopicsResponse;
    DeleteRecords = 21, 0, 0..=2, 2, DeleteRecordsRequest, DeleteRecordsResponse;
    InitProducerId = 22, 0, 0..=5, 2, InitProducerIdRequest, InitProducerIdResponse;
    OffsetForLeaderEpoch = 23, 2, 2..=4, 4,
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse;
    AddPartitionsToTxn = 24, 0, 0..=5, 3, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse;
    AddOffsetsToTxn = 25, 0, 0..=4, 3, AddOffsetsToTxnRequest, AddOffsetsToTxnResponse;
    EndTxn = 26, 0, 0..=5, 3, EndTxnRequest, EndTxnResponse;
    WriteTxnMarkers = 27, 1, 1..=1, 1, WriteTxnMarkersRequest, WriteTxnMarkersResponse;
    TxnOffsetCommit = 28, 0, 0..=5, 3, TxnOffsetCommitRequest, TxnOffsetCommitResponse;
    DescribeAcls = 29, 1, 1..=3, 2, DescribeAclsRequest, DescribeAclsResponse;
    CreateAcls = 30, 1, 1..=3, 2, CreateAclsRequest, CreateAclsResponse;
    DeleteAcls = 31, 1, 1..=3, 2, DeleteAclsRequest, DeleteAclsResponse;
    DescribeConfigs = 32, 1, 1..=4, 4, DescribeConfigsRequest, DescribeConfigsResponse;
    AlterConfigs = 33, 0, 0..=2, 2, AlterConfigsRequest, AlterConfigsResponse;
    AlterReplicaLogDirs = 34, 1, 1..=2, 2,
        AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse;
    DescribeLogDirs = 35, 1, 1..=4, 2, DescribeLogDirsRequest, DescribeLogDirsResponse;
    SaslAuthenticate = 36, 0, 0..=2, 2, SaslAuthenticateRequest, SaslAuthenticateResponse;
    CreatePartitions = 37, 0, 0..=3, 2, CreatePartitionsRequest, CreatePartitionsResponse;
    DeleteGroups = 42, 0, 0..=2, 2, DeleteGroupsRequest, DeleteGroupsResponse;
    ElectLeaders = 43, 0, 0..=2, 2, ElectLeadersRequest, ElectLeadersResponse;
    IncrementalAlterConfigs = 44, 0, 0..=1, 1,
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse;
    AlterPartitionReassignments = 45, 0, 0..=0, 0,
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse;
    ListPartitionReassignments = 46, 0, 0..=0, 0,
        ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse;
    OffsetDelete = 47, 0, 0..=0, NEVER, OffsetDeleteRequest, OffsetDeleteResponse;
    DescribeClientQuotas = 48, 0, 0..=1, 1,
        DescribeClientQuotasRequest, DescribeClientQuotasResponse;
    AlterClientQuotas = 49, 0, 0..=1, 1, AlterClientQuotasRequest, AlterClientQuotasResponse;
    DescribeUserScramCredentials = 50, 0, 0..=0, 0,
        DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse;
    AlterUserScramCredentials = 51, 0, 0..=0, 0,
        AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse;
    DescribeQuorum = 55, 0, 0..=2, 0, DescribeQuorumRequest, DescribeQuorumResponse;
    DescribeCluster = 60, 0, 0..=2, 0, DescribeClusterRequest, DescribeClusterResponse;
    DescribeProducers = 61, 0, 0..=0, 0, DescribeProducersRequest, DescribeProducersResponse;
    DescribeTransactions = 65, 0, 0..=0, 0,
        DescribeTransactionsRequest, DescribeTransactionsResponse;
    ListTransactions = 66, 0, 0..=1, 0, ListTransactionsRequest, ListTransactionsResponse;
    ConsumerGroupHeartbeat = 68, 0, 0..=1, 0,
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse;
    ConsumerGroupDescribe = 69, 0, 0..=1, 0,
        ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse;
    ListConfigResources = 74, 0, 0..=0, 0,
        ListConfigResourcesRequest, ListConfigResourcesResponse;
    DescribeTopicPartitions = 75, 0, 0..=0, 0,
        DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse;
}

impl Api {
    /// The row of an API key as it stands on the wire.
    pub fn by_number(number: i16) -> Option<&'static Self> {
        TABLE.iter().find(|api| api.key.number() == number)
    }

    /// How a version of this API is written.
    pub fn ctx(&self, version: i16) -> Ctx {
        Ctx { version, flexible: version >= self.flexible_from }
    }
}

impl ApiKey {
    /// The key's number on the wire.
    pub fn number(self) -> i16 {
        self as i16
    }

    /// The key's row.
    pub fn api(self) -> &'static Api {
        Api::by_number(self.number()).expect("every key has a row: one macro makes both")
    }
}
