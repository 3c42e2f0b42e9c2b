//! A question by TCP, for an answer that is too long for UDP.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::message::{Answer, Question, Reply};
use crate::probe::net::socket::{Deadline, Wire};

/// The same question by TCP (RFC 7766). A server whose TCP fails has failed.
pub(crate) fn ask(server: SocketAddr, question: &Question, deadline: Deadline) -> Answer {
    let answer = match exchange(server, question, deadline) {
        Ok(bytes) => question.judge(&bytes).ok_or("no answer to the question by tcp".to_owned()),
        Err(cause) => Err(format!("tcp: {cause}")),
    };
    answer.unwrap_or_else(|text| Answer { reply: Reply::Failed(text), keep: Duration::ZERO })
}

fn exchange(server: SocketAddr, question: &Question, deadline: Deadline) -> io::Result<Vec<u8>> {
    // connect_timeout refuses zero.
    let time = deadline.remaining().max(Duration::from_millis(1));
    let mut wire = Wire::new(TcpStream::connect_timeout(&server, time)?, deadline)?;
    let bytes = question.encode().unwrap_or_default();
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    wire.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat())?;
    let mut length = [0; 2];
    wire.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    wire.read_exact(&mut answer)?;
    Ok(answer)
}
