//! What is known of one topic at the end: what was in Kafka, as the tap saw it,
//! and what is in PostgreSQL. Plain data, so that a test can make it up.

use std::collections::HashMap;

use common::identity::{EndedRun, Identity};
use common::record::Extra;
use kafka_client::Uuid;

/// A record in Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tapped {
    /// Its offset.
    pub(super) offset: i64,
    /// Run and number, if its headers say them.
    pub(super) identity: Option<Identity>,
    /// What it tells of how earlier runs ended.
    pub(super) ended: Vec<EndedRun>,
    /// The value.
    pub(super) value: Vec<u8>,
}

/// A topic from its making to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TopicLife {
    /// Its id.
    pub(super) id: Uuid,
    /// All of its records, in the order of offsets.
    pub(super) records: Vec<Tapped>,
    /// The offset after the last one.
    pub(super) next_offset: i64,
}

/// A row's columns, as they are or as a record asks for them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Columns {
    /// `topic_offset`.
    pub(super) offset: i64,
    /// `test_from`.
    pub(super) from: String,
    /// `url`.
    pub(super) url: String,
    /// `event_time`.
    pub(super) event_time: i64,
    /// `status`.
    pub(super) status: String,
    /// `phrase`.
    pub(super) phrase: String,
    /// `dns`.
    pub(super) dns: i32,
    /// `response`.
    pub(super) response: i32,
    /// `detail`.
    pub(super) detail: Option<String>,
    /// The further columns of these names.
    pub(super) extra: Extra,
    /// `run` and `sequence`.
    pub(super) identity: Option<(Uuid, i64)>,
    /// `results`.
    pub(super) results: i32,
}

/// A row of the domain's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredRow {
    /// `id`.
    pub(super) id: i64,
    /// The others.
    pub(super) columns: Columns,
}

/// A row of `availability_quarantine`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredQuarantine {
    /// The topic's id.
    pub(super) topic_id: Uuid,
    /// The record's offset.
    pub(super) offset: i64,
    /// The record's value.
    pub(super) bytes: Vec<u8>,
}

/// A row of `availability_gap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StoredGap {
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
pub(super) struct TopicFacts {
    /// Its name.
    pub(super) topic: String,
    /// In the order in which they were made.
    pub(super) lives: Vec<TopicLife>,
    /// How many numbers each run gave, as far as its tracker's spool tells.
    pub(super) given: HashMap<Uuid, i64>,
    /// Where the log ends now.
    pub(super) log_end: i64,
    /// The rows of its domain, by `id`.
    pub(super) rows: Vec<StoredRow>,
    /// What is in quarantine.
    pub(super) quarantined: Vec<StoredQuarantine>,
    /// What is missing.
    pub(super) gaps: Vec<StoredGap>,
    /// The number after the highest recorded of each run.
    pub(super) marks: HashMap<Uuid, i64>,
    /// The topic's id and the next offset.
    pub(super) position: Option<(Uuid, i64)>,
}
