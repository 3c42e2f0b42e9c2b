//! `--share K/N`: of a list that several trackers have, the part of this one.

use common::domain;

/// The most trackers that share a list.
pub const SHARES_MAX: u32 = 1_000;

/// One of the parts of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 1.
    part: u32,
    parts: u32,
}

impl Share {
    /// Reads `K/N`.
    ///
    /// # Errors
    /// When it is no such pair, or K is not one of 1 to N.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pair = text.split_once('/').and_then(|(part, parts)| {
            Some((part.trim().parse().ok()?, parts.trim().parse().ok()?))
        });
        match pair {
            None => Err(format!("{text:?} is no pair of numbers")),
            Some((part, parts)) if (1..=parts).contains(&part) && parts <= SHARES_MAX => {
                Ok(Self { part, parts })
            }
            Some(_) => Err(format!("{text} is out of range")),
        }
    }

    /// Whether the targets of this URL are in this part.
    ///
    /// Of all parts the one that draws the highest number for a URL has it
    /// (rendezvous hashing, Thaler and Ravishankar 1998). So another part more
    /// takes from each of the others what it draws highest for, and nothing
    /// moves between those.
    pub fn holds(self, location: &str, url: &str) -> bool {
        let hash = domain::stable_hash(format!("{location}\0{url}").as_bytes());
        let highest = (1..=self.parts).max_by_key(|part| drawn(hash, *part));
        highest == Some(self.part)
    }
}

/// The number that a part draws: the output function of `SplitMix64` (Steele,
/// Lea and Flood 2014), which scatters neighbours.
fn drawn(hash: u64, part: u32) -> u64 {
    let mut mixed = hash ^ u64::from(part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part_of(url: &str, parts: u32) -> u32 {
        let holders: Vec<_> =
            (1..=parts).filter(|part| Share { part: *part, parts }.holds("oslo", url)).collect();
        assert_eq!(holders.len(), 1, "{url} of {parts}");
        holders[0]
    }

    #[test]
    fn every_url_is_in_one_part_and_one_part_more_takes_only_its_own() {
        let urls: Vec<_> = (0..5_000).map(|number| format!("http://a.io/{number}")).collect();
        for parts in 1..8 {
            let mut counts = vec![0_usize; parts as usize + 1];
            for url in &urls {
                let (before, after) = (part_of(url, parts), part_of(url, parts + 1));
                counts[after as usize - 1] += 1;
                assert!(after == before || after == parts + 1, "{url}: {before} to {after}");
            }
            // Five standard deviations of a fair draw, and the draw is always the same.
            let mean = urls.len() as f64 / f64::from(parts + 1);
            for count in counts {
                assert!((count as f64 - mean).abs() < 5.0 * mean.sqrt(), "{count} of {mean}");
            }
        }
    }

    #[test]
    fn a_pair_is_read_or_refused() {
        assert_eq!(Share::parse("2/3"), Ok(Share { part: 2, parts: 3 }));
        for (text, expected) in [
            ("", "\"\" is no pair of numbers"),
            ("2", "\"2\" is no pair of numbers"),
            ("a/3", "\"a/3\" is no pair of numbers"),
            ("-1/3", "\"-1/3\" is no pair of numbers"),
            ("0/3", "0/3 is out of range"),
            ("4/3", "4/3 is out of range"),
            ("1/1001", "1/1001 is out of range"),
        ] {
            assert_eq!(Share::parse(text), Err(expected.to_owned()));
        }
    }
}
