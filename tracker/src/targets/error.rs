//! Why a target is rejected, wherever it is written.

use common::domain::DomainError;

use super::url::URL_CHARS_MAX;

/// An error in a target. Its text repeats neither user nor password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("{0}")]
    InvalidUrl(#[source] url::ParseError),
    #[error("scheme {0} is neither http nor https")]
    UnsupportedScheme(String),
    #[error("port 0 can't be connected to")]
    PortZero,
    #[error("{0} characters: the URL column of the tables holds {URL_CHARS_MAX}")]
    UrlTooLong(usize),
    #[error("the same URL and name are listed twice")]
    Duplicate,
    #[error("{0}")]
    Domain(#[from] DomainError),
    #[error("regexp: {}", regexp_reason(.0))]
    Regexp(#[from] regex::Error),
}

/// Returns the last line of the message, which holds the reason. The lines before it draw the
/// regexp.
fn regexp_reason(cause: &regex::Error) -> String {
    let text = cause.to_string();
    let reason = text.lines().last().unwrap_or_default().trim();
    reason.strip_prefix("error: ").unwrap_or(reason).to_owned()
}
