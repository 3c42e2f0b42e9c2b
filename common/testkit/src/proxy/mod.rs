//! Proxies that break connections to a real server on purpose: [`KafkaProxy`]
//! knows Kafka's frames, [`PostgresProxy`] PostgreSQL's messages.
//!
//! A rule names a request by its kind and its number, the way on which to act,
//! and a [`Fault`]. It acts once. Nothing is doubled and nothing is reordered,
//! as TCP would do neither. Connections, rules and messages are bounded, and
//! dropping a proxy closes its connections and joins its threads.

pub(crate) mod front;
mod kafka;
mod postgres;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use kafka::KafkaProxy;
pub use postgres::PostgresProxy;

/// The most rules that wait for their request; the oldest goes for a new one.
const RULES_MAX: usize = 64;
/// The most bytes of a frame or message; a longer one closes the connection.
const MESSAGE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// On which way a rule acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What the client sends, from the request named by the rule on.
    Request,
    /// What the server answers to that request.
    Answer,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This many bytes pass, and then both ends are closed; 0 drops it all. What
    /// is shorter passes whole and nothing is closed.
    Cut(usize),
    /// It waits for [`Told::release`], and all that comes after it on this way.
    Hold,
    /// It is left out, and the connection stays open.
    Swallow,
}

/// A rule that was given to a proxy, to see what became of it.
#[derive(Debug, Clone)]
pub struct Told(Arc<Watch>);

#[derive(Debug, Default)]
struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    matched: bool,
    fired: bool,
    released: bool,
    bytes: usize,
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn wait(&self, timeout: Duration, done: impl Fn(&State) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        while !done(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Told {
    /// Whether the request has come.
    pub fn matched(&self) -> bool {
        self.0.state().matched
    }

    /// Whether the fault was done; a cut beyond the end never is.
    pub fn fired(&self) -> bool {
        self.0.state().fired
    }

    /// The bytes that have passed on the rule's way since its request came.
    pub fn bytes(&self) -> usize {
        self.0.state().bytes
    }

    /// Waits until the fault was done; false when it was not within `timeout`.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.0.wait(timeout, |state| state.fired)
    }

    /// Lets what is held go on.
    pub fn release(&self) {
        self.0.change(|state| state.released = true);
    }

    fn passed(&self, bytes: usize) {
        self.0.change(|state| state.bytes += bytes);
    }

    fn fire(&self) {
        self.0.change(|state| state.fired = true);
    }

    fn wait_for_release(&self) {
        // In turns, as there is no longest wait to give.
        while !self.0.wait(Duration::from_secs(60), |state| state.released) {}
    }
}

/// What a rule says once its request has come.
#[derive(Debug, Clone)]
struct Order {
    side: Side,
    fault: Fault,
    told: Told,
}

/// The rules of one proxy, oldest first.
struct Rules<R>(Mutex<Waiting<R>>);

struct Waiting<R> {
    rules: Vec<(R, usize, Order)>,
    /// Those that hold something, or may yet.
    holding: Vec<Told>,
    ended: bool,
}

impl<R> Rules<R> {
    fn new() -> Self {
        Self(Mutex::new(Waiting { rules: Vec::new(), holding: Vec::new(), ended: false }))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acts on the request that `nth` others of its kind come before.
    fn add(&self, request: R, nth: usize, side: Side, fault: Fault) -> Told {
        let told = Told(Arc::default());
        let mut waiting = self.waiting();
        if waiting.rules.len() == RULES_MAX {
            waiting.rules.remove(0);
        }
        if fault == Fault::Hold {
            waiting.holding.push(told.clone());
        }
        waiting.rules.push((request, nth, Order { side, fault, told: told.clone() }));
        told
    }

    /// What is to be done about a request, as the first rule says that has its
    /// turn; the others that name it count it.
    fn take(&self, is_named: impl Fn(&R) -> bool) -> Option<Order> {
        let mut waiting = self.waiting();
        if waiting.ended {
            return None;
        }
        let mut due = None;
        for (index, (request, before, _)) in waiting.rules.iter_mut().enumerate() {
            if is_named(request) {
                match *before {
                    0 if due.is_none() => due = Some(index),
                    0 => {}
                    _ => *before -= 1,
                }
            }
        }
        let (_, _, order) = waiting.rules.remove(due?);
        order.told.0.change(|state| state.matched = true);
        Some(order)
    }

    /// Nothing is done any more, and nothing is held.
    fn end(&self) {
        let mut waiting = self.waiting();
        waiting.ended = true;
        for told in waiting.holding.drain(..) {
            told.release();
        }
    }
}

/// Passes one message on, as far as the order lets it; false when the
/// connection is to be closed.
fn pass(mut to: &TcpStream, message: &[u8], order: Option<&Order>) -> io::Result<bool> {
    let Some(Order { fault, told, .. }) = order else {
        to.write_all(message)?;
        return Ok(true);
    };
    match *fault {
        Fault::Cut(bytes) => {
            let left = bytes - told.bytes().min(bytes);
            let passing = left.min(message.len());
            let written = to.write_all(&message[..passing]);
            told.passed(passing);
            if left <= message.len() {
                told.fire();
                return Ok(false);
            }
            written?;
        }
        Fault::Hold => {
            told.fire();
            told.wait_for_release();
            to.write_all(message)?;
            told.passed(message.len());
        }
        Fault::Swallow => told.fire(),
    }
    Ok(true)
}
