//! What was measured, as a table.

use std::fmt;

/// A line for each figure.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<ReportLine>);

#[derive(Debug)]
struct ReportLine {
    what: String,
    figure: String,
    target: Option<(String, bool)>,
}

impl Report {
    /// A figure without a target.
    pub(crate) fn figure(&mut self, what: impl Into<String>, figure: impl Into<String>) {
        self.line(what.into(), figure.into(), None);
    }

    /// A figure, what it should be, and whether it is.
    pub(crate) fn target(
        &mut self,
        what: impl Into<String>,
        figure: impl Into<String>,
        target: impl Into<String>,
        is_met: bool,
    ) {
        self.line(what.into(), figure.into(), Some((target.into(), is_met)));
    }

    fn line(&mut self, what: String, figure: String, target: Option<(String, bool)>) {
        log::info!("{what}: {figure}");
        self.0.push(ReportLine { what, figure, target });
    }

    /// Whether every target is met.
    pub(crate) fn all_met(&self) -> bool {
        self.0.iter().all(|line| line.target.as_ref().is_none_or(|(_, is_met)| *is_met))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | measured | target |\n|---|---|---|")?;
        for ReportLine { what, figure, target } in &self.0 {
            let target = match target {
                None => "",
                Some((target, true)) => target,
                Some((target, false)) => &format!("{target}: **missed**"),
            };
            writeln!(f, "| {what} | {figure} | {target} |")?;
        }
        Ok(())
    }
}

/// The middle one; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The smallest value that this share of all, 0 to 1, does not exceed; 0 of none.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 0.5), 50.0);
        assert_eq!(percentile(&mut values, 0.99), 99.0);
        assert_eq!(percentile(&mut values, 1.0), 100.0);
        assert_eq!(percentile(&mut [7.0], 0.99), 7.0);
        assert_eq!(percentile(&mut [], 0.99), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn one_missed_target_is_enough() {
        let mut report = Report::default();
        report.figure("a", "1");
        report.target("b", "2", "≤ 3", true);
        assert!(report.all_met());
        report.target("c", "4", "≤ 3", false);
        assert!(!report.all_met());
        assert!(report.to_string().ends_with("| b | 2 | ≤ 3 |\n| c | 4 | ≤ 3: **missed** |\n"));
    }
}
