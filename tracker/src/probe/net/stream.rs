//! A connection, plain or TLS, that keeps the deadline and the cause of what
//! fails on it.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection};

use crate::probe::net::socket::Wire;
use crate::probe::net::tls;
use crate::probe::reason::{Failure, Phase, Reason};

/// What went wrong on a connection that stood.
#[derive(Debug)]
pub(crate) enum Fault {
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
    pub(crate) fn into_failure(self, phase: Phase) -> Failure {
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
    pub(crate) fn certificate_end(&self) -> Option<i64> {
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
pub(crate) struct Stream {
    wire: Wire,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    pub(crate) fn plain(wire: Wire) -> Self {
        Self { wire, tls: None }
    }

    /// Does the handshake. What it has to say last goes with the first bytes that
    /// are sent, in one packet.
    ///
    /// # Errors
    /// A bad certificate, an alert, bytes that are not TLS, the deadline.
    pub(crate) fn tls(
        mut wire: Wire,
        config: Arc<ClientConfig>,
        host: ServerName<'static>,
    ) -> Result<Self, Fault> {
        let mut tls = Box::new(ClientConnection::new(config, host).map_err(Fault::Tls)?);
        while tls.is_handshaking() {
            write_all(&mut tls, &mut wire)?;
            if tls.read_tls(&mut wire)? == 0 {
                return Err(Fault::Closed);
            }
            if let Err(cause) = tls.process_new_packets() {
                // The site may be told why.
                let _ = tls.write_tls(&mut wire);
                return Err(Fault::Tls(cause));
            }
        }
        Ok(Self { wire, tls: Some(tls) })
    }

    /// The site's own certificate.
    pub(crate) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.as_ref()?.peer_certificates()?.first()
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Sends all of it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match &mut self.tls {
            None => self.wire.write_all(bytes)?,
            Some(tls) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let taken = tls.writer().write(rest)?;
                    rest = &rest[taken..];
                    write_all(tls, &mut self.wire)?;
                }
            }
        }
        Ok(())
    }

    /// Waits until there is something to receive, be it the end.
    pub(crate) fn wait(&mut self) -> Result<(), Fault> {
        let Some(tls) = &mut self.tls else {
            return Ok(self.wire.wait()?);
        };
        loop {
            match tls.reader().fill_buf() {
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => {}
                // Also the end, and what is wrong, is for who receives.
                _ => return Ok(()),
            }
            // Post-handshake messages may have left an answer to send.
            write_all(tls, &mut self.wire)?;
            tls.read_tls(&mut self.wire)?;
            tls.process_new_packets().map_err(Fault::Tls)?;
        }
    }

    /// Receives what there is, once [`Stream::wait`] has waited for it; 0 at the
    /// end. An end without TLS's own farewell is an end too: many servers leave so,
    /// and a body that is cut short is known by its own length.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let Some(tls) = &mut self.tls else {
            return Ok(self.wire.read(buffer)?);
        };
        match tls.reader().read(buffer) {
            Err(cause) if cause.kind() == ErrorKind::UnexpectedEof => Ok(0),
            result => Ok(result?),
        }
    }
}

/// Writes all that TLS has to say.
fn write_all(tls: &mut ClientConnection, wire: &mut Wire) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(wire)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use rustls::{AlertDescription, RootCertStore, ServerConnection, StreamOwned};
    use testkit::certificates::{Authority, Validity};

    use super::*;
    use crate::probe::net::socket::Deadline;

    /// A handshake with a site of `authority` by who trusts `trusted`; and what
    /// the site then reads, or why it can't.
    fn meet(
        authority: &Authority,
        trusted: &Authority,
        look: impl FnOnce(Result<Stream, Fault>),
    ) -> io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = authority.server(&["a.example"], Validity::Now).unwrap();
        let site = std::thread::spawn(move || {
            let tls = ServerConnection::new(config).unwrap();
            let mut text = String::new();
            let mut stream = StreamOwned::new(tls, listener.accept()?.0);
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        let mut roots = RootCertStore::empty();
        roots.add(trusted.certificate()).unwrap();
        let config = tls::client_config(roots, false, None).unwrap();
        let deadline = Deadline::after(Duration::from_secs(60));
        let wire = Wire::new(TcpStream::connect(address).unwrap(), deadline).unwrap();
        look(Stream::tls(wire, config, ServerName::try_from("a.example").unwrap()));
        site.join().unwrap()
    }

    #[test]
    fn the_end_of_a_handshake_goes_with_the_request() {
        let authority = Authority::new("own").unwrap();
        let text = meet(&authority, &authority, |stream| {
            let mut stream = stream.unwrap();
            let waits = |stream: &Stream| stream.tls.as_ref().unwrap().wants_write();
            assert!(waits(&stream));
            stream.send(b"all of it").unwrap();
            assert!(!waits(&stream));
            let tls = stream.tls.as_mut().unwrap();
            tls.send_close_notify();
            tls.write_tls(&mut stream.wire).unwrap();
        });
        assert_eq!(text.unwrap(), "all of it");
    }

    #[test]
    fn a_site_is_told_why_it_is_refused() {
        let (own, other) = (Authority::new("own").unwrap(), Authority::new("other").unwrap());
        let told = meet(&own, &other, |stream| {
            assert!(matches!(stream.unwrap_err(), Fault::Tls(_)));
        });
        let told = told.unwrap_err().downcast::<rustls::Error>().unwrap();
        assert!(
            matches!(told, rustls::Error::AlertReceived(AlertDescription::CertificateUnknown)),
            "{told}"
        );
    }
}
