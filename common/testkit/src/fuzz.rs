//! Mutated inputs for decoders: seeded and bounded in time.
//!
//! A run can be repeated with its seed. `AVAILABILITY_FUZZ_SECONDS` sets how long each decoder is
//! tested (default 300 ms). `AVAILABILITY_FUZZ_SEED` sets the seed. Without it every run uses a
//! new seed, and a failure prints the seed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How long each decoder is tested by default. The seed differs in each run, so many short runs
/// cover more.
const DEFAULT: Duration = Duration::from_millis(300);
/// The time limit for one input, generous enough for a busy machine.
const ONE_INPUT: Duration = Duration::from_secs(5);
/// Maximum size of an input.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of mutations of one input.
const MUTATIONS_MAX: usize = 8;
/// Values at the limits of counts and lengths.
const EDGES: [u64; 10] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, !0];

/// The time limit: `AVAILABILITY_FUZZ_SECONDS`, else `default`.
pub fn budget(default: Duration) -> Duration {
    let seconds = number("AVAILABILITY_FUZZ_SECONDS");
    seconds.map_or(default, Duration::from_secs)
}

/// The seed: `AVAILABILITY_FUZZ_SEED`, else a new random number at each call.
pub fn seed() -> u64 {
    number("AVAILABILITY_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Calls `decode` with each sample, then with mutated samples until the time is over. Returns the
/// number of inputs.
///
/// # Panics
/// Panics if `decode` panics or takes longer than 5 seconds for one input. The message has the
/// seed and the input in hexadecimal digits.
#[expect(clippy::panic, reason = "called by tests only, which fail by panicking")]
pub fn run(samples: &[Vec<u8>], mut decode: impl FnMut(&[u8])) -> u64 {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + budget(DEFAULT);
    let mut count = 0_u64;
    while count < samples.len() as u64 || Instant::now() < end {
        let input = match samples.get(usize::try_from(count).unwrap_or(usize::MAX)) {
            Some(sample) => sample.clone(),
            None => mutated(&mut random, samples),
        };
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| decode(&input)));
        let elapsed = start.elapsed();
        if outcome.is_err() || elapsed > ONE_INPUT {
            let digits: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            let fault = if outcome.is_err() { "panicked" } else { "was slow" };
            panic!("{fault} ({elapsed:?}) at input {count} of seed {seed}: {digits}");
        }
        count += 1;
    }
    count
}

/// Returns a sample after a few mutations: changed bits and bytes, numbers at their limits, parts
/// that are removed, repeated, or copied from another sample.
pub fn mutated(random: &mut fastrand::Rng, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = random.choice(samples).cloned().unwrap_or_default();
    for _ in 0..random.usize(1..=MUTATIONS_MAX) {
        mutate(random, &mut bytes, samples);
        bytes.truncate(INPUT_BYTES_MAX);
    }
    bytes
}

fn mutate(random: &mut fastrand::Rng, bytes: &mut Vec<u8>, samples: &[Vec<u8>]) {
    let at = random.usize(0..=bytes.len());
    let end = random.usize(at..=bytes.len());
    match random.u8(0..8) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random.u8(..)),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        4 => {
            let other = random.choice(samples).map_or(&[][..], |sample| sample);
            let from = random.usize(0..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        5 => {
            let edge = random.choice(EDGES).unwrap_or_default();
            let width = random.choice([1, 2, 4, 8]).unwrap_or(1);
            let edge = edge.to_be_bytes();
            for (byte, edge) in bytes[at..].iter_mut().zip(&edge[8 - width..]) {
                *byte = *edge;
            }
        }
        6 => bytes[at..].iter_mut().take(1).for_each(|byte| *byte = random.u8(..)),
        _ => bytes[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << random.u8(0..8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message names the seed, so that the run can be repeated.
    #[test]
    fn a_panic_is_reported_with_seed_and_input() {
        let samples = [vec![1, 2, 3]];
        let failed = catch_unwind(|| run(&samples, |bytes| assert_eq!(bytes, [1, 2, 3])));
        let payload = failed.unwrap_err();
        let message = payload.downcast_ref::<String>().unwrap();
        assert!(message.starts_with("panicked") && message.contains(" of seed "), "{message}");
    }

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let samples = [b"hello world".to_vec(), vec![0; 40]];
        let inputs = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..200).map(|_| mutated(&mut random, &samples)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }
}
