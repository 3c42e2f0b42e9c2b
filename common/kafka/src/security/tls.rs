//! TLS to a broker: its configuration, which is read again at each connection, and clear texts
//! for refused handshakes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use x509_cert::der::Decode;

use common::counted::counted;
use common::pem::{Pem, PemError};

/// Plain text or TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    /// Plain text.
    Plain,
    /// TLS 1.2 or 1.3. The broker's host name is always verified.
    Tls {
        /// The trusted CA certificates. `None`: the system's CA certificates.
        roots: Option<Pem>,
        /// The client's certificate chain and private key, for brokers that ask for them.
        identity: Option<(Pem, Pem)>,
    },
}

/// The age at which the system's CA certificates are read again. Files that a setting names are
/// read at each connection.
const SYSTEM_ROOTS_MAX_AGE: Duration = Duration::from_secs(600);

/// The last configuration. All connections share it until one of its files changes.
#[derive(Debug, Default)]
pub(crate) struct TlsCache(Mutex<Option<CachedTls>>);

#[derive(Debug)]
struct CachedTls {
    /// The bytes of CA, certificate and key.
    inputs: Vec<Option<Vec<u8>>>,
    built_at: Instant,
    tls: Arc<ClientTls>,
}

/// A TLS configuration, and facts about the client's own certificate for error texts.
#[derive(Debug)]
pub(crate) struct ClientTls {
    pub(crate) config: Arc<ClientConfig>,
    /// Start and end of the client certificate's validity, in seconds since 1970.
    validity: Option<(u64, u64)>,
    has_identity: bool,
}

impl TlsCache {
    /// Returns the configuration for the next connection, built again if a file has changed.
    ///
    /// # Errors
    /// A CA, certificate or key that can't be used.
    pub(crate) fn get(
        &self,
        roots: Option<&Pem>,
        identity: Option<&(Pem, Pem)>,
    ) -> Result<Arc<ClientTls>, PemError> {
        let mut inputs = vec![None; 3];
        for (input, pem) in inputs.iter_mut().zip([
            roots,
            identity.map(|(certificate, _)| certificate),
            identity.map(|(_, key)| key),
        ]) {
            *input = pem.map(Pem::read).transpose()?;
        }
        // A poisoned lock means only that another thread panicked while building.
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = cached.as_ref() {
            let fresh = roots.is_some() || built.built_at.elapsed() < SYSTEM_ROOTS_MAX_AGE;
            if fresh && built.inputs == inputs {
                return Ok(Arc::clone(&built.tls));
            }
        }
        let tls = Arc::new(build(roots, identity)?);
        *cached = Some(CachedTls { inputs, built_at: Instant::now(), tls: Arc::clone(&tls) });
        Ok(tls)
    }
}

fn build(roots: Option<&Pem>, identity: Option<&(Pem, Pem)>) -> Result<ClientTls, PemError> {
    let roots = match roots {
        Some(pem) => pem.roots()?,
        None => system_roots()?,
    };
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| invalid("TLS", "no supported protocol version"))?
        .with_root_certificates(roots);
    let mut validity = None;
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificate.certificates()?;
            validity = chain.first().and_then(certificate_validity);
            builder.with_client_auth_cert(chain, key.private_key()?).map_err(|cause| {
                let reason = match cause {
                    rustls::Error::InconsistentKeys(_) => {
                        "the key does not belong to the certificate"
                    }
                    _ => "the key can't be used with the certificate",
                };
                invalid(&key.to_string(), reason)
            })?
        }
    };
    // A resumed session would not send a renewed certificate to the broker.
    config.resumption = Resumption::disabled();
    Ok(ClientTls { config: Arc::new(config), validity, has_identity: identity.is_some() })
}

fn invalid(origin: &str, reason: &'static str) -> PemError {
    PemError::Invalid { origin: origin.to_owned(), reason }
}

fn system_roots() -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    // Certificates that can't be parsed are ignored as long as one is left.
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(invalid("the system's CA certificates", "none found: expected a CA setting"));
    }
    Ok(roots)
}

/// The subject of the first certificate as an RFC 4514 string, such as `CN=client`.
pub(crate) fn certificate_subject(pem: &Pem) -> Option<String> {
    let certificates = pem.certificates().ok()?;
    let parsed = x509_cert::Certificate::from_der(certificates.first()?).ok()?;
    Some(parsed.tbs_certificate().subject().to_string())
}

fn certificate_validity(certificate: &CertificateDer<'_>) -> Option<(u64, u64)> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let validity = parsed.tbs_certificate().validity();
    Some((
        validity.not_before.to_unix_duration().as_secs(),
        validity.not_after.to_unix_duration().as_secs(),
    ))
}

/// The side that refused the TLS handshake, and the reason.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct TlsFailure {
    reason: String,
    #[source]
    cause: Option<rustls::Error>,
}

impl TlsFailure {
    pub(crate) fn from_text(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), cause: None }
    }

    /// Describes rustls' error in terms of the setting or certificate to repair.
    pub(crate) fn from_rustls(cause: rustls::Error, tls: &ClientTls) -> Self {
        let reason = match &cause {
            rustls::Error::InvalidCertificate(error) => describe_broker_certificate(error),
            rustls::Error::AlertReceived(alert) => describe_alert(*alert, tls),
            rustls::Error::InvalidMessage(_) => {
                "the answer is not TLS: is it a plain-text port?".to_owned()
            }
            other => other.to_string(),
        };
        Self { reason, cause: Some(cause) }
    }
}

fn describe_broker_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "the broker's certificate is not signed by a trusted CA (unknown issuer)".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the broker's certificate has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the broker's certificate is for another host name".into()
        }
        other => format!("the broker's certificate is not valid: {other}"),
    }
}

/// Most alerts are about the client certificate. The alert itself is not specific (Java sends
/// "certificate unknown" for everything), so facts about the client's own certificate come first.
fn describe_alert(alert: AlertDescription, tls: &ClientTls) -> String {
    use AlertDescription as A;
    let is_about_client_certificate = matches!(
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
    if !is_about_client_certificate {
        return format!("the broker ended the handshake with the alert {alert:?}");
    }
    if !tls.has_identity {
        return format!("the broker asks for a client certificate: set one ({alert:?})");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match tls.validity {
        Some((_, end)) if end < now => {
            let days = counted((now - end) / 86_400, "day");
            format!("the client certificate expired {days} ago ({alert:?})")
        }
        Some((start, _)) if now < start => {
            format!("the client certificate is not valid yet ({alert:?})")
        }
        _ => format!(
            "the broker refused the client certificate: a CA that the broker trusts must have \
             signed it ({alert:?})"
        ),
    }
}
