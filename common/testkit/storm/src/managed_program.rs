//! A tracker or a recorder that is killed, stopped and started again, with the
//! logs of all its lives in one file.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::fault_plan::ProgramId;
use testkit::program::send_signal;

/// How long a program that was asked to end may take; it says 8 s of itself.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether a program has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// One life of a program.
#[derive(Debug, Clone)]
pub(crate) struct ProcessInstance {
    /// Seconds since 1970.
    pub(crate) started_s: f64,
    /// Seconds since 1970; none while it runs.
    pub(crate) ended_s: Option<f64>,
    /// Ended by SIGKILL.
    pub(crate) killed: bool,
    /// Where its log begins in the file.
    log_from: u64,
    /// Where its log ends.
    log_to: Option<u64>,
}

/// One of the programs, which may run.
#[derive(Debug)]
pub(crate) struct ManagedProgram {
    who: ProgramId,
    command: Vec<String>,
    variables: Vec<(&'static str, String)>,
    log: PathBuf,
    child: Option<Child>,
    /// All that there were, in order.
    pub(crate) lives: Vec<ProcessInstance>,
}

impl ManagedProgram {
    /// One that does not run yet. The command's first word is the program.
    pub(crate) fn new(
        who: ProgramId,
        command: Vec<String>,
        variables: Vec<(&'static str, String)>,
        log: PathBuf,
    ) -> Self {
        Self { who, command, variables, log, child: None, lives: Vec::new() }
    }

    /// Starts it.
    ///
    /// # Errors
    /// When that is not possible.
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
            // Ctrl-C is for us, who then end it.
            .process_group(0)
            .spawn()
            .map_err(|cause| format!("{program}: {cause}"))?;
        self.child = Some(child);
        let started_s = now_s();
        self.lives.push(ProcessInstance {
            started_s,
            ended_s: None,
            killed: false,
            log_from,
            log_to: None,
        });
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            self.ended(true);
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it was not sent.
    pub(crate) fn signal(&self, name: &str) -> Result<(), Box<dyn Error>> {
        match &self.child {
            Some(child) if send_signal(name, child.id()) => Ok(()),
            _ => Err(format!("{}: can't be sent {name}", self.who.name()).into()),
        }
    }

    /// Ends it by SIGTERM.
    ///
    /// # Errors
    /// When it does not end, or ends with another code than 0.
    pub(crate) fn stop(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if !send_signal("TERM", child.id()) {
            return Err(format!("{}: can't be asked to end", self.who.name()).into());
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                return Err(format!("{}: does not end", self.who.name()).into());
            }
            std::thread::park_timeout(POLL_INTERVAL);
        };
        self.child = None;
        self.ended(false);
        match status.success() {
            true => Ok(()),
            false => Err(format!("{}: ended with {status}", self.who.name()).into()),
        }
    }

    /// What to say when it has ended by itself, which nobody asked for.
    pub(crate) fn ended_by_itself(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        self.ended(false);
        Some(format!("{} ended by itself: {status}", self.who.name()))
    }

    /// The log of one life.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn log_of(&self, life: &ProcessInstance) -> std::io::Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(life.log_from))?;
        let mut bytes = Vec::new();
        let length = life.log_to.unwrap_or(u64::MAX).saturating_sub(life.log_from);
        file.take(length).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn ended(&mut self, killed: bool) {
        let log_to = fs::metadata(&self.log).map(|it| it.len()).ok();
        if let Some(life) = self.lives.last_mut() {
            *life = ProcessInstance { ended_s: Some(now_s()), killed, log_to, ..life.clone() };
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
