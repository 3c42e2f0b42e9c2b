//! A TCP forwarder, for a server that must become reachable later than its clients start, or
//! become unreachable without being stopped.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::proxy::listener::ProxyListener;

/// Forwards the connections of one port to an address. Dropping it closes all connections.
pub struct Forwarder(ProxyListener);

impl Forwarder {
    /// Forwards the connections that `listener` accepts to `to`.
    ///
    /// # Errors
    /// Fails if the listener has no address or the thread can't be started.
    pub fn start(listener: TcpListener, to: SocketAddr) -> io::Result<Self> {
        // An I/O error ends the copy like an end of file.
        let copy =
            |mut from: &TcpStream, mut into: &TcpStream| drop(io::copy(&mut from, &mut into));
        let forward = ProxyListener::start(listener, to, move |pair| {
            pair.run(|| copy(&pair.client, &pair.server), || copy(&pair.server, &pair.client));
        })?;
        Ok(Self(forward))
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }
}
