//! The tables of one domain in PostgreSQL.

use std::sync::Arc;

use common::domain::Domain;
use common::stop::Stop;

use super::legacy::table_count::{TableCount, count_table};
use super::resume::ResumePoint;
use super::services::RecordStore;
use super::shared::SharedState;
use crate::decode::batch::WriteBatch;
use crate::decode::labels::Labels;
use crate::postgres::domain_table::DomainTable;
use crate::postgres::error::TransactionError;
use crate::schema::{self, TargetIndex};
use crate::transaction::mark_cleanup::MarkCleanup;
use crate::transaction::position::{self, Position, TopicPartition};
use crate::transaction::{BatchWriter, Steps, WriteState, Written};

/// The tables of one domain.
#[derive(Debug)]
pub(crate) struct PostgresStore {
    domain: Domain,
    table: DomainTable,
    shared: Arc<SharedState>,
    stop: Stop,
    mark_cleanup: MarkCleanup,
}

impl PostgresStore {
    /// The tables of this domain.
    pub(super) fn new(domain: Domain, shared: Arc<SharedState>, stop: Stop) -> Self {
        let timings = &shared.timings;
        Self {
            table: DomainTable::new(&domain),
            mark_cleanup: MarkCleanup::new(
                timings.mark_cleanup_interval,
                timings.mark_cleanup_timeout,
            ),
            domain,
            shared,
            stop,
        }
    }
}

impl RecordStore for PostgresStore {
    type Steps = Steps;

    fn ensure_schema(&mut self) -> Result<Labels, TransactionError> {
        let SharedState { database, timings, .. } = &*self.shared;
        schema::ensure(database, &self.stop, timings, &self.domain)
    }

    fn ensure_target_index(&mut self) -> Result<TargetIndex, TransactionError> {
        let SharedState { database, timings, .. } = &*self.shared;
        schema::ensure_target_index(database, &self.stop, timings, &self.domain)
    }

    fn read_position(
        &mut self,
        partition: &TopicPartition,
    ) -> Result<Option<Position>, TransactionError> {
        let SharedState { database, timings, .. } = &*self.shared;
        position::read_position(database, &self.stop, timings.position_timeout, partition)
    }

    fn skip_to(
        &mut self,
        partition: &TopicPartition,
        from: Option<Position>,
        point: &ResumePoint,
    ) -> Result<(), TransactionError> {
        let SharedState { database, timings, .. } = &*self.shared;
        let timeout = timings.position_timeout;
        let (to, gaps) = (point.position, &point.gaps);
        position::skip_to(database, &self.stop, timeout, partition, from, to, gaps)
    }

    fn count_table(&mut self, after_id: i64) -> Result<TableCount, TransactionError> {
        let SharedState { database, timings, .. } = &*self.shared;
        count_table(database, &self.stop, timings.count_timeout, &self.table, after_id)
    }

    fn new_steps(&self) -> Steps {
        Steps::new(&self.table, self.shared.smart)
    }

    fn write(
        &mut self,
        steps: &mut Steps,
        labels: &Labels,
        partition: &TopicPartition,
        from: Position,
        batch: WriteBatch,
        state: &mut WriteState,
    ) -> Result<Written, TransactionError> {
        let SharedState { database, timings, .. } = &*self.shared;
        let timeout = timings.write_timeout;
        let (stop, table) = (&self.stop, &self.table);
        let mut writer = BatchWriter { database, stop, timeout, table, labels, steps, state };
        writer.write(partition, from, batch)
    }

    fn clean_up_marks(&mut self, partition: &TopicPartition) -> Result<(), TransactionError> {
        self.mark_cleanup.run_if_due(&self.shared.database, &self.stop, partition)
    }
}
