//! A TCP connection to whichever address answers first.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::probe::net::socket::{self, Deadline};
use crate::probe::reason::{Failure, Phase, Reason};

/// How long an address may stay silent before the next one is tried beside it
/// (RFC 8305, section 8).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// How many addresses are tried; the rest of a longer answer is left out.
pub(crate) const ADDRESSES_MAX: usize = 16;

/// Connects to the addresses in their order: the next is started when one
/// fails or is silent for 250 ms, and the first to stand is taken, so that one
/// black hole among them costs no verdict.
///
/// # Errors
/// A failure that tells what the addresses did; when they differ, the one that
/// says most about the site (silence, then refusal, then no route).
pub(crate) fn connect(
    addresses: &[SocketAddr],
    deadline: Deadline,
) -> Result<(TcpStream, SocketAddr), Failure> {
    let addresses = &addresses[..addresses.len().min(ADDRESSES_MAX)];
    let mut race = Race { running: Vec::new(), failed: Vec::new() };
    let mut waiting = addresses.iter().copied();
    while !deadline.passed() {
        let next = waiting.next();
        if next.is_none() && race.running.is_empty() {
            break;
        }
        if let Some(address) = next
            && let Some(connected) = race.start(address)
        {
            return Ok(connected);
        }
        let until = match waiting.len() {
            0 => deadline,
            _ => deadline.or_after(NEXT_ADDRESS_AFTER),
        };
        if let Some(connected) = race.wait(until) {
            return Ok(connected);
        }
    }
    Err(race.failure(addresses))
}

struct Race {
    running: Vec<(SocketAddr, Socket)>,
    failed: Vec<io::Error>,
}

impl Race {
    /// Begins to connect; a socket only when it stands at once, as on loopback.
    fn start(&mut self, address: SocketAddr) -> Option<(TcpStream, SocketAddr)> {
        match begin(address) {
            Ok((socket, true)) => Some((socket.into(), address)),
            Ok((socket, false)) => {
                self.running.push((address, socket));
                None
            }
            Err(cause) => {
                self.failed.push(cause);
                None
            }
        }
    }

    /// Waits until one stands, one fails, or the time is up.
    fn wait(&mut self, until: Deadline) -> Option<(TcpStream, SocketAddr)> {
        if self.running.is_empty() {
            return None;
        }
        let mut polled: Vec<_> =
            self.running.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::OUT)).collect();
        if let Err(cause) = socket::wait(&mut polled, until) {
            self.failed.push(cause);
            self.running.clear();
            return None;
        }
        let ready: Vec<_> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        let (done, running) = self.running.drain(..).partition(|_| ready.next() == Some(true));
        let done: Vec<(SocketAddr, Socket)> = done;
        self.running = running;
        for (address, socket) in done {
            match socket.take_error() {
                Ok(None) => return Some((socket.into(), address)),
                Ok(Some(cause)) | Err(cause) => self.failed.push(cause),
            }
        }
        None
    }

    fn failure(self, addresses: &[SocketAddr]) -> Failure {
        let mut reason = match self.running.is_empty() && !self.failed.is_empty() {
            true => Reason::ConnectUnreachable,
            false => Reason::ConnectTimeout,
        };
        let mut text = None;
        for cause in &self.failed {
            let this = reason_of(cause);
            if rank(this) >= rank(reason) {
                reason = this;
                text = (this == Reason::ConnectFailed).then(|| cause.to_string());
            }
        }
        let tried: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        let tried = tried.join(", ");
        let detail = match text {
            Some(text) => format!("{text} ({tried})"),
            None => tried,
        };
        Failure::with(reason, Phase::Connect, detail)
    }
}

fn begin(address: SocketAddr) -> io::Result<(Socket, bool)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A request is one small write, which must not wait for the handshake's
    // acknowledgement.
    SockRef::from(&socket).set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok((socket, true)),
        // EINPROGRESS has no kind of its own in std.
        Err(cause) if in_progress(&cause) => Ok((socket, false)),
        Err(cause) => Err(cause),
    }
}

fn in_progress(cause: &io::Error) -> bool {
    let code = cause.raw_os_error();
    code == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
        || cause.kind() == ErrorKind::WouldBlock
        || cause.kind() == ErrorKind::Interrupted
}

fn reason_of(cause: &io::Error) -> Reason {
    match cause.kind() {
        ErrorKind::ConnectionRefused => Reason::ConnectRefused,
        ErrorKind::ConnectionReset => Reason::ConnectionReset,
        ErrorKind::TimedOut => Reason::ConnectTimeout,
        ErrorKind::NetworkUnreachable
        | ErrorKind::HostUnreachable
        // No address of that family on this machine.
        | ErrorKind::AddrNotAvailable
        | ErrorKind::Unsupported
        | ErrorKind::NetworkDown => Reason::ConnectUnreachable,
        _ => Reason::ConnectFailed,
    }
}

fn rank(reason: Reason) -> u8 {
    match reason {
        Reason::ConnectUnreachable => 0,
        Reason::ConnectFailed => 1,
        Reason::ConnectTimeout => 3,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Instant;

    use testkit::sites::{BlackHole, Refusing, Site};

    use super::*;

    fn here(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    fn the_first_address_to_answer_is_taken() {
        let (held, refusing) = (BlackHole::new().unwrap(), Refusing::new().unwrap());
        let (silent, refused) = (here(held.port().unwrap()), here(refusing.port().unwrap()));
        let unreachable = SocketAddr::from(([127, 255, 255, 255], 81));
        let site = Site::raw(vec![]).unwrap();
        for (others, least, most) in [
            (vec![], 0, 200),
            (vec![refused, unreachable], 0, 200),
            (vec![silent], 250, 950),
            (vec![silent, refused, silent], 500, 950),
        ] {
            let addresses = [others.as_slice(), &[site.address()]].concat();
            let begun = Instant::now();
            let deadline = Deadline::after(Duration::from_secs(10));
            let (socket, address) = connect(&addresses, deadline).unwrap();
            assert_eq!(address, site.address());
            let took = begun.elapsed().as_millis();
            assert_eq!(socket.peer_addr().unwrap(), site.address());
            assert!((least..most).contains(&took), "{addresses:?} took {took} ms");
        }
    }

    #[test]
    fn the_failure_is_the_one_that_says_most() {
        let (hole, refusing) = (BlackHole::new().unwrap(), Refusing::new().unwrap());
        let (silent, refused) = (here(hole.port().unwrap()), here(refusing.port().unwrap()));
        let unreachable = SocketAddr::from(([127, 255, 255, 255], 81));
        for (addresses, expected) in [
            (vec![unreachable], Reason::ConnectUnreachable),
            (vec![refused, unreachable], Reason::ConnectRefused),
            (vec![unreachable, refused], Reason::ConnectRefused),
            (vec![silent, refused], Reason::ConnectTimeout),
            (vec![refused, silent], Reason::ConnectTimeout),
            (vec![silent, unreachable], Reason::ConnectTimeout),
        ] {
            let deadline = Deadline::after(Duration::from_millis(400));
            let failure = connect(&addresses, deadline).unwrap_err();
            let all: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
            assert_eq!((failure.reason, failure.detail), (expected, Some(all.join(", "))));
        }
    }
}
