//! Settings: flags, environment variables and secret files, parsed and checked. An error
//! is one line that names the setting.
//!
//! - [`flags`]: flags as data, each defined once;
//! - [`command_line`]: the arguments of a program;
//! - [`values`]: parsers of values.
//!
//! As in 1.1.0, a variable wins over its flag. Values are trimmed, and an empty value
//! counts as not set.

pub mod command_line;
pub mod flags;
pub mod values;

use std::env::VarError;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most bytes of a file that a `…_FILE` variable names.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// A setting that cannot be used: one line that names the setting, what is wrong with it,
/// and what was expected. The exit code of the program is 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    /// An error with this text, which must not contain a secret. Line breaks become spaces.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().replace(['\n', '\r'], " "))
    }
}

/// The source of a value, as errors name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag with its hyphens.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// A file that an environment variable names.
    File {
        /// The variable, which ends in `_FILE`.
        variable: String,
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File { variable, path } => write!(f, "{variable} ({})", path.display()),
        }
    }
}

/// The value of a setting and its source. The value is trimmed and not empty.
///
/// `Debug` shows only the source, because the value may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SettingValue {
    /// The value.
    pub value: String,
    /// The source of the value.
    pub origin: Origin,
}

impl fmt::Debug for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SettingValue({})", self.origin)
    }
}

impl SettingValue {
    /// Parses the value. An error names the source, the error of the parser, and what was
    /// expected. The error of the parser must not contain a secret.
    ///
    /// # Errors
    /// A [`UsageError`] when `parse` fails.
    pub fn parse<T, E: fmt::Display>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, UsageError> {
        parse(&self.value).map_err(|error| self.error(format!("{error}: expected {expected}")))
    }

    /// An error about this value: its source and `cause`.
    pub fn error(&self, cause: impl fmt::Display) -> UsageError {
        UsageError::new(format!("{}: {cause}", self.origin))
    }
}

/// The names of a setting.
#[derive(Debug, Clone, Copy)]
pub struct SettingName {
    /// The flag with its hyphens.
    pub flag: &'static str,
    /// The variable that wins over the flag, and its aliases.
    pub variables: &'static [&'static str],
}

type VariableLookup<'a> = dyn Fn(&str) -> Result<String, VarError> + 'a;

/// The environment variables that settings are read from.
pub struct Environment<'a> {
    variable: Box<VariableLookup<'a>>,
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

impl<'a> Environment<'a> {
    /// The environment of this process.
    pub fn from_process() -> Self {
        Self { variable: Box::new(|name| std::env::var(name)) }
    }

    /// Only these variables.
    pub fn from_variables(variables: &'a [(&'a str, &'a str)]) -> Self {
        let find = move |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned()).ok_or(VarError::NotPresent)
        };
        Self { variable: Box::new(find) }
    }

    /// Reads a setting from its variable, or from the flag if no variable is set.
    ///
    /// # Errors
    /// A variable is not UTF-8, or the variable and an alias are set to different values.
    pub fn setting(
        &self,
        name: SettingName,
        flag: Option<String>,
    ) -> Result<Option<SettingValue>, UsageError> {
        let mut found: Option<SettingValue> = None;
        for variable in name.variables {
            let Some(value) = self.variable(variable)? else { continue };
            let setting = SettingValue { value, origin: Origin::Variable(variable) };
            match &found {
                Some(first) if first.value != setting.value => {
                    return Err(UsageError::new(format!(
                        "{} and {variable} are both set and differ: expected one",
                        first.origin
                    )));
                }
                Some(_) => {}
                None => found = Some(setting),
            }
        }
        Ok(found.or_else(|| {
            let value = flag?.trim().to_owned();
            (!value.is_empty()).then_some(SettingValue { value, origin: Origin::Flag(name.flag) })
        }))
    }

    /// Reads a setting that may be a secret: from its variable, else from the file that
    /// `<VARIABLE>_FILE` names, as containers mount secrets, else from the flag.
    ///
    /// # Errors
    /// See [`Environment::setting`] and [`read_secret`]; also if both a variable and its
    /// `_FILE` variable are set.
    pub fn secret(
        &self,
        name: SettingName,
        flag: Option<String>,
    ) -> Result<Option<SettingValue>, UsageError> {
        let mut from_file = None;
        for variable in name.variables {
            let file_variable = format!("{variable}_FILE");
            let Some(path) = self.variable(&file_variable)? else { continue };
            if self.variable(variable)?.is_some() {
                return Err(UsageError::new(format!(
                    "{variable} and {file_variable} are both set: expected one"
                )));
            }
            let path = PathBuf::from(path);
            let origin = Origin::File { variable: file_variable, path: path.clone() };
            let value = read_secret(&path)
                .map_err(|cause| UsageError::new(format!("{origin}: {cause}")))?;
            from_file = Some(SettingValue { value, origin });
        }
        match from_file {
            Some(setting) => Ok(Some(setting)),
            None => self.setting(name, flag),
        }
    }

    /// Reads a variable and trims its value. `None`: it is not set or empty.
    ///
    /// # Errors
    /// The value is not UTF-8.
    pub fn variable(&self, name: &str) -> Result<Option<String>, UsageError> {
        match (self.variable)(name) {
            Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => {
                Err(UsageError::new(format!("{name}: not utf-8: expected text")))
            }
        }
    }
}

/// Reads the file of a secret and trims its text.
///
/// # Errors
/// The file cannot be read, is empty, is not UTF-8 or is larger than 64 KiB.
pub fn read_secret(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(SECRET_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SECRET_FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("larger than {SECRET_FILE_BYTES_MAX} bytes")));
    }
    let text = text.trim();
    if text.is_empty() {
        return Err(std::io::Error::other("empty: expected the value"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: SettingName = SettingName { flag: "--pgca", variables: &["PGCA", "GPCA"] };

    fn value(variables: &[(&str, &str)], flag: Option<&str>) -> Result<Option<String>, String> {
        Environment::from_variables(variables)
            .setting(NAME, flag.map(str::to_owned))
            .map(|setting| setting.map(|setting| format!("{}={}", setting.origin, setting.value)))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_variable_wins_over_its_flag_and_an_empty_value_is_not_set() {
        assert_eq!(value(&[], None), Ok(None));
        assert_eq!(value(&[], Some(" a ")), Ok(Some("--pgca=a".into())));
        assert_eq!(value(&[("PGCA", " b\n")], Some("a")), Ok(Some("PGCA=b".into())));
        assert_eq!(value(&[("PGCA", " ")], Some("a")), Ok(Some("--pgca=a".into())));
        assert_eq!(value(&[("GPCA", "c")], Some("a")), Ok(Some("GPCA=c".into())));
        assert_eq!(value(&[("PGCA", "c"), ("GPCA", "c")], None), Ok(Some("PGCA=c".into())));
        assert_eq!(value(&[("PGCA", "")], Some(" ")), Ok(None));
        assert_eq!(
            value(&[("PGCA", "b"), ("GPCA", "c")], None),
            Err("PGCA and GPCA are both set and differ: expected one".into())
        );
    }

    #[test]
    fn an_error_is_one_line_with_the_source_and_what_was_expected() {
        let setting = SettingValue { value: "x".into(), origin: Origin::Variable("PERIOD") };
        let parsed = setting.parse("seconds", |_| Err::<(), _>("not a\nnumber"));
        assert_eq!(parsed.unwrap_err().to_string(), "PERIOD: not a number: expected seconds");
        assert_eq!(format!("{setting:?}"), "SettingValue(PERIOD)");
    }

    #[test]
    fn a_secret_may_be_in_a_file() {
        let folder = std::env::temp_dir().join(format!("settings-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("secret");
        let path = file.to_str().unwrap();
        let secret = |variables: &[(&str, &str)]| {
            Environment::from_variables(variables)
                .secret(NAME, Some("flag".into()))
                .map(|setting| setting.map(|setting| setting.value))
                .map_err(|error| error.to_string())
        };
        std::fs::write(&file, " s3cret\n").unwrap();
        assert_eq!(secret(&[("PGCA_FILE", path)]), Ok(Some("s3cret".into())));
        assert_eq!(secret(&[]), Ok(Some("flag".into())));
        assert_eq!(
            secret(&[("PGCA_FILE", path), ("PGCA", "x")]),
            Err("PGCA and PGCA_FILE are both set: expected one".into())
        );
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(
            secret(&[("GPCA_FILE", path)]),
            Err(format!("GPCA_FILE ({path}): empty: expected the value"))
        );
        assert_eq!(
            secret(&[("PGCA_FILE", "/nowhere")]),
            Err("PGCA_FILE (/nowhere): No such file or directory (os error 2)".into())
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
