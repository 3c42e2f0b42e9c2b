//! Tests where reading starts if a table shows the position of 1.1.0.

use super::super::resume::RETENTION;
use super::*;

const OLD: Uuid = Uuid::from_u128(1);
const NOW: Uuid = Uuid::from_u128(2);

fn at(topic_id: Uuid, next_offset: i64, counted_after_id: i64) -> Position {
    Position::unread(topic_id, next_offset, counted_after_id)
}

fn gap(topic_id: Uuid, from: i64, to: Option<i64>, reason: &'static str) -> Gap {
    Gap { topic_id, from_offset: from, to_offset: to, reason: reason.into() }
}

#[test]
fn the_table_counts_beside_the_stored_position() {
    /// Input: stored position, log, table. Result: position, gaps, whether there is a note.
    type Case = (Option<Position>, (i64, i64), Option<i64>, Position, Vec<Gap>, bool);
    let stored = Some(at(NOW, 7, 3));
    let cases: Vec<Case> = vec![
        // An empty table.
        (None, (5, 9), None, at(NOW, 5, 0), vec![], false),
        (stored, (5, 9), None, at(NOW, 7, 3), vec![], false),
        // Taken over, unchanged after that, handed back to 1.1.0, and taken over again.
        (None, (5, 9), Some(6), at(NOW, 7, 0), vec![], true),
        (stored, (5, 9), Some(6), at(NOW, 7, 3), vec![], false),
        (stored, (5, 9), Some(4), at(NOW, 7, 3), vec![], false),
        (stored, (5, 9), Some(8), at(NOW, 9, 3), vec![], true),
        // The table goes beyond the log.
        (None, (0, 9), Some(40), at(NOW, 0, 70), vec![gap(NOW, 41, Some(0), RECREATED)], true),
        (stored, (5, 9), Some(40), at(NOW, 7, 3), vec![], true),
        // Kafka removed records after the last row.
        (None, (5, 9), Some(2), at(NOW, 5, 0), vec![gap(NOW, 3, Some(5), RETENTION)], true),
        // A recreated topic. The rows of the old topic do not matter.
        (
            Some(at(OLD, 7, 3)),
            (4, 9),
            Some(6),
            at(NOW, 4, 70),
            vec![gap(OLD, 7, None, RECREATED), gap(NOW, 0, Some(4), RETENTION)],
            true,
        ),
    ];
    for (stored, (start, end), highest_offset, position, gaps, has_note) in cases {
        let table =
            TableCount { highest_offset, last_id: if highest_offset.is_some() { 70 } else { 0 } };
        let point = resume_with_table(stored, NOW, LogRange { start, end }, None, table);
        let case = format!("{stored:?} {start}..{end} {table:?}: {:?}", point.note);
        assert_eq!((point.position, &point.gaps), (position, &gaps), "{case}");
        assert_eq!(point.note.is_some(), has_note, "{case}");
    }
}
