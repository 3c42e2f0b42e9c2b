//! Requests probes from an exporter, as Prometheus does.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use std::sync::Arc;

use crate::BenchError;
use crate::bare_rustls::PROBE_INTERVAL;

/// Number of persistent connections. Each runs one probe at a time.
const CONNECTIONS: u32 = 8;
/// Time-out for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const SUCCESS: &str = "\nprobe_success 1\n";

/// Threads that together request a hundred probes per second.
pub(crate) struct Scraper {
    shared: Arc<ScraperState>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct ScraperState {
    stopping: AtomicBool,
    failed: AtomicU64,
}

impl Scraper {
    /// Starts to request probes from the exporter at this port of loopback.
    pub(crate) fn start(port: u16, urls: &[String]) -> io::Result<Self> {
        let shared = Arc::new(ScraperState::default());
        let started_at = Instant::now();
        let threads = (0..CONNECTIONS)
            .map(|number| {
                let (shared, urls) = (Arc::clone(&shared), urls.to_vec());
                thread::Builder::new().spawn(move || {
                    let mut due_at = started_at + PROBE_INTERVAL * number;
                    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
                    stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
                    stream.set_nodelay(true)?;
                    for url in urls.iter().cycle() {
                        due_at += PROBE_INTERVAL * CONNECTIONS;
                        while let Some(remaining) = due_at.checked_duration_since(Instant::now()) {
                            thread::park_timeout(remaining);
                        }
                        if shared.stopping.load(Ordering::Relaxed) {
                            break;
                        }
                        if !scrape(&mut stream, &format!("/probe?module=bench&target={url}"))?
                            .contains(SUCCESS)
                        {
                            shared.failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Ok(())
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { shared, threads })
    }

    /// Stops the threads. Fails if a probe failed.
    pub(crate) fn stop(self) -> Result<(), BenchError> {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        match self.shared.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => Err(format!("{failed} probes of the exporter failed").into()),
        }
    }
}

/// Sends a GET request on a persistent connection and returns the whole response.
pub(crate) fn scrape(stream: &mut TcpStream, path: &str) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut response = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while !is_complete(&response) {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => response.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// Whether a response is complete, with a length or in chunks. Go sends both.
fn is_complete(response: &[u8]) -> bool {
    let Some(end) = response.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&response[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    match length.and_then(|length| length.trim().parse::<usize>().ok()) {
        Some(length) => response.len() >= end + 4 + length,
        None => response.ends_with(b"\r\n0\r\n\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_complete_by_its_length_or_its_last_chunk() {
        let head = "HTTP/1.1 200 OK\r\n";
        for (rest, whole) in [
            ("Content-Length: 3\r\n\r\nab", false),
            ("Content-Length: 3\r\n\r\nabc", true),
            ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", false),
            ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", true),
            ("Content-Length: 3\r\n", false),
        ] {
            assert_eq!(is_complete(format!("{head}{rest}").as_bytes()), whole, "{rest:?}");
        }
    }
}
