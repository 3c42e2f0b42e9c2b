use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use testkit::sites::{RefusingPort, Site, Step, status_response};

use super::*;
use crate::probe::Roots;
use crate::probe::net::resolver::ResolverConfig;
use crate::targets::{TargetDefaults, parse_websites};

fn prober() -> Prober {
    Prober::new(ResolverConfig::default(), &Roots::Custom(vec![])).unwrap()
}

fn target(url: &str, retries: u32) -> Target {
    let defaults = TargetDefaults { retries, ..TargetDefaults::default() };
    parse_websites(url, "x-", &defaults).unwrap().remove(0)
}

/// A site that responds with these statuses first, and then with 200. The counter counts requests.
fn site(statuses: &'static [u16]) -> (Site, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let site = Site::http(move |_| {
        let index = count.fetch_add(1, Ordering::SeqCst);
        vec![Step::Send(status_response(statuses.get(index).copied().unwrap_or(200)))]
    });
    (site.unwrap(), requests)
}

#[test]
fn a_failure_is_confirmed_after_the_pause_and_its_first_reason_reported() {
    let (_stopper, stop) = common::stop::pair();
    let prober = prober();
    let case = |statuses, retries, attempts: u32, healthy| {
        let (site, requests) = site(statuses);
        let start = Instant::now();
        let target = target(&format!("http://127.0.0.1:{}", site.port()), retries);
        let probe = probe_with_retries(&target, &prober, RETRY_PAUSE, &stop);
        assert_eq!((probe.attempts, probe.outcome.healthy()), (attempts, healthy), "{probe:?}");
        assert_eq!(requests.load(Ordering::SeqCst), attempts as usize);
        let reason = (attempts > 1).then_some(Reason::StatusNotExpected);
        assert_eq!(probe.first_reason, reason, "{probe:?}");
        assert!(start.elapsed() >= RETRY_PAUSE * (attempts - 1));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| case(&[], 1, 1, true));
        scope.spawn(|| case(&[500], 1, 2, true));
        scope.spawn(|| case(&[500, 500, 500], 1, 2, false));
        scope.spawn(|| case(&[500, 500, 500], 0, 1, false));
    });
}

#[test]
fn another_address_is_tried_immediately() {
    let (_stopper, stop) = common::stop::pair();
    let (bad, _) = site(&[500; 9]);
    let good = std::net::TcpListener::bind(("127.0.0.2", bad.port())).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = good.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&status_response(200));
        }
    });
    let hosts = std::env::temp_dir().join(format!("attempts-{}", std::process::id()));
    std::fs::write(&hosts, "127.0.0.1 two.test\n127.0.0.2 two.test\n").unwrap();
    let sources = ResolverConfig { hosts: hosts.clone(), ..ResolverConfig::default() };
    let prober = Prober::new(sources, &Roots::Custom(vec![])).unwrap();
    let start = Instant::now();
    let probe = probe_with_retries(
        &target(&format!("http://two.test:{}", bad.port()), 1),
        &prober,
        RETRY_PAUSE,
        &stop,
    );
    assert!(start.elapsed() < RETRY_PAUSE, "{probe:?}");
    assert_eq!((probe.attempts, probe.outcome.healthy()), (2, true), "{probe:?}");
    assert_eq!(probe.outcome.facts.address, Some([127, 0, 0, 2].into()));
    std::fs::remove_file(&hosts).unwrap();
}

#[test]
fn a_stop_ends_the_pause_and_the_first_retry_is_still_made() {
    let (stopper, stop) = common::stop::pair();
    drop(stopper);
    let refusing = RefusingPort::new().unwrap();
    let refused = format!("http://127.0.0.1:{}", refusing.port().unwrap());
    let (site, _) = site(&[500]);
    let recovered = format!("http://127.0.0.1:{}", site.port());
    for (url, retries, attempts, healthy) in
        [(&refused, 10, 2, false), (&refused, 0, 1, false), (&recovered, 1, 2, true)]
    {
        let start = Instant::now();
        let probe = probe_with_retries(&target(url, retries), &prober(), RETRY_PAUSE, &stop);
        assert_eq!((probe.attempts, probe.outcome.healthy()), (attempts, healthy), "{probe:?}");
        assert!(start.elapsed() < RETRY_PAUSE, "{probe:?}");
    }
}
