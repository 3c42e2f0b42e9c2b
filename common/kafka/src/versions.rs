//! Which version of each request is spoken, and how that is agreed on.

use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message};

use super::address::Address;
use super::error::Error;

/// A request that we send and its answer. The crate has such a trait only together
/// with the coders of a broker's side.
pub(crate) trait Call: Message + Encodable + HeaderVersion {
    /// Its number on the wire.
    const KEY: i16;
    /// What answers it.
    type Response: Message + Decodable + HeaderVersion;
}

macro_rules! calls {
    ($($key:ident: $request:ident => $response:ident,)*) => {
        $(impl Call for $request {
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
    InitProducerId: InitProducerIdRequest => InitProducerIdResponse,
    SaslHandshake: SaslHandshakeRequest => SaslHandshakeResponse,
    SaslAuthenticate: SaslAuthenticateRequest => SaslAuthenticateResponse,
}

/// The versions of a request that we know to be right.
///
/// The lower ends are the first flexible versions ([`super::guard`] rests on
/// that) and, for metadata and fetch, the first ones by topic id: Kafka 3.1.
/// The upper ends are what was tried on brokers from 3.9 to 4.4; neither the
/// broker's range nor the crate's is trusted alone, as a 4.x broker advertises
/// versions of Produce that it rejects.
struct Pin {
    key: i16,
    name: &'static str,
    min: i16,
    max: i16,
}

const fn pin(key: ApiKey, name: &'static str, min: i16, max: i16) -> Pin {
    Pin { key: key as i16, name, min, max }
}

/// The version of ApiVersions itself can't be agreed on before it is spoken.
pub(crate) const API_VERSIONS_VERSION: i16 = 3;

const PINS: [Pin; 13] = [
    pin(ApiKey::ApiVersions, "ApiVersions", API_VERSIONS_VERSION, API_VERSIONS_VERSION),
    pin(ApiKey::Metadata, "Metadata", 12, 12),
    pin(ApiKey::Produce, "Produce", 9, 12),
    pin(ApiKey::Fetch, "Fetch", 13, 13),
    pin(ApiKey::ListOffsets, "ListOffsets", 6, 7),
    pin(ApiKey::OffsetCommit, "OffsetCommit", 8, 8),
    pin(ApiKey::OffsetFetch, "OffsetFetch", 6, 7),
    pin(ApiKey::FindCoordinator, "FindCoordinator", 3, 3),
    pin(ApiKey::CreateTopics, "CreateTopics", 5, 7),
    pin(ApiKey::DeleteTopics, "DeleteTopics", 6, 6),
    pin(ApiKey::InitProducerId, "InitProducerId", 2, 4),
    // The one request without a flexible version; its answer is judged by hand.
    pin(ApiKey::SaslHandshake, "SaslHandshake", 1, 1),
    pin(ApiKey::SaslAuthenticate, "SaslAuthenticate", 2, 2),
];

/// The name of a request, for messages.
pub(crate) fn api_name(key: i16) -> &'static str {
    PINS.iter().find(|pin| pin.key == key).map_or("request", |pin| pin.name)
}

/// What one broker said of itself, reduced to the requests that we send.
#[derive(Debug, Clone)]
pub(crate) struct Versions {
    ranges: [Option<(i16, i16)>; PINS.len()],
}

impl Versions {
    /// Before the broker was asked: ApiVersions alone.
    pub(crate) fn unknown() -> Self {
        let mut ranges = [None; PINS.len()];
        ranges[0] = Some((API_VERSIONS_VERSION, API_VERSIONS_VERSION));
        Self { ranges }
    }

    pub(crate) fn from_response(response: &ApiVersionsResponse) -> Self {
        let mut versions = Self::unknown();
        for (range, pin) in versions.ranges.iter_mut().zip(&PINS).skip(1) {
            *range = response
                .api_keys
                .iter()
                .find(|api| api.api_key == pin.key)
                .map(|api| (api.min_version, api.max_version));
        }
        versions
    }

    /// The highest version in the meeting of our pin, the broker's range and
    /// what the crate encodes and decodes.
    ///
    /// # Errors
    /// [`Error::Version`] when they do not meet.
    pub(crate) fn of<R: Call>(&self, address: &Address) -> Result<i16, Error> {
        let Some(index) = PINS.iter().position(|pin| pin.key == R::KEY) else {
            return Err(Error::Request { api: "request", what: format!("{} has no pin", R::KEY) });
        };
        let pin = &PINS[index];
        let broker = self.ranges[index];
        let crate_range = R::VERSIONS.intersect(&<R::Response as Message>::VERSIONS);
        let (broker_min, broker_max) = broker.unwrap_or((0, -1));
        let min = pin.min.max(broker_min).max(crate_range.min);
        let max = pin.max.min(broker_max).min(crate_range.max);
        if min > max {
            return Err(Error::Version {
                address: address.clone(),
                api: pin.name,
                ours: (pin.min, pin.max),
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

    fn address() -> Address {
        Address { host: "b".to_owned(), port: 1 }
    }

    fn broker(key: ApiKey, min: i16, max: i16) -> Versions {
        let api = ApiVersion::default()
            .with_api_key(key as i16)
            .with_min_version(min)
            .with_max_version(max);
        Versions::from_response(&ApiVersionsResponse::default().with_api_keys(vec![api]))
    }

    #[test]
    fn the_highest_common_version_is_taken() {
        let old = broker(ApiKey::Produce, 0, 11);
        assert_eq!(old.of::<ProduceRequest>(&address()).unwrap(), 11);
        let new = broker(ApiKey::Produce, 0, 99);
        assert_eq!(new.of::<ProduceRequest>(&address()).unwrap(), 12);
    }

    #[test]
    fn an_empty_meeting_names_the_request_and_both_ranges() {
        let error = broker(ApiKey::Fetch, 0, 11).of::<FetchRequest>(&address()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "b:1 is too old or too new: Fetch is spoken here in version 13 to 13, there in 0 to 11"
        );
        let error = broker(ApiKey::Fetch, 0, 11).of::<ProduceRequest>(&address()).unwrap_err();
        assert!(error.to_string().ends_with("there in none"), "{error}");
    }

    #[test]
    fn every_pin_is_within_what_the_crate_speaks() {
        fn check<R: Call>() {
            let pin = PINS.iter().find(|pin| pin.key == R::KEY).unwrap();
            let spoken = R::VERSIONS.intersect(&<R::Response as Message>::VERSIONS);
            assert!(spoken.min <= pin.min && pin.max <= spoken.max, "{}: {spoken}", pin.name);
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
        check::<InitProducerIdRequest>();
        check::<SaslHandshakeRequest>();
        check::<SaslAuthenticateRequest>();
    }
}
