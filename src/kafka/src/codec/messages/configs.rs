//! Messages: DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

messages! {
    /// Request of DescribeConfigs (key 32).
    struct DescribeConfigsRequest {
        resources: Vec<DescribeConfigsResource> [0..],
        include_synonyms: bool [1..],
        include_documentation: bool [3..],
    }
    /// The resources whose configurations we want to describe.
    struct DescribeConfigsResource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        configuration_keys: Option<Vec<String>> [0..],
    }
    /// Response of DescribeConfigs (key 32).
    struct DescribeConfigsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<DescribeConfigsResult> [0..],
    }
    /// The results for each resource.
    struct DescribeConfigsResult {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        resource_type: i8 [0..],
        resource_name: String [0..],
        configs: Vec<DescribeConfigsResourceResult> [0..],
    }
    /// Each listed configuration.
    struct DescribeConfigsResourceResult {
        name: String [0..],
        value: Option<String> [0..],
        read_only: bool [0..],
        config_source: i8 [1..] = -1,
        is_sensitive: bool [0..],
        synonyms: Vec<DescribeConfigsSynonym> [1..],
        config_type: i8 [3..],
        documentation: Option<String> [3..],
    }
    /// The synonyms for this configuration key.
    struct DescribeConfigsSynonym {
        name: String [1..],
        value: Option<String> [1..],
        source: i8 [1..],
    }
    /// Request of AlterConfigs (key 33).
    struct AlterConfigsRequest {
        resources: Vec<AlterConfigsResource> [0..],
        validate_only: bool [0..],
    }
    /// The updates for each resource.
    struct AlterConfigsResource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        configs: Vec<AlterableConfig> [0..],
    }
    /// The configurations.
    struct AlterableConfig {
        name: String [0..],
        value: Option<String> [0..],
    }
    /// Response of AlterConfigs (key 33).
    struct AlterConfigsResponse {
        throttle_time_ms: i32 [0..],
        responses: Vec<AlterConfigsResourceResponse> [0..],
    }
    /// The responses for each resource.
    struct AlterConfigsResourceResponse {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        resource_type: i8 [0..],
        resource_name: String [0..],
    }
    /// Request of IncrementalAlterConfigs (key 44).
    struct IncrementalAlterConfigsRequest {
        resources: Vec<IncrementalAlterConfigsResource> [0..],
        validate_only: bool [0..],
    }
    /// The incremental updates for each resource.
    struct IncrementalAlterConfigsResource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        configs: Vec<IncrementalAlterableConfig> [0..],
    }
    /// The configurations.
    struct IncrementalAlterableConfig {
        name: String [0..],
        config_operation: i8 [0..],
        value: Option<String> [0..],
    }
    /// Response of IncrementalAlterConfigs (key 44).
    struct IncrementalAlterConfigsResponse {
        throttle_time_ms: i32 [0..],
        responses: Vec<IncrementalAlterConfigsResourceResponse> [0..],
    }
    /// The responses for each resource.
    struct IncrementalAlterConfigsResourceResponse {
        error_code: i16 [0..],
        error_message: Option<String> [0..],
        resource_type: i8 [0..],
        resource_name: String [0..],
    }
}
