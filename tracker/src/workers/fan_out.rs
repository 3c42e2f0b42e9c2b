//! [`ResultFanOut`]: the place where each result goes to all its consumers.
//!
//! Today there is one consumer: the record, for Kafka or standard output. A further consumer, such
//! as metrics or a log of state changes, becomes a field of [`ResultFanOut`] and a call in
//! [`ResultFanOut::publish`].

use std::sync::Arc;

use common::record::Record;
use crossbeam_channel::Sender;

use super::record;
use super::result::ProbeResult;
use crate::targets::Target;

/// A result as a record, on its way to Kafka or standard output.
#[derive(Debug)]
pub(crate) struct TargetRecord {
    /// The target, whose topic gets the record.
    pub(crate) target: Arc<Target>,
    /// Boxed, because the channel has space for many thousands.
    pub(crate) record: Box<Record>,
}

/// The consumers of results. Each worker has a clone.
#[derive(Debug, Clone)]
pub(crate) struct ResultFanOut {
    location: Arc<str>,
    records: Sender<TargetRecord>,
}

/// The consumer of records has ended, so that probes have no purpose any more.
#[derive(Debug, thiserror::Error)]
#[error("the consumer of results has ended")]
pub(crate) struct ConsumerEnded;

impl ResultFanOut {
    pub(crate) fn new(location: &str, records: Sender<TargetRecord>) -> Self {
        Self { location: location.into(), records }
    }

    /// Hands a result to all consumers. Blocks while the channel of records is full.
    ///
    /// # Errors
    /// [`ConsumerEnded`] if the consumer of records has ended.
    pub(super) fn publish(&self, result: ProbeResult) -> Result<(), ConsumerEnded> {
        let target = Arc::clone(&result.target);
        let record = Box::new(record::build_record(&self.location, result));
        self.records.send(TargetRecord { target, record }).map_err(|_| ConsumerEnded)
    }

    /// True if [`Self::publish`] would block.
    pub(super) fn is_blocked(&self) -> bool {
        self.records.is_full()
    }
}
