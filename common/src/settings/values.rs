//! Parsers of values that both programs share.

use std::time::Duration;

use super::{Environment, SettingName, SettingValue, UsageError};

/// The most characters of a location: the length of its column.
pub const LOCATION_CHARS_MAX: usize = 32;

/// Parses a duration in seconds, possibly with a fraction, within `range`.
///
/// # Errors
/// A [`UsageError`] if the value is not a number or is out of range.
pub fn seconds(
    setting: &SettingValue,
    range: std::ops::RangeInclusive<Duration>,
) -> Result<Duration, UsageError> {
    let expected =
        format!("{} to {} seconds", range.start().as_secs_f64(), range.end().as_secs_f64());
    setting.parse(&expected, |text| {
        let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
        match Duration::try_from_secs_f64(seconds) {
            Ok(duration) if range.contains(&duration) => Ok(duration),
            _ => Err(format!("{text} is out of range")),
        }
    })
}

/// Parses a whole number within `range`; errors name the unit.
///
/// # Errors
/// A [`UsageError`] if the value is not a whole number or is out of range.
pub fn whole_number(
    setting: &SettingValue,
    unit: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, UsageError> {
    let expected = format!("{} to {} {unit}", range.start(), range.end());
    setting.parse(&expected, |text| {
        let number: u64 = text.parse().map_err(|_| format!("{text:?} is not a whole number"))?;
        if range.contains(&number) { Ok(number) } else { Err(format!("{text} is out of range")) }
    })
}

/// Reads a switch: the value of its variable if that is set, else `flag`.
///
/// # Errors
/// A [`UsageError`] if the value of the variable is neither true nor false.
pub fn switch(
    environment: &Environment<'_>,
    name: SettingName,
    flag: bool,
) -> Result<bool, UsageError> {
    match environment.setting(name, None)? {
        None => Ok(flag),
        Some(setting) => {
            setting.parse("true or false", |text| match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
                "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
                _ => Err(format!("{text:?} is neither true nor false")),
            })
        }
    }
}

/// Parses the location. If it is not set, the location is the host's name, truncated to
/// 32 characters. Returns `true` if it was truncated.
///
/// # Errors
/// A [`UsageError`] if the location is longer than 32 characters, or if there is none and
/// the host has no name.
pub fn location(setting: Option<SettingValue>) -> Result<(String, bool), UsageError> {
    if let Some(setting) = setting {
        let location = setting.parse("1 to 32 characters", |text| match text.chars().count() {
            0..=LOCATION_CHARS_MAX => Ok(text.to_lowercase()),
            count => Err(format!("has {count} characters")),
        })?;
        return Ok((location, false));
    }
    let host = host();
    if host.is_empty() {
        return Err(UsageError::new(
            "LOCATION: not set, and the host has no name: expected 1 to 32 characters",
        ));
    }
    let truncated: String = host.chars().take(LOCATION_CHARS_MAX).collect();
    let is_truncated = truncated != host;
    Ok((truncated, is_truncated))
}

/// The host's name in lower case. Empty if it has none.
pub fn host() -> String {
    hostname::get().unwrap_or_default().to_string_lossy().trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Origin;

    fn setting(value: &str) -> SettingValue {
        SettingValue { value: value.into(), origin: Origin::Flag("--x") }
    }

    #[test]
    fn seconds_must_be_in_range_and_may_have_a_fraction() {
        let range = Duration::from_millis(100)..=Duration::from_secs(300);
        assert_eq!(seconds(&setting("0.5"), range.clone()), Ok(Duration::from_millis(500)));
        assert_eq!(seconds(&setting("300"), range.clone()), Ok(Duration::from_secs(300)));
        for (value, message) in [
            ("ten", "--x: \"ten\" is not a number: expected 0.1 to 300 seconds"),
            ("10s", "--x: \"10s\" is not a number: expected 0.1 to 300 seconds"),
            ("0", "--x: 0 is out of range: expected 0.1 to 300 seconds"),
            ("301", "--x: 301 is out of range: expected 0.1 to 300 seconds"),
            ("-1", "--x: -1 is out of range: expected 0.1 to 300 seconds"),
            ("nan", "--x: nan is out of range: expected 0.1 to 300 seconds"),
            ("inf", "--x: inf is out of range: expected 0.1 to 300 seconds"),
        ] {
            assert_eq!(seconds(&setting(value), range.clone()).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn whole_numbers_must_be_in_range() {
        assert_eq!(whole_number(&setting("8"), "connections", 1..=100), Ok(8));
        for (value, message) in [
            ("8.5", "--x: \"8.5\" is not a whole number: expected 1 to 100 connections"),
            ("0", "--x: 0 is out of range: expected 1 to 100 connections"),
        ] {
            let error = whole_number(&setting(value), "connections", 1..=100).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn the_variable_of_a_switch_wins_over_its_flag() {
        const NAME: SettingName = SettingName { flag: "--smart", variables: &["SMART"] };
        for (word, flag, expected) in [
            (None, true, Ok(true)),
            (None, false, Ok(false)),
            (Some("False"), true, Ok(false)),
            (Some("YES"), false, Ok(true)),
            (Some("1"), false, Ok(true)),
            (Some(""), true, Ok(true)),
            (
                Some("maybe"),
                true,
                Err("SMART: \"maybe\" is neither true nor false: expected true or false".to_owned()),
            ),
        ] {
            let variables: Vec<_> = word.map(|word| ("SMART", word)).into_iter().collect();
            let switched = switch(&Environment::from_variables(&variables), NAME, flag);
            assert_eq!(switched.map_err(|error| error.to_string()), expected);
        }
    }

    #[test]
    fn a_location_must_fit_its_column() {
        assert_eq!(location(Some(setting("SYDNEY"))), Ok(("sydney".into(), false)));
        let long = location(Some(setting(&"é".repeat(33)))).unwrap_err();
        assert_eq!(long.to_string(), "--x: has 33 characters: expected 1 to 32 characters");
        assert!(!location(None).unwrap().0.is_empty());
    }
}
