//! The root certificates that the tracker trusts.

use common::pem::{Pem, PemError};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

/// The source of the root certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Roots {
    /// [`Roots::System`]. If the machine has no root certificates, as in an image from
    /// scratch: [`Roots::Mozilla`].
    #[default]
    SystemOrMozilla,
    /// The root certificates of the machine, found where OpenSSL finds them. SSL_CERT_FILE
    /// and SSL_CERT_DIR are honoured.
    System,
    /// Mozilla's root certificates, as of this version of the program.
    Mozilla,
    /// Only these certificates.
    Custom(Vec<CertificateDer<'static>>),
}

impl Roots {
    /// Parses a setting: `system`, `mozilla`, a path, or PEM text.
    ///
    /// # Errors
    /// When the file or the text has no usable root certificates.
    pub(crate) fn parse(text: &str) -> Result<Self, PemError> {
        match text {
            "system" => Ok(Self::System),
            "mozilla" => Ok(Self::Mozilla),
            _ => {
                let pem = Pem::from_setting(text);
                pem.roots()?;
                pem.certificates().map(Self::Custom)
            }
        }
    }

    /// Loads the certificates. Errors are logged as warnings: a machine without root
    /// certificates can still probe plain HTTP, and each HTTPS target reports why it fails.
    pub(crate) fn load(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        match self {
            Self::Custom(certificates) => {
                store.add_parsable_certificates(certificates.iter().cloned());
            }
            Self::Mozilla => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Self::System | Self::SystemOrMozilla => {
                let loaded = rustls_native_certs::load_native_certs();
                for cause in &loaded.errors {
                    log::warn!("root certificates: {cause}");
                }
                store.add_parsable_certificates(loaded.certs);
            }
        }
        if *self == Self::SystemOrMozilla {
            store = or_mozilla(store, is_path_configured());
        }
        if store.is_empty() {
            log::warn!("no root certificates: every https target will fail with an ssl error");
        }
        store
    }
}

/// Returns Mozilla's roots if `system` is empty. If the operator configured a path,
/// an empty store stays empty: a typing error in the path must not make the tracker trust
/// all public roots.
fn or_mozilla(system: RootCertStore, is_path_configured: bool) -> RootCertStore {
    if is_path_configured || !system.is_empty() {
        return system;
    }
    log::info!(
        "no root certificates on this machine: using mozilla's root certificates, as of this version"
    );
    Roots::Mozilla.load()
}

fn is_path_configured() -> bool {
    ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mozilla_s_roots_are_used_only_without_a_configured_path() {
        let none = RootCertStore::empty;
        let authority = testkit::certificates::Authority::new("own").unwrap();
        let one = || {
            let mut store = none();
            store.add(authority.certificate()).unwrap();
            store
        };
        let mozilla = Roots::Mozilla.load().len();
        assert!(mozilla > 100, "{mozilla}");
        for (system, is_path_configured, expected) in
            [(none(), false, mozilla), (none(), true, 0), (one(), false, 1), (one(), true, 1)]
        {
            assert_eq!(or_mozilla(system, is_path_configured).len(), expected);
        }
    }
}
