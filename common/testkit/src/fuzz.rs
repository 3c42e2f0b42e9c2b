//! Bytes that no decoder should trip over: seeded, mutated, for a bounded time.
//!
//! A run is repeated by its seed. `AVAILABILITY_FUZZ_SECONDS` says how long each
//! decoder is tried (300 ms without it), `AVAILABILITY_FUZZ_SEED` with what; without
//! the latter every run has a seed of its own, which a failure prints.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How long a decoder is tried: each run of the tests goes another way.
const DEFAULT: Duration = Duration::from_millis(300);
/// The longest that a decoder may take for one input, even on a busy machine.
const ONE_INPUT: Duration = Duration::from_secs(5);
/// The most bytes that an input grows to.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// The most mutations of one input.
const MUTATIONS_MAX: usize = 8;
/// What counts and lengths go wrong with.
const EDGES: [u64; 10] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, !0];

/// How long to go on: `AVAILABILITY_FUZZ_SECONDS`, else `default`.
pub fn budget(default: Duration) -> Duration {
    let given = number("AVAILABILITY_FUZZ_SECONDS");
    given.map_or(default, Duration::from_secs)
}

/// `AVAILABILITY_FUZZ_SEED`, else another one at each call.
pub fn seed() -> u64 {
    number("AVAILABILITY_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Gives `decode` the samples as they are and then mutated ones until the time
/// is over; how many it was given.
///
/// # Panics
/// When `decode` does, or takes longer than 5 seconds for one input: with the
/// seed, and the input in hexadecimal digits.
#[expect(clippy::panic, reason = "it is called by tests, which fail so")]
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
        let done = catch_unwind(AssertUnwindSafe(|| decode(&input)));
        let took = start.elapsed();
        if done.is_err() || took > ONE_INPUT {
            let digits: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            let what = if done.is_err() { "panicked" } else { "was slow" };
            panic!("{what} ({took:?}) at input {count} of seed {seed}: {digits}");
        }
        count += 1;
    }
    count
}

/// A sample after a few mutations: bits and bytes changed, numbers set to an
/// edge, parts cut, doubled, or taken from another sample.
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

    /// Goes red when `run` leaves out `catch_unwind`: the input would not be told.
    #[test]
    fn a_panic_is_told_with_its_input() {
        let samples = [vec![1, 2, 3]];
        let failed = catch_unwind(|| run(&samples, |bytes| assert_eq!(bytes, [1, 2, 3])));
        let said = failed.unwrap_err();
        let said = said.downcast_ref::<String>().unwrap();
        assert!(said.starts_with("panicked") && said.contains(" of seed "), "{said}");
    }

    #[test]
    fn a_seed_makes_the_same_inputs_again() {
        let samples = [b"hello world".to_vec(), vec![0; 40]];
        let inputs = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..200).map(|_| mutated(&mut random, &samples)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }
}
