//! TLS to a broker: the configuration, read from its files anew at each
//! connection, and every refusal said in one clear line.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use x509_cert::der::Decode;

use common::pem::{Pem, PemError};

/// How a broker is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    /// Plain text.
    Plain,
    /// TLS 1.2 or 1.3, the broker's name always checked.
    Tls {
        /// The CA certificates to trust; none: those of the system.
        roots: Option<Pem>,
        /// Our certificate chain and its key, for brokers that ask for one.
        identity: Option<(Pem, Pem)>,
    },
}

/// How long the system's roots are kept before they are read again. Files named
/// by a setting are read at each connection.
const SYSTEM_ROOTS_KEPT: Duration = Duration::from_secs(600);

/// What was built last, so that a thousand connections share one configuration
/// for as long as the files behind it do not change.
#[derive(Debug, Default)]
pub(crate) struct TlsCache(Mutex<Option<Built>>);

#[derive(Debug)]
struct Built {
    /// CA, certificate and key as they were read.
    sources: Vec<Option<Vec<u8>>>,
    at: Instant,
    tls: Arc<Tls>,
}

/// A client configuration and what is worth saying of our own certificate.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    /// Seconds since 1970 between which our certificate is valid.
    validity: Option<(u64, u64)>,
    has_identity: bool,
}

impl TlsCache {
    /// The configuration for the next connection.
    ///
    /// # Errors
    /// What is wrong with CA, certificate or key, as they are now.
    pub(crate) fn get(
        &self,
        roots: Option<&Pem>,
        identity: Option<&(Pem, Pem)>,
    ) -> Result<Arc<Tls>, PemError> {
        let mut sources = vec![None; 3];
        for (source, pem) in sources.iter_mut().zip([
            roots,
            identity.map(|(certificate, _)| certificate),
            identity.map(|(_, key)| key),
        ]) {
            *source = pem.map(Pem::read).transpose()?;
        }
        // A poisoned lock only means that another thread ended while it built.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = kept.as_ref() {
            let fresh = roots.is_some() || built.at.elapsed() < SYSTEM_ROOTS_KEPT;
            if fresh && built.sources == sources {
                return Ok(Arc::clone(&built.tls));
            }
        }
        let tls = Arc::new(build(roots, identity)?);
        *kept = Some(Built { sources, at: Instant::now(), tls: Arc::clone(&tls) });
        Ok(tls)
    }
}

fn build(roots: Option<&Pem>, identity: Option<&(Pem, Pem)>) -> Result<Tls, PemError> {
    let roots = match roots {
        Some(pem) => pem.roots()?,
        None => system_roots()?,
    };
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| invalid("TLS", "no protocol version can be spoken"))?
        .with_root_certificates(roots);
    let mut validity = None;
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificate.certificates()?;
            validity = chain.first().and_then(validity_of);
            builder.with_client_auth_cert(chain, key.private_key()?).map_err(|cause| {
                let what = match cause {
                    rustls::Error::InconsistentKeys(_) => "this key is not the certificate's",
                    _ => "this key can't be used with the certificate",
                };
                invalid(&key.to_string(), what)
            })?
        }
    };
    // A resumed session would not show a renewed certificate to the broker.
    config.resumption = Resumption::disabled();
    Ok(Tls { config: Arc::new(config), validity, has_identity: identity.is_some() })
}

fn invalid(source: &str, what: &'static str) -> PemError {
    PemError::Invalid { source: source.to_owned(), what }
}

fn system_roots() -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    // Some of many hundred may be beyond what we can read; one must be left.
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(invalid("the system's CA certificates", "none found; give a CA"));
    }
    Ok(roots)
}

fn validity_of(certificate: &CertificateDer<'_>) -> Option<(u64, u64)> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let validity = parsed.tbs_certificate().validity();
    Some((
        validity.not_before.to_unix_duration().as_secs(),
        validity.not_after.to_unix_duration().as_secs(),
    ))
}

/// Who refused what, while TLS was set up or just after.
#[derive(Debug, Clone)]
pub struct TlsFailure {
    what: String,
    cause: Option<rustls::Error>,
}

impl TlsFailure {
    pub(crate) fn text(what: impl Into<String>) -> Self {
        Self { what: what.into(), cause: None }
    }

    /// Puts rustls' error into the words of who has to repair it.
    pub(crate) fn new(cause: rustls::Error, tls: &Tls) -> Self {
        let what = match &cause {
            rustls::Error::InvalidCertificate(error) => broker_certificate(error),
            rustls::Error::AlertReceived(alert) => alert_received(*alert, tls),
            rustls::Error::InvalidMessage(_) => {
                "what answers does not speak TLS; is it a plain-text port".to_owned()
            }
            other => other.to_string(),
        };
        Self { what, cause: Some(cause) }
    }
}

fn broker_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "the broker's certificate is not signed by a CA that we trust (unknown issuer)".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the broker's certificate has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the broker's certificate is for another name".into()
        }
        other => format!("the broker's certificate is refused: {other}"),
    }
}

/// An alert after our certificate was sent is about it; which of the many words
/// a broker picks says little (Java says "certificate unknown" to everything),
/// so what we can see ourselves is said first.
fn alert_received(alert: AlertDescription, tls: &Tls) -> String {
    use AlertDescription as A;
    let about_us = matches!(
        alert,
        A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::CertificateRequired
            | A::NoCertificate
            | A::HandshakeFailure
    );
    if !about_us {
        return format!("the broker ended it with the alert {alert:?}");
    }
    if !tls.has_identity {
        return format!("the broker asks for a client certificate, and none is given ({alert:?})");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match tls.validity {
        Some((_, end)) if end < now => {
            let days = (now - end) / 86_400;
            format!("our client certificate expired {days} days ago ({alert:?})")
        }
        Some((start, _)) if now < start => {
            format!("our client certificate is not valid yet ({alert:?})")
        }
        _ => format!(
            "the broker refused our client certificate, which a CA that it trusts must have \
             signed ({alert:?})"
        ),
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for TlsFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}
