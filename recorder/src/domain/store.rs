//! The tables of one domain in PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::domain::Domain;
use common::stop::Stop;

use super::legacy::table_count::{TableCount, count_table};
use super::resume::ResumePoint;
use super::services::{KnownLabels, RecordStore};
use super::shared::SharedState;
use crate::decode::batch::WriteBatch;
use crate::decode::labels::Labels;
use crate::postgres::domain_table::DomainTable;
use crate::postgres::error::TransactionError;
use crate::postgres::tables::MissingColumns;
use crate::schema::{self, DomainSchema, SCHEMA_HINT, TargetIndex};
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
    /// The columns that are missing in the tables.
    missing_columns: MissingColumns,
}

impl PostgresStore {
    /// Creates the store for the tables of this domain.
    pub(super) fn new(domain: Domain, shared: Arc<SharedState>, stop: Stop) -> Self {
        let timings = &shared.timings;
        Self {
            table: DomainTable::new(&domain),
            mark_cleanup: MarkCleanup::new(
                timings.mark_cleanup_interval,
                timings.mark_cleanup_timeout,
            ),
            missing_columns: MissingColumns::default(),
            domain,
            shared,
            stop,
        }
    }
}

impl RecordStore for PostgresStore {
    type Steps = Steps;

    fn ensure_schema(&mut self) -> Result<KnownLabels, TransactionError> {
        let SharedState { database, timings, schema_warned, .. } = &*self.shared;
        let DomainSchema { labels, missing_columns, lacking } =
            schema::ensure(database, &self.stop, timings, &self.domain)?;
        self.missing_columns = missing_columns;
        if let Some(lacking) = &lacking
            && !schema_warned.swap(true, Ordering::Relaxed)
        {
            log::warn!(
                "{}: recording without {lacking}; records that need a missing label go to \
                 quarantine, and keys without a column are left out{SCHEMA_HINT}",
                self.domain
            );
        }
        Ok(KnownLabels { labels, is_schema_complete: lacking.is_none() })
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
        Steps::without(&self.table, self.shared.smart, &self.missing_columns)
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
