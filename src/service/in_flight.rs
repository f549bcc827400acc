//! Results that are being made: a second delivery of the same message waits for the first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

/// Which results are being made, or wait to be safely out. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<Mutex<Both>>);

#[derive(Debug, Default)]
struct Both {
    first: HashMap<Uuid, u64>,
    result: HashMap<u64, Uuid>,
    /// Results that are out, of messages that could not be settled and come again; the oldest first.
    known: VecDeque<Uuid>,
}

/// More of them than a service has deliveries, so that each is still known when its message comes.
const MAX_KNOWN: usize = 4096;

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

    /// The result of this delivery is out, but the delivery could not be settled: it comes again.
    pub(super) fn comes_again(&self, sequence: u64) {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(result) = both.result.get(&sequence).copied() {
            both.known.push_back(result);
            if both.known.len() > MAX_KNOWN {
                both.known.pop_front();
            }
        }
    }

    /// Whether this result is out already, and only its message was handed over again; said once.
    pub(super) fn take_known(&self, result: Uuid) -> bool {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = both.known.iter().position(|known| *known == result);
        at.and_then(|at| both.known.remove(at)).is_some()
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
        all.comes_again(1);
        all.end(1);
        assert_eq!(all.begin(id, 3), Ok(()));
        assert!(all.take_known(id) && !all.take_known(id));
    }

    #[test]
    fn what_comes_again_is_bounded() {
        let all = InFlight::default();
        for number in 0..MAX_KNOWN as u64 + 10 {
            all.begin(Uuid::from_u128(number.into()), number).unwrap();
            all.comes_again(number);
        }
        assert!(!all.take_known(Uuid::from_u128(9)) && all.take_known(Uuid::from_u128(10)));
    }
}
