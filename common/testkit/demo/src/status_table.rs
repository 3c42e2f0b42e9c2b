//! Shows the newest row of each URL: as a table on a terminal, or as one line per new row.

use std::collections::BTreeMap;
use std::fmt::Write;

use testkit::sites::DemoSite;

use crate::row_reader::DemoRow;

/// The newest row of one URL, and the number of rows.
#[derive(Debug, Default)]
struct TableLine {
    latest: Option<DemoRow>,
    rows: u64,
}

/// The rows of all URLs, and the expected verdicts of the local sites.
pub(crate) struct StatusTable<'a> {
    sites: &'a [DemoSite],
    lines: BTreeMap<String, TableLine>,
    new_lines: String,
}

impl<'a> StatusTable<'a> {
    /// Creates a table without rows.
    pub(crate) fn new(sites: &'a [DemoSite]) -> Self {
        let lines =
            sites.iter().map(|site| (site.url.to_lowercase(), TableLine::default())).collect();
        Self { sites, lines, new_lines: String::new() }
    }

    /// Adds new rows, oldest first.
    pub(crate) fn add_rows(&mut self, rows: Vec<DemoRow>) {
        self.new_lines.clear();
        for row in rows {
            let mark = self.mark(&row);
            let _ = writeln!(self.new_lines, "{} {mark} {}", row.time, describe(&row));
            let line = self.lines.entry(row.url.clone()).or_default();
            line.rows += 1;
            line.latest = Some(row);
        }
    }

    /// One line for each row of the last call of `add_rows`.
    pub(crate) fn new_lines(&self) -> String {
        self.new_lines.clone()
    }

    /// The whole table, after the codes that clear a terminal.
    pub(crate) fn screen(&self) -> String {
        let mut text = String::from("\x1b[H\x1b[2J");
        let _ =
            writeln!(text, "{:>5}  {:8}    newest row in PostgreSQL (Ctrl-C ends)", "rows", "time");
        for (url, line) in &self.lines {
            match &line.latest {
                Some(row) => {
                    let mark = self.mark(row);
                    let _ =
                        writeln!(text, "{:>5}  {} {mark} {}", line.rows, row.time, describe(row));
                }
                None => {
                    let _ = writeln!(text, "{:>5}  {:8}   {url}", 0, "");
                }
            }
        }
        text
    }

    /// Whether each local site has the expected verdict.
    pub(crate) fn is_complete(&self) -> bool {
        self.unexpected().is_empty()
    }

    /// Describes the local sites without a row, or whose newest row does not have the expected
    /// verdict.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for site in self.sites {
            let expected = format!("{}, {}", site.status.as_str(), site.phrase);
            let latest =
                self.lines.get(&site.url.to_lowercase()).and_then(|line| line.latest.as_ref());
            let actual =
                latest.map_or("no row".to_owned(), |row| format!("{}, {}", row.status, row.phrase));
            if actual != expected {
                lines.push(format!(
                    "{} ({}): expected {expected}, but got {actual}",
                    site.name, site.url
                ));
            }
        }
        lines
    }

    /// `✓` for the expected verdict of a local site, `✗` for another verdict, a space for a
    /// website of the user.
    fn mark(&self, row: &DemoRow) -> char {
        match self.sites.iter().find(|site| site.url.eq_ignore_ascii_case(&row.url)) {
            Some(site) if site.status.as_str() == row.status && site.phrase == row.phrase => '✓',
            Some(_) => '✗',
            None => ' ',
        }
    }
}

fn describe(row: &DemoRow) -> String {
    let ms = |value: i32| if value < 0 { "-".to_owned() } else { format!("{value} ms") };
    let DemoRow { url, status, phrase, dns, response, detail, .. } = row;
    format!(
        "{url:<44.44} {status:<12} {phrase:<24} {:>6} {:>8} {}",
        ms(*dns),
        ms(*response),
        detail.as_deref().unwrap_or_default()
    )
}
