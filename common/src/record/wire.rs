//! The msgpack values of a record: how each kind is written and read.

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

pub(super) fn set<T>(
    key: &'static str,
    slot: &mut Option<T>,
    value: Result<T, Fault>,
    expected: &'static str,
) -> Result<(), DecodeError> {
    if slot.replace(value.map_err(|fault| fault.at(key, expected))?).is_some() {
        return Err(DecodeError::DuplicateKey(key));
    }
    Ok(())
}

/// What is wrong with one value, before it is known whose value it is.
pub(super) enum Fault {
    Type(Marker),
    Range,
    Utf8,
    Truncated,
}

impl From<ValueReadError> for Fault {
    fn from(cause: ValueReadError) -> Self {
        match cause {
            ValueReadError::TypeMismatch(marker) => Self::Type(marker),
            _ => Self::Truncated,
        }
    }
}

impl Fault {
    pub(super) fn at(self, key: &'static str, expected: &'static str) -> DecodeError {
        match self {
            Self::Type(found) => DecodeError::WrongType { key, expected, found },
            Self::Range => DecodeError::OutOfRange(key),
            Self::Utf8 => DecodeError::NotUtf8(key),
            Self::Truncated => DecodeError::Truncated,
        }
    }
}

pub(super) fn read_str<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Fault> {
    match decode::read_str_from_slice(*rest) {
        Ok((text, tail)) => {
            *rest = tail;
            Ok(text)
        }
        Err(decode::DecodeStringError::TypeMismatch(marker)) => Err(Fault::Type(marker)),
        Err(decode::DecodeStringError::InvalidUtf8(..)) => Err(Fault::Utf8),
        Err(_) => Err(Fault::Truncated),
    }
}

pub(super) fn read_int(rest: &mut &[u8]) -> Result<i64, Fault> {
    decode::read_int(rest).map_err(|cause| match cause {
        NumValueReadError::TypeMismatch(marker) => Fault::Type(marker),
        NumValueReadError::OutOfRange => Fault::Range,
        _ => Fault::Truncated,
    })
}

pub(super) fn read_bool(rest: &mut &[u8]) -> Result<bool, Fault> {
    decode::read_bool(rest).map_err(Fault::from)
}

pub(super) fn read_map_len(rest: &mut &[u8]) -> Result<u32, Fault> {
    decode::read_map_len(rest).map_err(Fault::from)
}

pub(super) fn read_timestamp(rest: &mut &[u8]) -> Result<f64, Fault> {
    match rest.first().copied().map(Marker::from_u8) {
        Some(Marker::F64) => decode::read_f64(rest).map_err(Fault::from),
        Some(Marker::F32) => decode::read_f32(rest).map(f64::from).map_err(Fault::from),
        // Whole seconds are exact in a double for the next 285 million years.
        Some(_) => read_int(rest).map(|seconds| seconds as f64),
        None => Err(Fault::Truncated),
    }
}

pub(super) fn or_nil<T>(
    rest: &mut &[u8],
    read: impl Fn(&mut &[u8]) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    match rest.split_first() {
        Some((&first, tail)) if Marker::from_u8(first) == Marker::Null => {
            *rest = tail;
            Ok(None)
        }
        _ => read(rest).map(Some),
    }
}

/// Passes over one value of any type: with a count of the values still open
/// and not by recursion, so that no nesting can exhaust the stack. Each turn
/// takes at least one byte.
pub(super) fn skip(rest: &mut &[u8]) -> Result<(), DecodeError> {
    let mut open = 1_u64;
    while open > 0 {
        open -= 1;
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
            // An extension has a byte for its type in front of its data.
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
        open += values;
    }
    Ok(())
}
