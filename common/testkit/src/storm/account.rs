//! What is printed in the end.

use std::fmt::Write;
use std::time::Duration;

use super::faults::Done;
use super::oracle::Account;
use super::truth::Truth;

/// The faults by kind.
pub(super) fn faults(done: &Done, seed: u64, seconds: u64) -> String {
    let mut text = format!("seed {seed}: {} kills in {seconds} s, and all:", done.kills());
    for (what, count) in done.counts() {
        let _ = write!(text, "\n{count:9} {what}");
    }
    text
}

/// What became of the results.
pub(super) fn results(
    account: Account,
    truth: &Truth,
    injected: u64,
    caught_up: Duration,
) -> String {
    let Account { given, rows, merged, quarantined, missing, unread, dropped } = account;
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
    let _ = write!(text, "\nall recorded {:.1} s after the last fault", caught_up.as_secs_f64());
    text
}
