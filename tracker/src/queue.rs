//! What waits for a worker, and the workers that wait for something to do.
//!
//! Of these the last one to come is the first to be woken: what it needs is still in
//! the processor's caches, and those that were started for a crowd stay asleep. A
//! channel wakes them in turns, and spins before it sleeps.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread, ThreadId};

/// A queue without a bound of its own; closed when there is nothing more to come.
#[derive(Debug)]
pub(crate) struct Queue<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    /// By their ids, which are looked at often.
    idle: Vec<(ThreadId, Thread)>,
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

    /// Adds something, and wakes who came last of those who wait.
    pub(crate) fn push(&self, one: T) {
        let mut state = self.state();
        state.waiting.push_back(one);
        let idle = state.idle.pop();
        drop(state);
        if let Some((_, thread)) = idle {
            thread.unpark();
        }
    }

    /// What waits longest, once there is something; none once the queue is closed
    /// and empty.
    pub(crate) fn take(&self) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(one) = state.waiting.pop_front() {
                return Some(one);
            }
            if state.is_closed {
                return None;
            }
            let own = thread::current();
            let id = own.id();
            state.idle.push((id, own));
            // Who is woken is no longer among the idle; anything else is no reason.
            while state.idle.iter().any(|(other, _)| *other == id) {
                drop(state);
                thread::park();
                state = self.state();
            }
        }
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        idle.iter().for_each(|(_, thread)| thread.unpark());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_waits_goes_in_its_order_and_to_who_came_last() {
        let queue = Queue::new();
        let (took, taken) = channel();
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

    #[test]
    fn a_wake_without_a_reason_is_none() {
        let queue = Queue::new();
        let mut most = 0;
        thread::scope(|scope| {
            let taker = scope.spawn(|| queue.take());
            let idle = || queue.state().idle.first().cloned();
            let thread = loop {
                match idle() {
                    Some((_, thread)) => break thread,
                    None => thread::yield_now(),
                }
            };
            for _ in 0..100 {
                thread.unpark();
                thread::yield_now();
                most = most.max(queue.state().idle.len());
            }
            queue.push(1);
            assert_eq!(taker.join().unwrap(), Some(1));
        });
        assert_eq!((most, queue.state().idle.len()), (1, 0));
    }
}
