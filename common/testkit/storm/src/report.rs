//! What is printed in the end.

use std::fmt::Write;
use std::time::Duration;

use common::record::Record;

use crate::cross_check::CrossCheck;
use crate::fault_runner::FaultLog;
use crate::observations::TopicObservations;
use crate::oracle::ResultCounts;

/// The faults by kind.
pub(crate) fn faults(done: &FaultLog, seed: u64, seconds: u64) -> String {
    let mut text = format!("seed {seed}: {} kills in {seconds} s, and all:", done.kills());
    for (what, count) in done.counts() {
        let _ = write!(text, "\n{count:9} {what}");
    }
    text
}

/// What became of the results.
pub(crate) fn results(
    account: ResultCounts,
    truth: &CrossCheck,
    injected: u64,
    caught_up: Duration,
) -> String {
    let ResultCounts { given, rows, merged, quarantined, missing, unread, dropped } = account;
    let mut text = format!("{given} results given:");
    let mut line = |count: u64, what: &str| {
        let _ = write!(text, "\n{count:9} {what}");
    };
    line(rows, "rows");
    line(merged, "merged into one of these");
    line(quarantined, "in quarantine");
    line(missing, "in gaps of numbers");
    line(unread, "in gaps of offsets, of topics that were deleted");
    line(dropped, "copies in kafka beside these, dropped");
    line(injected, "of them, and of the copies, by the storm itself");
    line(truth.lost, "logged as lost by trackers");
    line(truth.safe as u64, "on disk when their tracker was killed");
    line(truth.requests as u64, "requests that the sites were asked");
    line(
        truth.taken_s.len() as u64,
        &format!(
            "of these taken by a kill before they were safe, the half within {:.3} s of it, all within \
             {:.3} s",
            truth.taken_s.get(truth.taken_s.len() / 2).unwrap_or(&0.0),
            truth.taken_s.last().unwrap_or(&0.0),
        ),
    );
    line(truth.taken_full, "more of these taken by a kill in a life that saw its disk full");
    let _ = write!(text, "\nall recorded {:.1} s after the last fault", caught_up.as_secs_f64());
    text
}

/// All that is known of a topic, for who looks for what went wrong.
pub(crate) fn all_of(observed: &TopicObservations) -> String {
    let TopicObservations { topic, lives, log_end, position, .. } = observed;
    let mut text = format!("{topic}: log end {log_end}, position {position:?}\n");
    for life in lives {
        let _ = writeln!(text, "id {}: read to {}", life.id, life.next_offset);
        for record in &life.records {
            let identity = record.identity.map(|it| format!("{} {}", it.run, it.sequence));
            let decoded = Record::decode(&record.value);
            let what = decoded.map(|it| format!("{} {} {}", it.from, it.timestamp, it.url));
            let _ = writeln!(text, "  {} {identity:?} {what:?} {:?}", record.offset, record.ended);
        }
    }
    for (run, mark) in &observed.marks {
        let _ = writeln!(text, "mark {run} {mark}");
    }
    for gap in &observed.gaps {
        let _ = writeln!(text, "{gap:?}");
    }
    for quarantined in &observed.quarantined {
        let _ = writeln!(text, "quarantine {} {}", quarantined.topic_id, quarantined.offset);
    }
    for row in &observed.rows {
        let _ = writeln!(text, "{row:?}");
    }
    text
}
