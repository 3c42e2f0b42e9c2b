//! The part of a service's log that shows why it failed.

use std::path::Path;

const MARKS: [&str; 5] = ["ERROR", "FATAL", "PANIC", "could not", "Exception"];
const ERRORS_MAX: usize = 10;
const LAST_LINES: usize = 10;
const COLUMNS_MAX: usize = 300;

/// The last errors in the log and its last lines, which after a clean shutdown
/// do not show an error.
pub(crate) fn log_excerpt(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let is_error =
        |line: &str| !line.contains(" INFO ") && MARKS.iter().any(|mark| line.contains(mark));
    let errors: Vec<String> = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| is_error(line))
        .map(|(index, line)| format!("{}:{line}", index + 1))
        .collect();
    let mut excerpt: Vec<String> = errors[errors.len().saturating_sub(ERRORS_MAX)..].to_vec();
    excerpt.push(format!("the end of {}:", log.display()));
    excerpt.extend(
        lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| (*line).to_owned()),
    );
    let cut = |line: &String| line.chars().take(COLUMNS_MAX).collect::<String>();
    excerpt.iter().map(|line| format!("\n  {}", cut(line))).collect()
}

/// Whether one of the logs reports that a port is in use.
pub(crate) fn reports_port_in_use(log: &Path) -> bool {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).to_lowercase();
    text.contains("address already in use") || text.contains("failed to bind")
}
