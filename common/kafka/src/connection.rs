//! One connection to one broker: frames out, frames in, one request at a time.
//!
//! After a time-out, a broken frame or an answer to another request nothing
//! that comes later can be trusted, so whoever owns the connection drops it at
//! any error for which [`Error::is_transport`] holds.

use std::fmt::Display;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::address::Address;
use super::error::{Error, printable};
use super::guard::Guard;
use super::settings::Settings;
use super::stream::{Stage, Stream};
use super::tls::Security;
use super::versions::{API_VERSIONS_VERSION, Call, Versions, api_name};

/// The most bytes of an answer, records aside.
pub(super) const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most bytes of a fetch's answer: the broker sends a first batch whole,
/// even when it is larger than was asked for.
pub(super) const FETCH_FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;

/// Brokers close a connection after 10 minutes without a request, and the boxes
/// between forget it sooner (some after 350 s); an older one is not tried.
const IDLE_MAX: Duration = Duration::from_secs(240);

/// A SASL session is left at this share of its life, out of 100, so that no
/// request meets its end.
const SESSION_SHARE: u64 = 85;

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    address: Address,
    client_id: StrBytes,
    stream: Stream,
    versions: Versions,
    correlation_id: i32,
    stage: Stage,
    used_at: Instant,
    /// When the SASL session is to be left.
    session_end: Option<Instant>,
}

/// A request that was written and waits for its answer.
#[derive(Debug)]
#[must_use]
pub(super) struct Sent {
    correlation_id: i32,
    version: i16,
}

impl Connection {
    /// Connects, shakes hands, agrees on versions and authenticates.
    pub(super) fn open(
        settings: &Settings,
        address: &Address,
        deadline: Instant,
    ) -> Result<Self, Error> {
        // Brokers tell of others, and not every one of those need be this machine.
        if settings.sasl.is_some() && settings.security == Security::Plain && !address.is_loopback()
        {
            let what = "a password would go there in plain text; expected TLS".to_owned();
            return Err(Error::Sasl { address: address.clone(), what });
        }
        let mut connection = Self {
            address: address.clone(),
            client_id: StrBytes::from_string(settings.client_id.clone()),
            stream: Stream::open(settings, address, deadline)?,
            versions: Versions::unknown(),
            correlation_id: 0,
            stage: Stage::Silent,
            used_at: Instant::now(),
            session_end: None,
        };
        connection.agree_on_versions(deadline)?;
        if let Some(sasl) = &settings.sasl {
            connection.authenticate(sasl, deadline)?;
        }
        Ok(connection)
    }

    /// Whether a request may go out on it now.
    pub(super) fn is_usable(&self) -> bool {
        self.used_at.elapsed() < IDLE_MAX && self.session_end.is_none_or(|end| Instant::now() < end)
    }

    /// One request and its answer.
    pub(super) fn call<R: Call>(
        &mut self,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Response, Error> {
        let sent = self.write(request, deadline)?;
        self.read::<R>(sent, deadline)
    }

    /// Writes a request; its answer must be read before the next one is written.
    pub(super) fn write<R: Call>(&mut self, request: &R, deadline: Instant) -> Result<Sent, Error> {
        let version = self.versions.of::<R>(&self.address)?;
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = self.encode(request, version)?;
        self.stream.set_deadline(deadline);
        let written = self.stream.write_all(&frame).and_then(|()| self.stream.flush());
        if let Err(cause) = written {
            let reason = self.reason_for(cause);
            return Err(self.failed(api_name(R::KEY), reason));
        }
        Ok(Sent { correlation_id: self.correlation_id, version })
    }

    /// Whether the answer has begun to arrive, or the connection has ended, after
    /// waiting for it for at most `wait`.
    pub(super) fn has_answer(&mut self, wait: Duration) -> bool {
        self.stream.has_bytes(wait)
    }

    /// Reads the answer to `sent`.
    pub(super) fn read<R: Call>(
        &mut self,
        sent: Sent,
        deadline: Instant,
    ) -> Result<R::Response, Error> {
        let api = api_name(R::KEY);
        self.stream.set_deadline(deadline);
        let frame_max =
            if R::KEY == ApiKey::Fetch as i16 { FETCH_FRAME_BYTES_MAX } else { FRAME_BYTES_MAX };
        let frame = self.read_frame(api, frame_max)?;
        let response = decode::<R>(frame, &sent).map_err(|what| Error::Malformed {
            address: self.address.clone(),
            api,
            what,
        })?;
        self.stage = match R::KEY {
            key if key == ApiKey::ApiVersions as i16 => Stage::Greeted,
            _ => Stage::Working,
        };
        self.used_at = Instant::now();
        Ok(response)
    }

    fn encode<R: Call>(&self, request: &R, version: i16) -> Result<BytesMut, Error> {
        let api = api_name(R::KEY);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(self.client_id.clone()));
        let header_version = R::header_version(version);
        let size = header.compute_size(header_version).map_err(|cause| misfit(api, &cause))?
            + request.compute_size(version).map_err(|cause| misfit(api, &cause))?;
        let length = i32::try_from(size)
            .map_err(|_| Error::Request { api, what: format!("{size} bytes are too many") })?;
        let mut frame = BytesMut::with_capacity(4 + size);
        frame.put_i32(length);
        header.encode(&mut frame, header_version).map_err(|cause| misfit(api, &cause))?;
        request.encode(&mut frame, version).map_err(|cause| misfit(api, &cause))?;
        Ok(frame)
    }

    fn read_frame(&mut self, api: &'static str, frame_max: usize) -> Result<Bytes, Error> {
        let mut length = [0; 4];
        if let Err(cause) = self.stream.read_exact(&mut length) {
            return Err(self.failed(api, cause));
        }
        let size = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if size > frame_max {
            let what = if length[..2] == [0x15, 0x03] {
                "a TLS alert to plain text; is it a TLS port".to_owned()
            } else {
                format!("a frame that says it has {} bytes", i32::from_be_bytes(length))
            };
            return Err(Error::Malformed { address: self.address.clone(), api, what });
        }
        // It grows as bytes arrive, so a length alone allocates nothing.
        let mut frame = Vec::with_capacity(size.min(64 * 1024));
        match (&mut self.stream).take(size as u64).read_to_end(&mut frame) {
            Ok(read) if read == size => Ok(Bytes::from(frame)),
            Ok(_) => Err(self.failed(api, std::io::ErrorKind::UnexpectedEof.into())),
            Err(cause) => Err(self.failed(api, cause)),
        }
    }

    /// A broker that refuses a TLS 1.3 certificate says so by an alert that is
    /// read after the handshake, and closes: a write can meet the closed socket
    /// first. What was received before is still there to be read.
    fn reason_for(&mut self, cause: std::io::Error) -> std::io::Error {
        if cause.kind() == std::io::ErrorKind::TimedOut {
            return cause;
        }
        match self.stream.read(&mut [0]) {
            Err(reason) if reason.get_ref().is_some() => reason,
            _ => cause,
        }
    }

    fn failed(&self, api: &'static str, cause: std::io::Error) -> Error {
        self.stream.failed(&self.address, api, cause, self.stage)
    }

    fn agree_on_versions(&mut self, deadline: Instant) -> Result<(), Error> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(self.client_id.clone())
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let response = self.call(&request, deadline)?;
        Error::from_code("ApiVersions", &self.address, response.error_code, None)?;
        self.versions = Versions::from_response(&response);
        Ok(())
    }

    fn authenticate(&mut self, sasl: &super::sasl::Sasl, deadline: Instant) -> Result<(), Error> {
        let address = self.address.clone();
        let refused = |what: String| Error::Sasl { address: address.clone(), what };
        let sasl = sasl.renewed().map_err(refused)?;
        let name = sasl.mechanism.name();
        let request =
            SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(name));
        let response = self.call(&request, deadline)?;
        if response.error_code != 0 {
            let offered: Vec<_> = response.mechanisms.iter().map(StrBytes::as_str).collect();
            let offered = printable(&offered.join(", "));
            return Err(refused(format!("the broker does not take {name}, it takes {offered}")));
        }
        match sasl.scram().map_err(refused)? {
            None => self.sasl_step(sasl.plain(), deadline).map(drop),
            Some(mut scram) => {
                let first = self.sasl_step(scram.first(), deadline)?;
                let proof = scram.proof(&first).map_err(refused)?;
                let last = self.sasl_step(proof, deadline)?;
                scram.verify(&last).map_err(refused)
            }
        }
    }

    fn sasl_step(&mut self, message: Vec<u8>, deadline: Instant) -> Result<Bytes, Error> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
        let response = self.call(&request, deadline)?;
        if response.error_code != 0 {
            let said = response.error_message.as_ref().map(StrBytes::as_str).unwrap_or_default();
            let what = format!("the broker refused user and password ({})", printable(said));
            return Err(Error::Sasl { address: self.address.clone(), what });
        }
        if let Ok(lifetime_ms) = u64::try_from(response.session_lifetime_ms)
            && lifetime_ms > 0
        {
            let kept = Duration::from_millis(lifetime_ms / 100 * SESSION_SHARE);
            self.session_end = Instant::now().checked_add(kept);
        }
        Ok(response.auth_bytes)
    }
}

/// The answer in a frame; every byte of it must have a meaning.
fn decode<R: Call>(frame: Bytes, sent: &Sent) -> Result<R::Response, String> {
    let mut body = Guard::new(frame);
    let header_version = <R::Response as HeaderVersion>::header_version(sent.version);
    let header =
        ResponseHeader::decode(&mut body, header_version).map_err(|cause| readable(&cause))?;
    if header.correlation_id != sent.correlation_id {
        return Err(format!(
            "it belongs to request {}, not to {}",
            header.correlation_id, sent.correlation_id
        ));
    }
    foresee::<R>(body.chunk())?;
    let response = <R::Response as Decodable>::decode(&mut body, sent.version)
        .map_err(|cause| readable(&cause))?;
    if body.has_remaining() {
        return Err(format!("{} bytes too many", body.remaining()));
    }
    Ok(response)
}

fn misfit(api: &'static str, cause: &impl Display) -> Error {
    Error::Request { api, what: readable(cause) }
}

fn readable(cause: &impl Display) -> String {
    printable(cause.to_string().trim())
}

/// What [`Guard`] can't see: the array of the one answer that has no flexible
/// version, and the answer in version 0 of a broker that does not know ours.
fn foresee<R: Call>(body: &[u8]) -> Result<(), String> {
    let error_code = body.first_chunk().map(|code| i16::from_be_bytes(*code));
    if R::KEY == ApiKey::SaslHandshake as i16 {
        let count = body.get(2..6).and_then(|count| count.try_into().ok()).map(i32::from_be_bytes);
        let fits = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
        if fits > body.len() / 2 {
            return Err("a count of mechanisms that can't be".to_owned());
        }
    }
    if R::KEY == ApiKey::ApiVersions as i16
        && error_code == Some(ResponseError::UnsupportedVersion.code())
    {
        return Err(format!(
            "it does not know ApiVersions {API_VERSIONS_VERSION}; Kafka 3.1 or newer is needed"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
