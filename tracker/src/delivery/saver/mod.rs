//! The saver: takes results from the workers, gives each its number, and makes
//! it safe on disk, whatever Kafka does meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::identity::Run;
use crossbeam_channel::{Receiver, RecvError, never, select_biased};
use kafka_client::ProduceRecord;

use crate::delivery::shared_spool::{Handover, State};
use crate::delivery::spool::{Folder, Given, open_given};
use crate::workers::Probed;

/// The shortest time from one write to the spool's disk to the next: what comes
/// meanwhile is synced together.
const SAVE_EVERY: Duration = Duration::from_millis(20);
/// The shortest time from one hand-over to the next where results wait in memory
/// alone: what comes meanwhile wakes nobody, and goes to Kafka in one request.
/// One that comes later goes at once.
const LINGER: Duration = Duration::from_millis(50);
/// The most results that are numbered and not handed over.
const NUMBERED_MAX: usize = 10_000;

/// The thread's own state.
#[derive(Debug)]
pub struct Saver {
    handover: Arc<Handover>,
    /// This start of the tracker, in each result's identity.
    run: Run,
    /// Topics by name, so that each name is kept once, with the number of the
    /// next result.
    topics: HashMap<String, (Arc<str>, i64)>,
    /// What the next run is to know of the numbers, where there is a disk.
    given: Option<Given>,
    /// What is numbered and not handed over, in its order.
    numbered: Vec<(Arc<str>, ProduceRecord)>,
    unhealthy: usize,
    /// Where results wait on disk, until it is opened.
    folder: Option<(Folder, u64)>,
    /// Not before this are results handed over again.
    next_at: Option<Instant>,
    /// When it is tried again, as it did not take what is in memory.
    retry_at: Option<Instant>,
}

impl Saver {
    /// Numbers the results of `run`, which wait in memory.
    pub fn new(handover: Arc<Handover>, run: Run) -> Self {
        Self {
            handover,
            run,
            topics: HashMap::new(),
            given: None,
            numbered: Vec::new(),
            unhealthy: 0,
            folder: None,
            next_at: None,
            retry_at: None,
        }
    }

    /// Lets results wait in a folder, in at most `bytes_max` bytes.
    pub fn wait_on_disk(&mut self, folder: Folder, bytes_max: u64) {
        self.folder = Some((folder, bytes_max));
    }

    /// Saves results until they end, or `no_more` says that no more will come and
    /// by when all must be over; what has come by then is handed over, and the
    /// producer told of the end.
    pub fn run(mut self, results: &Receiver<Probed>, no_more: &Receiver<Instant>) {
        // Whatever ends this thread, the producer does not wait for ever.
        let _end = End(Arc::clone(&self.handover));
        if let Some((folder, bytes_max)) = self.folder.take() {
            let (given, untold) = open_given(&folder, &self.run);
            self.given = Some(given);
            let mut state = self.handover.state();
            state.untold = untold;
            state.spool.open(folder, bytes_max);
            drop(state);
            self.handover.changed();
        }
        let deadline = loop {
            if let Some(deadline) = self.wait_for_results(results, no_more) {
                break deadline;
            }
            self.hand_over(None);
        };
        while let Ok(probed) = results.try_recv() {
            self.take(probed);
        }
        self.hand_over(Some(deadline));
    }

    /// Waits for results, and takes those that come until it may hand over again;
    /// or until it is time to try the disk anew. By when all must be over, once no
    /// more will come.
    fn wait_for_results(
        &mut self,
        results: &Receiver<Probed>,
        no_more: &Receiver<Instant>,
    ) -> Option<Instant> {
        let ended = |deadline: Result<Instant, RecvError>| {
            Some(deadline.unwrap_or_else(|_| Instant::now()))
        };
        if self.given.is_none()
            && let Some(next_at) = self.next_at
        {
            // A kill takes what is here, numbered or not, so that it may as well
            // gather in the channel, where it wakes nobody.
            select_biased! {
                recv(no_more) -> deadline => return ended(deadline),
                recv(crossbeam_channel::at(next_at)) -> _ => {}
            }
        }
        let retry = self.retry_at.map_or_else(never, crossbeam_channel::at);
        select_biased! {
            recv(no_more) -> deadline => return ended(deadline),
            recv(results) -> probed => match probed {
                Ok(probed) => self.take(probed),
                // All workers have ended, and the word to end is on its way.
                Err(_) => return ended(no_more.recv()),
            },
            recv(retry) -> _ => {}
        }
        // How many numbers are given stands on disk at once.
        while self.given.is_some()
            && let Some(next_at) = self.next_at
            && self.numbered.len() < NUMBERED_MAX
            && let Ok(probed) = results.recv_deadline(next_at)
        {
            self.take(probed);
        }
        let room = NUMBERED_MAX.saturating_sub(self.numbered.len());
        results.try_iter().take(room).for_each(|probed| self.take(probed));
        None
    }

    /// Gives a result its number, before anything can lose it: a lost result then
    /// leaves a hole in the numbers.
    fn take(&mut self, Probed { target, record }: Probed) {
        self.unhealthy += usize::from(!record.healthy());
        let (topic, sequence) = self
            .topics
            .entry(target.topic.clone())
            .or_insert_with(|| (Arc::from(target.topic.as_str()), 0));
        let record = ProduceRecord {
            timestamp_ms: milliseconds(record.timestamp),
            value: record.encode().into(),
            headers: self.run.headers(*sequence),
        };
        *sequence += 1;
        if let Some(given) = &mut self.given {
            given.note(topic, *sequence);
        }
        self.numbered.push((Arc::clone(topic), record));
    }

    /// Puts what is numbered into the spool and makes it safe, in one go: the
    /// producer finds no result that is not, but for what the disk does not take.
    fn hand_over(&mut self, no_more: Option<Instant>) {
        let mut guard = self.handover.state();
        let State { spool, account, lost, .. } = &mut *guard;
        account.unhealthy += std::mem::take(&mut self.unhealthy);
        for (topic, record) in self.numbered.drain(..) {
            spool.push(&topic, record, State::dropped(account, lost));
        }
        spool.save(State::dropped(account, lost));
        account.lost += spool.take_unreadable();
        let pause = if spool.has_disk() { SAVE_EVERY } else { LINGER };
        self.next_at = Some(Instant::now() + pause);
        self.retry_at = spool.retry_at();
        guard.no_more = no_more;
        drop(guard);
        self.handover.changed();
    }
}

/// Says at the end of the saver that nothing more comes, if that was not said.
struct End(Arc<Handover>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.state().no_more.get_or_insert_with(Instant::now);
        self.0.changed();
    }
}

/// Seconds since 1970 as milliseconds; `as` keeps what a float can't hold at
/// the ends of the range.
fn milliseconds(timestamp_s: f64) -> i64 {
    (timestamp_s * 1_000.0) as i64
}

#[cfg(test)]
mod tests;
