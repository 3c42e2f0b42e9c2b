//! Counts in log lines and error texts.

/// Formats a count with its noun: "1 target", "2 targets".
pub(crate) fn plural<N>(count: N, noun: &str) -> String
where
    N: std::fmt::Display + PartialEq + From<u8>,
{
    let ending = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{ending}")
}
