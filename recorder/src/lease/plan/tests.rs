use super::*;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn topics(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("t{number:03}")).collect()
}

/// What the database does: each plan applied by compare-and-set. Whoever ends
/// is no longer in `recorders`.
struct Table {
    look: Look,
    left: BTreeMap<Uuid, HashSet<String>>,
    moved: usize,
}

impl Table {
    fn new(recorders: impl IntoIterator<Item = u128>) -> Self {
        let recorders = recorders.into_iter().map(id).collect();
        Self { look: Look { leases: vec![], recorders }, left: BTreeMap::new(), moved: 0 }
    }

    fn round(&mut self, me: u128, wanted: &[String]) -> Plan {
        let me = Me { holder: id(me), before: id(0) };
        let left = self.left.get(&me.holder).cloned().unwrap_or_default();
        let plan = plan(&self.look, me, &wanted.iter().map(String::as_str).collect(), &left);
        for topic in &plan.insert {
            self.look.leases.push(Lease { topic: topic.clone(), holder: None, wanted_by: None });
        }
        for lease in &mut self.look.leases {
            if plan.take.contains(lease) {
                (lease.holder, lease.wanted_by) = (Some(me.holder), None);
                self.moved += 1;
            } else if plan.ask.contains(lease) {
                lease.wanted_by = Some(me.holder);
            } else if let Some((_, to)) = plan.give.iter().find(|(topic, _)| *topic == lease.topic)
            {
                (lease.holder, lease.wanted_by) = (Some(*to), None);
                self.moved += 1;
            }
        }
        self.left.insert(me.holder, plan.left.clone());
        plan
    }

    fn count(&self, holder: u128) -> usize {
        self.look.leases.iter().filter(|lease| lease.holder == Some(id(holder))).count()
    }

    /// Rounds of all until nothing moves, which must be soon.
    fn settle(&mut self, recorders: &[(u128, &[String])]) {
        for _ in 0..60 {
            let mut quiet = true;
            for (me, wanted) in recorders {
                let done = self.round(*me, wanted);
                quiet &= done.take.is_empty() && done.ask.is_empty() && done.give.is_empty();
            }
            if quiet {
                return;
            }
        }
        panic!("never quiet: {:?}", self.look);
    }
}

/// Goes red when `plan` asks while the two are less than two apart, or never.
#[test]
fn any_number_of_recorders_even_out_and_then_nothing_moves() {
    for (domains, recorders) in [(6, 1), (6, 2), (7, 3), (1000, 4), (2, 5), (0, 2)] {
        let topics = topics(domains);
        let mut table = Table::new(1..=recorders);
        let all: Vec<_> = (1..=recorders).map(|me| (me, topics.as_slice())).collect();
        table.settle(&all[..1]);
        table.settle(&all);
        let counts: Vec<_> = (1..=recorders).map(|me| table.count(me)).collect();
        let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
        assert!(spread <= 1, "{domains} domains: {counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), domains);
        assert!(table.moved <= 2 * domains, "{} moves for {domains}", table.moved);
    }
}

/// Goes red when a share is a bound: then nobody takes what is only on one list.
#[test]
fn lists_that_differ_leave_nothing_over() {
    let all = topics(9);
    let (long, one) = (&all[..8], &all[8..]);
    let mut table = Table::new([1, 2]);
    table.settle(&[(1, long), (2, one)]);
    assert_eq!((table.count(1), table.count(2)), (8, 1));
    // What both may do goes to the one who has less.
    table.settle(&[(1, &all), (2, &all[4..])]);
    assert_eq!((table.count(1), table.count(2)), (5, 4));
}

/// Goes red when `plan` takes whatever is free at the first look.
#[test]
fn what_a_dead_recorder_held_goes_to_the_others_in_equal_parts() {
    let topics = topics(9);
    let mut table = Table::new([1, 2, 3]);
    let all = [(1, topics.as_slice()), (2, topics.as_slice()), (3, topics.as_slice())];
    table.settle(&all);
    table.look.recorders.remove(&id(3));
    table.moved = 0;
    table.settle(&all[..2]);
    let mut counts = [table.count(1), table.count(2)];
    counts.sort_unstable();
    assert_eq!((counts, table.moved), ([4, 5], 3));
}

/// Goes red when `plan` does not look whether who asked is still there.
#[test]
fn nothing_is_given_to_who_is_gone() {
    let topics = topics(4);
    let mut table = Table::new([1, 2]);
    table.settle(&[(1, topics.as_slice())]);
    assert_eq!(table.round(2, &topics).ask.len(), 2);
    table.look.recorders.remove(&id(2));
    table.settle(&[(1, topics.as_slice())]);
    assert_eq!((table.count(1), table.moved), (4, 4));
}

/// Goes red when `plan` does not know its leases under its name before.
#[test]
fn who_lost_the_database_takes_its_own_back_before_others_do() {
    let topics = topics(4);
    let mut table = Table::new([1, 2]);
    table.settle(&[(1, topics.as_slice())]);
    table.look.recorders.remove(&id(1));
    table.look.recorders.insert(id(7));
    let me = Me { holder: id(7), before: id(1) };
    let wanted = topics.iter().map(String::as_str).collect();
    let plan = plan(&table.look, me, &wanted, &HashSet::new());
    assert_eq!((plan.take.len(), plan.left.len()), (4, 0));
}
