//! At most so many process starts a second.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Spaces starts evenly.
#[derive(Debug)]
pub struct StartRate {
    next: Mutex<Instant>,
    gap: Option<Duration>,
}

impl StartRate {
    /// `per_second` starts; no limit where it is not above zero.
    #[must_use]
    pub fn new(per_second: f64) -> Self {
        let gap = (per_second > 0.0).then(|| Duration::from_secs_f64(1.0 / per_second));
        Self { next: Mutex::new(Instant::now()), gap }
    }

    /// Returns when the next start may happen.
    pub async fn turn(&self) {
        let Some(gap) = self.gap else { return };
        let at = {
            let mut next = self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let at = (*next).max(Instant::now());
            *next = at + gap;
            at
        };
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn starts_are_spaced() {
        let rate = StartRate::new(10.0);
        let start = Instant::now();
        for _ in 0..6 {
            rate.turn().await;
        }
        assert_eq!(start.elapsed(), Duration::from_millis(500));
        let free = StartRate::new(0.0);
        free.turn().await;
        assert_eq!(start.elapsed(), Duration::from_millis(500));
    }
}
