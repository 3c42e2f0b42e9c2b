use std::time::Duration;

use super::*;
use crate::targets::{TargetDefaults, parse_websites};
use crate::workers::retry::RETRY_PAUSE;

const MIB: u64 = 1024 * 1024;

fn targets(count: usize, period_s: u64, retries: u32, check: &str) -> Vec<Arc<Target>> {
    with_bodies(count, period_s, retries, check, MIB)
}

fn with_bodies(
    count: usize,
    period_s: u64,
    retries: u32,
    check: &str,
    body_bytes_max: u64,
) -> Vec<Arc<Target>> {
    let list: Vec<_> = (0..count).map(|index| format!("http://a.io/{index} {check}")).collect();
    let period = Duration::from_secs(period_s);
    let defaults = TargetDefaults { period, retries, body_bytes_max, ..TargetDefaults::default() };
    parse_websites(&list.join(","), "x-", &defaults).unwrap().into_iter().map(Arc::new).collect()
}

#[test]
fn workers_are_enough_if_every_site_hangs() {
    for (count, period_s, retries, requested, busy, workers) in [
        (1, 300, 1, None, 0.07, 1),
        (50, 300, 1, None, 3.5, 50),
        (1_000, 300, 1, None, 70.0, 70),
        (1_000, 300, 0, None, 33.333, 64),
        // A target occupies at most one worker.
        (1_000, 30, 10, None, 1_000.0, 1_000),
        (10_000, 60, 1, None, 3_500.0, 2_048),
        (10_000, 60, 1, Some(100), 3_500.0, 100),
        (10, 60, 1, Some(100), 3.5, 10),
    ] {
        let worst_case =
            WorstCase::calculate(&targets(count, period_s, retries, ""), requested, RETRY_PAUSE);
        assert!((worst_case.busy_workers - busy).abs() < 0.01, "{worst_case:?}: expected {busy}");
        assert_eq!(worst_case.workers, workers, "{count} targets");
    }
    let worst_case = WorstCase::calculate(&targets(2, 1, 1, ""), None, RETRY_PAUSE);
    let expected = "2 targets may take longer than the period if the site hangs, and slots would be skipped: use a longer period, a shorter time-out or fewer retries";
    assert_eq!(worst_case.warnings(None), [expected]);
}

#[test]
fn memory_includes_pages_only_if_a_check_needs_them() {
    let mib = |check, body_bytes_max| {
        let mut targets = targets(100, 60, 1, check);
        for target in &mut targets {
            Arc::make_mut(target).limits.body_bytes_max = body_bytes_max;
        }
        WorstCase::calculate(&targets, Some(100), RETRY_PAUSE).memory_bytes / MIB
    };
    let without = mib("", MIB);
    assert!((100..150).contains(&without), "{without} MiB");
    assert_eq!(mib("x", MIB), without + 200);
    assert_eq!(mib("x", 4 * MIB), without + 800);
    let mut targets = targets(100, 60, 1, "x");
    Arc::make_mut(&mut targets[7]).family = Family::Both;
    let both = WorstCase::calculate(&targets, Some(100), RETRY_PAUSE).memory_bytes / MIB;
    let stacks_and_buffers = without - (SPOOL_MEMORY_BYTES_MAX as u64 + PROGRAM_BYTES) / MIB;
    assert!((both - 400).abs_diff(without + stacks_and_buffers) <= 1, "{both} MiB");
}
