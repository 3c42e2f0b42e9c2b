//! The flags of the connection to Kafka, which both programs share.

use std::str::FromStr;

use crate::{BrokerAddress, KafkaSettings, Sasl, SaslMechanism, Security};
use common::pem::{Pem, PemError};
use common::secret::Secret;
use common::settings::{Environment, SettingValue, UsageError};

common::flags! {
    /// The connection to Kafka.
    pub struct KafkaFlags {
        /// Kafka bootstrap servers, host:port separated by commas
        option kafka('k') [KAFKA];
        /// CA certificates that sign the certificates of the Kafka servers, a path or
        /// PEM text
        option ca('c') [CA];
        /// certificate of this client for Kafka, a path or PEM text
        option cert('e') [CERT];
        /// private key of this client for Kafka, a path or PEM text
        option key('y') [KEY];
        /// connect to Kafka by TLS even without CA, CERT and KEY, and trust the
        /// system's roots
        switch kafka_tls [KAFKA_TLS];
        /// SASL mechanism for Kafka: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
        option sasl_mechanism [SASL_MECHANISM];
        /// user for Kafka
        option sasl_username [SASL_USERNAME] secret;
        /// password for Kafka; it is visible in the list of processes if given by this
        /// flag
        option sasl_password [SASL_PASSWORD] secret;
    }
}

/// The settings of the connection to Kafka. `None`: no server is set.
///
/// The connection uses TLS when CA, CERT or KEY is set or `--kafka-tls` asks for
/// it, and plain text otherwise. A password is never sent in plain text to another
/// machine; see also [`plain_text_warning`].
///
/// # Errors
/// A [`UsageError`] that names the flag or variable at fault.
pub fn settings(
    environment: &Environment<'_>,
    client_id: &str,
    flags: &KafkaFlags,
) -> Result<Option<KafkaSettings>, UsageError> {
    let bootstrap = flags.kafka(environment)?;
    let ca = flags.ca(environment)?;
    let cert = flags.cert(environment)?;
    let key = flags.key(environment)?;
    let tls_requested = flags.kafka_tls(environment)?;
    let sasl = sasl(environment, flags)?;
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
            return Err(cert.error("a certificate without its key: expected KEY too"));
        }
        (None, Some(key)) => {
            return Err(key.error("a key without its certificate: expected CERT too"));
        }
    };
    let security = if tls_requested || roots.is_some() || identity.is_some() {
        Security::Tls { roots: roots.transpose()?, identity }
    } else {
        Security::Plain
    };
    if sasl.is_some()
        && let Some(remote) = plain_text_remote(&addresses, &security)
    {
        return Err(bootstrap.error(format!(
            "the password would be sent to {remote} in plain text: expected CA, CERT and KEY, or --kafka-tls"
        )));
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

/// A warning for the log when records cross the network in plain text.
pub fn plain_text_warning(settings: &KafkaSettings) -> Option<String> {
    let remote = plain_text_remote(&settings.bootstrap, &settings.security)?;
    Some(format!(
        "kafka: connecting to {remote} in plain text: for TLS give CA, CERT and KEY, or --kafka-tls"
    ))
}

/// A server on another machine that would be reached in plain text.
fn plain_text_remote<'a>(
    addresses: &'a [BrokerAddress],
    security: &Security,
) -> Option<&'a BrokerAddress> {
    match security {
        Security::Plain => addresses.iter().find(|address| !address.is_loopback()),
        Security::Tls { .. } => None,
    }
}

fn pem(
    setting: &SettingValue,
    expected: &str,
    check: impl FnOnce(&Pem) -> Result<(), PemError>,
) -> Result<Pem, UsageError> {
    let pem = Pem::from_setting(&setting.value);
    check(&pem).map_err(|error| setting.error(format!("{error}: expected {expected} in PEM")))?;
    Ok(pem)
}

fn sasl(environment: &Environment<'_>, flags: &KafkaFlags) -> Result<Option<Sasl>, UsageError> {
    let mechanism = flags.sasl_mechanism(environment)?;
    let username = flags.sasl_username(environment)?;
    let password = flags.sasl_password(environment)?;
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
            let first = [mechanism, username, password].into_iter().flatten().next();
            let origin = first.map_or_else(String::new, |setting| format!("{}: ", setting.origin));
            Err(UsageError::new(format!(
                "{origin}SASL needs three settings: expected {} too",
                missing.join(" and ")
            )))
        }
    }
}
