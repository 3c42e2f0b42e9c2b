//! A target's own certificates: whom it trusts beside the tracker's roots, and
//! who the probe says that it is.

use std::fmt;
use std::sync::{Arc, OnceLock};

use common::pem::{Pem, PemError};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, Error, RootCertStore};

use crate::probe::net::tls;

/// TLS settings that targets of the same certificates share. Its `Debug` does
/// not look at the key.
pub struct Trust {
    insecure: bool,
    roots: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    identity: Option<Arc<SingleCertAndKey>>,
    /// Made when first needed, as it takes the tracker's roots too.
    own_site: OnceLock<Arc<ClientConfig>>,
    other_sites: OnceLock<Arc<ClientConfig>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (roots, identity) = (self.roots.len(), self.identity.is_some());
        write!(f, "Trust(insecure: {}, roots: {roots}, identity: {identity})", self.insecure)
    }
}

impl PartialEq for Trust {
    /// A key follows from its certificate.
    fn eq(&self, other: &Self) -> bool {
        (self.insecure, &self.roots, &self.chain) == (other.insecure, &other.roots, &other.chain)
    }
}

impl Trust {
    /// Without certificates of its own; `insecure` takes any of the site's.
    pub fn new(insecure: bool) -> Self {
        Self {
            insecure,
            roots: Vec::new(),
            chain: Vec::new(),
            identity: None,
            own_site: OnceLock::new(),
            other_sites: OnceLock::new(),
        }
    }

    /// Whether any certificate is taken.
    pub fn insecure(&self) -> bool {
        self.insecure
    }

    /// Trusts these as well.
    ///
    /// # Errors
    /// See [`Pem::roots`].
    pub fn add_ca(&mut self, pem: &Pem) -> Result<(), PemError> {
        pem.roots()?;
        self.roots.extend(pem.certificates()?);
        Ok(())
    }

    /// Shows this certificate to a site that asks for one.
    ///
    /// # Errors
    /// When the key is of no known kind, or not the certificate's.
    pub fn show(
        &mut self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), String> {
        self.chain.clone_from(&chain);
        let pair = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let pair = pair.map_err(|cause| match cause {
            Error::InconsistentKeys(_) => "it is not the certificate's".to_owned(),
            other => other.to_string(),
        })?;
        self.identity = Some(Arc::new(SingleCertAndKey::from(pair)));
        Ok(())
    }

    /// The settings for the target's own site, or for one that it led to, to
    /// which the certificate is not shown.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub(crate) fn config(
        &self,
        roots: &RootCertStore,
        is_own_site: bool,
    ) -> Result<Arc<ClientConfig>, Error> {
        let made = if is_own_site { &self.own_site } else { &self.other_sites };
        if let Some(config) = made.get() {
            return Ok(Arc::clone(config));
        }
        let mut store = roots.clone();
        store.add_parsable_certificates(self.roots.iter().cloned());
        let identity = self.identity.clone().filter(|_| is_own_site);
        let config = tls::client_config(store, self.insecure, identity)?;
        // Whoever was first, all have the same.
        Ok(Arc::clone(made.get_or_init(|| config)))
    }
}
