//! [`ProbeResult`]: everything that a worker knows about one probe.

use std::sync::Arc;
use std::time::SystemTime;

use crate::probe::ProbeOutcome;
use crate::probe::reason::Reason;
use crate::schedule::slot_account::{MissedSlots, Slot};
use crate::targets::Target;

/// The result of one probe of a target, retries included. All consumers of results derive their
/// data from it.
#[derive(Debug)]
pub(crate) struct ProbeResult {
    pub(crate) target: Arc<Target>,
    /// `None`: a probe of the first round, outside the schedule.
    pub(crate) slot: Option<Slot>,
    /// Slots without a result since the previous result of the target.
    pub(crate) missed: MissedSlots,
    /// Start of the first attempt.
    pub(crate) started_at: SystemTime,
    /// Number of attempts, from 1.
    pub(crate) attempts: u32,
    /// Reason of the first attempt, if more attempts followed.
    pub(crate) first_reason: Option<Reason>,
    /// Outcome of the last attempt.
    pub(crate) outcome: ProbeOutcome,
    pub(crate) marks: ResultMarks,
}

/// Marks that help to distinguish a failure of the site from a failure of the tracker's
/// network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ResultMarks {
    /// The newest results of at least three other hosts are failures, and none is healthy.
    pub(crate) others_failing: bool,
    /// There is evidence that this machine has no network.
    pub(crate) no_network: bool,
}
