//! DescribeTopicPartitions.

use secure::acl::{Operation, ResourceType};

use super::rules::{Need, rule_of};
use super::{Access, Finish, Verdict, finish, rest, split};
use crate::codec::messages::*;
use crate::codec::{ApiKey, ResponseBody};
use crate::errors;

const DESCRIBE: Need = (Operation::Describe, ResourceType::Topic);

/// Topics that the client may not describe are an error that does not tell whether they exist;
/// out of a list of all, which an empty list asks for, the handler leaves them.
pub(super) fn describe(access: &Access, mut body: DescribeTopicPartitionsRequest) -> Verdict {
    let need = rule_of(ApiKey::DescribeTopicPartitions).each.unwrap_or(DESCRIBE);
    let denied = split(&mut body.topics, |topic| access.may(need, &topic.name));
    let empty = body.topics.is_empty() && !denied.is_empty();
    let access = access.clone();
    let finish: Finish = finish!(DescribeTopicPartitions, |r| {
        for topic in r.topics.iter_mut().filter(|t| t.error_code == errors::NONE) {
            let name = topic.name.as_deref().unwrap_or_default();
            topic.topic_authorized_operations = access.operations(ResourceType::Topic, name);
        }
        r.topics.extend(denied.into_iter().map(|topic| DescribedTopicPartitions {
            error_code: errors::TOPIC_AUTHORIZATION_FAILED,
            name: Some(topic.name),
            ..Default::default()
        }));
    });
    rest(body.into(), empty, finish)
}
