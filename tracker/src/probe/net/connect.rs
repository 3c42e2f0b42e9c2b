//! Opens a TCP connection to the first address that answers.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::deadline::Deadline;
use super::socket;
use crate::probe::reason::{Failure, Phase, Reason};

/// How long to wait for an address before the next address is tried as well (RFC 8305,
/// section 8).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// The most addresses to try.
pub(crate) const ADDRESSES_MAX: usize = 16;

/// Connects to the addresses in their order, and returns the first connection.
///
/// The next address is tried when one fails or does not answer for 250 ms, so one address
/// that does not answer does not fail the probe.
///
/// # Errors
/// The failure of the addresses. If the failures differ, the most informative failure is
/// returned: no answer, then refused, then no route.
pub(crate) fn connect(
    addresses: &[SocketAddr],
    deadline: Deadline,
) -> Result<(TcpStream, SocketAddr), Failure> {
    let addresses = &addresses[..addresses.len().min(ADDRESSES_MAX)];
    let mut race = ConnectionRace { pending: Vec::new(), errors: Vec::new() };
    let mut untried = addresses.iter().copied();
    while !deadline.has_passed() {
        let next = untried.next();
        if next.is_none() && race.pending.is_empty() {
            break;
        }
        if let Some(address) = next
            && let Some(connected) = race.start(address)
        {
            return Ok(connected);
        }
        let until = match untried.len() {
            0 => deadline,
            _ => deadline.within(NEXT_ADDRESS_AFTER),
        };
        if let Some(connected) = race.wait(until) {
            return Ok(connected);
        }
    }
    Err(race.into_failure(addresses))
}

struct ConnectionRace {
    pending: Vec<(SocketAddr, Socket)>,
    errors: Vec<io::Error>,
}

impl ConnectionRace {
    /// Starts to connect. Returns the connection if it is established at once, as on
    /// loopback.
    fn start(&mut self, address: SocketAddr) -> Option<(TcpStream, SocketAddr)> {
        match start_connect(address) {
            Ok((socket, true)) => Some((socket.into(), address)),
            Ok((socket, false)) => {
                self.pending.push((address, socket));
                None
            }
            Err(cause) => {
                self.errors.push(cause);
                None
            }
        }
    }

    /// Waits until a connection is established, one fails, or the time is over.
    fn wait(&mut self, until: Deadline) -> Option<(TcpStream, SocketAddr)> {
        if self.pending.is_empty() {
            return None;
        }
        let mut polled: Vec<_> =
            self.pending.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::OUT)).collect();
        if let Err(cause) = socket::wait_any(&mut polled, until) {
            self.errors.push(cause);
            self.pending.clear();
            return None;
        }
        let ready: Vec<_> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        let (done, pending): (Vec<_>, Vec<_>) =
            self.pending.drain(..).partition(|_| ready.next() == Some(true));
        self.pending = pending;
        for (address, socket) in done {
            match socket.take_error() {
                Ok(None) => return Some((socket.into(), address)),
                Ok(Some(cause)) | Err(cause) => self.errors.push(cause),
            }
        }
        None
    }

    fn into_failure(self, addresses: &[SocketAddr]) -> Failure {
        let mut reason = match self.pending.is_empty() && !self.errors.is_empty() {
            true => Reason::ConnectUnreachable,
            false => Reason::ConnectTimeout,
        };
        let mut error_text = None;
        for cause in &self.errors {
            let cause_reason = reason_of(cause);
            if rank(cause_reason) >= rank(reason) {
                reason = cause_reason;
                error_text = (reason == Reason::ConnectFailed).then(|| cause.to_string());
            }
        }
        let tried: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        let tried = tried.join(", ");
        let detail = match error_text {
            Some(text) => format!("{text} ({tried})"),
            None => tried,
        };
        Failure::with_detail(reason, Phase::Connect, detail)
    }
}

/// Returns the socket, and whether it is connected already.
fn start_connect(address: SocketAddr) -> io::Result<(Socket, bool)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A request is one small write. It must not wait for the acknowledgement of the
    // handshake.
    SockRef::from(&socket).set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok((socket, true)),
        Err(cause) if is_in_progress(&cause) => Ok((socket, false)),
        Err(cause) => Err(cause),
    }
}

fn is_in_progress(cause: &io::Error) -> bool {
    // std has no ErrorKind for EINPROGRESS.
    cause.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
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
        // This machine has no address of that family.
        | ErrorKind::AddrNotAvailable
        | ErrorKind::Unsupported
        | ErrorKind::NetworkDown => Reason::ConnectUnreachable,
        _ => Reason::ConnectFailed,
    }
}

/// A higher rank is more informative about the site.
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

    use testkit::sites::{BlackHole, RefusingPort, Site};

    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    fn the_first_address_to_answer_is_used() {
        let (hole, refusing) = (BlackHole::new().unwrap(), RefusingPort::new().unwrap());
        let (silent, refused) =
            (loopback(hole.port().unwrap()), loopback(refusing.port().unwrap()));
        let unreachable = SocketAddr::from(([127, 255, 255, 255], 81));
        let site = Site::raw(vec![]).unwrap();
        for (others, ms_min, ms_max) in [
            (vec![], 0, 200),
            (vec![refused, unreachable], 0, 200),
            (vec![silent], 250, 950),
            (vec![silent, refused, silent], 500, 950),
        ] {
            let addresses = [others.as_slice(), &[site.address()]].concat();
            let started_at = Instant::now();
            let deadline = Deadline::after(Duration::from_secs(10));
            let (socket, address) = connect(&addresses, deadline).unwrap();
            assert_eq!(address, site.address());
            let elapsed_ms = started_at.elapsed().as_millis();
            assert_eq!(socket.peer_addr().unwrap(), site.address());
            assert!((ms_min..ms_max).contains(&elapsed_ms), "{addresses:?} took {elapsed_ms} ms");
        }
    }

    #[test]
    fn the_failure_that_says_most_is_reported() {
        let (hole, refusing) = (BlackHole::new().unwrap(), RefusingPort::new().unwrap());
        let (silent, refused) =
            (loopback(hole.port().unwrap()), loopback(refusing.port().unwrap()));
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
