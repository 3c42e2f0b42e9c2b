//! Compares the rows and the quarantine of a topic with the expected ones.

use std::collections::{BTreeMap, HashMap};

use common::record::{Extra, Record};

use super::{ExpectedReads, OracleReport, RecordedResult};
use crate::observations::{KafkaRecord, RowColumns, StoredRow, TopicObservations};

/// Maximum characters that the columns hold: `detail`; short text columns; `final_url`, the URL
/// after redirects; and `name`, which is never truncated.
const DETAIL_CHARS_MAX: usize = 128;
const WORD_CHARS_MAX: usize = 64;
const FINAL_URL_CHARS_MAX: usize = 2_048;
const NAME_CHARS_MAX: usize = 256;
/// The period of results without `period_ms`.
const DEFAULT_PERIOD_MS: i64 = 300_000;

/// The columns that a record requires. `None`: the record belongs in quarantine.
pub(crate) fn required_columns(record: &KafkaRecord) -> Option<RowColumns> {
    let decoded = Record::decode(&record.value).ok()?;
    let ms = |value: Option<i64>| value.map_or(Some(-1), |ms| i32::try_from(ms).ok());
    let columns = RowColumns {
        offset: record.offset,
        from: decoded.from,
        url: decoded.url,
        event_time: decoded.timestamp.floor() as i64,
        status: decoded.status.as_str().to_owned(),
        phrase: decoded.phrase,
        dns: ms(decoded.dns_ms)?,
        response: ms(decoded.response_ms)?,
        detail: truncate(decoded.detail, DETAIL_CHARS_MAX),
        extra: truncated_extra(decoded.extra)?,
        identity: record.identity.map(|it| (it.run, it.sequence)),
        results: 1,
        first: None,
        totals: None,
    };
    let texts = [&columns.from, &columns.url, columns.detail.as_ref().unwrap_or(&columns.url)];
    texts.iter().all(|text| !text.contains('\0')).then_some(columns)
}

fn truncate(text: Option<String>, chars_max: usize) -> Option<String> {
    text.map(|text| text.chars().take(chars_max).collect())
}

fn truncated_extra(extra: Extra) -> Option<Extra> {
    let word = |text: Option<String>| truncate(text, WORD_CHARS_MAX);
    let extra = Extra {
        reason: word(extra.reason),
        phase: word(extra.phase),
        address: word(extra.address),
        http_version: word(extra.http_version),
        first_reason: word(extra.first_reason),
        final_url: truncate(extra.final_url, FINAL_URL_CHARS_MAX),
        ..extra
    };
    fits_columns(&extra).then_some(extra)
}

fn fits_columns(extra: &Extra) -> bool {
    let Extra { name, reason, phase, address, http_version, first_reason, final_url, .. } = extra;
    let texts = [name, reason, phase, address, http_version, first_reason, final_url];
    let mut texts = texts.into_iter().flatten().chain(extra.missed.keys());
    let narrow = [extra.http_status, extra.redirects, extra.attempts, extra.period_ms];
    texts.all(|text| !text.contains('\0'))
        && narrow.into_iter().flatten().all(|sequence| i32::try_from(sequence).is_ok())
        && name.as_ref().is_none_or(|name| name.chars().count() <= NAME_CHARS_MAX)
        && extra.missed.keys().all(|cause| cause.chars().count() <= WORD_CHARS_MAX)
}

/// Checks that rows and quarantine hold exactly the expected records.
pub(crate) fn check_rows(
    observed: &TopicObservations,
    reads: &ExpectedReads<'_>,
    smart: bool,
    report: &mut OracleReport,
) {
    let topic = &observed.topic;
    let errors = &mut report.errors;
    let mut quarantined: Vec<_> = observed.quarantine.iter().collect();
    let mut expected: Vec<(usize, RowColumns)> = Vec::new();
    for RecordedResult { incarnation, record } in &reads.recorded {
        if let Some(columns) = required_columns(record) {
            expected.push((*incarnation, columns));
            continue;
        }
        let id = observed.incarnations[*incarnation].id;
        let found = quarantined.iter().position(|it| {
            (it.topic_id, it.offset, &it.bytes) == (id, record.offset, &record.value)
        });
        match found {
            Some(found) => {
                quarantined.remove(found);
                report.counts.quarantined += 1;
            }
            None => errors.push(format!(
                "{topic}: the invalid record at offset {} of {id} is not in quarantine ({:?})",
                record.offset, record.identity
            )),
        }
    }
    for unmatched in quarantined {
        errors.push(format!(
            "{topic}: offset {} of {} is in quarantine, but is not an invalid record that must be read",
            unmatched.offset, unmatched.topic_id
        ));
    }
    let rows = match smart {
        true => merge_results(expected),
        false => expected.into_iter().enumerate().map(ExpectedRow::single).collect(),
    };
    report.counts.rows += observed.rows.len() as u64;
    // The number of results that the rows claim to stand for.
    let more = observed.rows.iter().map(|row| i64::from(row.columns.results) - 1);
    report.counts.merged += more.sum::<i64>().unsigned_abs();
    compare_rows(observed, rows, reads, errors);
}

/// Whether a result may share a row with others: it is healthy and has no property that must stay
/// visible.
fn may_share_row(it: &RowColumns) -> bool {
    let Extra {
        healthy, reason, attempts, first_reason, no_network, others_failing, missed, ..
    } = &it.extra;
    healthy.unwrap_or(it.status == "responsive" && it.phrase == "ok")
        && (reason, first_reason) == (&None, &None)
        && attempts.unwrap_or(1) <= 1
        && *no_network != Some(true)
        && *others_failing != Some(true)
        && missed.is_empty()
}

/// Whether two such results, one directly after the other, may share one row: same phrase, same run
/// and period, by which slots are counted, both or neither with `total_us`, and adjacent slots. The
/// results must be at most three periods apart.
fn may_merge(one: &RowColumns, other: &RowColumns) -> bool {
    let kind = |it: &RowColumns| {
        let run = it.identity.map(|(run, _)| run);
        (run, it.extra.period_ms, it.extra.total_us.is_some())
    };
    let are_adjacent = match (one.extra.slot, other.extra.slot) {
        (None, None) => true,
        (Some(slot), Some(next)) => slot + 1 == next,
        _ => false,
    };
    let period_ms = one.extra.period_ms.unwrap_or(DEFAULT_PERIOD_MS);
    are_adjacent
        && (other.event_time - one.event_time) * 1_000 <= 3 * period_ms
        && (&one.phrase, kind(one)) == (&other.phrase, kind(other))
}

/// Puts results of one run that are in the same second in the order of their slots. Their offsets
/// have the other order if the topic was recreated between them.
fn order_slots_within_seconds(results: &mut [ReadResult]) {
    for index in 1..results.len() {
        let [.., (_, _, one), (_, _, other)] = &results[..=index] else { continue };
        let run = |it: &RowColumns| it.identity.map(|(run, _)| run);
        let is_same_second = (one.event_time, run(one)) == (other.event_time, run(other));
        if is_same_second && one.extra.slot > other.extra.slot && other.extra.slot.is_some() {
            results.swap(index - 1, index);
        }
    }
}

/// A result: its index in reading order, the index of the topic's incarnation, its columns.
type ReadResult = (usize, usize, RowColumns);

/// A row that must exist, or two rows in its place.
struct ExpectedRow {
    row: ReadResult,
    alternative: Option<(RowColumns, RowColumns)>,
}

impl ExpectedRow {
    fn single((arrival, (incarnation, columns)): (usize, (usize, RowColumns))) -> Self {
        Self { row: (arrival, incarnation, columns), alternative: None }
    }
}

/// Smart mode: adjacent results of a target that may share a row become one row.
fn merge_results(expected: Vec<(usize, RowColumns)>) -> Vec<ExpectedRow> {
    type TargetKey = (String, String, Option<String>);
    let mut targets: BTreeMap<TargetKey, Vec<ReadResult>> = BTreeMap::new();
    for (arrival, (incarnation, columns)) in expected.into_iter().enumerate() {
        let target = (columns.from.clone(), columns.url.clone(), columns.extra.name.clone());
        targets.entry(target).or_default().push((arrival, incarnation, columns));
    }
    let mut rows = Vec::new();
    for mut results in targets.into_values() {
        let was_recreated = results.iter().any(|(_, incarnation, _)| *incarnation != results[0].1);
        results.sort_by_key(|(_, _, it)| (it.event_time, it.offset));
        order_slots_within_seconds(&mut results);
        let shared = |one: &ReadResult, other: &ReadResult| {
            may_share_row(&one.2) && may_share_row(&other.2) && may_merge(&one.2, &other.2)
        };
        let mut previous_s = None;
        for run in results.chunk_by(shared) {
            let first_s = run[0].2.event_time;
            // After a topic was recreated, a row keeps its higher offset from before. It can then
            // seem later than results that followed it in the same second.
            let order_is_ambiguous = was_recreated && previous_s == Some(first_s);
            let (head, tail) = run.split_at(run.partition_point(|it| it.2.event_time == first_s));
            let merged = |part: &[ReadResult]| part.iter().cloned().reduce(merge_pair);
            if let Some(row) = merged(run) {
                let two = merged(head).zip(merged(tail)).map(|(head, tail)| (head.2, tail.2));
                rows.push(ExpectedRow { row, alternative: two.filter(|_| order_is_ambiguous) });
            }
            previous_s = run.last().map(|it| it.2.event_time);
        }
    }
    rows.sort_by_key(|it| it.row.0);
    rows
}

/// Merges two results into a row. The result that was read first created the row. The position
/// columns are the maximum of both.
fn merge_pair(one: ReadResult, other: ReadResult) -> ReadResult {
    let (first, second) = if other.0 < one.0 { (other, one) } else { (one, other) };
    let (arrival, incarnation, mut row) = first;
    let then = second.2;
    row.first = Some(first_place(&row).min(first_place(&then)));
    row.totals = totals(&row)
        .zip(totals(&then))
        .map(|([sum, min, max], then)| [sum + then[0], min.min(then[1]), max.max(then[2])]);
    row.event_time = row.event_time.max(then.event_time);
    row.offset = row.offset.max(then.offset);
    row.extra.slot = row.extra.slot.max(then.extra.slot);
    row.identity = row.identity.max(then.identity);
    row.results += then.results;
    (arrival, incarnation, row)
}

/// Event time and offset of the earliest result of a row.
fn first_place(row: &RowColumns) -> (i64, i64) {
    row.first.unwrap_or((row.event_time, row.offset))
}

/// Sum, minimum and maximum of `total_us`.
fn totals(row: &RowColumns) -> Option<[i64; 3]> {
    row.totals.or(row.extra.total_us.map(|us| [us; 3]))
}

/// Checks that these rows exist, and that the rows of each target are in this order.
fn compare_rows(
    observed: &TopicObservations,
    expected: Vec<ExpectedRow>,
    reads: &ExpectedReads<'_>,
    errors: &mut Vec<String>,
) {
    let topic = &observed.topic;
    let mut unmatched: BTreeMap<&RowColumns, Vec<&StoredRow>> = BTreeMap::new();
    for row in observed.rows.iter().rev() {
        unmatched.entry(&row.columns).or_default().push(row);
    }
    let mut newest: HashMap<(&str, &str, Option<&str>), i64> = HashMap::new();
    let identity_at = |incarnation: usize, offset: i64| {
        let here =
            |it: &&RecordedResult<'_>| it.incarnation == incarnation && it.record.offset == offset;
        reads.recorded.iter().find(here).and_then(|it| it.record.identity)
    };
    let mut absent = Vec::new();
    for ExpectedRow { row: (_, incarnation, columns), alternative } in &expected {
        let Some(row) = unmatched.get_mut(columns).and_then(Vec::pop) else {
            let two =
                alternative.as_ref().map(|(one, other)| [one, other].map(|it| unmatched.get(it)));
            match (two, alternative) {
                (Some([Some(_), Some(_)]), Some((one, other))) => {
                    for it in [one, other] {
                        unmatched.get_mut(it).and_then(Vec::pop);
                    }
                }
                _ => absent.push((*incarnation, columns)),
            }
            continue;
        };
        let target = (&*columns.from, &*columns.url, columns.extra.name.as_deref());
        let last = newest.entry(target).or_insert(i64::MIN);
        if row.id < *last {
            errors.push(format!(
                "{topic}: out of order: {} of {}: row {} has offset {}, but row {last} came before",
                columns.url, columns.from, row.id, columns.offset
            ));
        }
        *last = row.id.max(*last);
    }
    for (incarnation, columns) in absent {
        let same_offset: Vec<_> =
            observed.rows.iter().filter(|row| row.columns.offset == columns.offset).collect();
        errors.push(format!(
            "{topic}: no row for offset {} of {} ({:?}): expected {columns:?}, rows of that offset: \
             {same_offset:?}",
            columns.offset,
            observed.incarnations[incarnation].id,
            identity_at(incarnation, columns.offset)
        ));
    }
    for row in unmatched.into_values().flatten() {
        let twice = observed.rows.iter().any(|it| it.id != row.id && it.columns == row.columns);
        let fault = if twice { "a duplicate row" } else { "an extra row" };
        errors
            .push(format!("{topic}: {fault}: {row:?}; {}", describe_origin(observed, row, reads)));
    }
}

/// Describes the record that a row seems to come from, and the offsets where its result must be
/// recorded.
fn describe_origin(
    observed: &TopicObservations,
    row: &StoredRow,
    reads: &ExpectedReads<'_>,
) -> String {
    let records = observed
        .incarnations
        .iter()
        .flat_map(|incarnation| incarnation.records.iter().map(|it| (incarnation.id, it)));
    let mut same = records.filter(|(_, it)| required_columns(it).as_ref() == Some(&row.columns));
    let Some((id, record)) = same.next() else { return "no record matches it".to_owned() };
    let Some(identity) = record.identity else {
        return format!("of {id}, without a sequence number");
    };
    let recorded = reads.recorded.iter().filter(|it| it.record.identity == record.identity);
    let offsets: Vec<_> = recorded.map(|it| it.record.offset).collect();
    format!(
        "of {id}, run {} sequence {}, which must be recorded from offset {offsets:?} only",
        identity.run, identity.sequence
    )
}
