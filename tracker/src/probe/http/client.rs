//! HTTP/1.1 over a connection that stands: the one file that names ureq.
//!
//! ureq is handed the connection, for one request, and is left without a
//! resolver, a pool, a proxy, time-outs, redirects or decoding of its own: each
//! of these is the probe's, which times it and says what failed.

use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ureq::config::Config;
use ureq::http::{HeaderMap, Request, Version, header};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Agent, Error};
use url::Url;

use crate::probe::http::buffers::IoBuffers;
use crate::probe::http::request::Request as Wanted;
use crate::probe::net::stream::{Fault, Stream};
use crate::probe::outcome::Sum;
use crate::probe::reason::{Failure, Phase, Reason};

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;

const USER_AGENT: &str = concat!("websites-availability-tracker/", env!("CARGO_PKG_VERSION"));

/// How every request is made.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    config: Config,
}

impl Client {
    pub(crate) fn new() -> Self {
        let config = Agent::config_builder()
            // ureq's default takes a proxy from the environment.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_response_header_size(HEAD_BYTES_MAX)
            .user_agent(USER_AGENT)
            .accept("*/*")
            .accept_encoding("gzip, deflate")
            .build();
        Self { config }
    }

    /// Sends a request and reads the answer's head. The time from the first byte
    /// sent to the first that came is added to `first_byte`.
    ///
    /// # Errors
    /// What the connection failed with, or a head that is not HTTP.
    pub(crate) fn send(
        &self,
        url: &Url,
        wanted: &Wanted,
        stream: Stream,
        first_byte: &mut Sum,
    ) -> Result<Answer, Failure> {
        let target = target_of(url);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let authorization = wanted.authorization(url);
        let authorization_bytes = authorization.as_ref().map_or(0, |value| value.expose().len());
        let long_bytes = target.len() + authorization_bytes;
        let line = Line {
            buffers: IoBuffers::new(long_bytes, wanted.header_bytes(), HEAD_BYTES_MAX + 1),
            seen: Arc::clone(&seen),
            stream,
        };
        let mut request = Request::builder()
            .method(&*wanted.method)
            .uri(&target)
            .header(header::CONNECTION, "close");
        for (name, value) in &wanted.headers {
            request = request.header(name, value.expose().as_bytes());
        }
        if let Some(authorization) = &authorization {
            request = request.header(header::AUTHORIZATION, authorization.expose());
        }
        let agent =
            Agent::with_parts(self.config.clone(), HandOver(Mutex::new(Some(line))), NoResolver);
        let begun = Instant::now();
        let sent = match wanted.body() {
            None => request.body(()).map_err(Error::from).and_then(|request| agent.run(request)),
            Some(body) => {
                request.body(body).map_err(Error::from).and_then(|request| agent.run(request))
            }
        };
        let first_byte_at = lock(&seen).first_byte.unwrap_or_else(Instant::now);
        first_byte.add(first_byte_at - begun);
        let response = sent.map_err(|error| {
            let mut seen = lock(&seen);
            let phase = match seen.first_byte {
                None if seen.is_sending => Phase::Request,
                None => Phase::FirstByte,
                Some(_) => Phase::Head,
            };
            seen.failure(&error, phase)
        })?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status.as_u16(),
            first_byte_at,
            version: head.version,
            headers: head.headers,
            body: Source { reader: Box::new(body.into_reader()), seen, failure: None },
        })
    }
}

/// The head of an answer, and its body still to be read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) first_byte_at: Instant,
    version: Version,
    headers: HeaderMap,
    pub(crate) body: Source,
}

impl Answer {
    /// As `1.1`; none for a version that has no name, which does not get this far.
    pub(crate) fn version(&self) -> Option<&'static str> {
        match self.version {
            Version::HTTP_10 => Some("1.0"),
            Version::HTTP_11 => Some("1.1"),
            _ => None,
        }
    }

    /// Where a browser would go on from here (the redirect statuses of the
    /// Fetch standard); none for an answer that is final. A URL may hold commas,
    /// so that several are no list; some proxies send it twice.
    pub(crate) fn location(&self) -> Option<String> {
        let value = match self.status {
            301 | 302 | 303 | 307 | 308 => self.headers.get(header::LOCATION)?,
            _ => return None,
        };
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// A header's value; several are joined by commas, as HTTP has it.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// The body's bytes as they lie on the wire, without HTTP's framing.
pub(crate) struct Source {
    reader: Box<dyn Read>,
    seen: Arc<Mutex<Seen>>,
    failure: Option<Failure>,
}

impl Source {
    /// Why reading failed; none when it did not, so that an error of a decoder
    /// above is the decoder's own.
    pub(crate) fn failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|cause| {
            let failure = lock(&self.seen).failure(&Error::from(cause), Phase::Body);
            self.failure = Some(failure);
            io::Error::other("the body did not arrive")
        })
    }
}

/// What the connection saw, kept beside it: ureq passes on less.
#[derive(Debug, Default)]
struct Seen {
    fault: Option<Fault>,
    first_byte: Option<Instant>,
    ended: bool,
    /// As much came that is not the body's as is kept.
    overflown: bool,
    is_sending: bool,
}

impl Seen {
    fn failure(&mut self, error: &Error, phase: Phase) -> Failure {
        if let Some(fault) = self.fault.take() {
            return fault.into_failure(phase);
        }
        let malformed = |text: String| Failure::with(Reason::MalformedResponse, phase, text);
        match error {
            Error::Protocol(cause) => malformed(cause.to_string()),
            Error::LargeResponseHeader(..) => {
                let text = format!("more than {} KiB", HEAD_BYTES_MAX / 1024);
                Failure::with(Reason::HeadTooLarge, phase, text)
            }
            _ if self.overflown => {
                malformed(format!("framing of more than {} KiB", HEAD_BYTES_MAX / 1024))
            }
            _ if self.ended => Fault::Closed.into_failure(phase),
            other => Failure::with(Reason::ConnectionFailed, phase, other.to_string()),
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The URL without what is not sent in a request's target, and so may be shown:
/// credentials and fragment.
pub(crate) fn target_of(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    // These two fail only for URLs without a host, which have neither.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// Gives ureq the one connection that it may use.
struct HandOver(Mutex<Option<Line>>);

impl fmt::Debug for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandOver")
    }
}

impl Connector for HandOver {
    type Out = Line;

    fn connect(&self, _: &ConnectionDetails, _: Option<()>) -> Result<Option<Line>, Error> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

/// The connection stands, so there is nothing to resolve.
#[derive(Debug)]
struct NoResolver;

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

/// The connection as ureq wants it. ureq's own time-outs are not set; the
/// stream keeps the deadline.
#[derive(Debug)]
struct Line {
    stream: Stream,
    buffers: IoBuffers,
    seen: Arc<Mutex<Seen>>,
}

impl Line {
    /// Keeps the cause; what ureq is told only has to make it stop.
    fn failed(&self, fault: Fault) -> Error {
        lock(&self.seen).fault = Some(fault);
        Error::Io(io::Error::other("the connection failed"))
    }

    /// Waits for input and takes it: whether there is any.
    fn receive(&mut self) -> Result<bool, Error> {
        if self.buffers.is_full() {
            lock(&self.seen).overflown = true;
            return Ok(false);
        }
        // Room is made only for what is there: many a site never answers.
        let received = self.stream.wait().and_then(|()| self.stream.receive(self.buffers.room()));
        let count = match received {
            Ok(count) => count,
            Err(fault) => return Err(self.failed(fault)),
        };
        self.buffers.filled(count);
        let mut seen = lock(&self.seen);
        match count {
            0 => seen.ended = true,
            _ => {
                seen.first_byte.get_or_insert_with(Instant::now);
            }
        }
        Ok(count > 0)
    }
}

impl Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        lock(&self.seen).is_sending = true;
        self.stream.send(&self.buffers.output[..amount]).map_err(|fault| self.failed(fault))?;
        lock(&self.seen).is_sending = false;
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        self.receive()
    }

    fn is_open(&mut self) -> bool {
        // Never used for a second request.
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
        self.unused()
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.room()
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled(amount);
    }

    fn input_consume(&mut self, amount: usize) {
        self.used(amount);
    }

    /// The first is asked for only to send a body in chunks, and ours have a length.
    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut [], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.progress && !self.unused().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::probe::net::socket::{Deadline, Wire};

    #[test]
    fn a_site_that_hangs_takes_no_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let deadline = Deadline::after(Duration::from_millis(10));
        let mut line = Line {
            stream: Stream::plain(Wire::new(socket, deadline).unwrap()),
            buffers: IoBuffers::new(0, 0, HEAD_BYTES_MAX),
            seen: Arc::default(),
        };
        line.receive().unwrap_err();
        assert!(matches!(lock(&line.seen).fault, Some(Fault::Timeout)));
        assert_eq!(line.buffers.input.capacity(), 0);
    }
}
