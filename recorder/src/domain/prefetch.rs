//! The limit on prefetches: only a few domains at a time fetch their next records while they write.
//! This bounds threads and memory when a thousand domains have a backlog. More prefetches would not
//! help, because the processors are busy then.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A bounded number of permits.
#[derive(Debug)]
pub(crate) struct Semaphore {
    available: AtomicUsize,
}

/// A permit, released when dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Semaphore);

impl Semaphore {
    /// Creates a semaphore with `count` permits.
    pub(crate) fn new(count: usize) -> Self {
        Self { available: AtomicUsize::new(count) }
    }

    /// Acquires a permit if one is available. Never waits.
    pub(crate) fn try_acquire(&self) -> Option<Permit<'_>> {
        let decrement = |available: usize| available.checked_sub(1);
        let acquired = self.available.fetch_update(Ordering::Relaxed, Ordering::Relaxed, decrement);
        acquired.is_ok().then(|| Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.available.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_bounded_and_none_is_lost() {
        let semaphore = Semaphore::new(2);
        let first = semaphore.try_acquire();
        let second = semaphore.try_acquire();
        assert!(first.is_some() && second.is_some() && semaphore.try_acquire().is_none());
        drop(first);
        let third = semaphore.try_acquire();
        assert!(third.is_some() && semaphore.try_acquire().is_none());
        drop((second, third));
        assert!(semaphore.try_acquire().is_some());
    }
}
