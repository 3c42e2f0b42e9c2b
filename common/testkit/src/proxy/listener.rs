//! Accepts connections and pairs each with a connection to the server. Shared by the proxies and
//! the forwarder.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Maximum number of concurrent connections. Further ones are closed at once.
const CONNECTIONS_MAX: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client's connection and the matching connection to the server.
pub(crate) struct ConnectionPair {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
}

impl ConnectionPair {
    /// Closes both connections, which unblocks all readers.
    pub(crate) fn close(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    /// Runs both directions. The end of one closes both connections.
    pub(crate) fn run(&self, requests: impl FnOnce() + Send, responses: impl FnOnce()) {
        thread::scope(|scope| {
            scope.spawn(|| {
                requests();
                self.close();
            });
            responses();
            self.close();
        });
    }
}

/// A listening port. Dropping it closes all connections.
pub(crate) struct ProxyListener {
    address: SocketAddr,
    shared: Arc<ListenerState>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct ListenerState {
    ended: AtomicBool,
    pairs: Mutex<Vec<(Arc<ConnectionPair>, JoinHandle<()>)>>,
}

impl ProxyListener {
    /// Accepts connections on `listener`, connects each to `server`, and runs `serve` for the
    /// pair on a new thread.
    pub(crate) fn start(
        listener: TcpListener,
        server: SocketAddr,
        serve: impl Fn(&ConnectionPair) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(ListenerState::default());
        let (for_thread, serve) = (Arc::clone(&shared), Arc::new(serve));
        let accept = move || {
            for client in listener.incoming() {
                if for_thread.ended.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(client) = client {
                    // If the server is unreachable, the client's connection is closed.
                    let _ = for_thread.open(client, server, &serve);
                }
            }
        };
        let name = format!("proxy-{}", address.port());
        let accepting = Some(thread::Builder::new().name(name).spawn(accept)?);
        Ok(Self { address, shared, accepting })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl ListenerState {
    fn pairs(&self) -> MutexGuard<'_, Vec<(Arc<ConnectionPair>, JoinHandle<()>)>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open<S: Fn(&ConnectionPair) + Send + Sync + 'static>(
        &self,
        client: TcpStream,
        server: SocketAddr,
        serve: &Arc<S>,
    ) -> io::Result<()> {
        self.pairs().retain(|(_, thread)| !thread.is_finished());
        if self.pairs().len() >= CONNECTIONS_MAX {
            return Ok(());
        }
        let server = TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let pair = Arc::new(ConnectionPair { client, server });
        let (for_thread, serve) = (Arc::clone(&pair), Arc::clone(serve));
        let thread = thread::Builder::new().spawn(move || serve(&for_thread))?;
        self.pairs().push((pair, thread));
        Ok(())
    }
}

impl Drop for ProxyListener {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // A last connection unblocks the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let pairs = std::mem::take(&mut *self.shared.pairs());
        for (pair, thread) in pairs {
            pair.close();
            let _ = thread.join();
        }
    }
}
