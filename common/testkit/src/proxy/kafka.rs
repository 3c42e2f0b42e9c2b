//! A proxy in front of each broker of a cluster.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, FindCoordinatorResponse, MetadataResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::front::{Front, Link};
use super::{Fault, MESSAGE_BYTES_MAX, Order, Rules, Side, Told, pass};

/// The most requests of a connection that wait for their answers; a client of
/// ours has one.
const ASKED_MAX: usize = 1000;

/// Stands before every broker of a cluster with plain listeners, so that a
/// client which knows its addresses reaches the brokers through it alone: in
/// the answers that tell of brokers, it puts its own addresses in their place.
pub struct KafkaProxy {
    rules: Arc<Rules<ApiKey>>,
    fronts: Vec<Front>,
}

/// By a broker's address, where the proxy stands for it.
type Places = HashMap<(String, i32), SocketAddr>;

impl KafkaProxy {
    /// For a comma list of `host:port`, one for each broker.
    ///
    /// # Errors
    /// When an address is none, or no port or thread is to be had.
    pub fn start(brokers: &str) -> io::Result<Self> {
        let ports = brokers.split(',').map(|_| TcpListener::bind("127.0.0.1:0"));
        Self::start_on(ports.collect::<io::Result<_>>()?, brokers)
    }

    /// The same on these ports, as one that went away may come back to its own.
    ///
    /// # Errors
    /// See [`KafkaProxy::start`].
    pub fn start_on(ports: Vec<TcpListener>, brokers: &str) -> io::Result<Self> {
        let mut listeners = Vec::new();
        let mut places = Places::new();
        for (listener, broker) in ports.into_iter().zip(brokers.split(',')) {
            let server: SocketAddr = broker.parse().map_err(io::Error::other)?;
            places.insert((server.ip().to_string(), server.port().into()), listener.local_addr()?);
            listeners.push((listener, server));
        }
        let (rules, places) = (Arc::new(Rules::new()), Arc::new(places));
        let mut fronts = Vec::new();
        for (listener, server) in listeners {
            let (rules, places) = (Arc::clone(&rules), Arc::clone(&places));
            fronts.push(Front::start(listener, server, move |link| serve(link, &rules, &places))?);
        }
        Ok(Self { rules, fronts })
    }

    /// Its addresses, as a comma list in the brokers' order.
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.fronts.iter().map(|it| it.address().to_string()).collect();
        addresses.join(",")
    }

    /// Does `fault` once, to the next request of this kind, to whichever broker,
    /// that `nth` others come before (0: the very next), or to its answer. A cut
    /// counts the bytes of that one frame, its length included.
    pub fn tell(&self, kind: ApiKey, nth: usize, side: Side, fault: Fault) -> Told {
        self.rules.add(kind, nth, side, fault)
    }
}

impl Drop for KafkaProxy {
    fn drop(&mut self) {
        self.rules.end();
    }
}

/// A request that waits for its answer.
struct Asked {
    kind: i16,
    version: i16,
    order: Option<Order>,
}

#[derive(Default)]
struct Pending(Mutex<HashMap<i32, Asked>>);

impl Pending {
    fn asked(&self) -> MutexGuard<'_, HashMap<i32, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(link: &Link, rules: &Rules<ApiKey>, places: &Places) {
    let pending = Pending::default();
    link.run(
        // An end by an error is an end.
        || drop(requests(link, rules, &pending)),
        || drop(answers(link, &pending, places)),
    );
}

fn requests(link: &Link, rules: &Rules<ApiKey>, pending: &Pending) -> io::Result<()> {
    loop {
        let frame = read_frame(&link.client)?;
        let kind = number(&frame, 4)?;
        let version = number(&frame, 6)?;
        let id = i32::from(number(&frame, 8)?) << 16 | i32::from(number(&frame, 10)?) & 0xffff;
        let order = rules.take(|wanted| *wanted as i16 == kind);
        let (now, later): (Option<Order>, Option<Order>) = match order {
            Some(order) if order.side == Side::Request => (Some(order), None),
            other => (None, other),
        };
        {
            let mut asked = pending.asked();
            if asked.len() >= ASKED_MAX {
                return Ok(());
            }
            asked.insert(id, Asked { kind, version, order: later });
        }
        if !pass(&link.server, &frame, now.as_ref())? {
            return Ok(());
        }
    }
}

fn answers(link: &Link, pending: &Pending, places: &Places) -> io::Result<()> {
    loop {
        let mut frame = read_frame(&link.server)?;
        let id = i32::from(number(&frame, 4)?) << 16 | i32::from(number(&frame, 6)?) & 0xffff;
        let asked = pending.asked().remove(&id);
        if let Some(Asked { kind, version, .. }) = &asked {
            if *kind == ApiKey::Metadata as i16 {
                frame = moved::<MetadataResponse>(&frame, *version, |response| {
                    for broker in &mut response.brokers {
                        move_to(places, &mut broker.host, &mut broker.port);
                    }
                })?;
            } else if *kind == ApiKey::FindCoordinator as i16 {
                frame = moved::<FindCoordinatorResponse>(&frame, *version, |response| {
                    move_to(places, &mut response.host, &mut response.port);
                    for found in &mut response.coordinators {
                        move_to(places, &mut found.host, &mut found.port);
                    }
                })?;
            }
        }
        if !pass(&link.client, &frame, asked.and_then(|asked| asked.order).as_ref())? {
            return Ok(());
        }
    }
}

fn read_frame(mut from: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let size = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if size > MESSAGE_BYTES_MAX {
        return Err(io::Error::other("a frame that is too long"));
    }
    let mut frame = vec![0; 4 + size];
    frame[..4].copy_from_slice(&length);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

fn number(frame: &[u8], at: usize) -> io::Result<i16> {
    let bytes = frame.get(at..).and_then(|rest| rest.first_chunk());
    let bytes = bytes.ok_or_else(|| io::Error::other("a frame that is too short"))?;
    Ok(i16::from_be_bytes(*bytes))
}

/// The frame of an answer after a change.
fn moved<R: Decodable + Encodable + HeaderVersion>(
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

fn move_to(places: &Places, host: &mut StrBytes, port: &mut i32) {
    if let Some(place) = places.get(&(host.to_string(), *port)) {
        *host = StrBytes::from_string(place.ip().to_string());
        *port = place.port().into();
    }
}
