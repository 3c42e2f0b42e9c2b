//! What waits for a worker, and the workers that wait for something to do.
//!
//! Each idle worker waits at a channel of its own, and the last one to come is given
//! the next target: what it needs is still in the processor's caches, and those that
//! were started for a crowd stay asleep. Those who share one channel are woken in
//! turns.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Sender, bounded};

/// A queue without a bound of its own; closed when there is nothing more to come.
#[derive(Debug)]
pub(crate) struct Queue<T>(Mutex<State<T>>);

/// Nothing waits while somebody is idle.
#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    /// The last to come is the last; each has room for one, and is given one.
    idle: Vec<Sender<T>>,
    is_closed: bool,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub(crate) fn new() -> Self {
        let (waiting, idle) = (VecDeque::new(), Vec::new());
        Self(Mutex::new(State { waiting, idle, is_closed: false }))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it to who came last of those who wait, or lets it wait.
    pub(crate) fn push(&self, one: T) {
        let mut state = self.state();
        match state.idle.pop() {
            Some(worker) => {
                drop(state);
                // Who is among the idle does nothing but receive.
                let _ = worker.send(one);
            }
            None => state.waiting.push_back(one),
        }
    }

    /// What waits longest, once there is something; none once the queue is closed
    /// and empty.
    pub(crate) fn take(&self) -> Option<T> {
        let mut state = self.state();
        if let Some(one) = state.waiting.pop_front() {
            return Some(one);
        }
        if state.is_closed {
            return None;
        }
        let (worker, given) = bounded(1);
        state.idle.push(worker);
        drop(state);
        given.recv().ok()
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        // Whose sender is gone knows.
        state.idle.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn what_waits_goes_in_its_order_and_to_who_came_last() {
        let queue = Queue::new();
        let (took, taken) = unbounded();
        let mut first = Vec::new();
        thread::scope(|scope| {
            for name in 0..3 {
                let (queue, took) = (&queue, took.clone());
                scope.spawn(move || {
                    while let Some(one) = queue.take() {
                        took.send((name, one)).unwrap();
                        // Comes back only when all is over.
                        while !queue.state().is_closed {
                            thread::yield_now();
                        }
                    }
                });
                while queue.state().idle.len() <= name {
                    thread::yield_now();
                }
            }
            for one in [7, 8, 9] {
                queue.push(one);
                first.extend(taken.recv());
            }
            // Nobody is idle; who comes back finds all of it.
            [10, 11, 12].into_iter().for_each(|one| queue.push(one));
            queue.close();
        });
        drop(took);
        assert_eq!(first, [(2, 7), (1, 8), (0, 9)]);
        let mut rest: Vec<_> = taken.iter().map(|(_, one)| one).collect();
        rest.sort_unstable();
        assert_eq!((rest, queue.take()), (vec![10, 11, 12], None));
    }
}
