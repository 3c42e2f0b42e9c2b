//! TLS: whom to trust, and what exactly is wrong with a certificate.

mod signatures;
pub mod target;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use common::pem::{Pem, PemError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, Error, OtherError,
    RootCertStore, SignatureScheme,
};
use webpki::KeyUsage;

use crate::probe::reason::{Failure, Phase, Reason};

/// Whose certificates are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Roots {
    /// Those of [`Roots::System`], or where the machine has none at all, as an
    /// image from scratch, those of [`Roots::Mozilla`].
    #[default]
    SystemOrMozilla,
    /// The machine's, found where OpenSSL would find them: SSL_CERT_FILE and
    /// SSL_CERT_DIR count.
    System,
    /// Mozilla's, as they were when this program was built.
    Mozilla,
    /// These alone.
    These(Vec<CertificateDer<'static>>),
}

impl Roots {
    /// Reads a setting: `system`, `mozilla`, a path, or PEM text.
    ///
    /// # Errors
    /// When the file or text does not hold certificates that can be roots.
    pub fn parse(text: &str) -> Result<Self, PemError> {
        match text {
            "system" => Ok(Self::System),
            "mozilla" => Ok(Self::Mozilla),
            _ => {
                let pem = Pem::from_setting(text);
                pem.roots()?;
                pem.certificates().map(Self::These)
            }
        }
    }

    /// A machine without roots can still probe plain HTTP, and its HTTPS
    /// targets each say why they fail; so that is a warning.
    pub(crate) fn load(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        match self {
            Self::These(certificates) => {
                store.add_parsable_certificates(certificates.iter().cloned());
            }
            Self::Mozilla => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Self::System | Self::SystemOrMozilla => {
                let found = rustls_native_certs::load_native_certs();
                for cause in &found.errors {
                    log::warn!("root certificates: {cause}");
                }
                store.add_parsable_certificates(found.certs);
            }
        }
        if *self == Self::SystemOrMozilla {
            store = or_mozilla(store, are_named());
        }
        if store.is_empty() {
            log::warn!("no root certificates: every https target will fail with an ssl error");
        }
        store
    }
}

/// Nobody who named roots of their own wants all the world's in their place
/// because of a slip in a path.
fn or_mozilla(found: RootCertStore, are_named: bool) -> RootCertStore {
    if are_named || !found.is_empty() {
        return found;
    }
    log::info!(
        "no root certificates on this machine: https targets are checked against mozilla's, as of this version"
    );
    Roots::Mozilla.load()
}

/// Whether somebody said where the machine's roots are.
fn are_named() -> bool {
    ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some())
}

/// The settings of a TLS connection: whose certificates are trusted, whether
/// any at all is taken, and who the probe says that it is. No session is
/// resumed, so that each probe tests the whole way; HTTP/1.1 is the one
/// protocol offered.
///
/// # Errors
/// When the cryptography can't do the default TLS versions.
pub(crate) fn client_config(
    store: RootCertStore,
    insecure: bool,
    identity: Option<Arc<SingleCertAndKey>>,
) -> Result<Arc<ClientConfig>, Error> {
    let mut provider = signatures::provider();
    // AES-128 first, as browsers have it: its hash has instructions of its own on
    // most machines, that of AES-256 on few.
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let inner = match store.is_empty() {
        true => None,
        false => Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
                .build()
                .map_err(|cause| Error::General(cause.to_string()))?,
        ),
    };
    let verifier = Verifier { inner, insecure, provider: provider.clone() };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(identity),
    };
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
    /// Whether any certificate is taken; that it is the other side's is checked.
    insecure: bool,
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
        let verified = match &self.inner {
            _ if self.insecure => return Ok(ServerCertVerified::assertion()),
            Some(inner) => {
                inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        verified.map_err(|error| match error {
            Error::InvalidCertificate(cause) => {
                Refusal::new(cause, end_entity, self.inner.is_some()).into()
            }
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

/// When a certificate ends, in seconds since 1970; none for one that webpki
/// can't read.
///
/// webpki reads the time and does not give it out, but in an error: it is asked
/// at the end of time, and the certificate's own time is what it looks at first.
pub(crate) fn certificate_end(certificate: &CertificateDer<'_>) -> Option<i64> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let server = KeyUsage::server_auth();
    let verified = certificate.verify_for_usage(&[], &[], &[], end_of_time, server, None, None);
    match verified {
        Err(webpki::Error::CertExpired { not_after, .. }) => {
            i64::try_from(not_after.as_secs()).ok()
        }
        _ => None,
    }
}

/// When the certificate ends that was refused with this error.
pub(crate) fn refused_end(error: &Error) -> Option<i64> {
    refusal(error).and_then(|refusal| refusal.certificate_end)
}

fn refusal(error: &Error) -> Option<&Refusal> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            inner.downcast_ref()
        }
        _ => None,
    }
}

/// Why a certificate was refused, and what of it is of use all the same.
#[derive(Debug)]
struct Refusal {
    cause: CertificateError,
    has_roots: bool,
    is_self_signed: bool,
    certificate_end: Option<i64>,
}

impl Refusal {
    fn new(cause: CertificateError, certificate: &CertificateDer<'_>, has_roots: bool) -> Self {
        Self {
            cause,
            has_roots,
            is_self_signed: is_self_signed(certificate),
            certificate_end: certificate_end(certificate),
        }
    }

    fn reason(&self) -> (Reason, String) {
        use CertificateError as E;
        let said = |reason, text: &str| (reason, text.to_owned());
        match &self.cause {
            _ if !self.has_roots => {
                said(Reason::TlsUnknownIssuer, "no root certificates on this machine")
            }
            E::UnknownIssuer | E::Other(_) if self.is_self_signed => {
                said(Reason::TlsSelfSigned, "self-signed certificate")
            }
            E::UnknownIssuer => said(Reason::TlsUnknownIssuer, "certificate of an unknown issuer"),
            E::Expired | E::ExpiredContext { .. } => {
                said(Reason::TlsExpired, "certificate expired")
            }
            E::NotValidYet | E::NotValidYetContext { .. } => {
                said(Reason::TlsNotYetValid, "certificate not yet valid")
            }
            E::NotValidForName => said(Reason::TlsWrongHost, "certificate for another host"),
            E::NotValidForNameContext { presented, .. } => {
                let names = names(presented);
                (Reason::TlsWrongHost, format!("certificate for another host: {names}"))
            }
            other => (Reason::TlsCertificate, said_of_certificate(other)),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason().1)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

/// What a person is told of an error of TLS.
pub(crate) fn failure(error: &Error, phase: Phase) -> Failure {
    if let Some(refusal) = refusal(error) {
        let (reason, detail) = refusal.reason();
        return Failure::with(reason, phase, detail);
    }
    let (reason, detail) = match error {
        Error::InvalidCertificate(cause) => (Reason::TlsCertificate, said_of_certificate(cause)),
        Error::InvalidMessage(_) => (Reason::TlsProtocol, "the answer is not tls".to_owned()),
        Error::AlertReceived(alert) => {
            (Reason::TlsProtocol, format!("the site says: {}", words(&format!("{alert:?}"))))
        }
        other => (Reason::TlsProtocol, other.to_string()),
    };
    Failure::with(reason, phase, detail)
}

/// rustls has sentences for some causes, and for others a bare word.
fn said_of_certificate(cause: &CertificateError) -> String {
    let text = cause.to_string();
    match text.starts_with("certificate ") {
        true => text,
        false => format!("certificate: {text}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mozilla_s_roots_stand_in_only_where_nobody_named_any() {
        let none = RootCertStore::empty;
        let authority = testkit::certificates::Authority::new("own").unwrap();
        let one = || {
            let mut store = none();
            store.add(authority.certificate()).unwrap();
            store
        };
        let mozilla = Roots::Mozilla.load().len();
        assert!(mozilla > 100, "{mozilla}");
        for (found, are_named, expected) in
            [(none(), false, mozilla), (none(), true, 0), (one(), false, 1), (one(), true, 1)]
        {
            assert_eq!(or_mozilla(found, are_named).len(), expected);
        }
    }
}
