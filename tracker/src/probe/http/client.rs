//! Sends one request on an established connection and reads the head of the response.
//!
//! ureq formats the request and parses the response. It gets an established connection.
//! Its own resolver, pool, proxy, time-outs, redirects and decoders are not used: the
//! probe does these steps itself, to measure each step and to name each failure.

use std::sync::Arc;
use std::time::Instant;

use ureq::config::Config;
use ureq::http::{Request, header};
use ureq::{Agent, Error};
use url::Url;

use super::body::BodyReader;
use super::buffers::IoBuffers;
use super::encoding;
use super::head::{HEAD_BYTES_MAX, ResponseHead};
use super::request::{HttpRequest, displayable_url};
use super::transport::{ConnectionLog, NoResolver, SingleConnection, UreqTransport};
use crate::probe::net::stream::Stream;
use crate::probe::outcome::PhaseTime;
use crate::probe::reason::{Failure, Phase};

const USER_AGENT: &str = concat!("websites-availability-tracker/", env!("CARGO_PKG_VERSION"));

/// The settings for all requests.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient {
    config: Config,
}

impl HttpClient {
    pub(crate) fn new() -> Self {
        let config = Agent::config_builder()
            // By default ureq uses the proxy of the environment.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_response_header_size(HEAD_BYTES_MAX)
            .user_agent(USER_AGENT)
            .accept("*/*")
            .accept_encoding(encoding::accept_encoding())
            .build();
        Self { config }
    }

    /// Sends a request and reads the head of the response. Adds the time from the first
    /// byte sent to the first byte received to `first_byte_time`.
    ///
    /// # Errors
    /// When the connection fails, or the head is not HTTP.
    pub(crate) fn send(
        &self,
        url: &Url,
        request: &HttpRequest,
        stream: Stream,
        first_byte_time: &mut PhaseTime,
    ) -> Result<(ResponseHead, BodyReader), Failure> {
        let uri = displayable_url(url);
        let authorization = request.authorization(url);
        let authorization_bytes = authorization.as_ref().map_or(0, |value| value.expose().len());
        let url_bytes = uri.len() + authorization_bytes;
        let log = Arc::<ConnectionLog>::default();
        let transport = UreqTransport {
            buffers: IoBuffers::new(url_bytes, request.header_bytes(), HEAD_BYTES_MAX + 1),
            log: Arc::clone(&log),
            stream,
        };
        let mut builder = Request::builder()
            .method(&*request.method)
            .uri(&uri)
            .header(header::CONNECTION, "close");
        for (name, value) in &request.headers {
            builder = builder.header(name, value.expose().as_bytes());
        }
        if let Some(authorization) = &authorization {
            builder = builder.header(header::AUTHORIZATION, authorization.expose());
        }
        let connector = SingleConnection::new(transport);
        let agent = Agent::with_parts(self.config.clone(), connector, NoResolver);
        let started_at = Instant::now();
        let result = match request.body() {
            None => builder.body(()).map_err(Error::from).and_then(|request| agent.run(request)),
            Some(body) => {
                builder.body(body).map_err(Error::from).and_then(|request| agent.run(request))
            }
        };
        let first_byte_at = log.first_byte_at();
        let response_started_at = first_byte_at.unwrap_or_else(Instant::now);
        first_byte_time.add(response_started_at - started_at);
        let response = result.map_err(|error| {
            let phase = match first_byte_at {
                None if log.is_sending() => Phase::Request,
                None => Phase::FirstByte,
                Some(_) => Phase::Head,
            };
            log.take_failure(&error, phase)
        })?;
        let (parts, body) = response.into_parts();
        let head = ResponseHead {
            status: parts.status.as_u16(),
            first_byte_at: response_started_at,
            version: parts.version,
            headers: parts.headers,
        };
        Ok((head, BodyReader::new(Box::new(body.into_reader()), log)))
    }
}
