//! Invalid settings: exit code 2 and one line.

use crate::run;

const SITE: (&str, &str) = ("WEBSITES", "http://127.0.0.1:1/");

#[test]
fn an_invalid_setting_is_one_line_with_cause_origin_and_expectation() {
    let kafka = ("KAFKA", "localhost:1");
    let secret = ("SASL_PASSWORD", "s3cret");
    for (arguments, variables, expected) in [
        (
            &[][..],
            &[][..],
            "WEBSITES and TARGETS: neither is set: expected URLs, or a file that lists them",
        ),
        (
            &["--once"],
            &[("WEBSITES", "aiven.io")],
            "WEBSITES: entry 1 (aiven.io): relative URL without a base (a comma inside a regexp is written \\,): expected URL [regexp],URL [regexp],...",
        ),
        (
            &["-w", "http://a.io (?<!x)", "--once"],
            &[],
            "--websites: entry 1 (http://a.io): regexp: look-around, including look-ahead and look-behind, is not supported: expected URL [regexp],URL [regexp],...",
        ),
        (
            &["--once", "-p", "fast"],
            &[SITE],
            "--period: \"fast\" is not a number: expected 1 to 86400 seconds",
        ),
        (
            &["--once"],
            &[SITE, ("TIMEOUT", "0")],
            "TIMEOUT: 0 is out of range: expected 0.1 to 300 seconds",
        ),
        (
            &["--once"],
            &[SITE, ("RETRIES", "11")],
            "RETRIES: 11 is out of range: expected 0 to 10 retries",
        ),
        (
            &["--once", "--sentinel", "a.io"],
            &[SITE],
            "--sentinel: \"a.io\" is not host:port: expected 1 to 8 of host:port,host:port,...",
        ),
        (
            &["--workers", "2049", "--once"],
            &[SITE],
            "--workers: 2049 is out of range: expected 1 to 2048 workers",
        ),
        (
            &["--once"],
            &[SITE, ("RESOLVER", "192.0.2.1,dns.example")],
            "RESOLVER: \"dns.example\" is not an ip address: expected up to three of ip, ip:port or [ip]:port",
        ),
        (
            &["--once", "--targets", "/nowhere.toml"],
            &[SITE],
            "--targets: /nowhere.toml: No such file or directory (os error 2)",
        ),
        (
            &["--once", "--share", "0/3", "-l", "oslo"],
            &[SITE],
            "--share: 0/3 is out of range: expected K/N, with K from 1 to N, and N at most 1000",
        ),
        (
            &["--once"],
            &[SITE, ("SHARE", "1/3")],
            "SHARE: shares depend on the location: expected LOCATION too, the same for all trackers that share the list",
        ),
        (&["--perod", "1"], &[SITE], "unknown flag --perod: did you mean --period?"),
        (&[], &[SITE], "KAFKA: not set: expected host:port, or --once or --json to print results"),
        (&["--json"], &[SITE, kafka], "--json: a kafka server is set too: expected one of the two"),
        (
            &[],
            &[SITE, ("KAFKA", "localhost:x")],
            "KAFKA: \"localhost:x\": the port is not a number from 1 to 65535: expected host:port,host:port,...",
        ),
        (
            &[],
            &[SITE, kafka, ("CA", "/nowhere/ca.pem")],
            "CA: /nowhere/ca.pem: No such file or directory (os error 2): expected CA certificates in PEM",
        ),
        (
            &[],
            &[SITE, kafka, ("CA", "-----BEGIN X-----")],
            "CA: the PEM text: broken PEM: expected CA certificates in PEM",
        ),
        (
            &[],
            &[SITE, kafka, ("CERT", "/nowhere")],
            "CERT: a certificate without its key: expected KEY too",
        ),
        (
            &[],
            &[SITE, kafka, secret],
            "SASL_PASSWORD: SASL needs three settings: expected SASL_MECHANISM and SASL_USERNAME too",
        ),
        (
            &["--sasl-username", "user", "--sasl-mechanism", "plain"],
            &[SITE, ("KAFKA", "kafka.example:9092"), secret],
            "KAFKA: the password would be sent to kafka.example:9092 in plain text: expected CA, CERT and KEY, or --kafka-tls",
        ),
        (
            &["--once"],
            &[SITE, ("SPOOL", "/nowhere")],
            "SPOOL: no kafka server is set: expected KAFKA too",
        ),
        (
            &["--spool", "/proc/nowhere"],
            &[SITE, kafka],
            "--spool: /proc/nowhere: No such file or directory (os error 2): expected a folder for this tracker alone",
        ),
        (
            &[],
            &[SITE, kafka, ("SPOOL_MAX", "1")],
            "SPOOL_MAX: 1 is out of range: expected 16 to 1048576 MiB",
        ),
        (
            &["--once", "--roots", "/nowhere/roots.pem"],
            &[SITE],
            "--roots: /nowhere/roots.pem: No such file or directory (os error 2): expected system, mozilla, or CA certificates in PEM",
        ),
        (
            &["--once"],
            &[SITE, ("ROOTS", "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----")],
            "ROOTS: the PEM text: contains a certificate that can't be a trusted root: expected system, mozilla, or CA certificates in PEM",
        ),
        (
            &["-l", "123456789012345678901234567890123"],
            &[SITE],
            "--location: has 33 characters: expected 1 to 32 characters",
        ),
        (
            &[],
            &[SITE, ("TOPIC_PREFIX", "a b")],
            "TOPIC_PREFIX: \"a b\" can't begin a topic: expected 1 to 100 letters, digits, '.', '_', '-': expected a prefix like webactivity-",
        ),
    ] {
        let ended = run(arguments, variables);
        assert_eq!(ended.log, [format!("tracker: {expected}")], "{arguments:?} {variables:?}");
        assert_eq!(ended.status.code(), Some(2), "{expected}");
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn help_goes_to_standard_output_and_names_every_variable() {
    let ended = run(&["-h"], &[]);
    assert_eq!(ended.status.code(), Some(0));
    for variable in [
        "LOCATION",
        "WEBSITES",
        "TIMEOUT",
        "PERIOD",
        "WORKERS",
        "RETRIES",
        "SENTINEL",
        "TARGETS",
        "SHARE",
        "KAFKA",
        "CA",
        "CERT",
        "KEY",
        "KAFKA_TLS",
        "SASL_MECHANISM",
        "SASL_USERNAME",
        "SASL_PASSWORD",
        "TOPIC_PREFIX",
        "TOPIC_REPLICATION",
        "TOPIC_RETENTION",
        "BODY_MAX",
        "ROOTS",
        "SPOOL",
        "SPOOL_MAX",
    ] {
        let named = ended.stdout.contains(&format!("({variable}"));
        assert!(named, "{variable} is not in the help:\n{}", ended.stdout);
    }
    assert_eq!(
        run(&["--version"], &[]).stdout,
        concat!("tracker ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

/// A temporary file with this text.
struct TargetsFile(std::path::PathBuf);

impl TargetsFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TargetsFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn an_invalid_target_is_named_with_its_position() {
    let file = TargetsFile::new(
        "usage-wrong",
        "[[target]]\nurl = 'http://u:s3cret@a.io'\nstatuss = 200\n",
    );
    let ended = run(&["--once"], &[("TARGETS", file.path())]);
    let path = file.path();
    let expected = format!(
        "tracker: TARGETS: {path}:3:1: target http://a.io: unknown option statuss: did you mean status?"
    );
    assert_eq!((ended.log, ended.status.code()), (vec![expected], Some(2)));
    let both = TargetsFile::new("usage-both", "[[target]]\nurl = 'http://127.0.0.1:1/'\n");
    let ended = run(&["--check", "--targets", both.path()], &[SITE]);
    let expected = format!(
        "tracker: --targets: {}:2:7: target http://127.0.0.1:1/: the same URL and name are listed twice",
        both.path()
    );
    assert_eq!((ended.log, ended.status.code()), (vec![expected], Some(2)));
}

/// `--check` does not open the spool, which a running tracker holds.
#[test]
fn check_prints_the_plan_and_probes_nothing() {
    let site = crate::hello_site();
    let many: String = (0..60).map(|at| format!("[[target]]\nurl = '{site}{at}'\n")).collect();
    let file = TargetsFile::new(
        "usage-plan",
        &format!("[defaults]\nperiod_s = 60\nip = 4\n{many}insecure = true\n"),
    );
    let arguments = ["--check", "--targets", file.path(), "-l", "oslo", "--workers", "7"];
    let variables =
        [("WEBSITES", "http://a.example/"), ("KAFKA", "127.0.0.1:1"), ("SPOOL", "/proc/nowhere")];
    let ended = run(&arguments, &variables);
    assert_eq!((ended.status.code(), &ended.log), (Some(0), &vec![]));
    let lines: Vec<_> =
        ended.stdout.lines().filter(|line| !line.starts_with("memory limit")).collect();
    let [from, targets, minute, five_minutes, probes, insecure, worst, warning, results] =
        lines[..]
    else {
        panic!("{}", ended.stdout);
    };
    assert_eq!(
        [from, targets, minute, five_minutes, probes, insecure, results],
        [
            "from: oslo",
            "targets: 61, in 2 domains",
            "period 60s: 60 targets",
            "period 300s: 1 target",
            "probes per minute: 60.2",
            "certificates not verified: 1",
            "results: kafka, topics webactivity-...",
        ]
    );
    assert!(
        worst.starts_with("worst case, if every site hangs: 22 of 7 workers busy, "),
        "{worst}"
    );
    assert!(warning.starts_with("warning: 7 workers are not enough "), "{warning}");

    let count = |share: &str| {
        let ended = run(&[&arguments[..], &["--share", share]].concat(), &variables);
        let line = ended.stdout.lines().nth(1).unwrap_or_default().to_owned();
        let (part, of) = line.strip_prefix("targets: ").unwrap().split_once(" of ").unwrap();
        assert!(of.starts_with("61, in "), "{line}");
        part.parse::<usize>().unwrap()
    };
    let [one, two, three] = ["1/3", "2/3", "3/3"].map(count);
    assert!(one > 5 && two > 5 && three > 5 && one + two + three == 61, "{one} {two} {three}");
}
