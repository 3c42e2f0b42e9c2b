//! A configuration file that is read again when it changes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How much of a file is read. A hosts file that blocks advertisers has a few MiB.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A file that is parsed again when its inode, time or length changes.
#[derive(Debug)]
pub(super) struct WatchedFile<T> {
    path: PathBuf,
    parse: fn(&str) -> T,
    current: Mutex<(Option<FileStamp>, Arc<T>)>,
}

/// The properties of a file that change when the file changes.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct FileStamp {
    inode: u64,
    modified: (i64, i64),
    bytes: u64,
}

impl FileStamp {
    fn read(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            bytes: metadata.len(),
        })
    }
}

impl<T> WatchedFile<T> {
    pub(super) fn new(path: PathBuf, parse: fn(&str) -> T) -> Self {
        Self { path, parse, current: Mutex::new((None, Arc::new(parse("")))) }
    }

    /// Returns the current content. While the file can't be read, for example because it is
    /// being replaced, the last content stays valid. Before the first successful read, it
    /// is the content of an empty file.
    pub(super) fn get(&self) -> Arc<T> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // The stamp is read before the content: a change in between is found by the next
        // call.
        let stamp = FileStamp::read(&self.path);
        if stamp.is_some() && stamp != current.0 {
            // The files need not be UTF-8: the parts that are parsed are ASCII.
            if let Ok(bytes) = read_file(&self.path) {
                *current = (stamp, Arc::new((self.parse)(&String::from_utf8_lossy(&bytes))));
            }
        }
        Arc::clone(&current.1)
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
