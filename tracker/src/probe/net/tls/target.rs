//! The TLS settings of a target: additional root certificates, and a client certificate.

use std::fmt;
use std::sync::{Arc, OnceLock};

use common::pem::{Pem, PemError};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// Why a key can't be used with a client certificate.
#[derive(Debug, Error)]
pub(crate) enum ClientCertificateError {
    #[error("it does not belong to the certificate")]
    KeyMismatch,
    #[error(transparent)]
    Unusable(rustls::Error),
}

/// The TLS settings of a target. Targets with the same certificates share one value.
pub struct TargetTls {
    insecure: bool,
    roots: Vec<CertificateDer<'static>>,
    client_chain: Vec<CertificateDer<'static>>,
    client_certificate: Option<Arc<SingleCertAndKey>>,
    /// Built on first use, because it needs the roots of the tracker as well.
    own_site_config: OnceLock<Arc<ClientConfig>>,
    other_site_config: OnceLock<Arc<ClientConfig>>,
}

/// Shows no key.
impl fmt::Debug for TargetTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetTls")
            .field("insecure", &self.insecure)
            .field("roots", &self.roots.len())
            .field("has_client_certificate", &self.client_certificate.is_some())
            .finish()
    }
}

/// Does not compare keys: a key is determined by its certificate.
impl PartialEq for TargetTls {
    fn eq(&self, other: &Self) -> bool {
        self.insecure == other.insecure
            && self.roots == other.roots
            && self.client_chain == other.client_chain
    }
}

impl TargetTls {
    /// Settings without certificates. `insecure` accepts every certificate of the site.
    pub(crate) fn new(insecure: bool) -> Self {
        Self {
            insecure,
            roots: Vec::new(),
            client_chain: Vec::new(),
            client_certificate: None,
            own_site_config: OnceLock::new(),
            other_site_config: OnceLock::new(),
        }
    }

    /// Whether every certificate of the site is accepted.
    pub(crate) fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// Adds root certificates to the tracker's own.
    ///
    /// # Errors
    /// See [`Pem::roots`].
    pub(crate) fn add_roots(&mut self, pem: &Pem) -> Result<(), PemError> {
        pem.roots()?;
        self.roots.extend(pem.certificates()?);
        Ok(())
    }

    /// Sets the certificate to send to a site that asks for one.
    ///
    /// # Errors
    /// When the key has an unsupported type, or does not belong to the certificate.
    pub(crate) fn set_client_certificate(
        &mut self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), ClientCertificateError> {
        self.client_chain.clone_from(&chain);
        let certified_key = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let certified_key = certified_key.map_err(|cause| match cause {
            rustls::Error::InconsistentKeys(_) => ClientCertificateError::KeyMismatch,
            other => ClientCertificateError::Unusable(other),
        })?;
        self.client_certificate = Some(Arc::new(SingleCertAndKey::from(certified_key)));
        Ok(())
    }

    /// The settings for the target's own site, or for another site after a redirect.
    /// Another site does not get the client certificate.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub(crate) fn client_config(
        &self,
        roots: &RootCertStore,
        is_own_site: bool,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        let cell = if is_own_site { &self.own_site_config } else { &self.other_site_config };
        if let Some(config) = cell.get() {
            return Ok(Arc::clone(config));
        }
        let mut roots = roots.clone();
        roots.add_parsable_certificates(self.roots.iter().cloned());
        let client_certificate = self.client_certificate.clone().filter(|_| is_own_site);
        let config = super::client_config(roots, self.insecure, client_certificate)?;
        // Another thread may have been faster. Its settings are the same.
        Ok(Arc::clone(cell.get_or_init(|| config)))
    }
}
