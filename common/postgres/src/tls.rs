//! What is verified of the server's certificate: sslmode × root certificate.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;

use super::uri::{RootCertificate, SslMode, Tls};
use common::pem::{Pem, PemError};

/// What a TLS handshake proves of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// Nothing.
    None,
    /// Its certificate was signed by a trusted CA.
    Chain,
    /// And it is that of the host in the URI.
    ChainAndHost,
}

/// The trusted CAs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    None,
    System,
    Pem(Pem),
}

/// The cell of the table sslmode × root certificate.
///
/// As libpq, with one difference: where libpq would look for
/// `~/.postgresql/root.crt` and fail without it, the verify modes take the
/// machine's roots. These vouch for any site in the world, so the host is
/// checked then under `verify-ca` too, as libpq insists for `sslrootcert=system`.
pub(super) fn policy(tls: &Tls, ca: Option<&Pem>) -> (Verification, Roots) {
    let roots = match (ca, &tls.root) {
        (Some(ca), _) => Roots::Pem(ca.clone()),
        (None, Some(RootCertificate::Pem(pem))) => Roots::Pem(pem.clone()),
        (None, Some(RootCertificate::System)) => Roots::System,
        (None, None) => Roots::None,
    };
    match (tls.mode, roots) {
        (SslMode::Disable, _) => (Verification::None, Roots::None),
        (SslMode::VerifyCa | SslMode::VerifyFull, Roots::None | Roots::System) => {
            (Verification::ChainAndHost, Roots::System)
        }
        (SslMode::VerifyFull, roots) => (Verification::ChainAndHost, roots),
        (_, Roots::None) => (Verification::None, Roots::None),
        // libpq checks the chain in every mode as soon as there is a root
        // certificate; `allow` and `prefer` then go on without TLS.
        (_, roots) => (Verification::Chain, roots),
    }
}

/// What a connector is made of, with the files as they are now.
#[derive(PartialEq, Eq)]
struct Sources {
    version_min: SslVersion,
    direct: bool,
    verification: Verification,
    /// The roots' PEM, unless they are the machine's or none.
    roots: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    key_password: Option<String>,
}

impl Sources {
    fn read(tls: &Tls, verification: Verification, roots: &Roots) -> Result<Self, PemError> {
        let read = |pem: Option<&Pem>| pem.map(Pem::read).transpose();
        let roots = match roots {
            Roots::None | Roots::System => None,
            Roots::Pem(pem) => Some(pem),
        };
        Ok(Self {
            version_min: tls.version_min,
            direct: tls.direct,
            verification,
            roots: read(roots)?,
            certificate: read(tls.certificate.as_ref())?,
            key: read(tls.key.as_ref())?,
            key_password: tls.key_password.clone(),
        })
    }
}

/// The connector that was built last. OpenSSL reads all of the machine's roots for
/// each, whatever it is told to trust, which is most of what a connection costs us.
static BUILT: Mutex<Option<(Sources, SslConnector)>> = Mutex::new(None);

/// A connector with the certificates as their files are now.
pub(super) fn connector(
    tls: &Tls,
    verification: Verification,
    roots: &Roots,
) -> Result<SslConnector, TlsError> {
    let sources = Sources::read(tls, verification, roots)?;
    if *roots == Roots::System {
        return build(tls, roots, &sources);
    }
    // A poisoned lock only means that another thread ended while it built.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, connector)) = built.as_ref()
        && *of == sources
    {
        return Ok(connector.clone());
    }
    let connector = build(tls, roots, &sources)?;
    *built = Some((sources, connector.clone()));
    Ok(connector)
}

fn build(tls: &Tls, roots: &Roots, sources: &Sources) -> Result<SslConnector, TlsError> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(sources.version_min))?;
    if sources.direct {
        postgres_openssl::set_postgresql_alpn(&mut builder)?;
    }
    builder.set_verify(match sources.verification {
        Verification::None => SslVerifyMode::NONE,
        Verification::Chain | Verification::ChainAndHost => SslVerifyMode::PEER,
    });
    let trusted = match (roots, &sources.roots) {
        // OpenSSL's own default folder is that of the machine it was built
        // on, which a static binary has left.
        (Roots::System, _) => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                return Err(TlsError::NoSystemRoots);
            }
            found.certs.iter().filter_map(|der| X509::from_der(der).ok()).collect()
        }
        (Roots::Pem(pem), Some(bytes)) => match X509::stack_from_pem(bytes) {
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
        && let (Some(certificate_pem), Some(key_pem)) = (&sources.certificate, &sources.key)
    {
        let chain = X509::stack_from_pem(certificate_pem).map_err(|_| invalid(certificate))?;
        let mut chain = chain.into_iter();
        let own = chain.next().ok_or_else(|| invalid(certificate))?;
        builder.set_certificate(&own)?;
        for intermediate in chain {
            builder.add_extra_chain_cert(intermediate)?;
        }
        // With a passphrase always given, OpenSSL never asks on the terminal.
        let passphrase = sources.key_password.as_deref().unwrap_or_default();
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

/// Why TLS can't even be tried. A file may be in the middle of a renewal, so
/// it is retryable except at start.
#[derive(Debug)]
pub enum TlsError {
    /// A file can't be read.
    Pem(PemError),
    /// The source holds no certificate, or a broken one.
    Certificate(String),
    /// The source holds no private key that is readable and of the certificate.
    Key(String),
    /// The machine has no trusted roots.
    NoSystemRoots,
    /// OpenSSL refuses a setting.
    OpenSsl(ErrorStack),
}

impl From<PemError> for TlsError {
    fn from(cause: PemError) -> Self {
        Self::Pem(cause)
    }
}

impl From<ErrorStack> for TlsError {
    fn from(cause: ErrorStack) -> Self {
        Self::OpenSsl(cause)
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(cause) => write!(f, "{cause}"),
            Self::Certificate(source) => write!(f, "{source}: no certificate in it"),
            Self::Key(source) => {
                write!(f, "{source}: no private key in it that can be read and belongs to sslcert")
            }
            Self::NoSystemRoots => f.write_str(
                "no trusted certificates on this machine: expected a CA by PGCA or sslrootcert",
            ),
            Self::OpenSsl(cause) => write!(f, "openssl: {cause}"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Pem(cause) => Some(cause),
            Self::OpenSsl(cause) => Some(cause),
            Self::Certificate(_) | Self::Key(_) | Self::NoSystemRoots => None,
        }
    }
}
