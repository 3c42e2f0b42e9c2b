//! Sites on free ports of loopback that answer, or fail, as they are told.
//!
//! A site ends when it is dropped: connections that hang are cut, and its
//! threads are joined.

mod answers;
mod demo;
mod serve;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};

pub use answers::{
    answer, chunked, deflate_raw, deflate_zlib, gzip, head_of, page, redirect, with_length,
};
pub use demo::{Demo, DemoSite, demo};
use serve::Shared;

/// How many requests a site remembers.
const REQUESTS_MAX: usize = 100;

/// One thing that a site does; after the last it closes the connection.
#[derive(Debug, Clone)]
pub enum Step {
    /// Waits for a request's head.
    ReadRequest,
    /// Reads once what there is, waiting for the first byte.
    ReadSome,
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends bytes one by one with this pause before each.
    Drip(Vec<u8>, Duration),
    /// Does nothing for a while.
    Wait(Duration),
    /// Does nothing until the other side or the site itself ends.
    Hang,
    /// Makes the close a TCP reset.
    Reset,
}

/// What a site does on a request, given its path.
type Handler = dyn Fn(&str) -> Vec<Step> + Send + Sync;

/// What a site does on a connection.
enum Behaviour {
    /// These steps, whatever is asked.
    Raw(Vec<Step>),
    /// Reads a request and does what it calls for.
    Http(Box<Handler>),
    /// The same below TLS.
    Https(Arc<ServerConfig>, Box<Handler>),
}

/// A site that listens.
pub struct Site {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Site {
    /// A site that does these steps on each connection.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn raw(steps: Vec<Step>) -> io::Result<Self> {
        Self::start(Behaviour::Raw(steps))
    }

    /// A plain site that reads a request and does what its path calls for.
    ///
    /// # Errors
    /// As [`Site::raw`].
    pub fn http(handler: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> io::Result<Self> {
        Self::start(Behaviour::Http(Box::new(handler)))
    }

    /// A TLS site that reads a request and does what its path calls for.
    ///
    /// # Errors
    /// As [`Site::raw`].
    pub fn https(
        config: Arc<ServerConfig>,
        handler: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::start(Behaviour::Https(config, Box::new(handler)))
    }

    /// A plain site that sends these bytes to any request.
    ///
    /// # Errors
    /// As [`Site::raw`].
    pub fn sends(bytes: Vec<u8>) -> io::Result<Self> {
        Self::raw(vec![Step::ReadRequest, Step::Send(bytes)])
    }

    /// As [`Site::raw`], with buffers on both sides that hold some 64 KiB and
    /// not the megabytes that are usual on loopback.
    ///
    /// # Errors
    /// As [`Site::raw`].
    pub fn narrow(steps: Vec<Step>) -> io::Result<Self> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.set_recv_buffer_size(4096)?;
        // What a sender's buffer grows to hangs on the size of a segment.
        listener.set_tcp_mss(536)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        listener.listen(16)?;
        Self::on(listener.into(), Behaviour::Raw(steps))
    }

    fn start(behaviour: Behaviour) -> io::Result<Self> {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, behaviour)
    }

    fn on(listener: TcpListener, behaviour: Behaviour) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("site-{}", address.port()))
            .spawn(move || serve::serve(&listener, &behaviour, &of_thread))?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The last requests, the oldest first.
    pub fn requests(&self) -> VecDeque<String> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.shared.stop();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A port on which every connection is refused: bound, so that nobody else is given
/// it, and not listened on, until its owner does by `TcpListener::bind`.
pub struct Refusing(Socket);

impl Refusing {
    /// Takes a port.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn new() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // As the listener that is to share it has it.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        Ok(Self(socket))
    }

    /// The port.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn port(&self) -> io::Result<u16> {
        port_of(&self.0)
    }
}

/// A port on which connections are neither accepted nor refused: its queue is
/// full, so the system drops what asks for more.
pub struct BlackHole {
    listener: Socket,
    _queue: Mutex<Vec<Socket>>,
}

impl BlackHole {
    /// Takes a port and fills its queue.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn new() -> io::Result<Self> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        listener.listen(0)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port_of(&listener)?));
        let mut queue = Vec::new();
        // A queue of length 0 holds one. A connection to it stands at once; the
        // first that does not shows that the queue is full.
        while queue.len() < 16 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            let stands = socket.connect_timeout(&address.into(), Duration::from_millis(100));
            queue.push(socket);
            if stands.is_err() {
                break;
            }
        }
        Ok(Self { listener, _queue: Mutex::new(queue) })
    }

    /// The port.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn port(&self) -> io::Result<u16> {
        port_of(&self.listener)
    }
}

fn port_of(socket: &Socket) -> io::Result<u16> {
    let address = socket.local_addr()?;
    address.as_socket().map(|address| address.port()).ok_or_else(|| io::Error::other("no port"))
}
