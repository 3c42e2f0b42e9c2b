//! Values that must not appear in logs, errors or `Debug` output.

use std::fmt;
use std::path::PathBuf;

use crate::settings::{self, Origin, SettingValue};

/// A password or similar value. `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    /// The file that the value was read from, if any.
    file: Option<PathBuf>,
}

impl Secret {
    /// Wraps a value that did not come from a file.
    pub fn new(value: impl Into<String>) -> Self {
        Self { value: value.into(), file: None }
    }

    /// Returns the value, for the code that sends it to a server.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// Reads the value again if it came from a file, because it may have been renewed.
    ///
    /// # Errors
    /// See [`settings::read_secret`].
    pub fn reread(&self) -> std::io::Result<Self> {
        match &self.file {
            None => Ok(self.clone()),
            Some(file) => {
                Ok(Self { value: settings::read_secret(file)?, file: Some(file.clone()) })
            }
        }
    }
}

/// Wraps a setting's value and remembers its file, if it came from one.
impl From<SettingValue> for Secret {
    fn from(setting: SettingValue) -> Self {
        let file = match setting.origin {
            Origin::File { path, .. } => Some(path),
            Origin::Flag(_) | Origin::Variable(_) => None,
        };
        Self { value: setting.value, file }
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
    fn secret_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn secret_from_a_file_is_read_again() {
        let path = std::env::temp_dir().join(format!("secret-{}", std::process::id()));
        let origin = Origin::File { variable: "SASL_PASSWORD_FILE".into(), path: path.clone() };
        let secret = Secret::from(SettingValue { value: "old".into(), origin });
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(secret.expose(), "old");
        assert_eq!(secret.reread().unwrap().expose(), "new");
        std::fs::remove_file(&path).unwrap();
        assert!(secret.reread().is_err());
        assert_eq!(Secret::new("fixed").reread().unwrap().expose(), "fixed");
    }
}
