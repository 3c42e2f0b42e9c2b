//! DNS messages: encodes questions and parses answers.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// The largest UDP answer that reaches every network without fragments (DNS flag day 2020).
const UDP_BYTES: u16 = 1232;

/// How many aliases are followed within one answer.
const ALIASES_MAX: usize = 16;

/// The longest TTL of an answer (RFC 8767, section 4, requires a limit). A record with a
/// longer TTL does not change often.
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// The longest TTL of a negative answer (RFC 2308, section 5, requires a limit): how long an
/// operator waits at most after adding a name.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(5 * 60);

/// An answer, and how long it may be cached. A TTL of zero is not cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DnsAnswer {
    pub(super) reply: DnsReply,
    pub(super) ttl: Duration,
}

/// The content of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DnsReply {
    /// At least one address.
    Addresses(Vec<IpAddr>),
    /// The name exists without a record of this type.
    NoData,
    /// NXDOMAIN.
    NoSuchName,
    /// An alias. The answer does not have the addresses of the alias.
    Alias(Name),
    /// The answer is larger than UDP allows.
    Truncated,
    /// The server does not support EDNS (RFC 6891, section 7).
    EdnsNotSupported,
    /// The server has no usable answer.
    Failed(String),
}

impl DnsReply {
    fn without_ttl(self) -> DnsAnswer {
        DnsAnswer { reply: self, ttl: Duration::ZERO }
    }
}

/// A question to one server.
#[derive(Debug)]
pub(super) struct DnsQuestion {
    id: u16,
    query: Query,
    use_edns: bool,
}

impl DnsQuestion {
    /// The id is from a cryptographic generator, so nobody can guess it.
    pub(super) fn new(name: &Name, record_type: RecordType, use_edns: bool) -> Self {
        let id = Message::query().metadata.id;
        Self { id, query: Query::query(name.clone(), record_type), use_edns }
    }

    pub(super) fn uses_edns(&self) -> bool {
        self.use_edns
    }

    /// The bytes of the question. `None` if the name can't be encoded.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query.clone());
        if self.use_edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES);
            message.set_edns(edns);
        }
        message.to_vec().ok()
    }

    /// Parses an answer. `None` if the bytes are not an answer to this question: they can be
    /// forged or late, and are ignored.
    pub(super) fn parse_answer(&self, bytes: &[u8]) -> Option<DnsAnswer> {
        let message = Message::from_vec(bytes).ok()?;
        let head = &message.metadata;
        if head.id != self.id
            || head.message_type != MessageType::Response
            || head.op_code != OpCode::Query
        {
            return None;
        }
        let code = head.response_code;
        let is_definite = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        match message.queries.as_slice() {
            [query] if self.matches(query) => {}
            // An error may come without the question.
            [] if !is_definite => {}
            _ => return None,
        }
        Some(match code {
            _ if head.truncation => DnsReply::Truncated.without_ttl(),
            ResponseCode::NoError => self.addresses(&message),
            ResponseCode::NXDomain => {
                DnsAnswer { reply: DnsReply::NoSuchName, ttl: negative_ttl(&message) }
            }
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS
                if self.use_edns =>
            {
                DnsReply::EdnsNotSupported.without_ttl()
            }
            code => DnsReply::Failed(code_name(code)).without_ttl(),
        })
    }

    fn matches(&self, query: &Query) -> bool {
        // Names compare without regard to case.
        query.name() == self.query.name()
            && query.query_type() == self.query.query_type()
            && query.query_class() == self.query.query_class()
    }

    /// Follows the aliases in the answer to the addresses. The TTL is the shortest one of all
    /// records on the way.
    fn addresses(&self, message: &Message) -> DnsAnswer {
        let mut name = self.query.name().clone();
        let mut ttl = TTL_MAX;
        let failed = |text: &str| DnsReply::Failed(text.to_owned()).without_ttl();
        for _ in 0..ALIASES_MAX {
            let records = |record_type: RecordType| {
                let name = name.clone();
                message.answers.iter().filter(move |record| {
                    record.name == name
                        && record.dns_class == DNSClass::IN
                        && record.record_type() == record_type
                })
            };
            let mut addresses = Vec::new();
            for record in records(self.query.query_type()) {
                ttl = ttl.min(record_ttl(record));
                match &record.data {
                    RData::A(address) => addresses.push(IpAddr::from(address.0)),
                    RData::AAAA(address) => addresses.push(IpAddr::from(address.0)),
                    _ => {}
                }
            }
            if !addresses.is_empty() {
                return DnsAnswer { reply: DnsReply::Addresses(addresses), ttl };
            }
            let alias = records(RecordType::CNAME).find_map(|record| match &record.data {
                RData::CNAME(alias) => Some((alias.0.clone(), record_ttl(record))),
                _ => None,
            });
            match alias {
                Some((alias, alias_ttl)) => {
                    ttl = ttl.min(alias_ttl);
                    name = alias;
                }
                // The server does not recurse, and refers to another server. RFC 2308,
                // section 2.2, distinguishes that from "no data".
                None if is_referral(message) => return failed("a referral"),
                None if name == *self.query.name() => {
                    return DnsAnswer { reply: DnsReply::NoData, ttl: negative_ttl(message) };
                }
                None => return DnsAnswer { reply: DnsReply::Alias(name), ttl },
            }
        }
        failed("a loop of aliases")
    }
}

/// A TTL above 2^31 counts as very long, not as zero (RFC 8767, section 4).
fn record_ttl(record: &Record) -> Duration {
    Duration::from_secs(record.ttl.into())
}

/// The TTL of a negative answer: the smaller one of the TTL and the minimum of the SOA
/// record. Zero without that record (RFC 2308, section 5).
fn negative_ttl(message: &Message) -> Duration {
    let soa_ttl = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record_ttl(record).min(Duration::from_secs(soa.minimum.into()))),
        _ => None,
    });
    soa_ttl.unwrap_or_default().min(NEGATIVE_TTL_MAX)
}

fn is_referral(message: &Message) -> bool {
    let has_record =
        |record_type| message.authorities.iter().any(|record| record.record_type() == record_type);
    !message.metadata.authoritative && has_record(RecordType::NS) && !has_record(RecordType::SOA)
}

fn code_name(code: ResponseCode) -> String {
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
