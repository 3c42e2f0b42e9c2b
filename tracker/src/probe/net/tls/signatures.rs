//! Signatures on certificates, each of which is computed once.
//!
//! A site shows the same chain at every probe, and the signatures in it are the
//! largest part of a handshake that is not new each time. Whether one is right
//! follows from key, message and signature alone, so what was found right stays
//! right. Nothing else is remembered: names, times and what a certificate may be
//! used for are looked at each time, and the handshake's own signature, which is
//! over what both sides have just said, is another's business.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use ring::digest::{Context, SHA256};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

/// So many signatures are remembered of each algorithm, in 3 MiB at most; beyond
/// that all are forgotten.
const KNOWN_MAX: usize = 65_536;

static ALGORITHMS: LazyLock<Vec<Remembering>> = LazyLock::new(|| {
    let all = provider::default_provider().signature_verification_algorithms.all;
    all.iter().map(|inner| Remembering::new(*inner)).collect()
});

static REFERENCES: LazyLock<Vec<&dyn SignatureVerificationAlgorithm>> =
    LazyLock::new(|| ALGORITHMS.iter().map(|one| one as _).collect());

/// The cryptography of ring, which remembers the signatures in chains.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = provider::default_provider();
    // The other list is that of the signatures in handshakes.
    provider.signature_verification_algorithms.all = &REFERENCES;
    provider
}

/// An algorithm that remembers what it found right.
#[derive(Debug)]
struct Remembering {
    inner: &'static dyn SignatureVerificationAlgorithm,
    /// SHA-256 of key, message and signature.
    known: Mutex<HashSet<[u8; 32]>>,
}

impl Remembering {
    fn new(inner: &'static dyn SignatureVerificationAlgorithm) -> Self {
        Self { inner, known: Mutex::default() }
    }
}

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let mut context = Context::new(&SHA256);
        for part in [public_key, message, signature] {
            // With its length, so that no byte can pass from one part to the next.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&hash) {
            return Ok(());
        }
        // Not under the lock, as it takes a while.
        self.inner.verify_signature(public_key, message, signature)?;
        let mut known = known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(hash);
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.inner.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.inner.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.inner.fips()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Takes a signature that is key and message, and counts its work.
    #[derive(Debug)]
    struct Counting(AtomicUsize);

    impl SignatureVerificationAlgorithm for Counting {
        fn verify_signature(
            &self,
            public_key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Ordering::SeqCst);
            match [public_key, message].concat() == signature {
                true => Ok(()),
                false => Err(InvalidSignature),
            }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            AlgorithmIdentifier::from_slice(b"key")
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            AlgorithmIdentifier::from_slice(b"signature")
        }
    }

    #[test]
    fn what_was_right_is_not_computed_again_and_what_was_wrong_is() {
        static INNER: Counting = Counting(AtomicUsize::new(0));
        let one = Remembering::new(&INNER);
        let mut work = 0;
        for (key, message, signature, is_right, is_known) in [
            ("k", "m", "km", true, false),
            ("k", "m", "km", true, true),
            // The same bytes, cut elsewhere.
            ("km", "", "km", true, false),
            ("", "km", "km", true, false),
            ("k", "m", "kn", false, false),
            ("k", "m", "kn", false, false),
            ("k", "n", "km", false, false),
            ("l", "m", "km", false, false),
            ("k", "m", "km", true, true),
        ] {
            let [key, message, signature] = [key, message, signature].map(str::as_bytes);
            assert_eq!(one.verify_signature(key, message, signature).is_ok(), is_right);
            work += usize::from(!is_known);
            assert_eq!(INNER.0.load(Ordering::SeqCst), work, "{key:?} {message:?}");
        }
    }

    #[test]
    fn no_more_are_remembered_than_the_bound() {
        static INNER: Counting = Counting(AtomicUsize::new(0));
        let one = Remembering::new(&INNER);
        for number in 0..=KNOWN_MAX {
            let message = number.to_string();
            one.verify_signature(b"", message.as_bytes(), message.as_bytes()).unwrap();
            assert!(one.known.lock().unwrap().len() <= KNOWN_MAX);
        }
        assert_eq!(one.known.lock().unwrap().len(), 1);
    }
}
