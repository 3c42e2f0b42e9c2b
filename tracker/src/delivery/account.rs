/// The outcome of all results of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Results that were not healthy.
    pub unhealthy: usize,
    /// Results that were not delivered.
    pub lost: usize,
}
