//! Messages: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, DescribeGroups, ListGroups, DeleteGroups.

use bytes::Bytes;

messages! {
    /// Request of JoinGroup (key 11).
    struct JoinGroupRequest {
        group_id: String [0..],
        session_timeout_ms: i32 [0..],
        rebalance_timeout_ms: i32 [1..] = -1,
        member_id: String [0..],
        group_instance_id: Option<String> [5..],
        protocol_type: String [0..],
        protocols: Vec<JoinGroupRequestProtocol> [0..],
        reason: Option<String> [8..],
    }
    /// The list of protocols that the member supports.
    struct JoinGroupRequestProtocol {
        name: String [0..],
        metadata: Bytes [0..],
    }
    /// Response of JoinGroup (key 11).
    struct JoinGroupResponse {
        throttle_time_ms: i32 [2..],
        error_code: i16 [0..],
        generation_id: i32 [0..] = -1,
        protocol_type: Option<String> [7..],
        protocol_name: Option<String> [0..] null [7..],
        leader: String [0..],
        skip_assignment: bool [9..],
        member_id: String [0..],
        members: Vec<JoinGroupResponseMember> [0..],
    }
    /// The group members.
    struct JoinGroupResponseMember {
        member_id: String [0..],
        group_instance_id: Option<String> [5..],
        metadata: Bytes [0..],
    }
    /// Request of SyncGroup (key 14).
    struct SyncGroupRequest {
        group_id: String [0..],
        generation_id: i32 [0..],
        member_id: String [0..],
        group_instance_id: Option<String> [3..],
        protocol_type: Option<String> [5..],
        protocol_name: Option<String> [5..],
        assignments: Vec<SyncGroupRequestAssignment> [0..],
    }
    /// Each assignment.
    struct SyncGroupRequestAssignment {
        member_id: String [0..],
        assignment: Bytes [0..],
    }
    /// Response of SyncGroup (key 14).
    struct SyncGroupResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
        protocol_type: Option<String> [5..],
        protocol_name: Option<String> [5..],
        assignment: Bytes [0..],
    }
    /// Request of Heartbeat (key 12).
    struct HeartbeatRequest {
        group_id: String [0..],
        generation_id: i32 [0..],
        member_id: String [0..],
        group_instance_id: Option<String> [3..],
    }
    /// Response of Heartbeat (key 12).
    struct HeartbeatResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
    }
    /// Request of LeaveGroup (key 13).
    struct LeaveGroupRequest {
        group_id: String [0..],
        member_id: String [0..=2],
        members: Vec<MemberIdentity> [3..],
    }
    /// List of leaving member identities.
    struct MemberIdentity {
        member_id: String [3..],
        group_instance_id: Option<String> [3..],
        reason: Option<String> [5..],
    }
    /// Response of LeaveGroup (key 13).
    struct LeaveGroupResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
        members: Vec<LeaveGroupMemberResponse> [3..],
    }
    /// List of leaving member responses.
    struct LeaveGroupMemberResponse {
        member_id: String [3..],
        group_instance_id: Option<String> [3..],
        error_code: i16 [3..],
    }
    /// Request of DescribeGroups (key 15).
    struct DescribeGroupsRequest {
        groups: Vec<String> [0..],
        include_authorized_operations: bool [3..],
    }
    /// Response of DescribeGroups (key 15).
    struct DescribeGroupsResponse {
        throttle_time_ms: i32 [1..],
        groups: Vec<DescribedGroup> [0..],
    }
    /// Each described group.
    struct DescribedGroup {
        error_code: i16 [0..],
        error_message: Option<String> [6..],
        group_id: String [0..],
        group_state: String [0..],
        protocol_type: String [0..],
        protocol_data: String [0..],
        members: Vec<DescribedGroupMember> [0..],
        authorized_operations: i32 [3..] = -2147483648,
    }
    /// The group members.
    struct DescribedGroupMember {
        member_id: String [0..],
        group_instance_id: Option<String> [4..],
        client_id: String [0..],
        client_host: String [0..],
        member_metadata: Bytes [0..],
        member_assignment: Bytes [0..],
    }
    /// Request of ListGroups (key 16).
    struct ListGroupsRequest {
        states_filter: Vec<String> [4..],
        types_filter: Vec<String> [5..],
    }
    /// Response of ListGroups (key 16).
    struct ListGroupsResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..],
        groups: Vec<ListedGroup> [0..],
    }
    /// Each group in the response.
    struct ListedGroup {
        group_id: String [0..],
        protocol_type: String [0..],
        group_state: String [4..],
        group_type: String [5..],
    }
    /// Request of DeleteGroups (key 42).
    struct DeleteGroupsRequest {
        groups_names: Vec<String> [0..],
    }
    /// Response of DeleteGroups (key 42).
    struct DeleteGroupsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<DeletableGroupResult> [0..],
    }
    /// The deletion results.
    struct DeletableGroupResult {
        group_id: String [0..],
        error_code: i16 [0..],
    }
}
