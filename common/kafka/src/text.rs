//! Text from a broker, made safe for one log line.

/// The maximum number of characters of a broker's message in the log.
const CHARS_MAX: usize = 300;

/// Replaces control characters by blanks and cuts the text at [`CHARS_MAX`] characters.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARS_MAX).collect()
}
