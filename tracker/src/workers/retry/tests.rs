use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use testkit::sites::{Refusing, Site, Step, answer};

use super::*;
use crate::probe::Roots;
use crate::probe::net::resolver::Sources;
use crate::targets::{Defaults, parse};

fn prober() -> Prober {
    Prober::new(Sources::default(), &Roots::These(vec![])).unwrap()
}

fn target(url: &str, retries: u32) -> Target {
    let defaults = Defaults { retries, ..Defaults::default() };
    parse(url, "x-", &defaults).unwrap().remove(0)
}

/// A site whose first answers are these statuses, and then 200.
fn site(statuses: &'static [u16]) -> (Site, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let site = Site::http(move |_| {
        let index = count.fetch_add(1, Ordering::SeqCst);
        vec![Step::Send(answer(statuses.get(index).copied().unwrap_or(200)))]
    });
    (site.unwrap(), asked)
}

#[test]
fn a_failure_is_confirmed_a_second_later_and_its_first_reason_kept() {
    let (_stopper, stop) = common::stop::pair();
    let prober = prober();
    let case = |statuses, retries, attempts: u32, healthy| {
        let (site, asked) = site(statuses);
        let begun = Instant::now();
        let target = target(&format!("http://127.0.0.1:{}", site.port()), retries);
        let done = run(&target, &prober, &stop);
        assert_eq!((done.attempts, done.outcome.healthy()), (attempts, healthy), "{done:?}");
        assert_eq!(asked.load(Ordering::SeqCst), attempts as usize);
        let reason = (attempts > 1).then_some(Reason::StatusNotExpected);
        assert_eq!(done.first_reason, reason, "{done:?}");
        assert!(begun.elapsed() >= RETRY_PAUSE * (attempts - 1));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| case(&[], 1, 1, true));
        scope.spawn(|| case(&[500], 1, 2, true));
        scope.spawn(|| case(&[500, 500, 500], 1, 2, false));
        scope.spawn(|| case(&[500, 500, 500], 0, 1, false));
    });
}

#[test]
fn another_address_is_asked_at_once() {
    let (_stopper, stop) = common::stop::pair();
    let (bad, _) = site(&[500; 9]);
    let good = std::net::TcpListener::bind(("127.0.0.2", bad.port())).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = good.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer(200));
        }
    });
    let hosts = std::env::temp_dir().join(format!("attempts-{}", std::process::id()));
    std::fs::write(&hosts, "127.0.0.1 two.test\n127.0.0.2 two.test\n").unwrap();
    let sources = Sources { hosts: hosts.clone(), ..Sources::default() };
    let prober = Prober::new(sources, &Roots::These(vec![])).unwrap();
    let begun = Instant::now();
    let done = run(&target(&format!("http://two.test:{}", bad.port()), 1), &prober, &stop);
    assert!(begun.elapsed() < RETRY_PAUSE, "{done:?}");
    assert_eq!((done.attempts, done.outcome.healthy()), (2, true), "{done:?}");
    assert_eq!(done.outcome.facts.address, Some([127, 0, 0, 2].into()));
    std::fs::remove_file(&hosts).unwrap();
}

#[test]
fn a_stop_ends_the_pause_and_a_failure_is_still_confirmed() {
    let (stopper, stop) = common::stop::pair();
    drop(stopper);
    let refusing = Refusing::new().unwrap();
    let refused = format!("http://127.0.0.1:{}", refusing.port().unwrap());
    let (site, _) = site(&[500]);
    let recovered = format!("http://127.0.0.1:{}", site.port());
    for (url, retries, attempts, healthy) in
        [(&refused, 10, 2, false), (&refused, 0, 1, false), (&recovered, 1, 2, true)]
    {
        let begun = Instant::now();
        let done = run(&target(url, retries), &prober(), &stop);
        assert_eq!((done.attempts, done.outcome.healthy()), (attempts, healthy), "{done:?}");
        assert!(begun.elapsed() < RETRY_PAUSE, "{done:?}");
    }
}
