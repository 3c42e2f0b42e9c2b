//! Scripted responses of the DNS server.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA};
use hickory_proto::rr::{Name, RData, Record};

/// The query types that the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryType {
    /// IPv4 address.
    A,
    /// IPv6 address.
    Aaaa,
}

/// The reaction of the server to one query.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Responds with these addresses, of either family.
    Addresses(Vec<IpAddr>),
    /// Responds with a chain of aliases and the addresses of the last alias.
    Aliases(Vec<&'static str>, Vec<IpAddr>),
    /// Responds with two aliases that point at each other.
    AliasLoop,
    /// Responds without error and without records.
    NoData,
    /// Responds with NXDOMAIN.
    NxDomain,
    /// Responds with SERVFAIL.
    ServerFailure,
    /// Responds with REFUSED, without the question section.
    Refused,
    /// Responds with FORMERR to a query with EDNS. Other queries get the inner behaviour.
    RejectEdns(Box<Behaviour>),
    /// Sends no response.
    NoAnswer,
    /// Delays the inner behaviour.
    Delayed(Duration, Box<Behaviour>),
    /// Sets the truncation flag by UDP. TCP queries get the inner behaviour.
    Truncated(Box<Behaviour>),
    /// Responds with a wrong message id.
    WrongId(Box<Behaviour>),
    /// Responds to a different question.
    WrongQuestion(Box<Behaviour>),
    /// Responds with the name in upper case.
    UppercaseName(Box<Behaviour>),
    /// Responds with a referral to the parent zone's servers, as a server without recursion does.
    Referral,
    /// Sets the TTL of all answer records, in seconds.
    WithTtl(u32, Box<Behaviour>),
    /// Adds an SOA record with this TTL and this `minimum`, in seconds.
    WithSoa(u32, u32, Box<Behaviour>),
    /// Sends bytes that are not a DNS message.
    Garbage,
    /// Sends the responses of both behaviours.
    Both(Box<Behaviour>, Box<Behaviour>),
}

/// A response to send.
pub(super) enum Reply {
    Message(Box<Message>),
    Garbage(&'static [u8]),
}

impl Reply {
    /// `None` if the message can't be encoded.
    pub(super) fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Message(message) => message.to_vec().ok(),
            Self::Garbage(bytes) => Some(bytes.to_vec()),
        }
    }
}

impl Behaviour {
    /// The responses to a query, each with its delay.
    pub(super) fn responses(
        &self,
        question: &Message,
        query: &Query,
        by_tcp: bool,
    ) -> Vec<(Duration, Reply)> {
        let with_name = |then: &Self, name: Name| {
            let mut other = query.clone();
            other.set_name(name);
            then.responses(question, &other, by_tcp)
        };
        match self {
            Self::NoAnswer => Vec::new(),
            Self::Garbage => vec![(Duration::ZERO, Reply::Garbage(b"\xff\x00 no dns"))],
            Self::Both(first, second) => {
                let mut all = first.responses(question, query, by_tcp);
                all.extend(second.responses(question, query, by_tcp));
                all
            }
            Self::Delayed(time, then) => {
                let all = then.responses(question, query, by_tcp).into_iter();
                all.map(|(delay, response)| (delay + *time, response)).collect()
            }
            Self::RejectEdns(then) if question.edns.is_none() => {
                then.responses(question, query, by_tcp)
            }
            Self::Truncated(then) if by_tcp => then.responses(question, query, by_tcp),
            Self::WrongId(then) => {
                let mut other = question.clone();
                other.metadata.id = !question.metadata.id;
                then.responses(&other, query, by_tcp)
            }
            Self::WrongQuestion(then) => with_name(then, name("another.example")),
            Self::UppercaseName(then) => {
                with_name(then, name(&query.name().to_ascii().to_ascii_uppercase()))
            }
            Self::WithTtl(seconds, then) => {
                edit_messages(then.responses(question, query, by_tcp), |response| {
                    response.answers.iter_mut().for_each(|record| record.ttl = *seconds);
                })
            }
            Self::WithSoa(ttl, minimum, then) => {
                let host = name("ns.example");
                let data = RData::SOA(SOA::new(host.clone(), host, 1, 60, 60, 60, *minimum));
                let record = Record::from_rdata(name("example"), *ttl, data);
                edit_messages(then.responses(question, query, by_tcp), |response| {
                    response.add_authority(record.clone());
                })
            }
            behaviour => {
                vec![(Duration::ZERO, Reply::Message(Box::new(behaviour.message(question, query))))]
            }
        }
    }

    /// Builds the message for behaviours that send one.
    fn message(&self, question: &Message, query: &Query) -> Message {
        let mut response =
            Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
        response.add_query(query.clone());
        response.metadata.recursion_desired = true;
        response.metadata.recursion_available = true;
        match self {
            Self::Addresses(all) => {
                response.answers =
                    all.iter().map(|one| address_record(query.name(), *one)).collect();
            }
            Self::Aliases(aliases, all) => {
                let mut owner = query.name().clone();
                for alias in aliases {
                    response.answers.push(cname_record(&owner, alias));
                    owner = name(alias);
                }
                response.answers.extend(all.iter().map(|one| address_record(&owner, *one)));
            }
            Self::AliasLoop => {
                let own = query.name().to_ascii();
                response.answers.push(cname_record(query.name(), "loop.example"));
                response.answers.push(cname_record(&name("loop.example"), &own));
            }
            Self::Referral => {
                let data = RData::NS(NS(name("ns.example")));
                response.add_authority(Record::from_rdata(name("example"), 60, data));
                response.metadata.recursion_available = false;
            }
            Self::NxDomain => response.metadata.response_code = ResponseCode::NXDomain,
            Self::ServerFailure => response.metadata.response_code = ResponseCode::ServFail,
            Self::Refused => {
                response.metadata.response_code = ResponseCode::Refused;
                response.queries.clear();
            }
            Self::RejectEdns(_) => response.metadata.response_code = ResponseCode::FormErr,
            Self::Truncated(_) => response.metadata.truncation = true,
            // NODATA. The other behaviours do not get here.
            _ => {}
        }
        response
    }
}

fn edit_messages(
    mut all: Vec<(Duration, Reply)>,
    change: impl Fn(&mut Message),
) -> Vec<(Duration, Reply)> {
    for (_, response) in &mut all {
        if let Reply::Message(message) = response {
            change(message);
        }
    }
    all
}

fn address_record(owner: &Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(owner.clone(), 60, data)
}

fn cname_record(owner: &Name, alias: &str) -> Record {
    Record::from_rdata(owner.clone(), 60, RData::CNAME(CNAME(name(alias))))
}

/// Returns the root name if `text` is not a valid name: rules are constants in tests.
fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap_or_default();
    name.set_fqdn(true);
    name
}
