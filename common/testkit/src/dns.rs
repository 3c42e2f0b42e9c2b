//! A DNS server on loopback that answers, or fails, as it is told.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// How long a silent TCP client is waited for.
const TCP_WAIT: Duration = Duration::from_secs(2);

/// How often a free port for both protocols is looked for.
const PORT_TRIES: usize = 20;

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
    /// Sends bytes that are no DNS message.
    Garbage,
    /// Does several things on one question.
    Both(Box<Does>, Box<Does>),
}

type Rules = HashMap<(String, Kind), Does>;

/// The server; it ends when it is dropped. Names that it is not told of do not
/// exist.
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    rules: Rules,
    asked: Mutex<Vec<(String, Kind)>>,
    stopping: AtomicBool,
}

impl DnsServer {
    /// Starts on a free port of 127.0.0.1, by UDP and TCP. Names are in lower
    /// case, without the final dot.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn start(rules: &[(&str, Kind, Does)]) -> io::Result<Self> {
        let (udp, tcp) = sockets()?;
        let rules =
            rules.iter().map(|(name, kind, does)| (((*name).to_owned(), *kind), does.clone()));
        let shared = Arc::new(Shared {
            rules: rules.collect(),
            asked: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let address = udp.local_addr()?;
        let (for_udp, for_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::Builder::new()
                .name("dns-udp".to_owned())
                .spawn(move || serve_udp(&udp, &for_udp))?,
            thread::Builder::new()
                .name("dns-tcp".to_owned())
                .spawn(move || serve_tcp(&tcp, &for_tcp))?,
        ];
        Ok(Self { address, shared, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All questions so far, by UDP and TCP.
    pub fn asked(&self) -> Vec<(String, Kind)> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes both threads.
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(&[], self.address);
        }
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn sockets() -> io::Result<(UdpSocket, TcpListener)> {
    for _ in 0..PORT_TRIES {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        match UdpSocket::bind(tcp.local_addr()?) {
            Ok(udp) => return Ok((udp, tcp)),
            Err(cause) if cause.kind() == ErrorKind::AddrInUse => {}
            Err(cause) => return Err(cause),
        }
    }
    Err(ErrorKind::AddrInUse.into())
}

fn serve_udp(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 4096];
    thread::scope(|scope| {
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            if shared.stopping.load(Ordering::SeqCst) {
                return;
            }
            for (delay, answer) in shared.answers(&buffer[..count], false) {
                if delay.is_zero() {
                    let _ = socket.send_to(&answer, from);
                } else {
                    scope.spawn(move || {
                        thread::sleep(delay);
                        let _ = socket.send_to(&answer, from);
                    });
                }
            }
        }
    });
}

fn serve_tcp(listener: &TcpListener, shared: &Shared) {
    while let Ok((socket, _)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        // What the other side does to the connection is its own matter.
        let _ = serve_one_tcp(socket, shared);
    }
}

fn serve_one_tcp(mut socket: TcpStream, shared: &Shared) -> io::Result<()> {
    socket.set_read_timeout(Some(TCP_WAIT))?;
    let mut length = [0; 2];
    socket.read_exact(&mut length)?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
    socket.read_exact(&mut question)?;
    for (delay, answer) in shared.answers(&question, true) {
        thread::sleep(delay);
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        socket.write_all(&length.to_be_bytes())?;
        socket.write_all(&answer)?;
    }
    Ok(())
}

impl Shared {
    /// What to send, each after its delay.
    fn answers(&self, bytes: &[u8], by_tcp: bool) -> Vec<(Duration, Vec<u8>)> {
        let Ok(question) = Message::from_vec(bytes) else { return Vec::new() };
        let Some(query) = question.queries.first() else { return Vec::new() };
        let kind = match query.query_type() {
            RecordType::A => Kind::A,
            RecordType::AAAA => Kind::Aaaa,
            _ => return Vec::new(),
        };
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let key = (name, kind);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(key.clone());
        let does = self.rules.get(&key).unwrap_or(&Does::NoSuchName);
        let mut sent = Vec::new();
        act(does, &question, query, by_tcp, Duration::ZERO, &mut sent);
        sent
    }
}

fn act(
    does: &Does,
    question: &Message,
    query: &Query,
    by_tcp: bool,
    delay: Duration,
    sent: &mut Vec<(Duration, Vec<u8>)>,
) {
    let mut answer =
        Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
    answer.add_query(query.clone());
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    match does {
        Does::Silent => return,
        Does::Garbage => {
            sent.push((delay, b"\xff\x00 no dns".to_vec()));
            return;
        }
        Does::Both(first, second) => {
            act(first, question, query, by_tcp, delay, sent);
            act(second, question, query, by_tcp, delay, sent);
            return;
        }
        Does::Late(time, then) => {
            return act(then, question, query, by_tcp, delay + *time, sent);
        }
        Does::WithoutEdns(then) if question.edns.is_none() => {
            return act(then, question, query, by_tcp, delay, sent);
        }
        Does::Truncated(then) if by_tcp => {
            return act(then, question, query, by_tcp, delay, sent);
        }
        Does::WrongId(then) => {
            let mut other = question.clone();
            other.metadata.id = !question.metadata.id;
            return act(then, &other, query, by_tcp, delay, sent);
        }
        Does::OtherQuestion(then) => {
            let mut other = query.clone();
            other.set_name(name("another.example"));
            return act(then, question, &other, by_tcp, delay, sent);
        }
        Does::Addresses(all) => {
            answer.answers = all.iter().map(|one| record(query.name(), *one)).collect();
        }
        Does::Aliases(aliases, all) => {
            let mut of = query.name().clone();
            for alias in aliases {
                answer.answers.push(alias_of(&of, alias));
                of = name(alias);
            }
            answer.answers.extend(all.iter().map(|one| record(&of, *one)));
        }
        Does::AliasLoop => {
            let own = query.name().to_ascii();
            answer.answers.push(alias_of(query.name(), "loop.example"));
            answer.answers.push(alias_of(&name("loop.example"), &own));
        }
        Does::NoData => {}
        Does::NoSuchName => answer.metadata.response_code = ResponseCode::NXDomain,
        Does::ServerFailure => answer.metadata.response_code = ResponseCode::ServFail,
        Does::Refused => {
            answer.metadata.response_code = ResponseCode::Refused;
            answer.queries.clear();
        }
        Does::WithoutEdns(_) => answer.metadata.response_code = ResponseCode::FormErr,
        Does::Truncated(_) => answer.metadata.truncation = true,
    }
    if let Ok(bytes) = answer.to_vec() {
        sent.push((delay, bytes));
    }
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
