//! All certificates that the services, the tests and the demonstration need.
//!
//! | name | signed by | for |
//! | --- | --- | --- |
//! | `ca`, `foreign-ca`, `sites-ca` | themselves | signing |
//! | `broker` | `ca` | `localhost`; 127.0.0.1 is the wrong host |
//! | `postgres` | `ca` | `localhost`, 127.0.0.1; 127.0.0.2, where it listens too, is the wrong host |
//! | `client` | `ca` | an RSA key; `client.pkcs1.key` is the same key in PKCS#1 |
//! | `client-ec` | `ca` | an EC key in SEC1 |
//! | `expired-client` | `ca` | expired yesterday |
//! | `foreign-client` | `foreign-ca` | valid, but the services do not know its CA |
//! | `site-valid` | `sites-ca` | `localhost`, 127.0.0.1, ::1 |
//! | `site-expired`, `site-not-yet-valid` | `sites-ca` | the same, at another time |
//! | `site-wrong-host` | `sites-ca` | `wrong.host.invalid` |
//! | `site-self-signed` | itself | `localhost`, 127.0.0.1, ::1 |
//!
//! Each certificate is `NAME.crt`, with `NAME.key` in PKCS#8 except as stated. Only the owner can
//! read the keys. `broker.pem` holds key and certificate.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use openssl::ec::EcKey;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256,
};

use crate::command_error::CommandError;

const LOCALHOST: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const RSA_BITS: u32 = 2048;
const SECONDS_PER_DAY: u64 = 86_400;
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Days from now between which a certificate is valid.
type DaysFromNow = (i64, i64);
const VALID: DaysFromNow = (-1, 3650);
const EXPIRED: DaysFromNow = (-30, -1);
const NOT_YET_VALID: DaysFromNow = (30, 60);

/// Creates all certificates in `folder`, which must not exist.
pub(crate) fn make_certificates(folder: &Path) -> Result<(), CommandError> {
    fs::create_dir(folder).map_err(CommandError::at(folder))?;
    let ca = IssuingCa::make(folder, "ca", "Availability services CA")?;
    let foreign = IssuingCa::make(folder, "foreign-ca", "Availability foreign CA")?;
    let sites = IssuingCa::make(folder, "sites-ca", "Availability demonstration sites CA")?;

    ca.issue_server("broker", &["localhost"], VALID)?;
    let mut pem = read(&folder.join("broker.key"))?;
    pem.push_str(&read(&folder.join("broker.crt"))?);
    write(&folder.join("broker.pem"), &pem, PRIVATE)?;
    ca.issue_server("postgres", &["localhost", "127.0.0.1"], VALID)?;

    ca.issue_rsa_client("client")?;
    let key = ca.issue_client("client-ec", VALID)?;
    write(&folder.join("client-ec.key"), &sec1("client-ec", &key)?, PRIVATE)?;
    ca.issue_client("expired-client", EXPIRED)?;
    foreign.issue_client("foreign-client", VALID)?;

    sites.issue_server("site-valid", &LOCALHOST, VALID)?;
    sites.issue_server("site-expired", &LOCALHOST, EXPIRED)?;
    sites.issue_server("site-not-yet-valid", &LOCALHOST, NOT_YET_VALID)?;
    sites.issue_server("site-wrong-host", &["wrong.host.invalid"], VALID)?;
    make_self_signed(folder, "site-self-signed", &LOCALHOST)
}

/// A CA, and the folder for its certificates.
struct IssuingCa<'a> {
    folder: &'a Path,
    issuer: Issuer<'static, KeyPair>,
}

impl<'a> IssuingCa<'a> {
    fn make(folder: &'a Path, name: &str, common_name: &str) -> Result<Self, CommandError> {
        let key = KeyPair::generate().map_err(CommandError::certificate(name))?;
        let mut params = params(name, &[], VALID)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(CommandError::certificate(name))?;
        write_pair(folder, name, &certificate.pem(), &key.serialize_pem())?;
        Ok(Self { folder, issuer: Issuer::new(params, key) })
    }

    fn issue_server(
        &self,
        name: &str,
        hosts: &[&str],
        validity: DaysFromNow,
    ) -> Result<(), CommandError> {
        let key = KeyPair::generate().map_err(CommandError::certificate(name))?;
        self.issue(name, hosts, validity, ExtendedKeyUsagePurpose::ServerAuth, &key)
    }

    /// Issues a certificate for an EC key, and returns the key.
    fn issue_client(&self, name: &str, validity: DaysFromNow) -> Result<KeyPair, CommandError> {
        let key = KeyPair::generate().map_err(CommandError::certificate(name))?;
        self.issue(name, &[], validity, ExtendedKeyUsagePurpose::ClientAuth, &key)?;
        Ok(key)
    }

    /// Issues a certificate for an RSA key, which `rcgen` can't generate with
    /// `ring`, and writes the key in PKCS#1 too.
    fn issue_rsa_client(&self, name: &str) -> Result<(), CommandError> {
        let rsa = Rsa::generate(RSA_BITS).map_err(CommandError::certificate(name))?;
        let pkcs1 = rsa.private_key_to_pem().map_err(CommandError::certificate(name))?;
        let pkcs8 = PKey::from_rsa(rsa).and_then(|key| key.private_key_to_pem_pkcs8());
        let pkcs8 =
            String::from_utf8_lossy(&pkcs8.map_err(CommandError::certificate(name))?).into_owned();
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(&pkcs8, &PKCS_RSA_SHA256);
        let key = key.map_err(CommandError::certificate(name))?;
        self.issue(name, &[], VALID, ExtendedKeyUsagePurpose::ClientAuth, &key)?;
        write(&self.folder.join(format!("{name}.key")), &pkcs8, PRIVATE)?;
        let pkcs1_file = self.folder.join(format!("{name}.pkcs1.key"));
        write(&pkcs1_file, &String::from_utf8_lossy(&pkcs1), PRIVATE)
    }

    fn issue(
        &self,
        name: &str,
        hosts: &[&str],
        validity: DaysFromNow,
        usage: ExtendedKeyUsagePurpose,
        key: &KeyPair,
    ) -> Result<(), CommandError> {
        let mut params = params(name, hosts, validity)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate =
            params.signed_by(key, &self.issuer).map_err(CommandError::certificate(name))?;
        write_pair(self.folder, name, &certificate.pem(), &key.serialize_pem())
    }
}

/// Creates a certificate like `openssl req -x509`: it is a CA, too.
fn make_self_signed(folder: &Path, name: &str, hosts: &[&str]) -> Result<(), CommandError> {
    let key = KeyPair::generate().map_err(CommandError::certificate(name))?;
    let mut params = params(name, hosts, VALID)?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).map_err(CommandError::certificate(name))?;
    write_pair(folder, name, &certificate.pem(), &key.serialize_pem())
}

fn params(
    name: &str,
    hosts: &[&str],
    validity: DaysFromNow,
) -> Result<CertificateParams, CommandError> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).map_err(CommandError::certificate(name))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let at = |days: i64| {
        let distance = Duration::from_secs(days.unsigned_abs() * SECONDS_PER_DAY);
        let time = if days < 0 { now.saturating_sub(distance) } else { now + distance };
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_secs())
    };
    (params.not_before, params.not_after) = (at(validity.0), at(validity.1));
    Ok(params)
}

/// The key as `-----BEGIN EC PRIVATE KEY-----`.
fn sec1(name: &str, key: &KeyPair) -> Result<String, CommandError> {
    let pem = PKey::private_key_from_pem(key.serialize_pem().as_bytes())
        .and_then(|key| key.ec_key())
        .and_then(|key: EcKey<_>| key.private_key_to_pem())
        .map_err(CommandError::certificate(name))?;
    Ok(String::from_utf8_lossy(&pem).into_owned())
}

fn write_pair(folder: &Path, name: &str, certificate: &str, key: &str) -> Result<(), CommandError> {
    write(&folder.join(format!("{name}.crt")), certificate, PUBLIC)?;
    write(&folder.join(format!("{name}.key")), key, PRIVATE)
}

/// Writes a file. The file has its mode before its content.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), CommandError> {
    let file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(CommandError::at(path))
}

fn read(path: &Path) -> Result<String, CommandError> {
    fs::read_to_string(path).map_err(CommandError::at(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use openssl::stack::Stack;
    use openssl::x509::store::X509StoreBuilder;
    use openssl::x509::{X509, X509StoreContext};

    use super::*;

    fn load(folder: &Path, name: &str) -> X509 {
        X509::from_pem(&fs::read(folder.join(format!("{name}.crt"))).unwrap()).unwrap()
    }

    /// The verdict of OpenSSL on the certificate under that CA.
    fn verdict(folder: &Path, ca: &str, name: &str) -> String {
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(load(folder, ca)).unwrap();
        let (store, certificate) = (store.build(), load(folder, name));
        let mut context = X509StoreContext::new().unwrap();
        let verified = context.init(&store, &certificate, &Stack::new().unwrap(), |context| {
            context.verify_cert()?;
            Ok(context.error().error_string().to_owned())
        });
        verified.unwrap()
    }

    #[test]
    fn each_certificate_is_as_valid_as_its_name_says() {
        let folder = std::env::temp_dir().join(format!("services-certs-{:x}", fastrand::u64(..)));
        make_certificates(&folder).unwrap();
        for (ca, name, expected) in [
            ("ca", "broker", "ok"),
            ("ca", "postgres", "ok"),
            ("ca", "client", "ok"),
            ("ca", "client-ec", "ok"),
            ("ca", "expired-client", "certificate has expired"),
            ("ca", "foreign-client", "unable to get local issuer certificate"),
            ("foreign-ca", "foreign-client", "ok"),
            ("sites-ca", "site-valid", "ok"),
            ("sites-ca", "site-expired", "certificate has expired"),
            ("sites-ca", "site-not-yet-valid", "certificate is not yet valid"),
            ("sites-ca", "site-wrong-host", "ok"),
            ("sites-ca", "site-self-signed", "self-signed certificate"),
        ] {
            assert_eq!(verdict(&folder, ca, name), expected, "{name} by {ca}");
            let key = fs::read(folder.join(format!("{name}.key"))).unwrap();
            let key = PKey::private_key_from_pem(&key).unwrap();
            assert!(load(&folder, name).public_key().unwrap().public_eq(&key), "{name}");
        }
        for (file, first_line) in [
            ("client.key", "-----BEGIN PRIVATE KEY-----"),
            ("client.pkcs1.key", "-----BEGIN RSA PRIVATE KEY-----"),
            ("client-ec.key", "-----BEGIN EC PRIVATE KEY-----"),
            ("broker.pem", "-----BEGIN PRIVATE KEY-----"),
        ] {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            assert_eq!(text.lines().next(), Some(first_line), "{file}");
        }
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
            let is_public = entry.path().extension().is_some_and(|e| e == "crt");
            assert!(is_public || mode == 0, "{:?}", entry.path());
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
