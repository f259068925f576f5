//! Messages: ApiVersions, Metadata, DescribeCluster, FindCoordinator.

use uuid::Uuid;

messages! {
    /// Request of ApiVersions (key 18).
    struct ApiVersionsRequest {
        client_software_name: String [3..],
        client_software_version: String [3..],
    }
    /// Response of ApiVersions (key 18).
    struct ApiVersionsResponse {
        error_code: i16 [0..],
        api_keys: Vec<ApiVersion> [0..],
        throttle_time_ms: i32 [1..],
        @tags {
            0 supported_features: Vec<SupportedFeatureKey> [3..],
            1 finalized_features_epoch: i64 [3..] = -1,
            2 finalized_features: Vec<FinalizedFeatureKey> [3..],
            3 zk_migration_ready: bool [3..],
        }
    }
    /// The APIs supported by the broker.
    struct ApiVersion {
        api_key: i16 [0..],
        min_version: i16 [0..],
        max_version: i16 [0..],
    }
    /// Features supported by the broker. Note: in v0-v3, features with MinSupportedVersion …
    struct SupportedFeatureKey {
        name: String [3..],
        min_version: i16 [3..],
        max_version: i16 [3..],
    }
    /// List of cluster-wide finalized features. The information is valid only if …
    struct FinalizedFeatureKey {
        name: String [3..],
        max_version_level: i16 [3..],
        min_version_level: i16 [3..],
    }
    /// Request of Metadata (key 3).
    struct MetadataRequest {
        topics: Option<Vec<MetadataRequestTopic>> [0..] null [1..],
        allow_auto_topic_creation: bool [4..] = true,
        include_cluster_authorized_operations: bool [8..=10],
        include_topic_authorized_operations: bool [8..],
    }
    /// The topics to fetch metadata for.
    struct MetadataRequestTopic {
        topic_id: Uuid [10..],
        name: Option<String> [0..] null [10..],
    }
    /// Response of Metadata (key 3).
    struct MetadataResponse {
        throttle_time_ms: i32 [3..],
        brokers: Vec<MetadataResponseBroker> [0..],
        cluster_id: Option<String> [2..],
        controller_id: i32 [1..] = -1,
        topics: Vec<MetadataResponseTopic> [0..],
        cluster_authorized_operations: i32 [8..=10] = -2147483648,
        error_code: i16 [13..],
    }
    /// A list of brokers present in the cluster.
    struct MetadataResponseBroker {
        node_id: i32 [0..],
        host: String [0..],
        port: i32 [0..],
        rack: Option<String> [1..],
    }
    /// Each topic in the response.
    struct MetadataResponseTopic {
        error_code: i16 [0..],
        name: Option<String> [0..] null [12..],
        topic_id: Uuid [10..],
        is_internal: bool [1..],
        partitions: Vec<MetadataResponsePartition> [0..],
        topic_authorized_operations: i32 [8..] = -2147483648,
    }
    /// Each partition in the topic.
    struct MetadataResponsePartition {
        error_code: i16 [0..],
        partition_index: i32 [0..],
        leader_id: i32 [0..],
        leader_epoch: i32 [7..] = -1,
        replica_nodes: Vec<i32> [0..],
        isr_nodes: Vec<i32> [0..],
        offline_replicas: Vec<i32> [5..],
    }
    /// Request of DescribeCluster (key 60).
    struct DescribeClusterRequest {
        include_cluster_authorized_operations: bool [0..],
        endpoint_type: i8 [1..] = 1,
        include_fenced_brokers: bool [2..],
    }
    /// Response of DescribeCluster (key 60).
    struct DescribeClusterResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        endpoint_type: i8 [1..] = 1,
        cluster_id: String [0..],
        controller_id: i32 [0..] = -1,
        brokers: Vec<DescribeClusterBroker> [0..],
        cluster_authorized_operations: i32 [0..] = -2147483648,
    }
    /// Each broker in the response.
    struct DescribeClusterBroker {
        broker_id: i32 [0..],
        host: String [0..],
        port: i32 [0..],
        rack: Option<String> [0..],
        is_fenced: bool [2..],
    }
    /// Request of FindCoordinator (key 10).
    struct FindCoordinatorRequest {
        key: String [0..=3],
        key_type: i8 [1..],
        coordinator_keys: Vec<String> [4..],
    }
    /// Response of FindCoordinator (key 10).
    struct FindCoordinatorResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..=3],
        error_message: Option<String> [1..=3],
        node_id: i32 [0..=3],
        host: String [0..=3],
        port: i32 [0..=3],
        coordinators: Vec<Coordinator> [4..],
    }
    /// Each coordinator result in the response.
    struct Coordinator {
        key: String [4..],
        node_id: i32 [4..],
        host: String [4..],
        port: i32 [4..],
        error_code: i16 [4..],
        error_message: Option<String> [4..],
    }
}
