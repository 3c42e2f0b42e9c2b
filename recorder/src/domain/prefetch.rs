//! Who may read ahead: a few domains at a time, so that threads and memory keep
//! their bounds when a thousand have a backlog. By then the processors are busy
//! anyway, and there is nothing to be won by it.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A bounded number of permits.
#[derive(Debug)]
pub struct Permits {
    left: AtomicUsize,
}

/// One of them, given back when dropped.
#[derive(Debug)]
pub struct Permit<'a>(&'a Permits);

impl Permits {
    /// So many.
    pub fn new(count: usize) -> Self {
        Self { left: AtomicUsize::new(count) }
    }

    /// One, if there is one left; nobody waits for it.
    pub fn take(&self) -> Option<Permit<'_>> {
        let less = |left: usize| left.checked_sub(1);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok().then(|| Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_than_were_made_and_none_is_lost() {
        let permits = Permits::new(2);
        let first = permits.take();
        let second = permits.take();
        assert!(first.is_some() && second.is_some() && permits.take().is_none());
        drop(first);
        let third = permits.take();
        assert!(third.is_some() && permits.take().is_none());
        drop((second, third));
        assert!(permits.take().is_some());
    }
}
