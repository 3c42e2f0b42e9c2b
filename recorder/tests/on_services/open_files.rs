//! Tests of the limit on open files.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::support::eventually;

/// The soft limit is raised to the hard limit. A hard limit that is too low for the domains is
/// logged at the start. The test needs no service.
#[test]
fn the_soft_limit_is_raised_and_a_low_hard_limit_is_logged() {
    let domains: Vec<_> = (0..1_000).map(|number| format!("d{number}.example")).collect();
    let mut recorder = Command::new("prlimit")
        .args(["--nofile=256:2048", env!("CARGO_BIN_EXE_recorder")])
        .env("DOMAIN", domains.join(","))
        .env("KAFKA", "127.0.0.1:1")
        .env("POSTGRES", "postgres://nobody@127.0.0.1:1/none")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(recorder.stderr.take().unwrap()).lines();
    let line = lines.find_map(|line| line.ok().filter(|line| line.contains("open files")));
    let limits = format!("/proc/{}/limits", recorder.id());
    let raised = eventually("the limits", || {
        let limits = std::fs::read_to_string(&limits).ok()?;
        limits.lines().find(|line| line.starts_with("Max open files")).map(str::to_owned)
    });
    recorder.kill().unwrap();
    recorder.wait().unwrap();
    let line = line.unwrap();
    assert!(line.contains("1000 domains need up to 3160 open files"), "{line}");
    assert!(line.contains("but the limit is 2048"), "{line}");
    let numbers: Vec<_> = raised.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["2048", "2048"], "{raised}");
}
