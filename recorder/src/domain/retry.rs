//! What goes wrong for a domain: how long to wait, and what is said of it.

use std::sync::Arc;
use std::time::Duration;

use common::backoff::{Backoff, Outage};
use common::domain::Domain;

use crate::domain::failure::Failure;
use crate::postgres::pool::WorkError;
use crate::report::outage_log::GRACE;
use crate::shared::Shared;

/// For whoever lacks a right to complete the schema.
pub(crate) const HINT: &str = " (`recorder schema` prints what must be there)";

/// The first and the longest wait between two tries.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// What goes wrong for this domain alone or for all, and for how long.
#[derive(Debug)]
pub(super) struct Trouble {
    domain: Domain,
    shared: Arc<Shared>,
    own: Outage,
    /// Never over: two recorders take turns, each well for a moment.
    fenced: Outage,
    backoff: Backoff,
    kafka: bool,
    postgres: bool,
    refused: bool,
    missing: bool,
}

impl Trouble {
    /// None so far.
    pub(super) fn new(domain: Domain, shared: Arc<Shared>) -> Self {
        Self {
            domain,
            shared,
            own: Outage::new(GRACE),
            fenced: Outage::new(Duration::ZERO),
            backoff: Backoff::new(RETRY_FIRST, RETRY_LONGEST),
            kafka: false,
            postgres: false,
            refused: false,
            missing: false,
        }
    }

    /// Says what failed, as often as that is worth it: how long to wait now.
    pub(super) fn failed(&mut self, failure: &Failure) -> Duration {
        let domain = self.domain.as_str();
        match failure {
            Failure::Work(WorkError::Postgres(error)) if error.is_connection_lost() => {
                self.postgres = true;
                self.shared.database.failed(domain, error);
            }
            Failure::Work(WorkError::Postgres(error)) => {
                self.refused = true;
                let hint = if failure.is_denied() { HINT } else { "" };
                self.shared.refusals.failed(domain, &format_args!("{error}{hint}"));
            }
            Failure::Kafka(error) if error.is_retryable() || error.is_of_connection() => {
                self.kafka = true;
                self.shared.kafka_outage.failed(domain, error);
            }
            Failure::TopicMissing(topic) => {
                if !std::mem::replace(&mut self.missing, true) {
                    log::info!("{domain}: topic {topic} is not there yet: waiting for it");
                }
            }
            Failure::Work(WorkError::Fenced) => {
                if self.fenced.failed().is_some() {
                    log::warn!(
                        "{domain}: another recorder is at work on it; each record is written once"
                    );
                }
            }
            failure => {
                if let Some(length) = self.own.failed() {
                    let seconds = length.as_secs();
                    log::warn!("{domain}: {failure}; trying again for {seconds} s");
                }
            }
        }
        self.backoff.next_delay()
    }

    /// Whether the topic was said to be missing, since all was well.
    pub(super) fn is_missing_said(&self) -> bool {
        self.missing
    }

    /// All is well with the database: says so if it was not.
    pub(super) fn database_over(&mut self) {
        let domain = self.domain.as_str();
        if std::mem::take(&mut self.postgres) {
            self.shared.database.succeeded(domain);
        }
        if std::mem::take(&mut self.refused) {
            self.shared.refusals.succeeded(domain);
        }
    }

    /// All is well: says so of what was not.
    pub(super) fn over(&mut self) {
        self.database_over();
        let domain = self.domain.as_str();
        self.backoff.reset();
        self.missing = false;
        if std::mem::take(&mut self.kafka) {
            self.shared.kafka_outage.succeeded(domain);
        }
        if let Some(length) = self.own.succeeded() {
            log::info!("{domain}: well again after {:.1} s", length.as_secs_f64());
        }
    }
}

impl Drop for Trouble {
    /// Nobody waits any more for what this domain missed.
    fn drop(&mut self) {
        self.shared.database.left(self.domain.as_str());
        self.shared.refusals.left(self.domain.as_str());
        self.shared.kafka_outage.left(self.domain.as_str());
    }
}
