//! The labels of the two enum types as the database spells them.

use std::collections::HashMap;
use std::sync::Arc;

/// The labels of the enum types by their lower-case form.
///
/// Version 1.1.0 creates the label `page content not expected`, and its README
/// shows `Page content not expected`. A database may have either, and rows must
/// use the spelling that it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    statuses: HashMap<String, Arc<str>>,
    phrases: HashMap<String, Arc<str>>,
}

impl Labels {
    /// From the labels in the database.
    pub fn new(statuses: Vec<String>, phrases: Vec<String>) -> Self {
        Self { statuses: by_lower_case(statuses), phrases: by_lower_case(phrases) }
    }

    /// The database's spelling of a status.
    pub fn status(&self, status: &str) -> Option<&str> {
        self.statuses.get(&status.to_lowercase()).map(|label| &**label)
    }

    /// The database's spelling of a phrase.
    pub fn phrase(&self, phrase: &str) -> Option<&Arc<str>> {
        self.phrases.get(&phrase.to_lowercase())
    }
}

fn by_lower_case(labels: Vec<String>) -> HashMap<String, Arc<str>> {
    let mut by_lower_case = HashMap::with_capacity(labels.len());
    for label in labels {
        let lower = label.to_lowercase();
        // Of several that differ only in case, the lower-case label is preferred.
        if label == lower || !by_lower_case.contains_key(&lower) {
            by_lower_case.insert(lower, label.into());
        }
    }
    by_lower_case
}
