//! The spool's folder: made, and locked against a second tracker.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// A folder that this process alone uses, for as long as the value lives: a
/// lock ends with its process, however that ends.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is not there, and locks it.
    ///
    /// # Errors
    /// A text: another process holds it, or what the system said.
    pub fn open(path: &str) -> Result<Self, String> {
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

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red without `try_lock`.
    #[test]
    fn one_holder_at_a_time() {
        let path = std::env::temp_dir().join(format!("folder-{}", std::process::id()));
        let text = path.join("deep").display().to_string();
        let folder = Folder::open(&text).unwrap();
        assert_eq!(Folder::open(&text).unwrap_err(), format!("{text}: another tracker uses it"));
        drop(folder);
        Folder::open(&text).unwrap();
        fs::remove_dir_all(path).unwrap();
        assert!(Folder::open("/proc/nowhere").unwrap_err().starts_with("/proc/nowhere: "));
    }
}
