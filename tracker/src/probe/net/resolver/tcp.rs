//! Queries a server by TCP, for an answer that is too large for UDP.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::message::{DnsAnswer, DnsQuestion, DnsReply};
use crate::probe::net::deadline::Deadline;
use crate::probe::net::socket::TimedSocket;

/// Sends a question by TCP (RFC 7766). An error of the connection is a failed reply.
pub(super) fn query(server: SocketAddr, question: &DnsQuestion, deadline: Deadline) -> DnsAnswer {
    let answer = match exchange(server, question, deadline) {
        Ok(bytes) => {
            question.parse_answer(&bytes).ok_or("no answer to the question by tcp".to_owned())
        }
        Err(cause) => Err(format!("tcp: {cause}")),
    };
    answer.unwrap_or_else(|text| DnsAnswer { reply: DnsReply::Failed(text), ttl: Duration::ZERO })
}

fn exchange(server: SocketAddr, question: &DnsQuestion, deadline: Deadline) -> io::Result<Vec<u8>> {
    // connect_timeout does not accept zero.
    let timeout = deadline.remaining().max(Duration::from_millis(1));
    let socket = TcpStream::connect_timeout(&server, timeout)?;
    let mut socket = TimedSocket::new(socket, deadline)?;
    let bytes = question.encode().unwrap_or_default();
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    socket.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat())?;
    let mut length = [0; 2];
    socket.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    socket.read_exact(&mut answer)?;
    Ok(answer)
}
