//! The limit on open files, which limits the number of domains.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The maximum number of connections of a domain at a time: to the leader of its partition, to the
/// coordinator of the consumer group, and to a broker that is asked for metadata.
const FILES_PER_DOMAIN: u64 = 3;

/// The number of files for other purposes: PostgreSQL, discovery, the log, and certificates while
/// they are read.
const OTHER_FILES: u64 = 160;

/// The limit on open files of this process.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    /// `None`: there is no limit.
    limit: Option<u64>,
    is_warned: bool,
}

impl OpenFiles {
    /// Raises the soft limit, which is 1024 on most machines, to the hard limit.
    pub(crate) fn raise_limit() -> Self {
        let current = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: current.maximum, ..current });
        let limit = if raised.is_ok() { current.maximum } else { current.current };
        Self { limit, is_warned: false }
    }

    /// Logs a warning, once, if so many domains need more open files than the limit allows.
    pub(crate) fn check(&mut self, domains: usize) {
        if let Some(warning) = self.warning(domains)
            && !std::mem::replace(&mut self.is_warned, true)
        {
            log::warn!("{warning}");
        }
    }

    fn warning(&self, domains: usize) -> Option<String> {
        let needed = files_needed(domains);
        let limit = self.limit.filter(|limit| *limit < needed)?;
        Some(format!(
            "{domains} domains need up to {needed} open files if this recorder holds them all, but \
             the limit is {limit}: raise the hard limit (ulimit -Hn, or LimitNOFILE of systemd)"
        ))
    }
}

fn files_needed(domains: usize) -> u64 {
    let domains = u64::try_from(domains).unwrap_or(u64::MAX);
    domains.saturating_mul(FILES_PER_DOMAIN).saturating_add(OTHER_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_logged() {
        let with = |limit| OpenFiles { limit, is_warned: false };
        assert_eq!(with(None).warning(10_000), None);
        assert_eq!(with(Some(files_needed(1_000))).warning(1_000), None);
        let warning = with(Some(1_024)).warning(1_000).unwrap();
        assert!(warning.starts_with("1000 domains need up to 3160 open files"), "{warning}");
    }
}
