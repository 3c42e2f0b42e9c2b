//! Kafka requests that the project's own client does not send.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

/// Opens a connection to `broker` (`host:port`, plain listener), sends one request and reads the
/// response.
///
/// # Errors
/// Fails if the broker can't be reached or the response does not decode as that version.
pub fn send_raw_request<Q, A>(
    broker: &str,
    key: ApiKey,
    request: &Q,
    version: i16,
) -> Result<A, Box<dyn Error + Send + Sync>>
where
    Q: Encodable + HeaderVersion,
    A: Decodable + HeaderVersion,
{
    let mut bytes = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(1);
    header.encode(&mut bytes, Q::header_version(version))?;
    request.encode(&mut bytes, version)?;
    let mut stream = TcpStream::connect(broker)?;
    stream.write_all(&u32::try_from(bytes.len())?.to_be_bytes())?;
    stream.write_all(&bytes)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut response = vec![0; usize::try_from(u32::from_be_bytes(length))?];
    stream.read_exact(&mut response)?;
    let mut response = Bytes::from(response);
    ResponseHeader::decode(&mut response, A::header_version(version))?;
    Ok(A::decode(&mut response, version)?)
}
