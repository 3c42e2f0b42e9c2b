//! Counts in log lines and error texts.

use std::fmt::Display;

/// Formats a count with its noun: "1 target", "2 targets".
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let ending = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "target")), ["0 targets", "1 target", "2 targets"]);
        assert_eq!(counted(1.0, "day"), "1 day");
    }
}
