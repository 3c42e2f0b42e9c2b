use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn servers(port: u16) -> NameServers {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn addresses(count: u8) -> DnsReply {
    DnsReply::Addresses((0..count).map(|i| IpAddr::from([192, 0, 2, i])).collect())
}

#[test]
fn a_reply_is_cached_until_it_expires_and_for_its_key_only() {
    let (cache, start, site) = (DnsCache::default(), Instant::now(), name("Site.example."));
    let get =
        |name: &Name, port, seconds| cache.get(name, &servers(port), start + SECOND * seconds);
    cache.insert((&site, &servers(1), 1), addresses(1), SECOND * 60, start);
    cache.insert((&site, &servers(1), 0), DnsReply::NoData, SECOND * 5, start);
    let v4 = Some(addresses(1));
    assert_eq!(get(&name("sITE.example."), 1, 0), [Some(DnsReply::NoData), v4.clone()]);
    assert_eq!(get(&site, 1, 5), [None, v4]);
    assert_eq!(get(&site, 1, 60), [None, None]);
    assert_eq!(get(&site, 2, 0), [None, None]);
    assert_eq!(get(&name("other.example."), 1, 0), [None, None]);
    cache.insert((&site, &servers(1), 1), addresses(2), Duration::ZERO, start + SECOND * 61);
    assert_eq!(get(&site, 1, 61), [None, None]);
    cache.insert((&site, &servers(1), 1), addresses(200), SECOND, start + SECOND * 61);
    assert_eq!(get(&site, 1, 61), [None, Some(addresses(16))]);
}

#[test]
fn a_full_cache_removes_expired_replies_first() {
    let (cache, start) = (DnsCache::default(), Instant::now());
    let insert = |index: usize, ttl, now| {
        cache.insert((&name(&format!("n{index}.")), &servers(1), 0), DnsReply::NoData, ttl, now);
    };
    let count = || cache.0.lock().unwrap().replies.len();
    for index in 0..REPLIES_MAX {
        insert(index, if index < 100 { SECOND } else { SECOND * 100 }, start);
    }
    let later = start + SECOND * 2;
    insert(REPLIES_MAX, SECOND * 100, later);
    assert_eq!(count(), REPLIES_MAX - 99);
    for index in 0..300 {
        insert(REPLIES_MAX + 1 + index, SECOND * 100, later);
        assert!(count() <= REPLIES_MAX);
    }
    assert_eq!(count(), REPLIES_MAX);
    // A reply that is replaced needs no room.
    insert(REPLIES_MAX + 300, SECOND * 100, later);
    let newest = cache.get(&name(&format!("n{}.", REPLIES_MAX + 300)), &servers(1), later);
    assert_eq!((count(), newest), (REPLIES_MAX, [Some(DnsReply::NoData), None]));
}
