use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustls::{AlertDescription, RootCertStore, ServerConnection, StreamOwned};
use testkit::certificates::{Authority, CertificateValidity};

use super::*;
use crate::probe::net::deadline::Deadline;

/// Runs a handshake between a site with a certificate of `authority` and a client that
/// trusts `trusted`. Returns the bytes that the site reads, or its error.
fn handshake(
    authority: &Authority,
    trusted: &Authority,
    use_stream: impl FnOnce(Result<Stream, StreamError>),
) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = authority.server(&["a.example"], CertificateValidity::Now).unwrap();
    let site = std::thread::spawn(move || {
        let tls = ServerConnection::new(config).unwrap();
        let mut text = String::new();
        let mut stream = StreamOwned::new(tls, listener.accept()?.0);
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate()).unwrap();
    let config = tls::client_config(roots, false, None).unwrap();
    let deadline = Deadline::after(Duration::from_secs(60));
    let socket = TimedSocket::new(TcpStream::connect(address).unwrap(), deadline).unwrap();
    use_stream(Stream::tls(socket, config, ServerName::try_from("a.example").unwrap()));
    site.join().unwrap()
}

#[test]
fn the_end_of_the_handshake_is_sent_with_the_request() {
    let authority = Authority::new("own").unwrap();
    let text = handshake(&authority, &authority, |stream| {
        let mut stream = stream.unwrap();
        let has_pending = |stream: &Stream| stream.tls.as_ref().unwrap().wants_write();
        assert!(has_pending(&stream));
        stream.send(b"all of it").unwrap();
        assert!(!has_pending(&stream));
        let tls = stream.tls.as_mut().unwrap();
        tls.send_close_notify();
        tls.write_tls(&mut stream.socket).unwrap();
    });
    assert_eq!(text.unwrap(), "all of it");
}

#[test]
fn a_rejected_site_receives_an_alert() {
    let (own, other) = (Authority::new("own").unwrap(), Authority::new("other").unwrap());
    let error = handshake(&own, &other, |stream| {
        assert!(matches!(stream.unwrap_err(), StreamError::Tls(_)));
    });
    let error = error.unwrap_err().downcast::<rustls::Error>().unwrap();
    assert!(
        matches!(error, rustls::Error::AlertReceived(AlertDescription::CertificateUnknown)),
        "{error}"
    );
}
