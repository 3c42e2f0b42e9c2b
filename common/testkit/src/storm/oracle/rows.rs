//! The rows of a topic's domain, held against what was to be recorded.

use std::collections::{BTreeMap, HashMap};

use common::record::Record;

use super::super::facts::{Columns, StoredRow, Tapped, TopicFacts};
use super::{Judgement, Reading, Recorded};

/// Characters of `detail` that the column holds.
const DETAIL_CHARS_MAX: usize = 128;

/// What a record asks for; none: it belongs in quarantine.
pub(super) fn columns(record: &Tapped) -> Option<Columns> {
    let decoded = Record::decode(&record.value).ok()?;
    let ms = |value: Option<i64>| value.map_or(Some(-1), |ms| i32::try_from(ms).ok());
    let columns = Columns {
        offset: record.offset,
        from: decoded.from,
        url: decoded.url,
        event_time: decoded.timestamp.floor() as i64,
        status: decoded.status.as_str().to_owned(),
        phrase: decoded.phrase,
        dns: ms(decoded.dns_ms)?,
        response: ms(decoded.response_ms)?,
        detail: decoded.detail.map(|detail| detail.chars().take(DETAIL_CHARS_MAX).collect()),
    };
    let texts = [&columns.from, &columns.url, columns.detail.as_ref().unwrap_or(&columns.url)];
    texts.iter().all(|text| !text.contains('\0')).then_some(columns)
}

/// Rows and quarantine hold what was recorded, no more and no less.
pub(super) fn judge(
    facts: &TopicFacts,
    reading: &Reading<'_>,
    smart: bool,
    judgement: &mut Judgement,
) {
    let topic = &facts.topic;
    let wrong = &mut judgement.wrong;
    let mut quarantined: Vec<_> = facts.quarantined.iter().collect();
    let mut expected: Vec<(usize, Columns)> = Vec::new();
    for Recorded { life, record } in &reading.recorded {
        if let Some(columns) = columns(record) {
            expected.push((*life, columns));
            continue;
        }
        let id = facts.lives[*life].id;
        let found = quarantined.iter().position(|it| {
            (it.topic_id, it.offset, &it.bytes) == (id, record.offset, &record.value)
        });
        match found {
            Some(found) => {
                quarantined.remove(found);
                judgement.account.quarantined += 1;
            }
            None => wrong.push(format!(
                "{topic}: the broken record at offset {} of {id} is not in quarantine ({:?})",
                record.offset, record.identity
            )),
        }
    }
    for left in quarantined {
        wrong.push(format!(
            "{topic}: offset {} of {} is in quarantine, and is no broken record that was to be read",
            left.offset, left.topic_id
        ));
    }
    let results = expected.len() as u64;
    let rows = if smart { merged(expected) } else { expected };
    judgement.account.rows += facts.rows.len() as u64;
    judgement.account.merged += results.saturating_sub(rows.len() as u64);
    compare(facts, rows, reading, wrong);
}

/// Smart mode: each run of healthy results of a target is one row.
fn merged(expected: Vec<(usize, Columns)>) -> Vec<(usize, Columns)> {
    type Target = (String, String);
    let mut targets: BTreeMap<Target, Vec<(usize, usize, Columns)>> = BTreeMap::new();
    for (arrival, (life, columns)) in expected.into_iter().enumerate() {
        let target = (columns.from.clone(), columns.url.clone());
        targets.entry(target).or_default().push((arrival, life, columns));
    }
    let is_healthy = |it: &Columns| it.status == "responsive" && it.phrase == "ok";
    let mut rows: Vec<(usize, usize, Columns)> = Vec::new();
    for results in targets.into_values() {
        let mut results = results;
        results.sort_by_key(|(_, _, it)| (it.event_time, it.offset));
        let mut run: Option<(usize, usize, Columns)> = None;
        for (arrival, life, it) in results {
            if !is_healthy(&it) {
                rows.extend(run.take());
                rows.push((arrival, life, it));
                continue;
            }
            run = Some(match run.take() {
                None => (arrival, life, it),
                // The one that came first has made the row.
                Some(run) => {
                    let event_time = run.2.event_time.max(it.event_time);
                    let offset = run.2.offset.max(it.offset);
                    let (arrival, life, first) =
                        if arrival < run.0 { (arrival, life, it) } else { run };
                    (arrival, life, Columns { event_time, offset, ..first })
                }
            });
        }
        rows.extend(run);
    }
    rows.sort_by_key(|(arrival, _, _)| *arrival);
    rows.into_iter().map(|(_, life, columns)| (life, columns)).collect()
}

/// The rows are these, and of each target in this order.
fn compare(
    facts: &TopicFacts,
    expected: Vec<(usize, Columns)>,
    reading: &Reading<'_>,
    wrong: &mut Vec<String>,
) {
    let topic = &facts.topic;
    let mut left: BTreeMap<&Columns, Vec<&StoredRow>> = BTreeMap::new();
    for row in facts.rows.iter().rev() {
        left.entry(&row.columns).or_default().push(row);
    }
    let mut newest: HashMap<(&str, &str), i64> = HashMap::new();
    let known = |life: usize, offset: i64| {
        let here = |it: &&Recorded<'_>| it.life == life && it.record.offset == offset;
        reading.recorded.iter().find(here).and_then(|it| it.record.identity)
    };
    let mut absent = Vec::new();
    for (life, columns) in &expected {
        let Some(row) = left.get_mut(columns).and_then(Vec::pop) else {
            absent.push((*life, columns));
            continue;
        };
        let last = newest.entry((&columns.from, &columns.url)).or_insert(i64::MIN);
        if row.id < *last {
            wrong.push(format!(
                "{topic}: out of order: {} of {}: row {} has offset {}, and row {last} came before",
                columns.url, columns.from, row.id, columns.offset
            ));
        }
        *last = row.id.max(*last);
    }
    for (life, columns) in absent {
        let near: Vec<_> =
            facts.rows.iter().filter(|row| row.columns.offset == columns.offset).collect();
        wrong.push(format!(
            "{topic}: no row for offset {} of {} ({:?}): expected {columns:?}, rows of that offset: \
             {near:?}",
            columns.offset,
            facts.lives[life].id,
            known(life, columns.offset)
        ));
    }
    for row in left.into_values().flatten() {
        let twice = facts.rows.iter().any(|it| it.id != row.id && it.columns == row.columns);
        let what = if twice { "a second row of the same" } else { "a row too many" };
        wrong.push(format!("{topic}: {what}: {row:?}; {}", origin(facts, row, reading)));
    }
}

/// Of which record a row seems to be, and where its result is recorded.
fn origin(facts: &TopicFacts, row: &StoredRow, reading: &Reading<'_>) -> String {
    let records = facts.lives.iter().flat_map(|life| life.records.iter().map(|it| (life.id, it)));
    let mut same = records.filter(|(_, it)| columns(it).as_ref() == Some(&row.columns));
    let Some((id, record)) = same.next() else { return "no record is like it".to_owned() };
    let Some(known) = record.identity else { return format!("of {id}, without an identity") };
    let recorded = reading.recorded.iter().filter(|it| it.record.identity == record.identity);
    let offsets: Vec<_> = recorded.map(|it| it.record.offset).collect();
    format!(
        "of {id}, run {} number {}, which is to be recorded from offset {offsets:?} alone",
        known.run, known.sequence
    )
}
