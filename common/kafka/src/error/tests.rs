use super::retryable::{ErrorClass, classify};
use super::*;

#[test]
fn broker_error_text_has_request_subject_code_and_message() {
    let error = KafkaError::from_code("Produce", "topic t", 29, Some("no\nway")).unwrap_err();
    assert_eq!(error.to_string(), "Produce topic t: topic authorization failed (no way)");
    assert!(!error.is_retryable());
    assert!(KafkaError::from_code("Produce", "topic t", 0, None).is_ok());
    let error = KafkaError::from_code("Fetch", "topic t", 3000, None).unwrap_err();
    assert_eq!(error.to_string(), "Fetch topic t: unknown error code 3000");
    assert!(error.is_retryable());
}

#[test]
fn codes_that_kafka_calls_retriable_are_retryable() {
    for number in 1..=150 {
        let Some(code) = ResponseError::try_from_code(number) else { continue };
        if code.is_retriable() {
            assert_ne!(classify(code), ErrorClass::Permanent, "{code:?}");
        }
    }
}
