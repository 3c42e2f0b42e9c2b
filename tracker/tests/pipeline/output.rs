//! Results on standard output, without Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use testkit::dns::{Behaviour, DnsServer, QueryType};
use testkit::program::Program;
use testkit::sites::{Site, Step, status_response};

use crate::{TIMEOUT, hello_site, run, tracker};

#[test]
fn once_probes_each_target_and_exits_with_the_result() {
    let site = hello_site();
    let good = run(&["--once", "-w", &format!("{site} h.llo")], &[("LOCATION", "Oslo")]);
    assert_eq!((good.status.code(), good.log.as_slice()), (Some(0), &[][..]));
    assert_eq!(good.stdout.lines().count(), 1);
    assert!(good.stdout.contains(&format!("up   {site} (h.llo) ok")), "{}", good.stdout);

    let websites = format!("{site},{site} bye,http://nothing.invalid/");
    let bad = run(&["--once", "--json"], &[("LOCATION", "Oslo"), ("WEBSITES", &websites)]);
    assert_eq!(bad.status.code(), Some(1));
    let mut lines: Vec<serde_json::Value> =
        bad.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["phrase"].to_string());
    let of = |line: &serde_json::Value| {
        ["from", "url", "status", "phrase", "detail", "healthy", "reason", "phase", "http_status"]
            .map(|key| line[key].clone())
    };
    let expected = serde_json::json!([
        [
            "oslo",
            "http://nothing.invalid/",
            "unresponsive",
            "domain not exist",
            null,
            false,
            "dns_no_such_domain",
            "resolve",
            null
        ],
        ["oslo", site, "responsive", "ok", null, true, null, null, 200],
        [
            "oslo",
            site,
            "responsive",
            "page content not expected",
            "bye",
            false,
            "body_not_expected",
            "check",
            200
        ],
    ]);
    assert_eq!(serde_json::json!(lines.iter().map(of).collect::<Vec<_>>()), expected);
    let good = &lines[1];
    let facts = ["address", "http_version", "body_bytes", "redirects"].map(|key| &good[key]);
    assert_eq!(serde_json::json!(facts), serde_json::json!(["127.0.0.1", "1.1", 5, 0]));
    let phases = ["resolve_us", "connect_us", "first_byte_us", "transfer_us"];
    let sum: i64 = phases.iter().map(|key| good[key].as_i64().unwrap()).sum();
    assert!(sum <= good["total_us"].as_i64().unwrap(), "{good}");
    assert!(["tls_us", "final_url", "certificate_end"].iter().all(|key| good[key].is_null()));
}

/// The phrase of a healthy answer need not be `ok`.
#[test]
fn a_status_below_400_is_healthy() {
    let site = Site::http(|_| vec![Step::Send(status_response(204))]).unwrap();
    let ended = run(&["--once", "-w", &format!("http://127.0.0.1:{}/", site.port())], &[]);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stdout);
    assert!(ended.stdout.contains(" up   "), "{}", ended.stdout);
}

#[test]
fn given_roots_replace_the_roots_of_the_machine() {
    let authority = testkit::certificates::Authority::new("trusted").unwrap();
    let config =
        authority.server(&["127.0.0.1"], testkit::certificates::CertificateValidity::Now).unwrap();
    let site = Site::https(config, |_| vec![Step::Send(status_response(200))]).unwrap();
    let url = format!("https://127.0.0.1:{}/", site.port());
    let pem = authority.pem();
    let empty = ("SSL_CERT_FILE", "/dev/null");
    let unknown = "tls_unknown_issuer: certificate of an unknown issuer";
    let none = "tls_unknown_issuer: no root certificates on this machine";
    for (variables, expected) in [
        ([("ROOTS", pem.as_str()), empty], " ok "),
        ([("ROOTS", "mozilla"), empty], unknown),
        ([("ROOTS", "system"), empty], none),
        // No other roots are trusted.
        ([("ROOTS", ""), empty], none),
    ] {
        let ended = run(&["--once", "--retries", "0", "-w", &url], &variables);
        assert!(ended.stdout.contains(expected), "{expected}: {}", ended.stdout);
    }
}

/// RESOLVER and DNS_CACHE reach the prober.
#[test]
fn given_name_servers_are_asked_and_answers_are_cached_if_configured() {
    let addresses =
        |all: &[&str]| Behaviour::Addresses(all.iter().map(|a| a.parse().unwrap()).collect());
    let server = DnsServer::start(&[
        ("site.example", QueryType::A, addresses(&["127.0.0.1"])),
        ("site.example", QueryType::Aaaa, Behaviour::WithSoa(60, 60, Box::new(Behaviour::NoData))),
    ])
    .unwrap();
    let site = hello_site().replace("127.0.0.1", "site.example");
    let resolver = server.address().to_string();
    let by_flag = run(&["--once", "-w", &site, "--resolver", &resolver], &[]);
    assert!(by_flag.stdout.contains(&format!("up   {site} ok")), "{}", by_flag.stdout);
    assert_eq!(server.queried_names().len(), 2);
    let variables = [("WEBSITES", "http://other.example/"), ("RESOLVER", &resolver)];
    let by_variable = run(&["--once", "--resolver", "127.0.0.1:1"], &variables);
    assert!(by_variable.stdout.contains("domain not exist"), "{}", by_variable.stdout);
    // A redirect to the same host looks the name up a second time.
    let site = Site::http(|path| {
        let location = "HTTP/1.1 302 Found\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n";
        let is_first = path == "/";
        vec![Step::Send(if is_first { location.into() } else { status_response(200) })]
    });
    let site = site.unwrap();
    let url = format!("http://site.example:{}/", site.port());
    for (cache, questions) in [("false", 4), ("true", 2)] {
        let before = server.queried_names().len();
        let variables = [("DNS_CACHE", cache), ("RESOLVER", &resolver), ("WEBSITES", &url)];
        let ended = run(&["--once"], &variables);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stdout);
        assert_eq!(server.queried_names().len() - before, questions, "DNS_CACHE={cache}");
    }
}

#[test]
fn no_log_level_shows_a_password() {
    let site = hello_site().replace("//", "//user:s3cret@");
    for level in ["trace", "ureq_proto=trace", "ureq_proto::util=trace"] {
        let ended = run(&["--once", "-w", &site], &[("RUST_LOG", level)]);
        let log = ended.log.join("\n").to_lowercase();
        assert!(level != "trace" || log.contains("ureq::run] get http://127"), "{log}");
        // At trace level libraries dump bytes of the connection.
        for secret in ["s3cret", "basic dxnlcjpz", "ureq_proto::util]"] {
            assert!(!log.contains(secret), "{level}: {log}");
        }
        assert_eq!(ended.status.code(), Some(0));
    }
}

#[test]
fn targets_are_probed_on_their_period_until_a_stop() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let site = Site::http(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        vec![Step::Send(status_response(200))]
    })
    .unwrap();
    let url = format!("http://127.0.0.1:{}/", site.port());
    let start = Instant::now();
    let tracker = tracker(&["--json", "-p", "1", "-w", &url], &[]);
    tracker.wait_for_line("1 target, period 1s", TIMEOUT).unwrap();
    // A result may be under way when the signal arrives.
    while asked.load(Ordering::Relaxed) < 3 {
        assert!(start.elapsed() < TIMEOUT, "asked {asked:?} times");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    let ended = tracker.stop(TIMEOUT).unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let count = ended.stdout.lines().count();
    let elapsed_s = usize::try_from(start.elapsed().as_secs()).unwrap();
    assert!((2..=elapsed_s + 1).contains(&count), "{count} results in {elapsed_s} s");
}

#[test]
fn a_low_limit_on_open_files_makes_no_site_look_down() {
    let pause = Step::Wait(std::time::Duration::from_millis(300));
    let site = Site::http(move |_| vec![pause.clone(), Step::Send(status_response(200))]).unwrap();
    let url = |index| format!("http://127.0.0.1:{}/{index}", site.port());
    let websites = (0..150).map(url).collect::<Vec<_>>().join(",");
    for (limit, warnings) in [("ulimit -Sn 100", 0), ("ulimit -n 100", 1)] {
        let script = format!("{limit}; exec \"$0\" \"$@\"");
        let program = env!("CARGO_BIN_EXE_tracker");
        let arguments = ["-c", &script, program, "--once", "-w", &websites];
        let ended = Program::start("/bin/sh", &arguments, &[]).unwrap().wait(TIMEOUT).unwrap();
        assert_eq!(ended.status.code(), Some(0), "{limit}: {}", ended.stdout);
        assert_eq!(ended.stdout.lines().count(), 150);
        assert_eq!(ended.log.len(), warnings, "{limit}: {:?}", ended.log);
    }
}

/// No process reads the output, and a probe takes longer than a stop may take.
#[test]
fn a_blocked_output_does_not_delay_a_stop() {
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let site = hello_site();
    let sites: Vec<_> = (0..400).map(|index| format!("{site}?{index:0>200}")).collect();
    let websites = format!("{},http://{}/", sites.join(","), hanging.local_addr().unwrap());
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_tracker"))
        .args(["--json", "-p", "1", "-t", "60", "-w", &websites])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let probed = hanging.accept().unwrap();
    // A pipe holds 64 KiB; one round of probes writes more.
    std::thread::park_timeout(std::time::Duration::from_secs(2));
    let start = Instant::now();
    assert!(testkit::program::send_signal("TERM", child.id()));
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let took = start.elapsed().as_secs_f64();
    assert!((5.0..8.5).contains(&took), "{took} s");
    drop(probed);
}
