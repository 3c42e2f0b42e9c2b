//! Names to addresses: a blocking resolver in the process, to a deadline.
//!
//! The C library's can't tell "no such name" from "no address", has no
//! deadline, and musl's fails a good A answer when AAAA fails. What this one
//! does not do: NSS modules, mDNS, DNSSEC, and, unless told to, a cache: each
//! probe measures.

mod cache;
mod files;
mod lookup;
mod message;
mod servers;
mod tcp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hickory_proto::rr::{Name, RecordType};

use crate::probe::family::Family;
use crate::probe::net::socket::Deadline;
use crate::probe::reason::{Failure, Phase, Reason};
use cache::Cache;
use files::{Hosts, ResolvConf, Watched};
use lookup::{Settled, Way};
use message::{Answer, Reply};
pub use servers::{SERVERS_MAX, Servers};

/// How often a server's alias without addresses is asked for in its turn.
const ALIAS_QUESTIONS_MAX: usize = 8;

/// Where the resolver finds what it works by.
#[derive(Debug, Clone)]
pub struct Sources {
    /// resolv.conf(5), read again when it changes.
    pub resolv_conf: PathBuf,
    /// hosts(5), read again when it changes; it comes before the servers.
    pub hosts: PathBuf,
    /// Servers in place of those that resolv.conf names; its suffixes and
    /// options hold for them too.
    pub servers: Option<Servers>,
    /// Whether answers are kept for as long as they say, so that a name is asked
    /// for when that is over alone.
    pub cache: bool,
}

impl Default for Sources {
    /// The machine's own.
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
            servers: None,
            cache: false,
        }
    }
}

/// A resolver, shared by all workers.
#[derive(Debug)]
pub struct Resolver {
    resolv_conf: Watched<ResolvConf>,
    hosts: Watched<Hosts>,
    servers: Option<Servers>,
    cache: Option<Cache>,
    lookups: AtomicUsize,
}

impl Resolver {
    /// A resolver that works by these files; they are read at each use, if
    /// changed.
    pub fn new(sources: Sources) -> Self {
        Self {
            resolv_conf: Watched::new(sources.resolv_conf, ResolvConf::parse),
            hosts: Watched::new(sources.hosts, Hosts::parse),
            servers: sources.servers,
            cache: sources.cache.then(Cache::default),
            lookups: AtomicUsize::new(0),
        }
    }

    /// The addresses of a host name, IPv6 and IPv4 in turn, at least one; from
    /// `servers` in place of the resolver's own where they are given.
    ///
    /// A name with a dot is asked for as it stands first; a name with fewer
    /// dots than resolv.conf's `ndots` also below its search suffixes. The
    /// names of RFC 6761 are answered here: `localhost` is loopback, and
    /// nothing is `invalid`.
    ///
    /// # Errors
    /// [`Reason::DnsNoSuchDomain`] only on a server's NXDOMAIN (or RFC 6761);
    /// [`Reason::DnsNoAddress`] when the name exists without an address;
    /// [`Reason::DnsTimeout`] and [`Reason::DnsServerFailure`] for all else.
    pub fn resolve(
        &self,
        host: &str,
        servers: Option<&Servers>,
        deadline: Deadline,
    ) -> Result<Vec<IpAddr>, Failure> {
        self.resolve_by(Family::Any, host, servers, deadline)
    }

    /// As [`Resolver::resolve`]; of a family that is not asked for nothing is
    /// asked, so that it can't fail for it, though the hosts file may still name
    /// addresses of it.
    pub(crate) fn resolve_by(
        &self,
        family: Family,
        host: &str,
        servers: Option<&Servers>,
        deadline: Deadline,
    ) -> Result<Vec<IpAddr>, Failure> {
        if let Some(addresses) = self.hosts.get().get(host) {
            return Ok(interleave(addresses.to_vec()));
        }
        match special(host) {
            Some(Special::Loopback) => {
                return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
            }
            Some(Special::NoSuchName) => return Err(no_such_domain()),
            None => {}
        }
        let conf = self.resolv_conf.get();
        let servers = servers.or(self.servers.as_ref()).unwrap_or(&conf.servers);
        let turn = self.lookups.fetch_add(1, Ordering::Relaxed);
        let first = if conf.rotate { turn % servers.as_slice().len() } else { 0 };
        let way = Way { servers, first, timeout: conf.timeout, attempts: conf.attempts };
        let mut worst = no_such_domain();
        for name in candidates(host, &conf) {
            match self.look_up(way, family, &name, deadline) {
                Ok(addresses) => return Ok(interleave(addresses)),
                // Only a name that is surely not there leads on to the next.
                Err(failure) if failure.reason == Reason::DnsNoSuchDomain => {}
                Err(failure) if failure.reason == Reason::DnsNoAddress => worst = failure,
                Err(failure) => return Err(failure),
            }
        }
        Err(worst)
    }

    /// Looks one name up, following aliases that the servers leave to us.
    fn look_up(
        &self,
        way: Way<'_>,
        family: Family,
        name: &str,
        deadline: Deadline,
    ) -> Result<Vec<IpAddr>, Failure> {
        let mut name = Name::from_ascii(name).map_err(|cause| {
            let text = format!("not a name for dns: {cause}");
            Failure::with(Reason::DnsServerFailure, Phase::Resolve, text)
        })?;
        for _ in 0..ALIAS_QUESTIONS_MAX {
            match judge(self.ask(way, family, &name, deadline), way.servers.as_slice())? {
                Found::Addresses(addresses) => return Ok(addresses),
                Found::Alias(alias) => name = alias,
            }
        }
        Err(Failure::with(Reason::DnsServerFailure, Phase::Resolve, "a loop of aliases"))
    }

    /// Asks for what is wanted and the cache does not hold.
    fn ask(&self, way: Way<'_>, family: Family, name: &Name, deadline: Deadline) -> [Settled; 2] {
        let unwanted = match family {
            Family::Any | Family::Both => None,
            Family::V4 => Some(RecordType::AAAA),
            Family::V6 => Some(RecordType::A),
        };
        let without = |mut known: [Option<Reply>; 2]| {
            for (known, kind) in known.iter_mut().zip(lookup::FAMILIES) {
                if Some(kind) == unwanted {
                    *known = Some(Reply::NoData);
                }
            }
            known
        };
        let Some(cache) = &self.cache else {
            return lookup::ask(way, name, without([None, None]), deadline);
        };
        let known = without(cache.get(name, way.servers, Instant::now()));
        let settled = lookup::ask(way, name, known, deadline);
        for (family, one) in settled.iter().enumerate() {
            if let Settled::Reply(Answer { reply, keep }) = one {
                cache.put((name, way.servers, family), reply.clone(), *keep, Instant::now());
            }
        }
        settled
    }
}

enum Special {
    Loopback,
    NoSuchName,
}

/// RFC 6761, sections 6.3 and 6.4.
fn special(host: &str) -> Option<Special> {
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.rsplit('.').next() {
        Some(last) if last.eq_ignore_ascii_case("localhost") => Some(Special::Loopback),
        Some(last) if last.eq_ignore_ascii_case("invalid") => Some(Special::NoSuchName),
        _ => None,
    }
}

/// The names to ask for, in order.
fn candidates(host: &str, conf: &ResolvConf) -> Vec<String> {
    let dots = host.matches('.').count();
    let as_it_stands = format!("{}.", host.strip_suffix('.').unwrap_or(host));
    if host.ends_with('.') || dots >= conf.ndots {
        return vec![as_it_stands];
    }
    let below = conf
        .search
        .iter()
        .map(|suffix| suffix.trim_matches('.'))
        .filter(|suffix| !suffix.is_empty())
        .map(|suffix| format!("{host}.{suffix}."));
    match dots {
        0 => below.chain([as_it_stands.clone()]).collect(),
        _ => [as_it_stands.clone()].into_iter().chain(below).collect(),
    }
}

enum Found {
    Addresses(Vec<IpAddr>),
    Alias(Name),
}

/// Addresses of either family are enough; without any, NXDOMAIN decides, and
/// "no address" needs both families to say so.
fn judge(settled: [Settled; 2], servers: &[SocketAddr]) -> Result<Found, Failure> {
    let mut addresses = Vec::new();
    let (mut alias, mut failed, mut silent, mut no_such_name) = (None, None, false, false);
    for one in settled {
        match one {
            Settled::Reply(answer) => match answer.reply {
                Reply::Addresses(found) => addresses.extend(found),
                Reply::Alias(name) => alias = Some(name),
                Reply::NoSuchName => no_such_name = true,
                Reply::NoData => {}
                _ => silent = true,
            },
            Settled::Failed(text) => failed = Some(text),
            Settled::Silent => silent = true,
        }
    }
    let fails = |reason, text| Err(Failure::with(reason, Phase::Resolve, text));
    match (alias, failed) {
        _ if !addresses.is_empty() => Ok(Found::Addresses(addresses)),
        _ if no_such_name => Err(no_such_domain()),
        (_, Some(text)) => fails(Reason::DnsServerFailure, text),
        _ if silent => fails(Reason::DnsTimeout, format!("no answer from {}", list(servers))),
        (Some(alias), None) => Ok(Found::Alias(alias)),
        (None, None) => Err(Failure::new(Reason::DnsNoAddress, Phase::Resolve)),
    }
}

fn list(servers: &[SocketAddr]) -> String {
    servers.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

fn no_such_domain() -> Failure {
    Failure::new(Reason::DnsNoSuchDomain, Phase::Resolve)
}

/// IPv6 and IPv4 in turn, IPv6 first (RFC 8305, section 4), each family in the
/// order in which the server gave it.
fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [six.next(), four.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}
