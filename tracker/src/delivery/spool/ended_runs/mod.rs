//! The ends of earlier runs that Kafka does not have yet. They are read from the file
//! `given` at the start.
//!
//! The end of a run is sent with records until such a record is delivered, by this run or
//! a later run. Sending it twice does no harm. An end that is never sent, because no
//! record follows in its topic, expires.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::identity::{ENDED_MAX, EndedRun, Run};

use super::folder::SpoolFolder;
use super::issued::{
    HEAD, ISSUED_ENTRIES_MAX, ISSUED_ENTRY_BYTES, IssuedEntry, IssuedNumbers, decode, head,
};

/// Older ends are not sent. A recorder removes its mark of a run after 30 days without
/// records, and would then report all of the run's numbers as missing.
const REPORT_AGE_MAX: Duration = Duration::from_secs(15 * 24 * 60 * 60);

/// Ends of runs by topic, oldest first, each with its entry in the file.
#[derive(Debug, Default)]
pub(crate) struct EndedRuns {
    file: Option<File>,
    topics: HashMap<Arc<str>, Vec<(EndedRun, usize)>>,
}

impl EndedRuns {
    /// The ends to send in a topic, at most [`ENDED_MAX`].
    pub(crate) fn pending(&self, topic: &str) -> impl ExactSizeIterator<Item = &EndedRun> {
        let ended = self.topics.get(topic).map_or(&[][..], Vec::as_slice);
        ended.iter().map(|(ended, _)| ended)
    }

    /// Removes a topic's ends, which Kafka has now.
    pub(crate) fn remove_delivered(&mut self, topic: &str) {
        let Some(file) = &self.file else { return };
        for (_, index) in self.topics.remove(topic).unwrap_or_default() {
            erase(file, index);
        }
    }
}

/// Frees an entry.
fn erase(file: &File, index: usize) {
    if let Err(cause) =
        file.write_all_at(&[0; ISSUED_ENTRY_BYTES], (index * ISSUED_ENTRY_BYTES) as u64)
    {
        // The next start sends the end again and then frees the entry.
        log::debug!("spool: given: can't free an entry: {cause}");
    }
}

/// Opens or creates the file. Returns the writer for this run and the ends of earlier
/// runs. A failure is logged, and the writer then does nothing.
pub(crate) fn open(folder: &SpoolFolder, run: &Run) -> (IssuedNumbers, EndedRuns) {
    let path = folder.path().join("given");
    let mut issued = IssuedNumbers::new(run, path.clone());
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let read = opened.and_then(|file| {
        let inode = file.metadata()?.ino();
        let mut bytes = Vec::new();
        (&file).take((ISSUED_ENTRIES_MAX * ISSUED_ENTRY_BYTES) as u64).read_to_end(&mut bytes)?;
        Ok((file.try_clone()?, file, inode, bytes))
    });
    let (file, for_ended_runs, inode, bytes) = match read {
        Ok(read) => read,
        Err(cause) => {
            issued.log_failure(&cause);
            return (issued, EndedRuns::default());
        }
    };
    if let Err(cause) = check(&bytes, inode) {
        log::warn!(
            "spool: {}: {cause}: results lost at the end of earlier runs are not reported",
            path.display()
        );
        if let Err(cause) = file.set_len(0) {
            issued.log_failure(&cause);
            return (issued, EndedRuns::default());
        }
        issued.use_file(file, inode, 0, Vec::new());
        return (issued, EndedRuns::default());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let entries = bytes.len() / ISSUED_ENTRY_BYTES;
    let EntryScan { topics, mut free, expired } = scan(&bytes, now);
    if !expired.is_empty() {
        log::warn!(
            "spool: {}: {} ends of runs not sent: older than {} days, or more than {ENDED_MAX} in a topic",
            path.display(),
            expired.len(),
            REPORT_AGE_MAX.as_secs() / 86_400,
        );
    }
    expired.iter().for_each(|index| erase(&file, *index));
    free.extend(expired);
    issued.use_file(file, inode, entries, free);
    (issued, EndedRuns { file: Some(for_ended_runs), topics })
}

/// Checks that the bytes are of this file and of this version. An empty file is valid.
fn check(bytes: &[u8], inode: u64) -> io::Result<()> {
    // The magic is the same in all versions.
    let has_magic = bytes.starts_with(&HEAD[..8]);
    if bytes.is_empty() || bytes.starts_with(&head(inode)) {
        Ok(())
    } else if has_magic && !bytes.starts_with(&HEAD) {
        Err(io::Error::other("written by another version"))
    } else if bytes.get(12..20).is_some_and(|it| {
        let inode = <[u8; 8]>::try_from(it).map(u64::from_le_bytes);
        inode.is_ok_and(|inode| bytes.starts_with(&head(inode)))
    }) {
        // The run that wrote the original may still be running.
        Err(io::Error::other("a copy of another file"))
    } else {
        Err(io::Error::other("damaged"))
    }
}

#[derive(Debug, Default)]
struct EntryScan {
    topics: HashMap<Arc<str>, Vec<(EndedRun, usize)>>,
    free: Vec<usize>,
    /// Entries of ends that are too old or too many.
    expired: Vec<usize>,
}

/// Reads the entries of the file.
fn scan(bytes: &[u8], now: Duration) -> EntryScan {
    let mut scan = EntryScan::default();
    let mut found: HashMap<Arc<str>, Vec<(IssuedEntry, usize)>> = HashMap::new();
    // The first entry is the head.
    for (index, bytes) in bytes.chunks_exact(ISSUED_ENTRY_BYTES).enumerate().skip(1) {
        match decode(bytes) {
            Some(entry) => {
                found.entry(Arc::from(entry.topic.as_str())).or_default().push((entry, index));
            }
            None => scan.free.push(index),
        }
    }
    for (topic, mut entries) in found {
        entries.sort_by_key(|(entry, _)| entry.time_s);
        let too_many = entries.len().saturating_sub(ENDED_MAX);
        for (nth, (entry, index)) in entries.into_iter().enumerate() {
            let age = now.saturating_sub(Duration::from_secs(entry.time_s));
            match i64::try_from(entry.count) {
                Ok(count) if age <= REPORT_AGE_MAX && nth >= too_many => {
                    let ended = EndedRun { run: entry.run, count };
                    scan.topics.entry(Arc::clone(&topic)).or_default().push((ended, index));
                }
                _ => scan.expired.push(index),
            }
        }
    }
    scan.free.sort_unstable_by(|one, other| other.cmp(one));
    scan
}

#[cfg(test)]
mod tests;
