//! A TCP forwarder, for a server that is to appear later than its clients, or
//! to go away without being stopped.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Forwards connections of one port to an address until it is dropped, which
/// cuts them.
pub struct Forwarder {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Forwarder {
    /// Forwards `listener`'s connections to `to`.
    ///
    /// # Errors
    /// When the listener has no address or no thread is to be had.
    pub fn start(listener: TcpListener, to: SocketAddr) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let accepting = std::thread::Builder::new()
            .name(format!("forward-{}", address.port()))
            .spawn(move || {
                for client in listener.incoming() {
                    if of_thread.ended.load(Ordering::Acquire) {
                        return;
                    }
                    if let Ok(client) = client {
                        let _ = of_thread.forward(client, to);
                    }
                }
            })?;
        Ok(Self { address, shared, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Shared {
    fn forward(&self, client: TcpStream, to: SocketAddr) -> io::Result<()> {
        let server = TcpStream::connect(to)?;
        for (mut from, mut into) in
            [(client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?)]
        {
            std::thread::Builder::new().spawn(move || {
                let _ = io::copy(&mut from, &mut into);
                let _ = into.shutdown(Shutdown::Both);
            })?;
        }
        self.open.lock().unwrap_or_else(PoisonError::into_inner).extend([client, server]);
        Ok(())
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // The accept that waits is woken by a connection that is then refused.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
