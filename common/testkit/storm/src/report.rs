//! The report that is printed at the end.

use std::fmt::Write;
use std::time::Duration;

use common::record::Record;

use crate::cross_check::CrossCheck;
use crate::faults::log::FaultLog;
use crate::observations::TopicObservations;
use crate::oracle::ResultCounts;

/// Lists the injected faults by kind.
pub(crate) fn fault_summary(log: &FaultLog, seed: u64, seconds: u64) -> String {
    let mut text = format!("seed {seed}: {} kills in {seconds} s. All faults:", log.kills());
    for (label, count) in log.counts() {
        let _ = write!(text, "\n{count:9} {label}");
    }
    text
}

/// Lists the outcomes of the results.
pub(crate) fn result_summary(
    counts: ResultCounts,
    cross_check: &CrossCheck,
    injected: u64,
    caught_up: Duration,
) -> String {
    let ResultCounts { issued, rows, merged, quarantined, missing, unread, dropped } = counts;
    let mut text = format!("{issued} results:");
    let mut line = |count: u64, label: &str| {
        let _ = write!(text, "\n{count:9} {label}");
    };
    line(rows, "rows");
    line(merged, "merged into one of these rows");
    line(quarantined, "in quarantine");
    line(missing, "in gaps of sequence numbers");
    line(unread, "in gaps of offsets, because their topic was deleted");
    line(dropped, "duplicates in Kafka, dropped in addition to these results");
    line(injected, "of these results and duplicates written by the storm itself");
    line(cross_check.lost, "logged as lost by the trackers");
    line(cross_check.spooled as u64, "on disk when their tracker was killed");
    line(cross_check.requests as u64, "requests received by the sites");
    line(
        cross_check.unrecorded_s.len() as u64,
        &format!(
            "of these requests without a result, as their tracker was killed: half of them within {:.3} s \
             before the kill, all within {:.3} s",
            cross_check.unrecorded_s.get(cross_check.unrecorded_s.len() / 2).unwrap_or(&0.0),
            cross_check.unrecorded_s.last().unwrap_or(&0.0),
        ),
    );
    line(
        cross_check.unrecorded_disk_full,
        "more of these requests, of a tracker process whose disk was full",
    );
    let _ = write!(text, "\nall recorded {:.1} s after the last fault", caught_up.as_secs_f64());
    text
}

/// Dumps everything known about a topic, for the analysis of a failure.
pub(crate) fn topic_dump(observed: &TopicObservations) -> String {
    let TopicObservations { topic, incarnations, log_end, position, .. } = observed;
    let mut text = format!("{topic}: log end {log_end}, position {position:?}\n");
    for incarnation in incarnations {
        let _ = writeln!(text, "id {}: read to {}", incarnation.id, incarnation.next_offset);
        for record in &incarnation.records {
            let identity = record.identity.map(|it| format!("{} {}", it.run, it.sequence));
            let decoded = Record::decode(&record.value);
            let label = decoded.map(|it| format!("{} {} {}", it.from, it.timestamp, it.url));
            let _ = writeln!(text, "  {} {identity:?} {label:?} {:?}", record.offset, record.ended);
        }
    }
    for (run, next_sequence) in &observed.next_sequences {
        let _ = writeln!(text, "run {run}: next sequence {next_sequence}");
    }
    for gap in &observed.gaps {
        let _ = writeln!(text, "{gap:?}");
    }
    for quarantined in &observed.quarantine {
        let _ = writeln!(text, "quarantine {} {}", quarantined.topic_id, quarantined.offset);
    }
    for row in &observed.rows {
        let _ = writeln!(text, "{row:?}");
    }
    text
}
