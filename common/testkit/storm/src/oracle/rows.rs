//! The rows of a topic's domain, held against what was to be recorded.

use std::collections::{BTreeMap, HashMap};

use common::record::{Extra, Record};

use super::{ExpectedReads, OracleReport, RecordedResult};
use crate::observations::{KafkaRecord, RowColumns, StoredRow, TopicObservations};

/// Characters that the columns hold: of `detail`, of words, of a URL that
/// redirects led to, and of a name, which is not cut.
const DETAIL_CHARS_MAX: usize = 128;
const WORD_CHARS_MAX: usize = 64;
const FINAL_URL_CHARS_MAX: usize = 2_048;
const NAME_CHARS_MAX: usize = 256;

/// What a record asks for; none: it belongs in quarantine.
pub(crate) fn columns(record: &KafkaRecord) -> Option<RowColumns> {
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
        detail: cut(decoded.detail, DETAIL_CHARS_MAX),
        extra: further(decoded.extra)?,
        identity: record.identity.map(|it| (it.run, it.sequence)),
        results: 1,
    };
    let texts = [&columns.from, &columns.url, columns.detail.as_ref().unwrap_or(&columns.url)];
    texts.iter().all(|text| !text.contains('\0')).then_some(columns)
}

fn cut(text: Option<String>, chars_max: usize) -> Option<String> {
    text.map(|text| text.chars().take(chars_max).collect())
}

fn further(extra: Extra) -> Option<Extra> {
    let word = |text: Option<String>| cut(text, WORD_CHARS_MAX);
    let extra = Extra {
        reason: word(extra.reason),
        phase: word(extra.phase),
        address: word(extra.address),
        http_version: word(extra.http_version),
        first_reason: word(extra.first_reason),
        final_url: cut(extra.final_url, FINAL_URL_CHARS_MAX),
        ..extra
    };
    fits(&extra).then_some(extra)
}

fn fits(extra: &Extra) -> bool {
    let Extra { name, reason, phase, address, http_version, first_reason, final_url, .. } = extra;
    let texts = [name, reason, phase, address, http_version, first_reason, final_url];
    let mut texts = texts.into_iter().flatten().chain(extra.missed.keys());
    let narrow = [extra.http_status, extra.redirects, extra.attempts, extra.period_ms];
    texts.all(|text| !text.contains('\0'))
        && narrow.into_iter().flatten().all(|number| i32::try_from(number).is_ok())
        && name.as_ref().is_none_or(|name| name.chars().count() <= NAME_CHARS_MAX)
        && extra.missed.keys().all(|cause| cause.chars().count() <= WORD_CHARS_MAX)
}

/// Rows and quarantine hold what was recorded, no more and no less.
pub(crate) fn judge(
    observed: &TopicObservations,
    reading: &ExpectedReads<'_>,
    smart: bool,
    judgement: &mut OracleReport,
) {
    let topic = &observed.topic;
    let wrong = &mut judgement.wrong;
    let mut quarantined: Vec<_> = observed.quarantined.iter().collect();
    let mut expected: Vec<(usize, RowColumns)> = Vec::new();
    for RecordedResult { life, record } in &reading.recorded {
        if let Some(columns) = columns(record) {
            expected.push((*life, columns));
            continue;
        }
        let id = observed.lives[*life].id;
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
    let rows = match smart {
        true => merged(expected),
        false => expected.into_iter().enumerate().map(Expected::one).collect(),
    };
    judgement.account.rows += observed.rows.len() as u64;
    // What the rows themselves say that they stand for.
    let more = observed.rows.iter().map(|row| i64::from(row.columns.results) - 1);
    judgement.account.merged += more.sum::<i64>().unsigned_abs();
    compare(observed, rows, reading, wrong);
}

/// Whether a result may share a row: healthy, and nothing on it that is to be
/// seen.
fn is_plain(it: &RowColumns) -> bool {
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

/// Whether two plain results may share one: what their slots are counted by is
/// the same, and so is the phrase.
fn are_alike(one: &RowColumns, other: &RowColumns) -> bool {
    let run = |it: &RowColumns| it.identity.map(|(run, _)| run);
    (&one.phrase, run(one), one.extra.period_ms)
        == (&other.phrase, run(other), other.extra.period_ms)
}

/// A result as it was read: when, and of which life of the topic.
type Read = (usize, usize, RowColumns);

/// A row that is to be there, or two in its place.
struct Expected {
    row: Read,
    instead: Option<(RowColumns, RowColumns)>,
}

impl Expected {
    fn one((arrival, (life, columns)): (usize, (usize, RowColumns))) -> Self {
        Self { row: (arrival, life, columns), instead: None }
    }
}

/// Smart mode: each run of healthy results of a target that are alike is one row.
fn merged(expected: Vec<(usize, RowColumns)>) -> Vec<Expected> {
    type Target = (String, String, Option<String>);
    let mut targets: BTreeMap<Target, Vec<Read>> = BTreeMap::new();
    for (arrival, (life, columns)) in expected.into_iter().enumerate() {
        let target = (columns.from.clone(), columns.url.clone(), columns.extra.name.clone());
        targets.entry(target).or_default().push((arrival, life, columns));
    }
    let mut rows = Vec::new();
    for mut results in targets.into_values() {
        let was_made_again = results.iter().any(|(_, life, _)| *life != results[0].1);
        results.sort_by_key(|(_, _, it)| (it.event_time, it.offset));
        let shared = |one: &Read, other: &Read| {
            is_plain(&one.2) && is_plain(&other.2) && are_alike(&one.2, &other.2)
        };
        let mut before_s = None;
        for run in results.chunk_by(shared) {
            let first_s = run[0].2.event_time;
            // Where a topic was made again a row keeps the higher offset of before, and so may
            // seem to be later than what came after it in the same second.
            let is_doubtful = was_made_again && before_s == Some(first_s);
            let (head, tail) = run.split_at(run.partition_point(|it| it.2.event_time == first_s));
            let of = |part: &[Read]| part.iter().cloned().reduce(both);
            if let Some(row) = of(run) {
                let two = of(head).zip(of(tail)).map(|(head, tail)| (head.2, tail.2));
                rows.push(Expected { row, instead: two.filter(|_| is_doubtful) });
            }
            before_s = run.last().map(|it| it.2.event_time);
        }
    }
    rows.sort_by_key(|it| it.row.0);
    rows
}

/// Two that share a row: the one that came first has made it, and the later one
/// of each says where it stands.
fn both(one: Read, other: Read) -> Read {
    let (first, second) = if other.0 < one.0 { (other, one) } else { (one, other) };
    let (arrival, life, mut row) = first;
    let then = second.2;
    row.event_time = row.event_time.max(then.event_time);
    row.offset = row.offset.max(then.offset);
    row.extra.slot = row.extra.slot.max(then.extra.slot);
    row.identity = row.identity.max(then.identity);
    row.results += then.results;
    (arrival, life, row)
}

/// The rows are these, and of each target in this order.
fn compare(
    observed: &TopicObservations,
    expected: Vec<Expected>,
    reading: &ExpectedReads<'_>,
    wrong: &mut Vec<String>,
) {
    let topic = &observed.topic;
    let mut left: BTreeMap<&RowColumns, Vec<&StoredRow>> = BTreeMap::new();
    for row in observed.rows.iter().rev() {
        left.entry(&row.columns).or_default().push(row);
    }
    let mut newest: HashMap<(&str, &str, Option<&str>), i64> = HashMap::new();
    let known = |life: usize, offset: i64| {
        let here = |it: &&RecordedResult<'_>| it.life == life && it.record.offset == offset;
        reading.recorded.iter().find(here).and_then(|it| it.record.identity)
    };
    let mut absent = Vec::new();
    for Expected { row: (_, life, columns), instead } in &expected {
        let Some(row) = left.get_mut(columns).and_then(Vec::pop) else {
            let two = instead.as_ref().map(|(one, other)| [one, other].map(|it| left.get(it)));
            match (two, instead) {
                (Some([Some(_), Some(_)]), Some((one, other))) => {
                    for it in [one, other] {
                        left.get_mut(it).and_then(Vec::pop);
                    }
                }
                _ => absent.push((*life, columns)),
            }
            continue;
        };
        let target = (&*columns.from, &*columns.url, columns.extra.name.as_deref());
        let last = newest.entry(target).or_insert(i64::MIN);
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
            observed.rows.iter().filter(|row| row.columns.offset == columns.offset).collect();
        wrong.push(format!(
            "{topic}: no row for offset {} of {} ({:?}): expected {columns:?}, rows of that offset: \
             {near:?}",
            columns.offset,
            observed.lives[life].id,
            known(life, columns.offset)
        ));
    }
    for row in left.into_values().flatten() {
        let twice = observed.rows.iter().any(|it| it.id != row.id && it.columns == row.columns);
        let what = if twice { "a second row of the same" } else { "a row too many" };
        wrong.push(format!("{topic}: {what}: {row:?}; {}", origin(observed, row, reading)));
    }
}

/// Of which record a row seems to be, and where its result is recorded.
fn origin(observed: &TopicObservations, row: &StoredRow, reading: &ExpectedReads<'_>) -> String {
    let records =
        observed.lives.iter().flat_map(|life| life.records.iter().map(|it| (life.id, it)));
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
