//! The record in Kafka: one result of a probe.
//!
//! It is a msgpack map with the nine keys of 1.1.0 in their order, followed by the extra keys that
//! have a value. Keys are read by name in any order, and unknown keys are ignored.

use rmp::encode;

use crate::phrase;

mod error;
mod extra;
mod wire;

pub use error::DecodeError;
pub use extra::{Extra, ExtraValue, MISSED_MAX};

use extra::ExtraReader;
use wire::{
    ValueError, or_nil, read_int, read_map_len, read_str, read_timestamp, set, skip, write_key,
    write_number, write_text,
};

/// The number of keys of 1.1.0.
const KEYS: usize = 9;

/// Whether the site answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// An HTTP response came, or TLS failed, which needs a server that answers.
    Responsive,
    /// Nothing answered.
    Unresponsive,
}

impl Status {
    /// The text in records and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Responsive => "responsive",
            Self::Unresponsive => "unresponsive",
        }
    }
}

/// One result of a probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The tracker's location.
    pub from: String,
    /// The target's URL, in lower case.
    pub url: String,
    /// The start of the probe, in seconds since 1970-01-01 UTC.
    pub timestamp: f64,
    /// Whether the site answered.
    pub status: Status,
    /// One of [`phrase::all`], or a phrase of another version.
    pub phrase: String,
    /// The time to resolve the host name, in milliseconds.
    pub dns_ms: Option<i64>,
    /// The time from the start of the connection to the last byte of the body, in milliseconds.
    pub response_ms: Option<i64>,
    /// Details of the phrase, for example the regexp that did not match.
    pub detail: Option<String>,
    /// Always −1. Readers of 1.1.0 need the key.
    pub offset: i64,
    /// The extra keys, which 1.1.0 does not have.
    pub extra: Extra,
}

impl Record {
    /// Whether the site is healthy: the key `healthy`, or in records of 1.1.0 the status
    /// `responsive` with the phrase `ok` in any case.
    pub fn is_healthy(&self) -> bool {
        self.extra.healthy.unwrap_or_else(|| {
            self.status == Status::Responsive && self.phrase.eq_ignore_ascii_case(phrase::OK)
        })
    }

    /// Encodes the record. `from`, `url` and the phrase are written in lower case, as by 1.1.0.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(640);
        let extra_count = self.extra.values().iter().filter(|(_, value)| value.is_some()).count();
        // Writing to a Vec can't fail, so the results are ignored.
        let _ = encode::write_map_len(&mut out, (KEYS + extra_count) as u32);
        write_text(&mut out, "from", Some(&self.from.to_lowercase()));
        write_text(&mut out, "url", Some(&self.url.to_lowercase()));
        write_key(&mut out, "timestamp");
        let _ = encode::write_f64(&mut out, self.timestamp);
        write_text(&mut out, "status", Some(self.status.as_str()));
        write_text(&mut out, "phrase", Some(&self.phrase.to_lowercase()));
        write_number(&mut out, "dns", self.dns_ms);
        write_number(&mut out, "response", self.response_ms);
        write_text(&mut out, "detail", self.detail.as_deref());
        write_number(&mut out, "offset", Some(self.offset));
        self.extra.write(&mut out);
        out
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// [`DecodeError`] with the wrong key. Bytes after the map are an error too, because they would
    /// be lost.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        let entries = read_map_len(&mut rest).map_err(|error| match error {
            ValueError::Type(marker) => DecodeError::NotAMap(marker),
            _ => DecodeError::Truncated,
        })?;
        let mut fields = RecordFields::default();
        let mut extra = Extra::default();
        let mut extra_reader = ExtraReader::new(&mut extra);
        for _ in 0..entries {
            let key = read_str(&mut rest).map_err(|error| match error {
                ValueError::Type(_) => DecodeError::KeyNotText,
                ValueError::Utf8 => DecodeError::KeyNotText,
                ValueError::Range | ValueError::Truncated => DecodeError::Truncated,
            })?;
            if !fields.read(key, &mut rest)? && !extra_reader.read(key, &mut rest)? {
                skip(&mut rest)?;
            }
        }
        if !rest.is_empty() {
            return Err(DecodeError::TrailingBytes(rest.len()));
        }
        fields.into_record(extra)
    }
}

/// The nine keys while they are read.
#[derive(Default)]
struct RecordFields {
    from: Option<String>,
    url: Option<String>,
    timestamp: Option<f64>,
    status: Option<Status>,
    phrase: Option<String>,
    dns_ms: Option<Option<i64>>,
    response_ms: Option<Option<i64>>,
    detail: Option<Option<String>>,
    offset: Option<i64>,
}

impl RecordFields {
    /// Reads the value of `key`. Returns `false` for a key that is not one of the nine.
    fn read(&mut self, key: &str, rest: &mut &[u8]) -> Result<bool, DecodeError> {
        match key {
            "from" => set("from", &mut self.from, read_str(rest).map(str::to_owned), "text"),
            "url" => set("url", &mut self.url, read_str(rest).map(str::to_owned), "text"),
            "timestamp" => set("timestamp", &mut self.timestamp, read_timestamp(rest), "number"),
            "status" => {
                let status = match read_str(rest).map_err(|error| error.at("status", "text"))? {
                    text if text.eq_ignore_ascii_case("responsive") => Status::Responsive,
                    text if text.eq_ignore_ascii_case("unresponsive") => Status::Unresponsive,
                    other => return Err(DecodeError::UnknownStatus(other.to_owned())),
                };
                set("status", &mut self.status, Ok(status), "text")
            }
            "phrase" => set("phrase", &mut self.phrase, read_str(rest).map(str::to_owned), "text"),
            "dns" => set("dns", &mut self.dns_ms, or_nil(rest, read_int), "integer or nil"),
            "response" => {
                set("response", &mut self.response_ms, or_nil(rest, read_int), "integer or nil")
            }
            "detail" => {
                let detail = or_nil(rest, |rest| read_str(rest).map(str::to_owned));
                set("detail", &mut self.detail, detail, "text or nil")
            }
            "offset" => set("offset", &mut self.offset, read_int(rest), "integer"),
            _ => return Ok(false),
        }
        .map(|()| true)
    }

    fn into_record(self, extra: Extra) -> Result<Record, DecodeError> {
        let missing = DecodeError::MissingKey;
        Ok(Record {
            from: self.from.ok_or(missing("from"))?,
            url: self.url.ok_or(missing("url"))?,
            timestamp: self.timestamp.ok_or(missing("timestamp"))?,
            status: self.status.ok_or(missing("status"))?,
            phrase: self.phrase.ok_or(missing("phrase"))?,
            dns_ms: self.dns_ms.ok_or(missing("dns"))?,
            response_ms: self.response_ms.ok_or(missing("response"))?,
            detail: self.detail.ok_or(missing("detail"))?,
            offset: self.offset.ok_or(missing("offset"))?,
            extra,
        })
    }
}

#[cfg(test)]
mod tests;
