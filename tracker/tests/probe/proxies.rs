//! Probes through an HTTP proxy, and every way in which a proxy fails.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::phrase;
use testkit::certificates::{Authority, CertificateValidity};
use testkit::sites::{BlackHole, RefusingPort, Site, Step, page};
use tracker::probe::Roots;

use super::target_options::{observe, probe_target, url_of};
use super::{Observed, no_response, success};

/// A proxy that supports only CONNECT, and the requests that it received.
struct ConnectProxy {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl ConnectProxy {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let thread_requests = Arc::clone(&requests);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !Self::serve(client, &thread_requests) {
                    return;
                }
            }
        });
        Self { port, requests, thread: Some(thread) }
    }

    fn serve(mut client: TcpStream, requests: &Mutex<Vec<String>>) -> bool {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if client.read(&mut byte).unwrap_or(0) == 0 {
                return false;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let host = head.split(' ').nth(1).unwrap().to_owned();
        requests.lock().unwrap().push(head);
        let port: u16 = host.rsplit(':').next().unwrap().parse().unwrap();
        let mut site = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
        let (mut from_client, mut to_site) =
            (client.try_clone().unwrap(), site.try_clone().unwrap());
        let upload = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_site);
            let _ = to_site.shutdown(std::net::Shutdown::Write);
        });
        let _ = std::io::copy(&mut site, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Both);
        upload.join().is_ok()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_site_is_probed_through_a_proxy() {
    let proxy = ConnectProxy::new();
    let authority = Authority::new("trusted").unwrap();
    let config = authority.server(&["site.example"], CertificateValidity::Now).unwrap();
    let secure = Site::https(config, |_| vec![Step::Send(page("x"))]).unwrap();
    let plain = Site::http(|_| vec![Step::Send(page("x"))]).unwrap();
    let roots = || Roots::Custom(vec![authority.certificate()]);
    let with_user = format!("proxy = 'http://u:p%20w@127.0.0.1:{}'", proxy.port);
    let url = format!("https://site.example:{}/", secure.port());
    // The proxy resolves the name.
    assert_eq!(Observed::from(probe_target(roots(), &url, &with_user)), success("ok"));
    let without = format!("proxy = 'http://127.0.0.1:{}'", proxy.port);
    assert_eq!(observe(&url_of(&plain), &without), success("ok"));
    let requests = proxy.requests.lock().unwrap();
    let host = format!("site.example:{}", secure.port());
    let expected = format!(
        "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic dTpwIHc=\r\n\r\n"
    );
    assert_eq!(requests[0], expected);
    let host = format!("127.0.0.1:{}", plain.port());
    assert_eq!(requests[1], format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert!(plain.requests()[0].starts_with("GET / HTTP/1.1\r\n"));
}

#[test]
fn each_failure_of_a_proxy_has_its_reason() {
    let answering = |bytes: &[u8]| Site::sends(bytes.to_vec()).unwrap();
    let refusing = RefusingPort::new().unwrap();
    let hole = BlackHole::new().unwrap();
    let silent = Site::http(|_| vec![Step::Hang]).unwrap();
    let dripping = Site::http(|_| {
        vec![Step::Drip(b"HTTP/1.1 200 OK\r\nx: y\r\n".repeat(9), Duration::from_millis(40))]
    })
    .unwrap();
    let sites = [
        answering(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"),
        answering(b"HTTP/1.1 502 \r\n\r\n"),
        answering(b"SSH-2.0-x\r\n\r\n"),
        answering(b"HTTP/1.1 200 OK\r\n\r\nx"),
        answering(b"HTTP/1.1 200 OK\r\n"),
        answering(&[b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 20_000]].concat()),
    ];
    let [authentication, bad_gateway, not_http, early_bytes, incomplete, endless] =
        sites.each_ref().map(Site::port);
    let refused = refusing.port().unwrap();
    for (port, reason, detail) in [
        (authentication, "proxy_refused", "407 Proxy Authentication Required".to_owned()),
        (bad_gateway, "proxy_refused", "502".to_owned()),
        (not_http, "proxy_failed", "the answer is not http".to_owned()),
        (early_bytes, "proxy_failed", "bytes behind the answer".to_owned()),
        (incomplete, "proxy_failed", "closed".to_owned()),
        (endless, "proxy_failed", "an answer without an end".to_owned()),
        (refused, "proxy_failed", format!("connect_refused: 127.0.0.1:{refused}")),
        (silent.port(), "proxy_timeout", "no answer".to_owned()),
        (dripping.port(), "proxy_timeout", "no answer".to_owned()),
        (
            hole.port().unwrap(),
            "proxy_timeout",
            format!("connect_timeout: 127.0.0.1:{}", hole.port().unwrap()),
        ),
    ] {
        let started_at = Instant::now();
        let timeout = if reason == "proxy_timeout" { "timeout_s = 0.2\n" } else { "" };
        let lines = format!("{timeout}proxy = 'http://127.0.0.1:{port}'");
        let phrase = match reason {
            "proxy_timeout" => phrase::CONNECTION_TIMEOUT,
            _ => phrase::CONNECTION_FAILED,
        };
        let detail = format!("proxy 127.0.0.1:{port}: {detail}");
        let expected = no_response(phrase, &detail).with_failure(reason, "connect");
        assert_eq!(observe("https://site.example/", &lines), expected, "{lines}");
        assert!(started_at.elapsed() < Duration::from_secs(10));
    }
    let observed = observe("http://site.example/", "proxy = 'http://proxy.invalid'");
    assert_eq!(observed.detail.as_deref(), Some("proxy proxy.invalid:80: dns_no_such_domain"));
}
