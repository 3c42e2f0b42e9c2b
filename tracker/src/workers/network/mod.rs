//! "I" or "it": whether a failure is this machine's own, for want of a network.
//!
//! Asked on a failure only, and answered on evidence alone: no way out of this
//! machine, or no sentinel that can be reached. That other sites fail as well is
//! no evidence; see [`crate::workers::others_failing`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use url::{Host, Url};

use crate::probe::Prober;

/// The most sentinels: each has a thread for as long as it is looked for.
pub const SENTINELS_MAX: usize = 8;

/// What connecting to a sentinel may take, its name's look-up included.
const SENTINEL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long what was found serves for other failures as well.
const REUSED_FOR: Duration = Duration::from_secs(1);

/// How often it is logged that there is no network.
const SAY_AFTER: Duration = Duration::from_secs(60);

/// Somewhere far away, in each family: the way to a root name server is asked
/// for, of the kernel alone, and nothing is sent.
const FAR_AWAY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// A host and port that can be reached when the network can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentinel {
    host: Host,
    port: u16,
}

impl Sentinel {
    /// Reads `host:port`, several of them separated by commas.
    ///
    /// # Errors
    /// A text that names the part that is wrong.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, String> {
        let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
        let sentinels = parts.map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        match sentinels.len() {
            0 => Err("no sentinel in it".to_owned()),
            1..=SENTINELS_MAX => Ok(sentinels),
            count => Err(format!("{count} sentinels")),
        }
    }

    fn parse(part: &str) -> Result<Self, String> {
        let wrong = || format!("{part:?} is not host:port");
        let (_, port) = part.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        if part.contains(['/', '?', '#', '@', '\\']) {
            return Err(wrong());
        }
        let url = Url::parse(&format!("http://{part}/")).map_err(|_| wrong())?;
        let host = url.host().ok_or_else(wrong)?.to_owned();
        Ok(Self { host, port })
    }
}

/// What is known of the network, for all workers.
#[derive(Debug)]
pub struct Network {
    sentinels: Vec<Sentinel>,
    /// What connecting to one may take.
    timeout: Duration,
    /// When the sentinels were looked for last, and whether one was reached.
    last: Mutex<Option<(Instant, bool)>>,
    /// Not before this is it logged again that there is none.
    say_at: Mutex<Option<Instant>>,
}

impl Network {
    /// With these sentinels, or none.
    pub fn new(sentinels: Vec<Sentinel>) -> Self {
        Self {
            sentinels,
            timeout: SENTINEL_TIMEOUT,
            last: Mutex::new(None),
            say_at: Mutex::new(None),
        }
    }

    /// Whether there is evidence that this machine has no network, after a probe
    /// of that URL failed. It may take 2 s where there are sentinels. Of a site
    /// on this machine there is none, as it is reached without a network.
    pub fn is_down(&self, url: &Url, prober: &Prober) -> bool {
        if url.host().is_none_or(|host| is_here(&host)) {
            return false;
        }
        let evidence = if !has_way_out() {
            "no interface that is up has a route"
        } else if !self.reaches_a_sentinel(prober) {
            "no sentinel can be reached"
        } else {
            return false;
        };
        let mut say_at = self.say_at.lock().unwrap_or_else(PoisonError::into_inner);
        if say_at.is_none_or(|at| at <= Instant::now()) {
            *say_at = Some(Instant::now() + SAY_AFTER);
            log::warn!("no network here: {evidence}: failures are marked no_network");
        }
        true
    }

    /// True also where there are none.
    fn reaches_a_sentinel(&self, prober: &Prober) -> bool {
        if self.sentinels.is_empty() {
            return true;
        }
        // Who waits for another's look takes what that finds.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, reached)) = *last
            && at.elapsed() <= REUSED_FOR
        {
            return reached;
        }
        let reaches = |one: &Sentinel| prober.reaches(&one.host, one.port, self.timeout).is_ok();
        let reached = std::thread::scope(|scope| {
            let (first, rest) = self.sentinels.split_at(1);
            let others: Vec<_> = rest
                .iter()
                .map(|one| {
                    let look = move || reaches(one);
                    std::thread::Builder::new()
                        .name("sentinel".to_owned())
                        .spawn_scoped(scope, look)
                })
                .collect();
            let reached = first.iter().any(reaches);
            // Without a thread nothing is known, and so there is no evidence.
            let found = others.into_iter().map(|look| look.map_or(Ok(true), |look| look.join()));
            found.fold(reached, |reached, found| reached | found.unwrap_or(true))
        });
        *last = Some((Instant::now(), reached));
        reached
    }
}

fn is_here(host: &Host<&str>) -> bool {
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

/// Whether a packet could leave this machine.
fn has_way_out() -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (route, ipv6_route) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
    has_way(&routed(&route, &ipv6_route), is_up, || FAR_AWAY.into_iter().any(kernel_has_route))
}

/// The interfaces tell when they carry the routes; routes by rules of their own
/// are not in the main table, and the kernel tells whether there are any.
fn has_way(
    interfaces: &[&str],
    is_up: impl Fn(&str) -> bool,
    kernel_has_route: impl FnOnce() -> bool,
) -> bool {
    match interfaces {
        [] => kernel_has_route(),
        some => some.iter().any(|name| is_up(name)),
    }
}

/// The interfaces, but for loopback, that a route of the main table goes by.
/// What holds for a single link, and is there without any network, is no route.
fn routed<'a>(route: &'a str, ipv6_route: &'a str) -> Vec<&'a str> {
    let v4 = route.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let (interface, destination) = (columns.next()?, columns.next()?);
        // 169.254.0.0, the bytes in this machine's order.
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

/// What can't be told counts as up.
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
    // A datagram's socket that is connected sends nothing.
    let connected = UdpSocket::bind((from, 0)).and_then(|socket| {
        socket.connect((to, 9))?;
        socket.local_addr()
    });
    connected.is_ok_and(|local| !local.ip().is_loopback() && !local.ip().is_unspecified())
}

#[cfg(test)]
mod tests;
