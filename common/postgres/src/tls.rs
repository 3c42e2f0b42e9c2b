//! Verification of the server's certificate: sslmode × root certificate.

use std::sync::{Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;

use super::uri::{RootCertificate, SslMode, TlsOptions};
use common::pem::{Pem, PemError};
use common::secret::Secret;

/// The verification of the server in the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// The server is not verified.
    None,
    /// The certificate was signed by a trusted CA.
    Chain,
    /// Like [`Verification::Chain`], and the certificate is for the host in the URI.
    ChainAndHost,
}

/// The trusted CA certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TrustedRoots {
    None,
    System,
    Pem(Pem),
}

/// Returns verification and trusted CAs for a TLS mode and root certificate.
///
/// As in libpq, with one difference: without a root certificate libpq needs
/// `~/.postgresql/root.crt`, while here the verify modes use the system's CA certificates. Public
/// CAs sign certificates for any host, so `verify-ca` then verifies the host too, as libpq requires
/// for `sslrootcert=system`.
pub(super) fn policy(tls: &TlsOptions, ca: Option<&Pem>) -> (Verification, TrustedRoots) {
    let roots = match (ca, &tls.root) {
        (Some(ca), _) => TrustedRoots::Pem(ca.clone()),
        (None, Some(RootCertificate::Pem(pem))) => TrustedRoots::Pem(pem.clone()),
        (None, Some(RootCertificate::System)) => TrustedRoots::System,
        (None, None) => TrustedRoots::None,
    };
    match (tls.mode, roots) {
        (SslMode::Disable, _) => (Verification::None, TrustedRoots::None),
        (SslMode::VerifyCa | SslMode::VerifyFull, TrustedRoots::None | TrustedRoots::System) => {
            (Verification::ChainAndHost, TrustedRoots::System)
        }
        (SslMode::VerifyFull, roots) => (Verification::ChainAndHost, roots),
        (_, TrustedRoots::None) => (Verification::None, TrustedRoots::None),
        // libpq verifies the chain in every mode if there is a root certificate; `allow` and
        // `prefer` then continue without TLS.
        (_, roots) => (Verification::Chain, roots),
    }
}

/// The inputs of a connector, with the current bytes of its files.
#[derive(PartialEq, Eq)]
struct ConnectorInputs {
    version_min: SslVersion,
    is_direct: bool,
    verification: Verification,
    /// The PEM of the trusted CAs. `None`: the system's CAs, or none.
    roots: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    key_password: Option<Secret>,
}

impl ConnectorInputs {
    fn read(
        tls: &TlsOptions,
        verification: Verification,
        roots: &TrustedRoots,
    ) -> Result<Self, PemError> {
        let read = |pem: Option<&Pem>| pem.map(Pem::read).transpose();
        let roots = match roots {
            TrustedRoots::None | TrustedRoots::System => None,
            TrustedRoots::Pem(pem) => Some(pem),
        };
        Ok(Self {
            version_min: tls.version_min,
            is_direct: tls.is_direct,
            verification,
            roots: read(roots)?,
            certificate: read(tls.certificate.as_ref())?,
            key: read(tls.key.as_ref())?,
            key_password: tls.key_password.clone(),
        })
    }
}

/// The last connector. Building one is most of the cost of a connection, because OpenSSL always
/// reads all of the system's CA certificates.
static LAST_CONNECTOR: Mutex<Option<(ConnectorInputs, SslConnector)>> = Mutex::new(None);

/// Returns a connector with the current certificates.
pub(super) fn connector(
    tls: &TlsOptions,
    verification: Verification,
    roots: &TrustedRoots,
) -> Result<SslConnector, TlsError> {
    let inputs = ConnectorInputs::read(tls, verification, roots)?;
    if *roots == TrustedRoots::System {
        return build(tls, roots, &inputs);
    }
    // A poisoned lock means only that another thread panicked while building.
    let mut last = LAST_CONNECTOR.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((last_inputs, connector)) = last.as_ref()
        && *last_inputs == inputs
    {
        return Ok(connector.clone());
    }
    let connector = build(tls, roots, &inputs)?;
    *last = Some((inputs, connector.clone()));
    Ok(connector)
}

fn build(
    tls: &TlsOptions,
    roots: &TrustedRoots,
    inputs: &ConnectorInputs,
) -> Result<SslConnector, TlsError> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(inputs.version_min))?;
    if inputs.is_direct {
        postgres_openssl::set_postgresql_alpn(&mut builder)?;
    }
    builder.set_verify(match inputs.verification {
        Verification::None => SslVerifyMode::NONE,
        Verification::Chain | Verification::ChainAndHost => SslVerifyMode::PEER,
    });
    let trusted = match (roots, &inputs.roots) {
        // OpenSSL's default folder is the folder of the build machine, which does not fit a static
        // binary.
        (TrustedRoots::System, _) => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                return Err(TlsError::NoSystemRoots);
            }
            found.certs.iter().filter_map(|der| X509::from_der(der).ok()).collect()
        }
        (TrustedRoots::Pem(pem), Some(bytes)) => match X509::stack_from_pem(bytes) {
            Ok(trusted) if !trusted.is_empty() => trusted,
            _ => return Err(invalid(pem)),
        },
        _ => Vec::new(),
    };
    let mut store = X509StoreBuilder::new()?;
    for certificate in trusted {
        store.add_cert(certificate)?;
    }
    builder.set_cert_store(store.build());
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key)
        && let (Some(certificate_pem), Some(key_pem)) = (&inputs.certificate, &inputs.key)
    {
        let chain = X509::stack_from_pem(certificate_pem).map_err(|_| invalid(certificate))?;
        let mut chain = chain.into_iter();
        let own = chain.next().ok_or_else(|| invalid(certificate))?;
        builder.set_certificate(&own)?;
        for intermediate in chain {
            builder.add_extra_chain_cert(intermediate)?;
        }
        // With a passphrase, even an empty one, OpenSSL never asks on the terminal.
        let passphrase = inputs.key_password.as_ref().map_or("", Secret::expose);
        let private = PKey::private_key_from_pem_passphrase(key_pem, passphrase.as_bytes())
            .map_err(|_| TlsError::Key(key.to_string()))?;
        builder.set_private_key(&private)?;
        builder.check_private_key().map_err(|_| TlsError::Key(key.to_string()))?;
    }
    Ok(builder.build())
}

fn invalid(pem: &Pem) -> TlsError {
    TlsError::Certificate(pem.to_string())
}

/// The reason why a certificate or key can't be used. Permanent at start. Later, a file may be in
/// the middle of a renewal, so connecting should be retried.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// No valid certificate in the file or text.
    #[error("{0}: no certificate in it")]
    Certificate(String),
    /// No readable private key that belongs to the certificate.
    #[error("{0}: no private key in it that can be read and belongs to sslcert")]
    Key(String),
    /// The system has no CA certificates.
    #[error("no trusted certificates on this machine: expected a CA by PGCA or sslrootcert")]
    NoSystemRoots,
    /// OpenSSL refuses a setting.
    #[error("openssl: {0}")]
    OpenSsl(#[from] ErrorStack),
}
