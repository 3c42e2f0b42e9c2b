//! Whether a host can be reached, by the way that probes go.

use std::net::SocketAddr;
use std::time::Duration;

use url::Host;

use super::Prober;
use super::net::connect;
use crate::probe::net::socket::Deadline;
use crate::probe::reason::Failure;

impl Prober {
    /// Resolves and connects, and no more.
    ///
    /// # Errors
    /// Why it can't be reached within the time-out.
    pub fn reaches(&self, host: &Host, port: u16, timeout: Duration) -> Result<(), Failure> {
        let deadline = Deadline::after(timeout);
        let addresses = match host {
            Host::Ipv4(address) => vec![(*address).into()],
            Host::Ipv6(address) => vec![(*address).into()],
            Host::Domain(name) => self.resolver.resolve(name, None, deadline)?,
        };
        let addresses: Vec<_> =
            addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        connect::connect(&addresses, deadline).map(drop)
    }
}
