//! A TCP forwarder, for a server that is to appear later than its clients, or
//! to go away without being stopped.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::proxy::front::Front;

/// Forwards connections of one port to an address until it is dropped, which
/// cuts them.
pub struct Forwarder(Front);

impl Forwarder {
    /// Forwards `listener`'s connections to `to`.
    ///
    /// # Errors
    /// When the listener has no address or no thread is to be had.
    pub fn start(listener: TcpListener, to: SocketAddr) -> io::Result<Self> {
        // An end by an error is an end.
        let copy =
            |mut from: &TcpStream, mut into: &TcpStream| drop(io::copy(&mut from, &mut into));
        let forward = Front::start(listener, to, move |link| {
            link.run(|| copy(&link.client, &link.server), || copy(&link.server, &link.client));
        })?;
        Ok(Self(forward))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }
}
