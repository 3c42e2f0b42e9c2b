//! The bytes under a connection: TLS by agreement with the server, and a
//! deadline for every wait.
//!
//! The crate asks the server for TLS without any bound on its answer, and
//! waits for results without one. Time-outs of TCP do not help where the
//! server's kernel is alive and PostgreSQL is not (a stopped process, a disk
//! that hangs). So the crate is told to start with "TLS" at once, and what it
//! is handed as TLS is this stream, which asks the server itself.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::ssl::SslConnector;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use postgres_openssl::TlsConnector;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

/// Until when whatever is waited for on one connection must have come.
#[derive(Clone, Debug, Default)]
pub struct Deadline(Arc<Mutex<Option<Instant>>>);

impl Deadline {
    /// From now on, waits end after this time.
    pub fn set(&self, within: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + within);
    }

    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket whose waits end at a deadline.
pub(super) struct Bounded<S> {
    inner: S,
    deadline: Deadline,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Bounded<S> {
    fn or_timed_out<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            return polled;
        }
        let Some(deadline) = self.deadline.get().map(Into::into) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        match timer.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the server did not answer in time",
            ))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.or_timed_out(cx, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.or_timed_out(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.or_timed_out(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.or_timed_out(cx, polled)
    }
}

/// What the crate takes for TLS: TLS, or the plain bytes.
pub(super) enum PostgresStream<S> {
    Plain(Bounded<S>),
    Tls(postgres_openssl::TlsStream<Bounded<S>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PostgresStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PostgresStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for PostgresStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        match self {
            Self::Plain(_) => ChannelBinding::none(),
            Self::Tls(stream) => stream.channel_binding(),
        }
    }
}

/// Whether, and how, TLS is asked for on one connection.
#[derive(Clone)]
pub(super) enum Negotiation {
    /// Not at all.
    Plain,
    /// By the protocol's SSLRequest.
    Ask {
        connector: SslConnector,
        verify_host: bool,
        /// Go on without when the server has none.
        or_plain: bool,
    },
    /// By starting with it.
    Direct { connector: SslConnector, verify_host: bool },
}

/// Makes the stream of one connection.
#[derive(Clone)]
pub(super) struct Negotiator {
    pub(super) negotiation: Negotiation,
    pub(super) deadline: Deadline,
}

/// A [`Negotiator`] for a host.
pub(super) struct HostNegotiator {
    tls: Option<TlsConnector>,
    ask: bool,
    or_plain: bool,
    deadline: Deadline,
}

impl<S> MakeTlsConnect<S> for Negotiator
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = PostgresStream<S>;
    type TlsConnect = HostNegotiator;
    type Error = ErrorStack;

    fn make_tls_connect(&mut self, host: &str) -> Result<HostNegotiator, ErrorStack> {
        let tls_for = |connector: &SslConnector, verify_host: bool| {
            let configuration = connector.configure()?.verify_hostname(verify_host);
            // As RFC 6066 and libpq: an address is no server name.
            let is_name = host.parse::<std::net::IpAddr>().is_err();
            Ok(TlsConnector::new(configuration.use_server_name_indication(is_name), host))
        };
        let (tls, ask, or_plain) = match &self.negotiation {
            Negotiation::Plain => (None, false, false),
            Negotiation::Ask { connector, verify_host, or_plain } => {
                (Some(tls_for(connector, *verify_host)?), true, *or_plain)
            }
            Negotiation::Direct { connector, verify_host } => {
                (Some(tls_for(connector, *verify_host)?), false, false)
            }
        };
        Ok(HostNegotiator { tls, ask, or_plain, deadline: self.deadline.clone() })
    }
}

impl<S> TlsConnect<S> for HostNegotiator
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = PostgresStream<S>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Self::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let mut stream = Bounded { inner: stream, deadline: self.deadline, timer: None };
            let Some(tls) = self.tls else { return Ok(PostgresStream::Plain(stream)) };
            if self.ask {
                // Length 8 and the code 1234 5679: the manual, "SSL Session Encryption".
                stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
                // One byte and no more: what follows belongs to the handshake,
                // so that nothing sent in clear can pass for encrypted.
                match stream.read_u8().await? {
                    b'S' => {}
                    b'N' if self.or_plain => return Ok(PostgresStream::Plain(stream)),
                    b'N' => return Err(NegotiationError::NoTls.into()),
                    _ => return Err(NegotiationError::NotPostgres.into()),
                }
            }
            Ok(PostgresStream::Tls(tls.connect(stream).await?))
        })
    }
}

/// Why the server's answer to the request for TLS ends the try.
#[derive(Debug)]
enum NegotiationError {
    /// The server refuses, and the mode insists.
    NoTls,
    /// The answer is none that PostgreSQL gives.
    NotPostgres,
}

impl fmt::Display for NegotiationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTls => "the server has no TLS",
            Self::NotPostgres => "the server does not answer as postgresql does",
        })
    }
}

impl Error for NegotiationError {}
