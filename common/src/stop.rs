//! Stopping a program: one stop request that every thread can see and wait for.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// Shows a thread whether a stop was requested.
///
/// It is the receiving end of a channel without messages. Dropping the [`Stopper`] disconnects the
/// channel, which wakes every waiting thread at once. [`Stop::channel`] is for `select!`.
#[derive(Clone, Debug)]
pub struct Stop {
    channel: Receiver<()>,
    requested_at: Arc<OnceLock<Instant>>,
}

/// Requests the stop when it is dropped; see [`Stop`].
#[derive(Debug)]
pub struct Stopper {
    _channel: Sender<()>,
    requested_at: Arc<OnceLock<Instant>>,
}

impl Drop for Stopper {
    /// Sets the time of the request before the channel is disconnected, so that a thread that sees
    /// the stop also sees its time.
    fn drop(&mut self) {
        let _ = self.requested_at.set(Instant::now());
    }
}

/// Creates a connected pair.
pub fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = bounded(0);
    let requested_at = Arc::default();
    let stopper = Stopper { _channel: sender, requested_at: Arc::clone(&requested_at) };
    (stopper, Stop { channel: receiver, requested_at })
}

impl Stop {
    /// Waits for `duration` or until a stop is requested. Returns `true` if a stop was requested.
    pub fn wait(&self, duration: Duration) -> bool {
        !matches!(self.channel.recv_timeout(duration), Err(RecvTimeoutError::Timeout))
    }

    /// Returns `true` once a stop was requested.
    pub fn is_requested(&self) -> bool {
        !matches!(self.channel.try_recv(), Err(TryRecvError::Empty))
    }

    /// A channel for `select!`. It becomes ready (disconnected) when a stop is requested.
    pub fn channel(&self) -> &Receiver<()> {
        &self.channel
    }
}

/// Requests that this program stop, like a SIGTERM from outside.
pub fn request() {
    // It fails only for an unknown signal number.
    let _ = signal_hook::low_level::raise(SIGTERM);
}

/// The deadline, counted from a stop request, for waits that a channel can't end, such as waits
/// for a server.
#[derive(Clone, Debug)]
pub struct Cutoff {
    stop: Stop,
    grace: Duration,
}

impl Cutoff {
    /// The longest time that a wait may go on without checking the cutoff.
    pub const POLL_INTERVAL: Duration = Duration::from_millis(200);

    /// Creates a cutoff at `grace` after the stop request.
    pub fn new(stop: Stop, grace: Duration) -> Self {
        Self { stop, grace }
    }

    /// The time of the cutoff. `None`: no stop was requested yet.
    pub fn at(&self) -> Option<Instant> {
        self.stop.requested_at.get().map(|requested_at| *requested_at + self.grace)
    }
}

/// A thread that turns SIGTERM and SIGINT into a [`Stop`].
///
/// A second signal ends the program at once with exit code 128 + signal number, as a user expects
/// who presses Ctrl-C twice.
#[derive(Debug)]
pub struct SignalThread {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl SignalThread {
    /// Installs the signal handlers and starts the thread.
    ///
    /// # Errors
    /// If the handlers can't be installed or the thread can't be started.
    pub fn start() -> io::Result<(Self, Stop)> {
        let (stopper, stop) = pair();
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let handle = signals.handle();
        let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut stopper = Some(stopper);
            for signal in &mut signals {
                if stopper.take().is_none() {
                    std::process::exit(128 + signal);
                }
                log::info!("received signal {signal}: stopping");
            }
        })?;
        Ok((Self { handle, thread }, stop))
    }

    /// Stops the thread and waits for it.
    pub fn join(self) {
        self.handle.close();
        // A panic of the thread was already printed.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_the_stopper_wakes_every_waiter() {
        let (stopper, stop) = pair();
        assert!(!stop.is_requested());
        assert!(!stop.wait(Duration::from_millis(1)));
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let stop = stop.clone();
                std::thread::spawn(move || stop.wait(Duration::from_secs(60)))
            })
            .collect();
        let start = Instant::now();
        drop(stopper);
        for waiter in waiters {
            assert!(waiter.join().unwrap());
        }
        assert!(stop.is_requested());
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn cutoff_counts_from_the_stop_request() {
        let (stopper, stop) = pair();
        let cutoff = Cutoff::new(stop, Duration::from_secs(5));
        assert_eq!(cutoff.at(), None);
        drop(stopper);
        let after = Instant::now();
        std::thread::park_timeout(Duration::from_millis(20));
        let at = cutoff.at().unwrap();
        assert!(at > after && at <= after + Duration::from_secs(5));
        assert_eq!(cutoff.clone().at(), Some(at));
    }
}
