//! Values of the file, each with its key and its place: what is wrong with one
//! is said of it.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// What is wrong, and where in the file: a count of bytes.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) at: usize,
    pub(super) text: String,
}

impl Problem {
    pub(super) fn new(at: usize, text: impl fmt::Display) -> Self {
        Self { at, text: text.to_string() }
    }
}

/// A value, the key that it stands behind, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) key: &'a str,
    /// The key of the table that it stands in, when that is a value itself.
    of: Option<&'a str>,
    pub(super) at: usize,
    value: &'a DeValue<'a>,
}

/// The entries of a table: each key's own place, and its value.
pub(super) fn entries<'a>(table: &'a DeTable<'a>) -> impl Iterator<Item = (usize, Value<'a>)> {
    table.iter().map(|(key, value)| (key.span().start, Value::of(key, value)))
}

impl<'a> Value<'a> {
    fn of(key: &'a Spanned<DeString<'a>>, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { key: key.get_ref(), of: None, at: value.span().start, value: value.get_ref() }
    }

    /// A problem with this value. Its text must not repeat a secret.
    pub(super) fn wrong(self, what: impl fmt::Display) -> Problem {
        let of = self.of.map_or(String::new(), |of| format!("{of}."));
        Problem::new(self.at, format!("{of}{}: {what}", self.key))
    }

    /// It is of another type.
    pub(super) fn expected(self, expected: &str) -> Problem {
        let article = match self.value.type_str() {
            found @ ("array" | "integer") => format!("an {found}"),
            found => format!("a {found}"),
        };
        self.wrong(format!("{article}: expected {expected}"))
    }

    pub(super) fn text(self, expected: &str) -> Result<&'a str, Problem> {
        self.value.as_str().ok_or_else(|| self.expected(expected))
    }

    pub(super) fn as_text(self) -> Option<&'a str> {
        self.value.as_str()
    }

    pub(super) fn boolean(self) -> Result<bool, Problem> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false"))
    }

    pub(super) fn number(self, unit: &str, range: RangeInclusive<u64>) -> Result<u64, Problem> {
        let expected = format!("{} to {}{unit}", range.start(), range.end());
        let number = self.value.as_integer().ok_or_else(|| self.expected(&expected))?;
        let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
        parsed
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.wrong(format!("{number} is out of range: expected {expected}")))
    }

    pub(super) fn seconds(self, range: RangeInclusive<Duration>) -> Result<Duration, Problem> {
        let (start, end) = (range.start().as_secs_f64(), range.end().as_secs_f64());
        let expected = format!("{start} to {end} seconds");
        let number = match self.value {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => return Err(self.expected(&expected)),
        };
        let seconds = number.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        seconds
            .filter(|seconds| range.contains(seconds))
            .ok_or_else(|| self.wrong(format!("{number} is out of range: expected {expected}")))
    }

    /// The items of an array, or the value itself as the only one; `count_max`
    /// at most.
    pub(super) fn list(self, count_max: usize) -> Result<Vec<Self>, Problem> {
        let Some(array) = self.value.as_array() else { return Ok(vec![self]) };
        self.bounded(array.len(), count_max)?;
        let item = |item: &'a Spanned<DeValue<'a>>| Self {
            at: item.span().start,
            value: item.get_ref(),
            ..self
        };
        Ok(array.iter().map(item).collect())
    }

    /// The items of an array of tables; none of anything else.
    pub(super) fn tables(self) -> Option<Vec<Self>> {
        let is_table = |item: &Spanned<DeValue<'_>>| item.get_ref().is_table();
        self.value.as_array().filter(|array| array.iter().all(is_table))?;
        self.list(usize::MAX).ok()
    }

    pub(super) fn as_table(self) -> Option<&'a DeTable<'a>> {
        self.value.as_table()
    }

    /// The entries of a table, `count_max` at most; their keys are the file's own.
    pub(super) fn table(
        self,
        expected: &str,
        count_max: usize,
    ) -> Result<Vec<(usize, Self)>, Problem> {
        let table = self.value.as_table().ok_or_else(|| self.expected(expected))?;
        self.bounded(table.len(), count_max)?;
        let of = Some(self.key);
        Ok(entries(table).map(|(at, value)| (at, Self { of, ..value })).collect())
    }

    fn bounded(self, count: usize, count_max: usize) -> Result<(), Problem> {
        match count <= count_max {
            true => Ok(()),
            false => Err(self.wrong(format!("{count} of them: expected at most {count_max}"))),
        }
    }

    /// As JSON has it; dates are texts there.
    pub(super) fn json(self) -> Result<serde_json::Value, Problem> {
        Ok(match self.value {
            DeValue::String(text) => text.as_ref().into(),
            DeValue::Boolean(is_true) => (*is_true).into(),
            DeValue::Datetime(date) => date.to_string().into(),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| self.wrong(format!("{number} is out of range: expected 64 bits")))?
                .into(),
            DeValue::Float(number) => {
                let parsed = number.as_str().parse().ok().and_then(serde_json::Number::from_f64);
                parsed.ok_or_else(|| self.wrong(format!("json has no {number}")))?.into()
            }
            DeValue::Array(_) => {
                let items = self.list(usize::MAX)?.into_iter().map(Self::json);
                serde_json::Value::Array(items.collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => {
                let items = entries(table).map(|(_, item)| Ok((item.key.to_owned(), item.json()?)));
                serde_json::Value::Object(items.collect::<Result<_, Problem>>()?)
            }
        })
    }
}
