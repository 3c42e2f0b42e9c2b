//! TLS and SASL on a real broker: what is taken, and one clear line for what is not.

use std::sync::Arc;

use common::secret::Secret;
use kafka_client::*;

use crate::support::*;

fn ask(settings: Settings) -> Result<(), Error> {
    settings.check()?;
    Client::new(Arc::new(settings)).topics(&[]).map(drop)
}

fn refusal(mut settings: Settings) -> String {
    settings.bootstrap.truncate(1);
    let address = settings.bootstrap[0].to_string();
    let text = ask(settings).unwrap_err().to_string();
    assert!(!text.contains('\n'));
    text.replace(&address, "BROKER")
}

#[test]
fn keys_of_every_kind_are_taken() {
    for (chain, key) in [
        ("client.crt", "client.key"),
        ("client.crt", "client.pkcs1.key"),
        ("client-ec.crt", "client-ec.key"),
    ] {
        ask(tls(Some((chain, key)))).unwrap_or_else(|error| panic!("{key}: {error}"));
    }
}

#[test]
fn a_key_that_is_not_the_certificates_stops_at_the_start() {
    let error = tls(Some(("client.crt", "client-ec.key"))).check().unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("client-ec.key: this key is not the certificate's"), "{text}");
    let missing = tls(Some(("client.crt", "none.key"))).check().unwrap_err().to_string();
    assert!(missing.contains("none.key: No such file"), "{missing}");
}

#[test]
fn an_expired_client_certificate_is_said_to_be_expired() {
    let text = refusal(tls(Some(("expired-client.crt", "expired-client.key"))));
    assert!(text.starts_with("TLS to BROKER: our client certificate expired 1 days ago"), "{text}");
}

#[test]
fn a_foreign_client_certificate_is_said_to_be_refused() {
    let text = refusal(tls(Some(("foreign-client.crt", "foreign-client.key"))));
    let expected = "TLS to BROKER: the broker refused our client certificate, which a CA that it \
                    trusts must have signed";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn no_client_certificate_is_said_to_be_missing() {
    let text = refusal(tls(None));
    let expected = "TLS to BROKER: the broker asks for a client certificate, and none is given";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn a_wrong_ca_is_said_to_be_wrong() {
    let mut settings = tls(None);
    settings.security = tls_with("foreign-ca.crt", Some(("client.crt", "client.key")));
    assert_eq!(
        refusal(settings),
        "TLS to BROKER: the broker's certificate is not signed by a CA that we trust \
         (unknown issuer)"
    );
}

#[test]
fn another_name_than_the_certificates_is_refused() {
    let mut settings = tls(Some(("client.crt", "client.key")));
    settings.bootstrap[0].host = "127.0.0.1".to_owned();
    assert_eq!(refusal(settings), "TLS to BROKER: the broker's certificate is for another name");
}

#[test]
fn a_mix_of_plain_and_tls_is_said_to_be_one() {
    let mut to_tls = tls(None);
    to_tls.security = Security::Plain;
    let text = refusal(to_tls);
    assert!(text.ends_with("is it a TLS port") || text.ends_with("is it a TLS port)"), "{text}");
    let to_plain = Settings::new(plain().bootstrap.clone(), tls_with("ca.crt", None));
    let text = refusal(to_plain);
    assert!(text.ends_with("is it a plain-text port)"), "{text}");
}

const MECHANISMS: [Mechanism; 3] =
    [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512];

#[test]
fn sasl_is_taken_over_plain_text_and_tls() {
    for over_tls in [false, true] {
        for mechanism in MECHANISMS {
            ask(sasl(over_tls, mechanism, None))
                .unwrap_or_else(|error| panic!("{mechanism} {over_tls}: {error}"));
        }
    }
}

#[test]
fn a_wrong_password_or_user_is_said_to_be_refused_and_never_shown() {
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
fn sasl_where_none_is_wanted_is_said_to_be_refused() {
    let mut settings = Settings::new(plain().bootstrap.clone(), Security::Plain);
    settings.sasl = Some(Sasl {
        mechanism: Mechanism::Plain,
        username: "u".to_owned(),
        password: Secret::new("p"),
    });
    let text = refusal(settings);
    assert!(text.starts_with("SASL to BROKER: the broker does not take PLAIN"), "{text}");
}

#[test]
fn no_sasl_where_one_is_wanted_is_said_to_be_missing() {
    let mut settings = sasl(false, Mechanism::Plain, None);
    settings.sasl = None;
    let text = refusal(settings);
    assert!(text.contains("does it want SASL"), "{text}");
}
