//! Decides which leases to acquire, to request and to hand over. Does no I/O.
//!
//! Each recorder decides for itself, from the rows that all recorders read. A free lease goes to
//! the recorder that acquires it first. A held lease moves only when a recorder with fewer leases
//! requests it, and only while the two recorders differ by at least two leases. So the numbers of
//! leases even out for any lists of domains, and then no lease moves any more.
//!
//! A lease that its holder cannot record is offered. Any recorder that reaches the leader may
//! request it, whatever the numbers of leases are. A recorder neither acquires nor requests a lease
//! if it does not reach the leader. So a lease that no recorder can record does not move.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kafka_client::Uuid;

/// The maximum number of leases requested at once. A recorder that joins recorders with a thousand
/// domains gets its share in steps.
const REQUESTS_MAX: usize = 50;
/// The maximum number of offered leases that a recorder requests in a second. The limit leaves a
/// part of the leases to other recorders. If this recorder cannot record the leases either, the
/// limit keeps the harm small.
pub(crate) const OFFERED_REQUESTS_MAX: usize = 10;

/// The access of a recorder to the lease of a topic on its list, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// Neither acquire nor request the lease. A held lease is kept.
    None,
    /// Acquire the lease when it is free.
    Acquire,
    /// Acquire the lease, or request it from its holder.
    Request,
}

/// A lease as stored in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The topic of the domain.
    pub(crate) topic: String,
    /// The holder. It may have expired.
    pub(crate) holder: Option<Uuid>,
    /// The recorder that requested the lease. It may have expired.
    pub(crate) wanted_by: Option<Uuid>,
    /// The recorder that offered the lease last. While this recorder is the holder, the lease is
    /// offered. For five minutes after the lease has moved, only this recorder may request it back
    /// to even out numbers. Recorders of earlier versions do not change this column.
    pub(crate) offered_by: Option<Uuid>,
}

impl Lease {
    /// Whether the holder offers the lease to other recorders.
    pub(crate) fn is_offered(&self) -> bool {
        self.offered_by.is_some() && self.offered_by == self.holder
    }
}

/// All leases and recorders at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeaseSnapshot {
    /// All leases, sorted by the time since they moved, shortest first. So a lease that has just
    /// moved is not the first to move again.
    pub(crate) leases: Vec<Lease>,
    /// The ids of all recorders that have not expired.
    pub(crate) recorders: BTreeSet<Uuid>,
}

/// The identity of this recorder as a holder of leases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    /// The current id.
    pub(crate) id: Uuid,
    /// The id before the last expiry. A lease that still shows this id was not acquired by another
    /// recorder since.
    pub(crate) previous_id: Uuid,
}

/// The changes to make. A change names the lease as it was read, so that a lease that has changed
/// since is not changed again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeasePlan {
    /// Topics without a row.
    pub(crate) insert: Vec<String>,
    /// Free leases to acquire.
    pub(crate) acquire: Vec<Lease>,
    /// Leases to request from their holders.
    pub(crate) request: Vec<Lease>,
    /// The topics of own leases, with the ids of the recorders that requested them.
    pub(crate) hand_over: Vec<(String, Uuid)>,
    /// Topics of own leases to offer.
    pub(crate) offer: Vec<String>,
    /// The topics of own leases that are offered, but that this recorder can record again.
    pub(crate) withdraw: Vec<String>,
    /// The topics of free and offered leases that are left to other recorders first.
    pub(crate) deferred: HashSet<String>,
}

impl LeasePlan {
    /// Whether the plan changes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.acquire.is_empty()
            && self.request.is_empty()
            && self.hand_over.is_empty()
            && self.offer.is_empty()
            && self.withdraw.is_empty()
    }
}

/// The state of this recorder itself, in addition to the snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnState<'a> {
    /// The identity of this recorder.
    pub(crate) holder: Holder,
    /// The topics of the domains on its list.
    pub(crate) topics: &'a BTreeMap<&'a str, Access>,
    /// The topics that the previous plan deferred. If they are still free or offered, no other
    /// recorder needs them.
    pub(crate) deferred: &'a HashSet<String>,
    /// The topics that this recorder offers while it holds their leases.
    pub(crate) offers: &'a BTreeSet<&'a str>,
    /// The maximum number of offered leases to request now.
    pub(crate) offered_requests_max: usize,
}

/// Plans the changes of this recorder.
pub(crate) fn plan_changes(snapshot: &LeaseSnapshot, own: &OwnState<'_>) -> LeasePlan {
    let OwnState { holder, topics, deferred, .. } = *own;
    let mut plan = LeasePlan::default();
    let alive = |id: Option<Uuid>| id.filter(|id| snapshot.recorders.contains(id));
    let mut counts: BTreeMap<Uuid, usize> = BTreeMap::new();
    let mut free = Vec::new();
    let mut offered = Vec::new();
    let mut of_others: BTreeMap<Uuid, Vec<&Lease>> = BTreeMap::new();
    let mut without_row: BTreeSet<&str> =
        topics.iter().filter(|(_, access)| **access >= Access::Acquire).map(|(t, _)| *t).collect();
    let reached = without_row.len();
    for lease in &snapshot.leases {
        without_row.remove(lease.topic.as_str());
        let access = topics.get(lease.topic.as_str()).copied().unwrap_or(Access::None);
        let Some(held_by) = alive(lease.holder) else {
            free.extend((access >= Access::Acquire).then(|| lease.clone()));
            continue;
        };
        let requested_by = alive(lease.wanted_by).filter(|other| *other != held_by);
        if held_by == holder.id && requested_by.is_none() {
            match (own.offers.contains(lease.topic.as_str()), lease.is_offered()) {
                (true, false) => plan.offer.push(lease.topic.clone()),
                (false, true) => plan.withdraw.push(lease.topic.clone()),
                _ => {}
            }
        }
        // A requested lease counts for the requesting recorder. An offered lease counts for no
        // recorder: it costs its holder no work, and will leave it soon.
        if requested_by.is_some() || !lease.is_offered() {
            *counts.entry(requested_by.unwrap_or(held_by)).or_default() += 1;
        }
        match requested_by {
            Some(other) if held_by == holder.id => {
                plan.hand_over.push((lease.topic.clone(), other));
            }
            None if held_by != holder.id && access == Access::Request => {
                if lease.is_offered() {
                    offered.push(lease);
                } else if alive(lease.offered_by).is_none_or(|id| id == holder.id) {
                    of_others.entry(held_by).or_default().push(lease);
                }
            }
            _ => {}
        }
    }
    for topic in without_row {
        plan.insert.push(topic.to_owned());
        free.push(Lease {
            topic: topic.to_owned(),
            holder: None,
            wanted_by: None,
            offered_by: None,
        });
    }
    let mut own_count = counts.get(&holder.id).copied().unwrap_or(0);
    let fair_share = reached.div_ceil(snapshot.recorders.len().max(1));
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
    for lease in offered {
        let is_first = own_count < fair_share || deferred.contains(&lease.topic);
        if is_first && plan.request.len() < own.offered_requests_max {
            own_count += 1;
            plan.request.push(lease.clone());
        } else {
            plan.deferred.insert(lease.topic.clone());
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
