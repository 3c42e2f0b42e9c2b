//! Smart mode within a transaction: what is known of each target, looked up
//! where it must be, and kept from batch to batch where that is safe.

use std::collections::{BTreeMap, HashMap};

use crate::decode::row::Row;
use crate::postgres::domain_table::TableSql;
use crate::postgres::pool::{Transaction, WorkError};
use crate::schema::lock_key;
use crate::transaction::merge::{Change, Kind, Known, Place, RowRef, Timeline};

/// The most rows of a target that are looked at for a late record; before
/// these it is inserted without being merged.
const NEWEST_ROWS_MAX: i64 = 1000;
/// The most targets that are remembered from batch to batch.
const TARGETS_MAX: usize = 10_000;

/// Location, URL and name.
type Target = (String, String, Option<String>);

/// The newest row of each target, as the last transaction left it.
#[derive(Debug, Default)]
pub struct Memory {
    newest: HashMap<Target, Known>,
    /// The table's highest `id` then: when it is another now, somebody else
    /// wrote, and nothing remembered counts.
    last_id: i64,
}

/// A batch in smart mode, as it is to be written.
#[derive(Debug, Default)]
pub struct Plan {
    /// New rows, with the records merged into them.
    pub inserts: Vec<Row>,
    /// What becomes of rows of the table, by `id`.
    pub merges: BTreeMap<i64, Merge>,
    /// Records that are no row of their own.
    pub merged: usize,
    newest: HashMap<Target, Known>,
    last_id: i64,
}

/// What records add to a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merge {
    /// Where it stands then.
    pub place: Place,
    /// How many they are.
    pub results: i64,
    /// Their highest slot.
    pub slot: Option<i64>,
    /// Their highest number.
    pub sequence: Option<i64>,
}

/// Decides on every row of a batch.
///
/// # Errors
/// See [`WorkError`].
pub fn plan(
    transaction: &mut Transaction<'_>,
    sql: &TableSql,
    memory: &Memory,
    rows: Vec<Row>,
) -> Result<Plan, WorkError> {
    // Other partitions of the topic, and a topic of the other spelling, have
    // positions of their own and so do not exclude each other.
    transaction.execute(crate::postgres::sql::ADVISORY_LOCK, &[&lock_key(&sql.name)])?;
    let found = transaction.query(&sql.last_id, &[])?;
    let last_id = found.first().map_or(Ok(0), |row| row.try_get(0))?;
    let remembered = (last_id == memory.last_id).then_some(&memory.newest);

    let (places, oldest) = targets_of(&rows);
    let mut timelines = Vec::with_capacity(oldest.len());
    for (target, place) in &oldest {
        let known = remembered.and_then(|newest| newest.get(target));
        timelines.push(match known.filter(|known| known.place < *place) {
            Some(known) => Timeline::new(vec![known.clone()], false),
            None => look_up(transaction, sql, target, *place)?,
        });
    }

    let mut plan = Plan { last_id, ..Plan::default() };
    for (row, place) in rows.into_iter().zip(places) {
        // Each place is that of a target.
        if let Some(timeline) = timelines.get_mut(place) {
            plan.add(timeline, row);
        }
    }
    plan.newest = oldest
        .into_iter()
        .zip(timelines)
        .filter_map(|((target, _), timeline)| Some((target, timeline.newest()?.clone())))
        .collect();
    Ok(plan)
}

/// Which target each row is of, as an index, and the targets with the oldest
/// place of each: in a backlog there are few, with many rows.
fn targets_of(rows: &[Row]) -> (Vec<usize>, Vec<(Target, Place)>) {
    let mut indexes: HashMap<(&str, &str, Option<&str>), usize> = HashMap::new();
    let mut targets: Vec<(Target, Place)> = Vec::new();
    let mut places = Vec::with_capacity(rows.len());
    for row in rows {
        let place = place_of(row);
        let index = *indexes.entry(row.target()).or_insert(targets.len());
        match targets.get_mut(index) {
            Some((_, oldest)) => *oldest = place.min(*oldest),
            None => {
                let target = (row.test_from.clone(), row.url.clone(), row.extra.name.clone());
                targets.push((target, place));
            }
        }
        places.push(index);
    }
    (places, targets)
}

impl Plan {
    /// Normal mode: every record is a row.
    pub fn without_merging(inserts: Vec<Row>) -> Self {
        Self { inserts, ..Self::default() }
    }

    fn add(&mut self, timeline: &mut Timeline, row: Row) {
        match timeline.add(place_of(&row), row.kind(), RowRef::New(self.inserts.len())) {
            Change::Insert => self.inserts.push(row),
            Change::Merge(RowRef::Stored(id), place) => {
                self.merged += 1;
                let none = Merge { place, results: 0, slot: None, sequence: None };
                let merge = self.merges.entry(id).or_insert(none);
                merge.place = place;
                merge.results += row.results;
                merge.slot = merge.slot.max(row.extra.slot);
                merge.sequence = merge.sequence.max(row.identity.map(|it| it.sequence));
            }
            Change::Merge(RowRef::New(index), place) => {
                self.merged += 1;
                if let Some(new) = self.inserts.get_mut(index) {
                    new.event_time = place.event_time;
                    new.topic_offset = place.topic_offset;
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

impl Memory {
    /// Takes over what a plan left, once its transaction is committed; `ids`
    /// are those of its inserts, by offset.
    pub fn keep(&mut self, plan: Plan, ids: &HashMap<i64, i64>) {
        if plan.last_id != self.last_id || self.newest.len() > TARGETS_MAX {
            self.newest.clear();
        }
        self.last_id = ids.values().copied().max().unwrap_or(0).max(plan.last_id);
        for (target, mut known) in plan.newest {
            if let RowRef::New(index) = known.row {
                let id = plan.inserts.get(index).and_then(|row| ids.get(&row.topic_offset));
                let Some(id) = id else { continue };
                known.row = RowRef::Stored(*id);
            }
            self.newest.insert(target, known);
        }
    }
}

fn look_up(
    transaction: &mut Transaction<'_>,
    sql: &TableSql,
    (test_from, url, name): &Target,
    oldest: Place,
) -> Result<Timeline, WorkError> {
    let found = transaction
        .query(&sql.newest, &[test_from, url, name, &oldest.event_time, &NEWEST_ROWS_MAX])?;
    let reaches_back = (found.len() as i64) < NEWEST_ROWS_MAX;
    let known = found
        .iter()
        .map(|row| {
            let phrase: &str = row.try_get(3)?;
            let kind =
                Kind { phrase: phrase.into(), run: row.try_get(4)?, period_ms: row.try_get(5)? };
            Ok(Known {
                row: RowRef::Stored(row.try_get(0)?),
                place: Place { event_time: row.try_get(1)?, topic_offset: row.try_get(2)? },
                kind: row.try_get::<_, bool>(6)?.then_some(kind),
            })
        })
        .collect::<Result<Vec<_>, postgres::Error>>()?;
    Ok(Timeline::new(known, reaches_back))
}

fn place_of(row: &Row) -> Place {
    Place { event_time: row.event_time, topic_offset: row.topic_offset }
}
