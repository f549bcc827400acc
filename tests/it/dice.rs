//! Chance that can be had again: numbers from a seed, and what is read from the environment.

use std::time::Duration;

/// SplitMix64: the same numbers for the same seed, on every machine and with every version of a crate.
pub(crate) struct Dice(u64);

impl Dice {
    /// Each part has dice of its own, so that none depends on how fast another is.
    pub(crate) fn new(seed: u64, part: u64) -> Self {
        Self(seed ^ (part + 1).wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// From `low` to below `high`.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.next() % length as u64).unwrap()
    }

    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.range(low, high))
    }
}

/// The number in an environment variable.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|why| panic!("{variable}={text}: {why}")))
}

/// The seed in an environment variable, else a random one that is short enough to be read out.
pub(crate) fn seed(variable: &str) -> u64 {
    number(variable).unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0))
}
