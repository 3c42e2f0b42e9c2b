//! Proxies that break connections to a real server on purpose. [`KafkaProxy`] parses Kafka's
//! frames, [`PostgresProxy`] parses PostgreSQL's messages.
//!
//! A rule names a request (by kind and count), a [`Direction`] and a [`ProxyFault`]. It acts
//! once. The proxies never duplicate or reorder bytes, because TCP does not. The number of
//! connections and rules and the size of messages are bounded. Dropping a proxy closes its
//! connections and joins its threads.

mod kafka;
pub(crate) mod listener;
mod postgres;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use kafka::KafkaProxy;
pub use postgres::PostgresProxy;

/// Maximum number of rules that wait for their request. A new rule replaces the oldest rule.
const RULES_MAX: usize = 64;
/// Maximum size of a frame or message. A larger message closes the connection.
const MESSAGE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The direction that a rule acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From client to server, starting with the request that the rule names.
    Request,
    /// From server to client, starting with the response to that request.
    Response,
}

/// The effect of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyFault {
    /// Forwards this many bytes, then closes both connections. 0 forwards nothing. If fewer bytes
    /// are sent, all are forwarded and nothing is closed.
    Cut(usize),
    /// Holds the message, and all later ones in this direction, until [`RuleHandle::release`].
    Hold,
    /// Discards the message. The connection stays open.
    Discard,
}

/// Shows the state of one rule.
#[derive(Debug, Clone)]
pub struct RuleHandle(Arc<RuleWatch>);

#[derive(Debug, Default)]
struct RuleWatch {
    state: Mutex<RuleState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct RuleState {
    matched: bool,
    fired: bool,
    released: bool,
    bytes: usize,
}

impl RuleWatch {
    fn state(&self) -> MutexGuard<'_, RuleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut RuleState)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn wait(&self, timeout: Duration, done: impl Fn(&RuleState) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        while !done(&state) {
            let remaining = deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, remaining);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl RuleHandle {
    /// Whether the request has arrived.
    pub fn matched(&self) -> bool {
        self.0.state().matched
    }

    /// Whether the fault has happened. A cut beyond the end of the data never happens.
    pub fn fired(&self) -> bool {
        self.0.state().fired
    }

    /// Bytes forwarded in the rule's direction since its request arrived.
    pub fn bytes_passed(&self) -> usize {
        self.0.state().bytes
    }

    /// Waits until the fault has happened. Returns false after `timeout`.
    pub fn wait_until_fired(&self, timeout: Duration) -> bool {
        self.0.wait(timeout, |state| state.fired)
    }

    /// Forwards the held messages.
    pub fn release(&self) {
        self.0.change(|state| state.released = true);
    }

    fn add_bytes(&self, bytes: usize) {
        self.0.change(|state| state.bytes += bytes);
    }

    fn fire(&self) {
        self.0.change(|state| state.fired = true);
    }

    fn wait_for_release(&self) {
        // A loop, because `wait` needs a time-out.
        while !self.0.wait(Duration::from_secs(60), |state| state.released) {}
    }
}

/// The effect once the request of a rule has arrived.
#[derive(Debug, Clone)]
struct ProxyAction {
    direction: Direction,
    fault: ProxyFault,
    handle: RuleHandle,
}

/// The rules of one proxy, oldest first.
struct ProxyRules<R>(Mutex<PendingRules<R>>);

struct PendingRules<R> {
    rules: Vec<(R, usize, ProxyAction)>,
    /// Handles of rules that hold messages now or may do so later.
    holding: Vec<RuleHandle>,
    ended: bool,
}

impl<R> ProxyRules<R> {
    fn new() -> Self {
        Self(Mutex::new(PendingRules { rules: Vec::new(), holding: Vec::new(), ended: false }))
    }

    fn lock(&self) -> MutexGuard<'_, PendingRules<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule for the request that follows `nth` others of the same kind.
    fn add(&self, request: R, nth: usize, direction: Direction, fault: ProxyFault) -> RuleHandle {
        let handle = RuleHandle(Arc::default());
        let mut pending = self.lock();
        if pending.rules.len() == RULES_MAX {
            pending.rules.remove(0);
        }
        if fault == ProxyFault::Hold {
            pending.holding.push(handle.clone());
        }
        pending.rules.push((
            request,
            nth,
            ProxyAction { direction, fault, handle: handle.clone() },
        ));
        handle
    }

    /// Returns the action for a request: the action of the first rule that matches and has no
    /// more requests to skip. All other matching rules count this request.
    fn match_request(&self, is_named: impl Fn(&R) -> bool) -> Option<ProxyAction> {
        let mut pending = self.lock();
        if pending.ended {
            return None;
        }
        let mut due = None;
        for (index, (request, before, _)) in pending.rules.iter_mut().enumerate() {
            if is_named(request) {
                match *before {
                    0 if due.is_none() => due = Some(index),
                    0 => {}
                    _ => *before -= 1,
                }
            }
        }
        let (_, _, action) = pending.rules.remove(due?);
        action.handle.0.change(|state| state.matched = true);
        Some(action)
    }

    /// Disables all rules and releases all held messages.
    fn end(&self) {
        let mut pending = self.lock();
        pending.ended = true;
        for handle in pending.holding.drain(..) {
            handle.release();
        }
    }
}

/// Forwards one message as the action allows. Returns false if the connection must be closed.
fn forward(mut to: &TcpStream, message: &[u8], action: Option<&ProxyAction>) -> io::Result<bool> {
    let Some(ProxyAction { fault, handle, .. }) = action else {
        to.write_all(message)?;
        return Ok(true);
    };
    match *fault {
        ProxyFault::Cut(bytes) => {
            let remaining = bytes - handle.bytes_passed().min(bytes);
            let forwarded = remaining.min(message.len());
            let written = to.write_all(&message[..forwarded]);
            handle.add_bytes(forwarded);
            if remaining <= message.len() {
                handle.fire();
                return Ok(false);
            }
            written?;
        }
        ProxyFault::Hold => {
            handle.fire();
            handle.wait_for_release();
            to.write_all(message)?;
            handle.add_bytes(message.len());
        }
        ProxyFault::Discard => handle.fire(),
    }
    Ok(true)
}
