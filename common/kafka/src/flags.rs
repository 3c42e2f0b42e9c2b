//! The command line flags and environment variables for Kafka, which both programs share.

use std::str::FromStr;

use crate::{BrokerAddress, KafkaSettings, Sasl, SaslMechanism, Security};
use common::pem::{Pem, PemError};
use common::secret::Secret;

use common::settings::{Environment, Given, Name, UsageError, values};

/// The values of the flags on the command line.
#[derive(Debug, Default)]
pub struct KafkaFlags {
    /// `--kafka`
    pub kafka: Option<String>,
    /// `--ca`
    pub ca: Option<String>,
    /// `--cert`
    pub cert: Option<String>,
    /// `--key`
    pub key: Option<String>,
    /// `--kafka-tls`
    pub kafka_tls: bool,
    /// `--sasl-mechanism`
    pub sasl_mechanism: Option<String>,
    /// `--sasl-username`
    pub sasl_username: Option<String>,
    /// `--sasl-password`
    pub sasl_password: Option<String>,
}

/// Builds the settings from flags and environment variables. `None`: no broker is given.
///
/// TLS is used if CA, CERT, KEY or `--kafka-tls` is given. Otherwise plain text is used, with a
/// warning if a broker is on another machine. SASL in plain text to another machine is refused.
///
/// # Errors
/// A [`UsageError`] that names the wrong flag or variable.
pub fn settings(
    environment: &Environment<'_>,
    client_id: &str,
    flags: KafkaFlags,
) -> Result<Option<KafkaSettings>, UsageError> {
    let get = |flag, variables, value| environment.setting(Name { flag, variables }, value);
    let bootstrap = get("--kafka", &["KAFKA"], flags.kafka)?;
    let ca = get("--ca", &["CA"], flags.ca)?;
    let cert = get("--cert", &["CERT"], flags.cert)?;
    let key = environment.setting(Name { flag: "--key", variables: &["KEY"] }, flags.key)?;
    let tls_name = Name { flag: "--kafka-tls", variables: &["KAFKA_TLS"] };
    let is_tls_requested = values::switch(environment, tls_name, flags.kafka_tls)?;
    let sasl = sasl(environment, flags.sasl_mechanism, flags.sasl_username, flags.sasl_password)?;
    let Some(bootstrap) = bootstrap else { return Ok(None) };
    let addresses = bootstrap.parse("host:port,host:port,...", BrokerAddress::parse_list)?;

    let roots = ca.as_ref().map(|ca| pem(ca, "CA certificates", |pem| pem.roots().map(drop)));
    let identity = match (&cert, &key) {
        (Some(cert), Some(key)) => Some((
            pem(cert, "a certificate", |pem| pem.certificates().map(drop))?,
            pem(key, "its private key", |pem| pem.private_key().map(drop))?,
        )),
        (None, None) => None,
        (Some(cert), None) => {
            return Err(cert.error("a certificate without a key: expected KEY too"));
        }
        (None, Some(key)) => {
            return Err(key.error("a key without a certificate: expected CERT too"));
        }
    };
    let security = if is_tls_requested || roots.is_some() || identity.is_some() {
        Security::Tls { roots: roots.transpose()?, identity }
    } else {
        Security::Plain
    };
    if matches!(security, Security::Plain)
        && let Some(remote) = addresses.iter().find(|address| !address.is_loopback())
    {
        if sasl.is_some() {
            return Err(bootstrap.error(format!(
                "the password would be sent to {remote} in plain text: expected CA, CERT and KEY, or --kafka-tls"
            )));
        }
        log::warn!(
            "kafka: the connection to {remote} is not encrypted: set CA, CERT and KEY, or --kafka-tls"
        );
    }
    let mut settings = KafkaSettings::new(addresses, security);
    settings.sasl = sasl;
    settings.client_id = client_id.to_owned();
    settings.check().map_err(|error| match &cert {
        Some(cert) => cert.error(error),
        None => bootstrap.error(error),
    })?;
    Ok(Some(settings))
}

fn pem(
    given: &Given,
    expected: &str,
    check: impl FnOnce(&Pem) -> Result<(), PemError>,
) -> Result<Pem, UsageError> {
    let pem = Pem::from_setting(&given.value);
    check(&pem).map_err(|error| given.error(format!("{error}: expected {expected} in PEM")))?;
    Ok(pem)
}

fn sasl(
    environment: &Environment<'_>,
    mechanism: Option<String>,
    username: Option<String>,
    password: Option<String>,
) -> Result<Option<Sasl>, UsageError> {
    let name = |flag, variables| Name { flag, variables };
    let mechanism =
        environment.setting(name("--sasl-mechanism", &["SASL_MECHANISM"]), mechanism)?;
    let username = environment.secret(name("--sasl-username", &["SASL_USERNAME"]), username)?;
    let password = environment.secret(name("--sasl-password", &["SASL_PASSWORD"]), password)?;
    match (mechanism, username, password) {
        (None, None, None) => Ok(None),
        (Some(mechanism), Some(username), Some(password)) => Ok(Some(Sasl {
            mechanism: mechanism
                .parse("PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", SaslMechanism::from_str)?,
            username: username.value,
            password: Secret::from(password),
        })),
        (mechanism, username, password) => {
            let missing: Vec<_> = [
                ("SASL_MECHANISM", mechanism.is_none()),
                ("SASL_USERNAME", username.is_none()),
                ("SASL_PASSWORD", password.is_none()),
            ]
            .into_iter()
            .filter_map(|(name, missing)| missing.then_some(name))
            .collect();
            let given = [mechanism, username, password].into_iter().flatten().next();
            let origin = given.map_or_else(String::new, |given| format!("{}: ", given.origin));
            Err(UsageError::new(format!(
                "{origin}sasl needs three settings: expected {} too",
                missing.join(" and ")
            )))
        }
    }
}
