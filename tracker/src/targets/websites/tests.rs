use common::domain;

use super::super::url::URL_CHARS_MAX;
use super::*;

fn parse(list: &str, topic_prefix: &str) -> Result<Vec<Target>, WebsitesError> {
    parse_websites(list, topic_prefix, &TargetDefaults::default())
}

fn urls_and_names(list: &str) -> Vec<(String, Option<String>)> {
    parse(list, domain::TOPIC_PREFIX)
        .unwrap()
        .into_iter()
        .map(|target| (target.recorded_url, target.name))
        .collect()
}

#[test]
fn the_example_of_version_1_1_0_is_parsed() {
    assert_eq!(
        urls_and_names(r"https://aiven.io <svg\s+,https://www.google.com"),
        [
            ("https://aiven.io".to_owned(), Some(r"<svg\s+".to_owned())),
            ("https://www.google.com".to_owned(), None),
        ]
    );
}

#[test]
fn a_regexp_may_contain_spaces_and_commas() {
    for (entry, regexp) in [
        (r"http://a.io  <h1>Hello  World</h1> ", r"<h1>Hello  World</h1>"),
        (r"http://a.io x{1\,3}", "x{1,3}"),
        (r"http://a.io \d\\", r"\d\\"),
        (r"http://a.io htt?p", "htt?p"),
    ] {
        let expected = [("http://a.io".to_owned(), Some(regexp.to_owned()))];
        assert_eq!(urls_and_names(entry), expected, "{entry}");
        assert_eq!(urls_and_names(&format!("{entry},http://b.io"))[..1], expected, "{entry}");
    }
}

#[test]
fn the_same_url_may_have_several_regexps() {
    assert_eq!(urls_and_names("http://a.io x, http://a.io y,\nhttp://a.io,").len(), 3);
}

#[test]
fn a_target_is_requested_as_written_and_recorded_without_secrets() {
    let list = "https://User:Pass@Bücher.example:8443/A%20b?Q=1#top";
    let target = &parse(list, "webactiviity-").unwrap()[0];
    let requested = "https://User:Pass@xn--bcher-kva.example:8443/A%20b?Q=1";
    assert_eq!(target.url.as_str(), requested);
    assert_eq!(target.recorded_url, "https://bücher.example:8443/a%20b?q=1#top");
    assert_eq!(target.topic, "webactiviity-xn--bcher-kva.example");
}

#[test]
fn a_password_is_not_shown_however_the_url_is_written() {
    for (list, expected) in [
        ("http:u:s3cret@a.io/x", "http:a.io/x"),
        ("http:/u:s3cret@a.io/x", "http:/a.io/x"),
        (r"https:///u:s3c@ret@a.io\x@y", r"https:///a.io\x@y"),
        ("http://a.io/x@y", "http://a.io/x@y"),
    ] {
        let target = parse(list, domain::TOPIC_PREFIX).unwrap().remove(0);
        assert_eq!((target.url.host_str(), &*target.recorded_url), (Some("a.io"), expected));
        assert!(!format!("{target:?}").contains("s3c"), "{target:?}");
    }
    for list in [
        "u:s3cret@a.io",
        "//u:s3cret@a.io",
        "http://u:s3cret/x@a.io",
        "http://u:s3cret,x@a.io",
        "http://u:s3cret x@a.io",
    ] {
        let error = parse(list, domain::TOPIC_PREFIX).unwrap_err().to_string();
        assert!(error.starts_with("entry 1 (") && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn errors_name_the_entry_and_the_cause() {
    let long = format!("http://a.io/{}", "x".repeat(245));
    for (list, expected) in [
        ("", "it contains no URL"),
        (" , ", "it contains no URL"),
        (
            "http://a.io x{1,3}",
            "entry 1 (http://a.io): regexp: unclosed counted repetition \
             (a comma inside a regexp is written \\,)",
        ),
        (
            "http://a.io,aiven.io",
            "entry 2 (aiven.io): relative URL without a base \
             (a comma inside a regexp is written \\,)",
        ),
        ("ftp://a.io", "entry 1 (ftp://a.io): scheme ftp is neither http nor https"),
        ("http://a.io:0", "entry 1 (http://a.io:0): port 0 can't be connected to"),
        (
            "http://a.io x,http://u:s3cret@a.io,http://a.io x",
            "entry 3 (http://a.io): the same URL and regexp are listed twice",
        ),
        (
            "http://a.io (?=x)",
            "entry 1 (http://a.io): regexp: look-around, including look-ahead and \
             look-behind, is not supported",
        ),
        (r"http://a.io (x)\1", "entry 1 (http://a.io): regexp: backreferences are not supported"),
        (
            "http://a.b,http://a_b",
            "entry 2 (http://a_b): domains a.b and a_b would share the name web_activity_a_b in postgresql",
        ),
    ] {
        let error = parse(list, domain::TOPIC_PREFIX).unwrap_err().to_string();
        assert_eq!(error, expected, "{list}");
    }
    let error = parse(&long, domain::TOPIC_PREFIX).unwrap_err().to_string();
    assert!(error.ends_with(": 257 characters: the URL column of the tables holds 256"), "{error}");
}

#[test]
fn the_phase_depends_on_location_url_and_regexp() {
    let targets = parse("http://a.io x,http://a.io y", domain::TOPIC_PREFIX).unwrap();
    let [first, second] = [&targets[0], &targets[1]];
    assert_eq!(first.phase_hash("oslo"), first.phase_hash("oslo"));
    assert_ne!(first.phase_hash("oslo"), first.phase_hash("rome"));
    assert_ne!(first.phase_hash("oslo"), second.phase_hash("oslo"));
}

/// Any list is parsed into targets whose URLs and topics fit the tables, or rejected.
#[test]
fn fuzzed_lists_are_parsed_or_rejected() {
    let longest = format!("http://a.io/{}", "x".repeat(URL_CHARS_MAX - 12));
    let mut samples: Vec<Vec<u8>> = [
        r"https://aiven.io <svg\s+,https://www.google.com",
        r"http://u:s3cret@a.io x{1\,3},http://b\u{fc}cher.example:81/A?q#f \d\\,ftp://x",
    ]
    .map(Into::into)
    .into();
    samples.push(longest.into());
    let inputs = testkit::fuzz::run(&samples, |bytes| {
        let Ok(targets) = parse(&String::from_utf8_lossy(bytes), domain::TOPIC_PREFIX) else {
            return;
        };
        assert!(!targets.is_empty());
        for target in targets {
            assert!(target.recorded_url.chars().count() <= URL_CHARS_MAX);
            assert!(target.topic.len() <= 249);
            assert!(matches!(target.url.scheme(), "http" | "https"));
        }
    });
    println!("targets: {inputs} inputs");
}
