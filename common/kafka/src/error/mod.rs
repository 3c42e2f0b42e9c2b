//! Errors of the client. [`retryable`] decides which of them are retryable.

pub(crate) mod retryable;

use std::fmt;
use std::io;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use uuid::Uuid;

use crate::address::BrokerAddress;
use crate::batch::decode::BatchFailure;
use crate::security::tls::TlsFailure;
use crate::text::one_line;
use common::pem::PemError;

/// The reason why a call to Kafka failed. [`KafkaError::is_retryable`] decides whether the same
/// call can succeed later.
///
/// It is `Clone` because one broken connection can be the error of many topics.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(missing_docs, reason = "fields such as `address`, `topic` and `api` need no text")]
pub enum KafkaError {
    /// The broker's name did not resolve, or the TCP connection failed.
    #[error("connect to {address}: {cause}")]
    Connect {
        address: BrokerAddress,
        #[source]
        cause: Arc<io::Error>,
    },
    /// The TLS handshake failed, on either side.
    #[error("TLS to {address}: {failure}")]
    Tls {
        address: BrokerAddress,
        #[source]
        failure: TlsFailure,
    },
    /// A CA certificate, client certificate or private key can't be used.
    #[error(transparent)]
    Pem(Arc<PemError>),
    /// SASL authentication failed: the broker refused the client, or could not prove that it
    /// knows the password (SCRAM).
    #[error("SASL to {address}: {reason}")]
    Sasl {
        address: BrokerAddress,
        /// The cause. Never contains a password.
        reason: String,
    },
    /// No connection could be opened while other connections are open, because a limit is reached.
    #[error("connect to {address}: {}", LimitReached(*max))]
    TooManyConnections {
        address: BrokerAddress,
        /// [`KafkaSettings::connections_max`](crate::KafkaSettings::connections_max), if this limit
        /// is reached. `None`: a limit of the broker is reached.
        max: Option<usize>,
    },
    /// The connection broke. A request in flight may or may not have been processed.
    #[error("connection to {address}: {cause}{}", Hint(*hint))]
    Disconnected {
        address: BrokerAddress,
        #[source]
        cause: Arc<io::Error>,
        /// A likely reason, according to the progress of the connection.
        hint: Option<&'static str>,
    },
    /// No complete response in time. The request may or may not have been processed.
    #[error("{api} to {address}: no answer in time")]
    Timeout { address: BrokerAddress, api: &'static str },
    /// The response is not valid. The connection was closed.
    #[error("{api} to {address}: not an answer of Kafka: {reason}")]
    Malformed { address: BrokerAddress, api: &'static str, reason: String },
    /// Client and broker have no version of a request in common.
    #[error(
        "{address} is too old or too new: the client supports {api} versions {} to {}, the broker {}",
        client.0, client.1, VersionRange(*broker)
    )]
    Version {
        address: BrokerAddress,
        api: &'static str,
        /// Lowest and highest version of the client.
        client: (i16, i16),
        /// Lowest and highest version of the broker. `None`: it does not support the request.
        broker: Option<(i16, i16)>,
    },
    /// The broker answered with an error code.
    #[error("{api} {subject}: {}{}", Code(*code), Message(message.as_deref()))]
    Broker {
        api: &'static str,
        /// The topic, partition or group of the request.
        subject: String,
        code: ResponseError,
        /// The broker's explanation, if it sent one.
        message: Option<String>,
    },
    /// The topic, or the partition of the topic, does not exist.
    #[error("topic {topic}: does not exist")]
    UnknownTopic { topic: String },
    /// The topic was deleted and recreated under the same name, so it has another id (KIP-516).
    ///
    /// Returned only when the new id was seen for
    /// [`KafkaTimings::topic_id_confirm`](crate::KafkaTimings::topic_id_confirm).
    #[error("topic {topic}: deleted and recreated: topic id was {topic_id}, is {current_id}")]
    UnknownTopicId {
        topic: String,
        /// The id of the request.
        topic_id: Uuid,
        /// The id that the name has now.
        current_id: Uuid,
    },
    /// The partition has no leader, or its leader is not in the list of brokers.
    #[error("topic {topic} partition {partition}: no leader")]
    NoLeader { topic: String, partition: i32 },
    /// The offset is below the log start or above the log end.
    #[error(
        "topic {topic} partition {partition}: offset {offset} is not in the log, \
         which holds {log_start} up to {log_end}"
    )]
    OffsetOutOfRange {
        topic: String,
        partition: i32,
        /// The offset of the request.
        offset: i64,
        /// The offset of the first record in the log.
        log_start: i64,
        /// The offset of the next record to be written.
        log_end: i64,
    },
    /// A batch in the log can't be read.
    #[error("topic {topic} partition {partition} batch at {base_offset}: {failure}")]
    Batch {
        topic: String,
        partition: i32,
        /// The first offset of the batch.
        base_offset: i64,
        /// The offset after the batch, above the requested offset. `None`: the offset is unknown.
        next_offset: Option<i64>,
        #[source]
        failure: BatchFailure,
    },
    /// The request can't be encoded, for example a topic name of 40,000 characters.
    #[error("{api}: {reason}")]
    Request { api: &'static str, reason: String },
}

impl KafkaError {
    /// Converts a broker's error code into a result; code 0 is `Ok`.
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
                message: message.filter(|text| !text.is_empty()).map(one_line),
            }),
        }
    }

    /// The error of a response that leaves out the requested topic. Retryable, because the response
    /// does not contain an error of the topic.
    pub(crate) fn not_in_response(api: &'static str, topic: &str) -> Self {
        Self::Broker {
            api,
            subject: format!("topic {topic}"),
            code: ResponseError::UnknownServerError,
            message: Some("the response does not contain it".to_owned()),
        }
    }

    /// The error of settings without a broker.
    pub(crate) fn no_bootstrap() -> Self {
        Self::Request { api: "bootstrap", reason: "no broker is set".to_owned() }
    }
}

impl From<PemError> for KafkaError {
    fn from(cause: PemError) -> Self {
        Self::Pem(Arc::new(cause))
    }
}

/// The limit of connections that is reached, as text.
struct LimitReached(Option<usize>);

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(max) => write!(f, "all of the {max} connections that are allowed are in use"),
            None => f.write_str(
                "the broker closed the new connection but answers on others: \
                 is max.connections.per.ip of the broker reached?",
            ),
        }
    }
}

/// ` (hint)`, or nothing.
struct Hint(Option<&'static str>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Message(self.0).fmt(f)
    }
}

/// ` (message)`, or nothing.
struct Message<'a>(Option<&'a str>);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

/// `9 to 12`, or `none`.
struct VersionRange(Option<(i16, i16)>);

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((min, max)) => write!(f, "{min} to {max}"),
            None => f.write_str("none"),
        }
    }
}

/// `TopicAuthorizationFailed` as `topic authorization failed`; a code without a name as its number.
struct Code(ResponseError);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let ResponseError::Unknown(number) = self.0 {
            return write!(f, "unknown error code {number}");
        }
        for (index, c) in format!("{:?}", self.0).chars().enumerate() {
            if c.is_ascii_uppercase() && index > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{}", c.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
