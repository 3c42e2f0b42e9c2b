//! The step that drops results that are already recorded, and stores gaps in sequence numbers.
//!
//! Each run has a mark for each topic name and partition: the sequence number after the highest
//! recorded sequence number. Marks are stored by the name of the topic, so that a topic that is
//! deleted and recreated keeps its marks. A mark moves in the same transaction as the rows, after
//! the compare-and-set of the position. So the marks that a worker remembers are valid as long as
//! its position is valid.
//!
//! A run may lose its last results. A record of a later run reports them, at an offset after all
//! records of the first run: see [`EndedRun`].

use std::collections::{HashMap, HashSet};

use common::identity::{EndedRun, Identity};
use kafka_client::Uuid;

use super::position::{GAP_TABLE, TopicPartition};
use super::{PendingWrite, Step};
use crate::decode::identities::HeaderClaim;
use crate::postgres::error::TransactionError;
use crate::postgres::pool::Transaction;
use crate::postgres::tables::{MissingColumns, Table, column};

/// The mark of each run. The primary key begins with the topic, because marks are looked up by
/// topic.
pub(crate) const MARK_TABLE: Table<'static> = Table {
    name: "availability_mark",
    columns: &[
        column("topic", "text not null"),
        column("partition", "integer not null"),
        column("run", "uuid not null"),
        column("next_sequence", "bigint not null"),
        column("updated_at", "timestamp with time zone not null default current_timestamp"),
    ],
    added: &[],
    constraints: &[r#"primary key ("topic", "partition", "run")"#],
};

/// The maximum number of runs whose marks are remembered. The marks of other runs are looked up
/// again.
const RUNS_MAX: usize = 1_024;

/// Sequence numbers of a run that never arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SequenceGap {
    run: Uuid,
    /// The first missing sequence number.
    from: i64,
    /// The sequence number after the last missing sequence number.
    to: i64,
    /// The offset of the record that showed the gap.
    offset: i64,
    /// Whether the gap is at the end of the run. A record of a later run showed it.
    at_end: bool,
}

/// The effect of the identities in a batch, given the stored marks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DedupOutcome {
    /// The offsets of records whose results are already recorded.
    duplicates: HashSet<i64>,
    gaps: Vec<SequenceGap>,
    /// The new mark of each run in the batch.
    next: HashMap<Uuid, i64>,
}

impl DedupOutcome {
    /// Applies the rule to the claims of a batch. The sequence numbers of each run increase by one,
    /// from 0. A number that does not increase is a duplicate. If a number increases by more than
    /// one, the numbers between are missing for ever. After a run has ended, the numbers up to its
    /// count are missing for ever, too. `mark` returns the stored mark of a run, and is called once
    /// for each run.
    fn new(claims: &[(i64, HeaderClaim)], mark: impl Fn(Uuid) -> i64) -> Self {
        let mut outcome = Self::default();
        for &(offset, claim) in claims {
            let run = claim.run();
            let next = outcome.next.entry(run).or_insert_with(|| mark(run));
            let (to, after, at_end) = match claim {
                HeaderClaim::Result(Identity { sequence, .. }) if sequence < *next => {
                    outcome.duplicates.insert(offset);
                    continue;
                }
                HeaderClaim::Result(Identity { sequence, .. }) => (sequence, sequence + 1, false),
                HeaderClaim::Ended(EndedRun { count, .. }) => (count, (*next).max(count), true),
            };
            if to > *next {
                outcome.gaps.push(SequenceGap { run, from: *next, to, offset, at_end });
            }
            *next = after;
        }
        outcome
    }

    /// The number of dropped records.
    pub(super) fn count_duplicates(&self) -> u64 {
        self.duplicates.len() as u64
    }

    /// The number of sequence numbers that never arrived.
    pub(super) fn count_missing(&self) -> u64 {
        self.gaps.iter().fold(0, |sum: u64, gap| {
            sum.saturating_add(gap.to.saturating_sub(gap.from).unsigned_abs())
        })
    }
}

/// The number of a partition, and a run.
type RunInPartition = (i32, Uuid);

/// Drops duplicates, and stores marks and gaps. Remembers the marks of runs, so that most batches
/// need no look-up.
#[derive(Debug)]
pub(super) struct SequenceTracker {
    marks: HashMap<RunInPartition, i64>,
    /// Whether the table of gaps has columns for runs and sequence numbers.
    has_runs: bool,
}

impl SequenceTracker {
    /// Creates a step without remembered marks. `missing` has the missing columns of the tables.
    pub(super) fn new(missing: &MissingColumns) -> Self {
        Self { marks: HashMap::new(), has_runs: missing.is_complete(GAP_TABLE.name) }
    }
}

impl Step for SequenceTracker {
    /// The number of the partition, and the outcome of the partition.
    type Effect = (i32, DedupOutcome);

    fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        write: &mut PendingWrite<'_>,
    ) -> Result<Self::Effect, TransactionError> {
        let number = write.partition.number;
        let claims = &write.identities.claims;
        if claims.is_empty() {
            return Ok((number, DedupOutcome::default()));
        }
        let remembered = |run: Uuid| self.marks.get(&(number, run)).copied();
        let runs: HashSet<Uuid> = claims.iter().map(|(_, claim)| claim.run()).collect();
        let unknown: Vec<Uuid> =
            runs.into_iter().filter(|run| remembered(*run).is_none()).collect();
        let stored = read_marks(transaction, write.partition, &unknown)?;
        let mark = |run| remembered(run).or_else(|| stored.get(&run).copied()).unwrap_or(0);
        let outcome = DedupOutcome::new(claims, mark);
        store_marks(transaction, write.partition, &outcome.next)?;
        let topic_id = write.to.topic_id;
        store_gaps(transaction, write.partition, topic_id, &outcome.gaps, self.has_runs)?;
        write.decoded.remove(&outcome.duplicates);
        Ok((number, outcome))
    }

    fn committed(&mut self, (number, outcome): Self::Effect) {
        if self.marks.len() + outcome.next.len() > RUNS_MAX {
            self.marks.clear();
        }
        self.marks.extend(outcome.next.into_iter().map(|(run, next)| ((number, run), next)));
    }
}

fn read_marks(
    transaction: &mut Transaction<'_>,
    TopicPartition { topic, number }: &TopicPartition,
    runs: &[Uuid],
) -> Result<HashMap<Uuid, i64>, TransactionError> {
    let mut marks = HashMap::new();
    if runs.is_empty() {
        return Ok(marks);
    }
    let rows = transaction.query(
        r#"select "run", "next_sequence" from "availability_mark"
        where "topic" = $1 and "partition" = $2 and "run" = any($3::uuid[])"#,
        &[topic, number, &runs],
    )?;
    for row in rows {
        marks.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(marks)
}

fn store_marks(
    transaction: &mut Transaction<'_>,
    TopicPartition { topic, number }: &TopicPartition,
    marks: &HashMap<Uuid, i64>,
) -> Result<(), TransactionError> {
    let (runs, next): (Vec<Uuid>, Vec<i64>) = marks.iter().unzip();
    transaction.execute(
        r#"insert into "availability_mark" ("topic", "partition", "run", "next_sequence")
        select $1, $2, * from unnest($3::uuid[], $4::bigint[])
        on conflict ("topic", "partition", "run") do update
        set "next_sequence" = excluded."next_sequence", "updated_at" = pg_catalog.now()"#,
        &[topic, number, &runs, &next],
    )?;
    Ok(())
}

fn store_gaps(
    transaction: &mut Transaction<'_>,
    TopicPartition { topic, number }: &TopicPartition,
    topic_id: Uuid,
    gaps: &[SequenceGap],
    has_runs: bool,
) -> Result<(), TransactionError> {
    if gaps.is_empty() {
        return Ok(());
    }
    let offsets: Vec<i64> = gaps.iter().map(|gap| gap.offset).collect();
    let reason = |SequenceGap { run, from, to, at_end, .. }: &SequenceGap| {
        let last = if *at_end { ", its last" } else { "" };
        format!("missing sequence numbers: {from} to {} of run {run}{last}", to - 1)
    };
    let reasons: Vec<String> = gaps.iter().map(reason).collect();
    if !has_runs {
        // If the table lacks these columns, the reason holds their values.
        transaction.execute(
            r#"insert into "availability_gap"
            ("topic", "partition", "topic_id", "from_offset", "to_offset", "reason")
            select $1, $2, $3, o, o, m
            from unnest($4::bigint[], $5::text[]) with ordinality as new(o, m, nr) order by nr"#,
            &[topic, number, &topic_id, &offsets, &reasons],
        )?;
        return Ok(());
    }
    let runs: Vec<Uuid> = gaps.iter().map(|gap| gap.run).collect();
    let froms: Vec<i64> = gaps.iter().map(|gap| gap.from).collect();
    let tos: Vec<i64> = gaps.iter().map(|gap| gap.to).collect();
    transaction.execute(
        r#"insert into "availability_gap"
        ("topic", "partition", "topic_id", "from_offset", "to_offset", "reason",
        "run", "from_sequence", "to_sequence")
        select $1, $2, $3, o, o, m, r, f, t
        from unnest($4::bigint[], $5::text[], $6::uuid[], $7::bigint[], $8::bigint[])
            with ordinality as new(o, m, r, f, t, nr)
        order by nr"#,
        &[topic, number, &topic_id, &offsets, &reasons, &runs, &froms, &tos],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
