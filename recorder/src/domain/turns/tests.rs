use super::*;

/// Simulates domains at a broker that allows connections to some of them. Returns the longest time
/// for which a domain was not read, and the number of refused connections.
fn simulate(domains: u64, allowed: usize, minutes: u64) -> (Duration, usize) {
    let turns = ConnectionTurns::new(&Timings::default());
    let start = Instant::now();
    let mut last_read: HashMap<u64, Duration> = HashMap::new();
    let (mut longest, mut refusals) = (Duration::ZERO, 0);
    let step = Duration::from_millis(100);
    for tick in 0..minutes * 600 {
        let elapsed = step * u32::try_from(tick).unwrap();
        let now = start + elapsed;
        for id in 0..domains {
            let was_connected = turns.state().connected.contains_key(&id);
            if !turns.may_connect(id, now) {
                continue;
            }
            if !was_connected && turns.state().connected.len() > allowed {
                turns.record_refusal(id, now);
                refusals += 1;
                continue;
            }
            let before = last_read.insert(id, elapsed).unwrap_or_default();
            longest = longest.max(elapsed - before);
            turns.yield_if_due(id, now, || {});
        }
        assert!(turns.state().connected.len() <= allowed);
    }
    assert_eq!(last_read.len() as u64, domains, "each domain is read");
    let end = step * u32::try_from(minutes * 600).unwrap();
    (last_read.values().map(|read| end - *read).max().unwrap().max(longest), refusals)
}

#[test]
fn every_domain_is_read_once_a_minute_below_any_limit() {
    for (domains, allowed) in [(30, 11), (30, 1), (100, 3), (300, 20)] {
        let (longest, _) = simulate(domains, allowed, 3);
        assert!(longest < Duration::from_secs(60), "{domains} {allowed}: {longest:?}");
    }
    assert_eq!(simulate(30, 30, 3), (Duration::from_millis(100), 0), "no limit, no turns");
}

/// If a connection that all domains depend on is refused, one domain gives up its connection.
#[test]
fn room_is_made_for_what_all_domains_depend_on() {
    let turns = ConnectionTurns::new(&Timings::default());
    let now = Instant::now();
    assert!((0..3).all(|id| turns.may_connect(id, now)));
    turns.make_room(now);
    assert!(turns.yield_if_due(0, now, || {}) && !turns.yield_if_due(1, now, || {}));
    assert!(!turns.may_connect(0, now));
    // The limit may have been raised.
    assert!(turns.may_connect(0, now + Timings::default().turn_growth_interval));
}

#[test]
fn a_limit_is_logged_once_until_it_was_not_reached_for_long() {
    let turns = ConnectionTurns::new(&Timings::default());
    let now = Instant::now();
    assert!((0..3).all(|id| turns.may_connect(id, now)));
    assert!(turns.record_refusal(2, now) && !turns.record_refusal(1, now));
    turns.leave(0);
    assert!(turns.may_connect(2, now));
    assert!(turns.record_refusal(2, now + LOG_AGAIN_AFTER));
}

#[test]
fn a_domain_that_does_not_ask_for_its_turn_is_passed_over() {
    let turns = ConnectionTurns::new(&Timings::default());
    let now = Instant::now();
    assert!((0..4).all(|id| turns.may_connect(id, now)));
    assert!(turns.record_refusal(3, now) && !turns.record_refusal(2, now));
    turns.leave(0);
    let soon = now + ASLEEP_AFTER;
    assert!(!turns.may_connect(2, soon), "it is the turn of the other domain");
    turns.leave(1);
    assert!(turns.may_connect(2, soon + Duration::from_millis(1)));
}
