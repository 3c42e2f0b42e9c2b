//! Decides which errors are retryable and which are permanent. No other file decides this.

use kafka_protocol::ResponseError;

use super::KafkaError;

impl KafkaError {
    /// Whether the same call can succeed later without a change of a setting, a right or a
    /// certificate.
    ///
    /// Errors of TLS, certificates and SASL are permanent by this rule. A program that reads
    /// renewed certificates should still retry them, with long delays.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::TooManyConnections { .. }
            | Self::Disconnected { .. }
            | Self::Timeout { .. }
            | Self::Malformed { .. }
            | Self::UnknownTopic { .. }
            | Self::NoLeader { .. } => true,
            Self::Broker { code, .. } => {
                !matches!(classify(*code), ErrorClass::Permanent | ErrorClass::NeedsOperator)
            }
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

    /// Whether the broker refused the request because of a missing right (ACL).
    pub fn is_authorization_error(&self) -> bool {
        use ResponseError as E;
        let Self::Broker { code, .. } = self else { return false };
        matches!(
            code,
            E::TopicAuthorizationFailed
                | E::GroupAuthorizationFailed
                | E::ClusterAuthorizationFailed
                | E::TransactionalIdAuthorizationFailed
        )
    }

    /// The operation of Kafka's ACLs that the refused request needs. `None` for other errors.
    pub fn missing_operation(&self) -> Option<&'static str> {
        let Self::Broker { api, .. } = self else { return None };
        self.is_authorization_error().then_some(match *api {
            "Produce" => "Write",
            "InitProducerId" => "IdempotentWrite",
            "CreateTopics" => "Create",
            "Fetch" | "OffsetCommit" => "Read",
            _ => "Describe",
        })
    }

    /// Whether the broker refused the records themselves (their time, size or content). Other
    /// records of the topic can still be accepted.
    pub fn is_record_error(&self) -> bool {
        use ResponseError as E;
        let Self::Broker { code, .. } = self else { return false };
        matches!(
            code,
            E::InvalidTimestamp | E::InvalidRecord | E::MessageTooLarge | E::RecordListTooLarge
        )
    }

    /// Whether the connection to the brokers failed, or could not be set up because of a
    /// certificate, a password or a version. Such an error concerns all topics.
    pub fn is_connection_error(&self) -> bool {
        self.is_connection_lost() || matches!(self, Self::Pem(_))
    }

    /// Whether the connection of the failed request can't be used any more.
    pub(crate) fn is_connection_lost(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::TooManyConnections { .. }
                | Self::Tls { .. }
                | Self::Sasl { .. }
                | Self::Disconnected { .. }
                | Self::Timeout { .. }
                | Self::Malformed { .. }
                | Self::Version { .. }
        )
    }
}

/// The meaning of a broker's error code for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// The batch was appended by an earlier request whose response was lost.
    AlreadyAppended,
    /// Not appended. The broker does not know the producer's id, epoch or sequence.
    ProducerStateLost,
    /// Not processed by this broker. The metadata of the topic or group must be refreshed.
    StaleMetadata,
    /// The request may or may not have been processed. The same bytes must be sent again.
    OutcomeUnknown,
    /// Not processed. The same request can succeed later.
    RetryLater,
    /// Not processed. The same request can succeed after an operator has changed a right, a policy
    /// or the configuration of the topic.
    NeedsOperator,
    /// Not appended. The batch is larger than the topic allows.
    BatchTooLarge,
    /// Not processed. The same request would fail again.
    Permanent,
}

/// Classifies an error code of Kafka.
///
/// An unknown code is [`ErrorClass::OutcomeUnknown`]: the only class that neither loses nor
/// duplicates records.
pub(crate) fn classify(code: ResponseError) -> ErrorClass {
    use ResponseError as E;
    match code {
        E::DuplicateSequenceNumber => ErrorClass::AlreadyAppended,
        E::OutOfOrderSequenceNumber
        | E::UnknownProducerId
        | E::InvalidProducerEpoch
        | E::InvalidProducerIdMapping
        | E::ProducerFenced => ErrorClass::ProducerStateLost,
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
        | E::KafkaStorageError => ErrorClass::StaleMetadata,
        E::RequestTimedOut
        | E::NetworkException
        | E::NotEnoughReplicasAfterAppend
        | E::UnknownServerError
        | E::Unknown(_) => ErrorClass::OutcomeUnknown,
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
        | E::InvalidReplicationFactor => ErrorClass::RetryLater,
        E::TopicAuthorizationFailed
        | E::GroupAuthorizationFailed
        | E::ClusterAuthorizationFailed
        | E::TransactionalIdAuthorizationFailed
        | E::PolicyViolation
        | E::InvalidConfig
        | E::InvalidRecord
        | E::InvalidTimestamp => ErrorClass::NeedsOperator,
        E::MessageTooLarge | E::RecordListTooLarge => ErrorClass::BatchTooLarge,
        other if other.is_retriable() => ErrorClass::OutcomeUnknown,
        _ => ErrorClass::Permanent,
    }
}
