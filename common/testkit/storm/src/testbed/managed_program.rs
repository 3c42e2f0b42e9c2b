//! A tracker or a recorder that is killed, paused and restarted. The logs of all its processes
//! are in one file.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use testkit::program::send_signal;

/// Time-out for the end of a program after SIGTERM. The program's own limit is 8 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of polling for the end of a program.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A tracker or a recorder, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ProgramId {
    Tracker(usize),
    Recorder(usize),
}

impl ProgramId {
    pub(crate) const ALL: [Self; 4] =
        [Self::Tracker(0), Self::Tracker(1), Self::Recorder(0), Self::Recorder(1)];

    /// The name in logs, counted from 1.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tracker(index) => format!("tracker-{}", index + 1),
            Self::Recorder(index) => format!("recorder-{}", index + 1),
        }
    }
}

/// One process of a program.
#[derive(Debug, Clone)]
pub(crate) struct ProcessInstance {
    /// Start, in seconds since 1970.
    pub(crate) started_s: f64,
    /// End, in seconds since 1970. `None` while it runs.
    pub(crate) ended_s: Option<f64>,
    /// Whether it was ended by SIGKILL.
    pub(crate) killed: bool,
    /// Offset in the log file where its log starts.
    log_from: u64,
    /// Offset in the log file where its log ends.
    log_to: Option<u64>,
}

/// A program that may be running.
#[derive(Debug)]
pub(crate) struct ManagedProgram {
    id: ProgramId,
    command: Vec<String>,
    variables: Vec<(&'static str, String)>,
    log: PathBuf,
    child: Option<Child>,
    /// All its processes so far, in order.
    pub(crate) instances: Vec<ProcessInstance>,
}

impl ManagedProgram {
    /// Creates a program without starting it. The first word of the command is the executable.
    pub(crate) fn new(
        id: ProgramId,
        command: Vec<String>,
        variables: Vec<(&'static str, String)>,
        log: PathBuf,
    ) -> Self {
        Self { id, command, variables, log, child: None, instances: Vec::new() }
    }

    /// Starts the program.
    ///
    /// # Errors
    /// Fails if the process can't be started.
    pub(crate) fn start(&mut self) -> Result<(), Box<dyn Error>> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let log_from = log.metadata()?.len();
        let (program, arguments) = self.command.split_first().ok_or("no program")?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C goes to this process only, which then ends the program.
            .process_group(0)
            .spawn()
            .map_err(|cause| format!("{program}: {cause}"))?;
        self.child = Some(child);
        let started_s = now_s();
        self.instances.push(ProcessInstance {
            started_s,
            ended_s: None,
            killed: false,
            log_from,
            log_to: None,
        });
        Ok(())
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            self.record_end(true);
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Fails if the signal could not be sent.
    pub(crate) fn signal(&self, name: &str) -> Result<(), Box<dyn Error>> {
        match &self.child {
            Some(child) if send_signal(name, child.id()) => Ok(()),
            _ => Err(format!("{}: can't send SIG{name}", self.id.name()).into()),
        }
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// Fails if the program does not end in time, or ends with an exit code other than 0.
    pub(crate) fn stop(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if !send_signal("TERM", child.id()) {
            return Err(format!("{}: can't send SIGTERM", self.id.name()).into());
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                return Err(format!(
                    "{}: did not end within {STOP_TIMEOUT:?} after SIGTERM",
                    self.id.name()
                )
                .into());
            }
            std::thread::park_timeout(POLL_INTERVAL);
        };
        self.child = None;
        self.record_end(false);
        match status.success() {
            true => Ok(()),
            false => Err(format!("{}: ended with {status}", self.id.name()).into()),
        }
    }

    /// Returns a description if the program has ended unexpectedly.
    pub(crate) fn unexpected_end(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        self.record_end(false);
        Some(format!("{} ended unexpectedly: {status}", self.id.name()))
    }

    /// Reads the log of one process.
    ///
    /// # Errors
    /// Fails if the file can't be read.
    pub(crate) fn log_of(&self, instance: &ProcessInstance) -> std::io::Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(instance.log_from))?;
        let mut bytes = Vec::new();
        let length = instance.log_to.unwrap_or(u64::MAX).saturating_sub(instance.log_from);
        file.take(length).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn record_end(&mut self, killed: bool) {
        let log_to = fs::metadata(&self.log).map(|it| it.len()).ok();
        if let Some(instance) = self.instances.last_mut() {
            *instance =
                ProcessInstance { ended_s: Some(now_s()), killed, log_to, ..instance.clone() };
        }
    }
}

impl Drop for ManagedProgram {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Seconds since 1970.
pub(crate) fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
