//! The step of smart mode: merges healthy records into rows and inserts the other records.
//!
//! The step needs the newest rows of each target in the batch. They are looked up, or remembered
//! from the last batch.

use std::collections::{BTreeMap, HashMap};

use super::insert::InsertStatement;
use super::merge::{MergeDecision, RowPlace, RowRef, RowSpan, Timeline, TimelineRow};
use super::{PendingWrite, Step};
use crate::decode::row::{DomainRow, MERGED_TOTAL_US_MAX, MergedColumns, RowKind, TotalTimes};
use crate::postgres::domain_table::DomainTable;
use crate::postgres::error::TransactionError;
use crate::postgres::pool::Transaction;

/// The maximum number of rows of a target that are read for a late record. A record that is older
/// than all of these rows is inserted without a merge.
const NEWEST_ROWS_MAX: i64 = 1000;
/// The maximum number of targets that are remembered from batch to batch.
const TARGETS_MAX: usize = 10_000;
/// The maximum number of rows of a URL that are searched for the newest row of a target before a
/// time. Without a limit, each new name would make the transaction read all rows of its URL.
/// Records are not merged into older rows.
const ROWS_BEFORE_MAX: u32 = 10_000;

/// The condition for a stored row that a record may be merged into: the row is healthy and without
/// a mark, as [`common::record::Extra::is_marked`] defines it for records. The time of its first
/// result must be known. It is unknown for rows that an earlier version merged.
const IS_MERGEABLE: &str = r#"("first_event_time" is not null or coalesce("results" = 1, false))
    and coalesce("healthy",
        lower("status"::text) = 'responsive' and lower("phrase"::text) = 'ok')
    and "reason" is null and coalesce("attempts", 1) <= 1 and "first_reason" is null
    and not coalesce("no_network", false) and not coalesce("others_failing", false)
    and "missed" is null"#;

/// The condition that a stored row belongs to the target with the name $3. With a plain comparison,
/// the planner would expect almost no rows, because most targets have no name. It would then read
/// all rows of the URL instead of the newest rows by their index. With `coalesce` it expects every
/// second row.
const HAS_NAME: &str = r#"coalesce("name" = $3, "name" is null and $3::text is null)"#;

/// The location, the URL and the name of a target.
type TargetKey = (String, String, Option<String>);

/// Merges and inserts the rows of a batch. Remembers the newest row of each target after the last
/// transaction.
#[derive(Debug)]
pub(super) struct SmartStep {
    table: DomainTable,
    insert: InsertStatement,
    last_id_sql: String,
    newest_rows_sql: String,
    merge_sql: String,
    newest: HashMap<TargetKey, TimelineRow>,
    /// The highest `id` of the table after the last transaction. If it has changed, another session
    /// has written, and the remembered rows are not used.
    last_id: i64,
}

/// The effect of a transaction of smart mode.
#[derive(Debug)]
pub(super) struct SmartEffect {
    plan: MergePlan,
    /// The ids of the inserted rows by their offsets.
    ids: HashMap<i64, i64>,
}

impl SmartEffect {
    /// The number of inserted rows.
    pub(super) fn inserted(&self) -> usize {
        self.plan.inserts.len()
    }

    /// The number of records that were merged into a row.
    pub(super) fn merged(&self) -> usize {
        self.plan.merged
    }
}

/// The decisions about all rows of a batch.
#[derive(Debug, Default)]
struct MergePlan {
    /// New rows, including the records that were merged into them.
    inserts: Vec<DomainRow>,
    /// The changes of stored rows by `id`.
    updates: BTreeMap<i64, RowUpdate>,
    /// The number of records without a row of their own.
    merged: usize,
    newest: HashMap<TargetKey, TimelineRow>,
    last_id: i64,
}

/// The changes of a stored row by merged records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RowUpdate {
    /// The span of the row with the added results.
    span: RowSpan,
    /// The number of added results.
    results: i64,
    /// The highest slot of the records.
    slot: Option<i64>,
    /// The highest sequence number of the records.
    sequence: Option<i64>,
    /// The `total_us` of the records.
    total_us: Option<TotalTimes>,
}

impl SmartStep {
    pub(super) fn new(table: &DomainTable) -> Self {
        let quoted = table.quoted();
        Self {
            insert: InsertStatement::new(table),
            table: table.clone(),
            last_id_sql: format!(r#"select coalesce(max("id"), 0)::bigint from {quoted}"#),
            newest_rows_sql: newest_rows_sql(&quoted),
            merge_sql: merge_sql(&quoted),
            newest: HashMap::new(),
            last_id: 0,
        }
    }

    /// Decides about all rows of the batch.
    fn plan(
        &self,
        transaction: &mut Transaction<'_>,
        rows: Vec<DomainRow>,
    ) -> Result<MergePlan, TransactionError> {
        // The position does not exclude sessions that write other partitions of the topic, or a
        // topic with the other prefix. They write to the same table.
        transaction.lock(self.table.name())?;
        let last_id_rows = transaction.query(&self.last_id_sql, &[])?;
        let last_id = last_id_rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        let remembered = (last_id == self.last_id).then_some(&self.newest);

        let (target_indexes, oldest_places) = group_by_target(&rows);
        let mut timelines = Vec::with_capacity(oldest_places.len());
        for (target, oldest) in &oldest_places {
            let newest = remembered.and_then(|newest| newest.get(target));
            timelines.push(match newest.filter(|newest| newest.span.last < *oldest) {
                Some(newest) => Timeline::new(vec![newest.clone()], false),
                None => self.look_up(transaction, target, *oldest)?,
            });
        }

        let mut plan = MergePlan { last_id, ..MergePlan::default() };
        for (row, index) in rows.into_iter().zip(target_indexes) {
            // Each index has a timeline.
            if let Some(timeline) = timelines.get_mut(index) {
                plan.add(timeline, row);
            }
        }
        plan.newest = oldest_places
            .into_iter()
            .zip(timelines)
            .filter_map(|((target, _), timeline)| Some((target, timeline.newest()?.clone())))
            .collect();
        Ok(plan)
    }

    /// Reads the newest rows of a target, back to the row before `oldest`.
    fn look_up(
        &self,
        transaction: &mut Transaction<'_>,
        (test_from, url, name): &TargetKey,
        oldest: RowPlace,
    ) -> Result<Timeline, TransactionError> {
        let rows = transaction.query(
            &self.newest_rows_sql,
            &[test_from, url, name, &oldest.event_time, &NEWEST_ROWS_MAX],
        )?;
        let is_complete = (rows.len() as i64) < NEWEST_ROWS_MAX;
        let timeline_row = |row: &postgres::Row| {
            let phrase: &str = row.try_get(5)?;
            let (run, period_ms, has_total_us) =
                (row.try_get(6)?, row.try_get(7)?, row.try_get(8)?);
            let kind = RowKind { phrase: phrase.into(), run, period_ms, has_total_us };
            let (slot, results): (Option<i64>, i64) = (row.try_get(9)?, row.try_get(10)?);
            let place = |time, offset| {
                let (event_time, topic_offset) = (row.try_get(time)?, row.try_get(offset)?);
                Ok::<_, postgres::Error>(RowPlace { event_time, topic_offset })
            };
            // The slots of a merged row have no holes.
            let slots = slot.map(|slot| (slot.saturating_sub(results.saturating_sub(1)), slot));
            Ok(TimelineRow {
                row: RowRef::Stored(row.try_get(0)?),
                span: RowSpan { first: place(3, 4)?, last: place(1, 2)?, slots },
                kind: row.try_get::<_, bool>(11)?.then_some(kind),
            })
        };
        let rows = rows.iter().map(timeline_row).collect::<Result<Vec<_>, postgres::Error>>()?;
        Ok(Timeline::new(rows, is_complete))
    }

    /// Changes the stored rows that records were merged into.
    fn update(
        &self,
        transaction: &mut Transaction<'_>,
        updates: &BTreeMap<i64, RowUpdate>,
    ) -> Result<(), TransactionError> {
        if updates.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = updates.keys().copied().collect();
        let values = || updates.values();
        let times: Vec<i64> = values().map(|update| update.span.last.event_time).collect();
        let offsets: Vec<i64> = values().map(|update| update.span.last.topic_offset).collect();
        let results: Vec<i64> = values().map(|update| update.results).collect();
        let slots: Vec<Option<i64>> = values().map(|update| update.slot).collect();
        let sequences: Vec<Option<i64>> = values().map(|update| update.sequence).collect();
        let first_times: Vec<i64> = values().map(|update| update.span.first.event_time).collect();
        let first_offsets: Vec<i64> =
            values().map(|update| update.span.first.topic_offset).collect();
        let totals = || values().map(|update| update.total_us);
        let sums: Vec<Option<i64>> = totals().map(|total| Some(total?.sum)).collect();
        let minima: Vec<Option<i64>> = totals().map(|total| Some(total?.min)).collect();
        let maxima: Vec<Option<i64>> = totals().map(|total| Some(total?.max)).collect();
        let updated = transaction.execute(
            &self.merge_sql,
            &[
                &ids,
                &times,
                &offsets,
                &results,
                &slots,
                &sequences,
                &first_times,
                &first_offsets,
                &sums,
                &minima,
                &maxima,
            ],
        )?;
        if updated == ids.len() as u64 { Ok(()) } else { Err(TransactionError::MergeTargetMissing) }
    }
}

impl Step for SmartStep {
    type Effect = SmartEffect;

    fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        write: &mut PendingWrite<'_>,
    ) -> Result<SmartEffect, TransactionError> {
        let plan = self.plan(transaction, std::mem::take(&mut write.decoded.rows))?;
        self.update(transaction, &plan.updates)?;
        let ids = self.insert.execute_returning(transaction, &plan.inserts)?.into_iter().collect();
        Ok(SmartEffect { plan, ids })
    }

    fn committed(&mut self, SmartEffect { plan, ids }: SmartEffect) {
        if plan.last_id != self.last_id || self.newest.len() > TARGETS_MAX {
            self.newest.clear();
        }
        self.last_id = ids.values().copied().max().unwrap_or(0).max(plan.last_id);
        for (target, mut newest) in plan.newest {
            if let RowRef::New(index) = newest.row {
                let id = plan.inserts.get(index).and_then(|row| ids.get(&row.topic_offset));
                let Some(id) = id else { continue };
                newest.row = RowRef::Stored(*id);
            }
            self.newest.insert(target, newest);
        }
    }
}

impl MergePlan {
    fn add(&mut self, timeline: &mut Timeline, row: DomainRow) {
        let new = RowRef::New(self.inserts.len());
        match timeline.add(place_of(&row), row.extra.slot, row.kind(), new) {
            MergeDecision::Insert => self.inserts.push(row),
            MergeDecision::Merge(RowRef::Stored(id), span) => {
                self.merged += 1;
                let none =
                    RowUpdate { span, results: 0, slot: None, sequence: None, total_us: None };
                let update = self.updates.entry(id).or_insert(none);
                update.span = span;
                update.results += row.results;
                update.slot = update.slot.max(row.extra.slot);
                update.sequence = update.sequence.max(row.identity.map(|it| it.sequence));
                update.total_us = add_total(update.total_us, row.extra.total_us);
            }
            MergeDecision::Merge(RowRef::New(index), span) => {
                self.merged += 1;
                if let Some(new) = self.inserts.get_mut(index) {
                    let total_us = match new.merged {
                        Some(merged) => merged.total_us,
                        None => new.extra.total_us.map(TotalTimes::of_one),
                    };
                    new.merged = Some(MergedColumns {
                        first_event_time: span.first.event_time,
                        first_offset: span.first.topic_offset,
                        total_us: add_total(total_us, row.extra.total_us),
                    });
                    new.event_time = span.last.event_time;
                    new.topic_offset = span.last.topic_offset;
                    new.results += row.results;
                    new.extra.slot = new.extra.slot.max(row.extra.slot);
                    if let (Some(new), Some(merged)) = (&mut new.identity, row.identity) {
                        new.sequence = new.sequence.max(merged.sequence);
                    }
                }
            }
        }
    }
}

/// Adds one result with this `total_us` to the times. Without any `total_us`, the sum is `None`.
fn add_total(results: Option<TotalTimes>, total_us: Option<i64>) -> Option<TotalTimes> {
    let one = total_us.map(TotalTimes::of_one);
    results.zip(one).map(|(results, one)| results.and(one)).or(results).or(one)
}

/// Returns the newest rows of a target, newest first. Ends with the row before a time, if this row
/// is among the last [`ROWS_BEFORE_MAX`] rows of its URL. Parameters: $1 from, $2 URL, $3 name, $4
/// time, $5 the maximum number of rows.
fn newest_rows_sql(table: &str) -> String {
    format!(
        r#"select "id"::bigint, "event_time", "topic_offset",
            coalesce("first_event_time", "event_time"), coalesce("first_offset", "topic_offset"),
            "phrase"::text, "run", "period_ms"::bigint, "total_us" is not null,
            "slot", coalesce("results", 1)::bigint,
            {IS_MERGEABLE} and coalesce("total_us", 0) between 0 and {MERGED_TOTAL_US_MAX} as mergeable
        from {table}
        where "test_from" = $1 and "url" = $2 and {HAS_NAME}
            and "topic_offset" is not null
            and "status" is not null and "phrase" is not null
            and "event_time" >= coalesce(
                (select "event_time" from
                    (select "event_time", "name" from {table} where "test_from" = $1
                        and "url" = $2 and "event_time" < $4
                        order by "event_time" desc limit {ROWS_BEFORE_MAX}) as before
                    where {HAS_NAME} order by "event_time" desc limit 1), $4)
        order by "event_time" desc, "topic_offset" desc limit $5"#
    )
}

/// Changes rows. The parameters are arrays: $1 id, $2 time, $3 offset, $4 added results, $5 slot,
/// $6 sequence number, $7 first time, $8 its offset, $9 to $11 sum, minimum and maximum of
/// `total_us` of the added results.
fn merge_sql(table: &str) -> String {
    format!(
        r#"update {table} as old set "created_at" = pg_catalog.now(),
            "event_time" = greatest(old."event_time", new.e),
            "topic_offset" = greatest(old."topic_offset", new.o),
            "results" = coalesce(old."results", 1) + new.n,
            "slot" = greatest(old."slot", new.s),
            "sequence" = greatest(old."sequence", new.q),
            "first_event_time" = least(old."first_event_time", new.fe),
            "first_offset" = case when old."first_event_time" < new.fe
                then old."first_offset" else new.fo end,
            "total_us_sum" = coalesce(old."total_us_sum", old."total_us") + new.tsum,
            "total_us_min" = least(old."total_us_min", old."total_us", new.tmin),
            "total_us_max" = greatest(old."total_us_max", old."total_us", new.tmax)
        from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[],
            $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
            $9::bigint[], $10::bigint[], $11::bigint[])
            as new(i, e, o, n, s, q, fe, fo, tsum, tmin, tmax)
        where old."id" = new.i"#
    )
}

/// Returns for each row the index of its target, and the targets with their oldest places. A
/// backlog has many rows of few targets.
fn group_by_target(rows: &[DomainRow]) -> (Vec<usize>, Vec<(TargetKey, RowPlace)>) {
    let mut index_by_target: HashMap<(&str, &str, Option<&str>), usize> = HashMap::new();
    let mut targets: Vec<(TargetKey, RowPlace)> = Vec::new();
    let mut indexes = Vec::with_capacity(rows.len());
    for row in rows {
        let place = place_of(row);
        let index = *index_by_target.entry(row.target()).or_insert(targets.len());
        match targets.get_mut(index) {
            Some((_, oldest)) => *oldest = place.min(*oldest),
            None => {
                let target = (row.test_from.clone(), row.url.clone(), row.extra.name.clone());
                targets.push((target, place));
            }
        }
        indexes.push(index);
    }
    (indexes, targets)
}

fn place_of(row: &DomainRow) -> RowPlace {
    RowPlace { event_time: row.event_time, topic_offset: row.topic_offset }
}
