//! What a record says beyond the nine keys, as its columns hold it.
//!
//! What only persons read is cut to its column. What says which target it is
//! (`name`), or is counted by (`missed`), is not: a part of it would be another.

use common::record::Extra;

use super::{Rejected, fitting as fitting_text};

/// The most characters of a target's name.
const NAME_CHARS_MAX: usize = 256;
/// The most characters of words, addresses and versions.
const WORD_CHARS_MAX: usize = 64;
/// The most characters of the URL where redirects ended.
const FINAL_URL_CHARS_MAX: usize = 2_048;

/// The same, cut to what the columns hold.
///
/// # Errors
/// [`Rejected`]: something of it can be neither stored nor cut.
pub(super) fn fitting(mut extra: Extra) -> Result<Extra, Rejected> {
    if let Some(name) = extra.name.take() {
        extra.name = Some(fitting_text("name", name, Some(NAME_CHARS_MAX))?);
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
