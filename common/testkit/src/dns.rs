//! A DNS server on loopback that answers, or fails, as it is told.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

mod does;

pub use does::{Does, Kind};

/// How long a silent TCP client is waited for.
const TCP_WAIT: Duration = Duration::from_secs(2);

/// How often a free port for both protocols is looked for.
const PORT_TRIES: usize = 20;

/// A question as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// In lower case, without the final dot.
    pub name: String,
    /// Which record.
    pub kind: Kind,
    /// The message's id.
    pub id: u16,
    /// The port that it came from.
    pub port: u16,
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
    asked: Mutex<Vec<Asked>>,
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

    /// What was asked for so far, by UDP and TCP.
    pub fn asked(&self) -> Vec<(String, Kind)> {
        self.questions().into_iter().map(|asked| (asked.name, asked.kind)).collect()
    }

    /// All questions so far, by UDP and TCP.
    pub fn questions(&self) -> Vec<Asked> {
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
            for (delay, answer) in shared.answers(&buffer[..count], from, false) {
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
    while let Ok((socket, from)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        // What the other side does to the connection is its own matter.
        let _ = serve_one_tcp(socket, from, shared);
    }
}

fn serve_one_tcp(mut socket: TcpStream, from: SocketAddr, shared: &Shared) -> io::Result<()> {
    socket.set_read_timeout(Some(TCP_WAIT))?;
    let mut length = [0; 2];
    socket.read_exact(&mut length)?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
    socket.read_exact(&mut question)?;
    for (delay, answer) in shared.answers(&question, from, true) {
        thread::sleep(delay);
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        socket.write_all(&length.to_be_bytes())?;
        socket.write_all(&answer)?;
    }
    Ok(())
}

impl Shared {
    /// What to send, each after its delay.
    fn answers(&self, bytes: &[u8], from: SocketAddr, by_tcp: bool) -> Vec<(Duration, Vec<u8>)> {
        let Ok(question) = Message::from_vec(bytes) else { return Vec::new() };
        let Some(query) = question.queries.first() else { return Vec::new() };
        let kind = match query.query_type() {
            RecordType::A => Kind::A,
            RecordType::AAAA => Kind::Aaaa,
            _ => return Vec::new(),
        };
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let asked = Asked { name, kind, id: question.metadata.id, port: from.port() };
        let key = (asked.name.clone(), kind);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let does = self.rules.get(&key).unwrap_or(&Does::NoSuchName);
        does.answers(&question, query, by_tcp)
            .into_iter()
            .filter_map(|(delay, answer)| Some((delay, answer.into_bytes()?)))
            .collect()
    }
}
