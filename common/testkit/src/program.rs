//! A program as a child process, with its output collected.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};

/// A running program. Dropping it kills the process.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
    log: Arc<Mutex<Vec<String>>>,
    stdout: Option<JoinHandle<String>>,
}

/// Exit status and output of a program that has ended.
#[derive(Debug)]
pub struct ProgramOutput {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Lines of standard error.
    pub log: Vec<String>,
}

impl Program {
    /// Starts `program` with these arguments. `variables` are its whole environment.
    ///
    /// # Errors
    /// Fails if the process can't be started.
    pub fn start(
        program: impl AsRef<Path>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> io::Result<Self> {
        let mut command = Command::new(program.as_ref());
        command.args(arguments).env_clear().envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (line_sender, lines) = unbounded();
        let log = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
                    let _ = line_sender.send(line);
                }
            });
        }
        let stdout = child.stdout.take().map(|mut stdout| {
            std::thread::spawn(move || {
                let mut text = String::new();
                let _ = stdout.read_to_string(&mut text);
                text
            })
        });
        Ok(Self { child, lines, log, stdout })
    }

    /// Waits for a line of the log that contains `text` and returns this line. The search
    /// continues after the line where the last call ended.
    ///
    /// # Errors
    /// Returns the whole log if no such line arrives within `timeout`, or the program ends first.
    pub fn wait_for_line(&self, text: &str, timeout: Duration) -> Result<String, String> {
        let deadline = Instant::now() + timeout;
        while let Ok(line) = self.lines.recv_deadline(deadline) {
            if line.contains(text) {
                return Ok(line);
            }
        }
        Err(format!(
            "no line with {text:?} within {timeout:?}; the log:\n{}",
            self.log().join("\n")
        ))
    }

    /// The lines logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `TERM`, `KILL` or `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = send_signal(name, self.child.id());
        debug_assert!(sent, "kill -{name}");
    }

    /// Waits until the program ends.
    ///
    /// # Errors
    /// Returns the log if the program does not end within `timeout`.
    pub fn wait(mut self, timeout: Duration) -> Result<ProgramOutput, String> {
        let deadline = Instant::now() + timeout;
        // The log reaches its end when the program ends, unless the program closed standard error
        // earlier.
        while self.lines.recv_deadline(deadline).is_ok() {}
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    let stdout = self.stdout.take().and_then(|thread| thread.join().ok());
                    return Ok(ProgramOutput {
                        status,
                        stdout: stdout.unwrap_or_default(),
                        log: self.log(),
                    });
                }
                _ if Instant::now() < deadline => {
                    std::thread::park_timeout(Duration::from_millis(5))
                }
                _ => {
                    return Err(format!(
                        "still running after {timeout:?}; the log:\n{}",
                        self.log().join("\n")
                    ));
                }
            }
        }
    }

    /// Sends SIGTERM and waits until the program ends.
    ///
    /// # Errors
    /// Same as [`Program::wait`].
    pub fn stop(self, timeout: Duration) -> Result<ProgramOutput, String> {
        self.signal("TERM");
        self.wait(timeout)
    }
}

/// Sends a signal, such as `TERM`, to a process. Returns whether it was sent.
///
/// Uses the shell's built-in `kill`, because a minimal system has no `kill` program.
pub fn send_signal(name: &str, process: u32) -> bool {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status();
    sent.is_ok_and(|status| status.success())
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
