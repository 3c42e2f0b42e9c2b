//! SIGHUP reads the list of targets again.

use testkit::sites::{Site, Step, status_response};

use crate::{TIMEOUT, tracker};

/// A valid file replaces the list; an invalid file changes nothing.
#[test]
fn a_valid_file_replaces_the_list_and_an_invalid_one_changes_nothing() {
    let [first, second] =
        [(); 2].map(|()| Site::http(|_| vec![Step::Send(status_response(200))]).unwrap());
    let path = std::env::temp_dir().join(format!("reload-{}.toml", std::process::id()));
    let write = |text: String| std::fs::write(&path, text).unwrap();
    let listed = |site: &Site, more: &str| {
        format!("[[target]]\nurl = 'http://127.0.0.1:{}/'\nperiod_s = 1\n{more}", site.port())
    };
    let probed = |site: &Site| {
        let before = site.connections();
        let begun = std::time::Instant::now();
        while site.connections() == before {
            assert!(begun.elapsed() < TIMEOUT, "not probed");
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
    };
    write(listed(&first, ""));
    let tracker = tracker(&["--json", "--targets", path.to_str().unwrap()], &[]);
    probed(&first);

    write(listed(&first, "") + &listed(&second, ""));
    tracker.signal("HUP");
    tracker.wait_for_line("reloaded 2 targets: 1 added, 0 changed, 0 removed", TIMEOUT).unwrap();
    probed(&second);

    write(listed(&first, "statuss = 200"));
    tracker.signal("HUP");
    let line = tracker.wait_for_line("the current targets stay", TIMEOUT).unwrap();
    let fault = format!(
        "--targets: {}:4:1: target http://127.0.0.1:{}/: unknown option statuss: did you mean status?; ",
        path.display(),
        first.port()
    );
    assert!(line.contains(&fault), "{line}");
    probed(&first);
    probed(&second);

    write(listed(&second, "insecure = true"));
    tracker.signal("HUP");
    let unverified =
        format!("http://127.0.0.1:{}/: the certificate is not verified", second.port());
    tracker.wait_for_line(&unverified, TIMEOUT).unwrap();
    tracker.wait_for_line("reloaded 1 target: 0 added, 1 changed, 1 removed", TIMEOUT).unwrap();
    probed(&second);
    let ended = tracker.stop(TIMEOUT).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.log);
}
