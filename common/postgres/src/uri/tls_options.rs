//! The TLS options of a URI: `sslmode`, certificates and protocol version.

use openssl::ssl::SslVersion;

use super::error::UriError;
use common::pem::Pem;

/// The six TLS modes of libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never use TLS.
    Disable,
    /// Use TLS only if the server refuses a plain connection.
    Allow,
    /// Use TLS unless the server has none or the handshake fails. libpq's default.
    Prefer,
    /// Always use TLS. The server is verified only if a CA is set.
    Require,
    /// Always use TLS. The server's certificate must be signed by a trusted CA.
    VerifyCa,
    /// Like [`SslMode::VerifyCa`], and the certificate must be for the host of the URI.
    VerifyFull,
}

impl SslMode {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }

    /// The value of `sslmode` in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// The value of `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RootCertificate {
    /// The word `system`: the CA certificates of the system.
    System,
    /// A file or PEM text.
    Pem(Pem),
}

/// The TLS options of a URI.
#[derive(Clone)]
pub(crate) struct TlsOptions {
    pub(crate) mode: SslMode,
    pub(crate) root: Option<RootCertificate>,
    pub(crate) certificate: Option<Pem>,
    pub(crate) key: Option<Pem>,
    pub(crate) key_password: Option<String>,
    pub(crate) version_min: SslVersion,
    /// Start with the TLS handshake, without an SSLRequest (PostgreSQL 17 and newer).
    pub(crate) is_direct: bool,
}

impl TlsOptions {
    /// Reads the options from the parameters of a URI. `is_direct`: `sslnegotiation=direct`.
    pub(super) fn read(
        parameters: &[(&'static str, String)],
        is_direct: bool,
    ) -> Result<Self, UriError> {
        let mut tls = Self {
            mode: SslMode::Prefer,
            root: None,
            certificate: None,
            key: None,
            key_password: None,
            version_min: SslVersion::TLS1_2,
            is_direct,
        };
        let mut mode = None;
        for (option, value) in parameters {
            match *option {
                "sslmode" => {
                    let modes = "disable, allow, prefer, require, verify-ca or verify-full";
                    mode = Some(SslMode::parse(value).ok_or(UriError::value(option, modes))?);
                }
                // libpq accepts this option of JDBC in a URI.
                "ssl" if value == "true" => mode = Some(SslMode::Require),
                "ssl" => return Err(UriError::value(option, "true, or sslmode in its place")),
                "sslrootcert" if value == "system" => tls.root = Some(RootCertificate::System),
                "sslrootcert" => tls.root = Some(RootCertificate::Pem(Pem::from_setting(value))),
                "sslcert" => tls.certificate = Some(Pem::from_setting(value)),
                "sslkey" => tls.key = Some(Pem::from_setting(value)),
                "sslpassword" => tls.key_password = Some(value.clone()),
                "ssl_min_protocol_version" => {
                    tls.version_min = match value.as_str() {
                        "TLSv1.2" => SslVersion::TLS1_2,
                        "TLSv1.3" => SslVersion::TLS1_3,
                        _ => return Err(UriError::value(option, "TLSv1.2 or TLSv1.3")),
                    }
                }
                _ => {}
            }
        }
        tls.mode = mode.unwrap_or(match tls.root {
            // As in libpq: a certificate of a public CA proves nothing without the host.
            Some(RootCertificate::System) => SslMode::VerifyFull,
            _ => SslMode::Prefer,
        });
        tls.check()?;
        Ok(tls)
    }

    fn check(&self) -> Result<(), UriError> {
        let error = |option, expected| Err(UriError::value(option, expected));
        if self.root == Some(RootCertificate::System) && self.mode != SslMode::VerifyFull {
            return error("sslmode", "verify-full with sslrootcert=system");
        }
        let is_weak = matches!(self.mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer);
        if self.is_direct && is_weak {
            return error("sslmode", "require or stronger with sslnegotiation=direct");
        }
        if self.certificate.is_some() != self.key.is_some() {
            return error("sslcert", "both sslcert and sslkey, or neither");
        }
        Ok(())
    }
}
