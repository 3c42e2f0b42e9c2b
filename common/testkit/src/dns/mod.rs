//! A DNS server on loopback with scripted responses and failures.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

mod behaviour;

pub use behaviour::{Behaviour, QueryType};

/// Read time-out for a TCP client.
const TCP_READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Attempts to find a port that is free for both UDP and TCP.
const PORT_TRIES: usize = 20;

/// A query as the server received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedQuery {
    /// The name, in lower case, without the final dot.
    pub name: String,
    /// The record type.
    pub kind: QueryType,
    /// The id of the message.
    pub id: u16,
    /// The client's source port.
    pub port: u16,
}

type DnsRules = HashMap<(String, QueryType), Behaviour>;

/// A running server. Dropping it stops the server. Names without a rule get NXDOMAIN.
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<DnsServerState>,
    threads: Vec<JoinHandle<()>>,
}

struct DnsServerState {
    rules: DnsRules,
    queries: Mutex<Vec<ReceivedQuery>>,
    stopping: AtomicBool,
}

impl DnsServer {
    /// Starts a server on a free UDP and TCP port of 127.0.0.1. Names in `rules` are in lower
    /// case, without the final dot.
    ///
    /// # Errors
    /// Fails if no port is free for both protocols.
    pub fn start(rules: &[(&str, QueryType, Behaviour)]) -> io::Result<Self> {
        let (udp, tcp) = sockets()?;
        let rules = rules
            .iter()
            .map(|(name, kind, behaviour)| (((*name).to_owned(), *kind), behaviour.clone()));
        let shared = Arc::new(DnsServerState {
            rules: rules.collect(),
            queries: Mutex::default(),
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

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Name and type of all queries so far, by UDP and TCP.
    pub fn queried_names(&self) -> Vec<(String, QueryType)> {
        self.queries().into_iter().map(|query| (query.name, query.kind)).collect()
    }

    /// All queries so far, by UDP and TCP.
    pub fn queries(&self) -> Vec<ReceivedQuery> {
        self.shared.queries.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

fn serve_udp(socket: &UdpSocket, shared: &DnsServerState) {
    let mut buffer = [0; 4096];
    thread::scope(|scope| {
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            if shared.stopping.load(Ordering::SeqCst) {
                return;
            }
            for (delay, response) in shared.responses(&buffer[..count], from, false) {
                if delay.is_zero() {
                    let _ = socket.send_to(&response, from);
                } else {
                    scope.spawn(move || {
                        thread::sleep(delay);
                        let _ = socket.send_to(&response, from);
                    });
                }
            }
        }
    });
}

fn serve_tcp(listener: &TcpListener, shared: &DnsServerState) {
    while let Ok((socket, from)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        // Errors of this connection concern the client only.
        let _ = serve_one_tcp(socket, from, shared);
    }
}

fn serve_one_tcp(
    mut socket: TcpStream,
    from: SocketAddr,
    shared: &DnsServerState,
) -> io::Result<()> {
    socket.set_read_timeout(Some(TCP_READ_TIMEOUT))?;
    let mut length = [0; 2];
    socket.read_exact(&mut length)?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
    socket.read_exact(&mut question)?;
    for (delay, response) in shared.responses(&question, from, true) {
        thread::sleep(delay);
        let length = u16::try_from(response.len()).map_err(io::Error::other)?;
        socket.write_all(&length.to_be_bytes())?;
        socket.write_all(&response)?;
    }
    Ok(())
}

impl DnsServerState {
    /// The responses to a query, each with its delay.
    fn responses(&self, bytes: &[u8], from: SocketAddr, by_tcp: bool) -> Vec<(Duration, Vec<u8>)> {
        let Ok(question) = Message::from_vec(bytes) else { return Vec::new() };
        let Some(query) = question.queries.first() else { return Vec::new() };
        let kind = match query.query_type() {
            RecordType::A => QueryType::A,
            RecordType::AAAA => QueryType::Aaaa,
            _ => return Vec::new(),
        };
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let received = ReceivedQuery { name, kind, id: question.metadata.id, port: from.port() };
        let key = (received.name.clone(), kind);
        self.queries.lock().unwrap_or_else(PoisonError::into_inner).push(received);
        let behaviour = self.rules.get(&key).unwrap_or(&Behaviour::NxDomain);
        behaviour
            .responses(&question, query, by_tcp)
            .into_iter()
            .filter_map(|(delay, response)| Some((delay, response.into_bytes()?)))
            .collect()
    }
}
