//! Messages in memory, for tests and for programs that have them there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::{Delivery, Ending, Outgoing, Receipt, Settlement, Sink, Source, TransportError};

/// Delivers what it was made from.
#[derive(Debug, Default)]
pub struct MemorySource {
    bodies: VecDeque<Vec<u8>>,
    sequence: u64,
    settled: Settled,
}

/// How deliveries ended, by their sequence, in the order in which they did.
#[derive(Debug, Clone, Default)]
pub struct Settled(Arc<Mutex<Vec<(u64, Settlement)>>>);

impl Settled {
    /// Those so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<(u64, Settlement)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl MemorySource {
    /// A source of these bodies.
    pub fn new(bodies: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { bodies: bodies.into_iter().collect(), ..Self::default() }
    }

    /// Where settlements are noted.
    #[must_use]
    pub fn settled(&self) -> Settled {
        self.settled.clone()
    }
}

impl Source for MemorySource {
    async fn next(&mut self) -> Option<Result<Delivery, TransportError>> {
        let body = self.bodies.pop_front()?;
        let sequence = self.sequence;
        self.sequence += 1;
        Some(Ok(Delivery {
            sequence,
            origin: format!("memory:{}", self.sequence),
            body: Ok(body),
            arrived: Instant::now(),
            attempt: 1,
            redelivered: false,
            envelope: None,
        }))
    }

    async fn settle(&mut self, delivery: Delivery, settlement: Settlement) -> Ending {
        self.settled.0.lock().unwrap_or_else(PoisonError::into_inner).push((delivery.sequence, settlement));
        Ending::Now(true)
    }
}

/// Keeps results; clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemorySink(Arc<Mutex<Vec<Vec<u8>>>>);

impl MemorySink {
    /// The results so far.
    #[must_use]
    pub fn results(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for MemorySink {
    async fn deliver(&mut self, result: Outgoing) -> Result<Receipt, TransportError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(result.body);
        Ok(Receipt::Now)
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Address;
    use super::*;

    #[tokio::test]
    async fn in_and_out() {
        let mut source = MemorySource::new([b"a".to_vec(), b"b".to_vec()]);
        let settled = source.settled();
        let sink = MemorySink::default();
        while let Some(delivery) = source.next().await {
            let delivery = delivery.unwrap();
            let to = Address::Retry { attempt: 1 };
            let outgoing = Outgoing { body: delivery.body.clone().unwrap(), to, envelope: None };
            sink.clone().deliver(outgoing).await.unwrap();
            source.settle(delivery, Settlement::Ack).await;
        }
        assert_eq!(sink.results(), [b"a", b"b"]);
        assert_eq!(settled.so_far(), [(0, Settlement::Ack), (1, Settlement::Ack)]);
    }
}
