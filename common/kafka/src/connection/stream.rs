//! The byte stream of a connection: a socket with a deadline, in plain text or TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::address::BrokerAddress;
use crate::error::KafkaError;
use crate::security::tls::{ClientTls, Security, TlsFailure};
use crate::settings::KafkaSettings;
use common::stop::Cutoff;

/// A socket whose reads and writes all end at one deadline, or at the program's cutoff.
#[derive(Debug)]
pub(crate) struct DeadlineSocket {
    tcp: TcpStream,
    deadline: Instant,
    cutoff: Option<Cutoff>,
}

impl DeadlineSocket {
    /// Reads or writes with waits that are short enough to notice the cutoff.
    fn retry_until_deadline(
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
                left = left.min(Cutoff::POLL_INTERVAL);
            }
            match attempt(&mut self.tcp, left) {
                // A socket's time-out is reported as WouldBlock on Unix.
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}

impl Read for DeadlineSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry_until_deadline(|tcp, left| {
            tcp.set_read_timeout(Some(left))?;
            tcp.read(buffer)
        })
    }
}

impl Write for DeadlineSocket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.retry_until_deadline(|tcp, left| {
            tcp.set_write_timeout(Some(left))?;
            tcp.write(buffer)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The progress of a connection, to explain why the broker closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionStage {
    /// The broker has not answered yet.
    NoAnswer,
    /// The broker has answered ApiVersions, which needs no authentication.
    VersionsKnown,
    /// The broker has answered a request that needs authentication.
    Authenticated,
}

/// An open TCP connection, with TLS if the settings require it.
#[derive(Debug)]
pub(crate) enum BrokerStream {
    Plain(DeadlineSocket),
    Tls { stream: Box<StreamOwned<ClientConnection, DeadlineSocket>>, tls: Arc<ClientTls> },
}

impl BrokerStream {
    /// Resolves the broker's name, connects, and makes the TLS handshake. All steps end at
    /// `deadline` or the cutoff, except name resolution, which the C library bounds.
    pub(crate) fn open(
        settings: &KafkaSettings,
        address: &BrokerAddress,
        deadline: Instant,
    ) -> Result<Self, KafkaError> {
        let tls = match &settings.security {
            Security::Plain => None,
            Security::Tls { roots, identity } => {
                Some(settings.tls.get(roots.as_ref(), identity.as_ref())?)
            }
        };
        let cutoff = settings.cutoff.as_ref().and_then(Cutoff::at);
        let until = cutoff.map_or(deadline, |cutoff| cutoff.min(deadline));
        let connected = resolve(address)
            .map_err(|cause| explain_unresolved(settings, address, cause))
            .and_then(|candidates| connect(&candidates, until));
        let tcp = connected.map_err(|cause| KafkaError::Connect {
            address: address.clone(),
            cause: Arc::new(cause),
        })?;
        let socket = DeadlineSocket { tcp, deadline, cutoff: settings.cutoff.clone() };
        match tls {
            None => Ok(Self::Plain(socket)),
            Some(tls) => tls_handshake(address, socket, tls),
        }
    }

    /// Sets the deadline of all later reads and writes.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        match self {
            Self::Plain(socket) => socket.deadline = deadline,
            Self::Tls { stream, .. } => stream.sock.deadline = deadline,
        }
    }

    /// Waits up to `wait` for bytes to read or the end of the stream.
    pub(crate) fn has_bytes(&mut self, wait: Duration) -> bool {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls { stream, .. } => &mut stream.sock,
        };
        let peeked =
            socket.tcp.set_read_timeout(Some(wait)).and_then(|()| socket.tcp.peek(&mut [0]));
        !peeked.is_err_and(|cause| cause.kind() == io::ErrorKind::WouldBlock)
    }

    /// Converts an I/O error into a [`KafkaError`] with a hint at the likely reason.
    pub(crate) fn explain(
        &self,
        address: &BrokerAddress,
        api: &'static str,
        cause: io::Error,
        stage: ConnectionStage,
    ) -> KafkaError {
        let address = address.clone();
        if cause.kind() == io::ErrorKind::TimedOut {
            return KafkaError::Timeout { address, api };
        }
        if let Self::Tls { tls, .. } = self
            && let Some(error) = downcast_rustls(&cause)
        {
            return KafkaError::Tls {
                address,
                failure: TlsFailure::from_rustls(error.clone(), tls),
            };
        }
        let hint = match (self, stage) {
            (Self::Plain(_), ConnectionStage::NoAnswer) => {
                Some("closed before the first answer: is it a TLS port?")
            }
            (Self::Tls { .. }, ConnectionStage::NoAnswer) => Some(
                "closed before the first answer: does the broker accept the client certificate?",
            ),
            (_, ConnectionStage::VersionsKnown) => {
                Some("closed after ApiVersions: does the broker need SASL?")
            }
            (_, ConnectionStage::Authenticated) => None,
        };
        KafkaError::Disconnected { address, cause: Arc::new(cause), hint }
    }
}

fn downcast_rustls(cause: &io::Error) -> Option<&rustls::Error> {
    cause.get_ref()?.downcast_ref()
}

fn resolve(address: &BrokerAddress) -> io::Result<Vec<SocketAddr>> {
    Ok((address.host.as_str(), address.port).to_socket_addrs()?.collect())
}

/// Names the setting of a broker name that can't be resolved, if the name comes from a setting.
fn explain_unresolved(
    settings: &KafkaSettings,
    address: &BrokerAddress,
    cause: io::Error,
) -> io::Error {
    if settings.bootstrap.contains(address) {
        return cause;
    }
    let text = format!(
        "the name comes from advertised.listeners of the broker, and does not resolve here: {cause}"
    );
    io::Error::new(cause.kind(), text)
}

fn connect(candidates: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the host name has no address");
    for (index, candidate) in candidates.iter().enumerate() {
        // An address that drops packets must leave time for the other addresses.
        let remaining = deadline.saturating_duration_since(Instant::now());
        let share = remaining / u32::try_from(candidates.len() - index).unwrap_or(1);
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

fn tls_handshake(
    address: &BrokerAddress,
    mut socket: DeadlineSocket,
    tls: Arc<ClientTls>,
) -> Result<BrokerStream, KafkaError> {
    let refused = |failure| KafkaError::Tls { address: address.clone(), failure };
    let name = ServerName::try_from(address.host.clone()).map_err(|_| {
        refused(TlsFailure::from_text("the host name is not valid in a certificate"))
    })?;
    let mut connection = ClientConnection::new(Arc::clone(&tls.config), name)
        .map_err(|cause| refused(TlsFailure::from_rustls(cause, &tls)))?;
    while connection.is_handshaking() {
        if let Err(cause) = connection.complete_io(&mut socket) {
            if cause.kind() == io::ErrorKind::TimedOut {
                return Err(KafkaError::Timeout { address: address.clone(), api: "TLS handshake" });
            }
            return Err(match downcast_rustls(&cause) {
                Some(error) => refused(TlsFailure::from_rustls(error.clone(), &tls)),
                None => KafkaError::Disconnected {
                    address: address.clone(),
                    cause: Arc::new(cause),
                    hint: Some("closed in the TLS handshake: is it a plain-text port?"),
                },
            });
        }
    }
    Ok(BrokerStream::Tls { stream: Box::new(StreamOwned::new(connection, socket)), tls })
}

impl Read for BrokerStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls { stream, .. } => stream.read(buffer),
        }
    }
}

impl Write for BrokerStream {
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
