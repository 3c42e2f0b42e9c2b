//! Checks one topic: every result is one row, or part of one merged row, or in quarantine, or in
//! a gap, exactly once and in order. Pure functions.
//!
//! The records in Kafka determine the correct content of the database. The recorder reads every
//! record outside the gaps of offsets. Of each run it records every sequence number above the
//! highest recorded one. The sequence numbers in between are gaps.

mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use common::record::Record;
use kafka_client::Uuid;

use crate::observations::{KafkaRecord, StoredGap, TopicObservations};

/// The number of results by their outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ResultCounts {
    /// Sequence numbers issued, plus records without a sequence number.
    pub(crate) issued: u64,
    pub(crate) rows: u64,
    /// Results merged into a row that an earlier result began.
    pub(crate) merged: u64,
    pub(crate) quarantined: u64,
    /// Sequence numbers that never arrived, by the gaps.
    pub(crate) missing: u64,
    /// Results that the recorder never read, in gaps of offsets.
    pub(crate) unread: u64,
    /// Duplicates in Kafka that are not in the database.
    pub(crate) dropped: u64,
}

impl ResultCounts {
    /// Adds the counts of another topic.
    pub(crate) fn add(&mut self, other: Self) {
        self.issued += other.issued;
        self.rows += other.rows;
        self.merged += other.merged;
        self.quarantined += other.quarantined;
        self.missing += other.missing;
        self.unread += other.unread;
        self.dropped += other.dropped;
    }

    /// Whether every issued result has exactly one outcome.
    pub(crate) fn balances(&self) -> bool {
        let outcomes =
            [self.rows, self.merged, self.quarantined, self.missing, self.unread].iter().sum();
        self.issued == outcomes
    }
}

/// A record that the recorder must have recorded, and the incarnation (by index) that it was in.
#[derive(Debug, Clone, Copy)]
struct RecordedResult<'a> {
    incarnation: usize,
    record: &'a KafkaRecord,
}

/// The outcome of the check of one topic.
#[derive(Debug, Default)]
pub(crate) struct OracleReport {
    /// Results by outcome.
    pub(crate) counts: ResultCounts,
    /// Descriptions of everything that is not as required.
    pub(crate) errors: Vec<String>,
    /// The sequence numbers of each run that never arrived.
    pub(crate) missing: HashMap<Uuid, MissingSequences>,
}

/// The sequence numbers of a run that never arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MissingSequences {
    /// The location of the run's tracker.
    pub(crate) location: String,
    /// Number of missing sequence numbers below a recorded number.
    pub(crate) followed: u64,
    /// Number of missing sequence numbers at the end of the run.
    pub(crate) at_end: u64,
}

/// Checks one topic.
pub(crate) fn check_topic(observed: &TopicObservations, smart: bool) -> OracleReport {
    let mut report = OracleReport::default();
    let reads = ExpectedReads::compute(observed, &mut report);
    rows::check_rows(observed, &reads, smart, &mut report);
    check_sequences(observed, &reads, &mut report);
    check_position(observed, &mut report);
    let counts = &report.counts;
    if !counts.balances() && report.errors.is_empty() {
        report.errors.push(format!("{}: the counts do not add up: {counts:?}", observed.topic));
    }
    report
}

/// The records in Kafka that a correct recorder reads and records.
#[derive(Debug, Default)]
struct ExpectedReads<'a> {
    recorded: Vec<RecordedResult<'a>>,
    /// For each run, the sequence number after the highest recorded or reported one.
    next: HashMap<Uuid, i64>,
    /// For each run, the sequence number after the highest one that unread records carry or
    /// report. No gap is required for the sequence numbers from `next` up to here: the recorder
    /// can't know of them.
    next_unread: HashMap<Uuid, i64>,
}

impl<'a> ExpectedReads<'a> {
    fn compute(observed: &'a TopicObservations, report: &mut OracleReport) -> Self {
        let mut reads = Self::default();
        let mut seen = HashSet::new();
        for (index, incarnation) in observed.incarnations.iter().enumerate() {
            // An incarnation that is not the last was read up to its gap. Without a gap it was
            // not read at all.
            let is_last = index + 1 == observed.incarnations.len();
            let was_read = is_last || observed.gaps.iter().any(|gap| {
                matches!(gap, StoredGap::Offsets { topic_id, to: None, .. } if *topic_id == incarnation.id)
            });
            for record in &incarnation.records {
                let in_gap = observed.gaps.iter().any(|gap| match gap {
                    StoredGap::Offsets { topic_id, from, to } => {
                        *topic_id == incarnation.id
                            && *from <= record.offset
                            && to.is_none_or(|to| record.offset < to)
                    }
                    StoredGap::Sequence { .. } => false,
                });
                if in_gap || !was_read {
                    let reported = record.ended.iter().map(|ended| (ended.run, ended.count));
                    let own = record.identity.map(|identity| (identity.run, identity.sequence + 1));
                    for (run, count) in reported.chain(own) {
                        let next = reads.next_unread.entry(run).or_insert(0);
                        *next = count.max(*next);
                    }
                    if own.is_none() {
                        report.counts.unread += 1;
                        report.counts.issued += 1;
                    }
                    continue;
                }
                for ended in &record.ended {
                    let next = reads.next.entry(ended.run).or_insert(0);
                    *next = ended.count.max(*next);
                }
                let Some(identity) = record.identity else {
                    report.counts.issued += 1;
                    reads.recorded.push(RecordedResult { incarnation: index, record });
                    continue;
                };
                let next = reads.next.entry(identity.run).or_insert(0);
                if identity.sequence >= *next {
                    *next = identity.sequence + 1;
                    seen.insert((identity.run, identity.sequence));
                    reads.recorded.push(RecordedResult { incarnation: index, record });
                    continue;
                }
                report.counts.dropped += 1;
                if !seen.contains(&(identity.run, identity.sequence)) {
                    report.errors.push(format!(
                        "{}: run {} sequence {}: arrived at offset {} of {} after a higher one, and is \
                         lost",
                        observed.topic, identity.run, identity.sequence, record.offset, incarnation.id
                    ));
                }
            }
        }
        reads
    }
}

/// Checks that every sequence number up to the highest is recorded or in exactly one gap.
fn check_sequences(
    observed: &TopicObservations,
    reads: &ExpectedReads<'_>,
    report: &mut OracleReport,
) {
    let topic = &observed.topic;
    let mut recorded: HashMap<Uuid, BTreeSet<i64>> = HashMap::new();
    let mut locations: HashMap<Uuid, String> = HashMap::new();
    for RecordedResult { record, .. } in &reads.recorded {
        let Some(identity) = record.identity else { continue };
        recorded.entry(identity.run).or_default().insert(identity.sequence);
        if let Ok(decoded) = Record::decode(&record.value) {
            locations.entry(identity.run).or_insert(decoded.from);
        }
    }
    for (run, highest) in highest_issued(observed) {
        let sequences = recorded.get(&run);
        let mut covered: BTreeMap<i64, u32> = BTreeMap::new();
        for gap in &observed.gaps {
            if let StoredGap::Sequence { run: of, from, to } = gap
                && *of == run
            {
                (*from..*to).for_each(|sequence| *covered.entry(sequence).or_default() += 1);
            }
        }
        let end_report_may_be_deleted = end_report_may_be_deleted(observed, run, &locations);
        let mut missing = MissingSequences::default();
        for sequence in 0..=highest {
            report.counts.issued += 1;
            let is_recorded = sequences.is_some_and(|it| it.contains(&sequence));
            let gaps = covered.get(&sequence).copied().unwrap_or(0);
            match (is_recorded, gaps) {
                (true, 0) => missing.followed += std::mem::take(&mut missing.at_end),
                (false, 1) => {
                    missing.at_end += 1;
                    report.counts.missing += 1;
                }
                (false, 0)
                    if sequence >= reads.next.get(&run).copied().unwrap_or(0)
                        && (end_report_may_be_deleted
                            || reads
                                .next_unread
                                .get(&run)
                                .is_some_and(|next| sequence < *next)) =>
                {
                    report.counts.unread += 1;
                }
                (false, 0) => report.errors.push(format!(
                    "{topic}: run {run} sequence {sequence}: neither recorded nor in a gap, and \
                     {highest} was issued"
                )),
                _ => report.errors.push(format!(
                    "{topic}: run {run} sequence {sequence}: in {gaps} gaps, recorded: {is_recorded}"
                )),
            }
        }
        if missing != MissingSequences::default() {
            missing.location = locations.get(&run).cloned().unwrap_or_default();
            report.missing.insert(run, missing);
        }
        // Sequence numbers at the end of a run can be known as missing from the `ended` header of
        // another run.
        let reported = observed.gaps.iter().filter_map(|gap| match gap {
            StoredGap::Sequence { run: of, to, .. } if *of == run => Some(to),
            _ => None,
        });
        let next = reported.chain(reads.next.get(&run)).max();
        let stored = observed.next_sequences.get(&run);
        if stored != next {
            report.errors.push(format!(
                "{topic}: run {run}: availability_mark has {stored:?}, expected {next:?}"
            ));
        }
    }
}

/// Whether the records that reported the end of this run may have been deleted with their topic
/// before the recorder and the topic reader read them. Only the first records of a later run of
/// the same tracker report it.
fn end_report_may_be_deleted(
    observed: &TopicObservations,
    run: Uuid,
    locations: &HashMap<Uuid, String>,
) -> bool {
    let last = observed.incarnations.last().map(|incarnation| incarnation.id);
    let was_deleted = observed.gaps.iter().any(|gap| {
        matches!(gap, StoredGap::Offsets { topic_id, to: None, .. } if Some(*topic_id) != last)
    });
    let own = locations.get(&run);
    was_deleted
        && observed.gaps.iter().any(|gap| match gap {
            StoredGap::Sequence { run: other, from: 0, .. } => {
                *other != run && own.is_none_or(|own| locations.get(other) == Some(own))
            }
            _ => false,
        })
}

/// The highest sequence number that each run issued: from the tracker's spool if it is there,
/// else the highest number seen in Kafka or in a gap.
fn highest_issued(observed: &TopicObservations) -> BTreeMap<Uuid, i64> {
    let records = observed.incarnations.iter().flat_map(|incarnation| &incarnation.records);
    let seen = records.filter_map(|record| record.identity).map(|it| (it.run, it.sequence));
    let gaps = observed.gaps.iter().filter_map(|gap| match gap {
        StoredGap::Sequence { run, to, .. } => Some((*run, to - 1)),
        StoredGap::Offsets { .. } => None,
    });
    let mut highest = BTreeMap::new();
    let from_spools = observed.issued_counts.iter().map(|(run, count)| (*run, count - 1));
    for (run, sequence) in seen.chain(gaps).chain(from_spools) {
        let entry = highest.entry(run).or_insert(sequence);
        *entry = sequence.max(*entry);
    }
    highest
}

/// Checks that the recorder and the topic reader read the log to its end.
fn check_position(observed: &TopicObservations, report: &mut OracleReport) {
    let topic = &observed.topic;
    let Some(incarnation) = observed.incarnations.last() else {
        report.errors.push(format!("{topic}: the topic was never found"));
        return;
    };
    let end = Some((incarnation.id, observed.log_end));
    if observed.position != end {
        report.errors.push(format!(
            "{topic}: the position is {:?}, but the log ends at {end:?}",
            observed.position
        ));
    }
    if incarnation.next_offset != observed.log_end {
        report.errors.push(format!(
            "{topic}: the topic reader read up to {}, but the log ends at {}",
            incarnation.next_offset, observed.log_end
        ));
    }
}

#[cfg(test)]
mod tests;
