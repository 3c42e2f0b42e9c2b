//! The record: one result of a probe, as it lies in Kafka.
//!
//! A msgpack map of nine keys, written in the order of 1.1.0, and of those
//! further ones that something is known for; read by name in any order, and
//! keys that are not known here are passed over.

use rmp::encode;

use crate::phrase;

mod error;
mod extra;
mod wire;

pub use error::DecodeError;
pub use extra::{Extra, MISSED_MAX, Value};

use extra::Reader;
use wire::{
    Fault, or_nil, read_int, read_map_len, read_str, read_timestamp, set, skip, write_key,
    write_number, write_text,
};

/// The keys of 1.1.0.
const KEYS: usize = 9;

/// Whether anything answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// An HTTP answer came, or TLS failed, which takes somebody to answer.
    Responsive,
    /// Nothing answered.
    Unresponsive,
}

impl Status {
    /// As on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Responsive => "responsive",
            Self::Unresponsive => "unresponsive",
        }
    }
}

/// One result.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where the tracker runs.
    pub from: String,
    /// The target's URL, in lower case.
    pub url: String,
    /// When the probe started: seconds since 1970-01-01 UTC.
    pub timestamp: f64,
    /// Whether anything answered.
    pub status: Status,
    /// One of [`phrase::all`], or what another version wrote.
    pub phrase: String,
    /// Time to resolve the name.
    pub dns_ms: Option<i64>,
    /// From the start of the connection to the body's last byte.
    pub response_ms: Option<i64>,
    /// More about the phrase: the regexp that did not match, for one.
    pub detail: Option<String>,
    /// Always −1 on the wire; kept because readers of 1.1.0 need the key.
    pub offset: i64,
    /// What 1.1.0 does not know.
    pub extra: Extra,
}

impl Record {
    /// The one answer to "is all well?": what the key `healthy` says, and
    /// without it, as in what 1.1.0 writes, `responsive` and `ok`, whatever the
    /// phrase's case.
    pub fn healthy(&self) -> bool {
        self.extra.healthy.unwrap_or_else(|| {
            self.status == Status::Responsive && self.phrase.eq_ignore_ascii_case(phrase::OK)
        })
    }

    /// The record's bytes. `from`, `url` and the phrase go out in lower case,
    /// as 1.1.0 writes them.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(640);
        let further = self.extra.values().iter().filter(|(_, value)| value.is_some()).count();
        // Writing to a Vec can't fail, so the results carry nothing.
        let _ = encode::write_map_len(&mut out, (KEYS + further) as u32);
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

    /// Reads a record.
    ///
    /// # Errors
    /// [`DecodeError`], which names the key at fault. Bytes behind the map
    /// are an error too: they would be lost.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        let entries = read_map_len(&mut rest).map_err(|fault| match fault {
            Fault::Type(marker) => DecodeError::NotAMap(marker),
            _ => DecodeError::Truncated,
        })?;
        let mut fields = Fields::default();
        let mut extra = Extra::default();
        let mut further = Reader::new(&mut extra);
        for _ in 0..entries {
            let key = read_str(&mut rest).map_err(|fault| match fault {
                Fault::Type(_) => DecodeError::KeyNotText,
                Fault::Utf8 => DecodeError::KeyNotText,
                Fault::Range | Fault::Truncated => DecodeError::Truncated,
            })?;
            if !fields.take(key, &mut rest)? && !further.take(key, &mut rest)? {
                skip(&mut rest)?;
            }
        }
        if !rest.is_empty() {
            return Err(DecodeError::TrailingBytes(rest.len()));
        }
        fields.into_record(extra)
    }
}

#[derive(Default)]
struct Fields {
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

impl Fields {
    /// Reads the value of `key`; false when that is none of the nine.
    fn take(&mut self, key: &str, rest: &mut &[u8]) -> Result<bool, DecodeError> {
        match key {
            "from" => set("from", &mut self.from, read_str(rest).map(str::to_owned), "text"),
            "url" => set("url", &mut self.url, read_str(rest).map(str::to_owned), "text"),
            "timestamp" => set("timestamp", &mut self.timestamp, read_timestamp(rest), "number"),
            "status" => {
                let status = match read_str(rest).map_err(|f| f.at("status", "text"))? {
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
