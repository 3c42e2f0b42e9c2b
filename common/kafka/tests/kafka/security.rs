//! TLS and SASL on a real broker: accepted settings, and one clear line for each refusal.

use std::sync::Arc;

use common::secret::Secret;
use kafka_client::*;

use crate::support::*;

fn list_brokers(settings: KafkaSettings) -> Result<(), KafkaError> {
    settings.check()?;
    KafkaClient::new(Arc::new(settings)).topics(&[]).map(drop)
}

fn refusal(mut settings: KafkaSettings) -> String {
    settings.bootstrap.truncate(1);
    let address = settings.bootstrap[0].to_string();
    let text = list_brokers(settings).unwrap_err().to_string();
    assert!(!text.contains('\n'));
    text.replace(&address, "BROKER")
}

#[test]
fn all_kinds_of_keys_are_accepted() {
    for (chain, key) in [
        ("client.crt", "client.key"),
        ("client.crt", "client.pkcs1.key"),
        ("client-ec.crt", "client-ec.key"),
    ] {
        list_brokers(tls(Some((chain, key)))).unwrap_or_else(|error| panic!("{key}: {error}"));
    }
}

#[test]
fn key_of_another_certificate_is_refused_at_start() {
    let error = tls(Some(("client.crt", "client-ec.key"))).check().unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("client-ec.key: the key does not belong to the certificate"), "{text}");
    let missing = tls(Some(("client.crt", "none.key"))).check().unwrap_err().to_string();
    assert!(missing.contains("none.key: No such file"), "{missing}");
}

#[test]
fn expired_client_certificate_is_reported() {
    let text = refusal(tls(Some(("expired-client.crt", "expired-client.key"))));
    assert!(text.starts_with("TLS to BROKER: the client certificate expired 1 day ago"), "{text}");
}

#[test]
fn foreign_client_certificate_is_reported() {
    let text = refusal(tls(Some(("foreign-client.crt", "foreign-client.key"))));
    let expected = "TLS to BROKER: the broker refused the client certificate: a CA that the \
                    broker trusts must have signed it";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn missing_client_certificate_is_reported() {
    let text = refusal(tls(None));
    let expected = "TLS to BROKER: the broker asks for a client certificate: set one";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn wrong_ca_is_reported() {
    let mut settings = tls(None);
    settings.security = tls_with("foreign-ca.crt", Some(("client.crt", "client.key")));
    assert_eq!(
        refusal(settings),
        "TLS to BROKER: the broker's certificate is not signed by a trusted CA \
         (unknown issuer)"
    );
}

#[test]
fn certificate_for_another_host_is_refused() {
    let mut settings = tls(Some(("client.crt", "client.key")));
    settings.bootstrap[0].host = "127.0.0.1".to_owned();
    assert_eq!(
        refusal(settings),
        "TLS to BROKER: the broker's certificate is for another host name"
    );
}

#[test]
fn plain_text_to_a_tls_port_is_reported() {
    let mut to_tls = tls(None);
    to_tls.security = Security::Plain;
    let text = refusal(to_tls);
    assert!(text.ends_with("is it a TLS port?") || text.ends_with("is it a TLS port?)"), "{text}");
}

#[test]
fn tls_to_a_plain_text_port_is_reported() {
    let to_plain = KafkaSettings::new(plain().bootstrap.clone(), tls_with("ca.crt", None));
    let text = refusal(to_plain);
    assert!(text.ends_with("is it a plain-text port?)"), "{text}");
}

const MECHANISMS: [SaslMechanism; 3] =
    [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512];

#[test]
fn sasl_is_accepted_over_plain_text_and_tls() {
    for over_tls in [false, true] {
        for mechanism in MECHANISMS {
            list_brokers(sasl(over_tls, mechanism, None))
                .unwrap_or_else(|error| panic!("{mechanism} {over_tls}: {error}"));
        }
    }
}

#[test]
fn wrong_password_or_user_is_reported_and_never_shown() {
    for mechanism in MECHANISMS {
        let text = refusal(sasl(true, mechanism, Some("wrong-secret")));
        let expected = "SASL to BROKER: the broker refused user and password (";
        assert!(text.starts_with(expected), "{mechanism}: {text}");
        assert!(!text.contains("wrong-secret"), "{text}");
        let mut nobody = sasl(true, mechanism, Some("wrong-secret"));
        if let Some(sasl) = &mut nobody.sasl {
            sasl.username = "nobody".to_owned();
        }
        let text = refusal(nobody);
        assert!(text.starts_with(expected), "{mechanism}: {text}");
    }
}

#[test]
fn sasl_to_a_port_without_sasl_is_reported() {
    let mut settings = KafkaSettings::new(plain().bootstrap.clone(), Security::Plain);
    settings.sasl = Some(Sasl {
        mechanism: SaslMechanism::Plain,
        username: "u".to_owned(),
        password: Secret::new("p"),
    });
    let text = refusal(settings);
    assert!(text.starts_with("SASL to BROKER: the broker does not support PLAIN"), "{text}");
}

#[test]
fn missing_sasl_is_reported() {
    let mut settings = sasl(false, SaslMechanism::Plain, None);
    settings.sasl = None;
    let text = refusal(settings);
    assert!(text.contains("does the broker need SASL"), "{text}");
}
