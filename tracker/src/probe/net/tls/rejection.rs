//! Turns TLS errors into failures, and names the fault of a certificate.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error, OtherError};
use webpki::KeyUsage;

use crate::probe::reason::{Failure, Phase, Reason};

/// Why a certificate was rejected, with the details that an operator needs.
#[derive(Debug)]
pub(super) struct Rejection {
    cause: CertificateError,
    has_roots: bool,
    is_self_signed: bool,
    certificate_end: Option<i64>,
}

impl Rejection {
    pub(super) fn new(
        cause: CertificateError,
        certificate: &CertificateDer<'_>,
        has_roots: bool,
    ) -> Self {
        Self {
            cause,
            has_roots,
            is_self_signed: is_self_signed(certificate),
            certificate_end: certificate_end(certificate),
        }
    }

    /// The rejection in an error of rustls.
    fn from_error(error: &Error) -> Option<&Self> {
        match error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                inner.downcast_ref()
            }
            _ => None,
        }
    }

    fn reason_and_detail(&self) -> (Reason, String) {
        use CertificateError as E;
        let (reason, detail) = match &self.cause {
            _ if !self.has_roots => {
                (Reason::TlsUnknownIssuer, "no root certificates on this machine")
            }
            E::UnknownIssuer | E::Other(_) if self.is_self_signed => {
                (Reason::TlsSelfSigned, "self-signed certificate")
            }
            E::UnknownIssuer => (Reason::TlsUnknownIssuer, "certificate of an unknown issuer"),
            E::Expired | E::ExpiredContext { .. } => (Reason::TlsExpired, "certificate expired"),
            E::NotValidYet | E::NotValidYetContext { .. } => {
                (Reason::TlsNotYetValid, "certificate not yet valid")
            }
            E::NotValidForName => (Reason::TlsWrongHost, "certificate for another host"),
            E::NotValidForNameContext { presented, .. } => {
                let names = format_names(presented);
                return (Reason::TlsWrongHost, format!("certificate for another host: {names}"));
            }
            other => return (Reason::TlsCertificate, certificate_error_text(other)),
        };
        (reason, detail.to_owned())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason_and_detail().1)
    }
}

impl std::error::Error for Rejection {}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(rejection))))
    }
}

/// The failure for a TLS error.
pub(crate) fn failure(error: &Error, phase: Phase) -> Failure {
    if let Some(rejection) = Rejection::from_error(error) {
        let (reason, detail) = rejection.reason_and_detail();
        return Failure::with_detail(reason, phase, detail);
    }
    let (reason, detail) = match error {
        Error::InvalidCertificate(cause) => (Reason::TlsCertificate, certificate_error_text(cause)),
        Error::InvalidMessage(_) => (Reason::TlsProtocol, "the answer is not tls".to_owned()),
        Error::AlertReceived(alert) => {
            (Reason::TlsProtocol, format!("the site says: {}", split_words(&format!("{alert:?}"))))
        }
        other => (Reason::TlsProtocol, other.to_string()),
    };
    Failure::with_detail(reason, phase, detail)
}

/// When the certificate that was rejected with this error expires, in seconds since 1970.
pub(crate) fn rejected_certificate_end(error: &Error) -> Option<i64> {
    Rejection::from_error(error).and_then(|rejection| rejection.certificate_end)
}

/// When a certificate expires, in seconds since 1970. `None` if webpki can't parse it.
///
/// webpki returns that time only in an error. So the certificate is verified at the latest
/// possible time: webpki checks the validity period first.
pub(crate) fn certificate_end(certificate: &CertificateDer<'_>) -> Option<i64> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let latest_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let usage = KeyUsage::server_auth();
    let verified = certificate.verify_for_usage(&[], &[], &[], latest_time, usage, None, None);
    match verified {
        Err(webpki::Error::CertExpired { not_after, .. }) => {
            i64::try_from(not_after.as_secs()).ok()
        }
        _ => None,
    }
}

/// Compares only the names: the certificate was rejected already.
fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    webpki::EndEntityCert::try_from(certificate)
        .is_ok_and(|certificate| certificate.issuer() == certificate.subject())
}

/// The text of rustls. It is a sentence about the certificate for some causes, and a single
/// word for others.
fn certificate_error_text(cause: &CertificateError) -> String {
    let text = cause.to_string();
    match text.starts_with("certificate ") {
        true => text,
        false => format!("certificate: {text}"),
    }
}

/// Joins the names of a certificate, which rustls formats as `DnsName("example.org")`.
fn format_names(presented: &[String]) -> String {
    let unquoted = |name: &String| match (name.find('"'), name.rfind('"')) {
        (Some(first), Some(last)) if first < last => name[first + 1..last].to_owned(),
        _ => name.clone(),
    };
    match presented.is_empty() {
        true => "it names none".to_owned(),
        false => presented.iter().map(unquoted).collect::<Vec<_>>().join(", "),
    }
}

/// Turns `HandshakeFailure` into `handshake failure`.
fn split_words(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
