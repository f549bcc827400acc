//! A bound that can only come down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Shared by those who keep to it and those who learn that less is allowed.
#[derive(Debug, Clone)]
pub struct Ceiling(Arc<AtomicUsize>);

impl Ceiling {
    /// At first, so much is allowed.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(limit)))
    }

    /// How much is allowed now.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// No more than this is allowed.
    pub fn lower(&self, limit: usize) {
        self.0.fetch_min(limit, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_comes_down_for_all_who_share_it() {
        let (ceiling, other) = (Ceiling::new(10), Ceiling::new(10));
        let shared = ceiling.clone();
        for (limit, now) in [(7, 7), (9, 7), (3, 3)] {
            ceiling.lower(limit);
            assert_eq!((shared.get(), other.get()), (now, 10));
        }
    }
}
