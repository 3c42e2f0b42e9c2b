//! Runs the static binaries in an empty root directory, with real services: the environment of a
//! container `FROM scratch`.
//!
//! scripts/test builds the binaries and sets the variable with their folder.

#![cfg(test)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use testkit::program::send_signal;
use testkit::services::{self, Services};

/// The user id in the images.
const USER: u32 = 65532;

/// A root directory with only the two binaries, certificates, and the two files that every
/// container engine creates.
struct Root(PathBuf);

impl Root {
    fn new(services: &Services) -> Self {
        let binaries = PathBuf::from(env::var_os("AVAILABILITY_STATIC").expect("run scripts/test"));
        let root = env::temp_dir().join(services::fresh_name("availability-root"));
        fs::create_dir_all(root.join("certs")).expect("root");
        fs::create_dir(root.join("etc")).expect("etc");
        let root = Root(root);
        for program in ["tracker", "recorder"] {
            root.copy_in(&binaries.join(program), program);
        }
        for (from, to) in [
            (&services.kafka_ca, "certs/ca.pem"),
            (&services.kafka_cert, "certs/service.cert"),
            (&services.kafka_key, "certs/service.key"),
            (&services.postgres_ca, "certs/pgca.pem"),
        ] {
            root.copy_in(from, to);
        }
        fs::write(root.0.join("etc/hosts"), "127.0.0.1 localhost\n").expect("hosts");
        fs::write(root.0.join("etc/resolv.conf"), "nameserver 127.0.0.1\n").expect("resolv.conf");
        root
    }

    fn copy_in(&self, from: &Path, to: &str) {
        let to = self.0.join(to);
        fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        if is_root() {
            chown(&to, Some(USER), Some(USER)).expect("chown");
        }
    }

    /// A program in the root. `variables` are its whole environment. Root runs it as the user of
    /// the images. A plain user needs a user namespace for chroot.
    fn command(&self, program: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = if is_root() {
            let mut command = Command::new("chroot");
            command.arg(format!("--userspec={USER}:{USER}"));
            command
        } else {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "chroot"]);
            command
        };
        // PATH finds `chroot` here. The program itself does not need it.
        command.arg(&self.0).arg(format!("/{program}")).env_clear();
        command.env("PATH", env::var_os("PATH").expect("PATH"));
        command.envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Starts a site that responds to `count` requests, and returns its URL.
fn site(count: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || {
        for stream in listener.incoming().take(count) {
            let mut stream = stream.expect("connection");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    format!("http://localhost:{port}")
}

fn describe(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Waits for `child` to end. Kills it after `seconds` and fails.
fn output_within(mut child: Child, seconds: u64) -> Output {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while child.try_wait().expect("wait").is_none() {
        if Instant::now() >= deadline {
            child.kill().expect("kill");
            let output = child.wait_with_output().expect("output");
            panic!("still running after {seconds} s: {}", describe(&output));
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("output")
}

#[test]
fn help_works_without_services() {
    let root = Root::new(&services::shared().expect("services"));
    for (program, flag) in [("tracker", "--websites"), ("recorder", "--domain")] {
        let child = root.command(program, &[]).arg("--help").spawn().expect(program);
        let output = output_within(child, 10);
        assert!(output.status.success(), "{}", describe(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains(flag), "{}", describe(&output));
    }
}

#[test]
fn a_probe_becomes_a_row() {
    let services = services::shared().expect("services");
    let root = Root::new(&services);
    let database = services::fresh_database(&services).expect("database");
    let url = site(1);
    let prefix = services::fresh_name("static") + "-";
    let kafka = [
        ("KAFKA", services.kafka_tls.as_str()),
        ("CA", "/certs/ca.pem"),
        ("CERT", "/certs/service.cert"),
        ("KEY", "/certs/service.key"),
        ("TOPIC_PREFIX", &prefix),
    ];

    let tracker = [&kafka[..], &[("LOCATION", "Empty-Root"), ("WEBSITES", &url)]].concat();
    let child = root.command("tracker", &tracker).arg("--once").spawn().expect("tracker");
    let output = output_within(child, 30);
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));

    let recorder = [
        &kafka[..],
        &[("DOMAIN", "localhost"), ("POSTGRES", &database), ("PGCA", "/certs/pgca.pem")],
    ]
    .concat();
    let mut recorder = root.command("recorder", &recorder).spawn().expect("recorder");
    let mut client = services::connect(&services, &database).expect("connection");
    let query = "select test_from, url, status::text, phrase::text from web_activity_localhost";
    let deadline = Instant::now() + Duration::from_secs(30);
    let rows = loop {
        match client.query(query, &[]) {
            Ok(rows) if !rows.is_empty() => break Ok(rows),
            // The recorder creates the table.
            outcome if Instant::now() >= deadline => break outcome,
            _ if recorder.try_wait().expect("wait").is_some() => break Ok(Vec::new()),
            _ => thread::sleep(Duration::from_millis(50)),
        }
    };
    // `Child::kill` sends SIGKILL, which can't be caught.
    send_signal("TERM", recorder.id());
    let output = output_within(recorder, 10);

    let rows: Vec<[String; 4]> = rows
        .unwrap_or_else(|error| panic!("{error}: {}", describe(&output)))
        .iter()
        .map(|row| [row.get(0), row.get(1), row.get(2), row.get(3)])
        .collect();
    let expected = ["empty-root", &url, "responsive", "ok"].map(str::to_owned);
    assert_eq!(rows, [expected], "{}", describe(&output));
    assert_eq!(output.status.code(), Some(0), "stopped by SIGTERM: {}", describe(&output));
}
