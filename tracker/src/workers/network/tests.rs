use testkit::sites::{BlackHole, RefusingPort, Site};

use super::*;
use crate::probe::Roots;
use crate::probe::net::resolver::ResolverConfig;

const ROUTE: &str = "\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
lo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0
";

fn url(host: &str) -> Url {
    format!("http://{host}/").parse().unwrap()
}

fn local_sentinel(port: u16) -> Sentinel {
    Sentinel { host: Host::Ipv4(Ipv4Addr::LOCALHOST), port }
}

#[test]
fn a_valid_list_is_parsed_and_any_other_rejected() {
    let list = Sentinel::parse_list("a.io:80, [2001:db8::1]:53,10.0.0.1:1 ,Bücher.example:8443");
    let shown: Vec<_> =
        list.unwrap().iter().map(|one| format!("{}:{}", one.host, one.port)).collect();
    let expected = ["a.io:80", "[2001:db8::1]:53", "10.0.0.1:1", "xn--bcher-kva.example:8443"];
    assert_eq!(shown, expected);
    for (list, expected) in [
        (" ,", "it contains no sentinel"),
        ("a.io", "\"a.io\" is not host:port"),
        ("a.io:80,b:0", "\"b:0\" is not host:port"),
        ("http://a.io:80", "\"http://a.io:80\" is not host:port"),
        ("u@a.io:80", "\"u@a.io:80\" is not host:port"),
        ("::1", "\"::1\" is not host:port"),
        ("a:1,a:1,a:1,a:1,a:1,a:1,a:1,a:1,a:1", "9 sentinels"),
    ] {
        assert_eq!(Sentinel::parse_list(list).unwrap_err().to_string(), expected);
    }
}

#[test]
fn link_local_routes_are_left_out() {
    let v4 = |line| format!("{ROUTE}{line}\n");
    let default = v4("eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0");
    let own = v4("wg0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0");
    let link = format!("{:08X}", u32::from_ne_bytes([169, 254, 0, 0]));
    let link = v4(&format!("eth0\t{link}\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0"));
    let v6 = |destination: &str, flags: &str, interface: &str| {
        let zero = "0".repeat(32);
        format!(
            "{destination:0<32} 40 {zero} 00 {zero} 00000100 00000001 00000000 {flags}     {interface}\n"
        )
    };
    for (route, ipv6_route, expected) in [
        ("", String::new(), &[][..]),
        (ROUTE, v6("fe80", "00000001", "eth0") + &v6("ff", "00000001", "eth0"), &[]),
        (ROUTE, v6("fd00", "80200001", "eth0") + &v6("", "00200200", "lo"), &[]),
        (ROUTE, v6("fd00", "00000001", "eth0"), &["eth0"]),
        (ROUTE, v6("", "00000003", "eth0"), &["eth0"]),
        (&default, String::new(), &["eth0"]),
        (&own, v6("", "00000003", "eth1"), &["wg0", "eth1"]),
        (&link, String::new(), &[]),
    ] {
        assert_eq!(interfaces_with_routes(route, &ipv6_route), expected, "{route}{ipv6_route}");
    }
}

#[test]
fn a_route_is_usable_by_an_interface_that_is_up_or_a_rule_of_the_kernel() {
    for (interfaces, up, kernel, expected) in [
        (&[][..], "", false, false),
        (&[], "", true, true),
        (&["eth0"], "eth0", false, true),
        (&["eth0"], "eth1", true, false),
        (&["eth0", "eth1"], "eth1", false, true),
    ] {
        assert_eq!(
            has_usable_route(interfaces, |name| name == up, || kernel),
            expected,
            "{interfaces:?}"
        );
    }
    assert!(is_up("no-such-interface"));
    assert!(!kernel_has_route(Ipv4Addr::LOCALHOST.into()));
}

#[test]
fn the_network_is_down_when_no_sentinel_is_reached() {
    let (hole, refusing) = (BlackHole::new().unwrap(), RefusingPort::new().unwrap());
    let site = Site::raw(vec![]).unwrap();
    let (silent, refused) =
        (local_sentinel(hole.port().unwrap()), local_sentinel(refusing.port().unwrap()));
    let prober = Prober::new(ResolverConfig::default(), &Roots::Custom(vec![])).unwrap();
    for (sentinels, expected) in [
        (vec![], true),
        (vec![local_sentinel(site.port())], true),
        (vec![refused.clone()], false),
        (vec![silent.clone(), local_sentinel(site.port()), refused.clone()], true),
        (vec![refused.clone(), silent], false),
    ] {
        let timeout = Duration::from_millis(400);
        let network = NetworkCheck { timeout, ..NetworkCheck::new(sentinels) };
        assert_eq!(network.reaches_any_sentinel(&prober), expected, "{network:?}");
    }

    // A site on this machine needs no network.
    let network = NetworkCheck::new(vec![refused]);
    for host in ["127.0.0.2", "[::1]", "localhost", "a.Localhost."] {
        assert!(!network.is_down(&url(host), &prober), "{host}");
    }
    for host in ["192.0.2.1", "[2001:db8::1]", "localhost.io"] {
        assert!(network.is_down(&url(host), &prober), "{host}");
    }
}

#[test]
fn all_workers_together_check_the_sentinels_once_a_second() {
    let site = Site::raw(vec![]).unwrap();
    let network = NetworkCheck::new(vec![local_sentinel(site.port())]);
    let prober = Prober::new(ResolverConfig::default(), &Roots::Custom(vec![])).unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert!(network.reaches_any_sentinel(&prober)));
        }
    });
    let seconds = begun.elapsed().as_secs();
    let connections = site.connections();
    assert!(connections <= 1 + seconds, "{connections} in {seconds} s");
}
