//! Certificates and TLS handshakes that fail, and the outcome of each.

use common::phrase;
use testkit::certificates::{Authority, CertificateValidity, self_signed};
use testkit::sites::{Site, Step, page};

use crate::{Observed, incomplete, limits, no_response, probe, success, test_prober};

#[test]
fn each_error_of_a_certificate_has_its_reason() {
    let authority = Authority::new("trusted").unwrap();
    let other = Authority::new("other").unwrap();
    let prober = test_prober(limits(), vec![authority.certificate()]);
    let observe = |config| {
        let site = Site::https(config, |_| vec![Step::Send(page("secret"))]).unwrap();
        let url = format!("https://site.localhost:{}/", site.port());
        Observed::from(prober.probe(&url.parse().unwrap(), None))
    };
    let name = ["site.localhost"];
    let error = phrase::SSL_ERROR;
    let now = CertificateValidity::Now;
    assert_eq!(observe(authority.server(&name, now).unwrap()), success("ok"));
    for (config, reason, detail) in [
        (
            authority.server(&name, CertificateValidity::Expired),
            "tls_expired",
            "certificate expired",
        ),
        (
            authority.server(&name, CertificateValidity::NotYetValid),
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
        assert_eq!(observe(config.unwrap()), incomplete(error, detail).with_failure(reason, "tls"));
    }
}

#[test]
fn a_certificate_can_be_for_an_address_or_a_name_with_a_final_dot() {
    let authority = Authority::new("trusted").unwrap();
    let prober = test_prober(limits(), vec![authority.certificate()]);
    let config =
        authority.server(&["127.0.0.1", "site.localhost"], CertificateValidity::Now).unwrap();
    let site = Site::https(config, |_| vec![Step::Send(page("secret"))]).unwrap();
    for host in ["127.0.0.1", "site.localhost."] {
        let url = format!("https://{host}:{}/", site.port());
        let observed = Observed::from(prober.probe(&url.parse().unwrap(), None));
        assert_eq!(observed, success("ok"), "{host}");
    }
}

#[test]
fn each_failure_of_a_handshake_has_its_reason() {
    let observe = |steps| {
        let site = Site::raw(steps).unwrap();
        Observed::from(probe(&format!("https://127.0.0.1:{}/", site.port()), None))
    };
    let answers = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    // The fatal alert handshake_failure.
    let alert = b"\x15\x03\x03\x00\x02\x02\x28".to_vec();
    assert_eq!(
        observe(vec![Step::Send(answers), Step::Hang]),
        incomplete(phrase::SSL_ERROR, "the answer is not tls").with_failure("tls_protocol", "tls")
    );
    assert_eq!(
        observe(vec![Step::Send(alert), Step::Hang]),
        incomplete(phrase::SSL_ERROR, "the site says: handshake failure")
            .with_failure("tls_protocol", "tls")
    );
    let place = "in the tls handshake";
    let reset = no_response(phrase::CONNECTION_RESET, place);
    assert_eq!(
        observe(vec![Step::ReadSome, Step::Reset]),
        reset.with_failure("connection_reset", "tls")
    );
    // The site must read the client hello first: a close with unread input is a reset.
    let half = b"\x16\x03\x03\x00\x40".to_vec();
    let closing = vec![Step::ReadSome, Step::Send(half)];
    let closed = no_response(phrase::CONNECTION_CLOSED, place);
    assert_eq!(observe(closing), closed.with_failure("closed_early", "tls"));
}

#[test]
fn a_missing_root_store_is_reported() {
    let authority = Authority::new("trusted").unwrap();
    let config = authority.server(&["127.0.0.1"], CertificateValidity::Now).unwrap();
    let site = Site::https(config, |_| vec![Step::Send(page("secret"))]).unwrap();
    let observed = Observed::from(probe(&format!("https://127.0.0.1:{}/", site.port()), None));
    let detail = "no root certificates on this machine";
    let expected = incomplete(phrase::SSL_ERROR, detail);
    assert_eq!(observed, expected.with_failure("tls_unknown_issuer", "tls"));
}
