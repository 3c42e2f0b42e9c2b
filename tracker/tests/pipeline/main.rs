//! Tests of the tracker program: settings, output, and delivery to a real Kafka.

#![cfg(test)]

mod delivery;
mod full_disk;
mod output;
mod reload;
mod spool;
mod usage;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use testkit::program::{Program, ProgramOutput};

/// Longer than any step takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

fn tracker(arguments: &[&str], variables: &[(&str, &str)]) -> Program {
    Program::start(env!("CARGO_BIN_EXE_tracker"), arguments, variables).unwrap()
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> ProgramOutput {
    tracker(arguments, variables).wait(TIMEOUT).unwrap()
}

/// Starts a site that answers until the test ends. Returns its URL.
fn hello_site() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 2048];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
        }
    });
    url
}
