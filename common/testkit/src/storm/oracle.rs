//! Judges one topic: every result is one row, or part of one merged row, or in
//! quarantine, or in a gap; exactly once, and in order. Pure.
//!
//! What the recorder should have written follows from what was in Kafka: it
//! read everything but what gaps of offsets name, of each run what it had not
//! read before, and the numbers between are gaps.

mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use common::record::Record;
use kafka_client::Uuid;

use super::facts::{StoredGap, Tapped, TopicFacts};

/// What it comes to, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Numbers given, and records without one.
    pub(super) given: u64,
    /// Rows.
    pub(super) rows: u64,
    /// Results that are part of a row that another one began.
    pub(super) merged: u64,
    /// Results in quarantine.
    pub(super) quarantined: u64,
    /// Numbers that never came, by the gaps.
    pub(super) missing: u64,
    /// Results that were read by nobody, in gaps of offsets.
    pub(super) unread: u64,
    /// Copies in Kafka that are not in the database.
    pub(super) dropped: u64,
}

impl Account {
    /// The sum of two.
    pub(super) fn add(&mut self, other: Self) {
        self.given += other.given;
        self.rows += other.rows;
        self.merged += other.merged;
        self.quarantined += other.quarantined;
        self.missing += other.missing;
        self.unread += other.unread;
        self.dropped += other.dropped;
    }

    /// Whether what was given is what became of it.
    pub(super) fn balances(&self) -> bool {
        let became =
            [self.rows, self.merged, self.quarantined, self.missing, self.unread].iter().sum();
        self.given == became
    }
}

/// A record that was recorded, and where it was.
#[derive(Debug, Clone, Copy)]
struct Recorded<'a> {
    life: usize,
    record: &'a Tapped,
}

/// A judgement: the account, and what is wrong in words.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// In numbers.
    pub(super) account: Account,
    /// Each thing that is not as it should be.
    pub(super) wrong: Vec<String>,
    /// What never came of each run.
    pub(super) missing: HashMap<Uuid, Missing>,
}

/// Numbers of a run that never came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// From where the run says that it probes.
    pub(super) from: String,
    /// How many of them others came after.
    pub(super) inner: u64,
    /// How many of them are its last.
    pub(super) at_end: u64,
}

/// Judges a topic.
pub(super) fn judge(facts: &TopicFacts, smart: bool) -> Judgement {
    let mut judgement = Judgement::default();
    let reading = Reading::of(facts, &mut judgement);
    rows::judge(facts, &reading, smart, &mut judgement);
    judge_numbers(facts, &reading, &mut judgement);
    judge_position(facts, &mut judgement);
    let account = &judgement.account;
    if !account.balances() && judgement.wrong.is_empty() {
        judgement.wrong.push(format!("{}: does not balance: {account:?}", facts.topic));
    }
    judgement
}

/// What a recorder that works makes of what was in Kafka.
#[derive(Debug, Default)]
struct Reading<'a> {
    recorded: Vec<Recorded<'a>>,
    /// The number after the highest recorded.
    next: HashMap<Uuid, i64>,
    /// The number after the highest that records which were never read have, or
    /// tell of. Those from the highest recorded on are nobody's to miss.
    next_unread: HashMap<Uuid, i64>,
}

impl<'a> Reading<'a> {
    fn of(facts: &'a TopicFacts, judgement: &mut Judgement) -> Self {
        let mut reading = Self::default();
        let mut seen = HashSet::new();
        for (index, life) in facts.lives.iter().enumerate() {
            // One that was followed by another was read up to its gap, or not at all.
            let is_last = index + 1 == facts.lives.len();
            let was_read = is_last || facts.gaps.iter().any(|gap| {
                matches!(gap, StoredGap::Offsets { topic_id, to: None, .. } if *topic_id == life.id)
            });
            for record in &life.records {
                let in_gap = facts.gaps.iter().any(|gap| match gap {
                    StoredGap::Offsets { topic_id, from, to } => {
                        *topic_id == life.id
                            && *from <= record.offset
                            && to.is_none_or(|to| record.offset < to)
                    }
                    StoredGap::Sequence { .. } => false,
                });
                if in_gap || !was_read {
                    let told = record.ended.iter().map(|ended| (ended.run, ended.count));
                    let own = record.identity.map(|known| (known.run, known.sequence + 1));
                    for (run, count) in told.chain(own) {
                        let next = reading.next_unread.entry(run).or_insert(0);
                        *next = count.max(*next);
                    }
                    if own.is_none() {
                        judgement.account.unread += 1;
                        judgement.account.given += 1;
                    }
                    continue;
                }
                for ended in &record.ended {
                    let next = reading.next.entry(ended.run).or_insert(0);
                    *next = ended.count.max(*next);
                }
                let Some(known) = record.identity else {
                    judgement.account.given += 1;
                    reading.recorded.push(Recorded { life: index, record });
                    continue;
                };
                let next = reading.next.entry(known.run).or_insert(0);
                if known.sequence >= *next {
                    *next = known.sequence + 1;
                    seen.insert((known.run, known.sequence));
                    reading.recorded.push(Recorded { life: index, record });
                    continue;
                }
                judgement.account.dropped += 1;
                if !seen.contains(&(known.run, known.sequence)) {
                    judgement.wrong.push(format!(
                        "{}: run {} number {}: came at offset {} of {}, after a later one, and is \
                         lost",
                        facts.topic, known.run, known.sequence, record.offset, life.id
                    ));
                }
            }
        }
        reading
    }
}

/// Every number up to the highest is recorded or in one gap.
fn judge_numbers(facts: &TopicFacts, reading: &Reading<'_>, judgement: &mut Judgement) {
    let topic = &facts.topic;
    let mut recorded: HashMap<Uuid, BTreeSet<i64>> = HashMap::new();
    let mut location: HashMap<Uuid, String> = HashMap::new();
    for Recorded { record, .. } in &reading.recorded {
        let Some(known) = record.identity else { continue };
        recorded.entry(known.run).or_default().insert(known.sequence);
        if let Ok(decoded) = Record::decode(&record.value) {
            location.entry(known.run).or_insert(decoded.from);
        }
    }
    for (run, highest) in highest_given(facts) {
        let numbers = recorded.get(&run);
        let mut covered: BTreeMap<i64, u32> = BTreeMap::new();
        for gap in &facts.gaps {
            if let StoredGap::Sequence { run: of, from, to } = gap
                && *of == run
            {
                (*from..*to).for_each(|number| *covered.entry(number).or_default() += 1);
            }
        }
        let was_told_unread = was_told_unread(facts, run, &location);
        let mut missing = Missing::default();
        for number in 0..=highest {
            judgement.account.given += 1;
            let is_recorded = numbers.is_some_and(|it| it.contains(&number));
            let gaps = covered.get(&number).copied().unwrap_or(0);
            match (is_recorded, gaps) {
                (true, 0) => missing.inner += std::mem::take(&mut missing.at_end),
                (false, 1) => {
                    missing.at_end += 1;
                    judgement.account.missing += 1;
                }
                (false, 0)
                    if number >= reading.next.get(&run).copied().unwrap_or(0)
                        && (was_told_unread
                            || reading
                                .next_unread
                                .get(&run)
                                .is_some_and(|next| number < *next)) =>
                {
                    judgement.account.unread += 1;
                }
                (false, 0) => judgement.wrong.push(format!(
                    "{topic}: run {run} number {number}: neither recorded nor in a gap, and \
                     {highest} was given"
                )),
                _ => judgement.wrong.push(format!(
                    "{topic}: run {run} number {number}: in {gaps} gaps, recorded: {is_recorded}"
                )),
            }
        }
        if missing != Missing::default() {
            missing.from = location.get(&run).cloned().unwrap_or_default();
            judgement.missing.insert(run, missing);
        }
        // What a run lost at its end may be known too: no number comes after those.
        let told = facts.gaps.iter().filter_map(|gap| match gap {
            StoredGap::Sequence { run: of, to, .. } if *of == run => Some(to),
            _ => None,
        });
        let next = told.chain(reading.next.get(&run)).max();
        let mark = facts.marks.get(&run);
        if mark != next {
            judgement
                .wrong
                .push(format!("{topic}: run {run}: the mark is {mark:?}, expected {next:?}"));
        }
    }
}

/// Whether what told of a run's end may have been deleted before anybody read it, the
/// tap neither: the first records of a later run of the same tracker were, by a topic
/// that was.
fn was_told_unread(facts: &TopicFacts, run: Uuid, location: &HashMap<Uuid, String>) -> bool {
    let last = facts.lives.last().map(|life| life.id);
    let was_deleted = facts.gaps.iter().any(|gap| {
        matches!(gap, StoredGap::Offsets { topic_id, to: None, .. } if Some(*topic_id) != last)
    });
    let own = location.get(&run);
    was_deleted
        && facts.gaps.iter().any(|gap| match gap {
            StoredGap::Sequence { run: other, from: 0, .. } => {
                *other != run && own.is_none_or(|own| location.get(other) == Some(own))
            }
            _ => false,
        })
}

/// The highest number that each run gave: as its spool tells, or, of one without,
/// the highest seen in Kafka or in a gap.
fn highest_given(facts: &TopicFacts) -> BTreeMap<Uuid, i64> {
    let records = facts.lives.iter().flat_map(|life| &life.records);
    let seen = records.filter_map(|record| record.identity).map(|it| (it.run, it.sequence));
    let gaps = facts.gaps.iter().filter_map(|gap| match gap {
        StoredGap::Sequence { run, to, .. } => Some((*run, to - 1)),
        StoredGap::Offsets { .. } => None,
    });
    let mut highest = BTreeMap::new();
    let given = facts.given.iter().map(|(run, count)| (*run, count - 1));
    for (run, number) in seen.chain(gaps).chain(given) {
        let entry = highest.entry(run).or_insert(number);
        *entry = number.max(*entry);
    }
    highest
}

/// All that is in the log was read, by the tap and by the recorder.
fn judge_position(facts: &TopicFacts, judgement: &mut Judgement) {
    let topic = &facts.topic;
    let Some(life) = facts.lives.last() else {
        judgement.wrong.push(format!("{topic}: was never there"));
        return;
    };
    let end = Some((life.id, facts.log_end));
    if facts.position != end {
        judgement.wrong.push(format!(
            "{topic}: the position is {:?}, and the log ends at {end:?}",
            facts.position
        ));
    }
    if life.next_offset != facts.log_end {
        judgement.wrong.push(format!(
            "{topic}: the tap read up to {}, and the log ends at {}",
            life.next_offset, facts.log_end
        ));
    }
}

#[cfg(test)]
mod tests;
