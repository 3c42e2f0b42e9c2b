//! What the proxies and the forwarder have in common: a port, connections, threads.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The most connections at once; one more is closed.
const LINKS_MAX: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client's connection and the one to the server that belongs to it.
pub(crate) struct Link {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
}

impl Link {
    /// Ends both, which wakes whoever reads from them.
    pub(crate) fn close(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    /// Runs both ways, each until its end or a fault, which ends the other too.
    pub(crate) fn run(&self, requests: impl FnOnce() + Send, answers: impl FnOnce()) {
        thread::scope(|scope| {
            scope.spawn(|| {
                requests();
                self.close();
            });
            answers();
            self.close();
        });
    }
}

/// A port whose connections are served, until it is dropped.
pub(crate) struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    links: Mutex<Vec<(Arc<Link>, JoinHandle<()>)>>,
}

impl Front {
    /// Serves `listener`'s connections, each with one to `server`, by a thread.
    pub(crate) fn start(
        listener: TcpListener,
        server: SocketAddr,
        serve: impl Fn(&Link) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let (of_thread, serve) = (Arc::clone(&shared), Arc::new(serve));
        let accept = move || {
            for client in listener.incoming() {
                if of_thread.ended.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(client) = client {
                    // A server that is away looks like one: the client is closed.
                    let _ = of_thread.open(client, server, &serve);
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

impl Shared {
    fn links(&self) -> MutexGuard<'_, Vec<(Arc<Link>, JoinHandle<()>)>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open<S: Fn(&Link) + Send + Sync + 'static>(
        &self,
        client: TcpStream,
        server: SocketAddr,
        serve: &Arc<S>,
    ) -> io::Result<()> {
        self.links().retain(|(_, thread)| !thread.is_finished());
        if self.links().len() >= LINKS_MAX {
            return Ok(());
        }
        let server = TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let link = Arc::new(Link { client, server });
        let (of_thread, serve) = (Arc::clone(&link), Arc::clone(serve));
        let thread = thread::Builder::new().spawn(move || serve(&of_thread))?;
        self.links().push((link, thread));
        Ok(())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // The accept that waits is woken by a connection that is then dropped.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let links = std::mem::take(&mut *self.shared.links());
        for (link, thread) in links {
            link.close();
            let _ = thread.join();
        }
    }
}
