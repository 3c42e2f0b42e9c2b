//! Settings that all clients and producers of a program share.

use std::time::Duration;

use crate::address::BrokerAddress;
use crate::connection::open_connections::OpenConnections;
use crate::error::KafkaError;
use crate::security::sasl::Sasl;
use crate::security::tls::{Security, TlsCache, certificate_subject};
use common::stop::Cutoff;

/// The default of [`KafkaSettings::connect_timeout_ms`].
pub const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// The default of [`KafkaSettings::request_timeout_ms`].
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// The default of [`KafkaSettings::metadata_max_age_ms`], which is also the default of
/// `metadata.max.age.ms` in Kafka's own clients.
pub const METADATA_MAX_AGE_MS: u64 = 300_000;

/// Broker addresses, security and time-outs.
#[derive(Debug)]
pub struct KafkaSettings {
    /// The brokers from which the client requests the addresses of all brokers, tried in turn.
    /// Not empty.
    pub bootstrap: Vec<BrokerAddress>,
    /// Plain text or TLS.
    pub security: Security,
    /// SASL user and password. `None`: no authentication by SASL.
    pub sasl: Option<Sasl>,
    /// The client's name in the brokers' logs and quotas.
    pub client_id: String,
    /// The time-out for opening a connection, TLS handshake and SASL included, in milliseconds.
    pub connect_timeout_ms: u64,
    /// The time-out from the first byte of a request to the last byte of its response, in
    /// milliseconds. The time that a fetch may wait for records is added.
    pub request_timeout_ms: u64,
    /// The age at which the leader of a topic is looked up again even though no broker returned
    /// an error, in milliseconds.
    pub metadata_max_age_ms: u64,
    /// The maximum number of open connections of all clients of these settings together. `None`: no
    /// limit.
    pub connections_max: Option<usize>,
    /// After this point in time, set when the program stops, every wait ends. `None`: waits end
    /// by their time-outs only.
    pub cutoff: Option<Cutoff>,
    /// Delays and limits that are not meant for users; tests shorten them.
    pub timings: KafkaTimings,
    pub(crate) tls: TlsCache,
    pub(crate) open_connections: OpenConnections,
}

/// Delays and limits of the client. [`KafkaTimings::default`] is meant for production.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KafkaTimings {
    /// A connection that was idle for longer is replaced. Default: 240 s. Brokers close idle
    /// connections after 10 minutes (`connections.max.idle.ms`), some firewalls after 350 s.
    pub connection_idle_max: Duration,
    /// The time for which one round of a producer waits for the next response of any broker.
    /// Default: 200 ms. A silent broker delays the topics of other brokers by at most this time.
    pub response_wait: Duration,
    /// A broker that could not be reached is skipped for this multiple of the duration of the
    /// failed attempt. Default: 3, so 30 s after a connect time-out of 10 s, and no time after a
    /// refused connection.
    pub unreachable_factor: u32,
    /// The first retry delay for topics that do not exist or have no leader. Default: 50 ms.
    pub missing_topic_delay_first: Duration,
    /// The longest retry delay for topics that do not exist or have no leader. Default: 1 s.
    pub missing_topic_delay_max: Duration,
    /// The time for which a changed topic id must stay the same before the topic is reported as
    /// recreated. Default: 1 s. A broker's metadata can be stale just after a topic was created.
    pub topic_id_confirm: Duration,
    /// The time for which each broker may take to answer in [`KafkaClient::confirm_with_majority`].
    /// Default: 3 s.
    ///
    /// [`KafkaClient::confirm_with_majority`]: crate::KafkaClient::confirm_with_majority
    pub majority_timeout: Duration,
}

impl Default for KafkaTimings {
    fn default() -> Self {
        Self {
            connection_idle_max: Duration::from_secs(240),
            response_wait: Duration::from_millis(200),
            unreachable_factor: 3,
            missing_topic_delay_first: Duration::from_millis(50),
            missing_topic_delay_max: Duration::from_secs(1),
            topic_id_confirm: Duration::from_secs(1),
            majority_timeout: Duration::from_secs(3),
        }
    }
}

impl KafkaSettings {
    /// Settings with the default time-outs, without SASL, and with the client id
    /// `websites-availability`.
    pub fn new(bootstrap: Vec<BrokerAddress>, security: Security) -> Self {
        Self {
            bootstrap,
            security,
            sasl: None,
            client_id: "websites-availability".to_owned(),
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            request_timeout_ms: REQUEST_TIMEOUT_MS,
            metadata_max_age_ms: METADATA_MAX_AGE_MS,
            connections_max: None,
            cutoff: None,
            timings: KafkaTimings::default(),
            tls: TlsCache::default(),
            open_connections: OpenConnections::default(),
        }
    }

    /// The principal of this client for a broker with default rules, such as `User:alice`. Used in
    /// texts about missing rights. `None`: the client certificate can't be read.
    pub fn principal(&self) -> Option<String> {
        match (&self.sasl, &self.security) {
            (Some(sasl), _) => Some(format!("User:{}", sasl.username)),
            (None, Security::Tls { identity: Some((certificate, _)), .. }) => {
                certificate_subject(certificate).map(|subject| format!("User:{subject}"))
            }
            (None, _) => Some("User:ANONYMOUS".to_owned()),
        }
    }

    /// Checks certificates, private key and SASL user without contacting a broker, so that a
    /// program can refuse wrong settings at start.
    ///
    /// # Errors
    /// [`KafkaError::Pem`] for a certificate or key, [`KafkaError::Request`] for an empty
    /// bootstrap list and for a user or password that SASL can't carry.
    pub fn check(&self) -> Result<(), KafkaError> {
        if self.bootstrap.is_empty() {
            return Err(KafkaError::no_bootstrap());
        }
        if let Security::Tls { roots, identity } = &self.security {
            self.tls.get(roots.as_ref(), identity.as_ref())?;
        }
        match &self.sasl {
            Some(sasl) => {
                sasl.check().map_err(|reason| KafkaError::Request { api: "SASL", reason })
            }
            None => Ok(()),
        }
    }
}
