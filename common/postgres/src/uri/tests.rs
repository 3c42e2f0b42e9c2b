use super::*;

fn parse(text: &str) -> PostgresUri {
    PostgresUri::parse(text).unwrap()
}

#[test]
fn uri_and_key_value_string_are_parsed() {
    for text in [
        "postgres://avnadmin:s%40cret@pg.example:20274/defaultdb?sslmode=require",
        "postgresql://avnadmin:s%40cret@pg.example:20274/defaultdb?sslmode=require",
        "postgresql://pg.example:20274/defaultdb?user=avnadmin&password=s%40cret&ssl=true",
        "host=pg.example port=20274 user = avnadmin password='s@cret' dbname=defaultdb sslmode=require",
        r"sslmode='require' host=pg.example port=20274 user=avnadmin password=s\@cret dbname='defaultdb'",
    ] {
        let uri = parse(text);
        assert_eq!(uri.ssl_mode(), SslMode::Require, "{text}");
        assert_eq!(uri.to_string(), "pg.example:20274/defaultdb", "{text}");
        assert_eq!(uri.session.get_user(), Some("avnadmin"), "{text}");
        assert_eq!(uri.session.get_password(), Some(&b"s@cret"[..]), "{text}");
    }
}

#[test]
fn password_can_have_the_characters_that_libpq_allows() {
    for (text, password) in [
        ("postgres://u:a?b&c=d@h/db", "a?b&c=d"),
        ("postgres://u:a:b@h/db?application_name=x@y", "a:b"),
        (r"host=h password='it\'s \\ me' dbname=db", r"it's \ me"),
        ("host=h password='' dbname=db", ""),
    ] {
        let uri = parse(text);
        assert_eq!(uri.session.get_password(), Some(password.as_bytes()), "{text}");
        assert_eq!(uri.to_string(), "h:5432/db", "{text}");
    }
    let uri = parse("postgres://h/db?application_name=x@y");
    assert_eq!(uri.session.get_application_name(), Some("x@y"));
}

#[test]
fn all_modes_are_known_and_prefer_is_the_default() {
    for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] {
        assert_eq!(parse(&format!("postgres://h/d?sslmode={mode}")).ssl_mode().as_str(), mode);
        assert_eq!(parse(&format!("host=h sslmode={mode}")).ssl_mode().as_str(), mode);
    }
    assert_eq!(parse("postgres://h/d").ssl_mode(), SslMode::Prefer);
    assert_eq!(parse("postgres://h/d?sslrootcert=system").ssl_mode(), SslMode::VerifyFull);
}

#[test]
fn parameters_have_the_meaning_of_libpq() {
    let uri = parse(
        "postgres://one,two:6543,[::1]/d?tcp_user_timeout=2500&keepalives_count=7\
         &connect_timeout=3&gssencmode=prefer&client_encoding=UTF8&load_balance_hosts=random",
    );
    assert_eq!(uri.session.get_tcp_user_timeout(), Some(&Duration::from_millis(2500)));
    assert_eq!(uri.session.get_keepalives_retries(), Some(7));
    assert_eq!(uri.session.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(uri.to_string(), "one:5432,two:6543,[::1]:5432/d");
    assert!(uri.has_random_order);
    let socket = parse("postgres:///d?host=/run/postgresql&port=5433");
    assert_eq!(socket.to_string(), "/run/postgresql/.s.PGSQL.5433/d");
    assert!(socket.is_local() && parse("postgres://127.0.0.2/d").is_local());
    assert!(!uri.is_local());
    let numeric = parse("host=db.example hostaddr=127.0.0.1");
    assert_eq!(numeric.to_string(), "db.example:5432");
    assert!(numeric.is_local());
}

#[test]
fn errors_name_the_expected_value_and_show_no_value() {
    let syntax =
        "not a postgresql uri: expected postgres://user:password@host:port/database?sslmode=…";
    let modes = "postgresql uri: sslmode: expected disable, allow, prefer, require, verify-ca or verify-full";
    for (text, message) in [
        ("hunter2", syntax),
        ("mysql://u:hunter2@h/d", syntax),
        ("postgres://u:hunter2%ZZ@h/d?sslmode=%ZZ", syntax),
        ("host=h password='hunter2", syntax),
        (
            "postgres://u:hunter2@/d",
            "postgresql uri: no host: expected a name, or host=/folder for a socket",
        ),
        ("postgres://u:hunter2@h/d?sslmode=hunter2", modes),
        ("postgres://u:hunter2@h/d?sslmode=", modes),
        ("postgres://u:hunter2@h:hunter2/d", "postgresql uri: port: the value is not valid"),
        (
            "postgres://u@h/d?hunter2=x",
            "postgresql uri: parameter 1 is unknown: expected one of libpq's names",
        ),
        (
            "host=h hunter2=x",
            "postgresql uri: parameter 2 is unknown: expected one of libpq's names",
        ),
        ("postgres://u@h/d?sslcrl=hunter2", "postgresql uri: sslcrl is not supported: remove it"),
        (
            "postgres://u@h/d?sslmode=require&sslrootcert=system",
            "postgresql uri: sslmode: expected verify-full with sslrootcert=system",
        ),
        (
            "postgres://u@h/d?sslnegotiation=direct",
            "postgresql uri: sslmode: expected require or stronger with sslnegotiation=direct",
        ),
        (
            "postgres://u@h/d?sslcert=hunter2",
            "postgresql uri: sslcert: expected both sslcert and sslkey, or neither",
        ),
        (
            "postgres://u@h/d?gssencmode=require",
            "postgresql uri: gssencmode: expected disable or prefer",
        ),
    ] {
        let error = PostgresUri::parse(text).unwrap_err();
        assert_eq!(error.to_string(), message, "{text}");
        assert!(!format!("{error:?}").contains("hunter2"), "{text}");
    }
}

#[test]
fn password_is_never_shown() {
    let uri = parse("postgres://u:hunter2@h/d?sslpassword=hunter2&sslcert=a&sslkey=b");
    assert!(!format!("{uri} {uri:?}").contains("hunter2"));
}

/// Fuzzed URIs do not panic, and no error shows the password.
#[test]
fn fuzzed_uris_are_parsed_or_refused_without_the_password() {
    let samples: Vec<Vec<u8>> = [
        "postgres://avnadmin:hunter2hunter2@pg.example:20274/defaultdb?sslmode=require",
        "postgres://u:hunter2hunter2@one,two:6543,[::1]/d?tcp_user_timeout=2500&keepalives_count=7",
        r"sslmode='require' host=pg.example port=20274 user=a password=hunter2hunter2 dbname='d\'b'",
    ]
    .map(Into::into)
    .into();
    let tried = testkit::fuzz::run(&samples, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match PostgresUri::parse(&text) {
            Ok(uri) => {
                uri.ssl_mode();
                let _ = uri.reread();
            }
            Err(error) => assert!(!error.to_string().contains("hunter2hunter2"), "{error}"),
        }
    });
    println!("uri: {tried} inputs");
}
