//! The byte stream of a connection: TLS negotiation, and a deadline for every wait.
//!
//! The crate `postgres` waits without a limit for the answer to its SSLRequest and for results. TCP
//! time-outs do not help if the server's kernel answers but PostgreSQL does not (a stopped process,
//! a disk that hangs). The crate is therefore configured for direct TLS, and this module gives it a
//! stream that negotiates TLS itself and applies the deadline.

use std::error::Error;
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

/// The deadline of all waits on one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionDeadline(Arc<Mutex<Option<Instant>>>);

impl ConnectionDeadline {
    /// Sets the deadline to `within` from now.
    pub(crate) fn set(&self, within: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + within);
    }

    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream whose reads and writes end at a deadline.
pub(crate) struct DeadlineStream<S> {
    inner: S,
    deadline: ConnectionDeadline,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> DeadlineStream<S> {
    fn or_deadline<T>(
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

impl<S: AsyncRead + Unpin> AsyncRead for DeadlineStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.or_deadline(cx, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DeadlineStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.or_deadline(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.or_deadline(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.or_deadline(cx, polled)
    }
}

/// The stream that the crate uses as a TLS stream: TLS or plain text.
pub(crate) enum PostgresStream<S> {
    Plain(DeadlineStream<S>),
    Tls(postgres_openssl::TlsStream<DeadlineStream<S>>),
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

/// The way in which TLS is negotiated on one connection.
#[derive(Clone)]
pub(crate) enum Negotiation {
    /// No TLS.
    Plain,
    /// An SSLRequest before the handshake.
    Request {
        connector: SslConnector,
        verify_host: bool,
        /// Continue in plain text if the server has no TLS.
        allow_plain: bool,
    },
    /// The handshake without an SSLRequest.
    Direct { connector: SslConnector, verify_host: bool },
}

/// Creates the stream of one connection.
#[derive(Clone)]
pub(crate) struct Negotiator {
    pub(crate) negotiation: Negotiation,
    pub(crate) deadline: ConnectionDeadline,
}

/// Creates the stream for one host.
pub(crate) struct HostNegotiator {
    tls: Option<TlsConnector>,
    send_request: bool,
    allow_plain: bool,
    deadline: ConnectionDeadline,
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
            // RFC 6066 allows no IP address as server name.
            let is_name = host.parse::<std::net::IpAddr>().is_err();
            Ok(TlsConnector::new(configuration.use_server_name_indication(is_name), host))
        };
        let (tls, send_request, allow_plain) = match &self.negotiation {
            Negotiation::Plain => (None, false, false),
            Negotiation::Request { connector, verify_host, allow_plain } => {
                (Some(tls_for(connector, *verify_host)?), true, *allow_plain)
            }
            Negotiation::Direct { connector, verify_host } => {
                (Some(tls_for(connector, *verify_host)?), false, false)
            }
        };
        Ok(HostNegotiator { tls, send_request, allow_plain, deadline: self.deadline.clone() })
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
            let mut stream = DeadlineStream { inner: stream, deadline: self.deadline, timer: None };
            let Some(tls) = self.tls else { return Ok(PostgresStream::Plain(stream)) };
            if self.send_request {
                // SSLRequest: length 8 and code 80877103 (PostgreSQL documentation, "Message
                // Formats").
                stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
                // Exactly one byte: bytes after it belong to the handshake, so that plain text
                // can't be injected into the encrypted stream (CVE-2021-23222).
                match stream.read_u8().await? {
                    b'S' => {}
                    b'N' if self.allow_plain => return Ok(PostgresStream::Plain(stream)),
                    b'N' => return Err(NegotiationError::NoTls.into()),
                    _ => return Err(NegotiationError::NotPostgres.into()),
                }
            }
            Ok(PostgresStream::Tls(tls.connect(stream).await?))
        })
    }
}

/// The reason why the server's answer to the SSLRequest ends the attempt.
#[derive(Debug, thiserror::Error)]
enum NegotiationError {
    /// The server has no TLS, but the mode requires it.
    #[error("the server has no TLS")]
    NoTls,
    /// The answer is not an answer of PostgreSQL.
    #[error("the answer is not from a postgresql server")]
    NotPostgres,
}
