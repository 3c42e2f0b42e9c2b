//! [`NetworkCheck`]: whether a failure is caused by this machine's own network.
//!
//! It runs only after a failure, and needs evidence: no route out of this machine, or no sentinel
//! that can be reached. Failures of other sites are no evidence; see
//! [`crate::workers::others_failing`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use url::{Host, Url};

use crate::probe::Prober;

/// Most sentinels. A check uses a thread for each.
pub(crate) const SENTINELS_MAX: usize = 8;

/// Longest time to resolve and connect to a sentinel.
const SENTINEL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the result of a check is used for other failures.
const SENTINEL_RESULT_TTL: Duration = Duration::from_secs(1);

/// Shortest time between two log lines about a missing network.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Root name servers, one per address family. The check asks the kernel for a route to them and
/// sends nothing.
const REMOTE_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// A host and port that can be reached whenever the network works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sentinel {
    host: Host,
    port: u16,
}

/// Why a list of sentinels is rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SentinelError {
    #[error("it contains no sentinel")]
    Empty,
    #[error("{0} sentinels")]
    TooMany(usize),
    #[error("{0:?} is not host:port")]
    Invalid(String),
}

impl Sentinel {
    /// Parses `host:port,host:port,...`.
    ///
    /// # Errors
    /// [`SentinelError`] unless there are 1 to [`SENTINELS_MAX`] valid entries.
    pub(crate) fn parse_list(list: &str) -> Result<Vec<Self>, SentinelError> {
        let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
        let sentinels = parts.map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        match sentinels.len() {
            0 => Err(SentinelError::Empty),
            1..=SENTINELS_MAX => Ok(sentinels),
            count => Err(SentinelError::TooMany(count)),
        }
    }

    fn parse(part: &str) -> Result<Self, SentinelError> {
        let invalid = || SentinelError::Invalid(part.to_owned());
        let (_, port) = part.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(invalid)?;
        if part.contains(['/', '?', '#', '@', '\\']) {
            return Err(invalid());
        }
        let url = Url::parse(&format!("http://{part}/")).map_err(|_| invalid())?;
        let host = url.host().ok_or_else(invalid)?.to_owned();
        Ok(Self { host, port })
    }
}

/// Checks this machine's network. Shared by all workers.
#[derive(Debug)]
pub(crate) struct NetworkCheck {
    sentinels: Vec<Sentinel>,
    /// Longest time to connect to a sentinel.
    timeout: Duration,
    /// Time and result of the last check of the sentinels.
    last_check: Mutex<Option<(Instant, bool)>>,
    /// Earliest time of the next log line about a missing network.
    next_log_at: Mutex<Option<Instant>>,
}

impl NetworkCheck {
    pub(crate) fn new(sentinels: Vec<Sentinel>) -> Self {
        Self {
            sentinels,
            timeout: SENTINEL_TIMEOUT,
            last_check: Mutex::new(None),
            next_log_at: Mutex::new(None),
        }
    }

    /// True if there is evidence that this machine has no network, after a probe of `url` failed.
    /// Takes up to 2 s if there are sentinels. Always false for a site on this machine, which is
    /// reached without a network.
    pub(crate) fn is_down(&self, url: &Url, prober: &Prober) -> bool {
        if url.host().is_none_or(|host| is_local(&host)) {
            return false;
        }
        let evidence = if !has_route_out() {
            "no interface that is up has a route"
        } else if !self.reaches_any_sentinel(prober) {
            "no sentinel can be reached"
        } else {
            return false;
        };
        let mut next_log_at = self.next_log_at.lock().unwrap_or_else(PoisonError::into_inner);
        if next_log_at.is_none_or(|at| at <= Instant::now()) {
            *next_log_at = Some(Instant::now() + LOG_INTERVAL);
            log::warn!(
                "this machine has no network: {evidence}: failures are marked no_network until it is back"
            );
        }
        true
    }

    /// True if a sentinel can be reached, or there are no sentinels.
    fn reaches_any_sentinel(&self, prober: &Prober) -> bool {
        if self.sentinels.is_empty() {
            return true;
        }
        // Workers that wait for this lock use the result of the check that holds it.
        let mut last_check = self.last_check.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, reached)) = *last_check
            && at.elapsed() <= SENTINEL_RESULT_TTL
        {
            return reached;
        }
        let reaches = |sentinel: &Sentinel| {
            prober.try_connect(&sentinel.host, sentinel.port, self.timeout).is_ok()
        };
        let reached = std::thread::scope(|scope| {
            let (first, rest) = self.sentinels.split_at(1);
            let checks: Vec<_> = rest
                .iter()
                .map(|sentinel| {
                    std::thread::Builder::new()
                        .name("sentinel".to_owned())
                        .spawn_scoped(scope, move || reaches(sentinel))
                })
                .collect();
            let reached = first.iter().any(reaches);
            // A check whose thread could not be started is no evidence, so it counts as reached.
            let results =
                checks.into_iter().map(|check| check.map_or(Ok(true), |check| check.join()));
            results.fold(reached, |reached, result| reached | result.unwrap_or(true))
        });
        *last_check = Some((Instant::now(), reached));
        reached
    }
}

fn is_local(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
        // RFC 6761, section 6.3.
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// True if a packet could leave this machine.
fn has_route_out() -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (route, ipv6_route) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
    has_usable_route(&interfaces_with_routes(&route, &ipv6_route), is_up, || {
        REMOTE_ADDRESSES.into_iter().any(kernel_has_route)
    })
}

/// True if one of the interfaces with routes is up. Without such interfaces the kernel decides:
/// routes of policy rules are not in the main table.
fn has_usable_route(
    interfaces: &[&str],
    is_up: impl Fn(&str) -> bool,
    kernel_has_route: impl FnOnce() -> bool,
) -> bool {
    match interfaces {
        [] => kernel_has_route(),
        names => names.iter().any(|name| is_up(name)),
    }
}

/// Returns the interfaces with routes in the main table, except loopback. Link-local routes are left
/// out: they exist without any network.
fn interfaces_with_routes<'a>(route: &'a str, ipv6_route: &'a str) -> Vec<&'a str> {
    let v4 = route.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let (interface, destination) = (columns.next()?, columns.next()?);
        // 169.254.0.0 in this machine's byte order.
        let link = u32::from_ne_bytes([169, 254, 0, 0]);
        (u32::from_str_radix(destination, 16).ok()? != link).then_some(interface)
    });
    let v6 = ipv6_route.lines().filter_map(|line| {
        let columns: Vec<_> = line.split_ascii_whitespace().collect();
        let (destination, flags) = (*columns.first()?, *columns.get(8)?);
        // RTF_UP is set, RTF_REJECT and RTF_LOCAL are not.
        let is_route = u32::from_str_radix(flags, 16).ok()? & 0x8000_0201 == 1;
        let is_link = destination.starts_with("fe8") || destination.starts_with("ff");
        columns.get(9).copied().filter(|_| is_route && !is_link)
    });
    v4.chain(v6).filter(|interface| *interface != "lo").collect()
}

/// True unless the interface is known to be down.
fn is_up(interface: &str) -> bool {
    let path = Path::new("/sys/class/net").join(interface).join("operstate");
    let state = std::fs::read_to_string(path).unwrap_or_default();
    !matches!(state.trim(), "down" | "lowerlayerdown" | "notpresent")
}

fn kernel_has_route(to: IpAddr) -> bool {
    let from: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a datagram socket sends nothing.
    let connected = UdpSocket::bind((from, 0)).and_then(|socket| {
        socket.connect((to, 9))?;
        socket.local_addr()
    });
    connected.is_ok_and(|local| !local.ip().is_loopback() && !local.ip().is_unspecified())
}

#[cfg(test)]
mod tests;
