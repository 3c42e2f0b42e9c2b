//! Verifies the signatures of certificates, each signature only once.
//!
//! A site sends the same chain at every probe, and most of the time of a handshake is for the
//! signatures in that chain. Whether a signature is valid depends only on key, message and
//! signature, so a valid signature stays valid. Only this result is cached: names, validity
//! periods and key usages are checked each time, and so is the signature of the handshake,
//! which is different each time.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use ring::digest::{Context, SHA256};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

/// Most signatures cached for each algorithm, about 3 MiB. A full cache is cleared.
const CACHED_MAX: usize = 65_536;

static ALGORITHMS: LazyLock<Vec<CachingAlgorithm>> = LazyLock::new(|| {
    let all = provider::default_provider().signature_verification_algorithms.all;
    all.iter().map(|inner| CachingAlgorithm::new(*inner)).collect()
});

static REFERENCES: LazyLock<Vec<&dyn SignatureVerificationAlgorithm>> =
    LazyLock::new(|| ALGORITHMS.iter().map(|algorithm| algorithm as _).collect());

/// The cryptography of ring, with a cache for the signatures of certificates.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = provider::default_provider();
    // `mapping` is for the signatures of handshakes; it is not cached.
    provider.signature_verification_algorithms.all = &REFERENCES;
    provider
}

/// A signature algorithm with a cache of the valid signatures.
#[derive(Debug)]
struct CachingAlgorithm {
    inner: &'static dyn SignatureVerificationAlgorithm,
    /// SHA-256 of key, message and signature.
    valid: Mutex<HashSet<[u8; 32]>>,
}

impl CachingAlgorithm {
    fn new(inner: &'static dyn SignatureVerificationAlgorithm) -> Self {
        Self { inner, valid: Mutex::default() }
    }
}

impl SignatureVerificationAlgorithm for CachingAlgorithm {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let mut context = Context::new(&SHA256);
        for part in [public_key, message, signature] {
            // The length separates the parts: no byte can move from one part to the next.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        let cache = || self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        if cache().contains(&hash) {
            return Ok(());
        }
        // Verifies without the lock, because verifying takes long.
        self.inner.verify_signature(public_key, message, signature)?;
        let mut cache = cache();
        if cache.len() >= CACHED_MAX {
            cache.clear();
        }
        cache.insert(hash);
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
mod tests;
