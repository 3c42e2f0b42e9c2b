//! Certificates for tests, valid and invalid, made when a test runs.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateValidity {
    /// From the year 2000 to the year 2999.
    Now,
    /// Until the year 2001.
    Expired,
    /// From the year 2199 on.
    NotYetValid,
    /// It expires in that many days and 12 hours.
    EndsInDays(u64),
}

/// A certificate authority of one test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    /// Makes an authority with this common name.
    ///
    /// # Errors
    /// When the key or the certificate can't be made.
    pub fn new(common_name: &str) -> io::Result<Self> {
        let mut params = params(&[], common_name, CertificateValidity::Now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The certificate to trust.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// The certificate to trust, as PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// TLS settings of a server with a certificate for these host names and
    /// addresses.
    ///
    /// # Errors
    /// When the key or the certificate can't be made.
    pub fn server(
        &self,
        names: &[&str],
        validity: CertificateValidity,
    ) -> io::Result<Arc<ServerConfig>> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params(names, "site", validity)?
            .signed_by(&key, &self.issuer)
            .map_err(io::Error::other)?;
        server_config(certificate.der().clone(), &key, WebPkiClientVerifier::no_client_auth())
    }

    /// TLS settings of a server with a certificate whose extended key usage is
    /// client authentication alone.
    ///
    /// # Errors
    /// When the key or the certificate can't be made.
    pub fn server_with_client_certificate(&self, names: &[&str]) -> io::Result<Arc<ServerConfig>> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = params(names, "client", CertificateValidity::Now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        server_config(certificate.der().clone(), &key, WebPkiClientVerifier::no_client_auth())
    }

    /// TLS settings of a server that accepts only clients with a certificate of
    /// this authority.
    ///
    /// # Errors
    /// See [`Authority::server`].
    pub fn server_requiring_client_certificate(
        &self,
        names: &[&str],
    ) -> io::Result<Arc<ServerConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .map_err(io::Error::other)?;
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params(names, "site", CertificateValidity::Now)?
            .signed_by(&key, &self.issuer)
            .map_err(io::Error::other)?;
        server_config(certificate.der().clone(), &key, clients)
    }

    /// A client's certificate and key, as PEM.
    ///
    /// # Errors
    /// See [`Authority::server`].
    pub fn client(&self) -> io::Result<(String, String)> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params(&[], "client", CertificateValidity::Now)?
            .signed_by(&key, &self.issuer)
            .map_err(io::Error::other)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// TLS settings of a server with a self-signed certificate.
///
/// # Errors
/// When the key or the certificate can't be made.
pub fn self_signed(names: &[&str]) -> io::Result<Arc<ServerConfig>> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = params(names, "site", CertificateValidity::Now)?
        .self_signed(&key)
        .map_err(io::Error::other)?;
    server_config(certificate.der().clone(), &key, WebPkiClientVerifier::no_client_auth())
}

fn params(
    names: &[&str],
    common_name: &str,
    validity: CertificateValidity,
) -> io::Result<CertificateParams> {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let (first, last) = match validity {
        CertificateValidity::Now | CertificateValidity::EndsInDays(_) => (2000, 2999),
        CertificateValidity::Expired => (2000, 2001),
        CertificateValidity::NotYetValid => (2199, 2999),
    };
    params.not_before = rcgen::date_time_ymd(first, 1, 1);
    params.not_after = match validity {
        CertificateValidity::EndsInDays(days) => {
            let now = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
            rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_hours(24 * days + 12)
        }
        _ => rcgen::date_time_ymd(last, 1, 1),
    };
    Ok(params)
}

fn server_config(
    certificate: CertificateDer<'static>,
    key: &KeyPair,
    clients: Arc<dyn ClientCertVerifier>,
) -> io::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(io::Error::other)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate], key)
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}
