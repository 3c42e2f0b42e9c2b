//! `--check`: prints what the tracker would do. Resolves no names and opens no sockets.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use common::counted::counted;

use crate::settings::{Destination, TrackerSettings};
use crate::targets::Target;
use crate::workers::cgroup::memory_bytes_max;
use crate::workers::sizing::WorstCase;

/// The output of `--check`.
#[derive(Debug)]
pub(crate) struct CheckReport {
    location: String,
    targets: usize,
    targets_total: usize,
    domains: usize,
    /// Number of targets by period.
    periods: BTreeMap<Duration, usize>,
    probes_per_minute: f64,
    insecure: usize,
    worst_case: WorstCase,
    memory_bytes_max: Option<u64>,
    destination: String,
    plain_text_warning: Option<String>,
}

impl CheckReport {
    pub(crate) fn new(settings: &TrackerSettings) -> Self {
        let targets = &settings.targets;
        let mut periods = BTreeMap::new();
        for target in targets {
            *periods.entry(target.period).or_insert(0) += 1;
        }
        let domains: HashSet<_> = targets.iter().map(|target| &target.domain).collect();
        let per_minute = |target: &Arc<Target>| 60.0 / target.period.as_secs_f64();
        let retry_pause = settings.timings.retry_pause;
        let (destination, plain_text_warning) = match &settings.destination {
            Destination::StandardOutput { .. } => ("standard output".to_owned(), None),
            Destination::Kafka { settings, topic_prefix, .. } => (
                format!("kafka, topics {topic_prefix}..."),
                kafka_client::flags::plain_text_warning(settings),
            ),
        };
        Self {
            location: settings.location.clone(),
            targets: targets.len(),
            targets_total: settings.targets_total,
            domains: domains.len(),
            periods,
            probes_per_minute: targets.iter().map(per_minute).sum(),
            insecure: targets.iter().filter(|target| target.is_insecure()).count(),
            worst_case: WorstCase::calculate(targets, settings.workers, retry_pause),
            memory_bytes_max: memory_bytes_max(),
            destination,
            plain_text_warning,
        }
    }
}

/// Describes the targets in one line: number, share, periods and time-outs.
pub(crate) fn describe_targets(targets: &[Arc<Target>], total: usize) -> String {
    let count = targets.len();
    let of_total = if total > count { format!(" of {total}") } else { String::new() };
    if count == 0 {
        return format!("no targets{of_total}: nothing to probe");
    }
    let period = describe_range(targets.iter().map(|target| target.period));
    let timeout = describe_range(targets.iter().map(|target| target.limits.timeout));
    let targets = counted(count, "target");
    format!("{targets}{of_total}, period {period}, time-out {timeout}")
}

/// Returns the only value of `times`, or `shortest to longest`.
fn describe_range(times: impl Iterator<Item = Duration> + Clone) -> String {
    match (times.clone().min(), times.max()) {
        (Some(shortest), Some(longest)) if shortest < longest => {
            format!("{shortest:?} to {longest:?}")
        }
        (time, _) => format!("{:?}", time.unwrap_or_default()),
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "from: {}", self.location)?;
        write!(f, "targets: {}", self.targets)?;
        if self.targets_total > self.targets {
            write!(f, " of {}", self.targets_total)?;
        }
        writeln!(f, ", in {}", counted(self.domains, "domain"))?;
        for (period, count) in &self.periods {
            writeln!(f, "period {period:?}: {}", counted(*count, "target"))?;
        }
        writeln!(f, "probes per minute: {:.1}", self.probes_per_minute)?;
        if self.insecure > 0 {
            writeln!(f, "certificates not verified: {}", self.insecure)?;
        }
        writeln!(f, "{}", self.worst_case)?;
        if let Some(limit) = self.memory_bytes_max {
            writeln!(f, "memory limit: {} MiB", limit / (1024 * 1024))?;
        }
        let warnings = self.worst_case.warnings(self.memory_bytes_max);
        for warning in warnings.iter().chain(&self.plain_text_warning) {
            writeln!(f, "warning: {warning}")?;
        }
        writeln!(f, "results: {}", self.destination)
    }
}
