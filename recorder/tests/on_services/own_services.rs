//! Services that tests may break.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use testkit::services::{OwnSet, Services};

/// A set of services that one test at a time uses. `None`: the next test starts the set.
type Set = Mutex<Option<OwnSet>>;

/// The sets in use, by their number of brokers.
static SETS: Mutex<BTreeMap<usize, Weak<Set>>> = Mutex::new(BTreeMap::new());

/// Runs a test on a set of services that no other test uses meanwhile. Tests that wait for the same
/// set share it, because its start is slow. The last test stops it. A test must leave the services
/// as it found them. After a failed test, the next test starts a new set.
pub(crate) fn with_own_services(brokers: usize, test: impl FnOnce(&OwnSet)) {
    let set = {
        let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use = sets.get(&brokers).and_then(Weak::upgrade);
        let set = in_use.unwrap_or_default();
        sets.insert(brokers, Arc::downgrade(&set));
        set
    };
    let is_broken = set.is_poisoned();
    let mut services = set.lock().unwrap_or_else(PoisonError::into_inner);
    if is_broken {
        *services = None;
        set.clear_poison();
    }
    let services = services.get_or_insert_with(|| Services::start(brokers).unwrap());
    test(services);
}
