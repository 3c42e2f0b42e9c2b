//! Why recording a domain has to start again.

use std::fmt;

use kafka_client::{Error as KafkaError, ResponseError};

use crate::postgres::pool::WorkError;

/// What ends a session. All of it is tried again, for ever: what time does not
/// heal, somebody may.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The way to Kafka, or its refusal.
    Kafka(KafkaError),
    /// The database, or another recorder.
    Work(WorkError),
    /// The domain's lease may have run out.
    LeaseOver,
    /// The topic is not there (yet).
    TopicMissing(String),
    /// The topic can't be read.
    Topic {
        /// Its name.
        topic: String,
        /// Why.
        code: ResponseError,
    },
}

impl Failure {
    /// True when the database grants a right that is needed to nobody here.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Work(WorkError::Postgres(error)) if error.is_denied())
    }
}

impl From<KafkaError> for Failure {
    fn from(cause: KafkaError) -> Self {
        match cause {
            KafkaError::UnknownTopic { topic } => Self::TopicMissing(topic),
            cause => Self::Kafka(cause),
        }
    }
}

impl From<WorkError> for Failure {
    fn from(cause: WorkError) -> Self {
        Self::Work(cause)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka(cause) => write!(f, "kafka: {cause}"),
            Self::Work(cause) => write!(f, "{cause}"),
            Self::LeaseOver => f.write_str("the lease may have run out"),
            Self::TopicMissing(topic) => write!(f, "topic {topic} is not there"),
            Self::Topic { topic, code } => write!(f, "topic {topic}: {code:?}"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kafka(cause) => Some(cause),
            Self::Work(cause) => Some(cause),
            Self::LeaseOver | Self::TopicMissing(_) | Self::Topic { .. } => None,
        }
    }
}
