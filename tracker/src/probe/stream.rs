//! A connection, plain or TLS, that keeps the deadline and the cause of what
//! fails on it.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection};

use super::deadline::Wire;
use super::tls;
use super::verdict::{Failure, Phase, Reason};

/// What went wrong on a connection that stood.
#[derive(Debug)]
pub(super) enum Fault {
    Timeout,
    Reset,
    Closed,
    Tls(rustls::Error),
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(cause: io::Error) -> Self {
        match cause.kind() {
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                Self::Reset
            }
            ErrorKind::UnexpectedEof => Self::Closed,
            _ => match cause.downcast::<rustls::Error>() {
                Ok(cause) => Self::Tls(cause),
                Err(cause) => Self::Io(cause),
            },
        }
    }
}

impl Fault {
    /// The probe's failure, given how far it was.
    pub(super) fn into_failure(self, phase: Phase) -> Failure {
        let place = phase.place();
        match self {
            Self::Timeout => Failure::with(timeout_in(phase), phase, place),
            Self::Tls(cause) => tls::failure(&cause, phase),
            Self::Reset if phase == Phase::Request => {
                Failure::with(Reason::SendFailed, phase, format!("{place}: connection reset"))
            }
            Self::Reset => Failure::with(Reason::ConnectionReset, phase, place),
            Self::Closed => Failure::with(Reason::ClosedEarly, phase, place),
            Self::Io(cause) => {
                let reason = match phase {
                    Phase::Request => Reason::SendFailed,
                    _ => Reason::ConnectionFailed,
                };
                Failure::with(reason, phase, format!("{place}: {cause}"))
            }
        }
    }

    /// When the certificate ends that the handshake failed for.
    pub(super) fn certificate_end(&self) -> Option<i64> {
        match self {
            Self::Tls(cause) => tls::refused_end(cause),
            _ => None,
        }
    }
}

/// What the deadline is called by when it came.
fn timeout_in(phase: Phase) -> Reason {
    match phase {
        Phase::Resolve => Reason::DnsTimeout,
        Phase::Connect => Reason::ConnectTimeout,
        Phase::Tls => Reason::TlsTimeout,
        Phase::Request => Reason::SendTimeout,
        Phase::FirstByte => Reason::FirstByteTimeout,
        Phase::Head => Reason::HeadTimeout,
        Phase::Redirect | Phase::Body | Phase::Check => Reason::BodyTimeout,
    }
}

/// A connection to the site.
#[derive(Debug)]
pub(super) struct Stream {
    wire: Wire,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    pub(super) fn plain(wire: Wire) -> Self {
        Self { wire, tls: None }
    }

    /// Does the handshake.
    ///
    /// # Errors
    /// A bad certificate, an alert, bytes that are not TLS, the deadline.
    pub(super) fn tls(
        mut wire: Wire,
        config: Arc<ClientConfig>,
        host: ServerName<'static>,
    ) -> Result<Self, Fault> {
        let mut tls = Box::new(ClientConnection::new(config, host).map_err(Fault::Tls)?);
        while tls.is_handshaking() {
            tls.complete_io(&mut wire)?;
        }
        Ok(Self { wire, tls: Some(tls) })
    }

    /// The site's own certificate.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.as_ref()?.peer_certificates()?.first()
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Sends all of it.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match &mut self.tls {
            None => self.wire.write_all(bytes)?,
            Some(tls) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let taken = tls.writer().write(rest)?;
                    rest = &rest[taken..];
                    while tls.wants_write() {
                        tls.write_tls(&mut self.wire)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads what there is, waiting for the first byte; 0 at the end. An end
    /// without TLS's own farewell is an end too: many servers leave so, and a
    /// body that is cut short is known by its own length.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let Some(tls) = &mut self.tls else {
            return Ok(self.wire.read(buffer)?);
        };
        loop {
            match tls.reader().read(buffer) {
                Ok(count) => return Ok(count),
                Err(cause) if cause.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(cause) if cause.kind() != ErrorKind::WouldBlock => return Err(cause.into()),
                Err(_) => {}
            }
            // Post-handshake messages may have left an answer to send.
            while tls.wants_write() {
                tls.write_tls(&mut self.wire)?;
            }
            tls.read_tls(&mut self.wire)?;
            tls.process_new_packets().map_err(Fault::Tls)?;
        }
    }
}
