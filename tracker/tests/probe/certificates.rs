use common::phrase;
use testkit::certificates::{Authority, Validity, self_signed};
use testkit::sites::{Site, Step, page};

use crate::{Seen, broken, limits, probe, prober_with, unanswered, well};

#[test]
fn each_fault_of_a_certificate_is_named() {
    let authority = Authority::new("trusted").unwrap();
    let other = Authority::new("other").unwrap();
    let prober = prober_with(limits(), vec![authority.certificate()]);
    let see = |config| {
        let site = Site::https(config, |_| vec![Step::Send(page("secret"))]).unwrap();
        let url = format!("https://site.localhost:{}/", site.port());
        Seen::from(prober.probe(&url.parse().unwrap(), None))
    };
    let name = ["site.localhost"];
    let error = phrase::SSL_ERROR;
    let now = Validity::Now;
    assert_eq!(see(authority.server(&name, now).unwrap()), well("ok"));
    for (config, reason, detail) in [
        (authority.server(&name, Validity::Expired), "tls_expired", "certificate expired"),
        (
            authority.server(&name, Validity::NotYetValid),
            "tls_not_yet_valid",
            "certificate not yet valid",
        ),
        (
            authority.server(&["a.example", "b.example"], now),
            "tls_wrong_host",
            "certificate for another host: a.example, b.example",
        ),
        (
            authority.server(&[], now),
            "tls_wrong_host",
            "certificate for another host: it names none",
        ),
        (other.server(&name, now), "tls_unknown_issuer", "certificate of an unknown issuer"),
        (
            authority.server_with_client_certificate(&name),
            "tls_certificate",
            "certificate does not allow extended key usage for server authentication, allows client authentication",
        ),
        (self_signed(&name), "tls_self_signed", "self-signed certificate"),
    ] {
        assert_eq!(see(config.unwrap()), broken(error, detail).because(reason, "tls"));
    }
}

#[test]
fn an_address_and_a_name_with_a_dot_have_certificates_too() {
    let authority = Authority::new("trusted").unwrap();
    let prober = prober_with(limits(), vec![authority.certificate()]);
    let config = authority.server(&["127.0.0.1", "site.localhost"], Validity::Now).unwrap();
    let site = Site::https(config, |_| vec![Step::Send(page("secret"))]).unwrap();
    for host in ["127.0.0.1", "site.localhost."] {
        let url = format!("https://{host}:{}/", site.port());
        let seen = Seen::from(prober.probe(&url.parse().unwrap(), None));
        assert_eq!(seen, well("ok"), "{host}");
    }
}

#[test]
fn tls_that_does_not_come_about_is_told_apart() {
    let see = |steps| {
        let site = Site::raw(steps).unwrap();
        Seen::from(probe(&format!("https://127.0.0.1:{}/", site.port()), None))
    };
    let answers = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    // A fatal alert, handshake_failure.
    let alert = b"\x15\x03\x03\x00\x02\x02\x28".to_vec();
    assert_eq!(
        see(vec![Step::Send(answers), Step::Hang]),
        broken(phrase::SSL_ERROR, "the answer is not tls").because("tls_protocol", "tls")
    );
    assert_eq!(
        see(vec![Step::Send(alert), Step::Hang]),
        broken(phrase::SSL_ERROR, "the site says: handshake failure")
            .because("tls_protocol", "tls")
    );
    let place = "in the tls handshake";
    let reset = unanswered(phrase::CONNECTION_RESET, place);
    assert_eq!(see(vec![Step::ReadSome, Step::Reset]), reset.because("connection_reset", "tls"));
    // A close with the greeting unread is a reset; half a record is read here.
    let half = b"\x16\x03\x03\x00\x40".to_vec();
    let shut = vec![Step::ReadSome, Step::Send(half)];
    let closed = unanswered(phrase::CONNECTION_CLOSED, place);
    assert_eq!(see(shut), closed.because("closed_early", "tls"));
}

#[test]
fn a_machine_without_roots_says_so() {
    let authority = Authority::new("trusted").unwrap();
    let config = authority.server(&["127.0.0.1"], Validity::Now).unwrap();
    let site = Site::https(config, |_| vec![Step::Send(page("secret"))]).unwrap();
    let seen = Seen::from(probe(&format!("https://127.0.0.1:{}/", site.port()), None));
    let detail = "no root certificates on this machine";
    let expected = broken(phrase::SSL_ERROR, detail);
    assert_eq!(seen, expected.because("tls_unknown_issuer", "tls"));
}
