//! [`TargetSource`]: reads WEBSITES and TARGETS, and selects this tracker's share.

use std::path::PathBuf;
use std::sync::Arc;

use common::settings::{Environment, SettingValue, UsageError};

use super::{Share, Target, TargetDefaults, TargetList, file, websites};

/// The settings that list targets. SIGHUP reads them again.
#[derive(Debug, Clone)]
pub struct TargetSource {
    /// WEBSITES: the list itself.
    pub websites: Option<SettingValue>,
    /// TARGETS: the path of the TOML file.
    pub file: Option<SettingValue>,
    /// Values of the options that a target does not set.
    pub defaults: TargetDefaults,
    /// Prefix of all topic names.
    pub topic_prefix: String,
    /// Location of this tracker. It is part of the hash that assigns targets to shares.
    pub location: String,
    /// The share of the list that this tracker probes. `None`: all targets.
    pub share: Option<Share>,
}

/// The targets of one tracker.
#[derive(Debug)]
pub struct Selection {
    /// The targets to probe. A share of a short list may be empty.
    pub targets: Vec<Arc<Target>>,
    /// Number of targets in the whole list, other trackers' shares included.
    pub total: usize,
}

impl TargetSource {
    /// Reads and checks all targets. Resolves no names.
    ///
    /// # Errors
    /// A [`UsageError`] for the first invalid target.
    pub fn read(&self, environment: &Environment<'_>) -> Result<Selection, UsageError> {
        if self.websites.is_none() && self.file.is_none() {
            return Err(UsageError::new(
                "WEBSITES and TARGETS: neither is set: expected URLs, or a file that lists them",
            ));
        }
        let mut list = TargetList::default();
        if let Some(setting) = &self.websites {
            setting.parse("URL [regexp],URL [regexp],...", |text| {
                websites::add_targets(&mut list, text, &self.topic_prefix, &self.defaults)
            })?;
        }
        if let Some(setting) = &self.file {
            let path = PathBuf::from(&setting.value);
            file::add_targets(&mut list, &path, &self.topic_prefix, &self.defaults, environment)
                .map_err(|error| setting.error(error))?;
        }
        let mut targets = list.into_targets();
        let total = targets.len();
        if let Some(share) = self.share {
            targets.retain(|target| share.contains(&self.location, &target.recorded_url));
        }
        Ok(Selection { targets: targets.into_iter().map(Arc::new).collect(), total })
    }
}
