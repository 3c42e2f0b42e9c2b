//! The step that stores records in the quarantine.

use kafka_client::Uuid;

use super::position::TopicPartition;
use super::{PendingWrite, Step};
use crate::postgres::error::TransactionError;
use crate::postgres::pool::Transaction;
use crate::postgres::tables::{MissingColumns, Table, column};

/// Records that can't be stored as rows, with the reasons.
pub(crate) const QUARANTINE_TABLE: Table<'static> = Table {
    name: "availability_quarantine",
    columns: &[
        column("id", "bigserial primary key"),
        column("topic", "text not null"),
        column("topic_id", "uuid not null"),
        column("partition", "integer not null"),
        column("offset", "bigint not null"),
        column("bytes", "bytea"),
        column("reason", "text not null"),
        column("at", "timestamp with time zone not null default current_timestamp"),
    ],
    added: &[column("run", "uuid"), column("sequence", "bigint")],
    constraints: &[r#"unique ("topic_id", "partition", "offset")"#],
};

/// The effect of the step.
#[derive(Debug, Default)]
pub(super) struct QuarantineEffect {
    /// The number of stored records.
    pub(super) stored: usize,
    /// The offset and the reason of the last stored record.
    pub(super) last: Option<(i64, String)>,
}

/// Stores records in the quarantine. Remembers nothing.
#[derive(Debug)]
pub(super) struct QuarantineStep {
    /// Whether the table has columns for the identity of a record.
    has_identity: bool,
}

impl QuarantineStep {
    /// Creates the step for a table without the columns in `missing`.
    pub(super) fn new(missing: &MissingColumns) -> Self {
        Self { has_identity: missing.is_complete(QUARANTINE_TABLE.name) }
    }
}

impl Step for QuarantineStep {
    type Effect = QuarantineEffect;

    fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        write: &mut PendingWrite<'_>,
    ) -> Result<QuarantineEffect, TransactionError> {
        let records = &write.decoded.quarantined;
        if records.is_empty() {
            return Ok(QuarantineEffect::default());
        }
        let TopicPartition { topic, number } = write.partition;
        let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
        let bytes: Vec<Option<&[u8]>> = records.iter().map(|r| r.bytes.as_deref()).collect();
        let reasons: Vec<String> = records.iter().map(|r| r.reason.reason()).collect();
        let identities = || records.iter().map(|record| record.identity);
        let runs: Vec<Option<Uuid>> = identities().map(|it| it.map(|it| it.run)).collect();
        let sequences: Vec<Option<i64>> = identities().map(|it| it.map(|it| it.sequence)).collect();
        if !self.has_identity {
            transaction.execute(
                r#"insert into "availability_quarantine"
                ("topic", "partition", "topic_id", "offset", "bytes", "reason")
                select $1, $2, $3, * from unnest($4::bigint[], $5::bytea[], $6::text[])
                on conflict ("topic_id", "partition", "offset") do nothing"#,
                &[topic, number, &write.to.topic_id, &offsets, &bytes, &reasons],
            )?;
        } else {
            transaction.execute(
                r#"insert into "availability_quarantine"
                ("topic", "partition", "topic_id", "offset", "bytes", "reason", "run", "sequence")
                select $1, $2, $3, * from
                    unnest($4::bigint[], $5::bytea[], $6::text[], $7::uuid[], $8::bigint[])
                on conflict ("topic_id", "partition", "offset") do nothing"#,
                &[topic, number, &write.to.topic_id, &offsets, &bytes, &reasons, &runs, &sequences],
            )?;
        }
        let last = offsets.last().copied().zip(reasons.last().cloned());
        Ok(QuarantineEffect { stored: records.len(), last })
    }

    fn committed(&mut self, _effect: QuarantineEffect) {}
}
