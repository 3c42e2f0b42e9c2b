//! The reasons why a session with a topic ends.

use common::panics::Panicked;
use kafka_client::{KafkaError, ResponseError};
use postgres_client::PostgresError;

use crate::lease::progress::WorkerFailure;
use crate::postgres::error::TransactionError;

/// The reason why a session ends. All errors are retried without a limit, also errors that only an
/// operator can fix.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// Kafka can't be reached, or refused a request.
    #[error("kafka: {0}")]
    Kafka(#[source] KafkaError),
    /// A transaction failed.
    #[error("{0}")]
    Transaction(#[from] TransactionError),
    /// The lease of the domain may have expired.
    #[error("the lease may have expired")]
    LeaseExpired,
    /// The work of the domain panicked.
    #[error("a bug: {0} (the lines before tell where)")]
    Panicked(#[from] Panicked),
    /// The topic does not exist (yet).
    #[error("topic {0} does not exist")]
    TopicMissing(String),
    /// Kafka reports an error for the topic.
    #[error("topic {topic}: {code:?}")]
    Topic {
        /// The name of the topic.
        topic: String,
        /// The error.
        code: ResponseError,
    },
}

impl SessionError {
    /// Whether Kafka refused a request because of a missing right.
    pub(crate) fn is_kafka_refusal(&self) -> bool {
        match self {
            Self::Kafka(error) => error.is_authorization_error(),
            Self::Topic { code, .. } => *code == ResponseError::TopicAuthorizationFailed,
            _ => false,
        }
    }

    /// Whether the schema may have changed, so that it must be checked.
    pub(crate) fn is_of_schema(&self) -> bool {
        matches!(
            self,
            Self::Transaction(
                TransactionError::Postgres(PostgresError::Setup(_))
                    | TransactionError::OwnSchema { .. }
            )
        )
    }

    /// Whether the error concerns one partition, so that the other partitions of the
    /// topic can still be read.
    pub(crate) fn is_of_partition(&self) -> bool {
        let Self::Kafka(error) = self else { return false };
        !matches!(error, KafkaError::UnknownTopicId { .. } | KafkaError::TooManyConnections { .. })
    }

    /// Classifies the failure: whether another recorder may be able to record the domain.
    pub(crate) fn worker_failure(&self) -> WorkerFailure {
        use ResponseError::{ClusterAuthorizationFailed, TopicAuthorizationFailed};
        match self {
            Self::Kafka(error) if error.is_connection_error() => WorkerFailure::NoAnswer,
            Self::Kafka(KafkaError::Broker { code, .. }) | Self::Topic { code, .. }
                if matches!(code, TopicAuthorizationFailed | ClusterAuthorizationFailed) =>
            {
                WorkerFailure::Refused
            }
            Self::Transaction(error) if error.is_denied() => WorkerFailure::Refused,
            _ => WorkerFailure::Other,
        }
    }
}

impl From<KafkaError> for SessionError {
    fn from(cause: KafkaError) -> Self {
        match cause {
            KafkaError::UnknownTopic { topic } => Self::TopicMissing(topic),
            cause => Self::Kafka(cause),
        }
    }
}
