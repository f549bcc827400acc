//! Results that are being made: a second delivery of the same message waits for the first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

/// Which results are being made, or wait to be safely out. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<Mutex<Both>>);

#[derive(Debug, Default)]
struct Both {
    first: HashMap<Uuid, u64>,
    result: HashMap<u64, Uuid>,
}

impl InFlight {
    /// The delivery of this sequence makes this result; or the one that does so already.
    pub(super) fn begin(&self, result: Uuid, sequence: u64) -> Result<(), u64> {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *both.first.entry(result).or_insert(sequence);
        if first != sequence {
            return Err(first);
        }
        both.result.insert(sequence, result);
        Ok(())
    }

    /// The delivery of this sequence was settled.
    pub(super) fn end(&self, sequence: u64) {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(result) = both.result.remove(&sequence) {
            both.first.remove(&result);
        }
    }

    /// Whether the delivery of this sequence makes a result and is not settled.
    pub(super) fn is_running(&self, sequence: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).result.contains_key(&sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_has_it_until_it_ends() {
        let (all, id) = (InFlight::default(), Uuid::from_u128(1));
        assert_eq!(all.begin(id, 1), Ok(()));
        assert_eq!(all.begin(id, 2), Err(1));
        all.end(2);
        assert!(all.is_running(1) && !all.is_running(2));
        assert_eq!(all.begin(id, 3), Err(1));
        all.end(1);
        assert_eq!(all.begin(id, 3), Ok(()));
    }
}
