//! The parts of a set that take longest to create: certificates, passwords,
//! PostgreSQL's data and Kafka's log directory. The first set of a day creates
//! them, and the other sets copy them. The cache is valid for one day only,
//! because some certificates expire.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use crate::command_error::CommandError;

const PREFIX: &str = "daily-";
const SECONDS_PER_DAY: u64 = 86_400;

pub(crate) struct DailyCache {
    folder: PathBuf,
}

impl DailyCache {
    /// Opens today's cache for this build of the program, this user and these
    /// jars, and removes caches from before yesterday.
    pub(crate) fn open(
        cache: &Path,
        jars: &Path,
        kafka_home: Option<&Path>,
    ) -> Result<Self, CommandError> {
        let mut key = DefaultHasher::new();
        (jars, kafka_home, rustix::process::geteuid().as_raw()).hash(&mut key);
        for path in
            std::env::current_exe().ok().into_iter().chain(kafka_home.map(|h| h.join("libs")))
        {
            let metadata = fs::metadata(&path).map_err(CommandError::at(&path))?;
            (metadata.len(), metadata.mtime(), metadata.mtime_nsec()).hash(&mut key);
        }
        fs::create_dir_all(cache).map_err(CommandError::at(cache))?;
        let today =
            SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() / SECONDS_PER_DAY;
        remove_older(cache, today.saturating_sub(1));
        let folder = cache.join(format!("{PREFIX}{today}-{:016x}", key.finish()));
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(CommandError::at(&folder))?;
        Ok(Self { folder })
    }

    /// Fills `target` with a copy of the part `name` of today's first set. If
    /// this is the first set, creates the part by `make`. Sets that start at
    /// the same time wait for the set that creates it.
    pub(crate) fn copy_or_make(
        &self,
        name: &str,
        target: &Path,
        make: impl FnOnce(&Path) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let original = self.folder.join(name);
        let lock_path = self.folder.join(format!("{name}.lock"));
        let lock = File::create(&lock_path).map_err(CommandError::at(&lock_path))?;
        // Copying needs no lock: an original is complete and never changes.
        if !original.exists() {
            lock.lock().map_err(CommandError::at(&lock_path))?;
        }
        if original.exists() {
            return copy(&original, target);
        }
        make(target)?;
        // Only a complete copy gets the name.
        let part = self.folder.join(format!("{name}.part"));
        remove(&part)?;
        copy(target, &part)?;
        fs::rename(&part, &original).map_err(CommandError::at(&original))
    }
}

fn remove_older(cache: &Path, first_kept: u64) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let day = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if day.and_then(|day| day.parse().ok()).is_some_and(|day: u64| day < first_kept) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Copies a file or a folder with its owner, mode and times.
fn copy(from: &Path, to: &Path) -> Result<(), CommandError> {
    let output = Command::new("cp").arg("-a").arg(from).arg(to).output();
    let output = output.map_err(CommandError::at(Path::new("cp")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(CommandError::Refused(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()))
}

fn remove(path: &Path) -> Result<(), CommandError> {
    let removed = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.map_err(CommandError::at(path))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn folder() -> PathBuf {
        std::env::temp_dir().join(format!("services-daily-{:x}", fastrand::u64(..)))
    }

    #[test]
    fn the_first_of_many_creates_a_part_and_the_others_copy_it() {
        let root = folder();
        let made = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (root, made) = (&root, &made);
                scope.spawn(move || {
                    let cache = DailyCache::open(root, Path::new("/jars"), None).unwrap();
                    let target = root.join(format!("target-{n}"));
                    let make = |path: &Path| {
                        made.fetch_add(1, Ordering::Relaxed);
                        fs::create_dir(path).unwrap();
                        fs::write(path.join("file"), "text").map_err(CommandError::at(path))
                    };
                    cache.copy_or_make("name", &target, make).unwrap();
                    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "text");
                });
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_part_that_failed_is_created_again() {
        let root = folder();
        let cache = DailyCache::open(&root, Path::new("/jars"), None).unwrap();
        let failed = |_: &Path| Err(CommandError::Refused("no".to_owned()));
        assert!(cache.copy_or_make("name", &root.join("a"), failed).is_err());
        let make = |path: &Path| fs::write(path, "text").map_err(CommandError::at(path));
        cache.copy_or_make("name", &root.join("b"), make).unwrap();
        assert_eq!(fs::read_to_string(root.join("b")).unwrap(), "text");
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn caches_from_before_yesterday_are_removed() {
        let root = folder();
        for name in ["daily-1-aa", "daily-99999999-aa", "other"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        DailyCache::open(&root, Path::new("/jars"), None).unwrap();
        assert!(!root.join("daily-1-aa").exists());
        assert!(root.join("daily-99999999-aa").exists() && root.join("other").exists());
        fs::remove_dir_all(&root).unwrap();
    }
}
