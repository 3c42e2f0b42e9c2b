//! README's map of the files is kept true.

#![cfg(test)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Rust files below a folder, as paths from `root`, less those of tests.
fn files(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(root, &path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            found.insert(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
}

/// What a section's rows name in backquotes: paths from the row's own folder
/// where its first cell names one.
fn named(section: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for row in section.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let names: Vec<_> = row.split('`').skip(1).step_by(2).collect();
        let folder = names.first().filter(|name| name.ends_with('/')).copied().unwrap_or("");
        for name in names.iter().filter(|name| name.ends_with(".rs")) {
            found.insert(format!("{folder}{name}"));
        }
    }
    found
}

#[test]
fn every_file_has_its_place_in_the_map_and_no_other_is_named() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    for part in ["tracker", "common", "recorder"] {
        let heading = format!("| `{part}/src/` | |");
        let (_, section) = readme.split_once(&heading).expect(&heading);
        let root = repository().join(part).join("src");
        let mut there = BTreeSet::new();
        files(&root, &root, &mut there);
        // What holds a module's parts together needs no line of its own.
        let is_plain = |name: &&String| {
            !name.ends_with("/mod.rs") && !matches!(part, "common" if name.as_str() == "lib.rs")
        };
        let there: Vec<_> = there.iter().filter(is_plain).collect();
        let named = named(section);
        let named: Vec<_> = named.iter().filter(is_plain).collect();
        assert_eq!(named, there, "{part}");
    }
}
