//! Every interval, delay and time-out that the recorder waits for, as values.
//!
//! A test that has to see a time-out pass sets a shorter one.

use std::time::Duration;

/// Intervals, delays and time-outs. [`Timings::default`] holds the values for
/// production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timings {
    /// How long a lease lasts by the clock of the database. The domains of a
    /// recorder that dies are idle for this long.
    pub lease_duration: Duration,
    /// A lease counts as expired this much earlier by the clock of this host.
    pub lease_margin: Duration,
    /// How often leases are renewed and compared with those of other recorders.
    pub lease_interval: Duration,
    /// The longest that one transaction on leases may take.
    pub lease_timeout: Duration,
    /// The longest that the release of all leases at a stop may take.
    pub release_timeout: Duration,
    /// How often a worker checks whether its lease is valid again.
    pub lease_poll_interval: Duration,
    /// How long a leader, or Kafka, may be without an answer before other recorders may
    /// have the leases: longer than the restart of a broker takes.
    pub kafka_unreachable_after: Duration,
    /// How long a lease that was offered to others is not wanted back, unless its leader
    /// is reached again earlier.
    pub offer_pause: Duration,
    /// How long leases may be looked up too slowly, or no recorder may reach a leader,
    /// before that is logged.
    pub lease_grace: Duration,
    /// The longest that threads may take to end after a stop.
    pub shutdown_timeout: Duration,

    /// How often brokers are asked for topics, and leaders are connected to.
    pub discovery_interval: Duration,
    /// The longest that a leader may take to answer on a new connection.
    pub probe_timeout: Duration,
    /// How soon brokers are asked again after a failure.
    pub discovery_retry_delay: Duration,
    /// How often a topic is checked for new partitions.
    pub topic_refresh_interval: Duration,

    /// The shortest and the longest delay before a domain is retried.
    pub retry_delay_min: Duration,
    /// See `retry_delay_min`.
    pub retry_delay_max: Duration,
    /// How long a batch must fail with the same checksum error before it is skipped.
    pub unreadable_batch_after: Duration,

    /// How long one round of turns should take, if a limit allows fewer connections to
    /// Kafka than there are domains. A round takes at most twice as long, and the time to
    /// connect.
    pub turn_round: Duration,
    /// The longest that a domain keeps its connections while others wait for a turn.
    pub turn_max: Duration,
    /// How often a domain without a connection checks whether it is its turn.
    pub turn_poll_interval: Duration,
    /// How often more connections are tried than the limit that was found.
    pub turn_growth_interval: Duration,

    /// How often the offsets of the consumer group are committed.
    pub group_commit_interval: Duration,
    /// The shortest and the longest pause of these commits after a failure.
    pub group_commit_pause_min: Duration,
    /// See `group_commit_pause_min`.
    pub group_commit_pause_max: Duration,
    /// A failure to commit is logged if it lasts longer than this.
    pub group_commit_grace: Duration,
    /// The longest that the last commit may take at a stop. A coordinator that did not
    /// answer before is not waited for.
    pub group_commit_stop_timeout: Duration,

    /// The longest that the transaction of one batch may take, with the answer
    /// to its commit.
    pub write_timeout: Duration,
    /// The time over which a single record must time out before it goes to quarantine.
    pub timeout_quarantine_after: Duration,
    /// The longest that reading or storing a position may take.
    pub position_timeout: Duration,
    /// The longest that counting the rows of a table of 1.1.0 may take.
    pub count_timeout: Duration,
    /// How often marks of old runs are removed.
    pub mark_cleanup_interval: Duration,
    /// The longest that their removal may take.
    pub mark_cleanup_timeout: Duration,

    /// The longest that reading the schema may take.
    pub schema_read_timeout: Duration,
    /// How often a schema that lacks what an upgrade adds is checked again.
    pub schema_check_interval: Duration,
    /// The longest that changing the schema may take: an index on a large table
    /// takes minutes.
    pub schema_change_timeout: Duration,

    /// How often the same kind of anomaly, and how often quarantine, is logged.
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
