//! Which results and notices were there before.

use std::collections::{HashMap, HashSet};

use crate::model::Verdict;

/// What a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The first of its result id.
    First,
    /// There was one of this id before, with this verdict.
    Again(Verdict),
    /// There was an `infra_error` of this id before, and this says what came of the program.
    InPlaceOfInfraError,
}

/// Tells results by their `result_id`, and what is parked without a result. About 40 bytes for each.
#[derive(Debug, Default)]
pub struct Once {
    results: HashMap<u128, Verdict>,
    notices: HashSet<u128>,
    /// Parked, and without a result so far.
    parked: HashSet<u128>,
}

impl Once {
    /// Takes a result.
    pub fn result(&mut self, result_id: &str, verdict: Verdict) -> Arrival {
        let key = key(result_id);
        self.parked.remove(&key);
        let Some(before) = self.results.insert(key, verdict) else { return Arrival::First };
        if before == Verdict::InfraError && verdict != Verdict::InfraError {
            return Arrival::InPlaceOfInfraError;
        }
        // The first one stands.
        self.results.insert(key, before);
        Arrival::Again(before)
    }

    /// Takes a notice that a prediction is parked; whether it is the first of its result id.
    pub fn notice(&mut self, result_id: &str) -> bool {
        let key = key(result_id);
        let first = self.notices.insert(key);
        if first && !self.results.contains_key(&key) {
            self.parked.insert(key);
        }
        first
    }

    /// Different results.
    #[must_use]
    pub fn results(&self) -> u64 {
        self.results.len() as u64
    }

    /// Predictions that are parked and have no result.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.parked.len() as u64
    }
}

fn key(id: &str) -> u128 {
    let mut half = [0; 16];
    half.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
    u128::from_le_bytes(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    use Verdict::{Failed, InfraError, Passed};

    #[test]
    fn the_first_stands_but_for_an_infra_error() {
        let mut once = Once::default();
        assert_eq!(once.result("a", Passed), Arrival::First);
        assert_eq!(once.result("a", Failed), Arrival::Again(Passed));
        assert_eq!(once.result("a", InfraError), Arrival::Again(Passed));
        assert_eq!(once.result("b", InfraError), Arrival::First);
        assert_eq!(once.result("b", InfraError), Arrival::Again(InfraError));
        assert_eq!(once.result("b", Failed), Arrival::InPlaceOfInfraError);
        assert_eq!(once.result("b", Passed), Arrival::Again(Failed));
        assert_eq!(once.results(), 2);
    }

    #[test]
    fn a_result_ends_a_parking_whenever_it_comes() {
        let mut once = Once::default();
        assert!(once.notice("a") && once.notice("b") && !once.notice("a"));
        assert_eq!(once.parked(), 2);
        once.result("a", Passed);
        assert_eq!(once.parked(), 1);
        once.result("c", Passed);
        assert!(once.notice("c"));
        assert_eq!(once.parked(), 1);
    }
}
