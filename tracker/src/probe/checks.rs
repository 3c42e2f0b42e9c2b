//! What is looked for in an answer that came whole.

use super::ask::Ask;
use super::body;
use super::verdict::{Failure, Phase, Reason};

/// The statuses of an answer with which all is well, when nothing else is asked for.
const STATUSES: std::ops::RangeInclusive<u16> = 200..=399;

/// A body, decoded, and what its answer says it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page<'a> {
    pub(super) body: &'a [u8],
    pub(super) content_type: Option<&'a str>,
}

/// Looks at the page first: 1.1.0 searches it whatever the status is, and says
/// of one without the text that it is not as expected.
///
/// # Errors
/// The first failure; a warning is no error.
pub(super) fn look(
    ask: &Ask<'_>,
    status: u16,
    page: &Page<'_>,
) -> Result<Option<Failure>, Failure> {
    if let Some(check) = ask.check
        && !check.is_match(&body::text(page.body, page.content_type))
    {
        return Err(Failure::with(Reason::BodyNotExpected, Phase::Check, check.as_str()));
    }
    if !STATUSES.contains(&status) {
        let is_known = common::phrase::of_status(status).is_some();
        let failure = Failure::new(Reason::StatusNotExpected, Phase::Check);
        let detail = (!is_known).then(|| status.to_string());
        return Err(Failure { detail, ..failure });
    }
    Ok(None)
}
