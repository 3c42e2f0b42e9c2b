//! Connections that fail and responses that are not valid, on scripted brokers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_client::*;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{ApiKey, FetchResponse};

use crate::scripted_broker::{
    ReceivedRequest, ScriptedBroker, ScriptedReply, api_versions, encoded,
};

/// An address where nobody listens.
fn closed_address() -> BrokerAddress {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    BrokerAddress { host: "127.0.0.1".to_owned(), port: gone.local_addr().unwrap().port() }
}

#[test]
fn connection_is_replaced_before_its_sasl_session_ends() {
    let broker = ScriptedBroker::start(|request| match request.key {
        ApiKey::SaslHandshake => ScriptedReply::Answer(vec![0; 6]),
        // No error, no message, no bytes, and a session lifetime in milliseconds.
        ApiKey::SaslAuthenticate => {
            let mut answer = vec![0, 0, 0, 1];
            answer.extend(200_i64.to_be_bytes());
            answer.push(0);
            ScriptedReply::Answer(answer)
        }
        _ => ScriptedReply::Answer(request.good_answer()),
    });
    let mut settings = broker.settings();
    settings.sasl = Some(Sasl {
        mechanism: SaslMechanism::Plain,
        username: "u".to_owned(),
        password: common::secret::Secret::new("p"),
    });
    let mut client = KafkaClient::new(Arc::new(settings));
    client.topics(&[]).unwrap();
    let first = broker.seen(ApiKey::SaslAuthenticate).len();
    std::thread::sleep(Duration::from_millis(200));
    client.topics(&[]).unwrap();
    assert_eq!((first, broker.seen(ApiKey::SaslAuthenticate).len()), (1, 2));
    drop(client);
    broker.stop();
}

/// A Fetch response with one empty partition and an error code.
fn fetch_answer(request: &ReceivedRequest, code: i16) -> Vec<u8> {
    let data = PartitionData::default().with_error_code(code);
    let topic = FetchableTopicResponse::default()
        .with_topic_id(Uuid::from_u128(7))
        .with_partitions(vec![data]);
    encoded(&FetchResponse::default().with_responses(vec![topic]), request)
}

#[test]
fn refused_partition_does_not_disturb_other_brokers() {
    // Requests are sent in the order of the ports, so either broker refuses in turn.
    for refused_is_bootstrap in [true, false] {
        let code = |refused: bool| if refused { 100 } else { 0 };
        let other = ScriptedBroker::start(move |request| {
            ScriptedReply::Answer(match request.key {
                ApiKey::Fetch => fetch_answer(request, code(!refused_is_bootstrap)),
                _ => request.good_answer(),
            })
        });
        let other_port = other.port;
        let bootstrap = ScriptedBroker::start(move |request| {
            ScriptedReply::Answer(match request.key {
                ApiKey::Fetch => fetch_answer(request, code(refused_is_bootstrap)),
                ApiKey::Metadata => request.metadata(&|topic| {
                    if topic == "other" { other_port } else { request.port }
                }),
                _ => request.good_answer(),
            })
        });
        // A closed address first makes the client start with another broker.
        for gone in [0, 1] {
            let mut settings = bootstrap.settings();
            settings.bootstrap.splice(0..0, std::iter::repeat_n(closed_address(), gone));
            let mut client = KafkaClient::new(Arc::new(settings));
            let positions = ["of_bootstrap", "other"].map(|topic| FetchPosition {
                topic,
                topic_id: Uuid::from_u128(7),
                partition: 0,
                offset: 0,
                leader_epoch: None,
            });
            let start = Instant::now();
            let results = client.fetch_partitions(&positions, &FetchLimits::default());
            let [of_bootstrap, of_other] = <[_; 2]>::try_from(results).unwrap();
            let (good, bad) = if refused_is_bootstrap {
                (of_other, of_bootstrap)
            } else {
                (of_bootstrap, of_other)
            };
            assert!(good.is_ok(), "{good:?}");
            assert!(matches!(bad, Err(KafkaError::Broker { api: "Fetch", .. })), "{bad:?}");
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        }
        other.stop();
        bootstrap.stop();
    }
}

#[test]
fn no_connection_is_opened_after_the_cutoff() {
    let broker = ScriptedBroker::start(|request| ScriptedReply::Answer(request.good_answer()));
    let (stopper, stop) = common::stop::pair();
    let mut settings = broker.settings();
    settings.cutoff = Some(common::stop::Cutoff::new(stop, Duration::ZERO));
    drop(stopper);
    let error = KafkaClient::new(Arc::new(settings)).topics(&[]).unwrap_err();
    assert!(matches!(error, KafkaError::Connect { .. }), "{error}");
    broker.stop();
}

#[test]
fn silent_broker_ends_at_the_timeout() {
    let broker = ScriptedBroker::start(|_| ScriptedReply::Silence);
    let mut settings = broker.settings();
    settings.connect_timeout_ms = 300;
    settings.request_timeout_ms = 200;
    let start = Instant::now();
    let mut client = KafkaClient::new(Arc::new(settings));
    let error = client.topics(&[]).unwrap_err();
    assert!(matches!(error, KafkaError::Timeout { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    drop(client);
    broker.stop();
}

#[test]
fn invalid_response_closes_the_connection() {
    type Invalid = fn(&ReceivedRequest) -> Vec<u8>;
    let cases: [(Invalid, &str); 6] = [
        (|_| vec![0x7f, 0xff, 0xff, 0xff], "a frame with a length of 2147483647 bytes"),
        (|_| vec![0xff; 8], "a frame with a length of -1 bytes"),
        (|_| vec![0x15, 3, 3, 0, 2, 2, 80], "a TLS alert: is it a TLS port?"),
        (|_| b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "a frame with a length of 1213486160 bytes"),
        (
            |request| {
                let mut other = request.clone();
                other.correlation_id += 1;
                other.frame(&request.good_answer())
            },
            "the response belongs to request 2, not to request 1",
        ),
        (
            |request| request.frame(&[&request.good_answer()[..], &[0; 3]].concat()),
            "3 bytes after the response",
        ),
    ];
    for (answer, expected) in cases {
        let mut first = true;
        let broker = ScriptedBroker::start(move |request| {
            if std::mem::take(&mut first) {
                ScriptedReply::Raw(answer(request))
            } else {
                ScriptedReply::Answer(request.good_answer())
            }
        });
        let mut client = KafkaClient::new(Arc::new(broker.settings()));
        let error = client.topics(&[]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("not an answer of Kafka") && text.ends_with(expected), "{text}");
        assert!(error.is_retryable());
        client.topics(&[]).unwrap();
        drop(client);
        broker.stop();
    }
}

#[test]
fn broker_without_a_common_version_is_reported() {
    let broker = ScriptedBroker::start(|request| match request.key {
        ApiKey::ApiVersions => ScriptedReply::Answer(api_versions(&[(ApiKey::Metadata, 0, 9)], 3)),
        _ => ScriptedReply::Close,
    });
    let mut client = KafkaClient::new(Arc::new(broker.settings()));
    let text = client.topics(&[]).unwrap_err().to_string();
    let expected =
        "is too old or too new: the client supports Metadata versions 12 to 12, the broker 0 to 9";
    assert!(text.ends_with(expected), "{text}");
    drop(client);
    broker.stop();
}

#[test]
fn broker_without_api_versions_3_is_reported() {
    let broker = ScriptedBroker::start(|_| ScriptedReply::Answer(vec![0, 35, 0, 0, 0, 0]));
    let mut client = KafkaClient::new(Arc::new(broker.settings()));
    let text = client.topics(&[]).unwrap_err().to_string();
    assert!(text.ends_with("expected Kafka 3.1 or newer"), "{text}");
    drop(client);
    broker.stop();
}

#[test]
fn next_bootstrap_broker_is_used_if_one_is_down() {
    let broker = ScriptedBroker::start(|request| ScriptedReply::Answer(request.good_answer()));
    let mut settings = broker.settings();
    settings.bootstrap.insert(0, closed_address());
    let mut client = KafkaClient::new(Arc::new(settings));
    client.topics(&[]).unwrap();
    drop(client);
    broker.stop();
}

#[test]
fn clients_share_a_limit_of_connections() {
    let broker = ScriptedBroker::start(|request| ScriptedReply::Answer(request.good_answer()));
    let mut settings = broker.settings();
    settings.connections_max = Some(1);
    let settings = Arc::new(settings);
    let [mut first, mut second] = [(); 2].map(|()| KafkaClient::new(Arc::clone(&settings)));
    first.topics(&[]).unwrap();
    let error = second.topics(&[]).unwrap_err();
    assert!(matches!(error, KafkaError::TooManyConnections { max: Some(1), .. }), "{error}");
    assert!(error.is_retryable());
    first.disconnect();
    second.topics(&[]).unwrap();
    drop(second);
    first.topics(&[]).unwrap();
    drop(first);
    broker.stop();
}

/// A broker that answers on one connection and closes the next one has reached its limit. A broker
/// that closes the only connection has not.
#[test]
fn a_connection_that_is_closed_beside_an_open_one_is_above_a_limit() {
    let mut refuses = false;
    let broker = ScriptedBroker::start(move |request| {
        if request.key == ApiKey::ApiVersions && std::mem::replace(&mut refuses, true) {
            return ScriptedReply::Close;
        }
        ScriptedReply::Answer(request.good_answer())
    });
    let settings = Arc::new(broker.settings());
    let [mut first, mut second] = [(); 2].map(|()| KafkaClient::new(Arc::clone(&settings)));
    first.topics(&[]).unwrap();
    let error = second.topics(&[]).unwrap_err();
    assert!(matches!(error, KafkaError::TooManyConnections { max: None, .. }), "{error}");
    assert!(error.to_string().contains("max.connections.per.ip"), "{error}");
    first.disconnect();
    let error = second.topics(&[]).unwrap_err();
    assert!(matches!(error, KafkaError::Disconnected { .. }), "{error}");
    drop((first, second));
    broker.stop();
}

#[test]
fn an_advertised_name_that_does_not_resolve_is_said_to_be_the_brokers() {
    let broker = ScriptedBroker::start(|request| {
        ScriptedReply::Answer(match request.key {
            ApiKey::Metadata => request.metadata_with_host("advertised.invalid", &|_| request.port),
            _ => request.good_answer(),
        })
    });
    let mut client = KafkaClient::new(Arc::new(broker.settings()));
    let text = client.list_offset("topic", 0, LogEnd::Latest).unwrap_err().to_string();
    let expected = format!(
        "connect to advertised.invalid:{}: the name comes from advertised.listeners of the broker",
        broker.port
    );
    assert!(text.starts_with(&expected), "{text}");
    // A name of the settings is not the broker's.
    let bootstrap = BrokerAddress { host: "bootstrap.invalid".to_owned(), port: 9092 };
    let settings = KafkaSettings::new(vec![bootstrap], Security::Plain);
    let text = KafkaClient::new(Arc::new(settings)).topics(&[]).unwrap_err().to_string();
    assert!(!text.contains("advertised.listeners"), "{text}");
    drop(client);
    broker.stop();
}
