//! [`Dispatcher`]: hands due targets to idle workers.
//!
//! Each idle worker waits on a channel of its own, and the worker that became idle last gets the
//! next item: its data is still in the processor's caches, and workers that were started for a peak
//! stay asleep. With one common channel, all workers would be woken in turn.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Sender, bounded};

/// A queue of items and a stack of idle workers. It has no bound of its own: the caller bounds the
/// number of items.
#[derive(Debug)]
pub(crate) struct Dispatcher<T>(Mutex<DispatcherState<T>>);

/// Invariant: `waiting` is empty if `idle` is not.
#[derive(Debug)]
struct DispatcherState<T> {
    waiting: VecDeque<T>,
    /// The worker that became idle last is last. Each channel has space for one item, and gets one.
    idle: Vec<Sender<T>>,
    is_closed: bool,
}

impl<T> Dispatcher<T> {
    pub(crate) fn new() -> Self {
        let (waiting, idle) = (VecDeque::new(), Vec::new());
        Self(Mutex::new(DispatcherState { waiting, idle, is_closed: false }))
    }

    fn state(&self) -> MutexGuard<'_, DispatcherState<T>> {
        // No code under this lock panics between two changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an item to the worker that became idle last, or queues it.
    pub(crate) fn dispatch(&self, item: T) {
        let mut state = self.state();
        match state.idle.pop() {
            Some(worker) => {
                drop(state);
                // An idle worker only receives, so its channel is empty and connected.
                let _ = worker.send(item);
            }
            None => state.waiting.push_back(item),
        }
    }

    /// Returns the oldest item. Waits for one if there is none. `None` once the dispatcher is closed
    /// and empty.
    pub(crate) fn receive(&self) -> Option<T> {
        let mut state = self.state();
        if let Some(item) = state.waiting.pop_front() {
            return Some(item);
        }
        if state.is_closed {
            return None;
        }
        let (sender, receiver) = bounded(1);
        state.idle.push(sender);
        drop(state);
        receiver.recv().ok()
    }

    /// Ends the dispatcher: no item may be dispatched after this call.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        // Disconnects the channels, which wakes the idle workers.
        state.idle.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn items_go_to_the_worker_that_became_idle_last_and_queued_items_stay_in_order() {
        let dispatcher = Dispatcher::new();
        let (report, reports) = unbounded();
        let mut first = Vec::new();
        thread::scope(|scope| {
            for name in 0..3 {
                let (dispatcher, report) = (&dispatcher, report.clone());
                scope.spawn(move || {
                    while let Some(item) = dispatcher.receive() {
                        report.send((name, item)).unwrap();
                        // Becomes idle again only after the dispatcher is closed.
                        while !dispatcher.state().is_closed {
                            thread::yield_now();
                        }
                    }
                });
                while dispatcher.state().idle.len() <= name {
                    thread::yield_now();
                }
            }
            for item in [7, 8, 9] {
                dispatcher.dispatch(item);
                first.extend(reports.recv());
            }
            // No worker is idle: these items are queued.
            [10, 11, 12].into_iter().for_each(|item| dispatcher.dispatch(item));
            dispatcher.close();
        });
        drop(report);
        assert_eq!(first, [(2, 7), (1, 8), (0, 9)]);
        let mut rest: Vec<_> = reports.iter().map(|(_, item)| item).collect();
        rest.sort_unstable();
        assert_eq!((rest, dispatcher.receive()), (vec![10, 11, 12], None));
    }
}
