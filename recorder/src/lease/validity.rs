//! The time until which workers may rely on the leases of this recorder, by the clock of this host.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The validity of all leases of this recorder, which are renewed together.
///
/// The supervisor extends it, and workers check it before each write. The check only avoids useless
/// work. See [`lease`](crate::lease).
#[derive(Debug, Default)]
pub(crate) struct LeaseValidity(Mutex<Validity>);

#[derive(Debug, Default)]
struct Validity {
    expires_at: Option<Instant>,
    /// The start of the read that last confirmed the leases.
    confirmed_at: Option<Instant>,
}

impl LeaseValidity {
    /// Extends all leases until `expires_at`. A read of the leases that began at `confirmed_at`
    /// showed that this recorder holds them. Returns whether they had expired before, or are
    /// already expired again because the read was slow.
    pub(crate) fn extend(&self, confirmed_at: Instant, expires_at: Instant) -> bool {
        let mut validity = self.validity();
        let before = validity.expires_at;
        *validity = Validity { expires_at: Some(expires_at), confirmed_at: Some(confirmed_at) };
        let now = Instant::now();
        now >= expires_at || before.is_some_and(|before| now >= before)
    }

    /// Makes all leases invalid until they are extended again.
    pub(crate) fn revoke(&self) {
        *self.validity() = Validity::default();
    }

    /// Whether the leases are valid now. A worker that another recorder has fenced passes the time
    /// in `fenced_at`. Its lease must have been confirmed after that time.
    pub(crate) fn is_valid_since(&self, fenced_at: Option<Instant>) -> bool {
        let validity = self.validity();
        let confirmed_after =
            |fenced_at| validity.confirmed_at.is_some_and(|confirmed_at| confirmed_at > fenced_at);
        validity.expires_at.is_some_and(|expires_at| Instant::now() < expires_at)
            && fenced_at.is_none_or(confirmed_after)
    }

    fn validity(&self) -> MutexGuard<'_, Validity> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn leases_are_valid_until_they_expire_and_after_fencing_once_confirmed_again() {
        let (lease, start) = (LeaseValidity::default(), Instant::now());
        let later = start + Duration::from_secs(60);
        assert!(!lease.is_valid_since(None), "never extended");
        assert!(lease.extend(start, start), "expired even now");
        assert!(!lease.is_valid_since(None), "expired");
        assert!(lease.extend(start, later), "had expired");
        assert!(lease.is_valid_since(None));
        assert!(!lease.extend(start, later));
        let fenced_at = Instant::now();
        assert!(!lease.is_valid_since(Some(fenced_at)), "confirmed before");
        lease.extend(fenced_at + Duration::from_nanos(1), later);
        assert!(lease.is_valid_since(Some(fenced_at)));
        lease.revoke();
        assert!(!lease.is_valid_since(None), "revoked");
    }
}
