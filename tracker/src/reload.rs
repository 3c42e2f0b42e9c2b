//! SIGHUP: reads WEBSITES and TARGETS again.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::{Handle, Signals};

use crate::targets::Target;
use crate::ticker::Reloaded;
use crate::workers::cgroup::memory_bytes_max;
use crate::workers::sizing::WorstCase;

/// The thread that waits for SIGHUP.
#[derive(Debug)]
pub(crate) struct ReloadThread {
    handle: Handle,
    thread: JoinHandle<()>,
    /// Disconnects when the thread ends.
    ended: Receiver<()>,
}

impl ReloadThread {
    /// Starts the thread. `read` reads the targets; if it fails, the current targets stay.
    /// `workers` and `retry_pause` are arguments of [`WorstCase::calculate`].
    ///
    /// # Errors
    /// If the signal handler can't be installed or the thread can't be started.
    pub(crate) fn start<E: std::fmt::Display>(
        read: impl Fn() -> Result<Vec<Arc<Target>>, E> + Send + 'static,
        workers: Option<usize>,
        retry_pause: Duration,
    ) -> io::Result<(Self, Receiver<Reloaded>)> {
        let mut signals = Signals::new([SIGHUP])?;
        let handle = signals.handle();
        let (sender, reloads) = bounded(0);
        let (alive, ended) = bounded(0);
        let thread = std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
            let _alive: Sender<()> = alive;
            for _ in &mut signals {
                match read() {
                    Ok(targets) => {
                        let worst_case = WorstCase::calculate(&targets, workers, retry_pause);
                        worst_case.log(memory_bytes_max());
                        let workers_max = worst_case.workers;
                        // The ticker has ended.
                        if sender.send(Reloaded { targets, workers_max }).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        log::error!("targets not reloaded: {error}; the current targets stay")
                    }
                }
            }
        })?;
        Ok((Self { handle, thread, ended }, reloads))
    }

    /// Ends the thread and waits for it until `deadline`, because reading a file may hang. Callers drop
    /// the receiver of reloads first.
    pub(crate) fn join(self, deadline: Instant) {
        self.handle.close();
        if self.ended.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            log::warn!("the targets are still being read: stopping without them");
            return;
        }
        // The thread has already reported a panic.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, PoisonError};

    use signal_hook::low_level::raise;

    use super::*;
    use crate::targets::{TargetDefaults, parse_websites};

    /// A signal goes to the whole process, so the tests run one after the other.
    static SIGNALS: Mutex<()> = Mutex::new(());

    #[test]
    fn a_valid_list_is_handed_over_and_an_invalid_one_is_not() {
        let _serial = SIGNALS.lock().unwrap_or_else(PoisonError::into_inner);
        let reads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reads);
        let read = move || match count.fetch_add(1, Ordering::SeqCst) {
            0 => Err("targets.toml: line 3: no url"),
            _ => Ok(parse_websites("http://a.io,http://b.io", "x-", &TargetDefaults::default())
                .unwrap()
                .into_iter()
                .map(Arc::new)
                .collect()),
        };
        let (reload, reloads) = ReloadThread::start(read, Some(1), Duration::ZERO).unwrap();
        raise(SIGHUP).unwrap();
        while reads.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        assert!(reloads.try_recv().is_err());
        raise(SIGHUP).unwrap();
        let reloaded = reloads.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!((reloaded.targets.len(), reloaded.workers_max), (2, 1));
        // The thread ends although nobody receives its list.
        raise(SIGHUP).unwrap();
        drop(reloads);
        reload.join(Instant::now() + Duration::from_secs(60));
    }

    /// A file that can't be read, such as a pipe without a writer, does not delay the end.
    #[test]
    fn a_file_that_hangs_does_not_delay_the_end() {
        let _serial = SIGNALS.lock().unwrap_or_else(PoisonError::into_inner);
        let (report, reports) = bounded(1);
        let (release, released) = bounded::<()>(0);
        let read = move || {
            let _ = report.send(());
            let _ = released.recv();
            Err("no list")
        };
        let (reload, _reloads) = ReloadThread::start(read, None, Duration::ZERO).unwrap();
        raise(SIGHUP).unwrap();
        reports.recv().unwrap();
        reload.join(Instant::now() + Duration::from_millis(10));
        drop(release);
    }
}
