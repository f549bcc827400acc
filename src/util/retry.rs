//! Delays between attempts: exponential, jittered, capped, never giving up by themselves.
//!
//! When to give up is the caller's rule; this only says how long to wait before the next attempt.

use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

/// The growing delay of one thing that is tried again and again.
#[derive(Debug)]
pub struct Retry {
    backoff: ExponentialBackoff,
    max: Duration,
}

impl Retry {
    /// The first delay is about `initial`; none is longer than `max`.
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        let backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(initial)
            .with_max_interval(max)
            .with_max_elapsed_time(None)
            .build();
        Self { backoff, max }
    }

    /// How long to wait before the next attempt; grows with each call.
    pub fn next_delay(&mut self) -> Duration {
        self.backoff.next_backoff().unwrap_or(self.max).min(self.max)
    }

    /// It worked: start again at the initial delay.
    pub fn reset(&mut self) {
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_cap_and_starts_again() {
        let initial = Duration::from_millis(100);
        let max = Duration::from_secs(2);
        let mut retry = Retry::new(initial, max);
        assert!(retry.next_delay() <= initial * 3 / 2);
        let later: Vec<_> = (0..50).map(|_| retry.next_delay()).collect();
        assert!(later.iter().all(|delay| *delay <= max));
        assert!(later[49] >= max / 2);
        retry.reset();
        assert!(retry.next_delay() <= initial * 3 / 2);
    }
}
