//! Requests about settings.

use secure::acl::{CLUSTER, Operation, ResourceType};

use super::rules::rule_of;
use super::{Access, Verdict, code_of, finish, rest, split};
use crate::codec::messages::*;
use crate::codec::{ApiKey, ResponseBody};
use crate::errors;

/// What owns the settings of a resource of Kafka's `ConfigResource`: brokers, their loggers and
/// client metrics belong to the cluster. So does what is not known, and the handler refuses it.
fn owner(kind: i8, name: &str) -> (ResourceType, &str) {
    match kind {
        2 => (ResourceType::Topic, name),
        32 => (ResourceType::Group, name),
        _ => (ResourceType::Cluster, CLUSTER),
    }
}

fn may(access: &Access, key: ApiKey, kind: i8, name: &str) -> bool {
    let operation = rule_of(key).each.map_or(Operation::AlterConfigs, |need| need.0);
    let (resource, name) = owner(kind, name);
    access.may((operation, resource), name)
}

fn refusal(kind: i8) -> (errors::Code, Option<String>) {
    let code = code_of(owner(kind, "").0);
    (code, Some(errors::message(code).to_owned()))
}

pub(super) fn describe(access: &Access, mut body: DescribeConfigsRequest) -> Verdict {
    let key = ApiKey::DescribeConfigs;
    let denied =
        split(&mut body.resources, |r| may(access, key, r.resource_type, &r.resource_name));
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<DescribeConfigsResult> = denied
        .into_iter()
        .map(|resource| {
            let (error_code, error_message) = refusal(resource.resource_type);
            DescribeConfigsResult {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
                configs: Vec::new(),
            }
        })
        .collect();
    let empty = body.resources.is_empty();
    rest(body.into(), empty, finish!(DescribeConfigs, |r| { r.results.extend(answers) }))
}

pub(super) fn alter(access: &Access, mut body: AlterConfigsRequest) -> Verdict {
    let key = ApiKey::AlterConfigs;
    let denied =
        split(&mut body.resources, |r| may(access, key, r.resource_type, &r.resource_name));
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<AlterConfigsResourceResponse> = denied
        .into_iter()
        .map(|resource| {
            let (error_code, error_message) = refusal(resource.resource_type);
            AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
            }
        })
        .collect();
    let empty = body.resources.is_empty();
    rest(body.into(), empty, finish!(AlterConfigs, |r| { r.responses.extend(answers) }))
}

pub(super) fn alter_incrementally(
    access: &Access,
    mut body: IncrementalAlterConfigsRequest,
) -> Verdict {
    let key = ApiKey::IncrementalAlterConfigs;
    let denied =
        split(&mut body.resources, |r| may(access, key, r.resource_type, &r.resource_name));
    if denied.is_empty() {
        return Verdict::Pass(body.into(), None);
    }
    let answers: Vec<IncrementalAlterConfigsResourceResponse> = denied
        .into_iter()
        .map(|resource| {
            let (error_code, error_message) = refusal(resource.resource_type);
            IncrementalAlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
            }
        })
        .collect();
    let empty = body.resources.is_empty();
    rest(body.into(), empty, finish!(IncrementalAlterConfigs, |r| { r.responses.extend(answers) }))
}
