use super::*;
use postgres_client::SslMode;

const GIVEN: [(&str, &str); 3] = [
    ("DOMAIN", "www.google.com,aiven.io "),
    ("KAFKA", "127.0.0.1:9092"),
    ("POSTGRES", "postgres://u:hunter2@127.0.0.1:20274/web?sslmode=require"),
];

fn parse_with(variables: &[(&str, &str)], arguments: &[&str]) -> Result<Action, UsageError> {
    let mut all = variables.to_vec();
    all.extend(GIVEN.iter().filter(|(name, _)| !variables.iter().any(|(key, _)| key == name)));
    parse(arguments.iter().map(OsString::from), &Environment::from_variables(&all))
}

fn settings_with(variables: &[(&str, &str)], arguments: &[&str]) -> Result<Settings, String> {
    match parse_with(variables, arguments) {
        Ok(Action::Record(settings)) => Ok(*settings),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn the_environment_file_of_the_readme_is_enough() {
    let settings = settings_with(&[], &[]).unwrap();
    let topics: Vec<_> = settings.selection.domains().keys().map(String::as_str).collect();
    assert_eq!(topics, ["webactivity-aiven.io", "webactivity-www.google.com"]);
    assert_eq!(settings.postgres.uri.ssl_mode(), SslMode::Require);
    assert_eq!(settings.postgres_connections, 8);
    assert_eq!(settings.group, "websites-availability");
    assert!(!settings.smart && settings.postgres.ca.is_none());
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn every_setting_arrives() {
    let settings = settings_with(
        &[("SMART", "true"), ("TOPIC_PREFIX", "webactiviity-"), ("DOMAIN", "A.b,a.b,,c")],
        &["--group=dash", "--postgres-connections", "3"],
    )
    .unwrap();
    let topics: Vec<_> = settings.selection.domains().keys().map(String::as_str).collect();
    assert_eq!(topics, ["webactiviity-a.b", "webactiviity-c"]);
    assert_eq!((settings.group.as_str(), settings.postgres_connections), ("dash", 3));
    assert!(settings.smart);
    assert!(settings_with(&[], &["-s"]).unwrap().smart);
    assert!(!settings_with(&[("SMART", "0")], &["-s"]).unwrap().smart);
}

#[test]
fn errors_are_one_line_with_their_origin_and_no_secret() {
    for (variables, arguments, expected) in [
        (&[("DOMAIN", "")][..], &[][..], "DOMAIN: not given: expected domains, by --domain too"),
        (&[("DOMAIN", " , ")], &[], "DOMAIN: no domain in the list: expected domain,domain,..."),
        (
            &[("DOMAIN", "")],
            &["-d", "a.b,a_b"],
            "--domain: domains a.b and a_b would share the name web_activity_a_b in postgresql: \
             expected domain,domain,...",
        ),
        (&[("KAFKA", "")], &[], "KAFKA: not given: expected host:port, by --kafka too"),
        (
            &[("POSTGRES", "")],
            &[],
            "POSTGRES: not given: expected postgres://user:password@host:port/database, by --postgres too",
        ),
        (
            &[("POSTGRES", "hunter2")],
            &[],
            "POSTGRES: not a postgresql uri: expected postgres://user:password@host:port/database?sslmode=…",
        ),
        (
            &[("GPCA", "/nowhere/ca.pem")],
            &[],
            "GPCA: /nowhere/ca.pem: No such file or directory (os error 2)",
        ),
        (
            &[("POSTGRES", "postgres://u@h/d?sslmode=require&sslrootcert=/nowhere/root.pem")],
            &[],
            "POSTGRES: /nowhere/root.pem: No such file or directory (os error 2)",
        ),
        (
            &[],
            &["--postgres-connections=0"],
            "--postgres-connections: 0 is out of range: expected 1 to 100 connections",
        ),
        (
            &[("TOPIC_PREFIX", "a b")],
            &[],
            "TOPIC_PREFIX: \"a b\" can't begin a topic: expected 1 to 100 letters, digits, '.', '_', '-': expected a prefix like webactivity-",
        ),
        (&[], &["hunter2"], "unknown subcommand: expected schema, replay or none"),
        (
            &[],
            &["replay", "--smart"],
            "--smart: recorder replay has no such flag: see recorder replay --help",
        ),
        (
            &[],
            &["-phunter2", "schema"],
            "--postgres: recorder schema has no such flag: see recorder schema --help",
        ),
        (
            &[("DOMAIN", "*,a.b")],
            &["schema"],
            "DOMAIN: contains a pattern: expected the domains whose tables are to be printed",
        ),
    ] {
        assert_eq!(settings_with(variables, arguments).unwrap_err(), expected);
    }
}

#[test]
fn schema_needs_no_server() {
    let only_domains = [("KAFKA", ""), ("POSTGRES", "")];
    for arguments in [&["schema", "-d", "a.b,c"][..], &["-d", "a.b,c", "schema"]] {
        let variables = [("DOMAIN", ""), only_domains[0], only_domains[1], ("SMART", "true")];
        match parse_with(&variables, arguments) {
            Ok(Action::PrintSchema(SchemaSettings { domains, smart: true })) => {
                assert_eq!(domains.len(), 2);
            }
            other => panic!("{other:?}"),
        }
    }
    match parse_with(&only_domains, &["schema"]) {
        Ok(Action::PrintSchema(SchemaSettings { domains, smart: false })) => {
            assert_eq!(domains.len(), 2)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn replay_needs_postgresql_alone_and_ignores_other_variables() {
    let without_kafka =
        [("KAFKA", ""), ("SMART", "maybe"), ("DOMAIN", "a.b,*.c.d"), ("TOPIC_PREFIX", "x-")];
    match parse_with(&without_kafka, &["replay"]) {
        Ok(Action::Replay(settings)) => {
            assert!(settings.selection.has_patterns());
            assert_eq!(settings.selection.domains().keys().collect::<Vec<_>>(), ["x-a.b"]);
            assert_eq!(settings.topic_prefix, "x-");
        }
        other => panic!("{other:?}"),
    }
    let error = parse_with(&[("POSTGRES", "")], &["replay"]).unwrap_err().to_string();
    assert!(error.starts_with("POSTGRES: not given: expected"), "{error}");
}

#[test]
fn defaults_are_stated_in_the_table_of_flags() {
    let default = |long: &str| {
        let flag = COMMANDS[0].flags().find(|flag| flag.long == long).unwrap();
        (flag.default, flag.all_variables().join(" "))
    };
    assert_eq!(default("--topic-prefix"), (Some("webactivity-"), "TOPIC_PREFIX".to_owned()));
    assert_eq!(default("--postgres-connections").0, Some("8"));
    assert_eq!(default("--postgres"), (None, "POSTGRES POSTGRES_FILE".to_owned()));
    assert_eq!(default("--pgca").1, "PGCA GPCA");
}

/// An error stays on one line, whatever value it contains.
#[test]
fn fuzzed_settings_are_parsed_or_refused_in_one_line() {
    const NAMES: [&str; 8] = [
        "DOMAIN",
        "KAFKA",
        "POSTGRES",
        "SMART",
        "TOPIC_PREFIX",
        "POSTGRES_CONNECTIONS",
        "SASL_MECHANISM",
        "CA",
    ];
    // Each sample is a letter for the variable, followed by its value.
    let samples: Vec<Vec<u8>> = [
        "\0www.google.com,aiven.io",
        "\u{1}127.0.0.1:9092,[::1]:9093",
        "\u{2}postgres://u:hunter2@127.0.0.1:20274/web?sslmode=require",
        "\u{3}true",
        "\u{4}webactiviity-",
        "\u{5}100",
        "\u{6}SCRAM-SHA-256",
        "\u{7}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    ]
    .map(Into::into)
    .into();
    let tried = testkit::fuzz::run(&samples, |bytes| {
        let Some((which, value)) = bytes.split_first() else { return };
        let value = String::from_utf8_lossy(value);
        let name = NAMES[usize::from(*which) % NAMES.len()];
        // With TLS, the system's roots would be read, which is slow.
        let plain = ("POSTGRES", "postgres://u:hunter2@127.0.0.1/web?sslmode=disable");
        let given = [(name, value.as_ref()), plain];
        let given = if name == "POSTGRES" { &given[..1] } else { &given };
        if let Err(error) = settings_with(given, &[]) {
            assert_eq!(error.lines().count(), 1, "{error:?}");
        }
    });
    println!("settings of the recorder: {tried} inputs");
}
