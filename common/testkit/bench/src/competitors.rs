//! Other probers that the tracker is compared with, if the machine has them.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use testkit::program::Program;

use crate::BenchError;
use crate::report::Report;

/// Go adds a post-quantum key share to each TLS handshake, which costs about a quarter of the
/// handshake. It is disabled so that all programs do the same work.
const GO_SETTINGS: (&str, &str) = ("GODEBUG", "tlsmlkem=0");

/// Another prober.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Competitor {
    /// Has its own schedule.
    Cloudprober,
    /// Probes when Prometheus requests it.
    BlackboxExporter,
}

/// The work of a competitor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProbeWork<'a> {
    pub(crate) urls: &'a [String],
    pub(crate) period_s: usize,
    pub(crate) timeout_s: usize,
    /// A regexp that each page must match.
    pub(crate) check: Option<&'a str>,
    /// File with the certificate authority to trust.
    pub(crate) ca: Option<&'a Path>,
}

impl Competitor {
    /// The name of the program.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cloudprober => "cloudprober",
            Self::BlackboxExporter => "blackbox_exporter",
        }
    }

    const fn variable(self) -> &'static str {
        match self {
            Self::Cloudprober => "CLOUDPROBER",
            Self::BlackboxExporter => "BLACKBOX_EXPORTER",
        }
    }

    /// Finds the program: the path in its variable, else the program in PATH. If there is none,
    /// reports that the comparison is left out.
    pub(crate) fn find(self, report: &mut Report) -> Option<PathBuf> {
        let named = std::env::var_os(self.variable()).filter(|path| !path.is_empty());
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let program = match named {
            Some(path) => Some(PathBuf::from(path)).filter(|path| path.is_file()),
            None => std::env::split_paths(&paths)
                .map(|folder| folder.join(self.name()))
                .find(|path| path.is_file()),
        };
        if program.is_none() {
            let left_out =
                format!("left out: neither {} nor PATH has the program", self.variable());
            report.add_figure(format!("comparison with {}", self.name()), left_out);
        }
        program
    }

    /// Writes a configuration to `folder` and starts the program on a free port of loopback.
    /// Returns the program and the port.
    pub(crate) fn start(
        self,
        program: &Path,
        folder: &Path,
        work: ProbeWork<'_>,
    ) -> Result<(Program, u16), BenchError> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let file = folder.join(format!("{}.conf", self.name()));
        let listen = format!("--web.listen-address=127.0.0.1:{port}");
        let config = format!("--config_file={}", file.display());
        let module = format!("--config.file={}", file.display());
        let (text, arguments) = match self {
            Self::Cloudprober => (cloudprober_config(work, port), vec![config.as_str()]),
            Self::BlackboxExporter => {
                (blackbox_config(work), vec![module.as_str(), listen.as_str()])
            }
        };
        fs::write(&file, text)?;
        Ok((Program::start(program, &arguments, &[GO_SETTINGS])?, port))
    }
}

/// All targets in one probe, spread over the period. Results are exposed to Prometheus, as by
/// default, but not written to standard output.
fn cloudprober_config(work: ProbeWork<'_>, port: u16) -> String {
    let ProbeWork { urls, period_s, timeout_s, check, ca } = work;
    let gap_ms = period_s * 1_000 / urls.len().max(1);
    let mut text = format!(
        "host: \"127.0.0.1\"\nport: {port}\nsurfacer {{ type: PROMETHEUS }}\nprobe {{\n\
         name: \"bench\"\ntype: HTTP\ninterval: \"{period_s}s\"\ntimeout: \"{timeout_s}s\"\n\
         http_probe {{\ninterval_between_targets_msec: {}\ndisable_http2: true\n",
        gap_ms.max(1)
    );
    // Writing to a String can't fail.
    if let Some(ca) = ca {
        let _ = writeln!(text, "tls_config {{ ca_cert_file: {:?} }}", ca.display().to_string());
    }
    text.push_str("}\n");
    if let Some(check) = check {
        let _ = writeln!(text, "validator {{ name: \"page\" regex: {check:?} }}");
    }
    text.push_str("targets {\n");
    for (index, url) in urls.iter().enumerate() {
        let _ = writeln!(text, "endpoint {{ name: \"t{index}\" url: {url:?} }}");
    }
    text.push_str("}\n}\n");
    text
}

/// One module. The target is part of each request. The format is YAML, of which JSON is a subset.
fn blackbox_config(work: ProbeWork<'_>) -> String {
    let ProbeWork { timeout_s, check, ca, .. } = work;
    let checks: Vec<String> = check.iter().map(|check| format!("{check:?}")).collect();
    let ca =
        ca.map(|ca| format!(", \"tls_config\": {{\"ca_file\": {:?}}}", ca.display().to_string()));
    format!(
        "{{\"modules\": {{\"bench\": {{\"prober\": \"http\", \"timeout\": \"{timeout_s}s\", \
         \"http\": {{\"preferred_ip_protocol\": \"ip4\", \"enable_http2\": false, \
         \"fail_if_body_not_matches_regexp\": [{}]{}}}}}}}}}\n",
        checks.join(", "),
        ca.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_spread_over_the_period() {
        let urls: Vec<_> = (0..100).map(|index| format!("http://127.0.0.1:1/{index}")).collect();
        let work = ProbeWork {
            urls: &urls,
            period_s: 60,
            timeout_s: 10,
            check: Some(r"end \d"),
            ca: Some(Path::new("/ca")),
        };
        let text = cloudprober_config(work, 9);
        assert!(text.contains("interval_between_targets_msec: 600\n"), "{text}");
        assert!(text.contains(r#"regex: "end \\d""#), "{text}");
        assert!(text.contains(r#"endpoint { name: "t99" url: "http://127.0.0.1:1/99" }"#));
        let text = blackbox_config(work);
        assert!(text.contains(r#"["end \\d"], "tls_config""#), "{text}");
    }
}
