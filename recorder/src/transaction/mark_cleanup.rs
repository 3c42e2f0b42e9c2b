//! Removes the marks of old runs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::stop::Stop;

use super::position::TopicPartition;
use crate::postgres::error::TransactionError;
use crate::postgres::pool::Database;
use common::counted::counted;

/// Removes the marks of runs that stopped long ago, once an interval in each partition.
#[derive(Debug)]
pub(crate) struct MarkCleanup {
    interval: Duration,
    timeout: Duration,
    last: HashMap<i32, Instant>,
}

impl MarkCleanup {
    /// Creates the cleanup, which runs once an `interval`. Its transaction may take `timeout`.
    pub(crate) fn new(interval: Duration, timeout: Duration) -> Self {
        Self { interval, timeout, last: HashMap::new() }
    }

    /// Removes at most 10,000 marks that did not move for 30 days. Records stay in a topic, and
    /// results wait for Kafka, for a shorter time. Must be called only when all records of the
    /// partition are recorded: a run has not stopped while its results still wait in the topic.
    ///
    /// # Errors
    /// See [`TransactionError`]. A missing right to delete is not an error. The marks then stay.
    pub(crate) fn run_if_due(
        &mut self,
        database: &Database,
        stop: &Stop,
        TopicPartition { topic, number }: &TopicPartition,
    ) -> Result<(), TransactionError> {
        if self.last.get(number).is_some_and(|last| last.elapsed() < self.interval) {
            return Ok(());
        }
        let removed = database.transaction(stop, self.timeout, |transaction| {
            Ok(transaction.execute(
                r#"delete from "availability_mark"
                where "topic" = $1 and "partition" = $2 and "run" in (
                    select "run" from "availability_mark" where "topic" = $1 and "partition" = $2
                    and "updated_at" < pg_catalog.now() - interval '30 days' limit 10000)"#,
                &[topic, number],
            )?)
        });
        match removed {
            Ok(0) => {}
            Ok(count) => {
                log::info!("{topic}/{number}: removed marks of {}", counted(count, "old run"));
            }
            Err(error) if error.is_denied() => {
                log::debug!("{topic}/{number}: can't remove marks of old runs: {error}");
            }
            Err(error) => return Err(error),
        }
        self.last.insert(*number, Instant::now());
        Ok(())
    }
}
