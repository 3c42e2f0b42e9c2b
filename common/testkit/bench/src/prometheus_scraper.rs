//! Asks an exporter for probes, as Prometheus does.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use std::sync::Arc;

use crate::BenchError;
use crate::bare_rustls::START_EVERY;

/// Connections that are result, by each of which one probe runs at a time.
const CONNECTIONS: u32 = 8;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
const SUCCESS: &str = "\nprobe_success 1\n";

/// Threads that ask a hundred times a second.
pub(crate) struct Scraper {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    failed: AtomicU64,
}

impl Scraper {
    /// Starts to ask the exporter at this port of loopback.
    pub(crate) fn start(port: u16, urls: &[String]) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let begin = Instant::now();
        let threads = (0..CONNECTIONS)
            .map(|number| {
                let (shared, urls) = (Arc::clone(&shared), urls.to_vec());
                thread::Builder::new().spawn(move || {
                    let mut due_at = begin + START_EVERY * number;
                    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
                    stream.set_read_timeout(Some(TIMEOUT))?;
                    stream.set_nodelay(true)?;
                    for url in urls.iter().cycle() {
                        due_at += START_EVERY * CONNECTIONS;
                        while let Some(left) = due_at.checked_duration_since(Instant::now()) {
                            thread::park_timeout(left);
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

    /// Ends it; fails when a probe did.
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

/// Gets a page by a connection that is result: all of the answer.
pub(crate) fn scrape(stream: &mut TcpStream, path: &str) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while !is_whole(&answer) {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether an answer is complete, in either of the two ways in which Go sends it.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    match length.and_then(|length| length.trim().parse::<usize>().ok()) {
        Some(length) => answer.len() >= end + 4 + length,
        None => answer.ends_with(b"\r\n0\r\n\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_by_its_length_or_its_last_chunk() {
        let head = "HTTP/1.1 200 OK\r\n";
        for (rest, whole) in [
            ("Content-Length: 3\r\n\r\nab", false),
            ("Content-Length: 3\r\n\r\nabc", true),
            ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", false),
            ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", true),
            ("Content-Length: 3\r\n", false),
        ] {
            assert_eq!(is_whole(format!("{head}{rest}").as_bytes()), whole, "{rest:?}");
        }
    }
}
