//! The list of reasons: the table in common/RESULTS.md agrees with the code, and a test causes each reason.

use std::collections::HashSet;

use tracker::probe::reason::{Answered, PhraseSource, Reason, TimesReported};

const PAGE: &str = include_str!("../../../common/RESULTS.md");

/// The tests that cause failures.
const TESTS: [&str; 8] = [
    include_str!("bodies.rs"),
    include_str!("certificates.rs"),
    include_str!("deadlines.rs"),
    include_str!("families.rs"),
    include_str!("main.rs"),
    include_str!("proxies.rs"),
    include_str!("responses.rs"),
    include_str!("target_options.rs"),
];

/// Reasons that need an error of the operating system.
const NOT_TESTED: [Reason; 1] = [Reason::ConnectionFailed];

#[test]
fn the_page_of_results_has_the_reasons_of_the_code() {
    let (_, rest) = PAGE.split_once("| reason | what happened |").unwrap();
    let documented: Vec<Vec<&str>> = rest
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .map(|cells: Vec<&str>| [0, 2, 3, 4, 5].map(|column| cells[column]).to_vec())
        .collect();
    let implemented: Vec<Vec<String>> = Reason::ALL.iter().map(|reason| cells(*reason)).collect();
    assert_eq!(documented, implemented);
}

/// The row of a reason in common/RESULTS.md, without the description.
fn cells(reason: Reason) -> Vec<String> {
    let spec = reason.spec();
    let status = match spec.answered {
        Answered::Yes => "responsive",
        Answered::No => "unresponsive",
        Answered::ByPhase => "by phase ¹",
    };
    let phrase = match spec.phrase {
        PhraseSource::Fixed(phrase) => phrase,
        PhraseSource::HttpStatus => "HTTP's ²",
    };
    let times = match spec.times {
        TimesReported::None => "–",
        TimesReported::DnsOnly => "dns",
        TimesReported::Both => "dns, response",
    };
    let name = format!("`{}`", spec.name);
    vec![name, status.into(), phrase.into(), times.into(), spec.severity.as_str().into()]
}

#[test]
fn names_are_unique_and_no_reason_has_the_phrase_ok() {
    let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        if let PhraseSource::Fixed(phrase) = reason.spec().phrase {
            assert_ne!(phrase, common::phrase::OK, "{reason:?}");
            assert!(common::phrase::FAILURES.contains(&phrase), "{reason:?}");
        }
    }
}

#[test]
fn a_test_causes_each_reason() {
    for reason in Reason::ALL {
        let name = format!("\"{}\"", reason.as_str());
        let is_tested = TESTS.iter().any(|text| text.contains(&name));
        assert_eq!(is_tested, !NOT_TESTED.contains(reason), "{name}");
    }
}
