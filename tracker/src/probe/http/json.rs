//! Finds and compares single values of a JSON text while it is read.
//!
//! A tree of the whole text would need up to a hundred times its size: a site could
//! exceed the memory that the limit on the body allows.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;
use serde_json::{Error, Number, Value};

/// Returns the text of the value at a JSON pointer (RFC 6901). `None` if there is none. If
/// an object has a name twice, the last value counts.
///
/// # Errors
/// When the text is not JSON.
pub(crate) fn find_value<'de>(text: &'de str, pointer: &str) -> Result<Option<&'de str>, Error> {
    let parts = pointer.split('/').skip(1);
    let parts: Vec<_> = parts.map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = ValueFinder(&parts).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value.map(RawValue::get))
}

/// Whether a JSON text has this value. Numbers are compared by value: JSON does not
/// distinguish 1 and 1.0.
pub(crate) fn is_equal(text: &str, value: &Value) -> bool {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    ValueComparison(value).deserialize(&mut deserializer).unwrap_or(false)
}

/// Finds the value at the rest of a JSON pointer.
struct ValueFinder<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for ValueFinder<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => serde::Deserialize::deserialize(from).map(Some),
            _ => from.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for ValueFinder<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Some((name, rest)) = self.0.split_first() else {
            return Err(A::Error::custom("a value"));
        };
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            match key == *name {
                true => found = map.next_value_seed(ValueFinder(rest))?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let Some((index, rest)) = self.0.split_first() else {
            return Err(A::Error::custom("a value"));
        };
        // An index has no leading zeros and no sign (RFC 6901, section 4).
        let index = index.parse::<usize>().ok().filter(|number| number.to_string() == *index);
        let mut found = None;
        for place in 0.. {
            match Some(place) == index {
                true => match seq.next_element_seed(ValueFinder(rest))? {
                    Some(value) => found = value,
                    None => break,
                },
                false if seq.next_element::<IgnoredAny>()?.is_none() => break,
                false => {}
            }
        }
        Ok(found)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Compares a value. The recursion is no deeper than the expected value.
struct ValueComparison<'a>(&'a Value);

impl ValueComparison<'_> {
    fn equals_number(self, number: Option<Number>) -> bool {
        let (Value::Number(expected), Some(number)) = (self.0, number) else { return false };
        let is_float = expected.is_f64() || number.is_f64();
        *expected == number || is_float && expected.as_f64() == number.as_f64()
    }
}

impl<'de> DeserializeSeed<'de> for ValueComparison<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueComparison<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut equal = BTreeMap::new();
        let mut has_others = !self.0.is_object();
        while let Some(key) = map.next_key::<String>()? {
            match self.0.as_object().and_then(|expected| expected.get_key_value(&key)) {
                Some((key, value)) => {
                    let is_equal = map.next_value_seed(ValueComparison(value))?;
                    equal.insert(key, is_equal);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                    has_others = true;
                }
            }
        }
        let count = self.0.as_object().map_or(0, serde_json::Map::len);
        Ok(!has_others && equal.len() == count && equal.into_values().all(|is_equal| is_equal))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let mut is_equal = self.0.is_array();
        for value in self.0.as_array().into_iter().flatten() {
            is_equal &= seq.next_element_seed(ValueComparison(value))?.unwrap_or(false);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            is_equal = false;
        }
        Ok(is_equal)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(self.0.is_null())
    }

    fn visit_bool<E>(self, is_true: bool) -> Result<bool, E> {
        Ok(self.0.as_bool() == Some(is_true))
    }

    fn visit_u64<E>(self, number: u64) -> Result<bool, E> {
        Ok(self.equals_number(Some(number.into())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<bool, E> {
        Ok(self.equals_number(Some(number.into())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<bool, E> {
        Ok(self.equals_number(Number::from_f64(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(self.0.as_str() == Some(text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Compares with serde_json's own pointers into a tree.
    #[test]
    fn a_value_is_found_where_serde_json_finds_it() {
        let page = r#" {"a": [1, {"b": null, "b": "x"}, []], "c/d~": {"": -2.50}, "0": true} "#;
        let tree: Value = serde_json::from_str(page).unwrap();
        for pointer in [
            "", "/", "/a", "/a/0", "/a/1", "/a/1/b", "/a/2", "/a/3", "/a/00", "/a/+1", "/a/-",
            "/c~1d~0", "/c~1d~0/", "/0", "/0/0", "/a/0/0", "/a/1/b/0", "/x/y",
        ] {
            let found = find_value(page, pointer).unwrap();
            let value: Option<Value> = found.map(|text| serde_json::from_str(text).unwrap());
            assert_eq!(value.as_ref(), tree.pointer(pointer), "{pointer}");
            assert!(value.is_none_or(|value| is_equal(found.unwrap(), &value)), "{pointer}");
        }
        for broken in ["", "{", r#"{"a": [1}"#, r#"{"a": 1} x"#, r#"{"a": 1, "b": tru}"#] {
            assert!(find_value(broken, "/a").is_err(), "{broken}");
        }
    }

    #[test]
    fn values_are_equal_if_all_their_parts_are() {
        for (text, value, expected) in [
            ("1.0", json!(1), true),
            ("1", json!(1.0), true),
            ("-1", json!(-1), true),
            ("18446744073709551615", json!(u64::MAX), true),
            ("9007199254740993", json!(9_007_199_254_740_992_u64), false),
            ("\"1\"", json!(1), false),
            ("null", json!(false), false),
            ("[1,2]", json!([1, 2]), true),
            ("[1,2,3]", json!([1, 2]), false),
            ("[1]", json!([1, 2]), false),
            ("[]", json!({}), false),
            ("{}", json!([]), false),
            (r#"{"a":{"b":1}}"#, json!({"a": {"b": 1}}), true),
            (r#"{"a":{"b":2}}"#, json!({"a": {"b": 1}}), false),
            (r#"{"a":1,"b":2}"#, json!({"a": 1}), false),
            (r#"{"a":1}"#, json!({"a": 1, "b": 2}), false),
            (r#"{"a":1,"a":2}"#, json!({"a": 2}), true),
            (r#"{"a":2,"a":1}"#, json!({"a": 2}), false),
            (r#""\u0061\n""#, json!("a\n"), true),
        ] {
            assert_eq!(is_equal(text, &value), expected, "{text} {value}");
        }
    }

    /// The text is nested deeper than the stack of a worker allows.
    #[test]
    fn nesting_needs_no_stack() {
        let deep = format!("[{}1{}, 2]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(find_value(&deep, "/1").unwrap(), Some("2"));
        assert!(!is_equal(&deep, &json!([1, 2])));
    }
}
