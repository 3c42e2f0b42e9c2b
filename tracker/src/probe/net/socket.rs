//! Sockets whose operations end at a deadline.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::deadline::Deadline;

/// Waits until one of the sockets is ready. Returns false at the deadline.
///
/// # Errors
/// When poll(2) fails. An interruption is not an error.
pub(crate) fn wait_any(sockets: &mut [PollFd<'_>], deadline: Deadline) -> io::Result<bool> {
    loop {
        // poll(2) rounds the time up, so it does not return just before the deadline.
        let time = Timespec::try_from(deadline.remaining()).map_err(io::Error::other)?;
        match poll(sockets, Some(&time)) {
            Ok(0) if deadline.has_passed() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(cause) => return Err(cause.into()),
        }
    }
}

/// Waits until a socket is ready.
///
/// # Errors
/// [`ErrorKind::TimedOut`] at the deadline.
fn wait_one(socket: impl AsFd, flags: PollFlags, deadline: Deadline) -> io::Result<()> {
    match wait_any(&mut [PollFd::new(&socket, flags)], deadline)? {
        true => Ok(()),
        false => Err(ErrorKind::TimedOut.into()),
    }
}

/// A connected socket. Its reads and writes fail with [`ErrorKind::TimedOut`] at the
/// deadline, even if the other side sends one byte at a time.
#[derive(Debug)]
pub(crate) struct TimedSocket {
    socket: TcpStream,
    deadline: Deadline,
}

impl TimedSocket {
    /// # Errors
    /// When the socket can't be set to non-blocking.
    pub(crate) fn new(socket: TcpStream, deadline: Deadline) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, deadline })
    }

    /// Waits for input or the end of the input.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] at the deadline.
    pub(crate) fn wait_readable(&self) -> io::Result<()> {
        wait_one(&self.socket, PollFlags::IN, self.deadline)
    }

    /// Repeats an operation of the non-blocking socket until it does not need to wait.
    fn retry<T>(
        &self,
        flags: PollFlags,
        mut operation: impl FnMut(&TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            if self.deadline.has_passed() {
                return Err(ErrorKind::TimedOut.into());
            }
            match operation(&self.socket) {
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => {
                    wait_one(&self.socket, flags, self.deadline)?;
                }
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Read for TimedSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(PollFlags::IN, |mut socket| socket.read(buffer))
    }
}

impl Write for TimedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(PollFlags::OUT, |mut socket| socket.write(bytes))
    }

    /// Sends several messages of TLS in one packet.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.retry(PollFlags::OUT, |mut socket| socket.write_vectored(slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_socket_that_is_always_ready_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        server.write_all(b"ready").unwrap();
        let mut socket =
            TimedSocket::new(client, Deadline::after(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 1];
        assert_eq!(socket.read(&mut buffer).unwrap(), 1);
        socket.deadline = Deadline::after(Duration::ZERO);
        assert_eq!(socket.read(&mut buffer).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(socket.write(b"x").unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn several_slices_are_written_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        let mut socket =
            TimedSocket::new(client, Deadline::after(Duration::from_secs(10))).unwrap();
        let slices = ["one ", "two ", "three"].map(|text| IoSlice::new(text.as_bytes()));
        assert_eq!(socket.write_vectored(&slices).unwrap(), 13);
        drop(socket);
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two three");
    }
}
