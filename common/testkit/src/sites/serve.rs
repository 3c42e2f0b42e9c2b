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

use super::{Behaviour, REQUESTS_MAX, Step};

/// The longest head of a request that is read.
const REQUEST_BYTES_MAX: usize = 128 * 1024;

/// What a site's threads and its owner share.
#[derive(Default)]
pub(super) struct Shared {
    stopping: AtomicBool,
    /// Guards nothing; those who wait for the end wait on it.
    gate: Mutex<()>,
    stopped: Condvar,
    open: Mutex<HashMap<u64, TcpStream>>,
    accepted: AtomicU64,
    pub(super) requests: Mutex<VecDeque<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn stop(&self) {
        {
            let _gate = lock(&self.gate);
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

    /// Waits, but not beyond the site's end.
    fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut gate = lock(&self.gate);
        while !self.is_stopping() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            gate = match self.stopped.wait_timeout(gate, left) {
                Ok((gate, _)) => gate,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// Accepts until the site is stopped; a thread for each connection, joined at
/// the end.
pub(super) fn serve(listener: &TcpListener, behaviour: &Behaviour, shared: &Shared) {
    thread::scope(|scope| {
        while let Ok((socket, _)) = listener.accept() {
            let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
            let Ok(copy) = socket.try_clone() else { continue };
            lock(&shared.open).insert(number, copy);
            // Looked at after the connection is on the list: either the one
            // who stops finds it there, or the stop is seen here.
            if shared.is_stopping() {
                return;
            }
            scope.spawn(move || {
                // What the other side does to the connection is its own matter.
                let _ = connection(&socket, behaviour, shared);
                // A reset is sent when the last copy is closed.
                lock(&shared.open).remove(&number);
                drop(socket);
            });
        }
    });
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

fn connection(socket: &TcpStream, behaviour: &Behaviour, shared: &Shared) -> io::Result<()> {
    socket.set_nodelay(true)?;
    match behaviour {
        Behaviour::Raw(steps) => run(&mut &*socket, socket, steps, shared),
        Behaviour::Http(handler) => {
            let mut plain = socket;
            let path = read_request(&mut plain, shared)?;
            run(&mut plain, socket, &handler(&path), shared)
        }
        Behaviour::Https(config, handler) => {
            let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            let mut secure = StreamOwned::new(tls, socket);
            let path = read_request(&mut secure, shared)?;
            run(&mut secure, socket, &handler(&path), shared)?;
            secure.conn.send_close_notify();
            secure.flush()
        }
    }
}

fn run(
    stream: &mut dyn Connection,
    socket: &TcpStream,
    steps: &[Step],
    shared: &Shared,
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
            // Whatever still comes is read and forgotten.
            Step::Hang => drop(io::copy(&mut &*socket, &mut io::sink())?),
            Step::Reset => {
                return SockRef::from(socket).set_linger(Some(Duration::ZERO));
            }
        }
    }
    Ok(())
}

/// The bytes of a whole request; none when its head is not there yet.
fn length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let lines = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let declared = lines.lines().find_map(|line| line.strip_prefix("content-length:"));
    Some(head + declared.and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

/// Reads a request, a body of declared length included, and returns its path.
fn read_request(stream: &mut dyn Connection, shared: &Shared) -> io::Result<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while length(&head).is_none_or(|length| head.len() < length) {
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
