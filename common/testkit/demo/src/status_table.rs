//! The rows, as a table on a terminal or as a line each.

use std::collections::BTreeMap;
use std::fmt::Write;

use testkit::sites::DemoSite;

use crate::row_reader::DemoRow;

/// What is known of one URL.
#[derive(Debug, Default)]
struct TableLine {
    latest: Option<DemoRow>,
    rows: u64,
}

/// All URLs that have rows, and what is expected of the local ones.
pub(crate) struct StatusTable<'a> {
    sites: &'a [DemoSite],
    lines: BTreeMap<String, TableLine>,
    news: String,
}

impl<'a> StatusTable<'a> {
    /// A table without rows.
    pub(crate) fn new(sites: &'a [DemoSite]) -> Self {
        let lines =
            sites.iter().map(|site| (site.url.to_lowercase(), TableLine::default())).collect();
        Self { sites, lines, news: String::new() }
    }

    /// Takes rows that were not seen before, oldest first.
    pub(crate) fn take(&mut self, rows: Vec<DemoRow>) {
        self.news.clear();
        for row in rows {
            let mark = self.mark(&row);
            let _ = writeln!(self.news, "{} {mark} {}", row.time, describe(&row));
            let line = self.lines.entry(row.url.clone()).or_default();
            line.rows += 1;
            line.latest = Some(row);
        }
    }

    /// A line for each row that was taken last.
    pub(crate) fn news(&self) -> String {
        self.news.clone()
    }

    /// The whole table, with what clears a terminal in front.
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

    /// True when each local site has a row with the verdict expected of it.
    pub(crate) fn complete(&self) -> bool {
        self.unexpected().is_empty()
    }

    /// The local sites whose newest row is missing or says something else.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for site in self.sites {
            let expected = format!("{}, {}", site.status.as_str(), site.phrase);
            let latest =
                self.lines.get(&site.url.to_lowercase()).and_then(|line| line.latest.as_ref());
            let found =
                latest.map_or("no row".to_owned(), |row| format!("{}, {}", row.status, row.phrase));
            if found != expected {
                wrong.push(format!(
                    "{} ({}): expected {expected}; found {found}",
                    site.name, site.url
                ));
            }
        }
        wrong
    }

    /// `✓` for a local site's expected verdict, `✗` for another, a blank for a
    /// site of the user's.
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
