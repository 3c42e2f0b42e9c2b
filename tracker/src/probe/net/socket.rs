//! The one deadline of a probe, and waiting for sockets up to it.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// No time-out is longer than this, so that adding it to a time can't overflow.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The instant at which a probe ends, whatever it is doing then.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline that far from now; more than a day counts as a day.
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time.min(LONGEST))
    }

    /// What is left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether nothing is left.
    pub fn passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// This deadline, or the one that far from now if that is earlier.
    #[must_use]
    pub fn or_after(self, time: Duration) -> Self {
        Self(self.0.min(Self::after(time).0))
    }
}

/// Waits until one of the sockets is ready; false when the deadline came first.
///
/// # Errors
/// What poll(2) fails with; an interruption is not an error.
pub(crate) fn wait(sockets: &mut [PollFd<'_>], deadline: Deadline) -> io::Result<bool> {
    loop {
        // poll(2) rounds up to its own grain, so a wait never ends just short
        // of the deadline to be begun again.
        let time = Timespec::try_from(deadline.remaining()).map_err(io::Error::other)?;
        match poll(sockets, Some(&time)) {
            Ok(0) if deadline.passed() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(cause) => return Err(cause.into()),
        }
    }
}

/// Waits for one socket.
///
/// # Errors
/// [`ErrorKind::TimedOut`] at the deadline.
pub(crate) fn wait_for(socket: impl AsFd, flags: PollFlags, deadline: Deadline) -> io::Result<()> {
    match wait(&mut [PollFd::new(&socket, flags)], deadline)? {
        true => Ok(()),
        false => Err(ErrorKind::TimedOut.into()),
    }
}

/// A connected socket whose every read and write ends at the deadline with
/// [`ErrorKind::TimedOut`], even when the other side sends a byte at a time.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: TcpStream,
    deadline: Deadline,
}

impl Wire {
    /// Takes a connected socket.
    ///
    /// # Errors
    /// When the socket can't be set to non-blocking.
    pub(crate) fn new(socket: TcpStream, deadline: Deadline) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, deadline })
    }

    /// Waits until there is something to read, be it the end.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] at the deadline.
    pub(crate) fn wait(&self) -> io::Result<()> {
        wait_for(&self.socket, PollFlags::IN, self.deadline)
    }

    fn retry<T>(
        &self,
        flags: PollFlags,
        mut operation: impl FnMut(&TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            if self.deadline.passed() {
                return Err(ErrorKind::TimedOut.into());
            }
            match operation(&self.socket) {
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => {
                    wait_for(&self.socket, flags, self.deadline)?;
                }
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(PollFlags::IN, |mut socket| socket.read(buffer))
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(PollFlags::OUT, |mut socket| socket.write(bytes))
    }

    /// In one packet, where TLS has several messages to send.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.retry(PollFlags::OUT, |mut socket| socket.write_vectored(pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_is_always_ready_ends_at_the_deadline_too() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut far = listener.accept().unwrap().0;
        far.write_all(b"ready").unwrap();
        let mut wire = Wire::new(near, Deadline::after(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 1];
        assert_eq!(wire.read(&mut buffer).unwrap(), 1);
        wire.deadline = Deadline::after(Duration::ZERO);
        assert_eq!(wire.read(&mut buffer).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(wire.write(b"x").unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn several_pieces_are_written_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut far = listener.accept().unwrap().0;
        let mut wire = Wire::new(near, Deadline::after(Duration::from_secs(10))).unwrap();
        let pieces = ["one ", "two ", "three"].map(|piece| IoSlice::new(piece.as_bytes()));
        assert_eq!(wire.write_vectored(&pieces).unwrap(), 13);
        drop(wire);
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two three");
    }

    #[test]
    fn a_deadline_is_only_ever_brought_forward() {
        let long = Deadline::after(Duration::MAX);
        assert!(long.remaining() <= LONGEST);
        let short = long.or_after(Duration::from_secs(1));
        assert!(short.remaining() <= Duration::from_secs(1));
        assert!(short.or_after(Duration::MAX).remaining() <= Duration::from_secs(1));
    }
}
