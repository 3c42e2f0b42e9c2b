//! Where the list of targets comes from, and which part of it is this tracker's.

use std::path::PathBuf;
use std::sync::Arc;

use common::settings::{Environment, Given, UsageError};

use super::{Defaults, List, Share, Target, file, websites};

/// WEBSITES, TARGETS, or both, and what they are read with.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The list of WEBSITES.
    pub websites: Option<Given>,
    /// The file of TARGETS.
    pub file: Option<Given>,
    /// What holds where they say nothing.
    pub defaults: Defaults,
    /// What topics' names begin with.
    pub topic_prefix: String,
    /// The location, which the shares are drawn with.
    pub location: String,
    /// The part of the list that is probed; none: all of it.
    pub share: Option<Share>,
}

/// Targets that were read.
#[derive(Debug)]
pub struct Listed {
    /// Those to probe; it may be none, when the list is shared.
    pub targets: Vec<Arc<Target>>,
    /// How many there are with those of other trackers.
    pub of: usize,
}

impl Listing {
    /// Reads all of it. It resolves no name.
    ///
    /// # Errors
    /// A [`UsageError`] for the first target that can't be used.
    pub fn read(&self, environment: &Environment<'_>) -> Result<Listed, UsageError> {
        if self.websites.is_none() && self.file.is_none() {
            return Err(UsageError::new(
                "WEBSITES and TARGETS: neither is given: expected URLs, or a file that lists them",
            ));
        }
        let mut list = List::default();
        if let Some(given) = &self.websites {
            given.parse("URL [regexp],URL [regexp],...", |text| {
                websites::add(&mut list, text, &self.topic_prefix, &self.defaults)
            })?;
        }
        if let Some(given) = &self.file {
            let path = PathBuf::from(&given.value);
            file::add(&mut list, &path, &self.topic_prefix, &self.defaults, environment)
                .map_err(|fault| given.error(fault))?;
        }
        let mut targets = list.targets();
        let of = targets.len();
        if let Some(share) = self.share {
            targets.retain(|target| share.holds(&self.location, &target.recorded_url));
        }
        Ok(Listed { targets: targets.into_iter().map(Arc::new).collect(), of })
    }
}
