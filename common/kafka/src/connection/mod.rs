//! A connection to one broker, with one request in flight at a time.
//!
//! After a time-out, a broken frame or a response to another request the stream is out of step.
//! The owner must drop the connection after any error with [`KafkaError::is_connection_lost`].

mod authenticate;
pub(crate) mod frame_guard;
pub(crate) mod open_connections;
pub(crate) mod stream;
pub(crate) mod versions;

use std::fmt::Display;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use common::panics;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use crate::address::BrokerAddress;
use crate::connection::frame_guard::FrameGuard;
use crate::connection::open_connections::ConnectionPermit;
use crate::connection::stream::{BrokerStream, ConnectionStage};
use crate::connection::versions::{API_VERSIONS_VERSION, BrokerVersions, KafkaRequest, api_name};
use crate::error::KafkaError;
use crate::security::tls::Security;
use crate::settings::KafkaSettings;
use crate::text::one_line;

/// The maximum size in bytes of a response other than Fetch.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The maximum size in bytes of a Fetch response. A broker returns the first batch whole even if it
/// exceeds the requested bytes (KIP-74), so the limit is far above the default `message.max.bytes`
/// of 1 MiB.
const FETCH_FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;

/// A connection to a broker, ready for requests.
#[derive(Debug)]
pub(crate) struct BrokerConnection {
    address: BrokerAddress,
    client_id: StrBytes,
    stream: BrokerStream,
    versions: BrokerVersions,
    correlation_id: i32,
    stage: ConnectionStage,
    used_at: Instant,
    idle_max: Duration,
    /// The time at which the connection must be replaced, because its SASL session ends soon.
    session_end: Option<Instant>,
    permit: ConnectionPermit,
}

/// The response that a written request waits for.
#[derive(Debug)]
#[must_use]
pub(crate) struct PendingResponse {
    correlation_id: i32,
    version: i16,
}

impl BrokerConnection {
    /// Connects, makes the TLS handshake, negotiates versions and authenticates.
    pub(crate) fn open(
        settings: &KafkaSettings,
        address: &BrokerAddress,
        deadline: Instant,
    ) -> Result<Self, KafkaError> {
        // The address can come from another broker, so it may be another machine.
        if settings.sasl.is_some() && settings.security == Security::Plain && !address.is_loopback()
        {
            let reason = "the password would be sent in plain text: expected TLS".to_owned();
            return Err(KafkaError::Sasl { address: address.clone(), reason });
        }
        let connections_max = settings.connections_max;
        let Some(permit) = settings.open_connections.acquire(address, connections_max) else {
            return Err(KafkaError::TooManyConnections {
                address: address.clone(),
                max: connections_max,
            });
        };
        let mut connection = Self::open_stream(settings, address, deadline, permit)?;
        if let Some(sasl) = &settings.sasl {
            connection.authenticate(sasl, deadline)?;
        }
        Ok(connection)
    }

    /// Connects, and negotiates versions. A broker above its connection limit closes the connection
    /// before it answers. Other causes do the same, but then the broker answers on no connection.
    fn open_stream(
        settings: &KafkaSettings,
        address: &BrokerAddress,
        deadline: Instant,
        permit: ConnectionPermit,
    ) -> Result<Self, KafkaError> {
        let has_others = permit.has_answered_others();
        let explain = |error| match error {
            KafkaError::Disconnected { address, .. } if has_others => {
                KafkaError::TooManyConnections { address, max: None }
            }
            error => error,
        };
        let stream = BrokerStream::open(settings, address, deadline).map_err(explain)?;
        let mut connection = Self {
            address: address.clone(),
            client_id: StrBytes::from_string(settings.client_id.clone()),
            stream,
            versions: BrokerVersions::api_versions_only(),
            correlation_id: 0,
            stage: ConnectionStage::NoAnswer,
            used_at: Instant::now(),
            idle_max: settings.timings.connection_idle_max,
            session_end: None,
            permit,
        };
        connection.negotiate_versions(deadline).map_err(explain)?;
        connection.permit.record_answer();
        Ok(connection)
    }

    /// Whether the connection is neither idle for too long nor near the end of its SASL session.
    pub(crate) fn is_usable(&self) -> bool {
        self.used_at.elapsed() < self.idle_max
            && self.session_end.is_none_or(|end| Instant::now() < end)
    }

    /// Sends a request and waits for its response.
    pub(crate) fn call<R: KafkaRequest>(
        &mut self,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Response, KafkaError> {
        let pending = self.write(request, deadline)?;
        self.read::<R>(pending, deadline)
    }

    /// Writes a request. Its response must be read before the next request is written.
    pub(crate) fn write<R: KafkaRequest>(
        &mut self,
        request: &R,
        deadline: Instant,
    ) -> Result<PendingResponse, KafkaError> {
        let version = self.versions.negotiate::<R>(&self.address)?;
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = self.encode(request, version)?;
        self.stream.set_deadline(deadline);
        let written = self.stream.write_all(&frame).and_then(|()| self.stream.flush());
        if let Err(cause) = written {
            let reason = self.read_close_reason(cause);
            return Err(self.explain(api_name(R::KEY), reason));
        }
        Ok(PendingResponse { correlation_id: self.correlation_id, version })
    }

    /// Waits up to `wait` for the first byte of a response, or the end of the connection.
    pub(crate) fn has_response(&mut self, wait: Duration) -> bool {
        self.stream.has_bytes(wait)
    }

    /// Reads the response to a request that [`BrokerConnection::write`] has written.
    pub(crate) fn read<R: KafkaRequest>(
        &mut self,
        pending: PendingResponse,
        deadline: Instant,
    ) -> Result<R::Response, KafkaError> {
        let api = api_name(R::KEY);
        self.stream.set_deadline(deadline);
        let frame_max =
            if R::KEY == ApiKey::Fetch as i16 { FETCH_FRAME_BYTES_MAX } else { FRAME_BYTES_MAX };
        let frame = self.read_frame(api, frame_max)?;
        let decoded = panics::catch(|| decode::<R>(frame, &pending))
            .unwrap_or_else(|_| Err("the decoder panicked".to_owned()));
        let response = decoded.map_err(|reason| KafkaError::Malformed {
            address: self.address.clone(),
            api,
            reason,
        })?;
        self.stage = match R::KEY {
            key if key == ApiKey::ApiVersions as i16 => ConnectionStage::VersionsKnown,
            _ => ConnectionStage::Authenticated,
        };
        self.used_at = Instant::now();
        Ok(response)
    }

    fn encode<R: KafkaRequest>(&self, request: &R, version: i16) -> Result<BytesMut, KafkaError> {
        let api = api_name(R::KEY);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(self.client_id.clone()));
        let header_version = R::header_version(version);
        let size =
            header.compute_size(header_version).map_err(|cause| encode_error(api, &cause))?
                + request.compute_size(version).map_err(|cause| encode_error(api, &cause))?;
        let length = i32::try_from(size).map_err(|_| KafkaError::Request {
            api,
            reason: format!("{size} bytes are too many for one request"),
        })?;
        let mut frame = BytesMut::with_capacity(4 + size);
        frame.put_i32(length);
        header.encode(&mut frame, header_version).map_err(|cause| encode_error(api, &cause))?;
        request.encode(&mut frame, version).map_err(|cause| encode_error(api, &cause))?;
        Ok(frame)
    }

    fn read_frame(&mut self, api: &'static str, frame_max: usize) -> Result<Bytes, KafkaError> {
        let mut length = [0; 4];
        if let Err(cause) = self.stream.read_exact(&mut length) {
            return Err(self.explain(api, cause));
        }
        let size = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if size > frame_max {
            let reason = if length[..2] == [0x15, 0x03] {
                "a TLS alert: is it a TLS port?".to_owned()
            } else {
                format!("a frame with a length of {} bytes", i32::from_be_bytes(length))
            };
            return Err(KafkaError::Malformed { address: self.address.clone(), api, reason });
        }
        // The buffer grows with the bytes that arrive, so a length alone allocates little.
        let mut frame = Vec::with_capacity(size.min(64 * 1024));
        match (&mut self.stream).take(size as u64).read_to_end(&mut frame) {
            Ok(read) if read == size => Ok(Bytes::from(frame)),
            Ok(_) => Err(self.explain(api, std::io::ErrorKind::UnexpectedEof.into())),
            Err(cause) => Err(self.explain(api, cause)),
        }
    }

    /// Reads the alert that explains why a write failed.
    ///
    /// A broker that refuses a TLS 1.3 client certificate sends an alert after the handshake and
    /// closes the connection. A write can notice the closed socket before the alert is read.
    fn read_close_reason(&mut self, cause: std::io::Error) -> std::io::Error {
        if cause.kind() == std::io::ErrorKind::TimedOut {
            return cause;
        }
        match self.stream.read(&mut [0]) {
            Err(reason) if reason.get_ref().is_some() => reason,
            _ => cause,
        }
    }

    fn explain(&self, api: &'static str, cause: std::io::Error) -> KafkaError {
        self.stream.explain(&self.address, api, cause, self.stage)
    }

    fn negotiate_versions(&mut self, deadline: Instant) -> Result<(), KafkaError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(self.client_id.clone())
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let response = self.call(&request, deadline)?;
        KafkaError::from_code("ApiVersions", &self.address, response.error_code, None)?;
        self.versions = BrokerVersions::from_response(&response);
        Ok(())
    }
}

/// Decodes the response in a frame. Bytes after the response are an error.
fn decode<R: KafkaRequest>(frame: Bytes, pending: &PendingResponse) -> Result<R::Response, String> {
    let mut body = FrameGuard::new(frame);
    let header_version = <R::Response as HeaderVersion>::header_version(pending.version);
    let header =
        ResponseHeader::decode(&mut body, header_version).map_err(|cause| decode_error(&cause))?;
    if header.correlation_id != pending.correlation_id {
        return Err(format!(
            "the response belongs to request {}, not to request {}",
            header.correlation_id, pending.correlation_id
        ));
    }
    check_inflexible_response::<R>(body.chunk())?;
    let response = <R::Response as Decodable>::decode(&mut body, pending.version)
        .map_err(|cause| decode_error(&cause))?;
    if body.has_remaining() {
        return Err(format!("{} bytes after the response", body.remaining()));
    }
    Ok(response)
}

fn encode_error(api: &'static str, cause: &impl Display) -> KafkaError {
    KafkaError::Request { api, reason: decode_error(cause) }
}

fn decode_error(cause: &impl Display) -> String {
    one_line(cause.to_string().trim())
}

/// Checks the two responses without a flexible version, which [`FrameGuard`] can't check: an array
/// of SaslHandshake, and version 0 of ApiVersions, which a broker sends if it does not support
/// the requested version.
fn check_inflexible_response<R: KafkaRequest>(body: &[u8]) -> Result<(), String> {
    let error_code = body.first_chunk().map(|code| i16::from_be_bytes(*code));
    if R::KEY == ApiKey::SaslHandshake as i16 {
        let count = body.get(2..6).and_then(|count| count.try_into().ok()).map(i32::from_be_bytes);
        let fits = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
        if fits > body.len() / 2 {
            return Err("a number of mechanisms that exceeds the frame".to_owned());
        }
    }
    if R::KEY == ApiKey::ApiVersions as i16
        && error_code == Some(ResponseError::UnsupportedVersion.code())
    {
        return Err(format!(
            "the broker does not support ApiVersions {API_VERSIONS_VERSION}: expected Kafka 3.1 or newer"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
