//! Reads the database with its own connection and its own statements, independently of the
//! recorder.

use common::record::Extra;
use postgres::{Client, Row};

use crate::observations::{QuarantineRow, RowColumns, StoredGap, StoredRow, TopicObservations};

/// Adds the rows of a topic: its own in the shared tables, and the table of its domain.
///
/// # Errors
/// Returns the database's error.
pub(crate) fn read(
    database: &mut Client,
    table: &str,
    observed: &mut TopicObservations,
) -> Result<(), postgres::Error> {
    let topic = &observed.topic.clone();
    let position = "select topic_id, next_offset from availability_offset where topic = $1";
    observed.position = database.query_opt(position, &[topic])?.map(|row| (row.get(0), row.get(1)));
    let next_sequences = "select run, next_sequence from availability_mark where topic = $1";
    observed.next_sequences = database
        .query(next_sequences, &[topic])?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let quarantine = "select topic_id, \"offset\", coalesce(bytes, ''::bytea) \
        from availability_quarantine where topic = $1 order by id";
    let rows = database.query(quarantine, &[topic])?;
    observed.quarantine = rows
        .iter()
        .map(|row| QuarantineRow { topic_id: row.get(0), offset: row.get(1), bytes: row.get(2) })
        .collect();
    let gaps = "select topic_id, from_offset, to_offset, run, from_sequence, to_sequence \
        from availability_gap where topic = $1 order by id";
    let rows = database.query(gaps, &[topic])?;
    observed.gaps = rows
        .iter()
        .map(|row| match row.get(3) {
            Some(run) => StoredGap::Sequence { run, from: row.get(4), to: row.get(5) },
            None => StoredGap::Offsets { topic_id: row.get(0), from: row.get(1), to: row.get(2) },
        })
        .collect();
    let rows = format!(
        "select id::bigint, topic_offset, test_from, url, event_time, status::text, phrase::text, \
         dns, response, detail, run, sequence, results, first_event_time, first_offset, \
         total_us_sum, total_us_min, total_us_max, {EXTRA_COLUMNS} from \"{table}\" order by id"
    );
    let rows = database.query(rows.as_str(), &[])?;
    observed.rows = rows
        .iter()
        .map(|row| StoredRow {
            id: row.get(0),
            columns: RowColumns {
                offset: row.get(1),
                from: row.get(2),
                url: row.get(3),
                event_time: row.get(4),
                status: row.get(5),
                phrase: row.get(6),
                dns: row.get(7),
                response: row.get(8),
                detail: row.get(9),
                identity: row.get::<_, Option<_>>(10).zip(row.get(11)),
                results: row.get(12),
                first: row.get::<_, Option<_>>("first_event_time").zip(row.get("first_offset")),
                totals: totals(row),
                extra: extra(row),
            },
        })
        .collect();
    Ok(())
}

/// The columns that [`extra`] reads. JSON is read as two arrays in the same order.
const EXTRA_COLUMNS: &str = "name, healthy, reason, phase, resolve_us, connect_us, tls_us, \
    first_byte_us, transfer_us, total_us, address, http_version, http_status::bigint, body_bytes, \
    redirects::bigint, final_url, certificate_end, attempts::bigint, first_reason, no_network, \
    others_failing, period_ms::bigint, slot, \
    coalesce(array(select key from jsonb_each_text(missed) order by key), '{}') as causes, \
    coalesce(array(select value::bigint from jsonb_each_text(missed) order by key), '{}') as counts";

fn totals(row: &Row) -> Option<[i64; 3]> {
    let totals: Option<Vec<i64>> = ["total_us_sum", "total_us_min", "total_us_max"]
        .map(|name| row.get(name))
        .into_iter()
        .collect();
    totals?.try_into().ok()
}

fn extra(row: &Row) -> Extra {
    let (causes, counts): (Vec<String>, Vec<i64>) = (row.get("causes"), row.get("counts"));
    Extra {
        name: row.get("name"),
        healthy: row.get("healthy"),
        reason: row.get("reason"),
        phase: row.get("phase"),
        resolve_us: row.get("resolve_us"),
        connect_us: row.get("connect_us"),
        tls_us: row.get("tls_us"),
        first_byte_us: row.get("first_byte_us"),
        transfer_us: row.get("transfer_us"),
        total_us: row.get("total_us"),
        address: row.get("address"),
        http_version: row.get("http_version"),
        http_status: row.get("http_status"),
        body_bytes: row.get("body_bytes"),
        redirects: row.get("redirects"),
        final_url: row.get("final_url"),
        certificate_end: row.get("certificate_end"),
        attempts: row.get("attempts"),
        first_reason: row.get("first_reason"),
        no_network: row.get("no_network"),
        others_failing: row.get("others_failing"),
        period_ms: row.get("period_ms"),
        slot: row.get("slot"),
        missed: causes.into_iter().zip(counts).collect(),
    }
}

/// The positions of all topics: name, topic id, next offset.
///
/// # Errors
/// Returns the database's error, also while the table does not exist yet.
pub(crate) fn positions(
    database: &mut Client,
) -> Result<Vec<(String, kafka_client::Uuid, i64)>, postgres::Error> {
    let rows =
        database.query("select topic, topic_id, next_offset from availability_offset", &[])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}
