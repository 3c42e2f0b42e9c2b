//! The bytes under a connection: a socket with a deadline, in plain text or TLS.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::address::Address;
use super::error::Error;
use super::settings::Settings;
use super::tls::{Security, Tls, TlsFailure};
use common::stop::Cutoff;

/// A socket whose every read and write ends at one deadline, however many of
/// them a request takes, or at the program's cutoff.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: TcpStream,
    deadline: Instant,
    cutoff: Option<Cutoff>,
}

impl Socket {
    /// Reads or writes in waits that are short enough to see the cutoff.
    fn wait(
        &mut self,
        mut attempt: impl FnMut(&mut TcpStream, Duration) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            let cutoff = self.cutoff.as_ref().and_then(Cutoff::at);
            let deadline = cutoff.map_or(self.deadline, |cutoff| cutoff.min(self.deadline));
            let mut left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if self.cutoff.is_some() {
                left = left.min(Cutoff::LOOK_EVERY);
            }
            match attempt(&mut self.tcp, left) {
                // So a socket's time-out shows on Unix.
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(|tcp, left| {
            tcp.set_read_timeout(Some(left))?;
            tcp.read(buffer)
        })
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.wait(|tcp, left| {
            tcp.set_write_timeout(Some(left))?;
            tcp.write(buffer)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How far a connection has come, for the guess at why it was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was answered.
    Silent,
    /// The broker has told its versions, which it does to everybody.
    Greeted,
    /// It has answered a request that only those who may can make.
    Working,
}

/// An open connection before Kafka is spoken on it.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Socket),
    Tls { stream: Box<StreamOwned<ClientConnection, Socket>>, tls: Arc<Tls> },
}

impl Stream {
    /// Resolves, connects and shakes hands, all before `deadline` and the cutoff
    /// as it is when that begins, but for the resolving, which the C library bounds.
    pub(super) fn open(
        settings: &Settings,
        address: &Address,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let tls = match &settings.security {
            Security::Plain => None,
            Security::Tls { roots, identity } => {
                Some(settings.tls.get(roots.as_ref(), identity.as_ref())?)
            }
        };
        let cutoff = settings.cutoff.as_ref().and_then(Cutoff::at);
        let until = cutoff.map_or(deadline, |cutoff| cutoff.min(deadline));
        let tcp = connect(address, until)
            .map_err(|cause| Error::Connect { address: address.clone(), cause: Arc::new(cause) })?;
        let socket = Socket { tcp, deadline, cutoff: settings.cutoff.clone() };
        match tls {
            None => Ok(Self::Plain(socket)),
            Some(tls) => shake_hands(address, socket, tls),
        }
    }

    /// Until when what is read or written next must be done.
    pub(super) fn set_deadline(&mut self, deadline: Instant) {
        match self {
            Self::Plain(socket) => socket.deadline = deadline,
            Self::Tls { stream, .. } => stream.sock.deadline = deadline,
        }
    }

    /// Whether a read would find something, be it the end, within `wait`.
    pub(super) fn has_bytes(&mut self, wait: Duration) -> bool {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls { stream, .. } => &mut stream.sock,
        };
        let peeked =
            socket.tcp.set_read_timeout(Some(wait)).and_then(|()| socket.tcp.peek(&mut [0]));
        !peeked.is_err_and(|cause| cause.kind() == io::ErrorKind::WouldBlock)
    }

    /// Turns a failed read or write into an error that says what it means.
    pub(super) fn failed(
        &self,
        address: &Address,
        api: &'static str,
        cause: io::Error,
        stage: Stage,
    ) -> Error {
        let address = address.clone();
        if cause.kind() == io::ErrorKind::TimedOut {
            return Error::Timeout { address, api };
        }
        if let Self::Tls { tls, .. } = self
            && let Some(error) = rustls_error(&cause)
        {
            return Error::Tls { address, failure: TlsFailure::new(error.clone(), tls) };
        }
        let hint = match (self, stage) {
            (Self::Plain(_), Stage::Silent) => Some("before its first answer; is it a TLS port"),
            (Self::Tls { .. }, Stage::Silent) => {
                Some("before its first answer; does it take our client certificate")
            }
            (_, Stage::Greeted) => Some("when it had told its versions; does it want SASL"),
            (_, Stage::Working) => None,
        };
        Error::Disconnected { address, cause: Arc::new(cause), hint }
    }
}

fn rustls_error(cause: &io::Error) -> Option<&rustls::Error> {
    cause.get_ref()?.downcast_ref()
}

fn connect(address: &Address, deadline: Instant) -> io::Result<TcpStream> {
    let candidates: Vec<_> = (address.host.as_str(), address.port).to_socket_addrs()?.collect();
    let mut last = io::Error::other("the name has no address");
    for (index, candidate) in candidates.iter().enumerate() {
        // An address that swallows packets must leave time for the others.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(candidates.len() - index).unwrap_or(1);
        if share.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(candidate, share) {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Err(cause) => last = cause,
        }
    }
    Err(last)
}

fn shake_hands(address: &Address, mut socket: Socket, tls: Arc<Tls>) -> Result<Stream, Error> {
    let refused = |failure| Error::Tls { address: address.clone(), failure };
    let name = ServerName::try_from(address.host.clone())
        .map_err(|_| refused(TlsFailure::text("no certificate can be for this host name")))?;
    let mut connection = ClientConnection::new(Arc::clone(&tls.config), name)
        .map_err(|cause| refused(TlsFailure::new(cause, &tls)))?;
    while connection.is_handshaking() {
        if let Err(cause) = connection.complete_io(&mut socket) {
            if cause.kind() == io::ErrorKind::TimedOut {
                return Err(Error::Timeout { address: address.clone(), api: "TLS handshake" });
            }
            return Err(match rustls_error(&cause) {
                Some(error) => refused(TlsFailure::new(error.clone(), &tls)),
                None => Error::Disconnected {
                    address: address.clone(),
                    cause: Arc::new(cause),
                    hint: Some("in the TLS handshake; is it a plain-text port"),
                },
            });
        }
    }
    Ok(Stream::Tls { stream: Box::new(StreamOwned::new(connection, socket)), tls })
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls { stream, .. } => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(buffer),
            Self::Tls { stream, .. } => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls { stream, .. } => stream.flush(),
        }
    }
}
