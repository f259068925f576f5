//! Messages: ConsumerGroupHeartbeat, ConsumerGroupDescribe (KIP-848).

use uuid::Uuid;

use crate::codec::wire::Nullable;

messages! {
    /// Request of ConsumerGroupHeartbeat (key 68).
    struct ConsumerGroupHeartbeatRequest {
        group_id: String [0..],
        member_id: String [0..],
        member_epoch: i32 [0..],
        instance_id: Option<String> [0..],
        rack_id: Option<String> [0..],
        rebalance_timeout_ms: i32 [0..] = -1,
        subscribed_topic_names: Option<Vec<String>> [0..],
        subscribed_topic_regex: Option<String> [1..],
        server_assignor: Option<String> [0..],
        topic_partitions: Option<Vec<HeartbeatTopicPartitions>> [0..],
    }
    /// Partitions of a topic, by its id.
    struct HeartbeatTopicPartitions {
        topic_id: Uuid [0..],
        partitions: Vec<i32> [0..],
    }
    /// Response of ConsumerGroupHeartbeat (key 68).
    struct ConsumerGroupHeartbeatResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        member_id: Option<String> [0..],
        member_epoch: i32 [0..],
        heartbeat_interval_ms: i32 [0..],
        assignment: Nullable<HeartbeatAssignment> [0..],
    }
    /// What the member may own.
    struct HeartbeatAssignment {
        topic_partitions: Vec<HeartbeatTopicPartitions> [0..],
    }
    /// Request of ConsumerGroupDescribe (key 69).
    struct ConsumerGroupDescribeRequest {
        group_ids: Vec<String> [0..],
        include_authorized_operations: bool [0..],
    }
    /// Response of ConsumerGroupDescribe (key 69).
    struct ConsumerGroupDescribeResponse {
        throttle_time_ms: i32 [0..],
        groups: Vec<DescribedConsumerGroup> [0..],
    }
    /// Each described group.
    struct DescribedConsumerGroup {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        group_id: String [0..],
        group_state: String [0..],
        group_epoch: i32 [0..],
        assignment_epoch: i32 [0..],
        assignor_name: String [0..],
        members: Vec<DescribedConsumerMember> [0..],
        authorized_operations: i32 [0..] = -2147483648,
    }
    /// The members.
    struct DescribedConsumerMember {
        member_id: String [0..],
        instance_id: Option<String> [0..],
        rack_id: Option<String> [0..],
        member_epoch: i32 [0..],
        client_id: String [0..],
        client_host: String [0..],
        subscribed_topic_names: Vec<String> [0..],
        subscribed_topic_regex: Option<String> [0..],
        assignment: DescribedAssignment [0..],
        target_assignment: DescribedAssignment [0..],
        member_type: i8 [1..] = -1,
    }
    /// An assignment of a member.
    struct DescribedAssignment {
        topic_partitions: Vec<DescribedTopicParts> [0..],
    }
    /// Partitions of a topic, by its id and name.
    struct DescribedTopicParts {
        topic_id: Uuid [0..],
        topic_name: String [0..],
        partitions: Vec<i32> [0..],
    }
}
