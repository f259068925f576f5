//! Messages: SASL, access control lists, SCRAM credentials, client quotas.

use bytes::Bytes;

use crate::codec::wire::Double;

messages! {
    /// Request of SaslHandshake (key 17).
    struct SaslHandshakeRequest {
        mechanism: String [0..],
    }
    /// Response of SaslHandshake (key 17).
    struct SaslHandshakeResponse {
        error_code: i16 [0..],
        mechanisms: Vec<String> [0..],
    }
    /// Request of SaslAuthenticate (key 36).
    struct SaslAuthenticateRequest {
        auth_bytes: Bytes [0..],
    }
    /// Response of SaslAuthenticate (key 36).
    struct SaslAuthenticateResponse {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        auth_bytes: Bytes [0..],
        session_lifetime_ms: i64 [1..],
    }
    /// Request of DescribeAcls (key 29).
    struct DescribeAclsRequest {
        resource_type_filter: i8 [0..],
        resource_name_filter: Option<String> [0..],
        pattern_type_filter: i8 [1..] = 3,
        principal_filter: Option<String> [0..],
        host_filter: Option<String> [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
    /// Response of DescribeAcls (key 29).
    struct DescribeAclsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        resources: Vec<DescribeAclsResource> [0..],
    }
    /// Each resource that has entries.
    struct DescribeAclsResource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        pattern_type: i8 [1..] = 3,
        acls: Vec<AclDescription> [0..],
    }
    /// Each entry of a resource.
    struct AclDescription {
        principal: String [0..],
        host: String [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
    /// Request of CreateAcls (key 30).
    struct CreateAclsRequest {
        creations: Vec<AclCreation> [0..],
    }
    /// Each entry to be made.
    struct AclCreation {
        resource_type: i8 [0..],
        resource_name: String [0..],
        resource_pattern_type: i8 [1..] = 3,
        principal: String [0..],
        host: String [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
    /// Response of CreateAcls (key 30).
    struct CreateAclsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AclCreationResult> [0..],
    }
    /// The result for each entry.
    struct AclCreationResult {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
    }
    /// Request of DeleteAcls (key 31).
    struct DeleteAclsRequest {
        filters: Vec<DeleteAclsFilter> [0..],
    }
    /// Each filter.
    struct DeleteAclsFilter {
        resource_type_filter: i8 [0..],
        resource_name_filter: Option<String> [0..],
        pattern_type_filter: i8 [1..] = 3,
        principal_filter: Option<String> [0..],
        host_filter: Option<String> [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
    /// Response of DeleteAcls (key 31).
    struct DeleteAclsResponse {
        throttle_time_ms: i32 [0..],
        filter_results: Vec<DeleteAclsFilterResult> [0..],
    }
    /// The result for each filter.
    struct DeleteAclsFilterResult {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        matching_acls: Vec<DeleteAclsMatchingAcl> [0..],
    }
    /// Each entry that matched and was removed.
    struct DeleteAclsMatchingAcl {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        resource_type: i8 [0..],
        resource_name: String [0..],
        pattern_type: i8 [1..] = 3,
        principal: String [0..],
        host: String [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
    /// Request of DescribeUserScramCredentials (key 50).
    struct DescribeUserScramCredentialsRequest {
        users: Option<Vec<UserName>> [0..],
    }
    /// Each user asked for.
    struct UserName {
        name: String [0..],
    }
    /// Response of DescribeUserScramCredentials (key 50).
    struct DescribeUserScramCredentialsResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        results: Vec<DescribeUserScramCredentialsResult> [0..],
    }
    /// The result for each user.
    struct DescribeUserScramCredentialsResult {
        user: String [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        credential_infos: Vec<CredentialInfo> [0..],
    }
    /// Each mechanism of a user.
    struct CredentialInfo {
        mechanism: i8 [0..],
        iterations: i32 [0..],
    }
    /// Request of AlterUserScramCredentials (key 51).
    struct AlterUserScramCredentialsRequest {
        deletions: Vec<ScramCredentialDeletion> [0..],
        upsertions: Vec<ScramCredentialUpsertion> [0..],
    }
    /// Each credential to be removed.
    struct ScramCredentialDeletion {
        name: String [0..],
        mechanism: i8 [0..],
    }
    /// Each credential to be set.
    struct ScramCredentialUpsertion {
        name: String [0..],
        mechanism: i8 [0..],
        iterations: i32 [0..],
        salt: Bytes [0..],
        salted_password: Bytes [0..],
    }
    /// Response of AlterUserScramCredentials (key 51).
    struct AlterUserScramCredentialsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AlterUserScramCredentialsResult> [0..],
    }
    /// The result for each user.
    struct AlterUserScramCredentialsResult {
        user: String [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
    }
    /// Request of DescribeClientQuotas (key 48).
    struct DescribeClientQuotasRequest {
        components: Vec<QuotaComponent> [0..],
        strict: bool [0..],
    }
    /// Each part that an entity must have.
    struct QuotaComponent {
        entity_type: String [0..],
        match_type: i8 [0..],
        _match: Option<String> [0..],
    }
    /// Response of DescribeClientQuotas (key 48).
    struct DescribeClientQuotasResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        entries: Option<Vec<QuotaEntry>> [0..],
    }
    /// Each entity with its values.
    struct QuotaEntry {
        entity: Vec<QuotaEntity> [0..],
        values: Vec<QuotaValue> [0..],
    }
    /// Each part of an entity.
    struct QuotaEntity {
        entity_type: String [0..],
        entity_name: Option<String> [0..],
    }
    /// Each value of an entity.
    struct QuotaValue {
        key: String [0..],
        value: Double [0..],
    }
    /// Request of AlterClientQuotas (key 49).
    struct AlterClientQuotasRequest {
        entries: Vec<AlterQuotaEntry> [0..],
        validate_only: bool [0..],
    }
    /// Each entity to be changed.
    struct AlterQuotaEntry {
        entity: Vec<QuotaEntity> [0..],
        ops: Vec<QuotaOp> [0..],
    }
    /// Each value to be set or removed.
    struct QuotaOp {
        key: String [0..],
        value: Double [0..],
        remove: bool [0..],
    }
    /// Response of AlterClientQuotas (key 49).
    struct AlterClientQuotasResponse {
        throttle_time_ms: i32 [0..],
        entries: Vec<AlterQuotaResult> [0..],
    }
    /// The result for each entity.
    struct AlterQuotaResult {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        entity: Vec<QuotaEntity> [0..],
    }
}
