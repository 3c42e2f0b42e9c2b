//! HTTP sites on free ports of loopback with scripted responses and failures.
//!
//! Dropping a site closes its connections and joins its threads.

mod demo;
mod responses;
mod serve;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};

pub use demo::{DemoSite, DemoSites, start_demo_sites};
pub use responses::{
    chunked, deflate_raw, deflate_zlib, gzip, page, redirect, response_head, response_with_body,
    status_response,
};
use serve::SiteState;

/// Number of requests that a site remembers.
const REQUESTS_MAX: usize = 100;

/// One step of a connection. After the last step the site closes the connection.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads a whole request.
    ReadRequest,
    /// Waits for the first byte and reads once.
    ReadSome,
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends single bytes with this pause before each.
    Drip(Vec<u8>, Duration),
    /// Waits for this time.
    Wait(Duration),
    /// Reads and discards until the peer closes the connection or the site stops.
    Hang,
    /// Closes the connection with a TCP reset.
    Reset,
}

/// Maps the path of a request to steps.
type Handler = dyn Fn(&str) -> Vec<Step> + Send + Sync;

/// How a site handles a connection.
enum ConnectionScript {
    /// Runs these steps.
    Raw(Vec<Step>),
    /// Reads a request and runs the steps for its path.
    Http(Box<Handler>),
    /// The same over TLS.
    Https(Arc<ServerConfig>, Box<Handler>),
}

/// A running site.
pub struct Site {
    address: SocketAddr,
    shared: Arc<SiteState>,
    thread: Option<JoinHandle<()>>,
}

impl Site {
    /// Starts a site that runs these steps on each connection.
    ///
    /// # Errors
    /// Fails if no port is available.
    pub fn raw(steps: Vec<Step>) -> io::Result<Self> {
        Self::start(ConnectionScript::Raw(steps))
    }

    /// Starts an HTTP site that reads a request and runs the steps for its path.
    ///
    /// # Errors
    /// Same as [`Site::raw`].
    pub fn http(handler: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> io::Result<Self> {
        Self::start(ConnectionScript::Http(Box::new(handler)))
    }

    /// Starts an HTTPS site that reads a request and runs the steps for its path.
    ///
    /// # Errors
    /// Same as [`Site::raw`].
    pub fn https(
        config: Arc<ServerConfig>,
        handler: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::start(ConnectionScript::Https(config, Box::new(handler)))
    }

    /// Starts an HTTP site that sends these bytes as the response to any request.
    ///
    /// # Errors
    /// Same as [`Site::raw`].
    pub fn sends(bytes: Vec<u8>) -> io::Result<Self> {
        Self::raw(vec![Step::ReadRequest, Step::Send(bytes)])
    }

    /// Same as [`Site::raw`], with socket buffers of about 64 KiB in both directions, instead of
    /// the megabytes that are usual on loopback.
    ///
    /// # Errors
    /// Same as [`Site::raw`].
    pub fn raw_with_small_buffers(steps: Vec<Step>) -> io::Result<Self> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.set_recv_buffer_size(4096)?;
        // The growth of the send buffer depends on the segment size.
        listener.set_tcp_mss(536)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        listener.listen(16)?;
        Self::start_on(listener.into(), ConnectionScript::Raw(steps))
    }

    fn start(script: ConnectionScript) -> io::Result<Self> {
        Self::start_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, script)
    }

    fn start_on(listener: TcpListener, script: ConnectionScript) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(SiteState::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("site-{}", address.port()))
            .spawn(move || serve::serve(&listener, &script, &for_thread))?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The last requests, oldest first.
    pub fn requests(&self) -> VecDeque<String> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.shared.stop();
        // Unblocks the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A port that refuses every connection: it is bound, so that nobody else gets it, but not
/// listening. The owner can start to listen with `TcpListener::bind`.
pub struct RefusingPort(Socket);

impl RefusingPort {
    /// Binds a free port.
    ///
    /// # Errors
    /// Fails if no port is available.
    pub fn new() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // The listener that will share the port sets this option too.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        Ok(Self(socket))
    }

    /// The port.
    ///
    /// # Errors
    /// Fails if the system does not return the address.
    pub fn port(&self) -> io::Result<u16> {
        local_port(&self.0)
    }
}

/// A port that neither accepts nor refuses connections: its backlog is full, so the system drops
/// further SYN packets.
pub struct BlackHole {
    listener: Socket,
    _queue: Mutex<Vec<Socket>>,
}

impl BlackHole {
    /// Binds a free port and fills its backlog.
    ///
    /// # Errors
    /// Fails if no port is available.
    pub fn new() -> io::Result<Self> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        listener.listen(0)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, local_port(&listener)?));
        let mut queue = Vec::new();
        // A backlog of length 0 holds one connection, which is established at once. The first
        // connection that is not established shows that the backlog is full.
        while queue.len() < 16 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            let connected = socket.connect_timeout(&address.into(), Duration::from_millis(100));
            queue.push(socket);
            if connected.is_err() {
                break;
            }
        }
        Ok(Self { listener, _queue: Mutex::new(queue) })
    }

    /// The port.
    ///
    /// # Errors
    /// Fails if the system does not return the address.
    pub fn port(&self) -> io::Result<u16> {
        local_port(&self.listener)
    }
}

fn local_port(socket: &Socket) -> io::Result<u16> {
    let address = socket.local_addr()?;
    address.as_socket().map(|address| address.port()).ok_or_else(|| io::Error::other("no port"))
}
