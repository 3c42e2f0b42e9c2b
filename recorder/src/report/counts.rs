//! What recording comes to, in numbers.

use crate::transaction::Written;

/// What a thread did in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// New rows.
    pub inserted: u64,
    /// Records merged into rows.
    pub merged: u64,
    /// Records in quarantine.
    pub quarantined: u64,
    /// Records dropped, as their results are recorded already.
    pub duplicates: u64,
}

impl Counts {
    /// Adds what became of a batch.
    pub fn add(&mut self, written: Written) {
        self.inserted += written.inserted as u64;
        self.merged += written.merged as u64;
        self.quarantined += written.quarantined as u64;
        self.duplicates += written.irregular.duplicates;
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.merged += other.merged;
        self.quarantined += other.quarantined;
        self.duplicates += other.duplicates;
    }
}
