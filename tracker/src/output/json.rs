//! One JSON object a line for each result, for another program.

use std::io::{self, Write};

use common::record::{ExtraValue, Record};

/// Writes a result with the keys of the record, except `offset`, which a result does not
/// have before Kafka stores it. An unknown value is null.
pub(super) fn write_object(record: &Record, out: &mut impl Write) -> io::Result<()> {
    let mut object = serde_json::json!({
        "from": record.from,
        "url": record.url,
        "timestamp": record.timestamp,
        "status": record.status.as_str(),
        "phrase": record.phrase,
        "dns": record.dns_ms,
        "response": record.response_ms,
        "detail": record.detail,
    });
    for (key, value) in record.extra.values() {
        object[key] = match value {
            ExtraValue::Text(text) => serde_json::json!(text),
            ExtraValue::Number(number) => serde_json::json!(number),
            ExtraValue::Flag(flag) => serde_json::json!(flag),
            ExtraValue::Counts(counts) => serde_json::json!(counts),
        };
    }
    writeln!(out, "{object}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::test_record as record;

    #[test]
    fn json_has_the_keys_of_the_record() {
        let mut out = Vec::new();
        write_object(&record(), &mut out).unwrap();
        let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let found: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
        let mut keys = vec!["from", "url", "timestamp", "status", "phrase", "dns", "response"];
        keys.push("detail");
        keys.extend(record().extra.values().map(|(key, _)| key));
        keys.sort_unstable();
        assert_eq!(found, keys);
        let of = |key: &str| object[key].clone();
        let values = ["from", "dns", "response", "detail", "healthy", "total_us", "tls_us"].map(of);
        let expected = serde_json::json!(["sydney", 3, null, "\"<svg\\s+\"", false, 3_100, null]);
        assert_eq!(serde_json::json!(values), expected);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
