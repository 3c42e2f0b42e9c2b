//! Kafka's ACLs: denies the SASL user an operation on a topic, and allows it again.

use std::error::Error;

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{
    ApiKey, CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::raw_request::send_raw_request;
use crate::services::Services;

/// Values of the fields of an ACL in Kafka's protocol.
const TOPIC: i8 = 2;
const LITERAL: i8 = 3;
const DENY: i8 = 2;
const ANY: i8 = 1;

/// An operation on a topic, by its number in Kafka's protocol.
#[derive(Debug, Clone, Copy)]
#[repr(i8)]
pub enum TopicOperation {
    /// Fetch records.
    Read = 3,
    /// Produce records.
    Write = 4,
}

/// Denies the SASL user an operation on a topic. It takes effect a moment later.
///
/// # Errors
/// Fails if the broker can't be reached or refuses the ACL.
pub fn deny(
    services: &Services,
    topic: &str,
    operation: TopicOperation,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let creation = AclCreation::default()
        .with_resource_type(TOPIC)
        .with_resource_name(StrBytes::from_string(topic.to_owned()))
        .with_resource_pattern_type(LITERAL)
        .with_principal(StrBytes::from_string(format!("User:{}", services.sasl_username)))
        .with_host(StrBytes::from_static_str("*"))
        .with_operation(operation as i8)
        .with_permission_type(DENY);
    let request = CreateAclsRequest::default().with_creations(vec![creation]);
    let answer: CreateAclsResponse =
        send_raw_request(&services.kafka_plain, ApiKey::CreateAcls, &request, 3)?;
    match answer.results.iter().find(|result| result.error_code != 0) {
        None => Ok(()),
        Some(refused) => Err(format!("CreateAcls: {:?}", refused.error_message).into()),
    }
}

/// Removes all ACLs of a topic. It takes effect a moment later.
///
/// # Errors
/// Fails if the broker can't be reached or refuses the request.
pub fn remove_all(services: &Services, topic: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let filter = DeleteAclsFilter::default()
        .with_resource_type_filter(TOPIC)
        .with_resource_name_filter(Some(StrBytes::from_string(topic.to_owned())))
        .with_pattern_type_filter(LITERAL)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY);
    let request = DeleteAclsRequest::default().with_filters(vec![filter]);
    let answer: DeleteAclsResponse =
        send_raw_request(&services.kafka_plain, ApiKey::DeleteAcls, &request, 3)?;
    match answer.filter_results.iter().find(|result| result.error_code != 0) {
        None => Ok(()),
        Some(refused) => Err(format!("DeleteAcls: {:?}", refused.error_message).into()),
    }
}
