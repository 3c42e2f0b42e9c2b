//! SIGINT and SIGTERM during `up`: `up` then stops the processes that it
//! started.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::command_error::CommandError;

/// Holds the number of the signal that arrived last, or 0.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// From now on the two signals no longer end this program.
    pub(crate) fn catch() -> Result<Self, CommandError> {
        let signal = Arc::new(AtomicUsize::new(0));
        for (number, value) in [(SIGINT, 2), (SIGTERM, 15)] {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), value)
                .map_err(|cause| CommandError::io("signal handler", cause))?;
        }
        Ok(Self(signal))
    }

    /// For commands that a signal ends at once, as it does without a handler.
    pub(crate) fn uncaught() -> Self {
        Self(Arc::default())
    }

    /// Fails once one of the signals has arrived.
    pub(crate) fn check(&self) -> Result<(), CommandError> {
        match u8::try_from(self.0.load(Ordering::Relaxed)) {
            Ok(signal) if signal > 0 => Err(CommandError::Interrupted(signal)),
            _ => Ok(()),
        }
    }
}
