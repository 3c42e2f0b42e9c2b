//! [`ValueContext`]: files, variables and compiled regexps that the values of a file refer to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use common::pem::Pem;
use common::secret::Secret;
use common::settings::{self, Environment};
use regex::Regex;

use super::TargetError;
use super::values::{FileValue, FileValueError};

/// Resolves the files, variables and regexps that the values of one file of targets refer to.
#[derive(Debug)]
pub(super) struct ValueContext<'a> {
    /// Folder of the file. Relative paths in the file start there.
    folder: &'a Path,
    environment: &'a Environment<'a>,
    /// Compiled regexps. Many targets have the same ones.
    regexps: RefCell<HashMap<String, Regex>>,
}

impl<'a> ValueContext<'a> {
    pub(super) fn new(folder: &'a Path, environment: &'a Environment<'a>) -> Self {
        Self { folder, environment, regexps: RefCell::default() }
    }

    pub(super) fn regexp(&self, value: FileValue<'_>) -> Result<Regex, FileValueError> {
        let text = value.text("a regexp")?;
        if let Some(regexp) = self.regexps.borrow().get(text) {
            return Ok(regexp.clone());
        }
        let regexp = Regex::new(text).map_err(|cause| value.error(TargetError::Regexp(cause)))?;
        self.regexps.borrow_mut().insert(text.to_owned(), regexp.clone());
        Ok(regexp)
    }

    /// Reads a text, or a table that names a file or a variable. Errors do not repeat it.
    pub(super) fn secret(
        &self,
        value: FileValue<'_>,
        bytes_max: usize,
    ) -> Result<Secret, FileValueError> {
        let text = match value.as_text() {
            Some(text) => text.to_owned(),
            None => self.referenced_text(value)?,
        };
        match text.len() <= bytes_max {
            true => Ok(Secret::new(text)),
            false => {
                let bytes = text.len();
                Err(value.error(format!("{bytes} bytes: expected at most {bytes_max}")))
            }
        }
    }

    fn referenced_text(&self, value: FileValue<'_>) -> Result<String, FileValueError> {
        const EXPECTED: &str = "a text, { file = \"...\" } or { variable = \"...\" }";
        let entries = value.table(EXPECTED, 2)?;
        let [(offset, reference)] = entries[..] else { return Err(value.wrong_type(EXPECTED)) };
        let name = reference.text("a text")?;
        match reference.key {
            "file" => settings::read_secret(&self.folder.join(name))
                .map_err(|cause| value.error(format!("{name}: {cause}"))),
            "variable" => self
                .environment
                .variable(name)
                .map_err(|cause| value.error(cause))?
                .ok_or_else(|| value.error(format!("the variable {name} is not set"))),
            _ => Err(FileValueError { offset, ..value.error(format!("expected {EXPECTED}")) }),
        }
    }

    /// Reads a path or PEM text. Returns it with the offset of the value in the file.
    pub(super) fn pem(&self, value: FileValue<'_>) -> Result<(usize, Pem), FileValueError> {
        let pem = match Pem::from_setting(value.text("a path or PEM text")?) {
            Pem::File(path) => Pem::File(self.folder.join(path)),
            text @ Pem::Text(_) => text,
        };
        Ok((value.offset, pem))
    }
}
