//! [`WorstCase`]: the workers and the memory that the tracker needs if every site hangs in all its
//! attempts, and advice if there is less.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use common::counted::counted;

use crate::probe::Family;
use crate::targets::Target;

/// Most workers: the number of sites that may hang before probes of others wait for them.
pub(crate) const WORKERS_MAX: usize = 2_048;

/// Workers that may be started even if fewer are enough for the load. They are started when they
/// are first needed, and hanging sites are not spread evenly over the period.
const WORKERS_DEFAULT_MIN: usize = 64;

/// Stack of a worker. Probes need little, and there may be thousands of workers.
pub(crate) const WORKER_STACK_BYTES: usize = 256 * 1024;

/// Buffers of a probe besides its page: HTTP head, TLS, resolver.
const BUFFER_BYTES: u64 = 192 * 1024;
/// A page is checked as text, which may be a copy of its bytes.
const COPIES_OF_A_PAGE: u64 = 2;
/// The program itself, with ten thousand targets.
const PROGRAM_BYTES: u64 = 24 * 1024 * 1024;

/// Memory for results that wait for Kafka: about 120,000 of them.
pub(crate) const SPOOL_MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The needs of the targets in the worst case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct WorstCase {
    /// Workers that are busy at a time, on average over a period.
    pub(crate) busy_workers: f64,
    /// Workers that the tracker may start.
    pub(crate) workers: usize,
    /// Memory if each worker holds the largest page that it may read.
    pub(crate) memory_bytes: u64,
    /// Targets whose attempts may take longer than their period.
    pub(crate) overlong_targets: usize,
}

impl WorstCase {
    /// Calculates the worst case. Without `workers`, the number of workers follows from the load:
    /// at least 64, at most 2,048. It is never more than the number of targets.
    pub(crate) fn calculate(
        targets: &[Arc<Target>],
        workers: Option<usize>,
        retry_pause: Duration,
    ) -> Self {
        let loads = targets
            .iter()
            .map(|target| longest_probe_s(target, retry_pause) / target.period.as_secs_f64());
        let overlong_targets = loads.clone().filter(|load| *load > 1.0).count();
        // A target occupies at most one worker.
        let busy_workers = loads.map(|load| load.min(1.0)).sum();
        let workers =
            workers.unwrap_or_else(|| needed(busy_workers).clamp(WORKERS_DEFAULT_MIN, WORKERS_MAX));
        let workers = workers.min(targets.len()).max(1);
        let worker_bytes = targets.iter().map(|target| largest_probe(target)).max().unwrap_or(0);
        let memory_bytes =
            workers as u64 * worker_bytes + SPOOL_MEMORY_BYTES_MAX as u64 + PROGRAM_BYTES;
        Self { busy_workers, workers, memory_bytes, overlong_targets }
    }

    /// Logs the worst case and its warnings.
    pub(crate) fn log(&self, memory_bytes_max: Option<u64>) {
        log::info!("{self}");
        for warning in self.warnings(memory_bytes_max) {
            log::warn!("{warning}");
        }
    }

    /// Returns a text for each resource that is not enough.
    pub(crate) fn warnings(&self, memory_bytes_max: Option<u64>) -> Vec<String> {
        let Self { busy_workers, workers, memory_bytes, overlong_targets } = *self;
        let (needed, mib) = (needed(busy_workers), mib(memory_bytes));
        let mut warnings = Vec::new();
        if overlong_targets > 0 {
            let targets = counted(overlong_targets, "target");
            warnings.push(format!(
                "{targets} may take longer than the period if the site hangs, and slots would be skipped: use a longer period, a shorter time-out or fewer retries"
            ));
        }
        if needed > workers {
            warnings.push(format!(
                "{} not enough if every site hangs ({needed} needed), and slots would be skipped: raise --workers, or use a longer period or a shorter time-out",
                if workers == 1 { "1 worker is".to_owned() } else { format!("{workers} workers are") }
            ));
        }
        if let Some(limit) = memory_bytes_max.filter(|limit| memory_bytes > *limit) {
            warnings.push(format!(
                "{} with the largest pages, and results that wait for Kafka, may need {mib} MiB, and the memory limit is {} MiB: raise the limit, or lower --workers or --body-max",
                counted(workers, "worker"),
                limit / (1024 * 1024)
            ));
        }
        warnings
    }
}

impl fmt::Display for WorstCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (needed, workers) = (needed(self.busy_workers), self.workers);
        let mib = mib(self.memory_bytes);
        write!(f, "worst case, if every site hangs: {needed} of {workers} workers busy, {mib} MiB")
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1024 * 1024)
}

/// Returns the most memory that a probe of the target needs, in bytes.
fn largest_probe(target: &Target) -> u64 {
    // A page is stored only if a check needs it.
    let is_stored = target.spec.checks.needs_body();
    let page = if is_stored { target.limits.body_bytes_max } else { 0 };
    let bytes = COPIES_OF_A_PAGE * page + BUFFER_BYTES + WORKER_STACK_BYTES as u64;
    // A probe by both families has a thread and a page for each.
    if target.family == Family::Both { 2 * bytes } else { bytes }
}

/// Returns the longest time in seconds for which the target occupies a worker.
fn longest_probe_s(target: &Target, retry_pause: Duration) -> f64 {
    let attempts = f64::from(target.retries) + 1.0;
    attempts * target.limits.timeout.as_secs_f64() + (attempts - 1.0) * retry_pause.as_secs_f64()
}

fn needed(busy_workers: f64) -> usize {
    // `as` maps values outside the range to its ends.
    busy_workers.ceil() as usize
}

#[cfg(test)]
mod tests;
