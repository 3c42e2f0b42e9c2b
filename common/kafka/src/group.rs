//! A group's committed offsets, as a consumer without members keeps them.
//!
//! They fence nobody and the broker forgets them (after 7 days by default), so
//! they are for dashboards, never the truth of what was read.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::address::Address;
use super::admin::unanswered;
use super::client::{Client, topic_name};
use super::error::{Error, Verdict, verdict};
use super::versions::Call;

impl Client {
    /// Sets the group's committed offset: that of the next record to be read.
    ///
    /// # Errors
    /// The broker's refusal, or that of the connection.
    pub fn commit_offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), Error> {
        // No generation and no member: the group has none, and this is no rebalance.
        let partitions = vec![
            OffsetCommitRequestPartition::default()
                .with_partition_index(partition)
                .with_committed_offset(offset)
                .with_committed_leader_epoch(-1)
                .with_committed_metadata(Some(StrBytes::from_static_str(""))),
        ];
        let topics = vec![
            OffsetCommitRequestTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(partitions),
        ];
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(topics);
        self.call_coordinator(group, &request, |response| {
            let code = response
                .topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .find(|found| found.partition_index == partition)
                .map(|found| found.error_code)
                .ok_or_else(|| unanswered("OffsetCommit", topic))?;
            let subject = format!("group {group} topic {topic} partition {partition}");
            Error::from_code("OffsetCommit", subject, code, None)
        })
    }

    /// The group's committed offset, none when it has none.
    ///
    /// # Errors
    /// The broker's refusal, or that of the connection.
    pub fn committed_offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<i64>, Error> {
        let topics = vec![
            OffsetFetchRequestTopic::default()
                .with_name(topic_name(topic))
                .with_partition_indexes(vec![partition]),
        ];
        let request =
            OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(Some(topics));
        self.call_coordinator(group, &request, |response| {
            let subject = || format!("group {group} topic {topic} partition {partition}");
            Error::from_code("OffsetFetch", subject(), response.error_code, None)?;
            let found = response
                .topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .find(|found| found.partition_index == partition)
                .ok_or_else(|| unanswered("OffsetFetch", topic))?;
            Error::from_code("OffsetFetch", subject(), found.error_code, None)?;
            Ok(Some(found.committed_offset).filter(|offset| *offset >= 0))
        })
    }

    /// Asks the group's coordinator, and once more when it is another by now.
    fn call_coordinator<R: Call, T>(
        &mut self,
        group: &str,
        request: &R,
        judge: impl Fn(R::Response) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let deadline = self.deadline();
        let was_known = self.coordinators.contains_key(group);
        let coordinator = self.coordinator(group, deadline)?;
        let result = self.call_at(&coordinator, request, deadline).and_then(&judge);
        match result {
            Err(error) if moved(&error) => {
                self.coordinators.remove(group);
                if !was_known {
                    return Err(error);
                }
                let coordinator = self.coordinator(group, deadline)?;
                self.call_at(&coordinator, request, deadline).and_then(judge)
            }
            done => done,
        }
    }

    fn coordinator(&mut self, group: &str, deadline: std::time::Instant) -> Result<Address, Error> {
        if let Some(address) = self.coordinators.get(group) {
            return Ok(address.clone());
        }
        let request =
            FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
        let response = self.call_any(&request, deadline)?;
        let message = response.error_message.as_ref().map(StrBytes::as_str);
        let subject = format!("group {group}");
        Error::from_code("FindCoordinator", &subject, response.error_code, message)?;
        let port = u16::try_from(response.port).map_err(|_| Error::Broker {
            api: "FindCoordinator",
            subject,
            code: ResponseError::CoordinatorNotAvailable,
            message: Some(format!("port {}", response.port)),
        })?;
        let address = Address { host: response.host.to_string(), port };
        self.coordinators.insert(group.to_owned(), address.clone());
        Ok(address)
    }
}

fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}

fn moved(error: &Error) -> bool {
    match error {
        Error::Broker { code, .. } => verdict(*code) == Verdict::Metadata,
        other => other.is_transport(),
    }
}
