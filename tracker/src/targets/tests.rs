//! The file of targets: what it can say, and what is said of one that can't be used.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::settings::Environment;
use testkit::certificates::Authority;

use super::options::{KEYS, Sources};
use super::*;
use crate::probe::Family;
use crate::probe::reason::Severity;

const EXAMPLE: &str = include_str!("../../../scripts/targets.example.toml");

fn read_in(folder: &Path, text: &str) -> Result<Vec<Target>, String> {
    let environment = Environment::from_variables(&[("API_KEY", "s3cret-key"), ("EMPTY", "")]);
    let sources = Sources::new(folder, &environment);
    let mut list = List::default();
    match file::parse(&mut list, text, "webactivity-", &Defaults::default(), &sources) {
        Ok(()) => Ok(list.targets()),
        Err(problem) => {
            let (line, column) = file::place(text.as_bytes(), problem.at);
            Err(format!("{line}:{column}: {}", problem.text))
        }
    }
}

fn read(text: &str) -> Result<Vec<Target>, String> {
    read_in(Path::new("/no/such/folder"), text)
}

/// A folder with the files that the example names.
struct Folder(PathBuf);

impl Folder {
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

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Goes red when a key is left out of the example, or one of its is read wrongly.
#[test]
fn the_example_names_every_key_and_says_what_it_does() {
    let folder = Folder::new("example");
    let targets = read_in(&folder.0, EXAMPLE).unwrap();
    let written: BTreeSet<_> = EXAMPLE.lines().filter_map(|line| line.split_once(" = ")).collect();
    let is_key = |key: &str| !key.starts_with('#');
    let written: BTreeSet<_> =
        written.iter().map(|(key, _)| *key).filter(|key| is_key(key)).collect();
    assert_eq!(written, KEYS.iter().map(|(key, _)| *key).collect());

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
    assert_eq!(spec.servers.as_ref().unwrap().as_slice(), servers);
    assert!(spec.proxy.is_some());
    assert!(insecure.spec.trust.as_ref().unwrap().insecure());
    assert!(!format!("{targets:?}").contains("s3cret"), "{targets:?}");
}

#[test]
fn what_targets_have_in_common_is_there_once() {
    let text = "[defaults]\nmatch = 'x'\nretries = 3\n[[target]]\nurl = 'http://a.io'\n[[target]]\n\
                url = 'http://b.io'\nperiod_s = 7\n[[target]]\nurl = 'http://c.io'\nmatch = []";
    let targets = read(text).unwrap();
    assert!(Arc::ptr_eq(&targets[0].spec, &targets[1].spec));
    assert_eq!((targets[1].period, targets[1].retries), (Duration::from_secs(7), 3));
    assert!(targets[2].spec.checks.body_match.is_empty());
    // What makes a target another one, and what does not.
    assert_eq!(read(text).unwrap(), targets);
    for (one, other) in [("'x'", "'y'"), ("= 7", "= 8"), ("b.io", "d.io")] {
        assert_ne!(read(&text.replace(one, other)).unwrap(), targets, "{other}");
    }
}

/// Whatever follows the line with the URL stands in line 3.
#[test]
fn what_is_wrong_is_named_with_its_place() {
    let folder = Folder::new("wrong");
    let mut wrong = Vec::new();
    for (line, expected) in [
        ("statuss = 200", "3:1: target http://a.io: there is no key statuss: expected status?"),
        ("period = 60", "3:1: target http://a.io: there is no key period: expected period_s?"),
        (
            "latency = 5",
            "3:1: target http://a.io: there is no key latency: expected latency_ms_max?",
        ),
        (
            "cookie = 5",
            "3:1: target http://a.io: there is no key cookie: see scripts/targets.example.toml",
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
            "3:13: target http://a.io: headers: \"a b\" is no header's name",
        ),
        (
            "headers = { 'Authorization: s3cret' = '' }",
            "3:13: target http://a.io: headers: \"Authorization\" is no header's name",
        ),
        (
            "headers = { Accept-Encoding = 'gzip;q=1, Br' }",
            "3:31: target http://a.io: headers.Accept-Encoding: \"Br\": expected identity, gzip or deflate",
        ),
        (
            "headers = { Content-Length = '1' }",
            "3:13: target http://a.io: headers: content-length is set by the probe itself",
        ),
        (
            "headers = { a = '1', A = '2' }",
            "3:13: target http://a.io: headers: a stands there twice",
        ),
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
            "3:9: target http://a.io: basic: a user with a colon, which would begin the password",
        ),
        (
            "bearer = 's3cret s3cret'",
            "3:10: target http://a.io: bearer: expected letters, digits and signs, without spaces",
        ),
        (
            "bearer = 't'\nbasic = { user = 'u', password = 'p' }",
            "4:9: target http://a.io: basic: expected it or bearer, not both",
        ),
        (
            "bearer = 't'\nheaders = { authorization = 's3cret' }",
            "4:11: target http://a.io: headers: authorization is what basic and bearer set",
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
            "3:10: target http://a.io: json: \"a\" is no JSON pointer: expected /...",
        ),
        ("json = { '/a' = nan }", "3:17: target http://a.io: json./a: json has no nan"),
        (
            "method = 'head'\nmatch = 'x'",
            "3:10: target http://a.io: method: an answer to HEAD has no body to look at",
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
            "4:6: target http://127.0.0.1: ip: the url's address is one of IPv4 alone",
        ),
        (
            "[[target]]\nip = 4\nurl = 'http://[::1]'",
            "4:6: target http://[::1]: ip: the url's address is one of IPv6 alone",
        ),
        ("ip = 5", "3:6: target http://a.io: ip: expected 4, 6, \"both\" or \"any\""),
        (
            "resolver = 'ns.example'",
            "3:12: target http://a.io: resolver: \"ns.example\" is no ip address: expected up to three of ip, ip:port or [ip]:port, or \"system\"",
        ),
        (
            "proxy = 'socks5://u:s3cret@p'",
            "3:9: target http://a.io: proxy: no proxy: expected http://[user:password@]host[:port]",
        ),
        (
            "ca = 'none'",
            "3:6: target http://a.io: ca: FOLDER/none: No such file or directory (os error 2)",
        ),
        ("cert = 'probe.pem'", "3:8: target http://a.io: cert: expected key too"),
        ("key = 'probe.key'", "3:7: target http://a.io: key: expected cert too"),
        (
            "cert = 'probe.pem'\nkey = 'other.key'",
            "4:7: target http://a.io: key: it is not the certificate's",
        ),
        (
            "insecure = 'yes'",
            "3:12: target http://a.io: insecure: a string: expected true or false",
        ),
        ("name = ''", "3:8: target http://a.io: name: expected 1 to 128 characters, in one line"),
        ("name = 'n'\nip = 5", "4:6: target \"n\": ip: expected 4, 6, \"both\" or \"any\""),
        (
            "[[target]]\nurl = 'http://u:s3cret@b.io:0'",
            "4:7: target http://b.io:0: url: nothing listens on port 0",
        ),
        (
            "[[target]]\nurl = 'u:s3cret@b.io'",
            "4:7: target u:b.io: url: scheme u is neither http nor https",
        ),
        ("[[target]]\nname = 'x'", "3:1: target \"x\": expected url = \"http...\""),
        (
            "[[target]]\nurl = 'http://a.io/#x'",
            "4:7: target http://a.io/#x: the same url and name stand there twice",
        ),
        (
            "[[target]]\nurl = 'http://a.b'\n[[target]]\nurl = 'http://a_b'",
            "6:7: target http://a_b: domains a.b and a_b would share the name web_activity_a_b in postgresql",
        ),
        ("[default]", "3:2: there is no table default: expected defaults"),
        ("[x]", "3:2: there is no table x: expected defaults and target"),
        (
            "[defaults]\nurl = 'http://a.io'",
            "4:1: defaults: there is no key url: see scripts/targets.example.toml",
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
            wrong.push(format!("{line}\n  {error}\n  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (text, expected) in [
        ("", "1:1: no [[target]] in it"),
        ("[target]\nurl = 'http://a.io'", "1:1: target: a table: expected [[target]]"),
        ("target = [1]", "1:10: target: an array: expected [[target]]"),
        ("defaults = 1", "1:12: defaults: an integer: expected [defaults]"),
    ] {
        assert_eq!(read(text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn bounds_are_kept() {
    let many = |count: usize, line: &str| line.repeat(count);
    let list = format!("[[target]]\nurl = 'http://a.io'\nmatch = [{}]", many(33, "'x',"));
    let expected = "3:9: target http://a.io: match: 33 of them: expected at most 32";
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
    let folder = Folder::new("file");
    let path = folder.0.join("list.toml");
    let add = || {
        let environment = Environment::from_variables(&[]);
        let mut list = List::default();
        let (prefix, defaults) = ("webactivity-", Defaults::default());
        let added = file::add(&mut list, &path, prefix, &defaults, &environment);
        added.map_err(|error| error.to_string().replace(folder.0.to_str().unwrap(), "FOLDER"))
    };
    let missing = "FOLDER/list.toml: No such file or directory (os error 2)";
    assert_eq!(add().unwrap_err(), missing);
    for (text, expected) in [
        (&b"\xff"[..], "FOLDER/list.toml:1:1: not utf-8"),
        (
            b"# \xc3\xbc \xc3\xbc x = 1\r\n y = 1",
            "FOLDER/list.toml:2:2: there is no table y: expected defaults and target",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(add().unwrap_err(), expected);
    }
    std::fs::write(&path, "[[target]]\nurl = 'http://a.io'\nbearer = { file = 'token' }").unwrap();
    assert_eq!(add(), Ok(()));
}

/// Goes red when `place` slices within a character, or a bound is not looked at.
#[test]
fn fuzzed_files_are_targets_that_fit_or_an_error_with_its_place() {
    let folder = Folder::new("fuzz");
    let samples = [
        EXAMPLE.as_bytes().to_vec(),
        b"[defaults]\nip = 4\n[[target]]\nurl = 'http://a.io'\nheaders = { a = '\xc3\xbc' }"
            .to_vec(),
    ];
    let tried = testkit::fuzz::run(&samples, |bytes| {
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
    println!("file of targets: {tried} inputs");
}
