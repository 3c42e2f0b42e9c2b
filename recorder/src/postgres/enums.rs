//! The two enum types of the tables of domains, and their labels.

use common::phrase;
use common::record::Status;

use super::error::TransactionError;
use super::pool::Transaction;
use super::quote::{literal, quoted};
use super::tables::MissingPart;

/// An enum type of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnumType {
    /// `response_status`, the type of the column `status`.
    Status,
    /// `phrase_status`, the type of the column `phrase`.
    Phrase,
}

impl EnumType {
    /// Both types, in the order in which they are created.
    pub const ALL: [Self; 2] = [Self::Status, Self::Phrase];

    /// The name that version 1.1.0 gave the type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "response_status",
            Self::Phrase => "phrase_status",
        }
    }

    /// The labels that the type must have, in the order of the README of 1.1.0.
    pub fn labels(self) -> Vec<&'static str> {
        match self {
            Self::Status => [Status::Responsive, Status::Unresponsive].map(Status::as_str).to_vec(),
            Self::Phrase => phrase::all().collect(),
        }
    }

    /// Creates the type with all of its labels if it does not exist.
    pub(crate) fn create(self) -> String {
        let labels: Vec<_> = self.labels().into_iter().map(literal).collect();
        format!(
            "do $do$ begin if pg_catalog.to_regtype({}) is null then \
             create type {} as enum ({}); end if; end $do$",
            literal(self.name()),
            quoted(self.name()),
            labels.join(", ")
        )
    }

    /// Adds a label unless the type has it in any spelling.
    pub(crate) fn add_label(self, label: &str) -> String {
        format!(
            "do $do$ begin if not exists (select from pg_catalog.pg_enum \
             where enumtypid = pg_catalog.to_regtype({0}) and lower(enumlabel) = {2}) then \
             alter type {1} add value {2}; end if; end $do$",
            literal(self.name()),
            quoted(self.name()),
            literal(label)
        )
    }

    /// Reads the labels of the type in this database. Returns an empty list if the type does not
    /// exist.
    pub(crate) fn stored_labels(
        self,
        transaction: &mut Transaction<'_>,
    ) -> Result<Vec<String>, TransactionError> {
        let rows = transaction.query(
            "select enumlabel::text from pg_catalog.pg_enum \
             where enumtypid = pg_catalog.to_regtype($1::text) order by enumsortorder",
            &[&self.name()],
        )?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, postgres::Error>>()?)
    }

    /// The missing parts of the type. `stored` holds its labels in this database. A label counts as
    /// present in any spelling. If a label is missing, only the records with this label can't be
    /// recorded.
    pub(crate) fn missing(self, stored: &[String]) -> Vec<MissingPart> {
        let part =
            |name, statement, is_needed| MissingPart { name, statement, is_needed, columns: None };
        if stored.is_empty() {
            return vec![part(format!("type {}", self.name()), self.create(), true)];
        }
        let has = |label: &&str| stored.iter().any(|stored| stored.to_lowercase() == **label);
        let lacking = self.labels().into_iter().filter(|label| !has(label));
        let part = |label| {
            let name = format!("label {label:?} of type {}", self.name());
            part(name, self.add_label(label), false)
        };
        lacking.map(part).collect()
    }
}
