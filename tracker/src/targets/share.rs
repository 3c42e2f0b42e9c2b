//! `--share K/N`: the part of a common list of targets that this tracker probes.

use common::domain;

/// Most shares of a list.
pub(crate) const SHARES_MAX: u32 = 1_000;

/// Share number K of N shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 1.
    number: u32,
    count: u32,
}

/// Why a text is not a share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShareError {
    #[error("{0:?} is not a pair of numbers")]
    NotAPair(String),
    #[error("{0} is out of range")]
    OutOfRange(String),
}

impl Share {
    /// Parses `K/N`.
    ///
    /// # Errors
    /// [`ShareError`] unless K is one of 1 to N and N at most 1000.
    pub(crate) fn parse(text: &str) -> Result<Self, ShareError> {
        let pair = text.split_once('/').and_then(|(number, count)| {
            Some((number.trim().parse().ok()?, count.trim().parse().ok()?))
        });
        match pair {
            None => Err(ShareError::NotAPair(text.to_owned())),
            Some((number, count)) if (1..=count).contains(&number) && count <= SHARES_MAX => {
                Ok(Self { number, count })
            }
            Some(_) => Err(ShareError::OutOfRange(text.to_owned())),
        }
    }

    /// True if the targets with this URL belong to this share.
    ///
    /// A URL belongs to the share with the highest score for it (rendezvous hashing, Thaler and
    /// Ravishankar 1998). One share more therefore takes URLs from all other shares, and moves no
    /// URL between these.
    pub(crate) fn contains(self, location: &str, url: &str) -> bool {
        let hash = domain::stable_hash(format!("{location}\0{url}").as_bytes());
        let highest = (1..=self.count).max_by_key(|number| score(hash, *number));
        highest == Some(self.number)
    }
}

/// Mixes hash and share number with the output function of `SplitMix64` (Steele, Lea and Flood
/// 2014), because neighbouring numbers must get unrelated scores.
fn score(hash: u64, number: u32) -> u64 {
    let mut mixed = hash ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_of(url: &str, count: u32) -> u32 {
        let holders: Vec<_> = (1..=count)
            .filter(|number| Share { number: *number, count }.contains("oslo", url))
            .collect();
        assert_eq!(holders.len(), 1, "{url} of {count}");
        holders[0]
    }

    #[test]
    fn every_url_has_one_share_and_a_new_share_moves_urls_to_itself_only() {
        let urls: Vec<_> = (0..5_000).map(|number| format!("http://a.io/{number}")).collect();
        for count in 1..8 {
            let mut sizes = vec![0_usize; count as usize + 1];
            for url in &urls {
                let (before, after) = (share_of(url, count), share_of(url, count + 1));
                sizes[after as usize - 1] += 1;
                assert!(after == before || after == count + 1, "{url}: {before} to {after}");
            }
            // Five standard deviations of a fair draw; the draw is the same in every run.
            let mean = urls.len() as f64 / f64::from(count + 1);
            for size in sizes {
                assert!((size as f64 - mean).abs() < 5.0 * mean.sqrt(), "{size}, mean {mean}");
            }
        }
    }

    #[test]
    fn a_valid_pair_is_parsed_and_any_other_text_rejected() {
        assert_eq!(Share::parse("2/3"), Ok(Share { number: 2, count: 3 }));
        for (text, expected) in [
            ("", "\"\" is not a pair of numbers"),
            ("2", "\"2\" is not a pair of numbers"),
            ("a/3", "\"a/3\" is not a pair of numbers"),
            ("-1/3", "\"-1/3\" is not a pair of numbers"),
            ("0/3", "0/3 is out of range"),
            ("4/3", "4/3 is out of range"),
            ("1/1001", "1/1001 is out of range"),
        ] {
            assert_eq!(Share::parse(text).unwrap_err().to_string(), expected);
        }
    }
}
