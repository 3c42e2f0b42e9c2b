use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Accepts the concatenation of key and message as a signature, and counts its calls.
#[derive(Debug)]
struct CountingAlgorithm(AtomicUsize);

impl SignatureVerificationAlgorithm for CountingAlgorithm {
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
fn only_valid_signatures_are_cached() {
    static INNER: CountingAlgorithm = CountingAlgorithm(AtomicUsize::new(0));
    let algorithm = CachingAlgorithm::new(&INNER);
    let mut calls = 0;
    for (key, message, signature, is_valid, is_cached) in [
        ("k", "m", "km", true, false),
        ("k", "m", "km", true, true),
        // The same bytes, divided differently.
        ("km", "", "km", true, false),
        ("", "km", "km", true, false),
        ("k", "m", "kn", false, false),
        ("k", "m", "kn", false, false),
        ("k", "n", "km", false, false),
        ("l", "m", "km", false, false),
        ("k", "m", "km", true, true),
    ] {
        let [key, message, signature] = [key, message, signature].map(str::as_bytes);
        assert_eq!(algorithm.verify_signature(key, message, signature).is_ok(), is_valid);
        calls += usize::from(!is_cached);
        assert_eq!(INNER.0.load(Ordering::SeqCst), calls, "{key:?} {message:?}");
    }
}

#[test]
fn the_cache_is_bounded() {
    static INNER: CountingAlgorithm = CountingAlgorithm(AtomicUsize::new(0));
    let algorithm = CachingAlgorithm::new(&INNER);
    for number in 0..=CACHED_MAX {
        let message = number.to_string();
        algorithm.verify_signature(b"", message.as_bytes(), message.as_bytes()).unwrap();
        assert!(algorithm.valid.lock().unwrap().len() <= CACHED_MAX);
    }
    assert_eq!(algorithm.valid.lock().unwrap().len(), 1);
}
