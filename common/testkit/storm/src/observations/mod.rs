//! Everything observed of one topic at the end of a storm: the records in Kafka, as the topic
//! reader read them, and the rows in PostgreSQL. Plain data, so that tests can construct it.

pub(crate) mod postgres_reader;
pub(crate) mod spool_reader;
pub(crate) mod topic_reader;

use std::collections::HashMap;

use common::identity::{EndedRun, Identity};
use common::record::Extra;
use kafka_client::Uuid;

/// A record in Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KafkaRecord {
    pub(crate) offset: i64,
    /// Run and sequence number, from its headers.
    pub(crate) identity: Option<Identity>,
    /// The ended runs in its headers `ended`.
    pub(crate) ended: Vec<EndedRun>,
    pub(crate) value: Vec<u8>,
}

/// One incarnation of a topic, from its creation to its deletion. Each has its own topic id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopicIncarnation {
    pub(crate) id: Uuid,
    /// All records, in the order of offsets.
    pub(crate) records: Vec<KafkaRecord>,
    /// The offset after the last record read.
    pub(crate) next_offset: i64,
}

/// The columns of a row: as stored, or as a record requires them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowColumns {
    /// Column `topic_offset`.
    pub(crate) offset: i64,
    /// Column `test_from`.
    pub(crate) from: String,
    pub(crate) url: String,
    pub(crate) event_time: i64,
    pub(crate) status: String,
    pub(crate) phrase: String,
    pub(crate) dns: i32,
    pub(crate) response: i32,
    pub(crate) detail: Option<String>,
    /// The columns that version 1.1.0 does not have.
    pub(crate) extra: Extra,
    /// Columns `run` and `sequence`.
    pub(crate) identity: Option<(Uuid, i64)>,
    /// Column `results`: the number of results that the row stands for.
    pub(crate) results: i32,
    /// Columns `first_event_time` and `first_offset`. Only a row of several results has them.
    pub(crate) first: Option<(i64, i64)>,
    /// Columns `total_us_sum`, `total_us_min` and `total_us_max`. Only a row of several results has
    /// them.
    pub(crate) totals: Option<[i64; 3]>,
}

/// A row of the domain's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredRow {
    pub(crate) id: i64,
    pub(crate) columns: RowColumns,
}

/// A row of `availability_quarantine`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuarantineRow {
    pub(crate) topic_id: Uuid,
    pub(crate) offset: i64,
    pub(crate) bytes: Vec<u8>,
}

/// A row of `availability_gap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoredGap {
    /// Records that were never read.
    Offsets {
        topic_id: Uuid,
        from: i64,
        /// The offset after the last record. `None`: up to the end of the incarnation.
        to: Option<i64>,
    },
    /// Sequence numbers that never arrived.
    Sequence {
        run: Uuid,
        from: i64,
        /// The sequence number after the last missing one.
        to: i64,
    },
}

/// Everything observed of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopicObservations {
    pub(crate) topic: String,
    /// In the order of creation.
    pub(crate) incarnations: Vec<TopicIncarnation>,
    /// The number of sequence numbers that each run issued, where its tracker's spool has the
    /// count.
    pub(crate) issued_counts: HashMap<Uuid, i64>,
    /// The current log end offset.
    pub(crate) log_end: i64,
    /// The rows of its domain, by `id`.
    pub(crate) rows: Vec<StoredRow>,
    pub(crate) quarantine: Vec<QuarantineRow>,
    pub(crate) gaps: Vec<StoredGap>,
    /// For each run, the sequence number after the highest recorded one.
    pub(crate) next_sequences: HashMap<Uuid, i64>,
    /// The recorder's position: topic id and next offset.
    pub(crate) position: Option<(Uuid, i64)>,
}
