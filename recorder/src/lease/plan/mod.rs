//! Which leases to acquire, to request and to hand over. Pure.
//!
//! Each recorder decides for itself, from the rows that all recorders read. A free lease
//! goes to the recorder that acquires it first. A held lease moves only when a recorder
//! with fewer leases requests it, and only while the two recorders differ by at least
//! two leases. So the numbers of leases even out for any lists of domains, and then no
//! lease moves any more.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kafka_client::Uuid;

/// The most leases requested at once: a recorder that joins recorders of a thousand
/// domains gets its share in steps.
const REQUESTS_MAX: usize = 50;

/// A lease as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The topic of the domain.
    pub(crate) topic: String,
    /// The holder, which may have expired.
    pub(crate) holder: Option<Uuid>,
    /// The recorder that requested the lease, which may have expired.
    pub(crate) wanted_by: Option<Uuid>,
}

/// All leases and recorders at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeaseSnapshot {
    /// All leases.
    pub(crate) leases: Vec<Lease>,
    /// The ids of the recorders that have not expired.
    pub(crate) recorders: BTreeSet<Uuid>,
}

/// The identity of this recorder as a holder of leases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    /// The current id.
    pub(crate) id: Uuid,
    /// The id before the last expiry. No other recorder has acquired a lease that
    /// still shows it.
    pub(crate) previous_id: Uuid,
}

/// The changes to make. Leases are given as they were read, so that a lease that
/// changed since is left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeasePlan {
    /// Topics without a row.
    pub(crate) insert: Vec<String>,
    /// Free leases to acquire.
    pub(crate) acquire: Vec<Lease>,
    /// Leases to request from their holders.
    pub(crate) request: Vec<Lease>,
    /// Topics of own leases, and the ids of the recorders that requested them.
    pub(crate) hand_over: Vec<(String, Uuid)>,
    /// Topics of free leases that other recorders may acquire first.
    pub(crate) deferred: HashSet<String>,
}

/// Plans the changes for `holder`, which records the domains of `topics`. `deferred`
/// holds the topics that the previous plan deferred: if they are still free, no other
/// recorder needs them.
pub(crate) fn plan_changes(
    snapshot: &LeaseSnapshot,
    holder: Holder,
    topics: &BTreeSet<&str>,
    deferred: &HashSet<String>,
) -> LeasePlan {
    let mut plan = LeasePlan::default();
    let alive = |id: Option<Uuid>| id.filter(|id| snapshot.recorders.contains(id));
    let mut counts: BTreeMap<Uuid, usize> = BTreeMap::new();
    let mut free = Vec::new();
    let mut of_others: BTreeMap<Uuid, Vec<&Lease>> = BTreeMap::new();
    let mut without_row = topics.clone();
    for lease in &snapshot.leases {
        let is_selected = without_row.remove(lease.topic.as_str());
        let Some(held_by) = alive(lease.holder) else {
            free.extend(is_selected.then(|| lease.clone()));
            continue;
        };
        let requested_by = alive(lease.wanted_by).filter(|other| *other != held_by);
        // A requested lease counts as moved already.
        *counts.entry(requested_by.unwrap_or(held_by)).or_default() += 1;
        match requested_by {
            Some(other) if held_by == holder.id => {
                plan.hand_over.push((lease.topic.clone(), other));
            }
            None if held_by != holder.id && is_selected => {
                of_others.entry(held_by).or_default().push(lease);
            }
            _ => {}
        }
    }
    for topic in without_row {
        plan.insert.push(topic.to_owned());
        free.push(Lease { topic: topic.to_owned(), holder: None, wanted_by: None });
    }
    let mut own_count = counts.get(&holder.id).copied().unwrap_or(0);
    let fair_share = topics.len().div_ceil(snapshot.recorders.len().max(1));
    let was_own = |lease: &Lease| lease.holder == Some(holder.previous_id);
    free.sort_by_key(|lease| !was_own(lease));
    for lease in free {
        if was_own(&lease) || own_count < fair_share || deferred.contains(&lease.topic) {
            own_count += 1;
            plan.acquire.push(lease);
        } else {
            plan.deferred.insert(lease.topic);
        }
    }
    while plan.request.len() < REQUESTS_MAX {
        let count = |id: &Uuid| counts.get(id).copied().unwrap_or(0);
        let with_leases = of_others.iter_mut().filter(|(_, leases)| !leases.is_empty());
        let Some((largest, leases)) = with_leases.max_by_key(|(id, _)| count(id)) else { break };
        if count(largest) < own_count + 2 {
            break;
        }
        plan.request.extend(leases.pop().cloned());
        counts.entry(*largest).and_modify(|count| *count -= 1);
        own_count += 1;
    }
    plan
}

#[cfg(test)]
mod tests;
