//! Encoding and decoding of a record's msgpack values.

use rmp::Marker;
use rmp::decode::{self, NumValueReadError, ValueReadError};
use rmp::encode;

use super::DecodeError;

pub(super) fn write_key(out: &mut Vec<u8>, key: &str) {
    let _ = encode::write_str(out, key);
}

pub(super) fn write_text(out: &mut Vec<u8>, key: &str, value: Option<&str>) {
    write_key(out, key);
    let _ = match value {
        Some(text) => encode::write_str(out, text).map_err(drop),
        None => encode::write_nil(out).map_err(drop),
    };
}

pub(super) fn write_number(out: &mut Vec<u8>, key: &str, value: Option<i64>) {
    write_key(out, key);
    let _ = match value {
        Some(number) => encode::write_sint(out, number).map(drop).map_err(drop),
        None => encode::write_nil(out).map_err(drop),
    };
}

pub(super) fn write_bool(out: &mut Vec<u8>, key: &str, value: Option<bool>) {
    write_key(out, key);
    let _ = match value {
        Some(flag) => encode::write_bool(out, flag).map_err(drop),
        None => encode::write_nil(out).map_err(drop),
    };
}

/// Stores the value of a key that may exist once.
pub(super) fn set<T>(
    key: &'static str,
    field: &mut Option<T>,
    value: Result<T, ValueError>,
    expected: &'static str,
) -> Result<(), DecodeError> {
    if field.replace(value.map_err(|error| error.at(key, expected))?).is_some() {
        return Err(DecodeError::DuplicateKey(key));
    }
    Ok(())
}

/// Why a value can't be read, without its key.
pub(super) enum ValueError {
    Type(Marker),
    Range,
    Utf8,
    Truncated,
}

impl From<ValueReadError> for ValueError {
    fn from(cause: ValueReadError) -> Self {
        match cause {
            ValueReadError::TypeMismatch(marker) => Self::Type(marker),
            _ => Self::Truncated,
        }
    }
}

impl ValueError {
    pub(super) fn at(self, key: &'static str, expected: &'static str) -> DecodeError {
        match self {
            Self::Type(found) => DecodeError::WrongType { key, expected, found },
            Self::Range => DecodeError::OutOfRange(key),
            Self::Utf8 => DecodeError::NotUtf8(key),
            Self::Truncated => DecodeError::Truncated,
        }
    }
}

pub(super) fn read_str<'a>(rest: &mut &'a [u8]) -> Result<&'a str, ValueError> {
    match decode::read_str_from_slice(*rest) {
        Ok((text, tail)) => {
            *rest = tail;
            Ok(text)
        }
        Err(decode::DecodeStringError::TypeMismatch(marker)) => Err(ValueError::Type(marker)),
        Err(decode::DecodeStringError::InvalidUtf8(..)) => Err(ValueError::Utf8),
        Err(_) => Err(ValueError::Truncated),
    }
}

pub(super) fn read_int(rest: &mut &[u8]) -> Result<i64, ValueError> {
    decode::read_int(rest).map_err(|cause| match cause {
        NumValueReadError::TypeMismatch(marker) => ValueError::Type(marker),
        NumValueReadError::OutOfRange => ValueError::Range,
        _ => ValueError::Truncated,
    })
}

pub(super) fn read_bool(rest: &mut &[u8]) -> Result<bool, ValueError> {
    decode::read_bool(rest).map_err(ValueError::from)
}

pub(super) fn read_map_len(rest: &mut &[u8]) -> Result<u32, ValueError> {
    decode::read_map_len(rest).map_err(ValueError::from)
}

pub(super) fn read_timestamp(rest: &mut &[u8]) -> Result<f64, ValueError> {
    match rest.first().copied().map(Marker::from_u8) {
        Some(Marker::F64) => decode::read_f64(rest).map_err(ValueError::from),
        Some(Marker::F32) => decode::read_f32(rest).map(f64::from).map_err(ValueError::from),
        // An f64 holds whole seconds exactly for the next 285 million years.
        Some(_) => read_int(rest).map(|seconds| seconds as f64),
        None => Err(ValueError::Truncated),
    }
}

pub(super) fn or_nil<T>(
    rest: &mut &[u8],
    read: impl Fn(&mut &[u8]) -> Result<T, ValueError>,
) -> Result<Option<T>, ValueError> {
    match rest.split_first() {
        Some((&first, tail)) if Marker::from_u8(first) == Marker::Null => {
            *rest = tail;
            Ok(None)
        }
        _ => read(rest).map(Some),
    }
}

/// Skips one value of any type. It counts the values that remain instead of recursing, so nesting
/// can't exhaust the stack. Each iteration reads at least one byte.
pub(super) fn skip(rest: &mut &[u8]) -> Result<(), DecodeError> {
    let mut remaining = 1_u64;
    while remaining > 0 {
        remaining -= 1;
        let marker = decode::read_marker(rest).map_err(|_| DecodeError::Truncated)?;
        let mut length = |bytes: usize| -> Result<u64, DecodeError> {
            let (head, tail) = rest.split_at_checked(bytes).ok_or(DecodeError::Truncated)?;
            *rest = tail;
            Ok(head.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let (bytes, values) = match marker {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => {
                (0, 0)
            }
            Marker::Reserved => return Err(DecodeError::Reserved),
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 => (2, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixStr(bytes) => (u64::from(bytes), 0),
            Marker::Str8 | Marker::Bin8 => (length(1)?, 0),
            Marker::Str16 | Marker::Bin16 => (length(2)?, 0),
            Marker::Str32 | Marker::Bin32 => (length(4)?, 0),
            // An extension has one byte for its type before its data.
            Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::FixExt4 => (5, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            Marker::Ext8 => (length(1)? + 1, 0),
            Marker::Ext16 => (length(2)? + 1, 0),
            Marker::Ext32 => (length(4)? + 1, 0),
            Marker::FixArray(values) => (0, u64::from(values)),
            Marker::Array16 => (0, length(2)?),
            Marker::Array32 => (0, length(4)?),
            Marker::FixMap(pairs) => (0, 2 * u64::from(pairs)),
            Marker::Map16 => (0, 2 * length(2)?),
            Marker::Map32 => (0, 2 * length(4)?),
        };
        let bytes = usize::try_from(bytes).map_err(|_| DecodeError::Truncated)?;
        *rest = rest.get(bytes..).ok_or(DecodeError::Truncated)?;
        remaining += values;
    }
    Ok(())
}
