//! How the runs before this one ended, until Kafka has it: what the file `given`
//! said at the start.
//!
//! A run is told of until a record that tells of it is delivered, by whichever
//! run that is. To tell twice does no harm; what is never told of, as no record
//! follows in its topic, is passed over when it is old.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::identity::{ENDED_MAX, Ended, Run};

use super::folder::Folder;
use super::issued::{Given, HEAD, PLACE_BYTES, PLACES_MAX, Place, decode, head};

/// Older ends are not told. A recorder forgets a run that was silent for 30 days,
/// and would take all of its numbers for missing.
const TOLD_FOR: Duration = Duration::from_secs(15 * 24 * 60 * 60);

/// By topic, oldest first, and the place of each in the file.
#[derive(Debug, Default)]
pub struct Untold {
    file: Option<File>,
    topics: HashMap<Arc<str>, Vec<(Ended, usize)>>,
}

impl Untold {
    /// What is to be told in a topic, at most [`ENDED_MAX`].
    pub fn of(&self, topic: &str) -> impl ExactSizeIterator<Item = &Ended> {
        let ended = self.topics.get(topic).map_or(&[][..], Vec::as_slice);
        ended.iter().map(|(ended, _)| ended)
    }

    /// Kafka has what was to be told in a topic.
    pub fn told(&mut self, topic: &str) {
        let Some(file) = &self.file else { return };
        for (_, index) in self.topics.remove(topic).unwrap_or_default() {
            erase(file, index);
        }
    }
}

/// Makes a place free.
fn erase(file: &File, index: usize) {
    if let Err(cause) = file.write_all_at(&[0; PLACE_BYTES], (index * PLACE_BYTES) as u64) {
        // The next start does it, after it was told again.
        log::debug!("spool: given: {cause}");
    }
}

/// Opens the file, or makes it: the writer for this run, and how earlier ones
/// ended. A file that can't be had is logged, and the writer then does nothing.
pub fn open(folder: &Folder, run: &Run) -> (Given, Untold) {
    let path = folder.path().join("given");
    let mut given = Given::new(run, path.clone());
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let read = opened.and_then(|file| {
        let inode = file.metadata()?.ino();
        let mut bytes = Vec::new();
        (&file).take((PLACES_MAX * PLACE_BYTES) as u64).read_to_end(&mut bytes)?;
        Ok((file.try_clone()?, file, inode, bytes))
    });
    let (file, for_untold, inode, bytes) = match read {
        Ok(read) => read,
        Err(cause) => {
            given.say(&cause);
            return (given, Untold::default());
        }
    };
    if let Err(cause) = check(&bytes, inode) {
        log::warn!("spool: {}: {cause}: how earlier runs ended is not known", path.display());
        if let Err(cause) = file.set_len(0) {
            given.say(&cause);
            return (given, Untold::default());
        }
        given.use_file(file, inode, 0, Vec::new());
        return (given, Untold::default());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let places = bytes.len() / PLACE_BYTES;
    let Sorted { topics, mut free, passed_over } = sort(&bytes, now);
    if !passed_over.is_empty() {
        log::warn!(
            "spool: {}: {} ends of runs passed over: older than {} days, or more than {ENDED_MAX} of a topic",
            path.display(),
            passed_over.len(),
            TOLD_FOR.as_secs() / 86_400,
        );
    }
    passed_over.iter().for_each(|index| erase(&file, *index));
    free.extend(passed_over);
    given.use_file(file, inode, places, free);
    (given, Untold { file: Some(for_untold), topics })
}

/// Whether it is this very file, of this version. An empty one is.
fn check(bytes: &[u8], inode: u64) -> io::Result<()> {
    // The magic is older than any version.
    let ours = bytes.starts_with(&HEAD[..8]);
    if bytes.is_empty() || bytes.starts_with(&head(inode)) {
        Ok(())
    } else if ours && !bytes.starts_with(&HEAD) {
        Err(io::Error::other("of another version"))
    } else if bytes.get(12..20).is_some_and(|it| {
        let inode = <[u8; 8]>::try_from(it).map(u64::from_le_bytes);
        inode.is_ok_and(|inode| bytes.starts_with(&head(inode)))
    }) {
        // The run that the other file is of may be at work.
        Err(io::Error::other("a copy"))
    } else {
        Err(io::Error::other("damaged"))
    }
}

#[derive(Debug, Default)]
struct Sorted {
    topics: HashMap<Arc<str>, Vec<(Ended, usize)>>,
    free: Vec<usize>,
    /// The places of ends that are too old, or too many.
    passed_over: Vec<usize>,
}

/// What the file's places say, and which may be used.
fn sort(bytes: &[u8], now: Duration) -> Sorted {
    let mut sorted = Sorted::default();
    let mut found: HashMap<Arc<str>, Vec<(Place, usize)>> = HashMap::new();
    // The head is the first.
    for (index, bytes) in bytes.chunks_exact(PLACE_BYTES).enumerate().skip(1) {
        match decode(bytes) {
            Some(place) => {
                found.entry(Arc::from(place.topic.as_str())).or_default().push((place, index));
            }
            None => sorted.free.push(index),
        }
    }
    for (topic, mut places) in found {
        places.sort_by_key(|(place, _)| place.time_s);
        let too_many = places.len().saturating_sub(ENDED_MAX);
        for (nth, (place, index)) in places.into_iter().enumerate() {
            let age = now.saturating_sub(Duration::from_secs(place.time_s));
            match i64::try_from(place.count) {
                Ok(count) if age <= TOLD_FOR && nth >= too_many => {
                    let ended = Ended { run: place.run, count };
                    sorted.topics.entry(Arc::clone(&topic)).or_default().push((ended, index));
                }
                _ => sorted.passed_over.push(index),
            }
        }
    }
    sorted.free.sort_unstable_by(|one, other| other.cmp(one));
    sorted
}

#[cfg(test)]
mod tests;
