//! What can go wrong on the way to Kafka, and whether trying again can help.
//!
//! This file alone judges a broker's error codes.

use std::sync::Arc;
use std::{fmt, io};

use kafka_protocol::ResponseError;
use uuid::Uuid;

use super::address::Address;
use super::records::BatchFailure;
use super::tls::TlsFailure;
use common::pem::PemError;

/// A failure of a call to Kafka; [`Error::is_retryable`] tells what to do.
///
/// It can be cloned, as one broken connection can be the failure of many topics.
#[derive(Debug, Clone)]
pub enum Error {
    /// The broker's name did not resolve, or nothing took the connection.
    Connect {
        /// The broker.
        address: Address,
        /// What the system says.
        cause: Arc<io::Error>,
    },
    /// TLS was refused, by us or by the broker.
    Tls {
        /// The broker.
        address: Address,
        /// Who refused what.
        failure: TlsFailure,
    },
    /// CA, certificate or key can't be used.
    Pem(Arc<PemError>),
    /// The broker did not take user and password, or does not know them as it says.
    Sasl {
        /// The broker.
        address: Address,
        /// What was refused; never a password.
        what: String,
    },
    /// The connection broke; what a request under way has done is unknown.
    Disconnected {
        /// The broker.
        address: Address,
        /// What the system says.
        cause: Arc<io::Error>,
        /// What it may mean, when there is more to say.
        hint: Option<&'static str>,
    },
    /// No whole answer in time; what the request has done is unknown.
    Timeout {
        /// The broker.
        address: Address,
        /// The request.
        api: &'static str,
    },
    /// Bytes that are not an answer to the request; the connection is closed.
    Malformed {
        /// The broker.
        address: Address,
        /// The request.
        api: &'static str,
        /// What is wrong with them.
        what: String,
    },
    /// No version of a request that both sides speak.
    Version {
        /// The broker.
        address: Address,
        /// The request.
        api: &'static str,
        /// The versions that we speak.
        ours: (i16, i16),
        /// The versions that the broker speaks; none: it does not know the request.
        broker: Option<(i16, i16)>,
    },
    /// The broker answered with an error.
    Broker {
        /// The request.
        api: &'static str,
        /// The topic, partition or group that it is about.
        subject: String,
        /// Kafka's error.
        code: ResponseError,
        /// What the broker adds.
        message: Option<String>,
    },
    /// There is no such topic (or partition) now.
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// The topic's id is not known any more: deleted and made again under its
    /// name. Said only after two looks a second apart, because a broker can be
    /// behind the others just after a topic was made.
    UnknownTopicId {
        /// Its name.
        topic: String,
        /// The id asked for.
        topic_id: Uuid,
        /// The id under that name now.
        current_id: Uuid,
    },
    /// The partition has no leader now, or is led by a broker that is not listed.
    NoLeader {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: i32,
    },
    /// The offset asked for is below the log's start or above its end.
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// The offset asked for.
        offset: i64,
        /// The first offset that there is.
        log_start: i64,
        /// The offset of the next record to be written.
        log_end: i64,
    },
    /// A batch in the log can't be read.
    Batch {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// The first offset of the batch.
        base_offset: i64,
        /// The offset after the batch, for who wants to go on behind it; above the
        /// one that was asked for. None when nobody can tell.
        next_offset: Option<i64>,
        /// What is wrong with it.
        failure: BatchFailure,
    },
    /// Our own request does not fit the protocol (a topic's name of 40,000 characters).
    Request {
        /// The request.
        api: &'static str,
        /// What does not fit.
        what: String,
    },
}

impl Error {
    /// Whether the same call can succeed later with nothing changed by a person.
    ///
    /// A refusal by TLS or SASL is not, though a program that reads renewed
    /// certificates again should keep trying, slowly.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::Timeout { .. }
            | Self::Malformed { .. }
            | Self::UnknownTopic { .. }
            | Self::NoLeader { .. } => true,
            Self::Broker { code, .. } => verdict(*code) != Verdict::Permanent,
            Self::Batch { failure, .. } => failure.is_retryable(),
            Self::Tls { .. }
            | Self::Pem(_)
            | Self::Sasl { .. }
            | Self::Version { .. }
            | Self::UnknownTopicId { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::Request { .. } => false,
        }
    }

    /// Whether it is about the records of a batch, so that others can be taken.
    pub fn is_of_records(&self) -> bool {
        use ResponseError as E;
        let Self::Broker { code, .. } = self else { return false };
        let of_records =
            [E::InvalidTimestamp, E::InvalidRecord, E::MessageTooLarge, E::RecordListTooLarge];
        of_records.contains(code)
    }

    /// Whether it is about the way to the brokers, which all topics have in
    /// common: lost, or refused for a certificate, a password or a version.
    pub fn is_of_connection(&self) -> bool {
        self.is_transport() || matches!(self, Self::Pem(_))
    }

    /// Whether the connection that it happened on is gone.
    pub(crate) fn is_transport(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Tls { .. }
                | Self::Sasl { .. }
                | Self::Disconnected { .. }
                | Self::Timeout { .. }
                | Self::Malformed { .. }
                | Self::Version { .. }
        )
    }

    /// The error of a broker's code, none for code 0.
    pub(crate) fn from_code(
        api: &'static str,
        subject: impl fmt::Display,
        code: i16,
        message: Option<&str>,
    ) -> Result<(), Self> {
        match ResponseError::try_from_code(code) {
            None => Ok(()),
            Some(code) => Err(Self::Broker {
                api,
                subject: subject.to_string(),
                code,
                message: message.filter(|text| !text.is_empty()).map(printable),
            }),
        }
    }
}

/// What a broker's error code means for the request that it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done before; the answer to the first time was lost.
    Duplicate,
    /// Not done; the producer's id or sequence is not the broker's any more.
    ProducerState,
    /// Not done; the topic or the partition's leader is elsewhere, or not yet there.
    Metadata,
    /// Perhaps done, perhaps not: the same bytes again.
    Unknown,
    /// Not done; again later.
    Again,
    /// Not done; the batch is larger than the topic takes.
    TooLarge,
    /// Not done; again would end the same.
    Permanent,
}

/// All of Kafka's codes, judged. A code that we do not know is `Unknown`, the
/// one verdict that can neither lose nor duplicate.
pub(crate) fn verdict(code: ResponseError) -> Verdict {
    use ResponseError as E;
    match code {
        E::DuplicateSequenceNumber => Verdict::Duplicate,
        E::OutOfOrderSequenceNumber
        | E::UnknownProducerId
        | E::InvalidProducerEpoch
        | E::InvalidProducerIdMapping
        | E::ProducerFenced => Verdict::ProducerState,
        E::UnknownTopicOrPartition
        | E::UnknownTopicId
        | E::InconsistentTopicId
        | E::LeaderNotAvailable
        | E::NotLeaderOrFollower
        | E::ReplicaNotAvailable
        | E::BrokerNotAvailable
        | E::NotController
        | E::NotCoordinator
        | E::CoordinatorNotAvailable
        | E::FencedLeaderEpoch
        | E::UnknownLeaderEpoch
        | E::ListenerNotFound
        | E::KafkaStorageError => Verdict::Metadata,
        E::RequestTimedOut
        | E::NetworkException
        | E::NotEnoughReplicasAfterAppend
        | E::UnknownServerError
        | E::Unknown(_) => Verdict::Unknown,
        E::NotEnoughReplicas
        | E::CorruptMessage
        | E::CoordinatorLoadInProgress
        | E::OffsetNotAvailable
        | E::ThrottlingQuotaExceeded
        | E::RebalanceInProgress
        | E::ConcurrentTransactions
        | E::PreferredLeaderNotAvailable
        | E::EligibleLeadersNotAvailable
        | E::UnstableOffsetCommit
        | E::FetchSessionIdNotFound
        | E::InvalidFetchSessionEpoch
        | E::StaleBrokerEpoch
        | E::InvalidReplicationFactor => Verdict::Again,
        E::MessageTooLarge | E::RecordListTooLarge => Verdict::TooLarge,
        other if other.is_retriable() => Verdict::Unknown,
        _ => Verdict::Permanent,
    }
}

/// A broker's words on one line, without control characters, and not for ever.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { address, cause } => write!(f, "connect to {address}: {cause}"),
            Self::Tls { address, failure } => write!(f, "TLS to {address}: {failure}"),
            Self::Pem(cause) => write!(f, "{cause}"),
            Self::Sasl { address, what } => write!(f, "SASL to {address}: {what}"),
            Self::Disconnected { address, cause, hint: None } => {
                write!(f, "connection to {address}: {cause}")
            }
            Self::Disconnected { address, cause, hint: Some(hint) } => {
                write!(f, "connection to {address}: {cause} ({hint})")
            }
            Self::Timeout { address, api } => write!(f, "{api} to {address}: no answer in time"),
            Self::Malformed { address, api, what } => {
                write!(f, "{api} to {address}: not an answer of Kafka: {what}")
            }
            Self::Version { address, api, ours, broker } => {
                write!(f, "{address} is too old or too new: {api} is spoken here in version ")?;
                write!(f, "{} to {}, there ", ours.0, ours.1)?;
                match broker {
                    Some((min, max)) => write!(f, "in {min} to {max}"),
                    None => f.write_str("in none"),
                }
            }
            Self::Broker { api, subject, code, message } => {
                write!(f, "{api} {subject}: {}", phrase(*code))?;
                match message {
                    Some(message) => write!(f, " ({message})"),
                    None => Ok(()),
                }
            }
            Self::UnknownTopic { topic } => write!(f, "topic {topic}: not there"),
            Self::UnknownTopicId { topic, topic_id, current_id } => {
                write!(f, "topic {topic}: deleted and made again: was {topic_id}, is {current_id}")
            }
            Self::NoLeader { topic, partition } => {
                write!(f, "topic {topic} partition {partition}: no leader now")
            }
            Self::OffsetOutOfRange { topic, partition, offset, log_start, log_end } => write!(
                f,
                "topic {topic} partition {partition}: offset {offset} is not in the log, \
                 which holds {log_start} up to {log_end}"
            ),
            Self::Batch { topic, partition, base_offset, failure, .. } => {
                write!(f, "topic {topic} partition {partition} batch at {base_offset}: {failure}")
            }
            Self::Request { api, what } => write!(f, "{api}: {what}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect { cause, .. } | Self::Disconnected { cause, .. } => Some(cause.as_ref()),
            Self::Tls { failure, .. } => Some(failure),
            Self::Pem(cause) => Some(cause.as_ref()),
            Self::Batch { failure, .. } => Some(failure),
            _ => None,
        }
    }
}

impl From<PemError> for Error {
    fn from(cause: PemError) -> Self {
        Self::Pem(Arc::new(cause))
    }
}

/// `TopicAuthorizationFailed` as words in lower case, with its number where it
/// has no name.
fn phrase(code: ResponseError) -> String {
    if let ResponseError::Unknown(number) = code {
        return format!("error code {number}, which is not known here");
    }
    let mut words = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_error_reads_as_words() {
        let error = Error::from_code("Produce", "topic t", 29, Some("no\nway")).unwrap_err();
        assert_eq!(error.to_string(), "Produce topic t: topic authorization failed (no way)");
        assert!(!error.is_retryable());
        assert!(Error::from_code("Produce", "topic t", 0, None).is_ok());
        let error = Error::from_code("Fetch", "topic t", 3000, None).unwrap_err();
        assert_eq!(error.to_string(), "Fetch topic t: error code 3000, which is not known here");
        assert!(error.is_retryable());
    }

    #[test]
    fn every_code_that_kafka_calls_retryable_is_so_here() {
        for number in 1..=150 {
            let Some(code) = ResponseError::try_from_code(number) else { continue };
            if code.is_retriable() {
                assert_ne!(verdict(code), Verdict::Permanent, "{code:?}");
            }
        }
    }
}
