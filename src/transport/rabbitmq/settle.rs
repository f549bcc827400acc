//! Settling deliveries: several acknowledgements become one where nothing else lies between them.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::broker::bounded;
use super::endpoint::Stats;
use crate::transport::Settlement;

/// Which deliveries of one channel are settled.
///
/// The broker takes an acknowledgement of many as one of *every* delivery up to a number, also of those
/// that are still being worked on: it may only be used where all of them are settled here.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// All up to this one are settled.
    settled: u64,
    /// And these.
    beyond: BTreeSet<u64>,
}

impl Tags {
    /// Marks these as settled; answers up to which number all are.
    fn settle(&mut self, tags: impl IntoIterator<Item = u64>) -> u64 {
        self.beyond.extend(tags.into_iter().filter(|tag| *tag > self.settled));
        while self.beyond.first().is_some_and(|tag| *tag == self.settled + 1) {
            self.beyond.pop_first();
            self.settled += 1;
        }
        self.settled
    }
}

/// What it takes to settle a delivery.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) acker: Acker,
    pub(super) tag: u64,
    /// Its channel's.
    pub(super) tags: Arc<Mutex<Tags>>,
}

/// A delivery and how it ends.
pub(super) type Settled = (Handle, Settlement);

/// Sends settlements until nobody has any more; one that cannot be sent means that the link is dead.
pub(super) struct Settler {
    pub(super) settlements: mpsc::Receiver<Settled>,
    /// How long one may wait for others to go with it: each that goes alone costs the broker an entry in
    /// the queue's log, and everybody a wake-up.
    pub(super) linger: Duration,
    /// So many do not wait for others: the broker hands over no more while they are not settled.
    pub(super) enough: usize,
    /// Bound of sending one.
    pub(super) limit: Duration,
    pub(super) trouble: Arc<Notify>,
    pub(super) stats: Arc<Stats>,
    pub(super) stop: CancellationToken,
}

impl Settler {
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let all = async {
            let mut some = Vec::with_capacity(self.enough);
            while self.settlements.recv_many(&mut some, self.enough).await > 0 {
                self.gather(&mut some).await;
                for same_channel in by_channel(&mut some) {
                    self.settle(same_channel).await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = all => {}
        }
    }

    /// Waits for more, a little.
    async fn gather(&mut self, some: &mut Vec<Settled>) {
        let until = tokio::time::Instant::now() + self.linger;
        while some.len() < self.enough {
            let more = self.settlements.recv_many(some, self.enough - some.len());
            if !matches!(tokio::time::timeout_at(until, more).await, Ok(1..)) {
                return;
            }
        }
    }

    async fn settle(&self, some: Vec<Settled>) {
        let Some(tags) = some.first().map(|(first, _)| Arc::clone(&first.tags)) else { return };
        let (acks, given_back): (Vec<_>, Vec<_>) =
            some.into_iter().partition(|(_, settlement)| *settlement == Settlement::Ack);
        self.stats.requeued.fetch_add(given_back.len() as u64, Ordering::Relaxed);
        self.stats.acked.fetch_add(acks.len() as u64, Ordering::Relaxed);
        // First: an acknowledgement of many must find them given back already.
        let given_back = join_all(given_back.iter().map(|(handle, _)| async move {
            // The count of deliveries is for what failed: what is given back is no failure.
            let nack = handle.acker.nack(BasicNackOptions { multiple: false, requeue: true });
            let done = bounded("give back", self.limit, nack).await;
            let given_back = matches!(done, Ok(true)).then_some(handle.tag);
            self.note(1, &handle.acker, done);
            given_back
        }))
        .await;
        let all_until = {
            let mut tags = tags.lock().unwrap_or_else(PoisonError::into_inner);
            let acked = acks.iter().map(|(handle, _)| handle.tag);
            tags.settle(acked.chain(given_back.into_iter().flatten()))
        };
        let (together, single): (Vec<_>, Vec<_>) =
            acks.into_iter().map(|(handle, _)| handle).partition(|handle| handle.tag <= all_until);
        let last = together.iter().max_by_key(|handle| handle.tag);
        let steps = last.map(|last| (last, together.len())).into_iter();
        join_all(steps.chain(single.iter().map(|handle| (handle, 1))).map(|(handle, count)| async move {
            let ack = handle.acker.ack(BasicAckOptions { multiple: count > 1 });
            self.note(count, &handle.acker, bounded("acknowledge", self.limit, ack).await);
        }))
        .await;
    }

    fn note(&self, count: usize, acker: &Acker, done: Result<bool, super::BrokerError>) {
        let stale = || self.stats.stale.fetch_add(count as u64, Ordering::Relaxed);
        match done {
            Ok(true) => {}
            // Its channel is gone: the broker hands it over again.
            Ok(false) => drop(stale()),
            Err(error) => {
                stale();
                tracing::warn!(%error, count, "deliveries could not be settled");
                // Where its channel is gone, the link is being rebuilt already.
                if acker.usable() {
                    self.trouble.notify_one();
                }
            }
        }
    }
}

/// Takes them apart by channel, in order.
fn by_channel(some: &mut Vec<Settled>) -> Vec<Vec<Settled>> {
    let mut channels: Vec<Vec<Settled>> = Vec::new();
    for settled in some.drain(..) {
        let same = |channel: &&mut Vec<Settled>| {
            channel.first().is_some_and(|(first, _)| Arc::ptr_eq(&first.tags, &settled.0.tags))
        };
        match channels.iter_mut().find(same) {
            Some(channel) => channel.push(settled),
            None => channels.push(vec![settled]),
        }
    }
    channels
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_missing_holds_up_the_rest() {
        let mut tags = Tags::default();
        assert_eq!(tags.settle([2, 3]), 0);
        assert_eq!(tags.settle([1]), 3);
        assert_eq!(tags.settle([5]), 3);
        assert_eq!(tags.settle([4, 6, 8]), 6);
        assert_eq!(tags.beyond, BTreeSet::from([8]));
        // Told twice, it counts once.
        assert_eq!(tags.settle([3, 7]), 8);
    }

    proptest! {
        #[test]
        fn never_beyond_one_that_is_not_settled(order in Just((1..60u64).collect::<Vec<_>>()).prop_shuffle(), cut in 0..59usize) {
            let (settled, open) = order.split_at(cut);
            let mut tags = Tags::default();
            let mut until = 0;
            for tag in settled {
                until = tags.settle([*tag]);
            }
            let lowest = open.iter().min().copied().unwrap_or(60);
            prop_assert_eq!(until, lowest - 1);
        }
    }
}
