//! Stopping: one signal that every thread can see, and wait on.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// Whether the program was asked to stop.
///
/// It is the receiving end of a channel that never carries anything: dropping
/// the [`Stopper`] closes it, which wakes every waiter at once. A `select!`
/// takes [`Stop::channel`].
#[derive(Clone, Debug)]
pub struct Stop {
    open: Receiver<()>,
    asked_at: Arc<OnceLock<Instant>>,
}

/// Keeps the program going for as long as it lives; see [`Stop`].
#[derive(Debug)]
pub struct Stopper {
    _open: Sender<()>,
    asked_at: Arc<OnceLock<Instant>>,
}

impl Drop for Stopper {
    /// The channel is closed after this, so that whoever sees the stop finds
    /// its time.
    fn drop(&mut self) {
        let _ = self.asked_at.set(Instant::now());
    }
}

/// A fresh pair; dropping the [`Stopper`] stops.
pub fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = bounded(0);
    let asked_at = Arc::default();
    (Stopper { _open: sender, asked_at: Arc::clone(&asked_at) }, Stop { open: receiver, asked_at })
}

impl Stop {
    /// Waits for `duration`, or shorter: true as soon as a stop is asked for.
    pub fn wait(&self, duration: Duration) -> bool {
        !matches!(self.open.recv_timeout(duration), Err(RecvTimeoutError::Timeout))
    }

    /// True once a stop was asked for.
    pub fn requested(&self) -> bool {
        !matches!(self.open.try_recv(), Err(TryRecvError::Empty))
    }

    /// For `select!`: becomes ready, disconnected, when a stop is asked for.
    pub fn channel(&self) -> &Receiver<()> {
        &self.open
    }
}

/// Asks this program to stop, as SIGTERM from outside would.
pub fn request() {
    // It can fail for a signal that does not exist, and this one does.
    let _ = signal_hook::low_level::raise(SIGTERM);
}

/// When what is under way at a stop must be over, for waits that a channel
/// can't wake, such as those for a server.
#[derive(Clone, Debug)]
pub struct Cutoff {
    stop: Stop,
    grace: Duration,
}

impl Cutoff {
    /// The longest that such a wait may go without asking for the cutoff.
    pub const LOOK_EVERY: Duration = Duration::from_millis(200);

    /// `grace` after the stop was asked for, whoever looks and when.
    pub fn new(stop: Stop, grace: Duration) -> Self {
        Self { stop, grace }
    }

    /// The time, once a stop was asked for.
    pub fn at(&self) -> Option<Instant> {
        self.stop.asked_at.get().map(|asked_at| *asked_at + self.grace)
    }
}

/// SIGTERM and SIGINT turned into a [`Stop`], by a thread of its own.
///
/// A second signal, while the program drains, ends it at once with the shell's
/// code for it, as somebody who presses Ctrl-C twice expects.
#[derive(Debug)]
pub struct SignalThread {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl SignalThread {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the handlers can't be set or the thread can't be started.
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
                log::info!("signal {signal}: stopping");
            }
        })?;
        Ok((Self { handle, thread }, stop))
    }

    /// Ends the thread and waits for it.
    pub fn join(self) {
        self.handle.close();
        // A panic of that thread was printed by it; there is nothing to add here.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_the_stopper_wakes_every_waiter_at_once() {
        let (stopper, stop) = pair();
        assert!(!stop.requested());
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
        assert!(stop.requested());
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn the_cutoff_counts_from_the_stop_and_not_from_the_first_look() {
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
