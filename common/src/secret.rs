//! A value that no log, error or `Debug` may show.

use std::fmt;
use std::path::PathBuf;

use crate::settings::{self, Origin, SettingValue};

/// A password or the like: `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    /// Where it can be read again.
    file: Option<PathBuf>,
}

impl Secret {
    /// Keeps `value` out of sight.
    pub fn new(value: impl Into<String>) -> Self {
        Self { value: value.into(), file: None }
    }

    /// The value itself, for the one place that has to send it.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// The secret as it is now: one that came from a file is read again.
    ///
    /// # Errors
    /// See [`settings::read_secret`].
    pub fn renewed(&self) -> std::io::Result<Self> {
        match &self.file {
            None => Ok(self.clone()),
            Some(file) => {
                Ok(Self { value: settings::read_secret(file)?, file: Some(file.clone()) })
            }
        }
    }
}

/// A setting's value, and the file behind it if there is one.
impl From<SettingValue> for Secret {
    fn from(given: SettingValue) -> Self {
        let file = match given.origin {
            Origin::File { path, .. } => Some(path),
            Origin::Flag(_) | Origin::Variable(_) => None,
        };
        Self { value: given.value, file }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn one_from_a_file_is_read_again() {
        let path = std::env::temp_dir().join(format!("secret-{}", std::process::id()));
        let origin = Origin::File { variable: "SASL_PASSWORD_FILE".into(), path: path.clone() };
        let secret = Secret::from(SettingValue { value: "old".into(), origin });
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(secret.expose(), "old");
        assert_eq!(secret.renewed().unwrap().expose(), "new");
        std::fs::remove_file(&path).unwrap();
        assert!(secret.renewed().is_err());
        assert_eq!(Secret::new("fixed").renewed().unwrap().expose(), "fixed");
    }
}
