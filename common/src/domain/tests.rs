use std::collections::HashMap;

use super::*;

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

#[test]
fn domain_of_a_url_is_its_host_name() {
    for (url, expected) in [
        ("https://AIVEN.io", "aiven.io"),
        ("https://user:secret@www.google.com:8443/path?q#f", "www.google.com"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("http://complete.example./", "complete.example"),
        ("http://127.0.0.1:80/", "127.0.0.1"),
        ("http://[::1]:8080/", "--1"),
        ("http://[2001:DB8::a]/", "2001-db8--a"),
        ("http://under_score.example", "under_score.example"),
    ] {
        let url = Url::parse(url).unwrap();
        assert_eq!(Domain::from_url(&url).unwrap().as_str(), expected, "{url}");
    }
    let odd = Url::parse("http://a(b.example/").unwrap();
    assert!(Domain::from_url(&odd).is_err());
    for empty in ["http://a..b/", "http://a.b../", "http://.a/", "http://./"] {
        let url = Url::parse(empty).unwrap();
        assert!(Domain::from_url(&url).is_err(), "{empty}");
    }
}

#[test]
fn domain_can_be_written_in_several_ways() {
    for (text, expected) in [
        ("Aiven.io", "aiven.io"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("XN--bcher-kva.example", "xn--bcher-kva.example"),
        ("[::1]", "--1"),
        ("--1", "--1"),
        ("2001-db8--A", "2001-db8--a"),
        ("1-2-3-4-5-6-7-8", "1-2-3-4-5-6-7-8"),
        ("a--b.example", "a--b.example"),
    ] {
        assert_eq!(domain(text).as_str(), expected, "{text}");
    }
    for (text, message) in [
        ("", "\"\" is not a host name: expected letters, digits, dots, hyphens, underscores"),
        (
            "https://aiven.io",
            "\"https://aiven.io\" is not a host name: expected letters, digits, dots, hyphens, underscores",
        ),
        ("aiven.io:443", "\"aiven.io:443\" has a port: expected the host name alone"),
        ("aiven.io:80", "\"aiven.io:80\" has a port: expected the host name alone"),
    ] {
        assert_eq!(Domain::parse(text).unwrap_err().to_string(), message);
    }
}

#[test]
fn names_equal_those_of_1_1_0() {
    let aiven = domain("aiven.io");
    assert_eq!(aiven.topic(TOPIC_PREFIX).unwrap(), "webactivity-aiven.io");
    assert_eq!(aiven.table(), "web_activity_aiven_io");
    assert_eq!(aiven.url_index(), "web_activity_url_index_aiven_io");
}

#[test]
fn long_names_are_shortened_and_stay_distinct() {
    let long = |end: &str| domain(&format!("{}.{end}", "a".repeat(60)));
    let table = long("one").table();
    assert_eq!(table.len(), 63);
    assert_eq!(table, format!("web_activity_{}_8ac979fe314b584d", "a".repeat(33)));
    assert_ne!(table, long("two").table());
    assert_eq!(long("one").url_index().len(), 63);
    let fits = domain(&"b".repeat(50));
    assert_eq!(fits.table(), format!("web_activity_{}", "b".repeat(50)));
    let topic = domain(&format!("{0}.{0}.{0}.{0}", "c".repeat(60))).topic(TOPIC_PREFIX);
    assert_eq!(
        topic.unwrap_err().to_string().split("would").last().unwrap(),
        " have 255 bytes: expected at most 249"
    );
}

#[test]
fn domains_that_would_share_a_name_are_refused() {
    let refused = |one: &str, other: &str| {
        check_shared_names(&[domain(one), domain(other)]).map_err(|error| error.to_string())
    };
    assert_eq!(
        refused("a.b", "a_b").unwrap_err(),
        "domains a.b and a_b would share the name web_activity_a_b in postgresql"
    );
    assert_eq!(
        refused("b.c", "url.index.b.c").unwrap_err(),
        "domains b.c and url.index.b.c would share the name web_activity_url_index_b_c in postgresql"
    );
    assert!(refused("b.c.pkey", "b.c").is_err());
    assert_eq!(refused("a.b", "a-b"), Ok(()));
    assert_eq!(refused("a.b", "a.b"), Ok(()));
}

#[test]
fn prefix_is_checked() {
    assert_eq!(parse_topic_prefix("webactiviity-").unwrap(), TOPIC_PREFIX_OF_1_1_0);
    assert!(parse_topic_prefix("").is_err());
    assert!(parse_topic_prefix("a b").is_err());
}

/// Random host names: short ones, which collide, and long ones, which are shortened, with dots,
/// underscores, hyphens, and the suffixes that PostgreSQL appends to names.
fn any_host(random: &mut fastrand::Rng) -> String {
    const PARTS: [&str; 12] =
        ["a", "b", "A", "url", "index", "pkey", "id", "seq", "xn--bcher-kva", "1", "a--b", "x9"];
    let long = random.u8(0..4) == 0;
    let count = if long { random.usize(1..70) } else { random.usize(1..5) };
    let mut host = String::new();
    for index in 0..count {
        if index > 0 {
            host.push(random.choice(['.', '_', '-']).unwrap_or('.'));
        }
        host.push_str(random.choice(PARTS).unwrap_or("a"));
    }
    host
}

/// A host name that is likely to share a name with `host`: with a suffix of PostgreSQL, or with
/// other separators.
fn similar_host(random: &mut fastrand::Rng, host: &str) -> String {
    match random.u8(0..6) {
        0 => format!("url.index.{host}"),
        1 => format!("{host}.pkey"),
        2 => format!("{host}.id.seq"),
        3 => host.replace('.', "_"),
        4 => host.replace(['.', '_'], "-"),
        _ => format!("{host}.a"),
    }
}

/// For any domain, the names have only allowed characters and lengths, and the domain is the same
/// whether it comes from a URL or from a user.
#[test]
fn names_are_within_the_limits_of_kafka_and_postgresql() {
    let mut refused = 0;
    for seed in 0..5_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let host = any_host(&mut random);
        let Ok(url) = Url::parse(&format!("http://user:pw@{host}:81/path")) else {
            refused += 1;
            continue;
        };
        let domain = Domain::from_url(&url).unwrap();
        assert_eq!(Domain::parse(&host), Ok(domain.clone()), "{host}");
        assert_eq!(Domain::parse(domain.as_str()), Ok(domain.clone()), "{host}");
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        for relation in domain.relation_names() {
            assert!(relation.bytes().all(|byte| fits(byte) && byte != b'.'), "{relation}");
        }
        assert!(domain.table().len() <= 63 && domain.url_index().len() <= 63, "{host}");
        match domain.topic(TOPIC_PREFIX) {
            Ok(topic) => {
                assert!(topic.len() <= 249 && topic.bytes().all(fits), "{topic}");
                assert_eq!(topic.strip_prefix(TOPIC_PREFIX), Some(domain.as_str()));
            }
            Err(error) => assert!(domain.as_str().len() > 237, "{error}"),
        }
    }
    assert!(refused < 5_000, "{refused}");
}

/// Accepted domains share no table, index, primary key or sequence.
#[test]
fn accepted_domains_share_no_name() {
    let mut accepted = 0;
    for seed in 0..5_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut hosts: Vec<_> = (0..random.usize(1..4)).map(|_| any_host(&mut random)).collect();
        let other = similar_host(&mut random, &hosts[0]);
        hosts.push(other);
        random.shuffle(&mut hosts);
        let domains: Vec<_> = hosts.iter().filter_map(|host| Domain::parse(host).ok()).collect();
        if check_shared_names(&domains).is_err() {
            continue;
        }
        accepted += 1;
        let mut owners: HashMap<String, &Domain> = HashMap::new();
        for domain in &domains {
            let table = domain.table();
            let made_by_postgresql = [format!("{table}_pkey"), format!("{table}_id_seq")];
            for name in [table, domain.url_index()].into_iter().chain(made_by_postgresql) {
                let owner = owners.entry(name.clone()).or_insert(domain);
                assert_eq!(*owner, domain, "{name}");
            }
        }
    }
    assert!(accepted > 1_000, "{accepted}");
}

/// Parsing a parsed domain again gives the same domain.
#[test]
fn fuzzed_texts_are_a_stable_domain_or_an_error() {
    let samples: Vec<Vec<u8>> =
        ["Aiven.io", "b\u{fc}cher.example", "[2001:db8::a]", "a_b--c.x."].map(Into::into).into();
    let tried = testkit::fuzz::run(&samples, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(domain) = Domain::parse(&text) {
            assert_eq!(Domain::parse(domain.as_str()), Ok(domain));
        }
        if let Ok(url) = Url::parse(&format!("https://{text}/"))
            && let Ok(domain) = Domain::from_url(&url)
        {
            assert_eq!(Domain::parse(domain.as_str()), Ok(domain), "{url}");
        }
    });
    println!("domain: {tried} inputs");
}
