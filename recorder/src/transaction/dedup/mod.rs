//! Which results of each run are recorded: what comes again is dropped, and
//! what never came is a gap.
//!
//! A mark is the number after the highest one recorded of a run, in a topic's
//! name and partition: by name, so that a topic that is made again keeps it. It
//! moves in the transaction that holds the rows, under the compare-and-set of
//! the position, so that what a thread remembers of its marks is true for as
//! long as its position is.
//!
//! What a run lost at its very end is told by a later run's record, which stands
//! behind all that is left of the first: see [`Ended`].

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use common::identity::{BrokenIdentity, Ended, Identity};
use common::stop::Stop;
use kafka_client::{FetchedRecord, Uuid};
use postgres_client::PostgresError;

use crate::postgres::pool::{Database, Transaction, WorkError};
use crate::postgres::sql;
use crate::transaction::position::Partition;

/// The most runs that a thread remembers; beyond, it looks them up again.
const RUNS_MAX: usize = 1_024;
/// How often marks of old runs are removed.
const REMOVE_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long that may take.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(30);

/// A partition and a run, and the number after the highest recorded.
type Next = HashMap<(i32, Uuid), i64>;

/// What a record's headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// Which result it is.
    Is(Identity),
    /// That a run before has given no more numbers than these.
    Ended(Ended),
}

impl Said {
    fn run(&self) -> Uuid {
        match self {
            Self::Is(Identity { run, .. }) | Self::Ended(Ended { run, .. }) => *run,
        }
    }
}

/// What the headers of a batch's records say.
#[derive(Debug, Default)]
pub struct Identities {
    /// What they say, each with its record's offset, in order.
    known: Vec<(i64, Said)>,
    /// How many records have headers that look like one and are none.
    broken: u64,
    /// The first of these, and its offset.
    first_broken: Option<(i64, BrokenIdentity)>,
}

impl Identities {
    /// Of these records, in the order of their offsets. What is broken counts
    /// as if it were not there: better a result twice than none.
    pub fn new(records: &[FetchedRecord]) -> Self {
        let mut identities = Self::default();
        for FetchedRecord { offset, headers, .. } in records {
            match Identity::from_headers(headers) {
                Ok(None) => {}
                Ok(Some(identity)) => identities.known.push((*offset, Said::Is(identity))),
                Err(broken) => identities.broken(*offset, broken),
            }
            match Ended::from_headers(headers) {
                Ok(ended) => {
                    let said = ended.into_iter().map(|ended| (*offset, Said::Ended(ended)));
                    identities.known.extend(said);
                }
                Err(broken) => identities.broken(*offset, broken),
            }
        }
        identities
    }

    fn broken(&mut self, offset: i64, broken: BrokenIdentity) {
        self.broken += 1;
        self.first_broken.get_or_insert((offset, broken));
    }
}

/// Numbers of a run that never came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Missing {
    run: Uuid,
    /// The first that is missing.
    from: i64,
    /// The one that came instead, or the one after the last that was given.
    to: i64,
    /// The offset at which it was seen.
    offset: i64,
    /// Nothing came after them: another run told of them.
    at_end: bool,
}

/// What becomes of a batch's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// The offsets of those that are recorded already.
    pub dropped: HashSet<i64>,
    missing: Vec<Missing>,
    /// The number after the highest of each run that was seen.
    next: HashMap<Uuid, i64>,
}

impl Judged {
    /// The rule: of each run the numbers go up by one from 0. One that does
    /// not go up was there before, and where one goes up by more, those between
    /// never come any more; nor do those up to the count of a run that has ended.
    /// `next_of` says the number after the highest one recorded, and is asked once
    /// a run.
    fn new(known: &[(i64, Said)], next_of: impl Fn(Uuid) -> i64) -> Self {
        let mut judged = Self::default();
        for &(offset, said) in known {
            let run = said.run();
            let next = judged.next.entry(run).or_insert_with(|| next_of(run));
            let (to, after, at_end) = match said {
                Said::Is(Identity { sequence, .. }) if sequence < *next => {
                    judged.dropped.insert(offset);
                    continue;
                }
                Said::Is(Identity { sequence, .. }) => (sequence, sequence + 1, false),
                Said::Ended(Ended { count, .. }) => (count, (*next).max(count), true),
            };
            if to > *next {
                judged.missing.push(Missing { run, from: *next, to, offset, at_end });
            }
            *next = after;
        }
        judged
    }

    /// How many numbers never came.
    fn missing(&self) -> u64 {
        self.missing.iter().fold(0, |sum: u64, missing| {
            sum.saturating_add(missing.to.saturating_sub(missing.from).unsigned_abs())
        })
    }

    /// What is to be counted of it, and said.
    pub fn irregular(&self, identities: &Identities) -> Irregular {
        Irregular {
            duplicates: self.dropped.len() as u64,
            missing: self.missing(),
            broken: identities.broken,
            first_broken: identities.first_broken,
        }
    }
}

/// What a domain's thread knows of its marks, in all of its topic's partitions.
#[derive(Debug, Default)]
pub struct Marks {
    next: Next,
    removed: HashMap<i32, Instant>,
}

impl Marks {
    /// Forgets what the database may know better: after any failure, and
    /// whenever the position is read anew.
    pub fn forget(&mut self) {
        self.next.clear();
    }

    /// Remembers what a transaction that took place has stored.
    pub fn keep(&mut self, partition: i32, judged: &Judged) {
        if self.next.len() + judged.next.len() > RUNS_MAX {
            self.next.clear();
        }
        self.next.extend(judged.next.iter().map(|(run, next)| ((partition, *run), *next)));
    }

    /// Judges a batch, after the position was moved in the same transaction,
    /// and stores the marks and the gaps. A batch without identities, or of
    /// runs that are remembered, is not looked up.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub fn judge(
        &self,
        transaction: &mut Transaction<'_>,
        partition: &Partition,
        topic_id: Uuid,
        identities: &Identities,
    ) -> Result<Judged, PostgresError> {
        if identities.known.is_empty() {
            return Ok(Judged::default());
        }
        let Partition { topic, number } = partition;
        let remembered = |run: Uuid| self.next.get(&(*number, run)).copied();
        let runs: HashSet<Uuid> = identities.known.iter().map(|(_, said)| said.run()).collect();
        let runs: Vec<Uuid> = runs.into_iter().filter(|run| remembered(*run).is_none()).collect();
        let mut stored: HashMap<Uuid, i64> = HashMap::new();
        if !runs.is_empty() {
            for row in transaction.query(sql::MARKS, &[topic, number, &runs])? {
                stored.insert(row.try_get(0)?, row.try_get(1)?);
            }
        }
        let next_of = |run| remembered(run).or_else(|| stored.get(&run).copied()).unwrap_or(0);
        let judged = Judged::new(&identities.known, next_of);
        let (runs, next): (Vec<Uuid>, Vec<i64>) = judged.next.iter().unzip();
        transaction.execute(sql::MARKS_MOVE, &[topic, number, &runs, &next])?;
        if !judged.missing.is_empty() {
            store_missing(transaction, partition, topic_id, &judged.missing)?;
        }
        Ok(judged)
    }

    /// Removes the marks of runs that were silent for long, once a day, as
    /// [`sql::MARKS_REMOVE`] says. To be called when all that is in the topic
    /// is recorded: a run whose results still wait there is not silent.
    ///
    /// # Errors
    /// See [`WorkError`]; that the right to delete is lacking is none, and they
    /// stay.
    pub fn remove_old(
        &mut self,
        database: &Database,
        stop: &Stop,
        Partition { topic, number }: &Partition,
    ) -> Result<(), WorkError> {
        if self.removed.get(number).is_some_and(|last| last.elapsed() < REMOVE_EVERY) {
            return Ok(());
        }
        let remove = |transaction: &mut Transaction<'_>| {
            Ok(transaction.execute(sql::MARKS_REMOVE, &[topic, number])?)
        };
        match database.transaction(stop, REMOVE_TIMEOUT, remove) {
            Ok(0) => {}
            Ok(removed) => log::info!("{topic}/{number}: removed the marks of {removed} old runs"),
            Err(WorkError::Postgres(error)) if error.is_denied() => {
                log::debug!("{topic}/{number}: marks of old runs stay: {error}");
            }
            Err(error) => return Err(error),
        }
        self.removed.insert(*number, Instant::now());
        Ok(())
    }
}

fn store_missing(
    transaction: &mut Transaction<'_>,
    Partition { topic, number }: &Partition,
    topic_id: Uuid,
    missing: &[Missing],
) -> Result<(), PostgresError> {
    let offsets: Vec<i64> = missing.iter().map(|gap| gap.offset).collect();
    let reasons: Vec<String> = missing
        .iter()
        .map(|Missing { run, from, to, at_end, .. }| {
            let last = if *at_end { ", its last" } else { "" };
            format!("missing sequence numbers: {from} to {} of run {run}{last}", to - 1)
        })
        .collect();
    let runs: Vec<Uuid> = missing.iter().map(|gap| gap.run).collect();
    let froms: Vec<i64> = missing.iter().map(|gap| gap.from).collect();
    let tos: Vec<i64> = missing.iter().map(|gap| gap.to).collect();
    transaction.execute(
        sql::SEQUENCE_GAP_INSERT,
        &[topic, number, &topic_id, &offsets, &reasons, &runs, &froms, &tos],
    )?;
    Ok(())
}

/// How often what is irregular is logged.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What is not as a tracker's numbers should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Irregular {
    /// Records that were dropped, as their results are recorded already.
    pub duplicates: u64,
    /// Numbers that never came.
    pub missing: u64,
    /// Records whose identity is broken, recorded without one.
    pub broken: u64,
    /// The first of these: its offset, and what is wrong.
    pub first_broken: Option<(i64, BrokenIdentity)>,
}

impl AddAssign for Irregular {
    fn add_assign(&mut self, other: Self) {
        self.duplicates += other.duplicates;
        self.missing = self.missing.saturating_add(other.missing);
        self.broken += other.broken;
        self.first_broken = self.first_broken.or(other.first_broken);
    }
}

/// Says what is irregular, once a minute at most.
#[derive(Debug, Default)]
pub struct Sayings {
    unsaid: Irregular,
    said: Option<Instant>,
}

impl Sayings {
    /// Adds what is to be said.
    pub fn add(&mut self, irregular: Irregular) {
        self.unsaid += irregular;
    }

    /// Says it, if there is anything and `at_last` or the last time was a
    /// minute ago.
    pub fn say(&mut self, topic: &str, at_last: bool) {
        let early = self.said.is_some_and(|said| said.elapsed() < SAY_EVERY);
        if self.unsaid == Irregular::default() || early && !at_last {
            return;
        }
        self.said = Some(Instant::now());
        let Irregular { duplicates, missing, broken, first_broken } =
            std::mem::take(&mut self.unsaid);
        if missing > 0 {
            log::warn!("{topic}: {missing} results of a tracker never came: see availability_gap");
        }
        if duplicates > 0 {
            log::info!("{topic}: {duplicates} records dropped, as they are recorded already");
        }
        if let Some((offset, cause)) = first_broken {
            log::warn!(
                "{topic}: {broken} records with a broken identity, recorded without it (first at offset {offset}: {cause})"
            );
        }
    }
}

#[cfg(test)]
mod tests;
