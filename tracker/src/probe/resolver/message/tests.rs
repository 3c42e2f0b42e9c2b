use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// An answer to `question` with these records.
fn answer(question: &Question, code: ResponseCode, records: Vec<Record>) -> Vec<u8> {
    answer_with(question, code, records, None)
}

fn answer_with(
    question: &Question,
    code: ResponseCode,
    records: Vec<Record>,
    authority: Option<Record>,
) -> Vec<u8> {
    let mut message = Message::new(question.id, MessageType::Response, OpCode::Query);
    message.metadata.response_code = code;
    message.add_query(question.query.clone());
    message.add_answers(records);
    message.add_authorities(authority);
    message.to_vec().unwrap()
}

/// Goes red when a time is not the shortest on the way, or has no bound, or an
/// answer that may not be kept is.
#[test]
fn an_answer_may_be_kept_for_as_long_as_all_of_it_holds() {
    const DAY: u64 = 24 * 3600;
    let (site, alias) = (name("site.example."), name("alias.example."));
    let question = Question::new(&site, RecordType::A, true);
    let address = || RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
    let of = |owner: &Name, ttl, data| Record::from_rdata(owner.clone(), ttl, data);
    let to_alias = |ttl| of(&site, ttl, RData::CNAME(CNAME(alias.clone())));
    let soa = |ttl, minimum| {
        let data = SOA::new(site.clone(), site.clone(), 1, 60, 60, 60, minimum);
        Some(of(&name("example."), ttl, RData::SOA(data)))
    };
    let (good, gone, failed) =
        (ResponseCode::NoError, ResponseCode::NXDomain, ResponseCode::ServFail);
    for (code, answers, authority, expected) in [
        (good, vec![of(&site, 60, address())], None, 60),
        (good, vec![of(&site, 60, address()), of(&site, 20, address())], None, 20),
        (good, vec![of(&site, 0, address())], None, 0),
        (good, vec![of(&site, u32::MAX, address())], None, DAY),
        (good, vec![to_alias(30), of(&alias, 60, address())], None, 30),
        (good, vec![to_alias(60), of(&alias, 30, address())], None, 30),
        (good, vec![to_alias(40)], None, 40),
        (good, vec![to_alias(40)], soa(10, 10), 40),
        (good, vec![], None, 0),
        (good, vec![], soa(60, 30), 30),
        (gone, vec![], soa(30, 60), 30),
        (gone, vec![], soa(9_000, 9_000), 300),
        (gone, vec![], None, 0),
        (failed, vec![], soa(60, 60), 0),
    ] {
        let bytes = answer_with(&question, code, answers.clone(), authority.clone());
        let found = question.judge(&bytes).unwrap().keep;
        assert_eq!(found.as_secs(), expected, "{code} {answers:?} {authority:?}");
    }
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
    let replies = samples.iter().map(|bytes| question.judge(bytes).unwrap().reply);
    assert!(replies.eq(expected));
    let tried = testkit::fuzz::run(&samples, |bytes| {
        let Some(Answer { reply, .. }) = question.judge(bytes) else { return };
        assert_eq!(bytes[..2], question.id.to_be_bytes(), "an answer to somebody else");
        if let Reply::Addresses(addresses) = reply {
            assert!(!addresses.is_empty() && addresses.iter().all(IpAddr::is_ipv4));
        }
    });
    println!("dns answers: {tried} inputs");
}
