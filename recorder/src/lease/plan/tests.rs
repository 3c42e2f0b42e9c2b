use super::*;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn topics(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("t{number:03}")).collect()
}

/// The tables of leases, to which plans are applied by compare-and-set. A recorder that
/// ends is removed from `snapshot.recorders`.
struct LeaseTable {
    snapshot: LeaseSnapshot,
    deferred: BTreeMap<Uuid, HashSet<String>>,
    moves: usize,
}

impl LeaseTable {
    fn new(recorders: impl IntoIterator<Item = u128>) -> Self {
        let recorders = recorders.into_iter().map(id).collect();
        let snapshot = LeaseSnapshot { leases: vec![], recorders };
        Self { snapshot, deferred: BTreeMap::new(), moves: 0 }
    }

    /// One recorder plans and changes the table.
    fn apply_plan_of(&mut self, number: u128, topics: &[String]) -> LeasePlan {
        let holder = Holder { id: id(number), previous_id: id(0) };
        let deferred = self.deferred.get(&holder.id).cloned().unwrap_or_default();
        let topics = topics.iter().map(String::as_str).collect();
        let plan = plan_changes(&self.snapshot, holder, &topics, &deferred);
        for topic in &plan.insert {
            let lease = Lease { topic: topic.clone(), holder: None, wanted_by: None };
            self.snapshot.leases.push(lease);
        }
        for lease in &mut self.snapshot.leases {
            let hand_over = plan.hand_over.iter().find(|(topic, _)| *topic == lease.topic);
            if plan.acquire.contains(lease) {
                (lease.holder, lease.wanted_by) = (Some(holder.id), None);
                self.moves += 1;
            } else if plan.request.contains(lease) {
                lease.wanted_by = Some(holder.id);
            } else if let Some((_, to)) = hand_over {
                (lease.holder, lease.wanted_by) = (Some(*to), None);
                self.moves += 1;
            }
        }
        self.deferred.insert(holder.id, plan.deferred.clone());
        plan
    }

    fn count_of(&self, number: u128) -> usize {
        self.snapshot.leases.iter().filter(|lease| lease.holder == Some(id(number))).count()
    }

    /// Lets all recorders plan in turn until no plan changes anything.
    fn settle(&mut self, recorders: &[(u128, &[String])]) {
        for _ in 0..60 {
            let mut changes = 0;
            for (number, topics) in recorders {
                let plan = self.apply_plan_of(*number, topics);
                changes += plan.acquire.len() + plan.request.len() + plan.hand_over.len();
            }
            if changes == 0 {
                return;
            }
        }
        panic!("leases still move after 60 rounds: {:?}", self.snapshot);
    }
}

#[test]
fn any_number_of_recorders_even_out_and_then_no_lease_moves() {
    for (domains, recorders) in [(6, 1), (6, 2), (7, 3), (1000, 4), (2, 5), (0, 2)] {
        let topics = topics(domains);
        let mut table = LeaseTable::new(1..=recorders);
        let all: Vec<_> = (1..=recorders).map(|number| (number, topics.as_slice())).collect();
        table.settle(&all[..1]);
        table.settle(&all);
        let counts: Vec<_> = (1..=recorders).map(|number| table.count_of(number)).collect();
        let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
        assert!(spread <= 1, "{domains} domains: {counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), domains);
        assert!(table.moves <= 2 * domains, "{} moves for {domains} domains", table.moves);
    }
}

/// A fair share is no upper bound: a domain that only one recorder lists is recorded.
#[test]
fn recorders_with_different_lists_record_all_domains() {
    let all = topics(9);
    let (eight, one) = (&all[..8], &all[8..]);
    let mut table = LeaseTable::new([1, 2]);
    table.settle(&[(1, eight), (2, one)]);
    assert_eq!((table.count_of(1), table.count_of(2)), (8, 1));
    // A domain on both lists goes to the recorder with fewer leases.
    table.settle(&[(1, &all), (2, &all[4..])]);
    assert_eq!((table.count_of(1), table.count_of(2)), (5, 4));
}

/// A recorder defers free leases above its fair share once.
#[test]
fn leases_of_an_expired_recorder_are_shared_equally() {
    let topics = topics(9);
    let mut table = LeaseTable::new([1, 2, 3]);
    let all = [(1, topics.as_slice()), (2, topics.as_slice()), (3, topics.as_slice())];
    table.settle(&all);
    table.snapshot.recorders.remove(&id(3));
    table.moves = 0;
    table.settle(&all[..2]);
    let mut counts = [table.count_of(1), table.count_of(2)];
    counts.sort_unstable();
    assert_eq!((counts, table.moves), ([4, 5], 3));
}

#[test]
fn no_lease_is_handed_over_to_an_expired_recorder() {
    let topics = topics(4);
    let mut table = LeaseTable::new([1, 2]);
    table.settle(&[(1, topics.as_slice())]);
    assert_eq!(table.apply_plan_of(2, &topics).request.len(), 2);
    table.snapshot.recorders.remove(&id(2));
    table.settle(&[(1, topics.as_slice())]);
    assert_eq!((table.count_of(1), table.moves), (4, 4));
}

/// A recorder knows its leases by its previous id, and defers none of them.
#[test]
fn a_recorder_whose_leases_expired_acquires_them_again_at_once() {
    let topics = topics(4);
    let mut table = LeaseTable::new([1, 2]);
    table.settle(&[(1, topics.as_slice())]);
    table.snapshot.recorders.remove(&id(1));
    table.snapshot.recorders.insert(id(7));
    let holder = Holder { id: id(7), previous_id: id(1) };
    let topics = topics.iter().map(String::as_str).collect();
    let plan = plan_changes(&table.snapshot, holder, &topics, &HashSet::new());
    assert_eq!((plan.acquire.len(), plan.deferred.len()), (4, 0));
}
