//! A proxy in front of each broker of a cluster.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, FindCoordinatorResponse, MetadataResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::listener::{ConnectionPair, ProxyListener};
use super::{
    Direction, MESSAGE_BYTES_MAX, ProxyAction, ProxyFault, ProxyRules, RuleHandle, forward,
};

/// Maximum number of requests in flight on a connection. The project's own client sends one at a
/// time.
const PENDING_MAX: usize = 1000;

/// Listens in front of every broker of a cluster with plain listeners. Responses with broker
/// addresses are rewritten to the proxy's addresses, so that a client reaches all brokers through
/// the proxy.
pub struct KafkaProxy {
    rules: Arc<ProxyRules<ApiKey>>,
    fronts: Vec<ProxyListener>,
}

/// Broker address to proxy address.
type ProxyAddresses = HashMap<(String, i32), SocketAddr>;

impl KafkaProxy {
    /// Starts a proxy for a comma-separated list of `host:port`, one for each broker.
    ///
    /// # Errors
    /// Fails if an address does not parse, or no port or thread is available.
    pub fn start(brokers: &str) -> io::Result<Self> {
        let ports = brokers.split(',').map(|_| TcpListener::bind("127.0.0.1:0"));
        Self::start_on(ports.collect::<io::Result<_>>()?, brokers)
    }

    /// Same as [`KafkaProxy::start`] with given listeners, so that a proxy can come back on the
    /// same ports.
    ///
    /// # Errors
    /// Same as [`KafkaProxy::start`].
    pub fn start_on(ports: Vec<TcpListener>, brokers: &str) -> io::Result<Self> {
        let mut listeners = Vec::new();
        let mut addresses = ProxyAddresses::new();
        for (listener, broker) in ports.into_iter().zip(brokers.split(',')) {
            let server: SocketAddr = broker.parse().map_err(io::Error::other)?;
            addresses
                .insert((server.ip().to_string(), server.port().into()), listener.local_addr()?);
            listeners.push((listener, server));
        }
        let (rules, addresses) = (Arc::new(ProxyRules::new()), Arc::new(addresses));
        let mut fronts = Vec::new();
        for (listener, server) in listeners {
            let (rules, addresses) = (Arc::clone(&rules), Arc::clone(&addresses));
            fronts.push(ProxyListener::start(listener, server, move |pair| {
                serve(pair, &rules, &addresses)
            })?);
        }
        Ok(Self { rules, fronts })
    }

    /// The proxy's addresses, comma-separated, in the order of the brokers.
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.fronts.iter().map(|it| it.address().to_string()).collect();
        addresses.join(",")
    }

    /// Closes the port and the connections of one broker, counted from 1 in the order of the
    /// brokers. Connections to it are refused from then on.
    pub fn close_broker(&mut self, broker: usize) {
        drop(self.fronts.remove(broker - 1));
    }

    /// Adds a rule: `fault` acts once, on the request of this kind after `nth` others (0: the
    /// next), sent to any broker, or on the response to it. A cut counts the bytes of this one
    /// frame, length prefix included.
    pub fn add_rule(
        &self,
        kind: ApiKey,
        nth: usize,
        direction: Direction,
        fault: ProxyFault,
    ) -> RuleHandle {
        self.rules.add(kind, nth, direction, fault)
    }
}

impl Drop for KafkaProxy {
    fn drop(&mut self) {
        self.rules.end();
    }
}

/// A request without a response so far.
struct ForwardedRequest {
    kind: i16,
    version: i16,
    action: Option<ProxyAction>,
}

#[derive(Default)]
struct Pending(Mutex<HashMap<i32, ForwardedRequest>>);

impl Pending {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, ForwardedRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(pair: &ConnectionPair, rules: &ProxyRules<ApiKey>, addresses: &ProxyAddresses) {
    let pending = Pending::default();
    pair.run(
        // An I/O error ends the connection like an end of file.
        || drop(forward_requests(pair, rules, &pending)),
        || drop(forward_responses(pair, &pending, addresses)),
    );
}

fn forward_requests(
    pair: &ConnectionPair,
    rules: &ProxyRules<ApiKey>,
    pending: &Pending,
) -> io::Result<()> {
    loop {
        let frame = read_frame(&pair.client)?;
        let kind = i16_at(&frame, 4)?;
        let version = i16_at(&frame, 6)?;
        let id = i32::from(i16_at(&frame, 8)?) << 16 | i32::from(i16_at(&frame, 10)?) & 0xffff;
        let action = rules.match_request(|wanted| *wanted as i16 == kind);
        let (on_request, on_response): (Option<ProxyAction>, Option<ProxyAction>) = match action {
            Some(action) if action.direction == Direction::Request => (Some(action), None),
            other => (None, other),
        };
        {
            let mut requests = pending.lock();
            if requests.len() >= PENDING_MAX {
                return Ok(());
            }
            requests.insert(id, ForwardedRequest { kind, version, action: on_response });
        }
        if !forward(&pair.server, &frame, on_request.as_ref())? {
            return Ok(());
        }
    }
}

fn forward_responses(
    pair: &ConnectionPair,
    pending: &Pending,
    addresses: &ProxyAddresses,
) -> io::Result<()> {
    loop {
        let mut frame = read_frame(&pair.server)?;
        let id = i32::from(i16_at(&frame, 4)?) << 16 | i32::from(i16_at(&frame, 6)?) & 0xffff;
        let request = pending.lock().remove(&id);
        if let Some(ForwardedRequest { kind, version, .. }) = &request {
            if *kind == ApiKey::Metadata as i16 {
                frame = rewrite_response::<MetadataResponse>(&frame, *version, |response| {
                    for broker in &mut response.brokers {
                        replace_address(addresses, &mut broker.host, &mut broker.port);
                    }
                })?;
            } else if *kind == ApiKey::FindCoordinator as i16 {
                frame =
                    rewrite_response::<FindCoordinatorResponse>(&frame, *version, |response| {
                        replace_address(addresses, &mut response.host, &mut response.port);
                        for coordinator in &mut response.coordinators {
                            replace_address(
                                addresses,
                                &mut coordinator.host,
                                &mut coordinator.port,
                            );
                        }
                    })?;
            }
        }
        if !forward(&pair.client, &frame, request.and_then(|request| request.action).as_ref())? {
            return Ok(());
        }
    }
}

fn read_frame(mut from: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let size = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if size > MESSAGE_BYTES_MAX {
        return Err(io::Error::other("frame too long"));
    }
    let mut frame = vec![0; 4 + size];
    frame[..4].copy_from_slice(&length);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

fn i16_at(frame: &[u8], at: usize) -> io::Result<i16> {
    let bytes = frame.get(at..).and_then(|rest| rest.first_chunk());
    let bytes = bytes.ok_or_else(|| io::Error::other("frame too short"))?;
    Ok(i16::from_be_bytes(*bytes))
}

/// Decodes the response in a frame, changes it and encodes it again.
fn rewrite_response<R: Decodable + Encodable + HeaderVersion>(
    frame: &[u8],
    version: i16,
    change: impl FnOnce(&mut R),
) -> io::Result<Vec<u8>> {
    let mut bytes = Bytes::copy_from_slice(&frame[4..]);
    let header_version = R::header_version(version);
    let header = ResponseHeader::decode(&mut bytes, header_version).map_err(io::Error::other)?;
    let mut response = R::decode(&mut bytes, version).map_err(io::Error::other)?;
    change(&mut response);
    let mut body = BytesMut::new();
    header.encode(&mut body, header_version).map_err(io::Error::other)?;
    response.encode(&mut body, version).map_err(io::Error::other)?;
    let length = i32::try_from(body.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes()[..], &body].concat())
}

fn replace_address(addresses: &ProxyAddresses, host: &mut StrBytes, port: &mut i32) {
    if let Some(place) = addresses.get(&(host.to_string(), *port)) {
        *host = StrBytes::from_string(place.ip().to_string());
        *port = place.port().into();
    }
}
