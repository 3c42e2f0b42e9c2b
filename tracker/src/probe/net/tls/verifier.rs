//! Verifies the certificate of a site.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::rejection::Rejection;

/// Verifies a certificate with the verifier of rustls, and adds the details of a
/// rejection that rustls does not report.
#[derive(Debug)]
pub(super) struct CertificateVerifier {
    /// `None` without root certificates: then every certificate has an unknown issuer.
    inner: Option<Arc<WebPkiServerVerifier>>,
    /// Accepts every certificate. The site must still have its private key.
    insecure: bool,
    provider: Arc<CryptoProvider>,
}

impl CertificateVerifier {
    pub(super) fn new(
        roots: RootCertStore,
        insecure: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let inner = match roots.is_empty() {
            true => None,
            false => {
                let roots = Arc::new(roots);
                let provider = Arc::clone(&provider);
                let builder = WebPkiServerVerifier::builder_with_provider(roots, provider);
                Some(builder.build().map_err(|cause| Error::General(cause.to_string()))?)
            }
        };
        Ok(Self { inner, insecure, provider })
    }
}

impl ServerCertVerifier for CertificateVerifier {
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
                Rejection::new(cause, end_entity, self.inner.is_some()).into()
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
