//! The questions to one server, and its socket.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::message::DnsQuestion;
use crate::probe::net::deadline::Deadline;

/// The state of the questions to one server. Arrays are indexed by family.
pub(super) struct ServerQueries {
    pub(super) address: SocketAddr,
    pub(super) use_edns: bool,
    pub(super) socket: Option<UdpSocket>,
    /// The questions that were sent by UDP and are not answered.
    pub(super) pending: [Option<DnsQuestion>; 2],
    /// The questions to repeat by TCP, and the latest time to do so.
    pub(super) truncated: [Option<(DnsQuestion, Deadline)>; 2],
}

impl ServerQueries {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            use_edns: true,
            socket: None,
            pending: [None, None],
            truncated: [None, None],
        }
    }

    /// Opens a connected socket on a random port. The kernel then drops packets of other
    /// hosts, and reports when the server refuses packets.
    pub(super) fn open_socket(&mut self) -> io::Result<&UdpSocket> {
        if self.socket.is_none() {
            let family = match self.address {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            };
            // Two system calls; std needs four.
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
            rustix::net::connect(&socket, &self.address)?;
            self.socket = Some(socket.into());
        }
        self.socket.as_ref().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    pub(super) fn has_pending(&self) -> bool {
        self.has_pending_udp() || self.truncated.iter().any(Option::is_some)
    }

    pub(super) fn has_pending_udp(&self) -> bool {
        self.pending.iter().any(Option::is_some)
    }

    /// Takes a question that must now be repeated by TCP.
    pub(super) fn take_due_for_tcp(&mut self) -> Option<(usize, DnsQuestion)> {
        let nothing_by_udp = !self.has_pending_udp();
        let take_due = |truncated: &mut Option<(DnsQuestion, Deadline)>| {
            truncated
                .take_if(|(_, latest)| nothing_by_udp || latest.has_passed())
                .map(|(question, _)| question)
        };
        self.truncated
            .iter_mut()
            .enumerate()
            .find_map(|(family, truncated)| Some((family, take_due(truncated)?)))
    }

    pub(super) fn next_due_for_tcp(&self) -> Option<Deadline> {
        self.truncated.iter().flatten().map(|(_, latest)| *latest).min()
    }
}
