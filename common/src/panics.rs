//! Panics of one task that must not end the others.

use std::panic::{AssertUnwindSafe, catch_unwind};

// With `panic = "abort"` a panic in one domain would end the program.
const _: () = assert!(cfg!(panic = "unwind"));

/// A task panicked. The panic hook has logged where, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task panicked")]
pub struct Panicked;

/// Runs `task` and catches its panic. The caller drops what the task has changed, because
/// a change may be incomplete.
///
/// # Errors
/// The task panicked.
pub fn catch<T>(task: impl FnOnce() -> T) -> Result<T, Panicked> {
    // The message stays in the log of the panic hook: it can contain the bytes of a record.
    catch_unwind(AssertUnwindSafe(task)).map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(catch(|| 1), Ok(1));
        assert_eq!(catch(|| panic!("on purpose")), Err::<(), _>(Panicked));
    }
}
