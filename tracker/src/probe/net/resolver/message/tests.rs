use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA};

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// An answer to `question` with these records.
fn answer(question: &DnsQuestion, code: ResponseCode, records: Vec<Record>) -> Vec<u8> {
    answer_with(question, code, records, None)
}

fn answer_with(
    question: &DnsQuestion,
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

/// The TTL of an answer is the shortest one of its records, and it is limited. An error has
/// no TTL.
#[test]
fn the_ttl_is_the_shortest_one_of_all_records() {
    const DAY: u64 = 24 * 3600;
    let (site, alias) = (name("site.example."), name("alias.example."));
    let question = DnsQuestion::new(&site, RecordType::A, true);
    let address = || RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
    let record = |owner: &Name, ttl, data| Record::from_rdata(owner.clone(), ttl, data);
    let to_alias = |ttl| record(&site, ttl, RData::CNAME(CNAME(alias.clone())));
    let soa = |ttl, minimum| {
        let data = SOA::new(site.clone(), site.clone(), 1, 60, 60, 60, minimum);
        Some(record(&name("example."), ttl, RData::SOA(data)))
    };
    let (good, gone, failed) =
        (ResponseCode::NoError, ResponseCode::NXDomain, ResponseCode::ServFail);
    for (code, answers, authority, expected) in [
        (good, vec![record(&site, 60, address())], None, 60),
        (good, vec![record(&site, 60, address()), record(&site, 20, address())], None, 20),
        (good, vec![record(&site, 0, address())], None, 0),
        (good, vec![record(&site, u32::MAX, address())], None, DAY),
        (good, vec![to_alias(30), record(&alias, 60, address())], None, 30),
        (good, vec![to_alias(60), record(&alias, 30, address())], None, 30),
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
        let ttl = question.parse_answer(&bytes).unwrap().ttl;
        assert_eq!(ttl.as_secs(), expected, "{code} {answers:?} {authority:?}");
    }
}

/// A parsed answer has the id and the question, only addresses of the requested type, and a
/// TTL within the limits.
#[test]
fn fuzzed_answers_are_parsed_or_ignored() {
    for record_type in [RecordType::A, RecordType::AAAA] {
        let question = DnsQuestion::new(&name("site.example."), record_type, true);
        let sent = question.encode().unwrap();
        let samples = samples(&question);
        let inputs = testkit::fuzz::run(&samples, |bytes| {
            let Some(DnsAnswer { reply, ttl }) = question.parse_answer(bytes) else { return };
            assert_eq!(bytes[..2], sent[..2], "an answer with another id");
            assert!(ttl <= TTL_MAX);
            match &reply {
                DnsReply::Addresses(addresses) => {
                    let has_type =
                        |address: &IpAddr| address.is_ipv6() == (record_type == RecordType::AAAA);
                    assert!(!addresses.is_empty() && addresses.iter().all(has_type));
                }
                DnsReply::NoData | DnsReply::NoSuchName => assert!(ttl <= NEGATIVE_TTL_MAX),
                DnsReply::Alias(_) => {}
                _ => assert!(ttl.is_zero()),
            }
            let is_definite = !matches!(
                reply,
                DnsReply::Failed(_) | DnsReply::EdnsNotSupported | DnsReply::Truncated
            );
            // The question ends before the EDNS record, which has 11 bytes. A name that is
            // compressed with pointers has other bytes.
            let (sent, received) = (&sent[12..sent.len() - 11], &bytes[12..]);
            if is_definite && !received.iter().take(sent.len()).any(|byte| *byte >= 0xc0) {
                let received = &received[..sent.len()];
                assert!(received.eq_ignore_ascii_case(sent), "an answer to another question");
            }
        });
        println!("dns answers for {record_type}: {inputs} inputs");
    }
}

/// One answer for each kind of reply.
fn samples(question: &DnsQuestion) -> Vec<Vec<u8>> {
    let (site, alias) = (name("site.example."), name("alias.example."));
    let record = |owner: &Name, data| Record::from_rdata(owner.clone(), 60, data);
    let v4 = || RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
    let v6 = || RData::AAAA(AAAA(Ipv6Addr::LOCALHOST));
    let alias_to = |target: &Name| RData::CNAME(CNAME(target.clone()));
    let soa = || RData::SOA(SOA::new(site.clone(), alias.clone(), 1, 60, 60, 60, 60));
    let good = ResponseCode::NoError;
    let address: IpAddr = match question.query.query_type() {
        RecordType::A => Ipv4Addr::new(192, 0, 2, 1).into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    let mut truncated = Message::from_vec(&answer(question, good, vec![])).unwrap();
    truncated.metadata.truncation = true;
    let referral = record(&name("example."), RData::NS(NS(alias.clone())));
    let all = [
        (
            answer(question, good, vec![record(&site, v4()), record(&site, v6())]),
            DnsReply::Addresses(vec![address]),
        ),
        (
            answer(
                question,
                good,
                vec![record(&alias, v6()), record(&site, alias_to(&alias)), record(&alias, v4())],
            ),
            DnsReply::Addresses(vec![address]),
        ),
        (
            answer(
                question,
                good,
                vec![record(&site, alias_to(&alias)), record(&alias, alias_to(&site))],
            ),
            DnsReply::Failed("a loop of aliases".to_owned()),
        ),
        (
            answer(question, good, vec![record(&site, alias_to(&alias))]),
            DnsReply::Alias(alias.clone()),
        ),
        (
            answer_with(question, good, vec![], Some(record(&name("example."), soa()))),
            DnsReply::NoData,
        ),
        (
            answer_with(question, good, vec![], Some(referral)),
            DnsReply::Failed("a referral".to_owned()),
        ),
        (truncated.to_vec().unwrap(), DnsReply::Truncated),
        (
            answer_with(question, ResponseCode::NXDomain, vec![], Some(record(&site, soa()))),
            DnsReply::NoSuchName,
        ),
        (answer(question, ResponseCode::FormErr, vec![]), DnsReply::EdnsNotSupported),
        (answer(question, ResponseCode::ServFail, vec![]), DnsReply::Failed("SERVFAIL".to_owned())),
    ];
    for (bytes, expected) in &all {
        assert_eq!(question.parse_answer(bytes).unwrap().reply, *expected);
    }
    all.into_iter().map(|(bytes, _)| bytes).collect()
}

/// A question has the name as it is, asks for recursion, and fits into a UDP packet.
#[test]
fn fuzzed_names_are_rejected_or_encoded() {
    let samples =
        [b"www.site.example.".to_vec(), b"xn--bcher-kva.example.".to_vec(), b"a\\046b.".to_vec()];
    let inputs = testkit::fuzz::run(&samples, |bytes| {
        let Ok(name) = Name::from_ascii(String::from_utf8_lossy(bytes)) else { return };
        let Some(bytes) = DnsQuestion::new(&name, RecordType::A, true).encode() else { return };
        // UDP sends this size without fragments.
        assert!(bytes.len() <= 512 && bytes[2] & 1 == 1, "{name}");
        let message = Message::from_vec(&bytes).unwrap();
        assert!(message.queries[0].name.eq_ignore_root(&name), "{name}");
    });
    println!("names for dns: {inputs} inputs");
}
