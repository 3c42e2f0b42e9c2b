//! Certificates and keys as a setting gives them: a path, or the PEM text itself.

use std::fmt;
use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The most bytes that a PEM file may have. A bundle of every public root is
/// about 250 KiB; more than this is a wrong path, and is not read to its end.
pub const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where a certificate or key comes from.
///
/// The help of 1.1.0 promises paths for its flags and content for some of its
/// variables, so both are taken everywhere, told apart by `-----BEGIN`.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file, read again at each new connection, so that a renewed
    /// certificate needs no restart.
    File(PathBuf),
    /// The PEM text itself.
    Text(String),
}

impl Pem {
    /// Takes a setting's value for what it is. Literal `\n` in a text stand
    /// for line ends, because an environment file holds one line per variable.
    pub fn from_setting(value: &str) -> Self {
        if value.contains("-----BEGIN") {
            Self::Text(value.replace("\\n", "\n"))
        } else {
            Self::File(PathBuf::from(value))
        }
    }

    /// The PEM bytes as they are now.
    ///
    /// # Errors
    /// [`PemError::Read`] when the file can't be read or is larger than
    /// [`PEM_BYTES_MAX`].
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

    /// The certificates in it, at least one, in the order in which they stand.
    ///
    /// # Errors
    /// See [`PemError`].
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, PemError> {
        let bytes = self.read()?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|_| self.invalid("broken PEM"))?;
        if certificates.is_empty() {
            return Err(self.invalid("no certificate in it"));
        }
        Ok(certificates)
    }

    /// The certificates in it as roots to trust.
    ///
    /// # Errors
    /// See [`PemError`].
    pub fn roots(&self) -> Result<RootCertStore, PemError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots
                .add(certificate)
                .map_err(|_| self.invalid("a certificate that can't be a root"))?;
        }
        Ok(roots)
    }

    /// The first private key in it: PKCS#1, PKCS#8 or SEC1 (EC).
    ///
    /// # Errors
    /// See [`PemError`]; an encrypted key is an error of its own.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, PemError> {
        let bytes = self.read()?;
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
            let text = String::from_utf8_lossy(&bytes);
            if text.contains("ENCRYPTED") {
                self.invalid("the private key is encrypted, and no passphrase can be given")
            } else {
                self.invalid("no private key in it")
            }
        })
    }

    fn invalid(&self, what: &'static str) -> PemError {
        PemError::Invalid { source: self.to_string(), what }
    }
}

/// Names the file; a text is never shown, because it may hold a key.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text(_) => f.write_str("the PEM text given"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({self})")
    }
}

/// Why a certificate or key can't be used.
///
/// At start it is permanent; at a later connection it may be a renewal half
/// done, so whoever connects tries again.
#[derive(Debug)]
pub enum PemError {
    /// The file can't be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// It was read and does not hold what it should.
    Invalid {
        /// The file, or that it was given as text.
        source: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, cause } => write!(f, "{}: {cause}", path.display()),
            Self::Invalid { source, what } => write!(f, "{source}: {what}"),
        }
    }
}

impl std::error::Error for PemError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { cause, .. } => Some(cause),
            Self::Invalid { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_text_are_told_apart() {
        assert_eq!(Pem::from_setting("/tmp/ca.pem"), Pem::File("/tmp/ca.pem".into()));
        let text = Pem::from_setting("-----BEGIN X-----\\nAA==\\n-----END X-----");
        assert_eq!(text, Pem::Text("-----BEGIN X-----\nAA==\n-----END X-----".to_owned()));
    }

    #[test]
    fn errors_name_the_file_and_never_the_text() {
        let missing = Pem::from_setting("/nowhere/ca.pem").certificates().unwrap_err();
        assert_eq!(missing.to_string(), "/nowhere/ca.pem: No such file or directory (os error 2)");
        let key = Pem::from_setting(
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        assert_eq!(
            key.private_key().unwrap_err().to_string(),
            "the PEM text given: the private key is encrypted, and no passphrase can be given"
        );
        assert_eq!(format!("{key:?}"), "Pem(the PEM text given)");
    }
}
