//! TLS: whom to trust, and what exactly is wrong with a certificate.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::verdict::{Failure, Phase, Reason};

/// Whose certificates are trusted.
#[derive(Debug, Clone, Default)]
pub enum Roots {
    /// The machine's, found where OpenSSL would find them: SSL_CERT_FILE and
    /// SSL_CERT_DIR count.
    #[default]
    System,
    /// These alone.
    These(Vec<CertificateDer<'static>>),
}

impl Roots {
    /// A machine without roots can still probe plain HTTP, and its HTTPS
    /// targets each say why they fail; so that is a warning.
    fn load(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        match self {
            Self::These(certificates) => {
                store.add_parsable_certificates(certificates.iter().cloned());
            }
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                for cause in &found.errors {
                    log::warn!("root certificates: {cause}");
                }
                store.add_parsable_certificates(found.certs);
            }
        }
        if store.is_empty() {
            log::warn!("no root certificates: every https target will fail with an ssl error");
        }
        store
    }
}

/// The settings of every TLS connection. No session is resumed, so that each
/// probe tests the whole way; HTTP/1.1 is the one protocol offered.
///
/// # Errors
/// When the cryptography can't do the default TLS versions.
pub(super) fn client_config(roots: &Roots) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let store = roots.load();
    let inner = match store.is_empty() {
        true => None,
        false => Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
                .build()
                .map_err(|cause| Error::General(cause.to_string()))?,
        ),
    };
    let verifier = Verifier { inner, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// rustls's own verifier, which alone decides; added is what a person wants to
/// know of a refusal and rustls does not tell.
#[derive(Debug)]
struct Verifier {
    /// None without roots: then every certificate is of an unknown issuer.
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else {
            return Err(Untrusted::NoRoots.into());
        };
        inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| match error {
                Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::Other(_),
                ) if is_self_signed(end_entity) => Untrusted::SelfSigned.into(),
                other => other,
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The names alone tell enough: the certificate has been refused already.
fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    webpki::EndEntityCert::try_from(certificate).is_ok_and(|one| one.issuer() == one.subject())
}

#[derive(Debug, Clone, Copy)]
enum Untrusted {
    NoRoots,
    SelfSigned,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoots => "no root certificates on this machine",
            Self::SelfSigned => "self-signed certificate",
        })
    }
}

impl std::error::Error for Untrusted {}

impl From<Untrusted> for Error {
    fn from(cause: Untrusted) -> Self {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(cause))))
    }
}

/// What a person is told of an error of TLS.
pub(super) fn failure(error: &Error, phase: Phase) -> Failure {
    let (reason, detail) = match error {
        Error::InvalidCertificate(cause) => of_certificate(cause),
        Error::InvalidMessage(_) => (Reason::TlsProtocol, "the answer is not tls".to_owned()),
        Error::AlertReceived(alert) => {
            (Reason::TlsProtocol, format!("the site says: {}", words(&format!("{alert:?}"))))
        }
        other => (Reason::TlsProtocol, other.to_string()),
    };
    Failure::with(reason, phase, detail)
}

fn of_certificate(cause: &CertificateError) -> (Reason, String) {
    use CertificateError as E;
    let said = |reason, text: &str| (reason, text.to_owned());
    match cause {
        E::Expired | E::ExpiredContext { .. } => said(Reason::TlsExpired, "certificate expired"),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            said(Reason::TlsNotYetValid, "certificate not yet valid")
        }
        E::NotValidForName => said(Reason::TlsWrongHost, "certificate for another host"),
        E::NotValidForNameContext { presented, .. } => {
            (Reason::TlsWrongHost, format!("certificate for another host: {}", names(presented)))
        }
        E::UnknownIssuer => said(Reason::TlsUnknownIssuer, "certificate of an unknown issuer"),
        E::Other(OtherError(inner)) => match inner.downcast_ref::<Untrusted>() {
            Some(Untrusted::SelfSigned) => (Reason::TlsSelfSigned, inner.to_string()),
            Some(Untrusted::NoRoots) => (Reason::TlsUnknownIssuer, inner.to_string()),
            None => (Reason::TlsCertificate, format!("certificate: {inner}")),
        },
        other => (Reason::TlsCertificate, format!("certificate: {other}")),
    }
}

/// rustls presents a name as `DnsName("example.org")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| match (name.find('"'), name.rfind('"')) {
        (Some(first), Some(last)) if first < last => name[first + 1..last].to_owned(),
        _ => name.clone(),
    };
    match presented.is_empty() {
        true => "it names none".to_owned(),
        false => presented.iter().map(bare).collect::<Vec<_>>().join(", "),
    }
}

/// `HandshakeFailure` as `handshake failure`.
fn words(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
