use super::*;

fn sasl() -> Sasl {
    Sasl {
        mechanism: SaslMechanism::ScramSha256,
        username: "user".to_owned(),
        password: Secret::new("pencil"),
    }
}

/// The example exchange of RFC 7677, section 3.
#[test]
fn rfc_7677_example_exchange() {
    let sasl = sasl();
    let mut scram = Scram::new(&sasl, SHA_256, "rOprNGfwEbeRWgbNEkqO".to_owned());
    assert_eq!(scram.first_message(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let proof = scram
        .prove(
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
              s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        )
        .unwrap();
    assert_eq!(
        String::from_utf8(proof).unwrap(),
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    );
    scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
    let other = scram.verify(b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap_err();
    assert_eq!(other, "the broker did not prove that it knows the password");
    assert_eq!(scram.verify(b"e=other-error").unwrap_err(), "refused: other-error");
}

#[test]
fn hostile_broker_is_refused() {
    let sasl = sasl();
    let mut scram = Scram::new(&sasl, SHA_256, "abc".to_owned());
    for (message, expected) in [
        ("r=xyz,s=AA==,i=4096", "the broker's nonce does not start with the client's nonce"),
        ("r=abc,s=AA==,i=4096", "the broker's nonce does not start with the client's nonce"),
        ("r=abcd,s=A,i=4096", "the broker's salt is not base64"),
        ("r=abcd,s=AA==,i=1", "the broker asks for a number of iterations outside 4096..=1000000"),
        (
            "r=abcd,s=AA==,i=4000000000",
            "the broker asks for a number of iterations outside 4096..=1000000",
        ),
        ("r=abcd,i=4096", "the broker's message has no s="),
    ] {
        assert_eq!(scram.prove(message.as_bytes()).unwrap_err(), expected);
    }
    // A last message before the first message proves nothing.
    assert!(scram.verify(b"v=").is_err());
}

#[test]
fn user_name_is_escaped_and_password_is_never_shown() {
    let mut sasl = sasl();
    sasl.username = "a=b,c".to_owned();
    assert_eq!(Scram::new(&sasl, SHA_512, "x".to_owned()).first_message(), b"n,,n=a=3Db=2Cc,r=x");
    assert!(!format!("{sasl:?}").contains("pencil"));
    sasl.check().unwrap();
    sasl.username = "\u{fc}".to_owned();
    assert!(sasl.check().is_err());
    assert_eq!("scram-sha-512".parse(), Ok(SaslMechanism::ScramSha512));
    assert!("GSSAPI".parse::<SaslMechanism>().is_err());
}

/// Fuzzed messages never panic, and never start a computation of unbounded length.
#[test]
fn fuzzed_broker_messages_are_answered_or_refused() {
    let samples: [Vec<u8>; 3] = [
        b"r=abcd,s=AA==,i=4096".into(),
        b"r=abcd,s=AA==,i=4294967295".into(),
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".into(),
    ];
    let sasl = sasl();
    let tried = testkit::fuzz::run(&samples, |bytes| {
        let mut scram = Scram::new(&sasl, SHA_256, "abc".to_owned());
        let iterations = parse_text(bytes).and_then(|text| find_attribute(text, "i"));
        // Many iterations are allowed, but take seconds without optimisation.
        if iterations.is_ok_and(|it| it.parse().is_ok_and(|it| (5_000..=1_000_000).contains(&it))) {
            return;
        }
        let _ = scram.prove(bytes);
        assert!(scram.verify(bytes).is_err(), "a random message can't be a valid proof");
    });
    println!("sasl: {tried} inputs");
}
