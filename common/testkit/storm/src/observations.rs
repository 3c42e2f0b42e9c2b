//! What is known of one topic at the end: what was in Kafka, as the tap saw it,
//! and what is in PostgreSQL. Plain data, so that a test can make it up.

use std::collections::HashMap;

use common::identity::{Ended, Identity};
use common::record::Extra;
use kafka_client::Uuid;

/// A record in Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KafkaRecord {
    /// Its offset.
    pub(crate) offset: i64,
    /// Run and number, if its headers say them.
    pub(crate) identity: Option<Identity>,
    /// What it tells of how earlier runs ended.
    pub(crate) ended: Vec<Ended>,
    /// The value.
    pub(crate) value: Vec<u8>,
}

/// A topic from its making to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopicIncarnation {
    /// Its id.
    pub(crate) id: Uuid,
    /// All of its records, in the order of offsets.
    pub(crate) records: Vec<KafkaRecord>,
    /// The offset after the last one.
    pub(crate) next_offset: i64,
}

/// A row's columns, as they are or as a record asks for them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowColumns {
    /// `topic_offset`.
    pub(crate) offset: i64,
    /// `test_from`.
    pub(crate) from: String,
    /// `url`.
    pub(crate) url: String,
    /// `event_time`.
    pub(crate) event_time: i64,
    /// `status`.
    pub(crate) status: String,
    /// `phrase`.
    pub(crate) phrase: String,
    /// `dns`.
    pub(crate) dns: i32,
    /// `response`.
    pub(crate) response: i32,
    /// `detail`.
    pub(crate) detail: Option<String>,
    /// The further columns of these names.
    pub(crate) extra: Extra,
    /// `run` and `sequence`.
    pub(crate) identity: Option<(Uuid, i64)>,
    /// `results`.
    pub(crate) results: i32,
}

/// A row of the domain's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredRow {
    /// `id`.
    pub(crate) id: i64,
    /// The others.
    pub(crate) columns: RowColumns,
}

/// A row of `availability_quarantine`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuarantinedRecord {
    /// The topic's id.
    pub(crate) topic_id: Uuid,
    /// The record's offset.
    pub(crate) offset: i64,
    /// The record's value.
    pub(crate) bytes: Vec<u8>,
}

/// A row of `availability_gap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoredGap {
    /// Records that were never read.
    Offsets {
        /// The topic's id.
        topic_id: Uuid,
        /// The first.
        from: i64,
        /// The one after the last; none: all that there were.
        to: Option<i64>,
    },
    /// Numbers that never came.
    Sequence {
        /// Of which run.
        run: Uuid,
        /// The first.
        from: i64,
        /// The one after the last.
        to: i64,
    },
}

/// All of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopicObservations {
    /// Its name.
    pub(crate) topic: String,
    /// In the order in which they were made.
    pub(crate) lives: Vec<TopicIncarnation>,
    /// How many numbers each run gave, as far as its tracker's spool tells.
    pub(crate) given: HashMap<Uuid, i64>,
    /// Where the log ends now.
    pub(crate) log_end: i64,
    /// The rows of its domain, by `id`.
    pub(crate) rows: Vec<StoredRow>,
    /// What is in quarantine.
    pub(crate) quarantined: Vec<QuarantinedRecord>,
    /// What is missing.
    pub(crate) gaps: Vec<StoredGap>,
    /// The number after the highest recorded of each run.
    pub(crate) marks: HashMap<Uuid, i64>,
    /// The topic's id and the next offset.
    pub(crate) position: Option<(Uuid, i64)>,
}
