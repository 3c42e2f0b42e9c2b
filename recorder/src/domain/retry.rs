//! Handles the failures of a domain: the delay before the next attempt, and the log lines.

use std::sync::Arc;
use std::time::Duration;

use common::backoff::Backoff;
use common::domain::Domain;
use common::log_throttle::LogThrottle;
use postgres_client::PostgresError;

use super::error::SessionError;
use super::shared::SharedState;
use crate::postgres::error::TransactionError;
use crate::report::outage_log::GRACE;
use crate::schema::SCHEMA_HINT;

/// The advice to an operator if a right is missing in Kafka.
const KAFKA_RIGHTS_HINT: &str =
    " (the user needs the rights to describe and to read the topics of all domains)";

/// The failures of one domain since it last worked.
#[derive(Debug)]
pub(super) struct RetryState {
    domain: Domain,
    shared: Arc<SharedState>,
    /// Failures of this domain only.
    own_outage: LogThrottle,
    /// Never recovers: two recorders on the same domain take turns, and each of them succeeds for a
    /// short time.
    fencing: LogThrottle,
    backoff: Backoff,
    is_kafka_failing: bool,
    is_postgres_failing: bool,
    is_refused: bool,
    is_refused_by_kafka: bool,
    is_topic_missing: bool,
}

impl RetryState {
    /// Creates the state of a domain without failures.
    pub(super) fn new(domain: Domain, shared: Arc<SharedState>) -> Self {
        let (min, max) = (shared.timings.retry_delay_min, shared.timings.retry_delay_max);
        Self {
            domain,
            shared,
            own_outage: LogThrottle::new(GRACE),
            fencing: LogThrottle::new(Duration::ZERO),
            backoff: Backoff::new(min, max),
            is_kafka_failing: false,
            is_postgres_failing: false,
            is_refused: false,
            is_refused_by_kafka: false,
            is_topic_missing: false,
        }
    }

    /// Records a failure, logs it unless it was logged recently, and returns the delay
    /// before the next attempt.
    pub(super) fn record_failure(&mut self, failure: &SessionError) -> Duration {
        let domain = self.domain.as_str();
        match failure {
            SessionError::Transaction(TransactionError::Postgres(error))
                if error.is_connection_lost() =>
            {
                self.is_postgres_failing = true;
                self.shared.postgres_outage.record_failure(domain, error);
            }
            SessionError::Transaction(TransactionError::Postgres(error)) => {
                let hint = if error.is_denied() { SCHEMA_HINT } else { "" };
                self.record_refusal(error, hint);
            }
            SessionError::Transaction(TransactionError::OwnSchema { cause, remedy }) => {
                self.record_refusal(cause, &format!(": {remedy}"));
            }
            SessionError::Kafka(error) if error.is_retryable() || error.is_connection_error() => {
                self.is_kafka_failing = true;
                self.shared.kafka_outage.record_failure(domain, error);
            }
            failure if failure.is_kafka_refusal() => {
                self.is_refused_by_kafka = true;
                let text = failure.to_string();
                let text = text.strip_prefix("kafka: ").unwrap_or(&text);
                let refusals = &self.shared.kafka_refusals;
                refusals.record_failure(domain, &format_args!("{text}{KAFKA_RIGHTS_HINT}"));
            }
            SessionError::TopicMissing(topic) => {
                if !std::mem::replace(&mut self.is_topic_missing, true) {
                    log::info!("{domain}: topic {topic} does not exist yet: waiting for it");
                }
            }
            SessionError::Transaction(TransactionError::Fenced) => {
                if self.fencing.record_failure().is_some() {
                    log::warn!(
                        "{domain}: another recorder writes to this domain too; each record is still written once"
                    );
                }
            }
            failure => {
                if let Some(length) = self.own_outage.record_failure() {
                    log::warn!("{domain}: {failure}; retrying for {} s", length.as_secs());
                }
            }
        }
        self.backoff.next_delay()
    }

    /// Records that PostgreSQL refused a statement. `hint` is appended to the error.
    fn record_refusal(&mut self, error: &PostgresError, hint: &str) {
        self.is_refused = true;
        let own_table = self.domain.table();
        let table = error.table().unwrap_or(&own_table);
        let (domain, code) = (self.domain.as_str(), error.code().unwrap_or_default());
        let text = format_args!("table {table}: {error}{hint}");
        self.shared.postgres_refusals.record_failure(domain, code, &text);
    }

    /// Whether the missing topic was logged since the domain last worked.
    pub(super) fn is_missing_topic_logged(&self) -> bool {
        self.is_topic_missing
    }

    /// Records that PostgreSQL works for this domain.
    pub(super) fn postgres_recovered(&mut self) {
        let domain = self.domain.as_str();
        if std::mem::take(&mut self.is_postgres_failing) {
            self.shared.postgres_outage.record_success(domain);
        }
        if std::mem::take(&mut self.is_refused) {
            self.shared.postgres_refusals.record_success(domain);
        }
    }

    /// Records that the domain works with all of its partitions.
    pub(super) fn recovered(&mut self) {
        self.postgres_recovered();
        let domain = self.domain.as_str();
        self.backoff.reset();
        self.is_topic_missing = false;
        if std::mem::take(&mut self.is_kafka_failing) {
            self.shared.kafka_outage.record_success(domain);
        }
        if std::mem::take(&mut self.is_refused_by_kafka) {
            self.shared.kafka_refusals.record_success(domain);
        }
        if let Some(length) = self.own_outage.record_success() {
            log::info!("{domain}: recovered after {:.1} s", length.as_secs_f64());
        }
    }
}

impl Drop for RetryState {
    /// The domain does not wait for a service any more.
    fn drop(&mut self) {
        self.shared.postgres_outage.remove_user(self.domain.as_str());
        self.shared.postgres_refusals.remove_user(self.domain.as_str());
        self.shared.kafka_outage.remove_user(self.domain.as_str());
        self.shared.kafka_refusals.remove_user(self.domain.as_str());
    }
}
