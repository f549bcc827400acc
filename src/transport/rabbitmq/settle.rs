//! Settling deliveries: several acknowledgements become one where nothing else lies between them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::broker::{BrokerError, bounded};
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
    /// And these: the first and the last of each run. There are never more runs than gaps, and each gap
    /// is a delivery that is not settled.
    beyond: BTreeMap<u64, u64>,
}

/// How some deliveries are acknowledged.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// With the last of them, which stands for all; and how many they are.
    together: Option<(u64, usize)>,
    /// Each by itself.
    single: Vec<u64>,
}

impl Tags {
    /// Marks these as settled; answers how to acknowledge those that are to be acknowledged. What was
    /// given back must have been so before.
    fn plan(&mut self, acked: &[u64], given_back: &[u64]) -> Plan {
        acked.iter().chain(given_back).for_each(|tag| self.settle(*tag));
        let (together, single): (Vec<_>, Vec<_>) = acked.iter().partition(|tag| **tag <= self.settled);
        Plan { together: together.iter().max().map(|last| (*last, together.len())), single }
    }

    fn settle(&mut self, tag: u64) {
        let before = self.beyond.range(..=tag).next_back().map(|(first, last)| (*first, *last));
        if tag <= self.settled || before.is_some_and(|(_, last)| tag <= last) {
            return;
        }
        let first = match before {
            Some((first, last)) if last + 1 == tag => first,
            _ => tag,
        };
        let last = self.beyond.remove(&(tag + 1)).unwrap_or(tag);
        if first == self.settled + 1 {
            self.beyond.remove(&first);
            self.settled = last;
        } else {
            self.beyond.insert(first, last);
        }
    }
}

/// What it takes to settle a delivery.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) acker: Acker,
    pub(super) tag: u64,
    /// Its channel's.
    pub(super) tags: Arc<Mutex<Tags>>,
    /// Told whether the broker was told.
    pub(super) done: Option<oneshot::Sender<bool>>,
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

    /// Settles deliveries of one channel.
    async fn settle(&self, some: Vec<Settled>) {
        let Some(tags) = some.first().map(|(first, _)| Arc::clone(&first.tags)) else { return };
        let (mut acks, mut given_back): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for (handle, settlement) in some {
            match settlement {
                Settlement::Ack => acks.push(handle),
                Settlement::Requeue => given_back.push(handle),
            }
        }
        self.stats.requeued.fetch_add(given_back.len() as u64, Ordering::Relaxed);
        self.stats.acked.fetch_add(acks.len() as u64, Ordering::Relaxed);
        // First: an acknowledgement of many must find them given back already.
        let given_back = join_all(given_back.into_iter().map(|handle| async move {
            // The count of deliveries is for what failed: what is given back is no failure.
            let nack = handle.acker.nack(BasicNackOptions { multiple: false, requeue: true });
            let done = self.note(1, &handle.acker, bounded("give back", self.limit, nack).await);
            done.then_some(handle.tag)
        }));
        let given_back: Vec<u64> = given_back.await.into_iter().flatten().collect();
        let tags_of_acks: Vec<u64> = acks.iter().map(|handle| handle.tag).collect();
        let plan = tags.lock().unwrap_or_else(PoisonError::into_inner).plan(&tags_of_acks, &given_back);
        let (single, together): (Vec<_>, Vec<_>) =
            acks.into_iter().partition(|handle| plan.single.contains(&handle.tag));
        let together = self.acknowledge(together, plan.together.map(|(last, _)| last));
        let single = join_all(single.into_iter().map(|handle| self.acknowledge(vec![handle], None)));
        futures::future::join(together, single).await;
    }

    /// Acknowledges these in one step, by the last of them.
    async fn acknowledge(&self, some: Vec<Handle>, last: Option<u64>) {
        let by = some.iter().find(|handle| last.is_none_or(|last| handle.tag == last));
        let Some(by) = by else { return };
        let ack = by.acker.ack(BasicAckOptions { multiple: some.len() > 1 });
        let done = self.note(some.len(), &by.acker, bounded("acknowledge", self.limit, ack).await);
        for told in some.into_iter().filter_map(|handle| handle.done) {
            // Nobody may want to know any more.
            let _ = told.send(done);
        }
    }

    /// Whether it was done; where not, the broker hands the deliveries over again.
    fn note(&self, count: usize, acker: &Acker, done: Result<bool, BrokerError>) -> bool {
        if matches!(done, Ok(true)) {
            return true;
        }
        self.stats.stale.fetch_add(count as u64, Ordering::Relaxed);
        if let Err(error) = done {
            tracing::warn!(%error, count, "deliveries could not be settled");
            // Where its channel is gone, the link is being rebuilt already.
            if !acker.poisoned() {
                self.trouble.notify_one();
            }
        }
        false
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
    use rstest::rstest;

    // What was settled before, what is acknowledged and what given back now; the last that stands for
    // how many, and those that go by themselves.
    #[rstest]
    #[case::all(&[], &[1, 2, 3], &[], Some((3, 3)), &[])]
    #[case::out_of_order(&[], &[3, 1, 2], &[], Some((3, 3)), &[])]
    #[case::the_first_is_missing(&[], &[2, 3], &[], None, &[2, 3])]
    #[case::one_between_is_missing(&[], &[1, 2, 4], &[], Some((2, 2)), &[4])]
    #[case::the_gap_is_filled(&[2, 3], &[1, 4], &[], Some((4, 2)), &[])]
    #[case::given_back_between(&[], &[1, 3], &[2], Some((3, 2)), &[])]
    #[case::given_back_at_the_end(&[], &[1], &[2, 3], Some((1, 1)), &[])]
    #[case::only_given_back(&[], &[], &[1], None, &[])]
    #[case::after_many(&[1, 2, 3, 5, 6], &[7], &[4], Some((7, 1)), &[])]
    fn plans(
        #[case] before: &[u64],
        #[case] acked: &[u64],
        #[case] given_back: &[u64],
        #[case] together: Option<(u64, usize)>,
        #[case] single: &[u64],
    ) {
        let mut tags = Tags::default();
        before.iter().for_each(|tag| tags.settle(*tag));
        assert_eq!(tags.plan(acked, given_back), Plan { together, single: single.to_vec() });
    }

    proptest! {
        #[test]
        fn never_beyond_one_that_is_not_settled(
            order in Just((1..60u64).collect::<Vec<_>>()).prop_shuffle(),
            cut in 0..59usize,
            size in 1..9usize,
        ) {
            let (settled, open) = order.split_at(cut);
            let lowest = open.iter().min().copied().unwrap_or(60);
            let (mut tags, mut acknowledged) = (Tags::default(), 0);
            for some in settled.chunks(size) {
                let plan = tags.plan(some, &[]);
                prop_assert!(plan.together.is_none_or(|(last, _)| last < lowest));
                acknowledged += plan.together.map_or(0, |(_, count)| count) + plan.single.len();
            }
            prop_assert_eq!(acknowledged, cut);
            prop_assert_eq!(tags.settled, lowest - 1);
            prop_assert!(tags.beyond.len() <= open.len());
        }
    }
}
