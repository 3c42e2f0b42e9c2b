//! Ten thousand sites in one thread, which record the times of their requests.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testkit::sites::page;

use crate::BenchError;

/// Maximum size of a request.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Maximum number of events per epoll call.
const EVENTS_MAX: usize = 256;
/// The key of the listener. Connections have other keys.
const LISTENER: u64 = 0;

/// A request: the time at which its connection was accepted, and its target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RequestArrival {
    /// Seconds since the start of the server.
    pub(crate) at_s: f64,
    /// The target number in its path.
    pub(crate) target: usize,
}

/// Sites at `/N`, which respond with a page, and at `/hang/N`, which never respond. One thread
/// serves all, because one thread per hanging connection would cost more than the programs under
/// test.
pub(crate) struct SiteServer {
    address: SocketAddr,
    shared: Arc<SiteServerState>,
    thread: Option<JoinHandle<()>>,
}

struct SiteServerState {
    stopping: AtomicBool,
    accepted: AtomicU64,
    arrivals: Mutex<Vec<RequestArrival>>,
    started_at: Instant,
}

impl SiteServer {
    /// Starts the server on a free port of loopback.
    pub(crate) fn start() -> Result<Self, BenchError> {
        // A tenth of all connections hang at the same time, for two programs in the worst case.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(SiteServerState {
            stopping: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            arrivals: Mutex::default(),
            started_at: Instant::now(),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("sites".to_owned()).spawn(move || {
            if let Err(error) = EventLoop::new(listener, &for_thread).and_then(EventLoop::run) {
                log::error!("site server: {error}");
            }
        })?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// The URL of a target.
    pub(crate) fn url(&self, target: usize, hangs: bool) -> String {
        let path = if hangs { "hang/" } else { "" };
        format!("http://{}/{path}{target}", self.address)
    }

    /// Seconds since the start of the server.
    pub(crate) fn now_s(&self) -> f64 {
        self.shared.started_at.elapsed().as_secs_f64()
    }

    /// Number of accepted connections.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Returns the requests since the last call.
    pub(crate) fn take_arrivals(&self) -> Vec<RequestArrival> {
        std::mem::take(&mut self.shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for SiteServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct OpenConnection {
    stream: TcpStream,
    at_s: f64,
    head: Vec<u8>,
    hangs: bool,
}

struct EventLoop<'a> {
    shared: &'a SiteServerState,
    epoll: std::os::fd::OwnedFd,
    listener: TcpListener,
    open: HashMap<u64, OpenConnection>,
    last_key: u64,
    response: Vec<u8>,
}

impl<'a> EventLoop<'a> {
    fn new(listener: TcpListener, shared: &'a SiteServerState) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let response = page("<title>well</title>");
        Ok(Self { shared, epoll, listener, open: HashMap::new(), last_key: LISTENER, response })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while !self.shared.stopping.load(Ordering::SeqCst) {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            // New connections first, so that their time is exact.
            if events.iter().any(|event| event.data.u64() == LISTENER) {
                self.accept()?;
            }
            for event in &events {
                let key = event.data.u64();
                if let Some(connection) = self.open.get_mut(&key)
                    && !connection.read_and_respond(self.shared, &self.response)
                {
                    self.open.remove(&key);
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The connection was reset before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let at_s = self.shared.started_at.elapsed().as_secs_f64();
            self.shared.accepted.fetch_add(1, Ordering::Relaxed);
            stream.set_nonblocking(true)?;
            self.last_key += 1;
            epoll::add(&self.epoll, &stream, EventData::new_u64(self.last_key), EventFlags::IN)?;
            let connection = OpenConnection { stream, at_s, head: Vec::new(), hangs: false };
            self.open.insert(self.last_key, connection);
        }
    }
}

impl OpenConnection {
    /// Reads available input and responds to a complete request. Returns whether the connection
    /// stays open.
    fn read_and_respond(&mut self, shared: &SiteServerState, response: &[u8]) -> bool {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) if self.hangs => {}
                Ok(count) => self.head.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.head.len() > HEAD_BYTES_MAX {
                return false;
            }
        }
        if self.hangs || !self.head.ends_with(b"\r\n\r\n") {
            return true;
        }
        let Some((target, hangs)) = parse_target(&self.head) else { return false };
        let arrival = RequestArrival { at_s: self.at_s, target };
        shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
        self.hangs = hangs;
        if !hangs {
            // Smaller than the send buffer.
            let _ = self.stream.write_all(response);
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        hangs
    }
}

/// Returns the target in the path of a request, and whether it hangs.
fn parse_target(head: &[u8]) -> Option<(usize, bool)> {
    let path = std::str::from_utf8(head).ok()?.split(' ').nth(1)?.strip_prefix('/')?;
    match path.strip_prefix("hang/") {
        Some(number) => Some((number.parse().ok()?, true)),
        None => Some((path.parse().ok()?, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_get_a_response_and_requests_that_hang_are_counted() {
        let sites = SiteServer::start().unwrap();
        let request = |path: &str| {
            let mut stream = TcpStream::connect(sites.address).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\n").unwrap();
            write!(stream, "Host: a\r\n\r\n").unwrap();
            stream
        };
        let mut hanging = request("/hang/7");
        let mut response = String::new();
        request("/8").read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        hanging.set_nonblocking(true).unwrap();
        assert_eq!(hanging.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let arrivals = sites.take_arrivals();
        assert_eq!(arrivals.iter().map(|arrival| arrival.target).collect::<Vec<_>>(), [7, 8]);
        assert!(arrivals[0].at_s <= arrivals[1].at_s && arrivals[1].at_s <= sites.now_s());
        assert_eq!((sites.accepted(), sites.take_arrivals()), (2, vec![]));
    }
}
