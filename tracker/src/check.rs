//! `--check`: what would be done, in a few lines.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::settings::{Settings, Sink};
use crate::targets::Target;
use crate::workers::cgroup::memory_bytes_max;
use crate::workers::sizing::WorstCase;

/// What a tracker of these settings would do.
#[derive(Debug)]
pub struct Plan {
    location: String,
    targets: usize,
    targets_of: usize,
    domains: usize,
    /// How many targets have each period.
    periods: BTreeMap<Duration, usize>,
    probes_a_minute: f64,
    insecure: usize,
    worst_case: WorstCase,
    memory_bytes_max: Option<u64>,
    results: String,
}

impl Plan {
    /// Works it out; it resolves no name and opens no socket.
    pub fn of(settings: &Settings) -> Self {
        let targets = &settings.targets;
        let mut periods = BTreeMap::new();
        for target in targets {
            *periods.entry(target.period).or_insert(0) += 1;
        }
        let domains: std::collections::HashSet<_> =
            targets.iter().map(|target| &target.domain).collect();
        Self {
            location: settings.location.clone(),
            targets: targets.len(),
            targets_of: settings.targets_of,
            domains: domains.len(),
            periods,
            probes_a_minute: targets.iter().map(|one| 60.0 / one.period.as_secs_f64()).sum(),
            insecure: targets.iter().filter(|target| target.is_insecure()).count(),
            worst_case: WorstCase::of(targets, settings.workers),
            memory_bytes_max: memory_bytes_max(),
            results: match &settings.sink {
                Sink::Print { .. } => "standard output".to_owned(),
                Sink::Kafka { topic_prefix, .. } => format!("kafka, topics {topic_prefix}..."),
            },
        }
    }
}

/// The targets in a line: how many, of how many if the list is shared, how often.
pub fn summary(targets: &[Arc<Target>], of: usize) -> String {
    let count = targets.len();
    let of = if of > count { format!(" of {of}") } else { String::new() };
    let span = |time: fn(&Target) -> Duration| {
        let times = targets.iter().map(|target| time(target));
        match (times.clone().min(), times.max()) {
            (Some(shortest), Some(longest)) if shortest < longest => {
                format!("{shortest:?} to {longest:?}")
            }
            (time, _) => format!("{:?}", time.unwrap_or_default()),
        }
    };
    match count {
        0 => format!("no targets{of}: nothing to probe"),
        _ => {
            let (period, timeout) = (span(|one| one.period), span(|one| one.limits.timeout));
            format!("{count} targets{of}, each once in {period}, time-out {timeout}")
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "from: {}", self.location)?;
        write!(f, "targets: {}", self.targets)?;
        if self.targets_of > self.targets {
            write!(f, " of {}", self.targets_of)?;
        }
        writeln!(f, ", of {} domains", self.domains)?;
        for (period, count) in &self.periods {
            writeln!(f, "period: {period:?} for {count}")?;
        }
        writeln!(f, "probes a minute: {:.1}", self.probes_a_minute)?;
        if self.insecure > 0 {
            writeln!(f, "certificates not verified: {}", self.insecure)?;
        }
        writeln!(f, "{}", self.worst_case)?;
        if let Some(limit) = self.memory_bytes_max {
            writeln!(f, "memory limit: {} MiB", limit / (1024 * 1024))?;
        }
        for warning in self.worst_case.warnings(self.memory_bytes_max) {
            writeln!(f, "warning: {warning}")?;
        }
        writeln!(f, "results: {}", self.results)
    }
}
