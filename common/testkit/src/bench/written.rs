//! What trackers have written to Kafka.

use common::domain::Domain;
use common::record::Record;
use kafka_client::{FetchLimits, FetchPosition};

use super::Failed;
use super::world::{World, topic};

/// All records of a domain.
pub(super) fn records(world: &World<'_>, domain: &Domain) -> Result<Vec<Record>, Failed> {
    let topic = topic(domain)?;
    let mut client = world.client();
    let found = client.topics(std::slice::from_ref(&topic))?;
    let topic_id = found.first().ok_or("no topic")?.id;
    let mut all = Vec::new();
    let mut offset = 0;
    loop {
        let position = FetchPosition { topic: &topic, topic_id, partition: 0, offset };
        let fetched = client.fetch(&position, &FetchLimits::default())?;
        for record in &fetched.records {
            all.push(Record::decode(record.value.as_deref().unwrap_or_default())?);
        }
        offset = fetched.next_offset;
        if offset >= fetched.high_watermark {
            return Ok(all);
        }
    }
}
