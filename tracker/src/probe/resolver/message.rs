//! DNS messages: a question's bytes, and what an answer says to it.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

/// As large a UDP answer as passes every path whole (DNS flag day 2020).
const UDP_BYTES: u16 = 1232;

/// How many aliases are followed within one answer.
const ALIASES_MAX: usize = 16;

/// What an answer says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
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
pub(super) struct Question {
    id: u16,
    query: Query,
    edns: bool,
}

impl Question {
    /// With an id that can't be guessed: the codec takes it from a
    /// cryptographic generator.
    pub(super) fn new(name: &Name, kind: RecordType, edns: bool) -> Self {
        let id = Message::query().metadata.id;
        Self { id, query: Query::query(name.clone(), kind), edns }
    }

    /// The bytes to send; none for what the codec can't write.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
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
    pub(super) fn judge(&self, bytes: &[u8]) -> Option<Reply> {
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
        Some(match code {
            _ if head.truncation => Reply::Truncated,
            ResponseCode::NoError => self.addresses(&message),
            ResponseCode::NXDomain => Reply::NoSuchName,
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS if self.edns => {
                Reply::WithoutEdns
            }
            code => Reply::Failed(word(code)),
        })
    }

    fn is_asked_by(&self, query: &Query) -> bool {
        // Names compare without regard to case.
        query.name() == self.query.name()
            && query.query_type() == self.query.query_type()
            && query.query_class() == self.query.query_class()
    }

    fn addresses(&self, message: &Message) -> Reply {
        let mut name = self.query.name().clone();
        for _ in 0..ALIASES_MAX {
            let of_name = |kind: RecordType| {
                let name = name.clone();
                message.answers.iter().filter(move |record| {
                    record.name == name
                        && record.dns_class == DNSClass::IN
                        && record.record_type() == kind
                })
            };
            let addresses: Vec<_> = of_name(self.query.query_type())
                .filter_map(|record| match &record.data {
                    RData::A(address) => Some(IpAddr::from(address.0)),
                    RData::AAAA(address) => Some(IpAddr::from(address.0)),
                    _ => None,
                })
                .collect();
            if !addresses.is_empty() {
                return Reply::Addresses(addresses);
            }
            let alias = of_name(RecordType::CNAME).find_map(|record| match &record.data {
                RData::CNAME(alias) => Some(alias.0.clone()),
                _ => None,
            });
            match alias {
                Some(alias) => name = alias,
                // A server that does not recurse sends us on (RFC 2308, section
                // 2.2, tells the two apart); we ask one that does.
                None if is_referral(message) => return Reply::Failed("a referral".to_owned()),
                None if name == *self.query.name() => return Reply::NoData,
                None => return Reply::Alias(name),
            }
        }
        Reply::Failed("a loop of aliases".to_owned())
    }
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
