//! Passes an established connection to ureq, and records the events on it.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use super::buffers::IoBuffers;
use super::head::HEAD_BYTES_MAX;
use crate::probe::net::stream::{Stream, StreamError};
use crate::probe::reason::{Failure, Phase, Reason};

/// The events on a connection. The errors of ureq do not contain enough details.
#[derive(Debug, Default)]
pub(super) struct ConnectionLog(Mutex<ConnectionEvents>);

#[derive(Debug, Default)]
struct ConnectionEvents {
    error: Option<StreamError>,
    first_byte_at: Option<Instant>,
    is_closed: bool,
    /// Whether more input was received than the buffer may hold.
    has_overflow: bool,
    is_sending: bool,
}

impl ConnectionLog {
    fn events(&self) -> MutexGuard<'_, ConnectionEvents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn first_byte_at(&self) -> Option<Instant> {
        self.events().first_byte_at
    }

    pub(super) fn is_sending(&self) -> bool {
        self.events().is_sending
    }

    /// Turns an error of ureq into a failure. If the connection had an error, that error
    /// is the cause.
    pub(super) fn take_failure(&self, error: &Error, phase: Phase) -> Failure {
        let mut events = self.events();
        if let Some(error) = events.error.take() {
            return error.into_failure(phase);
        }
        let malformed =
            |detail: String| Failure::with_detail(Reason::MalformedResponse, phase, detail);
        match error {
            Error::Protocol(cause) => malformed(cause.to_string()),
            Error::LargeResponseHeader(..) => {
                let detail = format!("more than {} KiB", HEAD_BYTES_MAX / 1024);
                Failure::with_detail(Reason::HeadTooLarge, phase, detail)
            }
            _ if events.has_overflow => {
                malformed(format!("framing of more than {} KiB", HEAD_BYTES_MAX / 1024))
            }
            _ if events.is_closed => StreamError::Closed.into_failure(phase),
            other => Failure::with_detail(Reason::ConnectionFailed, phase, other.to_string()),
        }
    }
}

/// A connector that hands out one connection, once.
pub(super) struct SingleConnection(Mutex<Option<UreqTransport>>);

impl SingleConnection {
    pub(super) fn new(transport: UreqTransport) -> Self {
        Self(Mutex::new(Some(transport)))
    }
}

impl fmt::Debug for SingleConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SingleConnection")
    }
}

impl Connector for SingleConnection {
    type Out = UreqTransport;

    fn connect(
        &self,
        _: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<UreqTransport>, Error> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

/// A resolver that returns nothing: the connection is established already.
#[derive(Debug)]
pub(super) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// The connection as a transport of ureq. The time-outs of ureq are not used, because the
/// stream ends at the deadline of the probe.
#[derive(Debug)]
pub(super) struct UreqTransport {
    pub(super) stream: Stream,
    pub(super) buffers: IoBuffers,
    pub(super) log: Arc<ConnectionLog>,
}

impl UreqTransport {
    /// Records the cause in the log. The returned error only makes ureq stop.
    fn record_error(&self, error: StreamError) -> Error {
        self.log.events().error = Some(error);
        Error::Io(io::Error::other("the connection failed"))
    }

    /// Waits for input and receives it. Returns false at the end of the input.
    fn receive(&mut self) -> Result<bool, Error> {
        if self.buffers.is_full() {
            self.log.events().has_overflow = true;
            return Ok(false);
        }
        // Memory is allocated only once input is there, because many sites never answer.
        let received = self
            .stream
            .wait_readable()
            .and_then(|()| self.stream.receive(self.buffers.free_space()));
        let count = received.map_err(|error| self.record_error(error))?;
        self.buffers.add_received(count);
        let mut events = self.log.events();
        match count {
            0 => events.is_closed = true,
            _ => {
                events.first_byte_at.get_or_insert_with(Instant::now);
            }
        }
        Ok(count > 0)
    }
}

impl Transport for UreqTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        self.log.events().is_sending = true;
        let sent = self.stream.send(&self.buffers.output[..amount]);
        sent.map_err(|error| self.record_error(error))?;
        self.log.events().is_sending = false;
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        self.receive()
    }

    /// False: a connection is not used for a second request.
    fn is_open(&mut self) -> bool {
        false
    }

    fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }
}

impl Buffers for IoBuffers {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        self.unconsumed()
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.free_space()
    }

    fn input_appended(&mut self, amount: usize) {
        self.add_received(amount);
    }

    fn input_consume(&mut self, amount: usize) {
        self.consume(amount);
    }

    /// ureq uses the first slice only to send a body in chunks. The bodies of probes have
    /// a length.
    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut [], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.has_progress && !self.unconsumed().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::probe::net::deadline::Deadline;
    use crate::probe::net::socket::TimedSocket;

    #[test]
    fn no_input_buffer_is_allocated_for_a_site_that_does_not_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let deadline = Deadline::after(Duration::from_millis(10));
        let mut transport = UreqTransport {
            stream: Stream::plain(TimedSocket::new(socket, deadline).unwrap()),
            buffers: IoBuffers::new(0, 0, HEAD_BYTES_MAX),
            log: Arc::default(),
        };
        transport.receive().unwrap_err();
        assert!(matches!(transport.log.events().error, Some(StreamError::Timeout)));
        assert_eq!(transport.buffers.input.capacity(), 0);
    }
}
