//! Produce requests whose response is lost, cut, late or an error, on scripted brokers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_client::*;
use kafka_protocol::messages::ApiKey;

use crate::scripted_broker::{ReceivedRequest, ScriptedBroker, ScriptedReply, identity};
use crate::support::batch;

/// A broker that answers all requests correctly, except that `reply` answers Produce. Its first
/// argument is the number of earlier Produce requests.
fn broker(
    mut reply: impl FnMut(usize, &ReceivedRequest) -> ScriptedReply + Send + 'static,
) -> ScriptedBroker {
    let mut count = 0;
    ScriptedBroker::start(move |request| {
        if request.key != ApiKey::Produce {
            return ScriptedReply::Answer(request.good_answer());
        }
        count += 1;
        reply(count - 1, request)
    })
}

fn producer(broker: &ScriptedBroker) -> KafkaProducer {
    KafkaProducer::new(Arc::new(broker.settings()), ProducerOptions::default())
}

fn single(outcomes: Vec<(String, ProduceOutcome)>) -> ProduceOutcome {
    let [(_, outcome)] = <[_; 1]>::try_from(outcomes).unwrap();
    outcome
}

#[test]
fn batch_is_sent_again_byte_for_byte_and_a_duplicate_is_delivered() {
    let broker = broker(|n, request| match n {
        0 => ScriptedReply::Close,
        1 => ScriptedReply::Answer(request.produce_answer(46)),
        _ => ScriptedReply::Answer(request.produce_answer(0)),
    });
    let mut producer = producer(&broker);
    let outcome = single(producer.send(vec![batch("t", &["a", "b"])], None));
    let ProduceOutcome::Pending { reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.is_retryable(), "{reason}");
    assert!(producer.is_pending("t"));
    // A second batch has to wait while the first is pending.
    let outcomes = producer.send(vec![batch("t", &["c"])], None);
    assert!(matches!(&outcomes[0].1, ProduceOutcome::Busy { records } if records.len() == 1));
    assert!(matches!(outcomes[1].1, ProduceOutcome::Delivered { records: 2, base_offset: None }));
    let outcome = single(producer.send(vec![batch("t", &["c"])], None));
    assert!(matches!(outcome, ProduceOutcome::Delivered { records: 1, base_offset: Some(5) }));
    let batches = broker.batches("t");
    assert_eq!(batches[0], batches[1]);
    assert_eq!(identity(&batches[2]), (identity(&batches[0]).0, 2));
    drop(producer);
    broker.stop();
}

#[test]
fn response_cut_at_any_byte_leaves_the_batch_pending() {
    let mut cut = 0;
    let broker = broker(move |n, request| {
        let frame = request.frame(&request.produce_answer(0));
        // For each batch: a response cut one byte later than for the batch before, then a complete
        // one.
        if n % 2 == 0 && cut < frame.len() {
            cut += 1;
            return ScriptedReply::Raw(frame[..cut - 1].to_vec());
        }
        ScriptedReply::Answer(request.produce_answer(0))
    });
    let mut producer = producer(&broker);
    let mut cuts = 0;
    for n in 0_i32.. {
        let mut outcome = single(producer.send(vec![batch("t", &["a"])], None));
        if let ProduceOutcome::Pending { reason } = outcome {
            assert!(matches!(reason, KafkaError::Disconnected { .. }), "{reason}");
            cuts += 1;
            outcome = single(producer.send(vec![], None));
        } else {
            assert!(cuts > 50, "{cuts}");
            break;
        }
        assert!(matches!(outcome, ProduceOutcome::Delivered { records: 1, .. }), "{n} {outcome:?}");
        let batches = broker.batches("t");
        let [.., first, second] = &batches[..] else { panic!() };
        assert_eq!(first, second);
        assert_eq!(identity(second).1, n);
    }
    drop(producer);
    broker.stop();
}

#[test]
fn refused_sequence_starts_again_with_a_new_producer_id() {
    for code in [45, 59] {
        let broker = broker(move |n, request| {
            ScriptedReply::Answer(request.produce_answer(if n == 1 { code } else { 0 }))
        });
        let mut producer = producer(&broker);
        assert!(matches!(
            single(producer.send(vec![batch("t", &["a"])], None)),
            ProduceOutcome::Delivered { .. }
        ));
        assert!(matches!(
            single(producer.send(vec![batch("t", &["b"])], None)),
            ProduceOutcome::Pending { .. }
        ));
        assert!(matches!(single(producer.send(vec![], None)), ProduceOutcome::Delivered { .. }));
        let batches = broker.batches("t");
        let (first, last) = (identity(&batches[1]), identity(&batches[2]));
        assert_eq!((first.1, last.1), (1, 0));
        assert_ne!(first.0, last.0);
        drop(producer);
        broker.stop();
    }
}

#[test]
fn refused_batch_is_lost_and_its_sequence_is_used_again() {
    let broker = broker(|_, request| ScriptedReply::Answer(request.produce_answer(17)));
    let mut producer = producer(&broker);
    for _ in 0..2 {
        let outcome = single(producer.send(vec![batch("t", &["a"])], None));
        let ProduceOutcome::Lost { cause, maybe_delivered: false, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(cause.to_string(), "Produce topic t: invalid topic exception");
    }
    // The sequence of a batch that is not in the log is used again.
    let sequences: Vec<_> = broker.batches("t").iter().map(|batch| identity(batch).1).collect();
    assert_eq!(sequences, [0, 0]);
    drop(producer);
    broker.stop();
}

#[test]
fn refusal_after_a_lost_response_needs_a_new_producer_id() {
    let broker = broker(|n, request| match n {
        0 => ScriptedReply::Close,
        1 => ScriptedReply::Answer(request.produce_answer(17)),
        _ => ScriptedReply::Answer(request.produce_answer(0)),
    });
    let mut producer = producer(&broker);
    assert!(matches!(
        single(producer.send(vec![batch("t", &["a"])], None)),
        ProduceOutcome::Pending { .. }
    ));
    let outcome = single(producer.send(vec![], None));
    assert!(matches!(outcome, ProduceOutcome::Lost { maybe_delivered: true, .. }), "{outcome:?}");
    assert!(matches!(
        single(producer.send(vec![batch("t", &["b"])], None)),
        ProduceOutcome::Delivered { .. }
    ));
    // With the same id, a broker that has the first batch would treat this batch as a duplicate,
    // and acknowledge it although it is in no log.
    let batches = broker.batches("t");
    let (first, last) = (identity(&batches[0]), identity(&batches[2]));
    assert_eq!((first.1, last.1), (0, 0));
    assert_ne!(first.0, last.0);
    drop(producer);
    broker.stop();
}

#[test]
fn request_ends_at_its_timeout() {
    for silent in [true, false] {
        let broker = broker(move |_, request| {
            if silent {
                ScriptedReply::Silence
            } else {
                ScriptedReply::Dribble(request.produce_answer(0), 40)
            }
        });
        let mut settings = broker.settings();
        settings.request_timeout_ms = 500;
        let mut producer = KafkaProducer::new(Arc::new(settings), ProducerOptions::default());
        let start = Instant::now();
        let mut outcomes = producer.send(vec![batch("t", &["a"])], None);
        while outcomes.is_empty() {
            assert!(producer.is_pending("t"));
            outcomes = producer.send(vec![], None);
        }
        let outcome = single(outcomes);
        let ProduceOutcome::Pending { reason } = outcome else { panic!("{outcome:?}") };
        assert!(matches!(reason, KafkaError::Timeout { api: "Produce", .. }), "{reason}");
        let took = start.elapsed();
        // A loaded machine is late, but by less than another time-out.
        assert!(took >= Duration::from_millis(490) && took < Duration::from_secs(2), "{took:?}");
        drop(producer);
        broker.stop();
    }
}

#[test]
fn silent_broker_delays_only_its_own_topics() {
    let silent = broker(|_, _| ScriptedReply::Silence);
    let silent_port = silent.port;
    let good = ScriptedBroker::start(move |request| match request.key {
        ApiKey::Metadata => ScriptedReply::Answer(request.metadata(&|topic| {
            if topic == "silent" { silent_port } else { request.port }
        })),
        _ => ScriptedReply::Answer(request.good_answer()),
    });
    let mut settings = good.settings();
    settings.request_timeout_ms = 20_000;
    let mut producer = KafkaProducer::new(Arc::new(settings), ProducerOptions::default());
    let start = Instant::now();
    let mut offered = vec![batch("silent", &["a"])];
    for _ in 0..5 {
        offered.push(batch("good", &["a"]));
        let outcomes = producer.send(std::mem::take(&mut offered), None);
        assert!(
            matches!(&outcomes[..], [(topic, ProduceOutcome::Delivered { .. })] if topic == "good"),
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
fn round_ends_at_the_given_deadline() {
    let broker = ScriptedBroker::start(|_| ScriptedReply::Silence);
    let mut producer = producer(&broker);
    let start = Instant::now();
    let deadline = Some(start + Duration::from_millis(100));
    let outcome = single(producer.send(vec![batch("t", &["a"])], deadline));
    assert!(matches!(outcome, ProduceOutcome::Pending { .. }), "{outcome:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    drop(producer);
    broker.stop();
}

#[test]
fn password_is_not_sent_in_plain_text_to_another_machine() {
    let broker = ScriptedBroker::start(|request| match request.key {
        ApiKey::SaslHandshake => ScriptedReply::Answer(vec![0; 6]),
        ApiKey::SaslAuthenticate => {
            ScriptedReply::Answer(vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        _ => ScriptedReply::Answer(request.good_answer_as_host("kafka.invalid")),
    });
    let mut settings = broker.settings();
    settings.sasl = Some(Sasl {
        mechanism: SaslMechanism::Plain,
        username: "u".to_owned(),
        password: common::secret::Secret::new("p"),
    });
    let mut producer = KafkaProducer::new(Arc::new(settings), ProducerOptions::default());
    let outcome = single(producer.send(vec![batch("t", &["a"])], None));
    let ProduceOutcome::Pending { reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.to_string().ends_with("in plain text: expected TLS"), "{reason}");
    drop(producer);
    broker.stop();
}
