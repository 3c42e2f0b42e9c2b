//! Which leases to take, to ask for and to give. Pure.
//!
//! Everybody decides for itself, from the rows that all see. A free lease goes
//! to whoever takes it first; one that is held moves only when a recorder with
//! fewer asks for it, and only while the two are at least two apart: so any
//! lists of domains even out, and then nothing moves any more.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kafka_client::Uuid;

/// The most leases asked for at once: a recorder that comes to a thousand
/// domains gets its share in steps.
const ASK_MAX: usize = 50;

/// A lease as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The topic that its holder works on.
    pub topic: String,
    /// Who has it, gone or not.
    pub holder: Option<Uuid>,
    /// Who asked for it, gone or not.
    pub wanted_by: Option<Uuid>,
}

/// What all recorders see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Every lease.
    pub leases: Vec<Lease>,
    /// Who is at work.
    pub recorders: BTreeSet<Uuid>,
}

/// Who decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Me {
    /// Its name now.
    pub holder: Uuid,
    /// Its name before its leases ran out. Where that still stands nobody else
    /// was in between.
    pub before: Uuid,
}

/// What to change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Topics without a row.
    pub insert: Vec<String>,
    /// Free leases, as they were seen.
    pub take: Vec<Lease>,
    /// Leases of others, as they were seen.
    pub ask: Vec<Lease>,
    /// Leases to be given up, and to whom.
    pub give: Vec<(String, Uuid)>,
    /// Leases that are free and left to others for now.
    pub left: HashSet<String>,
}

/// What to change, for the topics that are `wanted`; those in `left` were free
/// at the last look too, and nobody else took them.
pub(crate) fn plan(look: &Look, me: Me, wanted: &BTreeSet<&str>, left: &HashSet<String>) -> Plan {
    let mut plan = Plan::default();
    let alive = |holder: Option<Uuid>| holder.filter(|holder| look.recorders.contains(holder));
    let mut counts: BTreeMap<Uuid, usize> = BTreeMap::new();
    let mut free = Vec::new();
    let mut others: BTreeMap<Uuid, Vec<&Lease>> = BTreeMap::new();
    let mut absent = wanted.clone();
    for lease in &look.leases {
        let is_wanted = absent.remove(lease.topic.as_str());
        let Some(holder) = alive(lease.holder) else {
            free.extend(is_wanted.then(|| lease.clone()));
            continue;
        };
        let asked = alive(lease.wanted_by).filter(|other| *other != holder);
        *counts.entry(asked.unwrap_or(holder)).or_default() += 1;
        match asked {
            Some(other) if holder == me.holder => plan.give.push((lease.topic.clone(), other)),
            None if holder != me.holder && is_wanted => {
                others.entry(holder).or_default().push(lease);
            }
            _ => {}
        }
    }
    for topic in absent {
        plan.insert.push(topic.to_owned());
        free.push(Lease { topic: topic.to_owned(), holder: None, wanted_by: None });
    }
    let mut mine = counts.get(&me.holder).copied().unwrap_or(0);
    let share = wanted.len().div_ceil(look.recorders.len().max(1));
    let was_mine = |lease: &Lease| lease.holder == Some(me.before);
    free.sort_by_key(|lease| !was_mine(lease));
    for lease in free {
        if was_mine(&lease) || mine < share || left.contains(&lease.topic) {
            mine += 1;
            plan.take.push(lease);
        } else {
            plan.left.insert(lease.topic);
        }
    }
    while plan.ask.len() < ASK_MAX {
        let count = |holder: &Uuid| counts.get(holder).copied().unwrap_or(0);
        let most = others.iter_mut().filter(|(_, leases)| !leases.is_empty());
        let Some((holder, leases)) = most.max_by_key(|(holder, _)| count(holder)) else { break };
        if count(holder) < mine + 2 {
            break;
        }
        plan.ask.extend(leases.pop().cloned());
        counts.entry(*holder).and_modify(|count| *count -= 1);
        mine += 1;
    }
    plan
}

#[cfg(test)]
mod tests;
