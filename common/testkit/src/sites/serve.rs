//! The threads of a site.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ServerConnection, StreamOwned};
use socket2::SockRef;

use super::{ConnectionScript, REQUESTS_MAX, Step};

/// Maximum size of a request.
const REQUEST_BYTES_MAX: usize = 128 * 1024;

/// State shared by a site's threads and its owner.
#[derive(Default)]
pub(super) struct SiteState {
    stopping: AtomicBool,
    /// Guards no data. Threads that wait for the stop hold it with the condition variable.
    stop_lock: Mutex<()>,
    stopped: Condvar,
    open: Mutex<HashMap<u64, TcpStream>>,
    accepted: AtomicU64,
    pub(super) requests: Mutex<VecDeque<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SiteState {
    pub(super) fn stop(&self) {
        {
            let _stop_lock = lock(&self.stop_lock);
            self.stopping.store(true, Ordering::SeqCst);
        }
        self.stopped.notify_all();
        for socket in lock(&self.open).values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn connections(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Waits for `time`, or until the site stops.
    fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut stop_lock = lock(&self.stop_lock);
        while !self.is_stopping() {
            let remaining = until.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return;
            }
            stop_lock = match self.stopped.wait_timeout(stop_lock, remaining) {
                Ok((stop_lock, _)) => stop_lock,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// Accepts connections until the site stops. Each connection has its own thread. All threads are
/// joined at the end.
pub(super) fn serve(listener: &TcpListener, script: &ConnectionScript, shared: &SiteState) {
    thread::scope(|scope| {
        while let Ok((socket, _)) = listener.accept() {
            let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
            let Ok(copy) = socket.try_clone() else { continue };
            lock(&shared.open).insert(number, copy);
            // Checked after the connection is registered: either `stop` finds the connection
            // there, or the stop is seen here.
            if shared.is_stopping() {
                return;
            }
            scope.spawn(move || {
                // Errors of this connection concern the client only.
                let _ = serve_connection(&socket, script, shared);
                // A reset is sent when the last handle of the socket is closed.
                lock(&shared.open).remove(&number);
                drop(socket);
            });
        }
    });
}

trait ByteStream: Read + Write {}
impl<T: Read + Write> ByteStream for T {}

fn serve_connection(
    socket: &TcpStream,
    script: &ConnectionScript,
    shared: &SiteState,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    match script {
        ConnectionScript::Raw(steps) => run_steps(&mut &*socket, socket, steps, shared),
        ConnectionScript::Http(handler) => {
            let mut plain = socket;
            let path = read_request(&mut plain, shared)?;
            run_steps(&mut plain, socket, &handler(&path), shared)
        }
        ConnectionScript::Https(config, handler) => {
            let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            let mut secure = StreamOwned::new(tls, socket);
            let path = read_request(&mut secure, shared)?;
            run_steps(&mut secure, socket, &handler(&path), shared)?;
            secure.conn.send_close_notify();
            secure.flush()
        }
    }
}

fn run_steps(
    stream: &mut dyn ByteStream,
    socket: &TcpStream,
    steps: &[Step],
    shared: &SiteState,
) -> io::Result<()> {
    for step in steps {
        match step {
            Step::ReadRequest => drop(read_request(stream, shared)?),
            Step::ReadSome => drop(stream.read(&mut [0; 16 * 1024])?),
            Step::Send(bytes) => {
                stream.write_all(bytes)?;
                stream.flush()?;
            }
            Step::Drip(bytes, pause) => {
                for byte in bytes {
                    shared.wait(*pause);
                    stream.write_all(std::slice::from_ref(byte))?;
                    stream.flush()?;
                }
            }
            Step::Wait(time) => shared.wait(*time),
            // Discards further input.
            Step::Hang => drop(io::copy(&mut &*socket, &mut io::sink())?),
            Step::Reset => {
                return SockRef::from(socket).set_linger(Some(Duration::ZERO));
            }
        }
    }
    Ok(())
}

/// Returns the length of the whole request. `None` while its head is incomplete.
fn request_len(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let lines = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let declared = lines.lines().find_map(|line| line.strip_prefix("content-length:"));
    Some(head + declared.and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

/// Reads a request, including a body with `Content-Length`, and returns its path.
fn read_request(stream: &mut dyn ByteStream, shared: &SiteState) -> io::Result<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while request_len(&head).is_none_or(|length| head.len() < length) {
        let count = stream.read(&mut buffer)?;
        if count == 0 || head.len() > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&buffer[..count]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut requests = lock(&shared.requests);
    if requests.len() == REQUESTS_MAX {
        requests.pop_front();
    }
    requests.push_back(head);
    Ok(path)
}
