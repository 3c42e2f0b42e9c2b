//! The intervals, delays and time-outs of the recorder.
//!
//! A test that waits for a time-out sets a shorter value.

use std::time::Duration;

/// Intervals, delays and time-outs. [`Timings::default`] holds the values for
/// production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timings {
    /// The duration of a lease, by the clock of the database. If a recorder dies, its domains are
    /// not recorded for this time.
    pub lease_duration: Duration,
    /// The time by which a lease expires earlier by the clock of this host.
    pub lease_margin: Duration,
    /// The interval at which leases are renewed and compared with the leases of other recorders.
    pub lease_interval: Duration,
    /// The time-out of one transaction on leases.
    pub lease_timeout: Duration,
    /// The time-out of the release of all leases at a stop.
    pub release_timeout: Duration,
    /// The interval at which a worker without a valid lease checks its lease.
    pub lease_poll_interval: Duration,
    /// The time without an answer from a leader, or from Kafka, after which other recorders may
    /// have the leases. It is longer than the restart of a broker takes.
    pub kafka_unreachable_after: Duration,
    /// The time for which a lease is not requested back after it was offered. It ends earlier if
    /// the leader is reached again.
    pub offer_pause: Duration,
    /// The time for which reads of leases may be too slow, or a leader unreached by all recorders,
    /// before it is logged.
    pub lease_grace: Duration,
    /// The time-out for the end of all threads after a stop.
    pub shutdown_timeout: Duration,

    /// The interval at which brokers are asked for topics, and leaders are probed.
    pub discovery_interval: Duration,
    /// The time-out for the answer of a leader on a new connection.
    pub probe_timeout: Duration,
    /// The delay before brokers are asked again after a failure.
    pub discovery_retry_delay: Duration,
    /// The interval at which a topic is checked for new partitions.
    pub topic_refresh_interval: Duration,

    /// The shortest and the longest delay before a domain is retried.
    pub retry_delay_min: Duration,
    /// See `retry_delay_min`.
    pub retry_delay_max: Duration,
    /// The time for which a batch must fail with the same checksum error before it is skipped.
    pub unreadable_batch_after: Duration,

    /// The intended duration of one round of turns, if a limit allows fewer connections to Kafka
    /// than there are domains. A round takes at most twice as long, plus the time to connect.
    pub turn_round: Duration,
    /// The maximum time for which a domain keeps its connections while other domains wait for a
    /// turn.
    pub turn_max: Duration,
    /// The interval at which a domain without a connection checks whether its turn has come.
    pub turn_poll_interval: Duration,
    /// The interval at which more connections are tried than the limit allows.
    pub turn_growth_interval: Duration,

    /// The interval at which the offsets of the consumer group are committed.
    pub group_commit_interval: Duration,
    /// The shortest and the longest delay between these commits after a failure.
    pub group_commit_pause_min: Duration,
    /// See `group_commit_pause_min`.
    pub group_commit_pause_max: Duration,
    /// A failure to commit is logged if it lasts longer than this.
    pub group_commit_grace: Duration,
    /// The time-out of the last commit at a stop. If the coordinator did not answer before, the
    /// recorder does not wait for it.
    pub group_commit_stop_timeout: Duration,

    /// The time-out of the transaction of one batch, including the answer to its commit.
    pub write_timeout: Duration,
    /// The time for which a single record must time out before it goes to quarantine.
    pub timeout_quarantine_after: Duration,
    /// The time-out for reading or storing a position.
    pub position_timeout: Duration,
    /// The time-out for counting the rows of a table of 1.1.0.
    pub count_timeout: Duration,
    /// The interval at which marks of old runs are removed.
    pub mark_cleanup_interval: Duration,
    /// The time-out for the removal of marks.
    pub mark_cleanup_timeout: Duration,

    /// The time-out for reading the schema.
    pub schema_read_timeout: Duration,
    /// The interval at which a schema without parts of an upgrade is checked again.
    pub schema_check_interval: Duration,
    /// The time-out for changing the schema. An index on a large table takes minutes.
    pub schema_change_timeout: Duration,

    /// The interval for log lines about the same kind of anomaly, and about quarantine.
    pub anomaly_log_interval: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(5),
            lease_margin: Duration::from_millis(500),
            lease_interval: Duration::from_secs(1),
            lease_timeout: Duration::from_secs(3),
            release_timeout: Duration::from_secs(1),
            lease_poll_interval: Duration::from_millis(200),
            kafka_unreachable_after: Duration::from_secs(30),
            offer_pause: Duration::from_secs(300),
            lease_grace: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(7),

            discovery_interval: Duration::from_secs(15),
            probe_timeout: Duration::from_secs(5),
            discovery_retry_delay: Duration::from_secs(2),
            topic_refresh_interval: Duration::from_secs(30),

            retry_delay_min: Duration::from_millis(200),
            retry_delay_max: Duration::from_secs(10),
            unreadable_batch_after: Duration::from_secs(60),

            turn_round: Duration::from_secs(20),
            turn_max: Duration::from_secs(5),
            turn_poll_interval: Duration::from_millis(100),
            turn_growth_interval: Duration::from_secs(15),

            group_commit_interval: Duration::from_secs(1),
            group_commit_pause_min: Duration::from_millis(500),
            group_commit_pause_max: Duration::from_secs(30),
            group_commit_grace: Duration::from_secs(20),
            group_commit_stop_timeout: Duration::from_millis(100),

            write_timeout: Duration::from_secs(30),
            timeout_quarantine_after: Duration::from_secs(300),
            position_timeout: Duration::from_secs(30),
            count_timeout: Duration::from_secs(660),
            mark_cleanup_interval: Duration::from_secs(24 * 60 * 60),
            mark_cleanup_timeout: Duration::from_secs(30),

            schema_read_timeout: Duration::from_secs(30),
            schema_check_interval: Duration::from_secs(60),
            schema_change_timeout: Duration::from_secs(660),

            anomaly_log_interval: Duration::from_secs(60),
        }
    }
}
