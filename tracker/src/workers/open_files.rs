//! The limit on open files, which also limits the number of workers.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most files that a probe has open at a time: a socket for each name server, or for a few
/// addresses that it tries at the same time. Twice that for a probe by both address families.
const FILES_PER_PROBE: u64 = 8;

/// Files for everything else: brokers, the log, certificates that are being read.
const OTHER_FILES: u64 = 64;

/// Raises the soft limit on open files to the hard limit. Returns the number of workers that can
/// have all their files open at the same time, at least 1.
///
/// The soft limit is 1024 on most machines. A probe that can't open its socket would show a healthy
/// site as down.
pub(super) fn raise_limit_for_workers() -> usize {
    let current = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: current.maximum, ..current });
    let limit = if raised.is_ok() { current.maximum } else { current.current };
    let workers =
        limit.map_or(u64::MAX, |files| files.saturating_sub(OTHER_FILES) / FILES_PER_PROBE);
    usize::try_from(workers).unwrap_or(usize::MAX).max(1)
}
