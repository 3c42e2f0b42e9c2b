//! The measured figures as a table.

use std::fmt;

/// The table: one line per figure.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<ReportLine>);

#[derive(Debug)]
struct ReportLine {
    name: String,
    figure: String,
    target: Option<(String, bool)>,
}

impl Report {
    /// Adds a figure without a target.
    pub(crate) fn add_figure(&mut self, name: impl Into<String>, figure: impl Into<String>) {
        self.add_line(name.into(), figure.into(), None);
    }

    /// Adds a figure with its target, and whether the target is met.
    pub(crate) fn add_target(
        &mut self,
        name: impl Into<String>,
        figure: impl Into<String>,
        target: impl Into<String>,
        is_met: bool,
    ) {
        self.add_line(name.into(), figure.into(), Some((target.into(), is_met)));
    }

    fn add_line(&mut self, name: String, figure: String, target: Option<(String, bool)>) {
        log::info!("{name}: {figure}");
        self.0.push(ReportLine { name, figure, target });
    }

    /// Whether every target is met.
    pub(crate) fn all_met(&self) -> bool {
        self.0.iter().all(|line| line.target.as_ref().is_none_or(|(_, is_met)| *is_met))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| figure | measured | target |\n|---|---|---|")?;
        for ReportLine { name, figure, target } in &self.0 {
            let target = match target {
                None => "",
                Some((target, true)) => target,
                Some((target, false)) => &format!("{target}: **missed**"),
            };
            writeln!(f, "| {name} | {figure} | {target} |")?;
        }
        Ok(())
    }
}

/// The median. 0 if there are no values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The smallest value that is at least as large as this share (0 to 1) of all values. 0 if there
/// are no values.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 0.5), 50.0);
        assert_eq!(percentile(&mut values, 0.99), 99.0);
        assert_eq!(percentile(&mut values, 1.0), 100.0);
        assert_eq!(percentile(&mut [7.0], 0.99), 7.0);
        assert_eq!(percentile(&mut [], 0.99), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn one_missed_target_fails_the_report() {
        let mut report = Report::default();
        report.add_figure("a", "1");
        report.add_target("b", "2", "≤ 3", true);
        assert!(report.all_met());
        report.add_target("c", "4", "≤ 3", false);
        assert!(!report.all_met());
        assert!(report.to_string().ends_with("| b | 2 | ≤ 3 |\n| c | 4 | ≤ 3: **missed** |\n"));
    }
}
