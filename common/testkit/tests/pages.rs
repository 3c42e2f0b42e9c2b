//! The pages (`*.md`) agree with the repository: links, anchors, scripts,
//! commands, flags, variables and folders.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// More lines than two screens have: such a page needs a table of contents.
const LINES_WITHOUT_CONTENTS_MAX: usize = 100;
const FIRST_PAGE_LINES_MAX: usize = 250;
/// The picture of the first page is above this line.
const PICTURE_LINE_MAX: usize = 60;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// One page, split into code blocks and other lines.
struct Page {
    /// Relative to the repository.
    path: PathBuf,
    text: String,
    /// Lines outside code blocks, without code spans.
    prose: String,
    /// Code spans outside code blocks.
    spans: Vec<String>,
    /// Language and text of each code block.
    blocks: Vec<(String, String)>,
    anchors: BTreeSet<String>,
}

impl Page {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let (mut prose, mut spans, mut blocks) = (String::new(), Vec::new(), Vec::new());
        let mut headings = Vec::new();
        let mut block: Option<(String, String)> = None;
        for line in text.lines() {
            match (&mut block, line.trim_start().strip_prefix("```")) {
                (None, Some(language)) => block = Some((language.to_owned(), String::new())),
                (Some(_), Some(_)) => blocks.extend(block.take()),
                (Some((_, code)), None) => {
                    code.push_str(line);
                    code.push('\n');
                }
                (None, None) => {
                    if let Some(heading) = heading(line) {
                        headings.push(heading);
                    }
                    for (number, part) in line.split('`').enumerate() {
                        match number % 2 {
                            0 => prose.push_str(part),
                            _ => spans.push(part.to_owned()),
                        }
                    }
                    prose.push('\n');
                }
            }
        }
        assert!(block.is_none(), "{}: a code block does not end", path.display());
        let path = path.strip_prefix(repository()).unwrap().to_owned();
        Self { path, text, prose, spans, blocks, anchors: anchors(headings) }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Targets of links and images.
    fn links(&self) -> Vec<&str> {
        let ends = self.prose.split("](").skip(1);
        ends.map(|rest| rest.split_once(')').expect("a link ends").0).collect()
    }

    /// Cells of all rows of tables with this header.
    fn table(&self, header: &str) -> Vec<Vec<String>> {
        let header = format!("{header}\n");
        self.text
            .split(header.as_str())
            .skip(1)
            .flat_map(|rest| rest.lines().skip(1).take_while(|line| line.starts_with('|')))
            .map(|row| {
                let row = row.trim().trim_start_matches('|').trim_end_matches('|');
                row.split('|').map(|cell| cell.trim().to_owned()).collect()
            })
            .collect()
    }
}

fn heading(line: &str) -> Option<String> {
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    ((1..=6).contains(&level) && text.starts_with(' ')).then(|| text.trim().to_owned())
}

/// Anchors by GitHub's rule: lower case, letters, digits, `-` and `_` only, a
/// hyphen for each space, and a number for a heading that occurs again.
fn anchors(headings: Vec<String>) -> BTreeSet<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for heading in headings {
        let anchor = anchor(&heading);
        let count = counts.entry(anchor.clone()).or_default();
        anchors.insert(match *count {
            0 => anchor,
            again => format!("{anchor}-{again}"),
        });
        *count += 1;
    }
    anchors
}

fn anchor(heading: &str) -> String {
    let kept =
        heading.chars().flat_map(char::to_lowercase).filter_map(|character| match character {
            ' ' => Some('-'),
            '-' | '_' => Some(character),
            other => other.is_alphanumeric().then_some(other),
        });
    kept.collect()
}

/// All pages of the repository.
fn pages() -> Vec<Page> {
    let mut paths = BTreeSet::new();
    collect(&repository(), &mut paths);
    let pages: Vec<Page> = paths.iter().map(|path| Page::read(path)).collect();
    assert!(pages.len() >= 7, "{paths:?}");
    pages
}

fn collect(folder: &Path, paths: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            collect(&path, paths);
        } else if name.ends_with(".md") {
            paths.insert(path);
        }
    }
}

fn page(path: &str) -> Page {
    Page::read(&repository().join(path))
}

/// Flags and variables of a program, as `--help` prints them.
struct Help {
    flags: BTreeSet<String>,
    variables: BTreeSet<String>,
}

impl Help {
    fn of(program: &str) -> Self {
        let output = match built(program) {
            Some(path) => Command::new(path).arg("--help").output().unwrap(),
            None => Command::new(env!("CARGO"))
                .args(["run", "--quiet", "--locked", "--package", program, "--", "--help"])
                .current_dir(repository())
                .output()
                .unwrap(),
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self::parse(&String::from_utf8(output.stdout).unwrap())
    }

    fn parse(text: &str) -> Self {
        let lists = ["Flags:\n", "Options:\n"];
        let (_, list) = lists.iter().find_map(|title| text.split_once(title)).unwrap();
        let options = list.split_once("\n\n").map_or(list, |(options, _)| options);
        let mut flags = BTreeSet::new();
        if text.contains("-V, --version") {
            flags.extend(["-V", "--version"].map(str::to_owned));
        }
        let mut descriptions: Vec<String> = Vec::new();
        for line in options.lines() {
            let mut rest = line.trim();
            if line.starts_with("  -") {
                descriptions.push(String::new());
                while rest.starts_with('-') {
                    let (word, further) = rest.split_once(' ').unwrap_or((rest, ""));
                    flags.insert(word.trim_end_matches(',').to_owned());
                    rest = further.trim();
                }
            }
            let description = descriptions.last_mut().unwrap();
            description.push_str(rest);
            description.push(' ');
        }
        let variables = descriptions.iter().flat_map(|text| variables(text)).collect();
        Self { flags, variables }
    }
}

/// The program in the folder of this test's build, if it is newer than its sources.
fn built(program: &str) -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.parent()?.parent()?.join(program);
    let built_at = path.metadata().ok()?.modified().ok()?;
    let sources = [format!("{program}/src"), "common/src".to_owned()];
    let is_older = |source: &String| newest(&repository().join(source)) <= built_at;
    sources.iter().all(is_older).then_some(path)
}

/// When a file below a folder changed last.
fn newest(folder: &Path) -> SystemTime {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let times = paths.map(|path| match path.is_dir() {
        true => newest(&path),
        false => path.metadata().unwrap().modified().unwrap(),
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Variables stand in the last brackets of a description.
fn variables(description: &str) -> Vec<String> {
    let Some((_, last)) = description.rsplit_once(['(', '[']) else { return Vec::new() };
    let is_variable = |word: &&str| {
        word.len() > 1
            && word.starts_with(|first: char| first.is_ascii_uppercase())
            && word.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
    };
    let words = last.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(is_variable).map(str::to_owned).collect()
}

/// Words of a cell that are separated by commas, without backquotes.
fn words(cell: &str) -> impl Iterator<Item = String> + '_ {
    cell.split(',').map(|word| word.trim().trim_matches('`').to_owned()).filter(|w| !w.is_empty())
}

#[test]
fn every_link_leads_to_a_file_and_an_anchor() {
    let pages = pages();
    let anchors: BTreeMap<PathBuf, &BTreeSet<String>> =
        pages.iter().map(|page| (repository().join(&page.path), &page.anchors)).collect();
    let mut broken = Vec::new();
    for page in &pages {
        let here = repository().join(&page.path);
        for link in page.links().into_iter().filter(|link| !link.starts_with("https://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => Some(here.clone()),
                path => here.parent().unwrap().join(path).canonicalize().ok(),
            };
            let exists = target.is_some_and(|target| {
                anchor.is_empty() || anchors.get(&target).is_some_and(|all| all.contains(anchor))
            });
            if !exists {
                broken.push(format!("{}: {link}", page.name()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn anchors_follow_the_rule_of_github() {
    let headings = ["I want to …", "Try it: `--check`, `--once`", "A b_c", "A b_c"];
    let expected = ["i-want-to-", "try-it---check---once", "a-b_c", "a-b_c-1"];
    assert_eq!(
        anchors(headings.map(str::to_owned).to_vec()),
        expected.map(str::to_owned).into_iter().collect()
    );
}

#[test]
fn every_script_that_is_named_exists() {
    let mut missing = BTreeSet::new();
    for page in pages() {
        for rest in page.text.split("scripts/").skip(1) {
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || "._-/".contains(letter);
            let name: String = rest.chars().take_while(|letter| is_name(*letter)).collect();
            let name = name.trim_end_matches(['.', '/', '-']);
            if !repository().join("scripts").join(name).exists() {
                missing.insert(format!("{}: scripts/{name}", page.name()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_tables_of_flags_agree_with_help() {
    for program in ["tracker", "recorder"] {
        let help = Help::of(program);
        let rows = page(&format!("{program}/README.md")).table("| flag | variable | meaning |");
        let flags: BTreeSet<String> = rows.iter().flat_map(|row| words(&row[0])).collect();
        let variables: BTreeSet<String> = rows.iter().flat_map(|row| words(&row[1])).collect();
        assert_eq!(flags, help.flags, "{program}");
        assert_eq!(variables, help.variables, "{program}");
    }
}

#[test]
fn help_is_parsed_with_its_variables() {
    let help = Help::parse(
        "Usage: x\n\nFlags:\n  -a, --alpha <alpha>\n                    what (like this) it \
         is,\n                    or not (ALPHA or ALPHA_FILE)\n  --smart           whether \
         (SMART, true or false)\n  -h, --help        print this help\n  -V, --version     \
         print the version\n\nSubcommands:\n  print             Prints (THIS).\n",
    );
    let expected = ["--alpha", "--help", "--smart", "--version", "-V", "-a", "-h"];
    assert_eq!(help.flags.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    let expected = ["ALPHA", "ALPHA_FILE", "SMART"];
    assert_eq!(help.variables.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn every_flag_in_a_command_exists() {
    let helps = ["tracker", "recorder"].map(|program| (program, Help::of(program)));
    let mut unknown = BTreeSet::new();
    for page in pages() {
        let commands = page.blocks.iter().filter(|(language, _)| language == "sh");
        for line in commands.flat_map(|(_, code)| code.lines()) {
            let (command, arguments) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            let flags = arguments.split_whitespace().filter(|word| word.starts_with('-'));
            for flag in flags {
                let is_known = match helps.iter().find(|(program, _)| *program == command) {
                    Some((_, help)) => help.flags.contains(flag),
                    None if command.starts_with("scripts/") => {
                        let script = repository().join(command);
                        std::fs::read_to_string(script).unwrap().contains(flag)
                    }
                    None => true,
                };
                if !is_known {
                    unknown.insert(format!("{}: {line}: {flag}", page.name()));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn every_flag_in_the_text_exists() {
    let mut known: BTreeSet<String> =
        ["tracker", "recorder"].into_iter().flat_map(|program| Help::of(program).flags).collect();
    let scripts = std::fs::read_dir(repository().join("scripts")).unwrap();
    for script in scripts.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(script).unwrap();
        let words = text.split(|letter: char| letter.is_whitespace() || "[](),`".contains(letter));
        known.extend(words.filter(|word| word.starts_with("--")).map(str::to_owned));
    }
    let mut unknown = BTreeSet::new();
    for page in pages() {
        for span in page.spans.iter().filter(|span| span.starts_with("--")) {
            let flag = span.split_whitespace().next().unwrap();
            if !known.contains(flag) {
                unknown.insert(format!("{}: {span}", page.name()));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn shell_blocks_parse() {
    let mut count = 0;
    for page in pages() {
        for (_, code) in page.blocks.iter().filter(|(language, _)| language == "sh") {
            let output = Command::new("bash").args(["-n", "-c", code]).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {errors}\n{code}", page.name());
            count += 1;
        }
    }
    assert!(count >= 10, "{count}");
}

#[test]
fn long_pages_have_a_table_of_contents() {
    for page in pages() {
        if page.text.lines().count() <= LINES_WITHOUT_CONTENTS_MAX {
            continue;
        }
        let links: BTreeSet<&str> = page.links().into_iter().collect();
        let chapters = page.text.lines().filter_map(|line| line.strip_prefix("## "));
        for chapter in chapters {
            let link = format!("#{}", anchor(chapter));
            assert!(links.contains(link.as_str()), "{}: no link to {link}", page.name());
        }
    }
}

#[test]
fn the_first_page_is_short_and_begins_with_a_command_and_a_picture() {
    let first = page("README.md");
    let lines: Vec<&str> = first.text.lines().collect();
    assert!(lines.len() <= FIRST_PAGE_LINES_MAX, "{} lines", lines.len());
    let picture = lines.iter().position(|line| line.starts_with("![")).unwrap();
    let command = lines.iter().position(|line| *line == "scripts/quickstart").unwrap();
    assert!(command < picture && picture < PICTURE_LINE_MAX, "{command} {picture}");
}

#[test]
fn the_first_page_counts_reasons_and_causes_as_the_page_of_results_lists_them() {
    let (first, results) = (page("README.md"), page("common/RESULTS.md"));
    let reasons = results.table("| reason | what happened | status | phrase | times | |").len();
    let causes = results.table("| cause | meaning |").len();
    assert!(first.text.contains(&format!("{reasons} reasons")), "{reasons} reasons");
    assert!(first.text.contains(&format!("{causes} causes")), "{causes} causes");
}

/// The design page describes every folder of modules below `src` of the programs
/// and every crate of `common`, and no folder that does not exist.
#[test]
fn every_folder_is_described() {
    let root = repository();
    let mut expected = BTreeSet::from(["common/src/".to_owned()]);
    for source in ["tracker/src", "recorder/src"] {
        expected.insert(format!("{source}/"));
        expected.extend(folders(&root, source).into_iter().filter(|path| has_modules(&root, path)));
    }
    let crates = folders(&root, "common").into_iter();
    expected.extend(crates.filter(|folder| root.join(folder).join("Cargo.toml").exists()));
    let rows = page("common/README.md").table("| folder | content |");
    let described: BTreeSet<String> = rows.iter().flat_map(|row| words(&row[0])).collect();
    assert_eq!(described, expected);
}

/// Folders in a folder, as paths from the root that end with a slash.
fn folders(root: &Path, parent: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root.join(parent)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    paths.map(|path| format!("{}/", path.strip_prefix(root).unwrap().display())).collect()
}

/// Whether a folder contains more than one module and its tests.
fn has_modules(root: &Path, folder: &str) -> bool {
    let entries = std::fs::read_dir(root.join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names.filter(|name| name != "mod.rs" && name != "tests.rs").count() > 0
}
