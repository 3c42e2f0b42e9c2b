//! Connections that break at any byte, answers that never come, and answers
//! that are not ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_client::*;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{ApiKey, FetchResponse};

use crate::scripted::{Broker, Reply, Request, api_versions, encoded, identity};
use crate::support::batch;

/// A broker that is good at all but Produce, where `reply` decides by how many
/// of them came before.
fn broker(mut reply: impl FnMut(usize, &Request) -> Reply + Send + 'static) -> Broker {
    let mut count = 0;
    Broker::start(move |request| {
        if request.key != ApiKey::Produce {
            return Reply::Answer(request.good_answer());
        }
        count += 1;
        reply(count - 1, request)
    })
}

fn producer(broker: &Broker) -> Producer {
    Producer::new(Arc::new(broker.settings()), ProducerOptions::default())
}

/// Where nobody listens any more.
fn dead() -> Address {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    Address { host: "127.0.0.1".to_owned(), port: gone.local_addr().unwrap().port() }
}

fn one(outcomes: Vec<(String, Outcome)>) -> Outcome {
    let [(_, outcome)] = <[_; 1]>::try_from(outcomes).unwrap();
    outcome
}

#[test]
fn a_lost_answer_is_asked_for_again_byte_for_byte_and_a_duplicate_is_delivered() {
    let broker = broker(|n, request| match n {
        0 => Reply::Close,
        1 => Reply::Answer(request.produced(46)),
        _ => Reply::Answer(request.produced(0)),
    });
    let mut producer = producer(&broker);
    let outcome = one(producer.send(vec![batch("t", &["a", "b"])], None));
    let Outcome::Pending { reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.is_retryable(), "{reason}");
    assert!(producer.is_pending("t"));
    // While it is in doubt the next one has to wait.
    let outcomes = producer.send(vec![batch("t", &["c"])], None);
    assert!(matches!(&outcomes[0].1, Outcome::Busy { records } if records.len() == 1));
    assert!(matches!(outcomes[1].1, Outcome::Delivered { records: 2, base_offset: None }));
    let outcome = one(producer.send(vec![batch("t", &["c"])], None));
    assert!(matches!(outcome, Outcome::Delivered { records: 1, base_offset: Some(5) }));
    let batches = broker.batches("t");
    assert_eq!(batches[0], batches[1]);
    assert_eq!(identity(&batches[2]), (identity(&batches[0]).0, 2));
    drop(producer);
    broker.stop();
}

#[test]
fn an_answer_cut_at_every_byte_leaves_the_batch_in_doubt_and_nothing_else() {
    let mut cut = 0;
    let broker = broker(move |n, request| {
        let frame = request.frame(&request.produced(0));
        // Each batch: its answer cut one byte later than the last one's, then whole.
        if n % 2 == 0 && cut < frame.len() {
            cut += 1;
            return Reply::Raw(frame[..cut - 1].to_vec());
        }
        Reply::Answer(request.produced(0))
    });
    let mut producer = producer(&broker);
    let mut cuts = 0;
    for n in 0_i32.. {
        let mut outcome = one(producer.send(vec![batch("t", &["a"])], None));
        if let Outcome::Pending { reason } = outcome {
            assert!(matches!(reason, Error::Disconnected { .. }), "{reason}");
            cuts += 1;
            outcome = one(producer.send(vec![], None));
        } else {
            assert!(cuts > 50, "{cuts}");
            break;
        }
        assert!(matches!(outcome, Outcome::Delivered { records: 1, .. }), "{n} {outcome:?}");
        let batches = broker.batches("t");
        let [.., first, second] = &batches[..] else { panic!() };
        assert_eq!(first, second);
        assert_eq!(identity(second).1, n);
    }
    drop(producer);
    broker.stop();
}

#[test]
fn a_sequence_that_the_broker_does_not_go_on_from_starts_again_under_a_new_id() {
    for code in [45, 59] {
        let broker = broker(move |n, request| {
            Reply::Answer(request.produced(if n == 1 { code } else { 0 }))
        });
        let mut producer = producer(&broker);
        assert!(matches!(
            one(producer.send(vec![batch("t", &["a"])], None)),
            Outcome::Delivered { .. }
        ));
        assert!(matches!(
            one(producer.send(vec![batch("t", &["b"])], None)),
            Outcome::Pending { .. }
        ));
        assert!(matches!(one(producer.send(vec![], None)), Outcome::Delivered { .. }));
        let batches = broker.batches("t");
        let (first, last) = (identity(&batches[1]), identity(&batches[2]));
        assert_eq!((first.1, last.1), (1, 0));
        assert_ne!(first.0, last.0);
        drop(producer);
        broker.stop();
    }
}

#[test]
fn a_topic_that_is_refused_loses_its_batch_and_no_other() {
    let broker = broker(|_, request| Reply::Answer(request.produced(29)));
    let mut producer = producer(&broker);
    for _ in 0..2 {
        let outcome = one(producer.send(vec![batch("t", &["a"])], None));
        let Outcome::Lost { records: 1, cause, maybe_delivered: false } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(cause.to_string(), "Produce topic t: topic authorization failed");
    }
    // The numbers of what is not in the log are used again.
    let sequences: Vec<_> = broker.batches("t").iter().map(|batch| identity(batch).1).collect();
    assert_eq!(sequences, [0, 0]);
    drop(producer);
    broker.stop();
}

#[test]
fn a_refusal_after_a_lost_answer_does_not_begin_again_under_the_same_id() {
    let broker = broker(|n, request| match n {
        0 => Reply::Close,
        1 => Reply::Answer(request.produced(29)),
        _ => Reply::Answer(request.produced(0)),
    });
    let mut producer = producer(&broker);
    assert!(matches!(one(producer.send(vec![batch("t", &["a"])], None)), Outcome::Pending { .. }));
    let outcome = one(producer.send(vec![], None));
    assert!(matches!(outcome, Outcome::Lost { maybe_delivered: true, .. }), "{outcome:?}");
    assert!(matches!(
        one(producer.send(vec![batch("t", &["b"])], None)),
        Outcome::Delivered { .. }
    ));
    // Else a broker that has the first one takes this for the same once more, and
    // what is said to be delivered is nowhere.
    let batches = broker.batches("t");
    let (first, last) = (identity(&batches[0]), identity(&batches[2]));
    assert_eq!((first.1, last.1), (0, 0));
    assert_ne!(first.0, last.0);
    drop(producer);
    broker.stop();
}

#[test]
fn a_request_ends_in_time_whatever_the_broker_does() {
    for silent in [true, false] {
        let broker =
            broker(
                move |_, request| {
                    if silent { Reply::Silence } else { Reply::Dribble(request.produced(0), 40) }
                },
            );
        let mut settings = broker.settings();
        settings.request_timeout_ms = 500;
        let mut producer = Producer::new(Arc::new(settings), ProducerOptions::default());
        let start = Instant::now();
        let mut outcomes = producer.send(vec![batch("t", &["a"])], None);
        while outcomes.is_empty() {
            assert!(producer.is_pending("t"));
            outcomes = producer.send(vec![], None);
        }
        let outcome = one(outcomes);
        let Outcome::Pending { reason } = outcome else { panic!("{outcome:?}") };
        assert!(matches!(reason, Error::Timeout { api: "Produce", .. }), "{reason}");
        let took = start.elapsed();
        // A machine under load is late, but not by another time-out's length.
        assert!(took >= Duration::from_millis(490) && took < Duration::from_secs(2), "{took:?}");
        drop(producer);
        broker.stop();
    }
}

#[test]
fn a_broker_that_keeps_silent_holds_up_its_own_topics_alone() {
    let silent = broker(|_, _| Reply::Silence);
    let silent_port = silent.port;
    let good = Broker::start(move |request| match request.key {
        ApiKey::Metadata => Reply::Answer(request.metadata(&|topic| {
            if topic == "silent" { silent_port } else { request.port }
        })),
        _ => Reply::Answer(request.good_answer()),
    });
    let mut settings = good.settings();
    settings.request_timeout_ms = 20_000;
    let mut producer = Producer::new(Arc::new(settings), ProducerOptions::default());
    let start = Instant::now();
    let mut offered = vec![batch("silent", &["a"])];
    for _ in 0..5 {
        offered.push(batch("good", &["a"]));
        let outcomes = producer.send(std::mem::take(&mut offered), None);
        assert!(
            matches!(&outcomes[..], [(topic, Outcome::Delivered { .. })] if topic == "good"),
            "{outcomes:?}"
        );
    }
    assert!(producer.is_pending("silent"));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(silent.batches("silent").len(), 1);
    drop(producer);
    good.stop();
    silent.stop();
}

#[test]
fn a_round_ends_by_the_deadline_that_is_given() {
    let broker = Broker::start(|_| Reply::Silence);
    let mut producer = producer(&broker);
    let start = Instant::now();
    let deadline = Some(start + Duration::from_millis(100));
    let outcome = one(producer.send(vec![batch("t", &["a"])], deadline));
    assert!(matches!(outcome, Outcome::Pending { .. }), "{outcome:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    drop(producer);
    broker.stop();
}

#[test]
fn a_sasl_session_is_left_before_its_end() {
    let broker = Broker::start(|request| match request.key {
        ApiKey::SaslHandshake => Reply::Answer(vec![0; 6]),
        // No error, no message, no bytes, and a session of so many milliseconds.
        ApiKey::SaslAuthenticate => {
            let mut answer = vec![0, 0, 0, 1];
            answer.extend(200_i64.to_be_bytes());
            answer.push(0);
            Reply::Answer(answer)
        }
        _ => Reply::Answer(request.good_answer()),
    });
    let mut settings = broker.settings();
    settings.sasl = Some(Sasl {
        mechanism: Mechanism::Plain,
        username: "u".to_owned(),
        password: common::secret::Secret::new("p"),
    });
    let mut client = Client::new(Arc::new(settings));
    client.topics(&[]).unwrap();
    let first = broker.seen(ApiKey::SaslAuthenticate).len();
    std::thread::sleep(Duration::from_millis(200));
    client.topics(&[]).unwrap();
    assert_eq!((first, broker.seen(ApiKey::SaslAuthenticate).len()), (1, 2));
    drop(client);
    broker.stop();
}

/// Fetch of one empty partition, or with an error.
fn fetched(request: &Request, code: i16) -> Vec<u8> {
    let data = PartitionData::default().with_error_code(code);
    let topic = FetchableTopicResponse::default()
        .with_topic_id(Uuid::from_u128(7))
        .with_partitions(vec![data]);
    encoded(&FetchResponse::default().with_responses(vec![topic]), request)
}

#[test]
fn a_refused_partition_leaves_the_answers_of_other_brokers_alone() {
    // What is refused and what is good stands on either broker in turn, as the
    // order in which brokers are asked is that of their ports.
    for refused_is_bootstrap in [true, false] {
        let code = |refused: bool| if refused { 100 } else { 0 };
        let other = Broker::start(move |request| {
            Reply::Answer(match request.key {
                ApiKey::Fetch => fetched(request, code(!refused_is_bootstrap)),
                _ => request.good_answer(),
            })
        });
        let other_port = other.port;
        let bootstrap = Broker::start(move |request| {
            Reply::Answer(match request.key {
                ApiKey::Fetch => fetched(request, code(refused_is_bootstrap)),
                ApiKey::Metadata => request.metadata(&|topic| {
                    if topic == "other" { other_port } else { request.port }
                }),
                _ => request.good_answer(),
            })
        });
        // One that is gone comes first, so that the turn moves on.
        for gone in [0, 1] {
            let mut settings = bootstrap.settings();
            settings.bootstrap.splice(0..0, std::iter::repeat_n(dead(), gone));
            let mut client = Client::new(Arc::new(settings));
            let positions = ["mine", "other"].map(|topic| FetchPosition {
                topic,
                topic_id: Uuid::from_u128(7),
                partition: 0,
                offset: 0,
            });
            let start = Instant::now();
            let results = client.fetch_partitions(&positions, &FetchLimits::default());
            let [mine, theirs] = <[_; 2]>::try_from(results).unwrap();
            let (good, bad) = if refused_is_bootstrap { (theirs, mine) } else { (mine, theirs) };
            assert!(good.is_ok(), "{good:?}");
            assert!(matches!(bad, Err(Error::Broker { api: "Fetch", .. })), "{bad:?}");
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        }
        other.stop();
        bootstrap.stop();
    }
}

#[test]
fn a_password_goes_in_plain_text_to_no_machine_that_a_broker_tells_of() {
    let broker = Broker::start(|request| match request.key {
        ApiKey::SaslHandshake => Reply::Answer(vec![0; 6]),
        ApiKey::SaslAuthenticate => Reply::Answer(vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        _ => Reply::Answer(request.good_answer_of("kafka.invalid")),
    });
    let mut settings = broker.settings();
    settings.sasl = Some(Sasl {
        mechanism: Mechanism::Plain,
        username: "u".to_owned(),
        password: common::secret::Secret::new("p"),
    });
    let mut producer = Producer::new(Arc::new(settings), ProducerOptions::default());
    let outcome = one(producer.send(vec![batch("t", &["a"])], None));
    let Outcome::Pending { reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.to_string().ends_with("in plain text; expected TLS"), "{reason}");
    drop(producer);
    broker.stop();
}

#[test]
fn no_connection_is_begun_after_the_cutoff() {
    let broker = broker(|_, request| Reply::Answer(request.produced(0)));
    let (stopper, stop) = common::stop::pair();
    let mut settings = broker.settings();
    settings.cutoff = Some(common::stop::Cutoff::new(stop, Duration::ZERO));
    drop(stopper);
    let error = Client::new(Arc::new(settings)).topics(&[]).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    broker.stop();
}

#[test]
fn a_broker_that_takes_connections_and_says_nothing_ends_in_time() {
    let broker = Broker::start(|_| Reply::Silence);
    let mut settings = broker.settings();
    settings.connect_timeout_ms = 300;
    settings.request_timeout_ms = 200;
    let start = Instant::now();
    let mut client = Client::new(Arc::new(settings));
    let error = client.topics(&[]).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    drop(client);
    broker.stop();
}

#[test]
fn what_is_not_an_answer_closes_the_connection() {
    type Lie = fn(&Request) -> Vec<u8>;
    let lies: [(Lie, &str); 6] = [
        (|_| vec![0x7f, 0xff, 0xff, 0xff], "a frame that says it has 2147483647 bytes"),
        (|_| vec![0xff; 8], "a frame that says it has -1 bytes"),
        (|_| vec![0x15, 3, 3, 0, 2, 2, 80], "a TLS alert to plain text; is it a TLS port"),
        (|_| b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "a frame that says it has 1213486160 bytes"),
        (
            |request| {
                let mut other = request.clone();
                other.correlation_id += 1;
                other.frame(&request.good_answer())
            },
            "it belongs to request 2, not to 1",
        ),
        (
            |request| request.frame(&[&request.good_answer()[..], &[0; 3]].concat()),
            "3 bytes too many",
        ),
    ];
    for (lie, expected) in lies {
        let mut first = true;
        let broker = Broker::start(move |request| {
            if std::mem::take(&mut first) {
                Reply::Raw(lie(request))
            } else {
                Reply::Answer(request.good_answer())
            }
        });
        let mut client = Client::new(Arc::new(broker.settings()));
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
fn a_broker_too_old_is_said_to_be_so() {
    let broker = Broker::start(|request| match request.key {
        ApiKey::ApiVersions => Reply::Answer(api_versions(&[(ApiKey::Metadata, 0, 9)], 3)),
        _ => Reply::Close,
    });
    let mut client = Client::new(Arc::new(broker.settings()));
    let text = client.topics(&[]).unwrap_err().to_string();
    let expected =
        "is too old or too new: Metadata is spoken here in version 12 to 12, there in 0 to 9";
    assert!(text.ends_with(expected), "{text}");
    drop(client);
    broker.stop();

    let broker = Broker::start(|_| Reply::Answer(vec![0, 35, 0, 0, 0, 0]));
    let mut client = Client::new(Arc::new(broker.settings()));
    let text = client.topics(&[]).unwrap_err().to_string();
    assert!(text.ends_with("Kafka 3.1 or newer is needed"), "{text}");
    drop(client);
    broker.stop();
}

#[test]
fn the_next_bootstrap_broker_is_asked_when_one_is_gone() {
    let broker = broker(|_, request| Reply::Answer(request.produced(0)));
    let mut settings = broker.settings();
    settings.bootstrap.insert(0, dead());
    let mut client = Client::new(Arc::new(settings));
    client.topics(&[]).unwrap();
    drop(client);
    broker.stop();
}
