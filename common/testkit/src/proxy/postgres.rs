//! A proxy in front of PostgreSQL.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::front::{Front, Link};
use super::{Fault, MESSAGE_BYTES_MAX, Order, Rules, Side, Told, pass};

/// What a client asks before it begins, by the number in the place of a version
/// ("Message Formats" in PostgreSQL's manual): TLS, and encryption by GSSAPI.
const ENCRYPTION_REQUESTS: [i32; 2] = [80_877_103, 80_877_104];

/// Stands before a PostgreSQL. To a client that asks for TLS it says that there
/// is none, so that it can see what is sent.
pub struct PostgresProxy {
    rules: Arc<Rules<Named>>,
    front: Front,
}

/// A message of the client.
struct Named {
    kind: u8,
    holding: String,
}

impl PostgresProxy {
    /// For the server at this address.
    ///
    /// # Errors
    /// When no port or thread is to be had.
    pub fn start(server: SocketAddr) -> io::Result<Self> {
        let rules = Arc::new(Rules::new());
        let of_links = Arc::clone(&rules);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let front = Front::start(listener, server, move |link| serve(link, &of_links))?;
        Ok(Self { rules, front })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.front.address()
    }

    /// Does `fault` once, from the next message on that is of this type (`b'Q'`,
    /// `b'P'`, …), has `holding` somewhere in it, and has `nth` others like it
    /// before it, of whichever connection; on the side of the answer from the
    /// first message on that comes after. A cut counts the bytes of all messages
    /// from there on, so that it finds its place in a whole transaction.
    pub fn tell(&self, kind: u8, holding: &str, nth: usize, side: Side, fault: Fault) -> Told {
        self.rules.add(Named { kind, holding: holding.to_owned() }, nth, side, fault)
    }
}

impl Drop for PostgresProxy {
    fn drop(&mut self) {
        self.rules.end();
    }
}

/// What is done to the messages of one way: a cut until it has come to its
/// place, the others once.
#[derive(Default)]
struct Way(Mutex<Option<Order>>);

impl Way {
    fn order(&self) -> MutexGuard<'_, Option<Order>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn for_next(&self) -> Option<Order> {
        let mut order = self.order();
        match &*order {
            Some(Order { fault: Fault::Cut(_), .. }) => order.clone(),
            _ => order.take(),
        }
    }
}

fn serve(link: &Link, rules: &Rules<Named>) {
    let answer = Way::default();
    // An end by an error is an end.
    link.run(|| drop(requests(link, rules, &answer)), || drop(answers(link, &answer)));
}

fn requests(link: &Link, rules: &Rules<Named>, answer: &Way) -> io::Result<()> {
    loop {
        let start = read_message(&link.client, 0)?;
        let version = start.get(4..).and_then(|rest| rest.first_chunk());
        if version
            .is_some_and(|version| ENCRYPTION_REQUESTS.contains(&i32::from_be_bytes(*version)))
        {
            (&link.client).write_all(b"N")?;
            continue;
        }
        (&link.server).write_all(&start)?;
        break;
    }
    let request = Way::default();
    loop {
        let message = read_message(&link.client, 1)?;
        let order = rules.take(|Named { kind, holding }| {
            let holding = holding.as_bytes();
            message[0] == *kind
                && (holding.is_empty() || message.windows(holding.len()).any(|it| it == holding))
        });
        match order {
            Some(order) if order.side == Side::Request => *request.order() = Some(order),
            Some(order) => *answer.order() = Some(order),
            None => {}
        }
        if !pass(&link.server, &message, request.for_next().as_ref())? {
            return Ok(());
        }
    }
}

fn answers(link: &Link, answer: &Way) -> io::Result<()> {
    loop {
        let message = read_message(&link.server, 1)?;
        if !pass(&link.client, &message, answer.for_next().as_ref())? {
            return Ok(());
        }
    }
}

/// A message with so many bytes in front of its length, which counts itself.
fn read_message(mut from: &TcpStream, before: usize) -> io::Result<Vec<u8>> {
    let mut message = vec![0; before + 4];
    from.read_exact(&mut message)?;
    let length = message[before..].first_chunk().map_or(0, |length| i32::from_be_bytes(*length));
    let size = usize::try_from(length).unwrap_or(0);
    if !(4..=MESSAGE_BYTES_MAX).contains(&size) {
        return Err(io::Error::other("a message whose length can't be"));
    }
    message.resize(before + size, 0);
    from.read_exact(&mut message[before + 4..])?;
    Ok(message)
}
