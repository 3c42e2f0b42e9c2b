//! The spool's folder: created if missing, and locked against a second tracker.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// A folder that only this process uses while the value lives. The system releases the
/// lock when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct SpoolFolder {
    path: PathBuf,
    _lock: File,
}

impl SpoolFolder {
    /// Creates the folder if it does not exist, and locks it.
    ///
    /// # Errors
    /// Another process holds the lock, or the system refused.
    pub(crate) fn open(path: &str) -> Result<Self, String> {
        let path = PathBuf::from(path);
        let file = fs::create_dir_all(&path)
            .and_then(|()| {
                let mut options = File::options();
                options.write(true).create(true).truncate(false).open(path.join("lock"))
            })
            .map_err(|cause| format!("{}: {cause}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, _lock: file }),
            Err(TryLockError::WouldBlock) => {
                Err(format!("{}: another tracker uses it", path.display()))
            }
            Err(TryLockError::Error(cause)) => {
                Err(format!("{}: can't be locked: {cause}", path.display()))
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for SpoolFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_holds_the_folder() {
        let path = std::env::temp_dir().join(format!("folder-{}", std::process::id()));
        let text = path.join("deep").display().to_string();
        let folder = SpoolFolder::open(&text).unwrap();
        assert_eq!(
            SpoolFolder::open(&text).unwrap_err(),
            format!("{text}: another tracker uses it")
        );
        drop(folder);
        SpoolFolder::open(&text).unwrap();
        fs::remove_dir_all(path).unwrap();
        assert!(SpoolFolder::open("/proc/nowhere").unwrap_err().starts_with("/proc/nowhere: "));
    }
}
