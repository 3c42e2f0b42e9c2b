//! The extra keys of a record, which version 1.1.0 does not write, fitted to their columns.
//!
//! A text for human readers is cut to the length of its column. The name of the target (`name`) and
//! the causes in `missed` are not cut, because a prefix would be another name or another cause. If
//! they are too long, the record is rejected.

use common::record::Extra;

use super::{Rejected, checked_text};

/// The maximum length of the name of a target in characters.
const NAME_CHARS_MAX: usize = 256;
/// The maximum length of words, addresses and versions in characters.
const WORD_CHARS_MAX: usize = 64;
/// The maximum length in characters of the URL after all redirects.
const FINAL_URL_CHARS_MAX: usize = 2_048;

/// Cuts texts to the lengths of their columns.
///
/// # Errors
/// [`Rejected`]: a value can be neither stored nor cut.
pub(super) fn fit_to_columns(mut extra: Extra) -> Result<Extra, Rejected> {
    if let Some(name) = extra.name.take() {
        extra.name = Some(checked_text("name", name, Some(NAME_CHARS_MAX))?);
    }
    for (key, text, chars_max) in [
        ("reason", &mut extra.reason, WORD_CHARS_MAX),
        ("phase", &mut extra.phase, WORD_CHARS_MAX),
        ("address", &mut extra.address, WORD_CHARS_MAX),
        ("http_version", &mut extra.http_version, WORD_CHARS_MAX),
        ("final_url", &mut extra.final_url, FINAL_URL_CHARS_MAX),
        ("first_reason", &mut extra.first_reason, WORD_CHARS_MAX),
    ] {
        if let Some(text) = text {
            if let Some((end, _)) = text.char_indices().nth(chars_max) {
                text.truncate(end);
            }
            if text.contains('\0') {
                return Err(Rejected::Nul(key));
            }
        }
    }
    for (key, number) in [
        ("http_status", extra.http_status),
        ("redirects", extra.redirects),
        ("attempts", extra.attempts),
        ("period_ms", extra.period_ms),
    ] {
        if number.is_some_and(|number| i32::try_from(number).is_err()) {
            return Err(Rejected::Number(key));
        }
    }
    for cause in extra.missed.keys() {
        let chars = cause.chars().count();
        if cause.contains('\0') {
            return Err(Rejected::Nul("missed"));
        }
        if chars > WORD_CHARS_MAX {
            return Err(Rejected::TooLong { key: "missed", chars, max: WORD_CHARS_MAX });
        }
    }
    Ok(extra)
}
