//! TOML values with their key and position, and the conversions that the options need.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// An error in the file and its position.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct FileValueError {
    /// Offset in the file, in bytes.
    pub(super) offset: usize,
    pub(super) text: String,
}

impl FileValueError {
    pub(super) fn new(offset: usize, text: impl fmt::Display) -> Self {
        Self { offset, text: text.to_string() }
    }

    /// Puts the name of the target or table before the text.
    pub(super) fn in_table(self, table: &str) -> Self {
        Self { text: format!("{table}: {}", self.text), ..self }
    }
}

/// A value, its key and its position.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileValue<'a> {
    pub(super) key: &'a str,
    /// Key of the enclosing inline table, if the value is in one.
    outer_key: Option<&'a str>,
    /// Offset in the file, in bytes.
    pub(super) offset: usize,
    value: &'a DeValue<'a>,
}

/// Returns the entries of a table: the offset of each key, and its value.
pub(super) fn entries<'a>(table: &'a DeTable<'a>) -> impl Iterator<Item = (usize, FileValue<'a>)> {
    table.iter().map(|(key, value)| (key.span().start, FileValue::new(key, value)))
}

impl<'a> FileValue<'a> {
    fn new(key: &'a Spanned<DeString<'a>>, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self {
            key: key.get_ref(),
            outer_key: None,
            offset: value.span().start,
            value: value.get_ref(),
        }
    }

    /// Makes an error about this value: `key: text`. The text must not repeat a secret.
    pub(super) fn error(self, text: impl fmt::Display) -> FileValueError {
        let outer = self.outer_key.map_or(String::new(), |outer| format!("{outer}."));
        FileValueError::new(self.offset, format!("{outer}{}: {text}", self.key))
    }

    /// Makes an error about a value of the wrong type.
    pub(super) fn wrong_type(self, expected: &str) -> FileValueError {
        let article = match self.value.type_str() {
            name @ ("array" | "integer") => format!("an {name}"),
            name => format!("a {name}"),
        };
        self.error(format!("{article}: expected {expected}"))
    }

    pub(super) fn text(self, expected: &str) -> Result<&'a str, FileValueError> {
        self.value.as_str().ok_or_else(|| self.wrong_type(expected))
    }

    pub(super) fn as_text(self) -> Option<&'a str> {
        self.value.as_str()
    }

    pub(super) fn boolean(self) -> Result<bool, FileValueError> {
        self.value.as_bool().ok_or_else(|| self.wrong_type("true or false"))
    }

    /// Parses a whole number in `range`. `unit` follows the range in error texts.
    pub(super) fn number(
        self,
        unit: &str,
        range: RangeInclusive<u64>,
    ) -> Result<u64, FileValueError> {
        let expected = format!("{} to {}{unit}", range.start(), range.end());
        let number = self.value.as_integer().ok_or_else(|| self.wrong_type(&expected))?;
        let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
        parsed
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.error(format!("{number} is out of range: expected {expected}")))
    }

    /// Parses a number of seconds in `range`, which may have a fraction.
    pub(super) fn seconds(
        self,
        range: RangeInclusive<Duration>,
    ) -> Result<Duration, FileValueError> {
        let (start, end) = (range.start().as_secs_f64(), range.end().as_secs_f64());
        let expected = format!("{start} to {end} seconds");
        let number = match self.value {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => return Err(self.wrong_type(&expected)),
        };
        let seconds = number.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        seconds
            .filter(|seconds| range.contains(seconds))
            .ok_or_else(|| self.error(format!("{number} is out of range: expected {expected}")))
    }

    /// Returns the items of an array, or the value itself as the only item.
    pub(super) fn list(self, items_max: usize) -> Result<Vec<Self>, FileValueError> {
        let Some(array) = self.value.as_array() else { return Ok(vec![self]) };
        self.check_count(array.len(), items_max)?;
        let item = |item: &'a Spanned<DeValue<'a>>| Self {
            offset: item.span().start,
            value: item.get_ref(),
            ..self
        };
        Ok(array.iter().map(item).collect())
    }

    /// Returns the items of an array of tables. `None`: the value is something else.
    pub(super) fn tables(self) -> Option<Vec<Self>> {
        let is_table = |item: &Spanned<DeValue<'_>>| item.get_ref().is_table();
        self.value.as_array().filter(|array| array.iter().all(is_table))?;
        self.list(usize::MAX).ok()
    }

    pub(super) fn as_table(self) -> Option<&'a DeTable<'a>> {
        self.value.as_table()
    }

    /// Returns the entries of a table whose keys are not options.
    pub(super) fn table(
        self,
        expected: &str,
        entries_max: usize,
    ) -> Result<Vec<(usize, Self)>, FileValueError> {
        let table = self.value.as_table().ok_or_else(|| self.wrong_type(expected))?;
        self.check_count(table.len(), entries_max)?;
        let outer_key = Some(self.key);
        let nested = |(offset, value)| (offset, Self { outer_key, ..value });
        Ok(entries(table).map(nested).collect())
    }

    fn check_count(self, count: usize, count_max: usize) -> Result<(), FileValueError> {
        match count <= count_max {
            true => Ok(()),
            false => Err(self.error(format!("{count} items: expected at most {count_max}"))),
        }
    }

    /// Converts the value to JSON. A date becomes a text.
    pub(super) fn json(self) -> Result<serde_json::Value, FileValueError> {
        Ok(match self.value {
            DeValue::String(text) => text.as_ref().into(),
            DeValue::Boolean(is_true) => (*is_true).into(),
            DeValue::Datetime(date) => date.to_string().into(),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| self.error(format!("{number} is out of range: expected 64 bits")))?
                .into(),
            DeValue::Float(number) => {
                let parsed = number.as_str().parse().ok().and_then(serde_json::Number::from_f64);
                parsed.ok_or_else(|| self.error(format!("JSON has no {number}")))?.into()
            }
            DeValue::Array(_) => {
                let items = self.list(usize::MAX)?.into_iter().map(Self::json);
                serde_json::Value::Array(items.collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => {
                let items = entries(table).map(|(_, item)| Ok((item.key.to_owned(), item.json()?)));
                serde_json::Value::Object(items.collect::<Result<_, FileValueError>>()?)
            }
        })
    }
}
