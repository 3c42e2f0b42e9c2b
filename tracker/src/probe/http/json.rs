//! Single values of a page of JSON, found and compared while it is read.
//!
//! A tree of all of it would take a hundred times the page: a site could so make
//! of its bound on the body none on memory.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;
use serde_json::{Error, Number, Value};

/// What stands at a JSON pointer (RFC 6901), as it stands there; none when
/// nothing does. Of a name that stands there twice the last counts.
///
/// # Errors
/// When the text is no JSON.
pub(crate) fn at<'de>(text: &'de str, pointer: &str) -> Result<Option<&'de str>, Error> {
    let parts = pointer.split('/').skip(1);
    let parts: Vec<_> = parts.map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    let mut page = serde_json::Deserializer::from_str(text);
    let found = At(&parts).deserialize(&mut page)?;
    page.end()?;
    Ok(found.map(RawValue::get))
}

/// Whether the text says this value. Numbers are compared by their value: JSON
/// does not tell 1 from 1.0.
pub(crate) fn is(text: &str, value: &Value) -> bool {
    Is(value).deserialize(&mut serde_json::Deserializer::from_str(text)).unwrap_or(false)
}

/// The rest of the way to a value.
struct At<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => serde::Deserialize::deserialize(from).map(Some),
            _ => from.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for At<'_> {
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
                true => found = map.next_value_seed(At(rest))?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let Some((index, rest)) = self.0.split_first() else {
            return Err(A::Error::custom("a value"));
        };
        // No leading zeros, and no sign (RFC 6901, section 4).
        let index = index.parse::<usize>().ok().filter(|number| number.to_string() == *index);
        let mut found = None;
        for place in 0.. {
            match Some(place) == index {
                true => match seq.next_element_seed(At(rest))? {
                    Some(one) => found = one,
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

/// Compares with a value, and goes no deeper than that.
struct Is<'a>(&'a Value);

impl Is<'_> {
    fn number(self, found: Option<Number>) -> bool {
        let (Value::Number(one), Some(other)) = (self.0, found) else { return false };
        *one == other || (one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64()
    }
}

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("json")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut same = BTreeMap::new();
        let mut has_others = !self.0.is_object();
        while let Some(key) = map.next_key::<String>()? {
            match self.0.as_object().and_then(|expected| expected.get_key_value(&key)) {
                Some((key, value)) => drop(same.insert(key, map.next_value_seed(Is(value))?)),
                None => {
                    map.next_value::<IgnoredAny>()?;
                    has_others = true;
                }
            }
        }
        let count = self.0.as_object().map_or(0, serde_json::Map::len);
        Ok(!has_others && same.len() == count && same.into_values().all(|is| is))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let mut is_same = self.0.is_array();
        for value in self.0.as_array().into_iter().flatten() {
            is_same &= seq.next_element_seed(Is(value))?.unwrap_or(false);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            is_same = false;
        }
        Ok(is_same)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(self.0.is_null())
    }

    fn visit_bool<E>(self, is_true: bool) -> Result<bool, E> {
        Ok(self.0.as_bool() == Some(is_true))
    }

    fn visit_u64<E>(self, number: u64) -> Result<bool, E> {
        Ok(self.number(Some(number.into())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<bool, E> {
        Ok(self.number(Some(number.into())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<bool, E> {
        Ok(self.number(Number::from_f64(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(self.0.as_str() == Some(text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The crate's own way, which makes a tree, is the measure.
    #[test]
    fn what_is_found_is_what_a_tree_has_there() {
        let page = r#" {"a": [1, {"b": null, "b": "x"}, []], "c/d~": {"": -2.50}, "0": true} "#;
        let tree: Value = serde_json::from_str(page).unwrap();
        for pointer in [
            "", "/", "/a", "/a/0", "/a/1", "/a/1/b", "/a/2", "/a/3", "/a/00", "/a/+1", "/a/-",
            "/c~1d~0", "/c~1d~0/", "/0", "/0/0", "/a/0/0", "/a/1/b/0", "/x/y",
        ] {
            let found = at(page, pointer).unwrap();
            let value: Option<Value> = found.map(|text| serde_json::from_str(text).unwrap());
            assert_eq!(value.as_ref(), tree.pointer(pointer), "{pointer}");
            assert!(value.is_none_or(|value| is(found.unwrap(), &value)), "{pointer}");
        }
        for broken in ["", "{", r#"{"a": [1}"#, r#"{"a": 1} x"#, r#"{"a": 1, "b": tru}"#] {
            assert!(at(broken, "/a").is_err(), "{broken}");
        }
    }

    #[test]
    fn a_value_is_another_when_any_part_of_it_is() {
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
            assert_eq!(is(text, &value), expected, "{text} {value}");
        }
    }

    /// Deeper than a worker's stack could go.
    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("[{}1{}, 2]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(at(&deep, "/1").unwrap(), Some("2"));
        assert!(!is(&deep, &json!([1, 2])));
    }
}
