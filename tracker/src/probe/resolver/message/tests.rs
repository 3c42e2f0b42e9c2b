use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::{A, AAAA, CNAME};

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// An answer to `question` with these records.
fn answer(question: &Question, code: ResponseCode, records: Vec<Record>) -> Vec<u8> {
    let mut message = Message::new(question.id, MessageType::Response, OpCode::Query);
    message.metadata.response_code = code;
    message.add_query(question.query.clone());
    for record in records {
        message.add_answer(record);
    }
    message.to_vec().unwrap()
}

/// What is taken for an answer is one: addresses of the kind that was asked
/// for, with the id of the question.
///
/// Goes red when `judge` does not compare the id, or `addresses` the kind.
#[test]
fn fuzzed_answers_are_judged_or_passed_over() {
    let site = name("site.example.");
    let question = Question::new(&site, RecordType::A, true);
    let alias = name("alias.example.");
    let record = |owner: &Name, data| Record::from_rdata(owner.clone(), 60, data);
    let one = RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
    let six = RData::AAAA(AAAA(Ipv6Addr::LOCALHOST));
    let to = |target: &Name| RData::CNAME(CNAME(target.clone()));
    let samples = [
        answer(&question, ResponseCode::NoError, vec![record(&site, one.clone())]),
        answer(&question, ResponseCode::NoError, vec![record(&site, six)]),
        answer(
            &question,
            ResponseCode::NoError,
            vec![record(&site, to(&alias)), record(&alias, one)],
        ),
        answer(
            &question,
            ResponseCode::NoError,
            vec![record(&site, to(&alias)), record(&alias, to(&site))],
        ),
        answer(&question, ResponseCode::NXDomain, vec![]),
        answer(&question, ResponseCode::ServFail, vec![]),
    ];
    let expected = [
        Reply::Addresses(vec![Ipv4Addr::new(192, 0, 2, 1).into()]),
        Reply::NoData,
        Reply::Addresses(vec![Ipv4Addr::new(192, 0, 2, 1).into()]),
        Reply::Failed("a loop of aliases".to_owned()),
        Reply::NoSuchName,
        Reply::Failed("SERVFAIL".to_owned()),
    ];
    let replies = samples.iter().map(|bytes| question.judge(bytes).unwrap());
    assert!(replies.eq(expected));
    let tried = testkit::fuzz::run(&samples, |bytes| {
        let Some(reply) = question.judge(bytes) else { return };
        assert_eq!(bytes[..2], question.id.to_be_bytes(), "an answer to somebody else");
        if let Reply::Addresses(addresses) = reply {
            assert!(!addresses.is_empty() && addresses.iter().all(IpAddr::is_ipv4));
        }
    });
    println!("dns answers: {tried} inputs");
}
