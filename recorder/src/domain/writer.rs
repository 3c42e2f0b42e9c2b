//! Writes the batches of a domain, partition by partition.

use std::sync::Arc;
use std::time::Instant;

use common::domain::Domain;

use super::error::SessionError;
use super::fetch::{FetchResults, PartitionReader};
use super::services::RecordStore;
use super::shared::SharedState;
use crate::decode::batch::FetchedBatches;
use crate::decode::labels::Labels;
use crate::report::anomalies::AnomalyLog;
use crate::transaction::{WriteState, Written};

/// Writes the batches of a domain.
#[derive(Debug)]
pub(super) struct DomainWriter<S> {
    pub(super) store: S,
    pub(super) anomalies: AnomalyLog,
    /// The state that is kept after an error.
    pub(super) state: WriteState,
    /// The time at which another recorder was detected that writes to the domain.
    pub(super) fenced_at: Option<Instant>,
    shared: Arc<SharedState>,
}

impl<S: RecordStore> DomainWriter<S> {
    pub(super) fn new(store: S, domain: Domain, topic: String, shared: Arc<SharedState>) -> Self {
        let anomalies = AnomalyLog::new(topic, shared.timings.anomaly_log_interval);
        let state = WriteState::new(domain, &shared.timings);
        Self { store, anomalies, state, fenced_at: None, shared }
    }

    /// Fails if the lease may have expired. The write would be fenced in any case, but it would
    /// disturb the other recorder before that.
    pub(super) fn check_lease(&self) -> Result<(), SessionError> {
        if self.has_lease() { Ok(()) } else { Err(SessionError::LeaseExpired) }
    }

    /// Whether the lease is valid, and was confirmed after the worker was fenced.
    pub(super) fn has_lease(&self) -> bool {
        self.shared.lease.is_valid_since(self.fenced_at)
    }

    /// Writes the fetched records of each partition, and moves the positions. `steps` is taken out
    /// for each write, and put back only if the write succeeds.
    pub(super) fn write_all(
        &mut self,
        steps: &mut Option<S::Steps>,
        labels: &Labels,
        readers: &mut [PartitionReader],
        fetched: FetchResults,
    ) -> Vec<Result<(), SessionError>> {
        let write = |(reader, result): (&mut PartitionReader, _)| match result {
            Ok(batches) => self.write(steps, labels, reader, batches),
            Err(error) => Err(SessionError::from(error)),
        };
        readers.iter_mut().zip(fetched).map(write).collect()
    }

    fn write(
        &mut self,
        steps: &mut Option<S::Steps>,
        labels: &Labels,
        PartitionReader { partition, position, .. }: &mut PartitionReader,
        FetchedBatches { batches, high_watermark, .. }: FetchedBatches,
    ) -> Result<(), SessionError> {
        for batch in batches {
            let mut next = Some(batch);
            while let Some(mut batch) = next.take() {
                self.check_lease()?;
                next = batch.split_off(self.state.size.records());
                let to = position.after(&batch);
                let mut valid_steps = steps.take().unwrap_or_else(|| self.store.new_steps());
                let (store, state) = (&mut self.store, &mut self.state);
                let written =
                    store.write(&mut valid_steps, labels, partition, *position, batch, state);
                state.quarantine.flush_if_due(Instant::now());
                let written = written?;
                *steps = Some(valid_steps);
                *position = to;
                self.count(written);
            }
        }
        if position.next_offset == high_watermark {
            // All records of the partition are recorded, so a run without new records has stopped.
            self.store.clean_up_marks(partition)?;
        }
        Ok(())
    }

    /// Logs all pending counts, at the end.
    pub(super) fn flush_logs(&mut self) {
        self.anomalies.flush();
        self.state.quarantine.flush();
    }

    /// Logs the pending counts, each kind at most once an interval.
    pub(super) fn flush_logs_if_due(&mut self, now: Instant) {
        self.anomalies.flush_if_due(now);
        self.state.quarantine.flush_if_due(now);
    }

    fn count(&mut self, Written { inserted, merged, quarantined, anomalies }: Written) {
        let metrics = &self.shared.metrics;
        metrics.rows_inserted.add(inserted as u64);
        metrics.records_merged.add(merged as u64);
        metrics.records_quarantined.add(quarantined as u64);
        metrics.duplicates_dropped.add(anomalies.duplicates);
        metrics.results_missing.add(anomalies.missing);
        metrics.identities_malformed.add(anomalies.malformed);
        self.anomalies.add(anomalies);
    }
}
