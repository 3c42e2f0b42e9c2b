//! A proxy in front of PostgreSQL.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::listener::{ConnectionPair, ProxyListener};
use super::{
    Direction, MESSAGE_BYTES_MAX, ProxyAction, ProxyFault, ProxyRules, RuleHandle, forward,
};

/// Codes of the SSLRequest and GSSENCRequest messages, sent in place of a protocol version
/// ("Message Formats" in PostgreSQL's manual).
const ENCRYPTION_REQUESTS: [i32; 2] = [80_877_103, 80_877_104];

/// Listens in front of a PostgreSQL server. Refuses requests for TLS, so that it can read the
/// messages.
pub struct PostgresProxy {
    rules: Arc<ProxyRules<MessageMatcher>>,
    front: ProxyListener,
}

/// Matches a message of the client.
struct MessageMatcher {
    kind: u8,
    contains: String,
}

impl PostgresProxy {
    /// Starts a proxy for the server at this address.
    ///
    /// # Errors
    /// Fails if no port or thread is available.
    pub fn start(server: SocketAddr) -> io::Result<Self> {
        let rules = Arc::new(ProxyRules::new());
        let of_links = Arc::clone(&rules);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let front = ProxyListener::start(listener, server, move |pair| serve(pair, &of_links))?;
        Ok(Self { rules, front })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.front.address()
    }

    /// Adds a rule: `fault` acts once, from the client message on that has this type (`b'Q'`,
    /// `b'P'`, …), contains the text `contains`, and follows `nth` such messages on any
    /// connection. In direction response it acts from the next server message on. A cut counts
    /// the bytes of all messages from there on, so that it can hit any place in a transaction.
    pub fn add_rule(
        &self,
        kind: u8,
        contains: &str,
        nth: usize,
        direction: Direction,
        fault: ProxyFault,
    ) -> RuleHandle {
        self.rules.add(
            MessageMatcher { kind, contains: contains.to_owned() },
            nth,
            direction,
            fault,
        )
    }
}

impl Drop for PostgresProxy {
    fn drop(&mut self) {
        self.rules.end();
    }
}

/// The action for one direction of a connection. A cut stays active until it happens, the other
/// faults act on one message.
#[derive(Default)]
struct ActiveAction(Mutex<Option<ProxyAction>>);

impl ActiveAction {
    fn action(&self) -> MutexGuard<'_, Option<ProxyAction>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn for_next(&self) -> Option<ProxyAction> {
        let mut action = self.action();
        match &*action {
            Some(ProxyAction { fault: ProxyFault::Cut(_), .. }) => action.clone(),
            _ => action.take(),
        }
    }
}

fn serve(pair: &ConnectionPair, rules: &ProxyRules<MessageMatcher>) {
    let response = ActiveAction::default();
    // An I/O error ends the connection like an end of file.
    pair.run(
        || drop(forward_requests(pair, rules, &response)),
        || drop(forward_responses(pair, &response)),
    );
}

fn forward_requests(
    pair: &ConnectionPair,
    rules: &ProxyRules<MessageMatcher>,
    response: &ActiveAction,
) -> io::Result<()> {
    loop {
        let start = read_message(&pair.client, 0)?;
        let version = start.get(4..).and_then(|rest| rest.first_chunk());
        if version
            .is_some_and(|version| ENCRYPTION_REQUESTS.contains(&i32::from_be_bytes(*version)))
        {
            (&pair.client).write_all(b"N")?;
            continue;
        }
        (&pair.server).write_all(&start)?;
        break;
    }
    let request = ActiveAction::default();
    loop {
        let message = read_message(&pair.client, 1)?;
        let action = rules.match_request(|MessageMatcher { kind, contains }| {
            let contains = contains.as_bytes();
            message[0] == *kind
                && (contains.is_empty() || message.windows(contains.len()).any(|it| it == contains))
        });
        match action {
            Some(action) if action.direction == Direction::Request => {
                *request.action() = Some(action)
            }
            Some(action) => *response.action() = Some(action),
            None => {}
        }
        if !forward(&pair.server, &message, request.for_next().as_ref())? {
            return Ok(());
        }
    }
}

fn forward_responses(pair: &ConnectionPair, response: &ActiveAction) -> io::Result<()> {
    loop {
        let message = read_message(&pair.server, 1)?;
        if !forward(&pair.client, &message, response.for_next().as_ref())? {
            return Ok(());
        }
    }
}

/// Reads a message. `before` bytes precede the length field, which counts itself.
fn read_message(mut from: &TcpStream, before: usize) -> io::Result<Vec<u8>> {
    let mut message = vec![0; before + 4];
    from.read_exact(&mut message)?;
    let length = message[before..].first_chunk().map_or(0, |length| i32::from_be_bytes(*length));
    let size = usize::try_from(length).unwrap_or(0);
    if !(4..=MESSAGE_BYTES_MAX).contains(&size) {
        return Err(io::Error::other("invalid message length"));
    }
    message.resize(before + size, 0);
    from.read_exact(&mut message[before + 4..])?;
    Ok(message)
}
