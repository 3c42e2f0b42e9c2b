/// Totals over all results of a run, from which the exit code of `--once` follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RunTotals {
    /// Results that were not healthy.
    pub(crate) unhealthy: usize,
    /// Results that were not delivered.
    pub(crate) lost: usize,
}
