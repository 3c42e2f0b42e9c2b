//! Creates the picture of the first page: runs both programs on local sites and
//! real services, and renders the terminal output as an SVG file.
//!
//! ```text
//! usage: picture PROGRAMS_DIR WORK_DIR SVG_FILE
//! ```
//!
//! `scripts/picture` starts the services and calls this program.

mod svg;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use testkit::program::Program;
use testkit::services::{self, Services};
use testkit::sites::{self, DemoSite};

/// Lines of the terminal are cut here.
const COLUMNS: usize = 124;
/// Long enough for every chosen site to have a row, with its second attempt.
const ROWS_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a program may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Sites that `tracker --once` probes in the picture.
const PROBED_ONCE: [&str; 3] = ["ok over tls", "redirects", "expired certificate"];
/// Sites whose rows the picture shows.
const RECORDED: [&str; 9] = [
    "ok over tls",
    "redirects",
    "server error",
    "body does not match",
    "expired certificate",
    "hanging",
    "reset",
    "refused",
    "black hole",
];
/// The first result of each site.
const QUERY: &str = "select url, healthy, reason, phase, attempts, total_us / 1000 as ms
           from web_activity_demo_localhost where slot = 0";

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [programs, work, file] = &arguments[..] else {
        print_error("usage: picture PROGRAMS_DIR WORK_DIR SVG_FILE");
        return ExitCode::from(2);
    };
    match draw(programs, work, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn print_error(text: &str) {
    // Nobody reads the text when standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "picture: {text}");
}

fn draw(programs: &Path, work: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(work)?;
    let services = services::shared()?;
    let demo = sites::start_demo_sites()?;
    let roots = work.join("roots.pem");
    std::fs::write(&roots, &demo.ca_pem)?;

    let once = websites(&demo.sites, &PROBED_ONCE);
    let mut screen = prompt("tracker --once  # WEBSITES is set in the environment");
    screen += &tracker_once(&programs.join("tracker"), &once, &roots)?;
    screen.push('\n');
    screen += &prompt("tracker &       # WEBSITES and KAFKA are set");
    screen += &prompt("recorder &      # DOMAIN, KAFKA and POSTGRES are set");
    screen += &prompt(&format!("psql -c '{QUERY}'"));
    screen += &rows(programs, &services, &websites(&demo.sites, &RECORDED), &roots)?;
    std::fs::write(file, svg::render(&screen, COLUMNS))?;
    Ok(())
}

/// A command as typed, in green.
fn prompt(command: &str) -> String {
    format!("\x1b[32m$ {command}\x1b[0m\n")
}

/// The value of WEBSITES for the sites with these names.
fn websites(sites: &[DemoSite], names: &[&str]) -> String {
    let chosen = sites.iter().filter(|site| names.contains(&site.name));
    let entries: Vec<String> = chosen
        .map(|site| match site.check {
            Some(check) => format!("{} {check}", site.url),
            None => site.url.clone(),
        })
        .collect();
    entries.join(",")
}

/// The output of `tracker --once` on a terminal; `script` provides the
/// terminal.
fn tracker_once(tracker: &Path, websites: &str, roots: &Path) -> Result<String, Box<dyn Error>> {
    let output = Command::new("script")
        .args(["-q", "-e", "-c", &format!("'{}' --once", tracker.display()), "/dev/null"])
        .env("WEBSITES", websites)
        .env("SSL_CERT_FILE", roots)
        .env_remove("KAFKA")
        .env_remove("NO_COLOR")
        .output()
        .map_err(|cause| format!("script: {cause}"))?;
    // Exit code 1: one of the sites is down, as it has to be.
    if output.status.code() != Some(1) {
        return Err(format!("tracker --once ended with {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.replace('\r', ""))
}

/// Runs both programs until every chosen site has a row, and returns the output
/// of psql for the first row of each.
fn rows(
    programs: &Path,
    services: &Services,
    websites: &str,
    roots: &Path,
) -> Result<String, Box<dyn Error>> {
    let database = services::fresh_database(services)?;
    let cert = |name: &str| services.cert(name).display().to_string();
    let (ca, roots) = (cert("ca.crt"), roots.display().to_string());
    let (client_cert, client_key) = (cert("client.crt"), cert("client.key"));
    // Records of an earlier run on the same Kafka are in other topics.
    let topic_prefix = services::fresh_name("picture-");
    let kafka = [
        ("TOPIC_PREFIX", topic_prefix.as_str()),
        ("KAFKA", &services.kafka_tls),
        ("CA", &ca),
        ("CERT", &client_cert),
        ("KEY", &client_key),
    ];
    let recorder =
        [&kafka[..], &[("DOMAIN", "demo.localhost"), ("POSTGRES", &database), ("PGCA", &ca)]];
    let tracker = [
        &kafka[..],
        &[
            ("LOCATION", "quickstart"),
            ("WEBSITES", websites),
            ("PERIOD", "20"),
            ("TIMEOUT", "4"),
            ("SSL_CERT_FILE", &roots),
        ],
    ];
    let recorder = Program::start(programs.join("recorder"), &[], &recorder.concat())?;
    let tracker = Program::start(programs.join("tracker"), &[], &tracker.concat())?;
    let psql = |query: &str, extra: &[&str]| psql(&database, &ca, query, extra);
    let deadline = Instant::now() + ROWS_TIMEOUT;
    let count = "select count(*) from web_activity_demo_localhost where slot = 0";
    while psql(count, &["-A", "-t"]).unwrap_or_default().trim() != RECORDED.len().to_string() {
        if Instant::now() >= deadline {
            return Err(format!("no row for some site; the recorder: {:?}", recorder.log()).into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    tracker.stop(STOP_TIMEOUT)?;
    recorder.stop(STOP_TIMEOUT)?;
    psql(&format!("{QUERY} order by id"), &["-P", "footer=off"])
}

fn psql(database: &str, ca: &str, query: &str, extra: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--dbname", database, "--command", query])
        .args(extra)
        .env("PGSSLROOTCERT", ca)
        .output()
        .map_err(|cause| format!("psql: {cause}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
