//! Asks the servers for A and AAAA of one name, at once and judged apart.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_proto::rr::{Name, RecordType};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::message::{Answer, Question, Reply};
use super::servers::Servers;
use super::tcp;
use crate::probe::net::socket::{self, Deadline};

/// How long AAAA is waited for once A has addresses (RFC 8305, section 3):
/// broken servers leave AAAA unanswered.
const AAAA_WAIT: Duration = Duration::from_millis(50);

/// How long A is waited for once AAAA has addresses: long enough to ask again
/// for an answer that was lost, because without A a machine that has no way out
/// by IPv6 would find every site unreachable. No server leaves A unanswered.
const A_WAIT: Duration = Duration::from_secs(2);

/// The same once the first has NXDOMAIN. That is about the name (RFC 8020), but
/// broken servers say it of AAAA alone (RFC 4074, section 4.2).
const SECOND_OPINION_WAIT: Duration = Duration::from_secs(1);

/// The first server's time before the next is asked beside it; doubled with
/// each round, up to resolv.conf's own time-out.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// How long the other family is waited for by UDP before TCP is begun: one that
/// hangs by TCP must not hold it up.
const TCP_AFTER: Duration = Duration::from_millis(50);

/// What TCP has at least once the other family has decided. It is more than
/// [`AAAA_WAIT`], as the server has shown that there is an answer.
const TCP_WAIT: Duration = Duration::from_millis(250);

/// Larger than any UDP answer that was asked for.
const UDP_BUFFER_BYTES: usize = 4096;

/// Packets of one wait that are no answer: more is a flood, and the wait ends.
const STRAYS_MAX: usize = 100;

/// What came of one record type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    Reply(Answer),
    /// What the last server to answer said instead.
    Failed(String),
    Silent,
}

/// Whom to ask, and with how much patience.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) servers: &'a Servers,
    /// The index of the one to begin with.
    pub(crate) first: usize,
    /// The longest wait for one server.
    pub(crate) timeout: Duration,
    /// Rounds through the servers.
    pub(crate) attempts: usize,
}

/// A and AAAA of the name. The servers are asked in turn from the first on, for
/// as many rounds as there are attempts; one that is silent is still listened to
/// while the next is asked.
///
/// What is known already is not asked for.
pub(crate) fn ask(
    way: Way<'_>,
    name: &Name,
    known: [Option<Reply>; 2],
    deadline: Deadline,
) -> [Settled; 2] {
    let addresses = way.servers.as_slice();
    let count = addresses.len();
    let mut servers: Vec<_> =
        (0..count).map(|i| Server::new(addresses[(way.first + i) % count])).collect();
    let mut asker = Asker {
        name,
        answers: [Settled::Silent, Settled::Silent],
        asked: false,
        enough: None,
        deadline,
    };
    for (family, reply) in known.into_iter().enumerate() {
        if let Some(reply) = reply {
            // It is kept for no longer than when it came.
            asker.settle(family, Answer { reply, keep: Duration::ZERO });
        }
    }
    let tries = way.attempts * count;
    for attempt in 0..tries {
        if asker.done(&servers) || deadline.passed() {
            break;
        }
        let index = attempt % count;
        asker.send(&mut servers[index]);
        let until = deadline.or_after(way.wait(attempt, deadline));
        asker.listen(&mut servers, index, until);
    }
    asker.answers
}

impl Way<'_> {
    /// Each try gets a fair share of what is left, so that a silent server never
    /// eats the time of the next; the last may take all that one may.
    fn wait(&self, attempt: usize, deadline: Deadline) -> Duration {
        let count = self.servers.as_slice().len();
        let left = self.attempts * count - attempt;
        if left == 1 {
            return self.timeout;
        }
        let round = u32::try_from(attempt / count).unwrap_or(u32::MAX);
        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(round));
        let share = deadline.remaining() / u32::try_from(left).unwrap_or(u32::MAX);
        wait.min(self.timeout).min(share)
    }
}

struct Server {
    address: SocketAddr,
    edns: bool,
    socket: Option<UdpSocket>,
    /// The questions that it was asked and has not answered, by family.
    asked: [Option<Question>; 2],
    /// Those that are to be asked by TCP, and when at the latest.
    truncated: [Option<(Question, Deadline)>; 2],
}

impl Server {
    fn new(address: SocketAddr) -> Self {
        Self { address, edns: true, socket: None, asked: [None, None], truncated: [None, None] }
    }

    /// A socket of its own on a random port, which the kernel picks, connected, so
    /// that the kernel drops what comes from anybody else and tells of a refusal.
    fn open(&mut self) -> io::Result<&UdpSocket> {
        if self.socket.is_none() {
            let family = match self.address {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            };
            // Two system calls, where std's own way takes four.
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
            rustix::net::connect(&socket, &self.address)?;
            self.socket = Some(socket.into());
        }
        self.socket.as_ref().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    fn waits(&self) -> bool {
        self.waits_by_udp() || self.truncated.iter().any(Option::is_some)
    }

    fn waits_by_udp(&self) -> bool {
        self.asked.iter().any(Option::is_some)
    }

    /// A family whose time for TCP has come.
    fn due_by_tcp(&mut self) -> Option<(usize, Question)> {
        let alone = !self.waits_by_udp();
        let due = |one: &mut Option<(Question, Deadline)>| {
            one.take_if(|(_, latest)| alone || latest.passed()).map(|(question, _)| question)
        };
        self.truncated.iter_mut().enumerate().find_map(|(family, one)| Some((family, due(one)?)))
    }

    fn latest_for_tcp(&self) -> Option<Deadline> {
        self.truncated.iter().flatten().map(|(_, latest)| *latest).reduce(earlier)
    }
}

pub(crate) const FAMILIES: [RecordType; 2] = [RecordType::AAAA, RecordType::A];

struct Asker<'a> {
    name: &'a Name,
    answers: [Settled; 2],
    /// Whether any server was asked: all may be known, or one family.
    asked: bool,
    /// Until when the second family is waited for, once the first has decided.
    enough: Option<Deadline>,
    deadline: Deadline,
}

impl Asker<'_> {
    fn send(&mut self, server: &mut Server) {
        self.asked = true;
        for (family, kind) in FAMILIES.into_iter().enumerate() {
            if !matches!(self.answers[family], Settled::Reply(_)) {
                self.send_one(server, family, kind);
            }
        }
    }

    fn send_one(&mut self, server: &mut Server, family: usize, kind: RecordType) {
        // Asked again it is the same question, so that a late answer to the first
        // still counts, and its time is the server's own.
        let question = server.asked[family]
            .take_if(|asked| asked.edns() == server.edns)
            .unwrap_or_else(|| Question::new(self.name, kind, server.edns));
        let sent = match (question.encode(), server.open()) {
            (Some(bytes), Ok(socket)) => socket.send(&bytes).map(drop),
            (None, _) => Err(io::Error::other("the name can't be written")),
            (_, Err(cause)) => Err(cause),
        };
        match sent {
            Ok(()) => server.asked[family] = Some(question),
            Err(cause) => {
                self.failed(server, family, &cause.to_string());
                self.failed_all(server, &cause);
            }
        }
    }

    /// The kernel tells of a refusal once, for all questions on a socket, and
    /// maybe when the next one is sent.
    fn failed_all(&mut self, server: &mut Server, cause: &io::Error) {
        for family in 0..FAMILIES.len() {
            if server.asked[family].is_some() {
                self.failed(server, family, &cause.to_string());
            }
        }
    }

    fn failed(&mut self, server: &mut Server, family: usize, text: &str) {
        server.asked[family] = None;
        if !matches!(self.answers[family], Settled::Reply(_)) {
            self.answers[family] = Settled::Failed(format!("{text} from {}", server.address));
        }
    }

    /// Both families are answered; or one has decided and no server owes the
    /// other, or that other has had its time.
    fn done(&self, servers: &[Server]) -> bool {
        let answered = |settled: &Settled| matches!(settled, Settled::Reply(_));
        self.answers.iter().all(answered)
            || self.enough.is_some_and(Deadline::passed)
            || (self.enough.is_some() && self.asked && !servers.iter().any(Server::waits))
    }

    /// Takes answers until all is known, the time is up, or the server asked
    /// last has nothing more to say.
    fn listen(&mut self, servers: &mut [Server], last: usize, until: Deadline) {
        for _ in 0..STRAYS_MAX {
            if self.done(servers) || !servers[last].waits() {
                return;
            }
            if self.ask_by_tcp(servers, until) {
                continue;
            }
            let mut polled = Vec::with_capacity(servers.len());
            let mut owners = Vec::with_capacity(servers.len());
            for (index, server) in servers.iter().enumerate() {
                if let (Some(socket), true) = (&server.socket, server.waits_by_udp()) {
                    polled.push(PollFd::new(socket, PollFlags::IN));
                    owners.push(index);
                }
            }
            let until = self.enough.map_or(until, |enough| earlier(enough, until));
            let for_tcp = servers.iter().filter_map(Server::latest_for_tcp).reduce(earlier);
            let wake = for_tcp.map_or(until, |latest| earlier(latest, until));
            match socket::wait(&mut polled, wake) {
                Ok(true) => {}
                Ok(false) if !until.passed() => continue,
                Ok(false) | Err(_) => return,
            }
            let ready: Vec<_> = polled.iter().map(|one| !one.revents().is_empty()).collect();
            for (index, ready) in owners.into_iter().zip(ready) {
                if ready {
                    self.receive(&mut servers[index]);
                }
            }
        }
    }

    /// Asks one that is due; false when none is.
    fn ask_by_tcp(&mut self, servers: &mut [Server], until: Deadline) -> bool {
        let due = servers.iter_mut().find_map(|server| {
            server.due_by_tcp().map(|(family, question)| (server, family, question))
        });
        let Some((server, family, question)) = due else { return false };
        let until = match self.enough {
            Some(enough) => until.or_after(enough.remaining().max(TCP_WAIT)),
            None => until,
        };
        let answer = tcp::ask(server.address, &question, until);
        match answer.reply {
            Reply::Truncated => self.failed(server, family, "a truncated answer by tcp"),
            _ => self.take(server, family, answer),
        }
        true
    }

    fn receive(&mut self, server: &mut Server) {
        let mut buffer = [0; UDP_BUFFER_BYTES];
        let received = match &server.socket {
            Some(socket) => socket.recv(&mut buffer),
            None => return,
        };
        let bytes = match received {
            Ok(count) => &buffer[..count],
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => return,
            Err(cause) => return self.failed_all(server, &cause),
        };
        for family in 0..FAMILIES.len() {
            let Some(question) = &server.asked[family] else { continue };
            let Some(answer) = question.judge(bytes) else { continue };
            self.take(server, family, answer);
        }
    }

    fn take(&mut self, server: &mut Server, family: usize, answer: Answer) {
        match &answer.reply {
            Reply::WithoutEdns => {
                server.edns = false;
                self.send_one(server, family, FAMILIES[family]);
            }
            Reply::Failed(text) => self.failed(server, family, text),
            Reply::Truncated => {
                let latest = self.deadline.or_after(TCP_AFTER);
                server.truncated[family] = server.asked[family].take().map(|one| (one, latest));
            }
            _ => {
                server.asked[family] = None;
                self.settle(family, answer);
            }
        }
    }

    /// A family's last word; how long the other has from now on.
    fn settle(&mut self, family: usize, answer: Answer) {
        let wait = match answer.reply {
            Reply::Addresses(_) => Some(match FAMILIES[family] {
                // Half of what is left is for the site.
                RecordType::AAAA => A_WAIT.min(self.deadline.remaining() / 2),
                _ => AAAA_WAIT,
            }),
            Reply::NoSuchName => Some(SECOND_OPINION_WAIT),
            _ => None,
        };
        if let Some(wait) = wait {
            let limit = self.enough.unwrap_or(self.deadline);
            self.enough = Some(limit.or_after(wait));
        }
        self.answers[family] = Settled::Reply(answer);
    }
}

fn earlier(one: Deadline, other: Deadline) -> Deadline {
    one.or_after(other.remaining())
}
