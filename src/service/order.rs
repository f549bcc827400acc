//! Results back in the order of their predictions.

use std::collections::BTreeMap;

/// Holds back what comes too early.
#[derive(Debug)]
pub struct InOrder<T> {
    next: u64,
    early: BTreeMap<u64, T>,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self { next: 0, early: BTreeMap::new() }
    }
}

impl<T> InOrder<T> {
    /// The sequence number that comes next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes the item of this sequence number. Each number from 0 comes exactly once.
    pub fn push(&mut self, sequence: u64, item: T) {
        self.early.insert(sequence, item);
    }

    /// The next item in order, if it is there.
    pub fn pop(&mut self) -> Option<T> {
        let item = self.early.remove(&self.next)?;
        self.next += 1;
        Some(item)
    }

    /// The first item that is there, over the gaps.
    pub fn pop_any(&mut self) -> Option<T> {
        self.early.pop_first().map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_arrival_order_comes_out_sorted(order in Just((0_u64..50).collect::<Vec<_>>()).prop_shuffle()) {
            let mut in_order = InOrder::default();
            let mut out = Vec::new();
            for sequence in order {
                in_order.push(sequence, sequence);
                while let Some(item) = in_order.pop() {
                    out.push(item);
                }
            }
            prop_assert_eq!(out, (0..50).collect::<Vec<_>>());
            prop_assert_eq!(in_order.pop_any(), None);
        }
    }
}
