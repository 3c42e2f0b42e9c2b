//! A connection to a site, with or without TLS, that ends at the deadline.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection};

use super::socket::TimedSocket;
use super::tls;
use crate::probe::reason::{Failure, Phase, Reason};

/// An error of an established connection.
#[derive(Debug)]
pub(crate) enum StreamError {
    Timeout,
    Reset,
    Closed,
    Tls(rustls::Error),
    Io(io::Error),
}

impl From<io::Error> for StreamError {
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

impl StreamError {
    /// The failure of a probe that had this error in this phase.
    pub(crate) fn into_failure(self, phase: Phase) -> Failure {
        let place = phase.description();
        match self {
            Self::Timeout => Failure::with_detail(timeout_reason(phase), phase, place),
            Self::Tls(cause) => tls::failure(&cause, phase),
            Self::Reset if phase == Phase::Request => {
                let detail = format!("{place}: connection reset");
                Failure::with_detail(Reason::SendFailed, phase, detail)
            }
            Self::Reset => Failure::with_detail(Reason::ConnectionReset, phase, place),
            Self::Closed => Failure::with_detail(Reason::ClosedEarly, phase, place),
            Self::Io(cause) => {
                let reason = match phase {
                    Phase::Request => Reason::SendFailed,
                    _ => Reason::ConnectionFailed,
                };
                Failure::with_detail(reason, phase, format!("{place}: {cause}"))
            }
        }
    }

    /// When the rejected certificate expires, in seconds since 1970.
    pub(crate) fn certificate_end(&self) -> Option<i64> {
        match self {
            Self::Tls(cause) => tls::rejected_certificate_end(cause),
            _ => None,
        }
    }
}

/// The reason when the deadline passes in this phase.
fn timeout_reason(phase: Phase) -> Reason {
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

/// A connection to a site.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TimedSocket,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    pub(crate) fn plain(socket: TimedSocket) -> Self {
        Self { socket, tls: None }
    }

    /// Does the TLS handshake. The last message of the handshake is sent together with the
    /// request, in one packet.
    ///
    /// # Errors
    /// When the certificate is rejected, the site sends an alert or no TLS, or the deadline
    /// passes.
    pub(crate) fn tls(
        mut socket: TimedSocket,
        config: Arc<ClientConfig>,
        host: ServerName<'static>,
    ) -> Result<Self, StreamError> {
        let mut tls = Box::new(ClientConnection::new(config, host).map_err(StreamError::Tls)?);
        while tls.is_handshaking() {
            write_pending(&mut tls, &mut socket)?;
            if tls.read_tls(&mut socket)? == 0 {
                return Err(StreamError::Closed);
            }
            if let Err(cause) = tls.process_new_packets() {
                // Sends the alert with the reason to the site. If that fails, the first
                // error still counts.
                let _ = tls.write_tls(&mut socket);
                return Err(StreamError::Tls(cause));
            }
        }
        Ok(Self { socket, tls: Some(tls) })
    }

    /// The certificate of the site.
    pub(crate) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.as_ref()?.peer_certificates()?.first()
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Sends all bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        match &mut self.tls {
            None => self.socket.write_all(bytes)?,
            Some(tls) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let count = tls.writer().write(rest)?;
                    rest = &rest[count..];
                    write_pending(tls, &mut self.socket)?;
                }
            }
        }
        Ok(())
    }

    /// Waits for input or the end of the input.
    pub(crate) fn wait_readable(&mut self) -> Result<(), StreamError> {
        let Some(tls) = &mut self.tls else {
            return Ok(self.socket.wait_readable()?);
        };
        loop {
            match tls.reader().fill_buf() {
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => {}
                // `receive` returns the end of the input, and other errors.
                _ => return Ok(()),
            }
            // A message after the handshake may need an answer.
            write_pending(tls, &mut self.socket)?;
            tls.read_tls(&mut self.socket)?;
            tls.process_new_packets().map_err(StreamError::Tls)?;
        }
    }

    /// Receives the input that [`Stream::wait_readable`] waited for. Returns 0 at the end.
    ///
    /// A connection that is closed without TLS's `close_notify` counts as the end too: many
    /// servers omit it, and the length of the body shows whether the body is complete.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        let Some(tls) = &mut self.tls else {
            return Ok(self.socket.read(buffer)?);
        };
        match tls.reader().read(buffer) {
            Err(cause) if cause.kind() == ErrorKind::UnexpectedEof => Ok(0),
            result => Ok(result?),
        }
    }
}

/// Writes all pending TLS messages.
fn write_pending(tls: &mut ClientConnection, socket: &mut TimedSocket) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(socket)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
