//! Processes that outlive this program, found again by pid files.
//!
//! A pid file holds `PID START`. The kernel may assign the pid to another process
//! later, but with another start time, so a signal never reaches a process that this
//! program did not start.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::command_error::CommandError;

/// Interval between two checks of a condition.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The uid and gid of another user, for PostgreSQL when it is started by root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnixUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A command that runs as `user`, without supplementary groups, from `/`,
/// because that user may not be allowed to enter the current folder.
pub(crate) fn command_as(user: Option<UnixUser>, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some(UnixUser { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// The file that names a process.
#[derive(Debug, Clone)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Starts `command`, whose program is `setsid`, with its output appended
    /// to `log`. False: it ended at once. It has its own session, so that Ctrl-C does
    /// not reach it.
    pub(crate) fn launch(&self, mut command: Command, log: &Path) -> Result<bool, CommandError> {
        let output = fs::OpenOptions::new().create(true).append(true).open(log);
        let output = output.map_err(CommandError::at(log))?;
        let errors = output.try_clone().map_err(CommandError::at(log))?;
        let program = command.get_program().to_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(CommandError::at(Path::new(&program)))?;
        match start_time(child.id()) {
            Some(started) => {
                let line = format!("{} {started}\n", child.id());
                fs::write(&self.0, line).map_err(CommandError::at(&self.0))?;
                Ok(true)
            }
            None => {
                let _ = fs::remove_file(&self.0);
                Ok(false)
            }
        }
    }

    /// The pid, if the process that was started still runs.
    pub(crate) fn running(&self) -> Option<u32> {
        let text = fs::read_to_string(&self.0).ok()?;
        let (pid, started) = text.trim_end().split_once(' ')?;
        let pid = pid.parse().ok()?;
        (start_time(pid)?.to_string() == started).then_some(pid)
    }

    /// Sends a signal to the process. False: it does not run.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let pid = self.running().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Sends one signal after the other, each with `timeout` to end the process, and
    /// finally KILL. Returns when the process has ended.
    pub(crate) fn stop(&self, signals: &[Signal], timeout: Duration) -> Result<(), CommandError> {
        for signal in signals.iter().copied().chain([Signal::KILL]) {
            if !self.signal(signal) {
                break;
            }
            // A stopped process handles no signal except KILL until it continues.
            self.signal(Signal::CONT);
            if wait_until(timeout, || self.running().is_none()) {
                break;
            }
        }
        if let Some(pid) = self.running() {
            return Err(CommandError::Refused(format!("process {pid} did not end after SIGKILL")));
        }
        match fs::remove_file(&self.0) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(CommandError::at(&self.0)(cause))
            }
            _ => Ok(()),
        }
    }
}

/// A command that gets its own session. `setsid` executes the program, so the pid
/// stays the same.
pub(crate) fn detached(user: Option<UnixUser>, program: &Path) -> Command {
    let mut command = command_as(user, "setsid");
    command.arg(program);
    command
}

/// The start of a process in ticks since boot. `None`: it has ended, or it is a
/// zombie. A process of which only the first thread has ended still has its
/// sockets.
fn start_time(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold spaces.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_whitespace().collect();
    let (state, threads, started) = (fields.first()?, fields.get(17)?, fields.get(19)?);
    let is_dead = matches!(*state, "Z" | "X");
    if is_dead && threads.parse::<u32>().ok()? <= 1 {
        return None;
    }
    started.parse().ok()
}

/// False: `timeout` has passed before the condition held.
pub(crate) fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pid file below the system's folder for temporary files, removed when dropped.
    struct Fixture(PathBuf);

    impl Fixture {
        fn new() -> Self {
            let name = format!("services-test-{}-{}", std::process::id(), fastrand::u64(..));
            let folder = std::env::temp_dir().join(name);
            fs::create_dir(&folder).unwrap();
            Self(folder)
        }

        fn launch(&self, program: &str, arguments: &[&str]) -> PidFile {
            let file = PidFile::new(self.0.join("pid"));
            let mut command = detached(None, Path::new(program));
            command.args(arguments);
            assert!(file.launch(command, &self.0.join("log")).unwrap());
            file
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_process_is_found_again_and_stopped() {
        let fixture = Fixture::new();
        let file = fixture.launch("sleep", &["600"]);
        let pid = file.running().unwrap();
        assert!(wait_until(Duration::from_secs(10), || {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        }));
        file.stop(&[Signal::TERM], Duration::from_secs(10)).unwrap();
        assert_eq!(file.running(), None);
        assert!(!fixture.0.join("pid").exists());
        // No process is left to stop, which is no error.
        file.stop(&[], Duration::ZERO).unwrap();
    }

    #[test]
    fn a_stopped_process_ends_by_a_signal_that_it_can_handle() {
        let fixture = Fixture::new();
        let file = fixture.launch("sleep", &["600"]);
        assert!(file.signal(Signal::STOP));
        file.stop(&[Signal::TERM], Duration::from_secs(60)).unwrap();
        assert_eq!(file.running(), None);
    }

    #[test]
    fn a_pid_that_another_process_has_by_now_gets_no_signal() {
        let fixture = Fixture::new();
        let file = fixture.launch("sleep", &["600"]);
        let pid = file.running().unwrap();
        let started = start_time(pid).unwrap();
        let other = PidFile::new(fixture.0.join("other"));
        fs::write(&other.0, format!("{pid} {}\n", started + 1)).unwrap();
        assert_eq!(other.running(), None);
        assert!(!other.signal(Signal::KILL));
        other.stop(&[], Duration::ZERO).unwrap();
        assert_eq!(file.running(), Some(pid));
        file.stop(&[], Duration::from_secs(10)).unwrap();
    }
}
