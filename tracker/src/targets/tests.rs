//! The TOML file of targets: its options, and the errors for invalid files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::settings::Environment;
use testkit::certificates::Authority;

use super::context::ValueContext;
use super::options::{OPTIONS, TargetOption};
use super::url::URL_CHARS_MAX;
use super::*;
use crate::probe::Family;
use crate::probe::reason::Severity;
use std::sync::Arc;

const EXAMPLE: &str = include_str!("../../../scripts/targets.example.toml");

fn read_in(folder: &Path, text: &str) -> Result<Vec<Target>, String> {
    let environment = Environment::from_variables(&[("API_KEY", "s3cret-key"), ("EMPTY", "")]);
    let context = ValueContext::new(folder, &environment);
    let mut list = TargetList::default();
    match file::parse_document(
        &mut list,
        text,
        "webactivity-",
        &TargetDefaults::default(),
        &context,
    ) {
        Ok(()) => Ok(list.into_targets()),
        Err(error) => {
            let (line, column) = file::line_and_column(text.as_bytes(), error.offset);
            Err(format!("{line}:{column}: {}", error.text))
        }
    }
}

fn read(text: &str) -> Result<Vec<Target>, String> {
    read_in(Path::new("/no/such/folder"), text)
}

/// A folder with the files that the example names.
struct TargetsFolder(PathBuf);

impl TargetsFolder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("targets-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let authority = Authority::new("intranet").unwrap();
        let (certificate, key) = authority.client().unwrap();
        for (file, text) in [
            ("api-password", "s3cret-password\n"),
            ("token", "s3cret-token\n"),
            ("intranet-ca.pem", &authority.pem()),
            ("probe.pem", &certificate),
            ("probe.key", &key),
            ("other.key", &authority.client().unwrap().1),
        ] {
            std::fs::write(path.join(file), text).unwrap();
        }
        Self(path)
    }
}

impl Drop for TargetsFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The example file sets every option, and each value is parsed as the file documents it.
#[test]
fn the_example_sets_every_option() {
    let folder = TargetsFolder::new("example");
    let targets = read_in(&folder.0, EXAMPLE).unwrap();
    let written: BTreeSet<_> = EXAMPLE.lines().filter_map(|line| line.split_once(" = ")).collect();
    let is_key = |key: &str| !key.starts_with('#');
    let written: BTreeSet<_> =
        written.iter().map(|(key, _)| *key).filter(|key| is_key(key)).collect();
    assert_eq!(written, OPTIONS.iter().map(|option| option.name).collect());

    let [plain, title, api, intranet, insecure] = &targets[..] else { panic!("{targets:?}") };
    assert_eq!((plain.period, plain.retries), (Duration::from_secs(60), 1));
    assert_eq!(title.name.as_deref(), Some("title"));
    assert_eq!(title.spec.checks.body_match.len(), 2);
    assert_eq!(title.spec.checks.body_not_match[0].as_str(), "(?i)internal server error");

    let (request, checks) = (&api.spec.request, &api.spec.checks);
    assert_eq!(request.method, "POST");
    let headers: Vec<_> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("content-type", "application/json"), ("x-api-key", "s3cret-key")]);
    assert_eq!(request.body.as_ref().unwrap().expose(), "{\"probe\": true}");
    let expected = data_encoding::BASE64.encode(b"probe:s3cret-password");
    assert_eq!(request.authorization.as_ref().unwrap().expose(), format!("Basic {expected}"));
    assert_eq!(checks.status, [200..=200, 202..=204]);
    assert_eq!(checks.header_match[0].0, "content-type");
    assert_eq!(checks.header_not_match[0].1.as_str(), r"\d");
    assert_eq!(checks.json[1], ("/status".to_owned(), "up".into()));
    assert_eq!(checks.latency_max, Some(Duration::from_millis(500)));
    assert_eq!(checks.too_slow, Severity::Failure);
    assert_eq!(checks.certificate_expires_soon, Severity::Warning);

    let spec = &intranet.spec;
    assert_eq!(spec.request.authorization.as_ref().unwrap().expose(), "Bearer s3cret-token");
    assert_eq!(spec.checks.certificate_days_min, Some(14));
    assert!(!spec.follows_redirects);
    assert_eq!((intranet.limits.body_bytes_max, intranet.family), (65_536, Family::V4));
    let servers = ["192.0.2.53:53", "[2001:db8::53]:5353"].map(|text| text.parse().unwrap());
    assert_eq!(spec.name_servers.as_ref().unwrap().as_slice(), servers);
    assert!(spec.proxy.is_some());
    assert!(insecure.spec.tls.as_ref().unwrap().is_insecure());
    assert!(!format!("{targets:?}").contains("s3cret"), "{targets:?}");
}

/// The documented range of an option is the range that its parser enforces.
#[test]
fn documented_values_are_those_of_the_parsers() {
    for option in OPTIONS {
        let TargetOption { name, value, documentation, .. } = option;
        assert!(!documentation.ends_with('.'), "{name}: {documentation}");
        // Texts, secrets and tables have no range.
        if ["a ", "{", "http"].iter().any(|form| value.starts_with(form)) {
            continue;
        }
        let errors = ["1979-05-27", "''", "-1"].map(|invalid| {
            read(&format!("[[target]]\nurl = 'http://a.io'\n{name} = {invalid}")).unwrap_err()
        });
        let expected = format!("expected {value}");
        assert!(errors.iter().any(|error| error.contains(&expected)), "{name}: {errors:?}");
    }
}

#[test]
fn only_url_and_name_are_limited_to_targets() {
    let limited = OPTIONS.iter().filter(|option| !option.place.is_in_defaults());
    assert_eq!(limited.map(|option| option.name).collect::<Vec<_>>(), ["url", "name"]);
}

#[test]
fn targets_with_the_same_options_share_one_spec() {
    let text = "[defaults]\nmatch = 'x'\nretries = 3\n[[target]]\nurl = 'http://a.io'\n[[target]]\n\
                url = 'http://b.io'\nperiod_s = 7\n[[target]]\nurl = 'http://c.io'\nmatch = []";
    let targets = read(text).unwrap();
    assert!(Arc::ptr_eq(&targets[0].spec, &targets[1].spec));
    assert_eq!((targets[1].period, targets[1].retries), (Duration::from_secs(7), 3));
    assert!(targets[2].spec.checks.body_match.is_empty());
    // Targets are equal if all their options are.
    assert_eq!(read(text).unwrap(), targets);
    for (one, other) in [("'x'", "'y'"), ("= 7", "= 8"), ("b.io", "d.io")] {
        assert_ne!(read(&text.replace(one, other)).unwrap(), targets, "{other}");
    }
}

/// The line under test is line 3 of the file, after the line with the URL.
#[test]
fn errors_name_line_column_target_and_option() {
    let folder = TargetsFolder::new("wrong");
    let mut differences = Vec::new();
    for (line, expected) in [
        ("statuss = 200", "3:1: target http://a.io: unknown option statuss: did you mean status?"),
        ("period = 60", "3:1: target http://a.io: unknown option period: did you mean period_s?"),
        (
            "latency = 5",
            "3:1: target http://a.io: unknown option latency: did you mean latency_ms_max?",
        ),
        (
            "cookie = 5",
            "3:1: target http://a.io: unknown option cookie: see scripts/targets.example.toml",
        ),
        (
            "  period_s = 0.5",
            "3:14: target http://a.io: period_s: 0.5 is out of range: expected 1 to 86400 seconds",
        ),
        (
            "timeout_s = '5'",
            "3:13: target http://a.io: timeout_s: a string: expected 0.1 to 300 seconds",
        ),
        ("retries = 11", "3:11: target http://a.io: retries: 11 is out of range: expected 0 to 10"),
        (
            "method = 'BREW'",
            "3:10: target http://a.io: method: \"BREW\": expected one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        ),
        (
            "headers = ['s3cret']",
            "3:11: target http://a.io: headers: an array: expected names and values",
        ),
        (
            "headers = { 'a b' = 's3cret' }",
            "3:13: target http://a.io: headers: \"a b\" is not a header name",
        ),
        (
            "headers = { 'Authorization: s3cret' = '' }",
            "3:13: target http://a.io: headers: \"Authorization\" is not a header name",
        ),
        (
            "headers = { Accept-Encoding = 'gzip;q=1, Br' }",
            "3:31: target http://a.io: headers.Accept-Encoding: \"Br\": expected identity, gzip or deflate",
        ),
        (
            "headers = { Content-Length = '1' }",
            "3:13: target http://a.io: headers: content-length is set by the probe itself",
        ),
        ("headers = { a = '1', A = '2' }", "3:13: target http://a.io: headers: a is set twice"),
        (
            "headers = { a = \"s3cret\\n\" }",
            "3:17: target http://a.io: headers.a: a control character: expected one line of text",
        ),
        (
            "headers = { a = { variable = 'EMPTY' } }",
            "3:17: target http://a.io: headers.a: the variable EMPTY is not set",
        ),
        (
            "headers = { a = { env = 'X' } }",
            "3:19: target http://a.io: headers.a: expected a text, { file = \"...\" } or { variable = \"...\" }",
        ),
        (
            "body = { file = 'none' }",
            "3:8: target http://a.io: body: none: No such file or directory (os error 2)",
        ),
        (
            "basic = { user = 'u' }",
            "3:9: target http://a.io: basic: expected { user = ..., password = ... }",
        ),
        (
            "basic = { user = 'u:s3cret', password = '' }",
            "3:9: target http://a.io: basic: a colon in the user would end it: expected a user without a colon",
        ),
        (
            "bearer = 's3cret s3cret'",
            "3:10: target http://a.io: bearer: expected printable ASCII characters without spaces",
        ),
        (
            "bearer = 't'\nbasic = { user = 'u', password = 'p' }",
            "4:9: target http://a.io: basic: bearer is set too: expected one of the two",
        ),
        (
            "bearer = 't'\nheaders = { authorization = 's3cret' }",
            "4:11: target http://a.io: headers: authorization is already set by basic or bearer",
        ),
        (
            "status = 99",
            "3:10: target http://a.io: status: expected 100 to 999, a range like \"200-299\", or a list",
        ),
        (
            "status = [200, '299-200']",
            "3:16: target http://a.io: status: expected 100 to 999, a range like \"200-299\", or a list",
        ),
        (
            "match = ['a', '(?=b)']",
            "3:15: target http://a.io: match: regexp: look-around, including look-ahead and look-behind, is not supported",
        ),
        (
            "header_match = { a = '(' }",
            "3:22: target http://a.io: header_match.a: regexp: unclosed group",
        ),
        (
            "json = { a = 1 }",
            "3:10: target http://a.io: json: \"a\" is not a JSON pointer: expected /...",
        ),
        ("json = { '/a' = nan }", "3:17: target http://a.io: json./a: JSON has no nan"),
        (
            "method = 'head'\nmatch = 'x'",
            "3:10: target http://a.io: method: the response to HEAD has no body to check",
        ),
        (
            "latency_ms_max = 0",
            "3:18: target http://a.io: latency_ms_max: 0 is out of range: expected 1 to 300000 ms",
        ),
        (
            "too_slow = true",
            "3:12: target http://a.io: too_slow: expected \"failure\" or \"warning\"",
        ),
        (
            "certificate_days_min = 1.5",
            "3:24: target http://a.io: certificate_days_min: a float: expected 1 to 3650 days",
        ),
        (
            "redirects = 'all'",
            "3:13: target http://a.io: redirects: a string: expected 0 to 50, or \"none\"",
        ),
        (
            "body_bytes_max = 0x4000001",
            "3:18: target http://a.io: body_bytes_max: 0x4000001 is out of range: expected 1 to 67108864 bytes",
        ),
        (
            "[[target]]\nip = 'both'\nurl = 'http://127.0.0.1'",
            "4:6: target http://127.0.0.1: ip: the address in the URL is IPv4",
        ),
        (
            "[[target]]\nip = 4\nurl = 'http://[::1]'",
            "4:6: target http://[::1]: ip: the address in the URL is IPv6",
        ),
        ("ip = 5", "3:6: target http://a.io: ip: expected 4, 6, \"both\" or \"any\""),
        (
            "resolver = 'ns.example'",
            "3:12: target http://a.io: resolver: \"ns.example\" is not an ip address: expected up to three of ip, ip:port or [ip]:port, or \"system\"",
        ),
        (
            "proxy = 'socks5://u:s3cret@p'",
            "3:9: target http://a.io: proxy: not a proxy: expected http://[user:password@]host[:port]",
        ),
        (
            "ca = 'none'",
            "3:6: target http://a.io: ca: FOLDER/none: No such file or directory (os error 2)",
        ),
        ("cert = 'probe.pem'", "3:8: target http://a.io: cert: key is missing: expected both"),
        ("key = 'probe.key'", "3:7: target http://a.io: key: cert is missing: expected both"),
        (
            "cert = 'probe.pem'\nkey = 'other.key'",
            "4:7: target http://a.io: key: it does not belong to the certificate",
        ),
        (
            "insecure = 'yes'",
            "3:12: target http://a.io: insecure: a string: expected true or false",
        ),
        ("name = ''", "3:8: target http://a.io: name: expected 1 to 128 characters, in one line"),
        ("name = 'n'\nip = 5", "4:6: target \"n\": ip: expected 4, 6, \"both\" or \"any\""),
        (
            "[[target]]\nurl = 'http://u:s3cret@b.io:0'",
            "4:7: target http://b.io:0: url: port 0 can't be connected to",
        ),
        (
            "[[target]]\nurl = 'u:s3cret@b.io'",
            "4:7: target u:b.io: url: scheme u is neither http nor https",
        ),
        ("[[target]]\nname = 'x'", "3:1: target \"x\": expected url = \"http...\""),
        (
            "[[target]]\nurl = 'http://a.io/#x'",
            "4:7: target http://a.io/#x: the same URL and name are listed twice",
        ),
        (
            "[[target]]\nurl = 'http://a.b'\n[[target]]\nurl = 'http://a_b'",
            "6:7: target http://a_b: domains a.b and a_b would share the name web_activity_a_b in postgresql",
        ),
        ("[default]", "3:2: unknown table default: did you mean defaults?"),
        ("[x]", "3:2: unknown table x: expected defaults or target"),
        (
            "[defaults]\nurl = 'http://a.io'",
            "4:1: defaults: unknown option url: see scripts/targets.example.toml",
        ),
        (
            "[defaults]\nretries = -1",
            "4:11: defaults: retries: -1 is out of range: expected 0 to 10",
        ),
        (
            "retries = s3cret",
            "3:11: not TOML: string values must be quoted, expected literal string",
        ),
        ("retries = 1\nretries = 2", "4:1: not TOML: duplicate key"),
    ] {
        let text = format!("[[target]]\nurl = 'http://a.io'\n{line}");
        let error = read_in(&folder.0, &text).unwrap_err();
        let error = error.replace(folder.0.to_str().unwrap(), "FOLDER");
        if error != expected {
            differences.push(format!("{line}\n  {error}\n  {expected}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    for (text, expected) in [
        ("", "1:1: no [[target]] table"),
        ("[target]\nurl = 'http://a.io'", "1:1: target: a table: expected [[target]]"),
        ("target = [1]", "1:10: target: an array: expected [[target]]"),
        ("defaults = 1", "1:12: defaults: an integer: expected [defaults]"),
    ] {
        assert_eq!(read(text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn limits_are_enforced() {
    let many = |count: usize, line: &str| line.repeat(count);
    let list = format!("[[target]]\nurl = 'http://a.io'\nmatch = [{}]", many(33, "'x',"));
    let expected = "3:9: target http://a.io: match: 33 items: expected at most 32";
    assert_eq!(read(&list).unwrap_err(), expected);
    let body = format!("[[target]]\nurl = 'http://a.io'\nbody = '{}'", many(65_537, "x"));
    let expected = "3:8: target http://a.io: body: 65537 bytes: expected at most 65536";
    assert_eq!(read(&body).unwrap_err(), expected);
    let targets = many(file::TARGETS_MAX + 1, "[[target]]\n");
    let expected = "100001:1: 100001 targets: expected at most 100000";
    assert_eq!(read(&targets).unwrap_err(), expected);
    let deep = format!("x = {}", many(100_000, "["));
    assert!(
        read(&deep).unwrap_err().contains("max recursion depth met"),
        "{}",
        read(&deep).unwrap_err()
    );
}

#[test]
fn errors_name_the_file() {
    let folder = TargetsFolder::new("file");
    let path = folder.0.join("list.toml");
    let add_targets = || {
        let environment = Environment::from_variables(&[]);
        let mut list = TargetList::default();
        let (prefix, defaults) = ("webactivity-", TargetDefaults::default());
        let added = file::add_targets(&mut list, &path, prefix, &defaults, &environment);
        added.map_err(|error| error.to_string().replace(folder.0.to_str().unwrap(), "FOLDER"))
    };
    let missing = "FOLDER/list.toml: No such file or directory (os error 2)";
    assert_eq!(add_targets().unwrap_err(), missing);
    for (text, expected) in [
        (&b"\xff"[..], "FOLDER/list.toml:1:1: not UTF-8"),
        (
            b"# \xc3\xbc \xc3\xbc x = 1\r\n y = 1",
            "FOLDER/list.toml:2:2: unknown table y: expected defaults or target",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(add_targets().unwrap_err(), expected);
    }
    std::fs::write(&path, "[[target]]\nurl = 'http://a.io'\nbearer = { file = 'token' }").unwrap();
    assert_eq!(add_targets(), Ok(()));
}

/// Any file is parsed into targets that respect all limits, or rejected with line and column.
#[test]
fn fuzzed_files_are_parsed_or_rejected() {
    let folder = TargetsFolder::new("fuzz");
    let samples = [
        EXAMPLE.as_bytes().to_vec(),
        b"[defaults]\nip = 4\n[[target]]\nurl = 'http://a.io'\nheaders = { a = '\xc3\xbc' }"
            .to_vec(),
    ];
    let inputs = testkit::fuzz::run(&samples, |bytes| {
        match read_in(&folder.0, &String::from_utf8_lossy(bytes)) {
            Err(error) => {
                let mut place = error.split(':').map(str::parse::<usize>);
                assert!(place.next().unwrap().is_ok() && place.next().unwrap().is_ok(), "{error}");
            }
            Ok(targets) => {
                assert!(!targets.is_empty());
                for target in targets {
                    assert!(target.recorded_url.chars().count() <= URL_CHARS_MAX);
                    assert!(target.topic.len() <= 249);
                    assert!(PERIODS.contains(&target.period));
                    assert!(TIMEOUTS.contains(&target.limits.timeout));
                }
            }
        }
    });
    println!("file of targets: {inputs} inputs");
}
