use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA};

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

/// What is taken for an answer is one: with the id and the question, and
/// addresses of the kind that was asked for; and no mutation makes it last longer
/// than anything may.
///
/// Goes red when `judge` does not compare the id or the question, `addresses`
/// the kind, or a time has no bound.
#[test]
fn fuzzed_answers_are_judged_or_passed_over() {
    for kind in [RecordType::A, RecordType::AAAA] {
        let question = Question::new(&name("site.example."), kind, true);
        let asked = question.encode().unwrap();
        let samples = samples(&question);
        let tried = testkit::fuzz::run(&samples, |bytes| {
            let Some(Answer { reply, keep }) = question.judge(bytes) else { return };
            assert_eq!(bytes[..2], asked[..2], "an answer to somebody else");
            assert!(keep <= KEEP_MAX);
            match &reply {
                Reply::Addresses(addresses) => {
                    let fits = |one: &IpAddr| one.is_ipv6() == (kind == RecordType::AAAA);
                    assert!(!addresses.is_empty() && addresses.iter().all(fits));
                }
                Reply::NoData | Reply::NoSuchName => assert!(keep <= KEEP_NONE_MAX),
                Reply::Alias(_) => {}
                _ => assert!(keep.is_zero()),
            }
            let decides =
                !matches!(reply, Reply::Failed(_) | Reply::WithoutEdns | Reply::Truncated);
            // The question ends before the EDNS record, which has 11 bytes. One
            // that is written with pointers has other bytes.
            let (asked, told) = (&asked[12..asked.len() - 11], &bytes[12..]);
            if decides && !told.iter().take(asked.len()).any(|byte| *byte >= 0xc0) {
                let told = &told[..asked.len()];
                assert!(told.eq_ignore_ascii_case(asked), "an answer to another question");
            }
        });
        println!("dns answers for {kind}: {tried} inputs");
    }
}

/// Of every kind that `judge` tells apart.
fn samples(question: &Question) -> Vec<Vec<u8>> {
    let (site, alias) = (name("site.example."), name("alias.example."));
    let record = |owner: &Name, data| Record::from_rdata(owner.clone(), 60, data);
    let four = || RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
    let six = || RData::AAAA(AAAA(Ipv6Addr::LOCALHOST));
    let to = |target: &Name| RData::CNAME(CNAME(target.clone()));
    let zone = || RData::SOA(SOA::new(site.clone(), alias.clone(), 1, 60, 60, 60, 60));
    let good = ResponseCode::NoError;
    let address: IpAddr = match question.query.query_type() {
        RecordType::A => Ipv4Addr::new(192, 0, 2, 1).into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    let mut truncated = Message::from_vec(&answer(question, good, vec![])).unwrap();
    truncated.metadata.truncation = true;
    let above = record(&name("example."), RData::NS(NS(alias.clone())));
    let all = [
        (
            answer(question, good, vec![record(&site, four()), record(&site, six())]),
            Reply::Addresses(vec![address]),
        ),
        (
            answer(
                question,
                good,
                vec![record(&alias, six()), record(&site, to(&alias)), record(&alias, four())],
            ),
            Reply::Addresses(vec![address]),
        ),
        (
            answer(question, good, vec![record(&site, to(&alias)), record(&alias, to(&site))]),
            Reply::Failed("a loop of aliases".to_owned()),
        ),
        (answer(question, good, vec![record(&site, to(&alias))]), Reply::Alias(alias.clone())),
        (
            answer_with(question, good, vec![], Some(record(&name("example."), zone()))),
            Reply::NoData,
        ),
        (answer_with(question, good, vec![], Some(above)), Reply::Failed("a referral".to_owned())),
        (truncated.to_vec().unwrap(), Reply::Truncated),
        (
            answer_with(question, ResponseCode::NXDomain, vec![], Some(record(&site, zone()))),
            Reply::NoSuchName,
        ),
        (answer(question, ResponseCode::FormErr, vec![]), Reply::WithoutEdns),
        (answer(question, ResponseCode::ServFail, vec![]), Reply::Failed("SERVFAIL".to_owned())),
    ];
    for (bytes, expected) in &all {
        assert_eq!(question.judge(bytes).unwrap().reply, *expected);
    }
    all.into_iter().map(|(bytes, _)| bytes).collect()
}

/// A name is refused, or asked for as it is.
///
/// Goes red when `encode` drops the name, or leaves out that it asks for
/// recursion.
#[test]
fn fuzzed_names_are_refused_or_asked_for() {
    let samples =
        [b"www.site.example.".to_vec(), b"xn--bcher-kva.example.".to_vec(), b"a\\046b.".to_vec()];
    let tried = testkit::fuzz::run(&samples, |bytes| {
        let Ok(name) = Name::from_ascii(String::from_utf8_lossy(bytes)) else { return };
        let Some(bytes) = Question::new(&name, RecordType::A, true).encode() else { return };
        // What UDP takes without fragments, with room to spare.
        assert!(bytes.len() <= 512 && bytes[2] & 1 == 1, "{name}");
        let message = Message::from_vec(&bytes).unwrap();
        assert!(message.queries[0].name.eq_ignore_root(&name), "{name}");
    });
    println!("names for dns: {tried} inputs");
}
