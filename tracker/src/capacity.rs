//! The worst case: every site hangs, for all its attempts. How many workers
//! that takes, what memory they may need, and whether there is as much.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::probe::Family;
use crate::spool::SPOOL_BYTES_MAX;
use crate::targets::Target;
use crate::workers::STACK_BYTES;

/// The most workers, so the most sites that may hang at a time before others
/// have to wait for them.
pub const WORKERS_MAX: usize = 2_048;

/// So many workers there may be even where fewer do for the load: they are
/// started when first needed, and sites that hang are not spread evenly.
const WORKERS_FEW: usize = 64;

/// A probe's buffers beside its page: HTTP's head, TLS, the resolver.
const BUFFER_BYTES: u64 = 192 * 1024;
/// A page is searched as text, which may be a copy of its bytes.
const COPIES_OF_A_PAGE: u64 = 2;
/// The program itself, and what it keeps of ten thousand targets.
const PROGRAM_BYTES: u64 = 24 * 1024 * 1024;

/// The pause in front of an attempt at the address that has failed.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What a schedule needs at worst.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorstCase {
    /// Workers that are busy at a time, in the mean of a period.
    pub busy: f64,
    /// Workers that there are.
    pub workers: usize,
    /// Memory, when each holds the largest page that it may.
    pub bytes: u64,
    /// Targets whose attempts may take longer than their period.
    pub overlong: usize,
}

impl WorstCase {
    /// That of these targets, with so many workers if that is given, else with
    /// what the load needs: at least 64 or one for each target, at most 2,048.
    pub fn of(targets: &[Arc<Target>], workers: Option<usize>) -> Self {
        let loads = targets.iter().map(|target| longest(target) / target.period.as_secs_f64());
        let overlong = loads.clone().filter(|load| *load > 1.0).count();
        // A target has one worker at most, however long it hangs.
        let busy = loads.map(|load| load.min(1.0)).sum();
        let workers = workers.unwrap_or_else(|| needed(busy).clamp(WORKERS_FEW, WORKERS_MAX));
        let workers = workers.min(targets.len()).max(1);
        let each = targets.iter().map(|target| largest(target)).max().unwrap_or(0);
        let bytes = workers as u64 * each + SPOOL_BYTES_MAX as u64 + PROGRAM_BYTES;
        Self { busy, workers, bytes, overlong }
    }

    /// Logs it, and what it warns of.
    pub fn say(&self, memory_bytes_max: Option<u64>) {
        log::info!("{self}");
        for warning in self.warnings(memory_bytes_max) {
            log::warn!("{warning}");
        }
    }

    /// Where the workers or the memory don't do.
    pub fn warnings(&self, memory_bytes_max: Option<u64>) -> Vec<String> {
        let Self { busy, workers, bytes, overlong } = *self;
        let (needed, mib) = (needed(busy), mib(bytes));
        let mut warnings = Vec::new();
        if overlong > 0 {
            warnings.push(format!(
                "{overlong} targets can take longer than their period when they hang: slots would be skipped: expected a longer period, a shorter time-out, or fewer retries"
            ));
        }
        if needed > workers {
            warnings.push(format!(
                "{workers} workers don't do when every site hangs: probes would be skipped: expected {needed}, a longer period, or a shorter time-out"
            ));
        }
        if let Some(limit) = memory_bytes_max.filter(|limit| bytes > *limit) {
            warnings.push(format!(
                "{workers} workers with their largest pages, and results that wait, may take {mib} MiB, and the memory limit is {} MiB: expected a higher one, or a lower WORKERS or BODY_MAX",
                limit / (1024 * 1024)
            ));
        }
        warnings
    }
}

impl fmt::Display for WorstCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (needed, workers, mib) = (needed(self.busy), self.workers, mib(self.bytes));
        write!(f, "at worst, every site hanging: {needed} of {workers} workers busy, {mib} MiB")
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1024 * 1024)
}

/// Bytes that a worker may need for a target.
fn largest(target: &Target) -> u64 {
    // A page that nothing searches is not kept.
    let is_kept = target.spec.checks.wants_body();
    let page = if is_kept { target.limits.body_bytes_max } else { 0 };
    let one = COPIES_OF_A_PAGE * page + BUFFER_BYTES + STACK_BYTES as u64;
    // A thread and a page for each family.
    if target.family == Family::Both { 2 * one } else { one }
}

/// Seconds for which a target may hold a worker.
fn longest(target: &Target) -> f64 {
    let attempts = f64::from(target.retries) + 1.0;
    attempts * target.limits.timeout.as_secs_f64() + (attempts - 1.0) * RETRY_PAUSE.as_secs_f64()
}

/// `as` keeps what is too large at the end of the range.
fn needed(busy: f64) -> usize {
    busy.ceil() as usize
}

/// The memory limit of this process's control group, the lowest on its way up;
/// none when there is none.
pub fn memory_bytes_max() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    lowest_limit(&groups, Path::new("/sys/fs/cgroup"))
}

/// Both versions of control groups, as Linux's cgroups(7) has them. In a
/// container the path may be that of the host, and the group itself at the top.
fn lowest_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let (top, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let ways = Path::new(group.trim_start_matches('/')).ancestors();
        ways.filter_map(|way| std::fs::read_to_string(top.join(way).join(file)).ok()).collect()
    });
    // Version 2 says "max" where there is none, version 1 the largest number of pages.
    limits.filter_map(|text| text.trim().parse::<u64>().ok()).filter(|limit| *limit < 1 << 60).min()
}

#[cfg(test)]
mod tests {
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
        let stacks_and_buffers = without - (SPOOL_BYTES_MAX as u64 + PROGRAM_BYTES) / MIB;
        assert!((both - 400).abs_diff(without + stacks_and_buffers) <= 1, "{both} MiB");
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(format!("groups-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let limit = |groups| lowest_limit(groups, &root);
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/b/memory.max", "max\n");
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/memory.max", "67108864\n");
        assert_eq!(limit("0::/a/b\n"), Some(64 * MIB));
        write("memory.max", "33554432\n");
        assert_eq!(limit("0::/a/b\n"), Some(32 * MIB));
        assert_eq!(limit("1:cpu,memory:/of/the/host\n"), None);
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit("1:cpu,memory:/of/the/host\n"), None);
        write("memory/memory.limit_in_bytes", "1048576\n");
        assert_eq!(limit("2:cpu:/x\n1:cpu,memory:/of/the/host\n"), Some(MIB));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
