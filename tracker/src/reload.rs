//! SIGHUP: reads the list of targets again.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::{Handle, Signals};

use crate::targets::Target;
use crate::ticker::List;
use crate::workers::cgroup::memory_bytes_max;
use crate::workers::sizing::WorstCase;

/// The thread that waits for the signal.
#[derive(Debug)]
pub struct Reload {
    handle: Handle,
    thread: JoinHandle<()>,
    /// Disconnected once the thread has ended.
    ended: Receiver<()>,
}

impl Reload {
    /// Starts it. `read` gives a new list, or says what is wrong with it, and
    /// then the old one stays; `workers` is their number, if that was given.
    ///
    /// # Errors
    /// When the handler can't be set or the thread can't be started.
    pub fn start<E: std::fmt::Display>(
        read: impl Fn() -> Result<Vec<Arc<Target>>, E> + Send + 'static,
        workers: Option<usize>,
    ) -> io::Result<(Self, Receiver<List>)> {
        let mut signals = Signals::new([SIGHUP])?;
        let handle = signals.handle();
        let (give, lists) = bounded(0);
        let (alive, ended) = bounded(0);
        let thread = std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
            let _alive: Sender<()> = alive;
            for _ in &mut signals {
                match read() {
                    Ok(targets) => {
                        let worst_case = WorstCase::of(&targets, workers);
                        worst_case.say(memory_bytes_max());
                        let workers = worst_case.workers;
                        // At the end nobody takes one any more.
                        if give.send(List { targets, workers }).is_err() {
                            return;
                        }
                    }
                    Err(error) => log::error!("{error}; the targets stay as they are"),
                }
            }
        })?;
        Ok((Self { handle, thread, ended }, lists))
    }

    /// Ends the thread and waits for it, until then at most: a file that is being
    /// read may hang. The lists' receiver is gone by then.
    pub fn join(self, until: Instant) {
        self.handle.close();
        if self.ended.recv_deadline(until) == Err(RecvTimeoutError::Timeout) {
            log::warn!("gave up reading the targets again");
            return;
        }
        // A panic of that thread was printed by it; there is nothing to add here.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use signal_hook::low_level::raise;

    use super::*;
    use crate::targets::{Defaults, parse};

    /// A signal is for the whole process, and so for the other test too.
    static SIGNALS: Mutex<()> = Mutex::new(());

    #[test]
    fn a_good_list_is_handed_over_and_a_bad_one_is_not() {
        let _alone = SIGNALS.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&looks);
        let read = move || match count.fetch_add(1, Ordering::SeqCst) {
            0 => Err("targets.toml: line 3: no url"),
            _ => Ok(parse("http://a.io,http://b.io", "x-", &Defaults::default())
                .unwrap()
                .into_iter()
                .map(Arc::new)
                .collect()),
        };
        let (reload, lists) = Reload::start(read, Some(1)).unwrap();
        raise(SIGHUP).unwrap();
        while looks.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        assert!(lists.try_recv().is_err());
        raise(SIGHUP).unwrap();
        let list = lists.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!((list.targets.len(), list.workers), (2, 1));
        // The thread ends also when it has a list that nobody takes.
        raise(SIGHUP).unwrap();
        drop(lists);
        reload.join(Instant::now() + Duration::from_secs(60));
    }

    /// As a pipe that nobody writes to.
    #[test]
    fn a_file_that_hangs_does_not_hold_up_the_end() {
        let _alone = SIGNALS.lock().unwrap_or_else(PoisonError::into_inner);
        let (begin, begun) = bounded(1);
        let (release, released) = bounded::<()>(0);
        let read = move || {
            let _ = begin.send(());
            let _ = released.recv();
            Err("no list")
        };
        let (reload, _lists) = Reload::start(read, None).unwrap();
        raise(SIGHUP).unwrap();
        begun.recv().unwrap();
        reload.join(Instant::now() + Duration::from_millis(10));
        drop(release);
    }
}
