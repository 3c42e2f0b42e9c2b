//! DNS messages: a question's bytes, and what an answer says to it.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// As large a UDP answer as passes every path whole (DNS flag day 2020).
const UDP_BYTES: u16 = 1232;

/// How many aliases are followed within one answer.
const ALIASES_MAX: usize = 16;

/// The longest that an answer may be kept, whatever it says (RFC 8767, section
/// 4, wants such a cap; a record that says more is one that nobody changes).
const KEEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// The longest that "there is none" may be kept (RFC 2308, section 5, wants a
/// cap): it is what a person waits for after they have mended a name.
const KEEP_NONE_MAX: Duration = Duration::from_secs(5 * 60);

/// An answer, and for how long it may be kept; zero for not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) keep: Duration,
}

/// What an answer says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// At least one.
    Addresses(Vec<IpAddr>),
    /// The name exists without such a record.
    NoData,
    /// NXDOMAIN.
    NoSuchName,
    /// An alias whose own addresses the server left out.
    Alias(Name),
    /// More than fits into UDP.
    Truncated,
    /// The server does not know EDNS (RFC 6891, section 7).
    WithoutEdns,
    /// The server could not or would not say.
    Failed(String),
}

/// A question to one server.
#[derive(Debug)]
pub(crate) struct Question {
    id: u16,
    query: Query,
    edns: bool,
}

impl Question {
    /// With an id that can't be guessed: the codec takes it from a
    /// cryptographic generator.
    pub(crate) fn new(name: &Name, kind: RecordType, edns: bool) -> Self {
        let id = Message::query().metadata.id;
        Self { id, query: Query::query(name.clone(), kind), edns }
    }

    /// Whether it asks for EDNS.
    pub(crate) fn edns(&self) -> bool {
        self.edns
    }

    /// The bytes to send; none for what the codec can't write.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query.clone());
        if self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES);
            message.set_edns(edns);
        }
        message.to_vec().ok()
    }

    /// Reads an answer; none for bytes that are no answer to this question,
    /// which may be forged or late and are passed over.
    pub(crate) fn judge(&self, bytes: &[u8]) -> Option<Answer> {
        let message = Message::from_vec(bytes).ok()?;
        let head = &message.metadata;
        if head.id != self.id
            || head.message_type != MessageType::Response
            || head.op_code != OpCode::Query
        {
            return None;
        }
        let code = head.response_code;
        let decides = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        match message.queries.as_slice() {
            [query] if self.is_asked_by(query) => {}
            // A refusal may leave the question out.
            [] if !decides => {}
            _ => return None,
        }
        let failed = |text| Answer { reply: Reply::Failed(text), keep: Duration::ZERO };
        Some(match code {
            _ if head.truncation => Answer { reply: Reply::Truncated, keep: Duration::ZERO },
            ResponseCode::NoError => self.addresses(&message),
            ResponseCode::NXDomain => Answer { reply: Reply::NoSuchName, keep: none_for(&message) },
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS if self.edns => {
                Answer { reply: Reply::WithoutEdns, keep: Duration::ZERO }
            }
            code => failed(word(code)),
        })
    }

    fn is_asked_by(&self, query: &Query) -> bool {
        // Names compare without regard to case.
        query.name() == self.query.name()
            && query.query_type() == self.query.query_type()
            && query.query_class() == self.query.query_class()
    }

    /// Follows the answer's aliases to what stands at their end. It may be kept
    /// for as long as the shortest-lived record on the way.
    fn addresses(&self, message: &Message) -> Answer {
        let mut name = self.query.name().clone();
        let mut keep = KEEP_MAX;
        let failed =
            |text: &str| Answer { reply: Reply::Failed(text.to_owned()), keep: Duration::ZERO };
        for _ in 0..ALIASES_MAX {
            let of_name = |kind: RecordType| {
                let name = name.clone();
                message.answers.iter().filter(move |record| {
                    record.name == name
                        && record.dns_class == DNSClass::IN
                        && record.record_type() == kind
                })
            };
            let mut addresses = Vec::new();
            for record in of_name(self.query.query_type()) {
                keep = keep.min(time_of(record));
                match &record.data {
                    RData::A(address) => addresses.push(IpAddr::from(address.0)),
                    RData::AAAA(address) => addresses.push(IpAddr::from(address.0)),
                    _ => {}
                }
            }
            if !addresses.is_empty() {
                return Answer { reply: Reply::Addresses(addresses), keep };
            }
            let alias = of_name(RecordType::CNAME).find_map(|record| match &record.data {
                RData::CNAME(alias) => Some((alias.0.clone(), time_of(record))),
                _ => None,
            });
            match alias {
                Some((alias, time)) => {
                    keep = keep.min(time);
                    name = alias;
                }
                // A server that does not recurse sends us on (RFC 2308, section
                // 2.2, tells the two apart); we ask one that does.
                None if is_referral(message) => return failed("a referral"),
                None if name == *self.query.name() => {
                    return Answer { reply: Reply::NoData, keep: none_for(message) };
                }
                None => return Answer { reply: Reply::Alias(name), keep },
            }
        }
        failed("a loop of aliases")
    }
}

/// A record's own time; one above 2^31 is as good as for ever (RFC 8767,
/// section 4).
fn time_of(record: &Record) -> Duration {
    Duration::from_secs(record.ttl.into())
}

/// How long "there is none" holds: the smaller of the SOA record's own time and
/// its minimum, and without that record not at all (RFC 2308, section 5).
fn none_for(message: &Message) -> Duration {
    let of_zone = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(zone) => Some(time_of(record).min(Duration::from_secs(zone.minimum.into()))),
        _ => None,
    });
    of_zone.unwrap_or_default().min(KEEP_NONE_MAX)
}

fn is_referral(message: &Message) -> bool {
    let holds = |kind| message.authorities.iter().any(|record| record.record_type() == kind);
    !message.metadata.authoritative && holds(RecordType::NS) && !holds(RecordType::SOA)
}

fn word(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        other => format!("code {}", u16::from(other)),
    }
}

#[cfg(test)]
mod tests;
