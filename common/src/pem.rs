//! Certificates and private keys in PEM. A setting has the path or the PEM text.

use std::fmt;
use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The most bytes of a PEM file. A bundle of all public root certificates has about 250 KiB, so a
/// larger file is most likely a wrong path.
pub const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The source of a certificate or private key.
///
/// 1.1.0 documents paths for its flags and PEM text for some of its environment variables. Both
/// forms are accepted everywhere; a value that contains `-----BEGIN` is PEM text.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file. It is read at each new connection, so a renewed certificate needs no restart.
    File(PathBuf),
    /// PEM text.
    Text(String),
}

impl Pem {
    /// Recognises a setting's value as path or PEM text. A literal `\n` in PEM text becomes a line
    /// break, because environment files hold one line per variable.
    pub fn from_setting(value: &str) -> Self {
        if value.contains("-----BEGIN") {
            Self::Text(value.replace("\\n", "\n"))
        } else {
            Self::File(PathBuf::from(value))
        }
    }

    /// Reads the PEM bytes.
    ///
    /// # Errors
    /// [`PemError::Read`] if the file can't be read or is larger than [`PEM_BYTES_MAX`].
    pub fn read(&self) -> Result<Vec<u8>, PemError> {
        use std::io::Read;
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::File(path) => {
                let failed = |cause| PemError::Read { path: path.clone(), cause };
                let file = std::fs::File::open(path).map_err(failed)?;
                let mut bytes = Vec::new();
                file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
                if bytes.len() as u64 > PEM_BYTES_MAX {
                    return Err(failed(std::io::Error::other(format!(
                        "larger than {PEM_BYTES_MAX} bytes"
                    ))));
                }
                Ok(bytes)
            }
        }
    }

    /// Reads all certificates, at least one, in their order.
    ///
    /// # Errors
    /// [`PemError`], also if there is no certificate.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, PemError> {
        let bytes = self.read()?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|_| self.invalid("broken PEM"))?;
        if certificates.is_empty() {
            return Err(self.invalid("contains no certificate"));
        }
        Ok(certificates)
    }

    /// Reads all certificates as trusted roots.
    ///
    /// # Errors
    /// See [`PemError`].
    pub fn roots(&self) -> Result<RootCertStore, PemError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots
                .add(certificate)
                .map_err(|_| self.invalid("contains a certificate that can't be a trusted root"))?;
        }
        Ok(roots)
    }

    /// Reads the first private key: PKCS#1, PKCS#8 or SEC1 (EC).
    ///
    /// # Errors
    /// [`PemError`], also for an encrypted key.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, PemError> {
        let bytes = self.read()?;
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
            let text = String::from_utf8_lossy(&bytes);
            if text.contains("ENCRYPTED") {
                self.invalid("the private key is encrypted: expected an unencrypted key")
            } else {
                self.invalid("contains no private key")
            }
        })
    }

    fn invalid(&self, reason: &'static str) -> PemError {
        PemError::Invalid { origin: self.to_string(), reason }
    }
}

/// Shows the path. PEM text is never shown, because it may be a private key.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text(_) => f.write_str("the PEM text"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({self})")
    }
}

/// Why a certificate or private key can't be used.
///
/// Permanent at the start of a program. At a later connection the file may be in the middle of a
/// renewal, so the connection should be retried.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The file can't be read.
    #[error("{}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        cause: std::io::Error,
    },
    /// The content can't be used.
    #[error("{origin}: {reason}")]
    Invalid {
        /// The path, or a fixed text for PEM text.
        origin: String,
        /// The fault.
        reason: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_text_are_distinguished() {
        assert_eq!(Pem::from_setting("/tmp/ca.pem"), Pem::File("/tmp/ca.pem".into()));
        let text = Pem::from_setting("-----BEGIN X-----\\nAA==\\n-----END X-----");
        assert_eq!(text, Pem::Text("-----BEGIN X-----\nAA==\n-----END X-----".to_owned()));
    }

    #[test]
    fn errors_show_the_path_and_never_the_text() {
        let missing = Pem::from_setting("/nowhere/ca.pem").certificates().unwrap_err();
        assert_eq!(missing.to_string(), "/nowhere/ca.pem: No such file or directory (os error 2)");
        let key = Pem::from_setting(
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        assert_eq!(
            key.private_key().unwrap_err().to_string(),
            "the PEM text: the private key is encrypted: expected an unencrypted key"
        );
        assert_eq!(format!("{key:?}"), "Pem(the PEM text)");
    }
}
