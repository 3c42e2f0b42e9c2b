//! The baseline for an HTTPS probe: rustls over a socket, and nothing else.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::pem::Pem;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// Interval between two probes.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// Size of the read buffer.
const READ_BYTES: usize = 16 * 1024;

/// Requests a page a hundred times a second, each time with a new connection, until the process
/// is killed. It runs in its own process, so that its processor time can be measured.
///
/// # Errors
/// Fails if a request fails.
pub fn bare_probes(address: SocketAddr, ca: &Path) -> Result<(), Box<dyn Error>> {
    let roots = Pem::from_setting(&ca.display().to_string()).roots()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let mut due_at = Instant::now();
    let mut page = Vec::new();
    loop {
        due_at += PROBE_INTERVAL;
        while let Some(remaining) = due_at.checked_duration_since(Instant::now()) {
            thread::park_timeout(remaining);
        }
        get(address, &config, &mut page)?;
    }
}

fn get(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    page: &mut Vec<u8>,
) -> Result<(), Box<dyn Error>> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let name = ServerName::IpAddress(address.ip().into());
    let tls = ClientConnection::new(Arc::clone(config), name)?;
    let mut stream = StreamOwned::new(tls, socket);
    let request = format!("GET /0 HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    page.clear();
    let mut buffer = [0; READ_BYTES];
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            count => page.extend_from_slice(&buffer[..count]),
        }
    }
    if page.starts_with(b"HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err("the response does not have status 200".into())
    }
}
