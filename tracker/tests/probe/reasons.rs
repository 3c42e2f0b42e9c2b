//! The list of reasons: as README has it, and each of them tried.

use tracker::probe::reason::{Answered, Kept, Reason, Words};

const README: &str = include_str!("../../../README.md");

/// The tests that make a site fail.
const TABLES: [&str; 8] = [
    include_str!("bodies.rs"),
    include_str!("certificates.rs"),
    include_str!("deadlines.rs"),
    include_str!("main.rs"),
    include_str!("names.rs"),
    include_str!("proxies.rs"),
    include_str!("targets.rs"),
    include_str!("verdicts.rs"),
];

/// Reasons that only a fault of the system can bring.
const ELSEWHERE: [Reason; 1] = [Reason::ConnectionFailed];

#[test]
fn readme_has_the_table_of_the_code() {
    let (_, rest) = README.split_once("| reason | what happened |").unwrap();
    let told: Vec<Vec<&str>> = rest
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .map(|cells: Vec<&str>| [0, 2, 3, 4, 5].map(|at| cells[at]).to_vec())
        .collect();
    let here: Vec<Vec<String>> = Reason::ALL.iter().map(|reason| cells(*reason)).collect();
    assert_eq!(told, here);
}

fn cells(reason: Reason) -> Vec<String> {
    let verdict = reason.verdict();
    let status = match verdict.answered {
        Answered::Yes => "responsive",
        Answered::No => "unresponsive",
        Answered::ByPhase => "by phase ¹",
    };
    let phrase = match verdict.words {
        Words::Own(phrase) => phrase,
        Words::Http => "HTTP's ²",
    };
    let times = match verdict.kept {
        Kept::None => "–",
        Kept::Dns => "dns",
        Kept::Both => "dns, response",
    };
    let word = format!("`{}`", verdict.word);
    vec![word, status.into(), phrase.into(), times.into(), verdict.severity.as_str().into()]
}

#[test]
fn no_reason_has_the_word_of_another_or_the_phrase_of_good_health() {
    let words: std::collections::HashSet<_> =
        Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(words.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        if let Words::Own(phrase) = reason.verdict().words {
            assert_ne!(phrase, common::phrase::OK, "{reason:?}");
            assert!(common::phrase::FAILURES.contains(&phrase), "{reason:?}");
        }
    }
}

#[test]
fn each_reason_is_brought_about_by_a_test() {
    for reason in Reason::ALL {
        let word = format!("\"{}\"", reason.as_str());
        let is_tried = TABLES.iter().any(|table| table.contains(&word));
        assert_eq!(is_tried, !ELSEWHERE.contains(reason), "{word}");
    }
}
