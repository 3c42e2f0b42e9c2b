//! TLS: which certificates are trusted, and why a handshake failed.

mod rejection;
pub mod roots;
mod signatures;
pub mod target;
mod verifier;

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use rustls::{CipherSuite, ClientConfig, Error, RootCertStore};

pub(crate) use rejection::{certificate_end, failure, rejected_certificate_end};
use verifier::CertificateVerifier;

/// Builds the settings of a TLS connection.
///
/// With `insecure` every certificate is accepted. `client_certificate` is sent to a site
/// that asks for one. Sessions are not resumed, so each probe does a full handshake.
/// HTTP/1.1 is the only protocol offered.
///
/// # Errors
/// When the cryptography does not support the default TLS versions.
pub(crate) fn client_config(
    roots: RootCertStore,
    insecure: bool,
    client_certificate: Option<Arc<SingleCertAndKey>>,
) -> Result<Arc<ClientConfig>, Error> {
    let mut provider = signatures::provider();
    // AES-128 first, as in browsers: most machines have instructions for its hash, and few
    // for the hash of AES-256.
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let verifier = CertificateVerifier::new(roots, insecure, Arc::clone(&provider))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match client_certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => builder.with_client_cert_resolver(certificate),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
