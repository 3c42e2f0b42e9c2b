use std::time::Duration;

use super::*;
use crate::targets::{Defaults, parse};

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
    let defaults = Defaults { period, retries, body_bytes_max, ..Defaults::default() };
    parse(&list.join(","), "x-", &defaults).unwrap().into_iter().map(Arc::new).collect()
}

#[test]
fn workers_are_what_all_sites_hanging_would_keep_busy() {
    for (count, period_s, retries, given, busy, workers) in [
        (1, 300, 1, None, 0.07, 1),
        (50, 300, 1, None, 3.5, 50),
        (1_000, 300, 1, None, 70.0, 70),
        (1_000, 300, 0, None, 33.333, 64),
        // None holds more than one worker.
        (1_000, 30, 10, None, 1_000.0, 1_000),
        (10_000, 60, 1, None, 3_500.0, 2_048),
        (10_000, 60, 1, Some(100), 3_500.0, 100),
        (10, 60, 1, Some(100), 3.5, 10),
    ] {
        let found = WorstCase::of(&targets(count, period_s, retries, ""), given);
        assert!((found.busy - busy).abs() < 0.01, "{found:?}: expected {busy}");
        assert_eq!(found.workers, workers, "{count} targets");
    }
    let found = WorstCase::of(&targets(2, 1, 1, ""), None);
    let expected = "2 targets can take longer than their period when they hang: slots would be skipped: expected a longer period, a shorter time-out, or fewer retries";
    assert_eq!(found.warnings(None), [expected]);
}

#[test]
fn memory_counts_pages_only_where_they_are_kept() {
    let mib = |check, body_bytes_max| {
        let mut targets = targets(100, 60, 1, check);
        for target in &mut targets {
            Arc::make_mut(target).limits.body_bytes_max = body_bytes_max;
        }
        WorstCase::of(&targets, Some(100)).bytes / MIB
    };
    let without = mib("", MIB);
    assert!((100..150).contains(&without), "{without} MiB");
    assert_eq!(mib("x", MIB), without + 200);
    assert_eq!(mib("x", 4 * MIB), without + 800);
    let mut targets = targets(100, 60, 1, "x");
    Arc::make_mut(&mut targets[7]).family = Family::Both;
    let both = WorstCase::of(&targets, Some(100)).bytes / MIB;
    let stacks_and_buffers = without - (WAITING_BYTES_MAX as u64 + PROGRAM_BYTES) / MIB;
    assert!((both - 400).abs_diff(without + stacks_and_buffers) <= 1, "{both} MiB");
}
