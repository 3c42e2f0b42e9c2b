//! Resolves host names, within a deadline.
//!
//! The resolver of the C library can't distinguish "no such name" from "no address" and has
//! no deadline. The resolver of musl also rejects a good A answer when AAAA fails. This
//! resolver does not support NSS modules, mDNS and DNSSEC. It caches only on request,
//! because a probe measures the look-up.

mod cache;
mod hosts;
mod lookup;
mod message;
mod name_servers;
mod resolv_conf;
mod server_queries;
mod tcp;
mod watched_file;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hickory_proto::rr::{Name, RecordType};

use super::deadline::Deadline;
use crate::probe::family::Family;
use crate::probe::reason::{Failure, Phase, Reason};
use cache::DnsCache;
use hosts::Hosts;
use lookup::{FamilyResult, QueryPlan};
use message::{DnsAnswer, DnsReply};
pub use name_servers::{NameServers, NameServersError, SERVERS_MAX};
use resolv_conf::ResolvConf;
use watched_file::WatchedFile;

/// Most aliases to look up because a server left out their addresses.
const ALIAS_LOOKUPS_MAX: usize = 8;

/// The files and settings of the resolver.
#[derive(Debug, Clone)]
pub struct ResolverConfig {
    /// The path of resolv.conf(5). The file is read again when it changes.
    pub resolv_conf: PathBuf,
    /// The path of hosts(5). The file is read again when it changes. It takes precedence
    /// over the servers.
    pub hosts: PathBuf,
    /// Servers to use instead of the servers in resolv.conf. The suffixes and options of
    /// resolv.conf still apply.
    pub servers: Option<NameServers>,
    /// Whether answers are cached until their TTL has passed.
    pub cache: bool,
}

impl Default for ResolverConfig {
    /// The files of the machine, without a cache.
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
            servers: None,
            cache: false,
        }
    }
}

/// A resolver. All workers share one.
#[derive(Debug)]
pub struct Resolver {
    resolv_conf: WatchedFile<ResolvConf>,
    hosts: WatchedFile<Hosts>,
    servers: Option<NameServers>,
    cache: Option<DnsCache>,
    /// Counts the look-ups, for the `rotate` option.
    lookups: AtomicUsize,
}

impl Resolver {
    /// Reads no file yet: each look-up reads the files that have changed.
    pub fn new(config: ResolverConfig) -> Self {
        Self {
            resolv_conf: WatchedFile::new(config.resolv_conf, ResolvConf::parse),
            hosts: WatchedFile::new(config.hosts, Hosts::parse),
            servers: config.servers,
            cache: config.cache.then(DnsCache::default),
            lookups: AtomicUsize::new(0),
        }
    }

    /// Returns the addresses of a host name, IPv6 and IPv4 alternating, at least one.
    /// `servers` replaces the servers of the resolver.
    ///
    /// A name with a dot is first looked up as it is. A name with fewer dots than `ndots`
    /// of resolv.conf is also looked up with the search suffixes. The names of RFC 6761
    /// need no server: `localhost` is loopback, and `invalid` does not exist.
    ///
    /// # Errors
    /// [`Reason::DnsNoSuchDomain`] only if a server answers NXDOMAIN (or by RFC 6761);
    /// [`Reason::DnsNoAddress`] if the name exists without an address;
    /// [`Reason::DnsTimeout`] and [`Reason::DnsServerFailure`] for all other failures.
    pub fn resolve(
        &self,
        host: &str,
        servers: Option<&NameServers>,
        deadline: Deadline,
    ) -> Result<Vec<IpAddr>, Failure> {
        self.resolve_family(Family::Any, host, servers, deadline)
    }

    /// Like [`Resolver::resolve`], but queries the servers only for the addresses of one
    /// family, so that the other family can't fail. The hosts file can still return both.
    pub(crate) fn resolve_family(
        &self,
        family: Family,
        host: &str,
        servers: Option<&NameServers>,
        deadline: Deadline,
    ) -> Result<Vec<IpAddr>, Failure> {
        if let Some(addresses) = self.hosts.get().get(host) {
            return Ok(interleave(addresses.to_vec()));
        }
        match special_name(host) {
            Some(SpecialName::Loopback) => {
                return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
            }
            Some(SpecialName::NoSuchName) => return Err(no_such_domain()),
            None => {}
        }
        let conf = self.resolv_conf.get();
        let servers = servers.or(self.servers.as_ref()).unwrap_or(&conf.servers);
        let lookup_number = self.lookups.fetch_add(1, Ordering::Relaxed);
        let first = if conf.rotate { lookup_number % servers.as_slice().len() } else { 0 };
        let plan = QueryPlan { servers, first, timeout: conf.timeout, rounds: conf.attempts };
        let mut failure = no_such_domain();
        for name in candidate_names(host, &conf) {
            match self.look_up(plan, family, &name, deadline) {
                Ok(addresses) => return Ok(interleave(addresses)),
                // Only a definite "no" continues with the next candidate.
                Err(error) if error.reason == Reason::DnsNoSuchDomain => {}
                Err(error) if error.reason == Reason::DnsNoAddress => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    /// Looks up one name, and the aliases whose addresses the server left out.
    fn look_up(
        &self,
        plan: QueryPlan<'_>,
        family: Family,
        name: &str,
        deadline: Deadline,
    ) -> Result<Vec<IpAddr>, Failure> {
        let mut name = Name::from_ascii(name).map_err(|cause| {
            let detail = format!("not a name for dns: {cause}");
            Failure::with_detail(Reason::DnsServerFailure, Phase::Resolve, detail)
        })?;
        for _ in 0..ALIAS_LOOKUPS_MAX {
            let results = self.query(plan, family, &name, deadline);
            match combine(results, plan.servers.as_slice())? {
                Resolved::Addresses(addresses) => return Ok(addresses),
                Resolved::Alias(alias) => name = alias,
            }
        }
        Err(Failure::with_detail(Reason::DnsServerFailure, Phase::Resolve, "a loop of aliases"))
    }

    /// Queries the servers for the answers that the cache does not have.
    fn query(
        &self,
        plan: QueryPlan<'_>,
        family: Family,
        name: &Name,
        deadline: Deadline,
    ) -> [FamilyResult; 2] {
        let excluded = match family {
            Family::Any | Family::Both => None,
            Family::V4 => Some(RecordType::AAAA),
            Family::V6 => Some(RecordType::A),
        };
        let exclude = |mut known: [Option<DnsReply>; 2]| {
            for (known, record_type) in known.iter_mut().zip(lookup::RECORD_TYPES) {
                if Some(record_type) == excluded {
                    *known = Some(DnsReply::NoData);
                }
            }
            known
        };
        let Some(cache) = &self.cache else {
            return lookup::query(plan, name, exclude([None, None]), deadline);
        };
        let known = exclude(cache.get(name, plan.servers, Instant::now()));
        let results = lookup::query(plan, name, known, deadline);
        for (family, result) in results.iter().enumerate() {
            if let FamilyResult::Answered(DnsAnswer { reply, ttl }) = result {
                let key = (name, plan.servers, family);
                cache.insert(key, reply.clone(), *ttl, Instant::now());
            }
        }
        results
    }
}

enum SpecialName {
    Loopback,
    NoSuchName,
}

/// RFC 6761, sections 6.3 and 6.4.
fn special_name(host: &str) -> Option<SpecialName> {
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.rsplit('.').next() {
        Some(last) if last.eq_ignore_ascii_case("localhost") => Some(SpecialName::Loopback),
        Some(last) if last.eq_ignore_ascii_case("invalid") => Some(SpecialName::NoSuchName),
        _ => None,
    }
}

/// The names to look up for a host, in order.
fn candidate_names(host: &str, conf: &ResolvConf) -> Vec<String> {
    let dots = host.matches('.').count();
    let absolute = format!("{}.", host.strip_suffix('.').unwrap_or(host));
    if host.ends_with('.') || dots >= conf.ndots {
        return vec![absolute];
    }
    let with_suffixes = conf
        .search
        .iter()
        .map(|suffix| suffix.trim_matches('.'))
        .filter(|suffix| !suffix.is_empty())
        .map(|suffix| format!("{host}.{suffix}."));
    match dots {
        0 => with_suffixes.chain([absolute.clone()]).collect(),
        _ => [absolute.clone()].into_iter().chain(with_suffixes).collect(),
    }
}

enum Resolved {
    Addresses(Vec<IpAddr>),
    Alias(Name),
}

/// Combines the results of both families. Addresses of one family are enough. Without
/// addresses one NXDOMAIN is enough, and "no address" needs the answers of both families.
fn combine(results: [FamilyResult; 2], servers: &[SocketAddr]) -> Result<Resolved, Failure> {
    let mut addresses = Vec::new();
    let (mut alias, mut error) = (None, None);
    let (mut timed_out, mut no_such_name) = (false, false);
    for result in results {
        match result {
            FamilyResult::Answered(answer) => match answer.reply {
                DnsReply::Addresses(found) => addresses.extend(found),
                DnsReply::Alias(name) => alias = Some(name),
                DnsReply::NoSuchName => no_such_name = true,
                DnsReply::NoData => {}
                DnsReply::Truncated | DnsReply::EdnsNotSupported | DnsReply::Failed(_) => {
                    timed_out = true;
                }
            },
            FamilyResult::Failed(text) => error = Some(text),
            FamilyResult::NoAnswer => timed_out = true,
        }
    }
    let failure = |reason, detail| Err(Failure::with_detail(reason, Phase::Resolve, detail));
    match (alias, error) {
        _ if !addresses.is_empty() => Ok(Resolved::Addresses(addresses)),
        _ if no_such_name => Err(no_such_domain()),
        (_, Some(text)) => failure(Reason::DnsServerFailure, text),
        _ if timed_out => {
            let servers: Vec<_> = servers.iter().map(SocketAddr::to_string).collect();
            failure(Reason::DnsTimeout, format!("no answer from {}", servers.join(", ")))
        }
        (Some(alias), None) => Ok(Resolved::Alias(alias)),
        (None, None) => Err(Failure::new(Reason::DnsNoAddress, Phase::Resolve)),
    }
}

fn no_such_domain() -> Failure {
    Failure::new(Reason::DnsNoSuchDomain, Phase::Resolve)
}

/// Alternates IPv6 and IPv4, IPv6 first (RFC 8305, section 4). The order within a family
/// stays.
fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut interleaved = Vec::new();
    loop {
        let pair = [v6.next(), v4.next()];
        if pair == [None, None] {
            return interleaved;
        }
        interleaved.extend(pair.into_iter().flatten());
    }
}
