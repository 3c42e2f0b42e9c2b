//! The supported versions of each request, and their negotiation with a broker.

use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message};

use crate::address::BrokerAddress;
use crate::error::KafkaError;

/// A request and its response type. `kafka-protocol` has such a trait only together with the
/// broker's side of the protocol.
pub(crate) trait KafkaRequest: Message + Encodable + HeaderVersion {
    /// The API key.
    const KEY: i16;
    type Response: Message + Decodable + HeaderVersion;
}

macro_rules! calls {
    ($($key:ident: $request:ident => $response:ident,)*) => {
        $(impl KafkaRequest for $request {
            const KEY: i16 = ApiKey::$key as i16;
            type Response = $response;
        })*
    };
}

calls! {
    ApiVersions: ApiVersionsRequest => ApiVersionsResponse,
    Metadata: MetadataRequest => MetadataResponse,
    Produce: ProduceRequest => ProduceResponse,
    Fetch: FetchRequest => FetchResponse,
    ListOffsets: ListOffsetsRequest => ListOffsetsResponse,
    OffsetCommit: OffsetCommitRequest => OffsetCommitResponse,
    OffsetFetch: OffsetFetchRequest => OffsetFetchResponse,
    FindCoordinator: FindCoordinatorRequest => FindCoordinatorResponse,
    CreateTopics: CreateTopicsRequest => CreateTopicsResponse,
    DeleteTopics: DeleteTopicsRequest => DeleteTopicsResponse,
    OffsetForLeaderEpoch: OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse,
    InitProducerId: InitProducerIdRequest => InitProducerIdResponse,
    SaslHandshake: SaslHandshakeRequest => SaslHandshakeResponse,
    SaslAuthenticate: SaslAuthenticateRequest => SaslAuthenticateResponse,
}

/// The versions of a request that are tested with this client.
///
/// `min` is the first flexible version, which [`super::frame_guard`] relies on. For Metadata and
/// Fetch it is the first version with topic ids (Kafka 3.1). `max` is tested on brokers from 3.9
/// to 4.4. The broker's range is not enough: a 4.x broker advertises versions of Produce that it
/// rejects.
struct SupportedVersion {
    key: i16,
    name: &'static str,
    min: i16,
    max: i16,
}

const fn supported(key: ApiKey, name: &'static str, min: i16, max: i16) -> SupportedVersion {
    SupportedVersion { key: key as i16, name, min, max }
}

/// The version of ApiVersions, which can't be negotiated.
pub(crate) const API_VERSIONS_VERSION: i16 = 3;

const SUPPORTED_VERSIONS: [SupportedVersion; 14] = [
    supported(ApiKey::ApiVersions, "ApiVersions", API_VERSIONS_VERSION, API_VERSIONS_VERSION),
    supported(ApiKey::Metadata, "Metadata", 12, 12),
    supported(ApiKey::Produce, "Produce", 9, 12),
    supported(ApiKey::Fetch, "Fetch", 13, 13),
    supported(ApiKey::ListOffsets, "ListOffsets", 6, 7),
    supported(ApiKey::OffsetCommit, "OffsetCommit", 8, 8),
    supported(ApiKey::OffsetFetch, "OffsetFetch", 6, 7),
    supported(ApiKey::FindCoordinator, "FindCoordinator", 3, 3),
    supported(ApiKey::CreateTopics, "CreateTopics", 5, 7),
    supported(ApiKey::DeleteTopics, "DeleteTopics", 6, 6),
    supported(ApiKey::OffsetForLeaderEpoch, "OffsetForLeaderEpoch", 4, 4),
    supported(ApiKey::InitProducerId, "InitProducerId", 2, 4),
    // The only request without a flexible version: its response is checked separately.
    supported(ApiKey::SaslHandshake, "SaslHandshake", 1, 1),
    supported(ApiKey::SaslAuthenticate, "SaslAuthenticate", 2, 2),
];

/// The name of a request, for error texts.
pub(crate) fn api_name(key: i16) -> &'static str {
    SUPPORTED_VERSIONS.iter().find(|api| api.key == key).map_or("request", |api| api.name)
}

/// The versions that one broker supports, of the requests in [`SUPPORTED_VERSIONS`].
#[derive(Debug, Clone)]
pub(crate) struct BrokerVersions {
    ranges: [Option<(i16, i16)>; SUPPORTED_VERSIONS.len()],
}

impl BrokerVersions {
    /// The versions before negotiation: ApiVersions only.
    pub(crate) fn api_versions_only() -> Self {
        let mut ranges = [None; SUPPORTED_VERSIONS.len()];
        ranges[0] = Some((API_VERSIONS_VERSION, API_VERSIONS_VERSION));
        Self { ranges }
    }

    pub(crate) fn from_response(response: &ApiVersionsResponse) -> Self {
        let mut versions = Self::api_versions_only();
        for (range, supported) in versions.ranges.iter_mut().zip(&SUPPORTED_VERSIONS).skip(1) {
            *range = response
                .api_keys
                .iter()
                .find(|api| api.api_key == supported.key)
                .map(|api| (api.min_version, api.max_version));
        }
        versions
    }

    /// Returns the highest version that this client, the broker and `kafka-protocol` support.
    ///
    /// # Errors
    /// [`KafkaError::Version`] if there is none.
    pub(crate) fn negotiate<R: KafkaRequest>(
        &self,
        address: &BrokerAddress,
    ) -> Result<i16, KafkaError> {
        let Some(index) = SUPPORTED_VERSIONS.iter().position(|api| api.key == R::KEY) else {
            return Err(KafkaError::Request {
                api: "request",
                reason: format!("API key {} has no supported version", R::KEY),
            });
        };
        let supported = &SUPPORTED_VERSIONS[index];
        let broker = self.ranges[index];
        let crate_range = R::VERSIONS.intersect(&<R::Response as Message>::VERSIONS);
        let (broker_min, broker_max) = broker.unwrap_or((0, -1));
        let min = supported.min.max(broker_min).max(crate_range.min);
        let max = supported.max.min(broker_max).min(crate_range.max);
        if min > max {
            return Err(KafkaError::Version {
                address: address.clone(),
                api: supported.name,
                client: (supported.min, supported.max),
                broker,
            });
        }
        Ok(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::api_versions_response::ApiVersion;

    fn address() -> BrokerAddress {
        BrokerAddress { host: "b".to_owned(), port: 1 }
    }

    fn broker(key: ApiKey, min: i16, max: i16) -> BrokerVersions {
        let api = ApiVersion::default()
            .with_api_key(key as i16)
            .with_min_version(min)
            .with_max_version(max);
        BrokerVersions::from_response(&ApiVersionsResponse::default().with_api_keys(vec![api]))
    }

    #[test]
    fn highest_common_version_is_negotiated() {
        let old = broker(ApiKey::Produce, 0, 11);
        assert_eq!(old.negotiate::<ProduceRequest>(&address()).unwrap(), 11);
        let new = broker(ApiKey::Produce, 0, 99);
        assert_eq!(new.negotiate::<ProduceRequest>(&address()).unwrap(), 12);
    }

    #[test]
    fn no_common_version_names_request_and_both_ranges() {
        let error = broker(ApiKey::Fetch, 0, 11).negotiate::<FetchRequest>(&address()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "b:1 is too old or too new: the client supports Fetch versions 13 to 13, the broker 0 to 11"
        );
        let error =
            broker(ApiKey::Fetch, 0, 11).negotiate::<ProduceRequest>(&address()).unwrap_err();
        assert!(error.to_string().ends_with("the broker none"), "{error}");
    }

    #[test]
    fn supported_versions_are_within_kafka_protocol() {
        fn check<R: KafkaRequest>() {
            let supported = SUPPORTED_VERSIONS.iter().find(|api| api.key == R::KEY).unwrap();
            let range = R::VERSIONS.intersect(&<R::Response as Message>::VERSIONS);
            assert!(
                range.min <= supported.min && supported.max <= range.max,
                "{}: {range}",
                supported.name
            );
        }
        check::<ApiVersionsRequest>();
        check::<MetadataRequest>();
        check::<ProduceRequest>();
        check::<FetchRequest>();
        check::<ListOffsetsRequest>();
        check::<OffsetCommitRequest>();
        check::<OffsetFetchRequest>();
        check::<FindCoordinatorRequest>();
        check::<CreateTopicsRequest>();
        check::<DeleteTopicsRequest>();
        check::<OffsetForLeaderEpochRequest>();
        check::<InitProducerIdRequest>();
        check::<SaslHandshakeRequest>();
        check::<SaslAuthenticateRequest>();
    }
}
