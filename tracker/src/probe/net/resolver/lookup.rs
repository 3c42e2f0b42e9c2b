//! Queries the servers for the A and AAAA records of a name, both at the same time.

use std::io::{self, ErrorKind};
use std::time::Duration;

use hickory_proto::rr::{Name, RecordType};
use rustix::event::{PollFd, PollFlags};

use super::message::{DnsAnswer, DnsQuestion, DnsReply};
use super::name_servers::NameServers;
use super::server_queries::ServerQueries;
use super::tcp;
use crate::probe::net::deadline::Deadline;
use crate::probe::net::socket;

/// The record types, by the index of the family.
pub(super) const RECORD_TYPES: [RecordType; 2] = [RecordType::AAAA, RecordType::A];

/// How long to wait for AAAA once A has addresses (RFC 8305, section 3): broken servers do
/// not answer AAAA.
const AAAA_WAIT: Duration = Duration::from_millis(50);

/// How long to wait for A once AAAA has addresses. It is long enough to repeat a lost
/// question, because a machine without IPv6 can't reach any site without A. All servers
/// answer A.
const A_WAIT: Duration = Duration::from_secs(2);

/// How long to wait for the other family after NXDOMAIN. NXDOMAIN is about the name (RFC
/// 8020), but broken servers send it for AAAA only (RFC 4074, section 4.2).
const AFTER_NXDOMAIN_WAIT: Duration = Duration::from_secs(1);

/// How long to wait for a server in the first round before the next server is queried as
/// well. Doubled in each round, up to the time-out of resolv.conf.
const FIRST_ROUND_WAIT: Duration = Duration::from_secs(1);

/// How long to wait for the UDP answer of the other family before TCP is used: a TCP
/// connection that hangs must not delay that answer.
const TCP_DELAY: Duration = Duration::from_millis(50);

/// The shortest time for TCP once the other family has an answer. It is longer than
/// [`AAAA_WAIT`], because a truncated answer proves that records exist.
const TCP_WAIT: Duration = Duration::from_millis(250);

/// Larger than any UDP answer that the question allows.
const UDP_BUFFER_BYTES: usize = 4096;

/// The most packets of one wait, answers or not. More packets are a flood, and end the wait.
const PACKETS_MAX: usize = 100;

/// The result for one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FamilyResult {
    Answered(DnsAnswer),
    /// The error of the last server that failed.
    Failed(String),
    NoAnswer,
}

/// The servers to query, and how long to wait for them.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueryPlan<'a> {
    pub(super) servers: &'a NameServers,
    /// The index of the first server to query.
    pub(super) first: usize,
    /// The longest wait for one server.
    pub(super) timeout: Duration,
    /// How often each server is queried.
    pub(super) rounds: usize,
}

/// Queries the servers one after the other, round by round, until both families have a
/// result. A server that has not answered can still answer while the next server is queried.
///
/// A family whose reply is `known` is not queried.
pub(super) fn query(
    plan: QueryPlan<'_>,
    name: &Name,
    known: [Option<DnsReply>; 2],
    deadline: Deadline,
) -> [FamilyResult; 2] {
    let addresses = plan.servers.as_slice();
    let count = addresses.len();
    let mut servers: Vec<_> =
        (0..count).map(|i| ServerQueries::new(addresses[(plan.first + i) % count])).collect();
    let mut lookup = Lookup {
        name,
        results: [FamilyResult::NoAnswer, FamilyResult::NoAnswer],
        has_queried: false,
        grace_until: None,
        deadline,
    };
    for (family, reply) in known.into_iter().enumerate() {
        if let Some(reply) = reply {
            // The TTL of a cached reply must not start again.
            lookup.set_answer(family, DnsAnswer { reply, ttl: Duration::ZERO });
        }
    }
    for attempt in 0..plan.rounds * count {
        if lookup.is_done(&servers) || deadline.has_passed() {
            break;
        }
        let index = attempt % count;
        lookup.send_questions(&mut servers[index]);
        let until = deadline.within(plan.wait_for(attempt, deadline));
        lookup.receive_until(&mut servers, index, until);
    }
    lookup.results
}

impl QueryPlan<'_> {
    /// How long to wait after this attempt. Each attempt gets an equal share of the
    /// remaining time, so a server that does not answer leaves time for the next server. The
    /// last attempt may use the whole time-out.
    fn wait_for(&self, attempt: usize, deadline: Deadline) -> Duration {
        let count = self.servers.as_slice().len();
        let remaining = self.rounds * count - attempt;
        if remaining == 1 {
            return self.timeout;
        }
        let round = u32::try_from(attempt / count).unwrap_or(u32::MAX);
        let wait = FIRST_ROUND_WAIT.saturating_mul(2_u32.saturating_pow(round));
        let share = deadline.remaining() / u32::try_from(remaining).unwrap_or(u32::MAX);
        wait.min(self.timeout).min(share)
    }
}

/// The look-up of one name. Arrays are indexed by family.
struct Lookup<'a> {
    name: &'a Name,
    results: [FamilyResult; 2],
    /// Whether a server was queried. False while all replies are known.
    has_queried: bool,
    /// The end of the wait for the second family, once the first family has an answer.
    grace_until: Option<Deadline>,
    deadline: Deadline,
}

impl Lookup<'_> {
    /// Sends the questions for all families without an answer.
    fn send_questions(&mut self, server: &mut ServerQueries) {
        self.has_queried = true;
        for family in 0..RECORD_TYPES.len() {
            if !self.is_answered(family) {
                self.send_question(server, family);
            }
        }
    }

    fn send_question(&mut self, server: &mut ServerQueries, family: usize) {
        // A repeated question keeps its id, so that a late answer to the first question counts.
        let question = server.pending[family]
            .take_if(|pending| pending.uses_edns() == server.use_edns)
            .unwrap_or_else(|| DnsQuestion::new(self.name, RECORD_TYPES[family], server.use_edns));
        let sent = match (question.encode(), server.open_socket()) {
            (Some(bytes), Ok(socket)) => socket.send(&bytes).map(drop),
            (None, _) => Err(io::Error::other("the name can't be written")),
            (_, Err(cause)) => Err(cause),
        };
        match sent {
            Ok(()) => server.pending[family] = Some(question),
            Err(cause) => {
                self.set_failed(server, family, &cause.to_string());
                self.set_all_failed(server, &cause);
            }
        }
    }

    fn is_answered(&self, family: usize) -> bool {
        matches!(self.results[family], FamilyResult::Answered(_))
    }

    /// Fails all pending questions. The kernel reports a refused packet once for all
    /// questions on a socket, possibly when the next question is sent.
    fn set_all_failed(&mut self, server: &mut ServerQueries, cause: &io::Error) {
        for family in 0..RECORD_TYPES.len() {
            if server.pending[family].is_some() {
                self.set_failed(server, family, &cause.to_string());
            }
        }
    }

    fn set_failed(&mut self, server: &mut ServerQueries, family: usize, text: &str) {
        server.pending[family] = None;
        if !self.is_answered(family) {
            self.results[family] = FamilyResult::Failed(format!("{text} from {}", server.address));
        }
    }

    /// Whether the look-up is done: both families have an answer, or only one has, and
    /// either no server will answer for the other or the wait for it is over.
    fn is_done(&self, servers: &[ServerQueries]) -> bool {
        let all_answered = (0..RECORD_TYPES.len()).all(|family| self.is_answered(family));
        all_answered
            || self.grace_until.is_some_and(Deadline::has_passed)
            || (self.grace_until.is_some()
                && self.has_queried
                && !servers.iter().any(ServerQueries::has_pending))
    }

    /// Receives answers until the look-up is done, the time is over, or the server asked
    /// last has answered everything.
    fn receive_until(
        &mut self,
        servers: &mut [ServerQueries],
        last_queried: usize,
        until: Deadline,
    ) {
        for _ in 0..PACKETS_MAX {
            if self.is_done(servers) || !servers[last_queried].has_pending() {
                return;
            }
            if self.repeat_by_tcp(servers, until) {
                continue;
            }
            let mut polled = Vec::with_capacity(servers.len());
            let mut polled_servers = Vec::with_capacity(servers.len());
            for (index, server) in servers.iter().enumerate() {
                if let (Some(socket), true) = (&server.socket, server.has_pending_udp()) {
                    polled.push(PollFd::new(socket, PollFlags::IN));
                    polled_servers.push(index);
                }
            }
            let until = self.grace_until.map_or(until, |grace_until| grace_until.min(until));
            let tcp_due = servers.iter().filter_map(ServerQueries::next_due_for_tcp).min();
            let wake_at = tcp_due.map_or(until, |due| due.min(until));
            match socket::wait_any(&mut polled, wake_at) {
                Ok(true) => {}
                Ok(false) if !until.has_passed() => continue,
                Ok(false) | Err(_) => return,
            }
            let ready: Vec<_> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (index, ready) in polled_servers.into_iter().zip(ready) {
                if ready {
                    self.receive(&mut servers[index]);
                }
            }
        }
    }

    /// Repeats one due question by TCP. Returns false if none is due.
    fn repeat_by_tcp(&mut self, servers: &mut [ServerQueries], until: Deadline) -> bool {
        let due = servers.iter_mut().find_map(|server| {
            server.take_due_for_tcp().map(|(family, question)| (server, family, question))
        });
        let Some((server, family, question)) = due else { return false };
        let until = match self.grace_until {
            Some(grace_until) => until.within(grace_until.remaining().max(TCP_WAIT)),
            None => until,
        };
        let answer = tcp::query(server.address, &question, until);
        match answer.reply {
            DnsReply::Truncated => self.set_failed(server, family, "a truncated answer by tcp"),
            _ => self.handle_answer(server, family, answer),
        }
        true
    }

    /// Receives one packet.
    fn receive(&mut self, server: &mut ServerQueries) {
        let mut buffer = [0; UDP_BUFFER_BYTES];
        let received = match &server.socket {
            Some(socket) => socket.recv(&mut buffer),
            None => return,
        };
        let bytes = match received {
            Ok(count) => &buffer[..count],
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => return,
            Err(cause) => return self.set_all_failed(server, &cause),
        };
        for family in 0..RECORD_TYPES.len() {
            let Some(question) = &server.pending[family] else { continue };
            let Some(answer) = question.parse_answer(bytes) else { continue };
            self.handle_answer(server, family, answer);
        }
    }

    fn handle_answer(&mut self, server: &mut ServerQueries, family: usize, answer: DnsAnswer) {
        match &answer.reply {
            DnsReply::EdnsNotSupported => {
                server.use_edns = false;
                self.send_question(server, family);
            }
            DnsReply::Failed(text) => self.set_failed(server, family, text),
            DnsReply::Truncated => {
                let latest = self.deadline.within(TCP_DELAY);
                server.truncated[family] =
                    server.pending[family].take().map(|question| (question, latest));
            }
            _ => {
                server.pending[family] = None;
                self.set_answer(family, answer);
            }
        }
    }

    /// Sets the answer of a family, and limits the wait for the other family.
    fn set_answer(&mut self, family: usize, answer: DnsAnswer) {
        let wait = match answer.reply {
            DnsReply::Addresses(_) => Some(match RECORD_TYPES[family] {
                // Half of the remaining time is for the site.
                RecordType::AAAA => A_WAIT.min(self.deadline.remaining() / 2),
                _ => AAAA_WAIT,
            }),
            DnsReply::NoSuchName => Some(AFTER_NXDOMAIN_WAIT),
            _ => None,
        };
        if let Some(wait) = wait {
            let limit = self.grace_until.unwrap_or(self.deadline);
            self.grace_until = Some(limit.within(wait));
        }
        self.results[family] = FamilyResult::Answered(answer);
    }
}
