//! The worst case: every site hangs, for all its attempts. How many workers
//! that takes, what memory they may need, and whether there is as much.

use std::fmt;
use std::sync::Arc;

use crate::probe::Family;
use crate::targets::Target;
use crate::workers::STACK_BYTES;
use crate::workers::retry::RETRY_PAUSE;

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

/// Memory for results that wait for Kafka: some 120,000 of them.
pub const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

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
        let bytes = workers as u64 * each + WAITING_BYTES_MAX as u64 + PROGRAM_BYTES;
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

#[cfg(test)]
mod tests;
