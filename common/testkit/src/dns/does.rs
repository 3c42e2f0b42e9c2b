//! What the server can do on a question.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA};
use hickory_proto::rr::{Name, RData, Record};

/// The types that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4.
    A,
    /// IPv6.
    Aaaa,
}

/// What the server does on a question.
#[derive(Debug, Clone)]
pub enum Does {
    /// Answers with these addresses, of either family.
    Addresses(Vec<IpAddr>),
    /// Answers with aliases, each of the one before, and the addresses of the last.
    Aliases(Vec<&'static str>, Vec<IpAddr>),
    /// Answers with two aliases of each other.
    AliasLoop,
    /// Answers that there is no such record.
    NoData,
    /// Answers NXDOMAIN.
    NoSuchName,
    /// Answers SERVFAIL.
    ServerFailure,
    /// Answers REFUSED, without the question.
    Refused,
    /// Answers FORMERR to a question with EDNS, else as told.
    WithoutEdns(Box<Does>),
    /// Says nothing.
    Silent,
    /// Answers after a while.
    Late(Duration, Box<Does>),
    /// Answers by UDP that the answer is too long, by TCP as told.
    Truncated(Box<Does>),
    /// Answers with another id.
    WrongId(Box<Does>),
    /// Answers to another question.
    OtherQuestion(Box<Does>),
    /// Answers with the question's name in capitals.
    OtherCase(Box<Does>),
    /// Names the servers of a zone above, as one that does not recurse.
    Referral,
    /// Answers with records that hold for so many seconds.
    For(u32, Box<Does>),
    /// Adds the zone's SOA record, whose own time and `minimum` are so many seconds.
    WithSoa(u32, u32, Box<Does>),
    /// Sends bytes that are no DNS message.
    Garbage,
    /// Does several things on one question.
    Both(Box<Does>, Box<Does>),
}

/// What is sent.
pub(super) enum Answer {
    Message(Box<Message>),
    Garbage(&'static [u8]),
}

impl Answer {
    /// None for what the codec can't write.
    pub(super) fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Message(message) => message.to_vec().ok(),
            Self::Garbage(bytes) => Some(bytes.to_vec()),
        }
    }
}

impl Does {
    /// What to send on the question, each after its delay.
    pub(super) fn answers(
        &self,
        question: &Message,
        query: &Query,
        by_tcp: bool,
    ) -> Vec<(Duration, Answer)> {
        let with_name = |then: &Self, name: Name| {
            let mut other = query.clone();
            other.set_name(name);
            then.answers(question, &other, by_tcp)
        };
        match self {
            Self::Silent => Vec::new(),
            Self::Garbage => vec![(Duration::ZERO, Answer::Garbage(b"\xff\x00 no dns"))],
            Self::Both(first, second) => {
                let mut all = first.answers(question, query, by_tcp);
                all.extend(second.answers(question, query, by_tcp));
                all
            }
            Self::Late(time, then) => {
                let all = then.answers(question, query, by_tcp).into_iter();
                all.map(|(delay, answer)| (delay + *time, answer)).collect()
            }
            Self::WithoutEdns(then) if question.edns.is_none() => {
                then.answers(question, query, by_tcp)
            }
            Self::Truncated(then) if by_tcp => then.answers(question, query, by_tcp),
            Self::WrongId(then) => {
                let mut other = question.clone();
                other.metadata.id = !question.metadata.id;
                then.answers(&other, query, by_tcp)
            }
            Self::OtherQuestion(then) => with_name(then, name("another.example")),
            Self::OtherCase(then) => {
                with_name(then, name(&query.name().to_ascii().to_ascii_uppercase()))
            }
            Self::For(seconds, then) => changed(then.answers(question, query, by_tcp), |answer| {
                answer.answers.iter_mut().for_each(|record| record.ttl = *seconds);
            }),
            Self::WithSoa(ttl, minimum, then) => {
                let host = name("ns.example");
                let data = RData::SOA(SOA::new(host.clone(), host, 1, 60, 60, 60, *minimum));
                let record = Record::from_rdata(name("example"), *ttl, data);
                changed(then.answers(question, query, by_tcp), |answer| {
                    answer.add_authority(record.clone());
                })
            }
            does => {
                vec![(Duration::ZERO, Answer::Message(Box::new(does.message(question, query))))]
            }
        }
    }

    /// The message of those that send one.
    fn message(&self, question: &Message, query: &Query) -> Message {
        let mut answer =
            Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
        answer.add_query(query.clone());
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        match self {
            Self::Addresses(all) => {
                answer.answers = all.iter().map(|one| record(query.name(), *one)).collect();
            }
            Self::Aliases(aliases, all) => {
                let mut of = query.name().clone();
                for alias in aliases {
                    answer.answers.push(alias_of(&of, alias));
                    of = name(alias);
                }
                answer.answers.extend(all.iter().map(|one| record(&of, *one)));
            }
            Self::AliasLoop => {
                let own = query.name().to_ascii();
                answer.answers.push(alias_of(query.name(), "loop.example"));
                answer.answers.push(alias_of(&name("loop.example"), &own));
            }
            Self::Referral => {
                let data = RData::NS(NS(name("ns.example")));
                answer.add_authority(Record::from_rdata(name("example"), 60, data));
                answer.metadata.recursion_available = false;
            }
            Self::NoSuchName => answer.metadata.response_code = ResponseCode::NXDomain,
            Self::ServerFailure => answer.metadata.response_code = ResponseCode::ServFail,
            Self::Refused => {
                answer.metadata.response_code = ResponseCode::Refused;
                answer.queries.clear();
            }
            Self::WithoutEdns(_) => answer.metadata.response_code = ResponseCode::FormErr,
            Self::Truncated(_) => answer.metadata.truncation = true,
            // No data; the rest sends no message of its own.
            _ => {}
        }
        answer
    }
}

fn changed(
    mut all: Vec<(Duration, Answer)>,
    change: impl Fn(&mut Message),
) -> Vec<(Duration, Answer)> {
    for (_, answer) in &mut all {
        if let Answer::Message(message) = answer {
            change(message);
        }
    }
    all
}

fn record(of: &Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(of.clone(), 60, data)
}

fn alias_of(of: &Name, alias: &str) -> Record {
    Record::from_rdata(of.clone(), 60, RData::CNAME(CNAME(name(alias))))
}

/// The root for what is no name: rules are written by hand.
fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap_or_default();
    name.set_fqdn(true);
    name
}
