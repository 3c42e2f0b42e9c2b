//! Both programs as child processes. Each writes its log to a file.

use std::error::Error;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use testkit::program::send_signal;

/// Number of log lines that are shown when a program ends unexpectedly.
const LOG_LINES: usize = 10;

/// The running programs.
pub(crate) struct ChildPrograms<'a> {
    programs: &'a Path,
    folder: &'a Path,
    running: Vec<(&'static str, Child)>,
}

impl<'a> ChildPrograms<'a> {
    /// Uses the programs in one folder and writes logs to another.
    pub(crate) fn new(programs: &'a Path, folder: &'a Path) -> Self {
        Self { programs, folder, running: Vec::new() }
    }

    /// Starts a program. `variables` are its whole environment.
    pub(crate) fn start(
        &mut self,
        name: &'static str,
        variables: &[(&'static str, String)],
    ) -> Result<(), Box<dyn Error>> {
        let log = File::create(self.log(name))?;
        let child = Command::new(self.programs.join(name))
            .env_clear()
            .envs(variables.iter().map(|(variable, value)| (variable, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // A terminal sends Ctrl-C to the whole process group. The programs get their own
            // group: they are stopped in order, and a second signal would cut their drain short.
            .process_group(0)
            .spawn()
            .map_err(|cause| format!("{}: {cause}", self.programs.join(name).display()))?;
        self.running.push((name, child));
        Ok(())
    }

    /// Describes a program that has ended unexpectedly. `None` if all are running.
    pub(crate) fn unexpected_end(&mut self) -> Option<String> {
        let status = |child: &mut Child| child.try_wait().ok().flatten();
        let mut running = self.running.iter_mut();
        let (name, status) =
            running.find_map(|(name, child)| status(child).map(|status| (*name, status)))?;
        let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        Some(format!("{name} ended with {status}:\n{tail}"))
    }

    /// Stops the tracker first, so that the recorder records everything that the tracker
    /// delivers.
    pub(crate) fn stop(&mut self) {
        while let Some((name, mut child)) = self.running.pop() {
            if matches!(child.try_wait(), Ok(Some(_))) {
                continue;
            }
            if !send_signal("TERM", child.id()) {
                log::warn!("cannot send SIGTERM to {name}, killing it");
                let _ = child.kill();
            }
            if let Err(cause) = child.wait() {
                log::warn!("{name}: {cause}");
            }
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }
}

impl Drop for ChildPrograms<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}
