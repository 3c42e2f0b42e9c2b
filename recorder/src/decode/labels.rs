//! The labels of the two enum types as the database spells them.

use std::collections::HashMap;
use std::sync::Arc;

use common::phrase;

/// The labels of the enum types, by their lower-case form.
///
/// Version 1.1.0 creates the label `page content not expected`, but its README shows `Page content
/// not expected`. A database may have either spelling. Rows must use the spelling of the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    statuses: HashMap<String, Arc<str>>,
    phrases: HashMap<String, Arc<str>>,
}

impl Labels {
    /// Creates the labels from the labels in the database.
    pub fn new(statuses: Vec<String>, phrases: Vec<String>) -> Self {
        Self { statuses: by_lower_case(statuses), phrases: by_lower_case(phrases) }
    }

    /// The spelling of a status in the database. `None`: the database has no such label.
    pub fn status(&self, status: &str) -> Option<&str> {
        self.statuses.get(&status.to_lowercase()).map(|label| &**label)
    }

    /// The spelling of a phrase in the database. A newer spelling of the phrase of a status code
    /// maps to the label in the README of 1.1.0.
    pub fn phrase(&self, phrase: &str) -> Option<&Arc<str>> {
        let lower = phrase.to_lowercase();
        self.phrases.get(phrase::from_spelling(&lower)).or_else(|| self.phrases.get(&lower))
    }
}

fn by_lower_case(labels: Vec<String>) -> HashMap<String, Arc<str>> {
    let mut by_lower_case = HashMap::with_capacity(labels.len());
    for label in labels {
        let lower = label.to_lowercase();
        // If labels differ only in case, the lower-case label is preferred.
        if label == lower || !by_lower_case.contains_key(&lower) {
            by_lower_case.insert(lower, label.into());
        }
    }
    by_lower_case
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_spellings_of_a_phrase_have_the_label_of_the_old_one() {
        let labels = ["Request entity too large", "i'm a teapot", "unprocessable content"];
        let labels = Labels::new(Vec::new(), labels.map(str::to_owned).to_vec());
        let label = |phrase| labels.phrase(phrase).map(|label| &**label);
        assert_eq!(label("Content Too Large"), Some("Request entity too large"));
        assert_eq!(label("I'm a Teapot"), Some("i'm a teapot"));
        // A database without the label in the README of 1.1.0.
        assert_eq!(label("unprocessable content"), Some("unprocessable content"));
        assert_eq!(label("uri too long"), None);
    }
}
