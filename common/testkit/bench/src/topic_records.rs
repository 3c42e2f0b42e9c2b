//! Reads the records that trackers have written to Kafka.

use common::domain::Domain;
use common::record::Record;
use kafka_client::{FetchLimits, FetchPosition};

use crate::BenchError;
use crate::testbed::{BenchTestbed, topic};

/// Returns all records of a domain.
pub(crate) fn read_records(
    testbed: &BenchTestbed<'_>,
    domain: &Domain,
) -> Result<Vec<Record>, BenchError> {
    let topic = topic(domain)?;
    let mut client = testbed.client();
    let metadata = client.topics(std::slice::from_ref(&topic))?;
    let topic_id = metadata.first().ok_or("no topic")?.id;
    let mut records = Vec::new();
    let mut offset = 0;
    loop {
        let position =
            FetchPosition { topic: &topic, topic_id, partition: 0, offset, leader_epoch: None };
        let fetched = client.fetch(&position, &FetchLimits::default())?;
        for record in &fetched.records {
            records.push(Record::decode(record.value.as_deref().unwrap_or_default())?);
        }
        offset = fetched.next_offset;
        if offset >= fetched.high_watermark {
            return Ok(records);
        }
    }
}
