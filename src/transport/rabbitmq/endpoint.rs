//! The two ends that a flow works with.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::broker::Broker;
use super::consumer::{Consumer, Intake, Vouched};
use super::link::Link;
use super::properties::{attempt_of, message};
use super::publisher::{Order, Publisher};
use super::settle::{Handle, Settled, Settler};
use crate::transport::{
    BodyError, Delivery, Ending, Outgoing, Receipt, Settlement, Sink, Source, TransportError,
};

/// What happened so far, for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Deliveries that had been handed over before.
    pub redelivered: AtomicU64,
    /// Acknowledged.
    pub acked: AtomicU64,
    /// Given back.
    pub requeued: AtomicU64,
    /// Acknowledgements that came too late: the delivery's channel was gone.
    pub stale: AtomicU64,
    /// Confirmed by the broker.
    pub confirmed: AtomicU64,
    /// Refused by the broker, and tried again.
    pub nacked: AtomicU64,
    /// In the outbox.
    pub unconfirmed: AtomicU64,
    /// When each unsettled delivery arrived.
    held: Mutex<BTreeMap<u64, Instant>>,
    /// Losses of the consuming link.
    pub consume_losses: AtomicU64,
    /// Losses of the publishing link.
    pub publish_losses: AtomicU64,
}

impl Stats {
    fn held(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many deliveries are unsettled, and the age of the oldest.
    #[must_use]
    pub fn unsettled(&self) -> (usize, Option<Duration>) {
        let held = self.held();
        (held.len(), held.first_key_value().map(|(_, arrived)| arrived.elapsed()))
    }
}

/// Deliveries from the work queues.
#[derive(Debug)]
pub struct RabbitMqSource {
    intake: mpsc::Receiver<Intake>,
    settling: mpsc::Sender<Settled>,
    held: HashMap<u64, Handle>,
    sequence: u64,
    max_message_bytes: usize,
    /// How long a delivery may wait to be taken before it is given back.
    max_wait: Duration,
    /// Nothing new is begun while results cannot leave.
    publish: Link,
    /// The state of the consuming link.
    consume: Link,
    drain: CancellationToken,
    /// Where the consumer is told that a suspect did no harm.
    vouched: Arc<Vouched>,
    /// True: nothing is taken, for want of something that is needed to run it.
    held_back: watch::Receiver<bool>,
    /// Ends when every settlement is on its way.
    all_settled: oneshot::Receiver<()>,
    stats: Arc<Stats>,
}

/// Results to the output exchange; clones share the outbox.
#[derive(Debug, Clone)]
pub struct RabbitMqSink {
    orders: mpsc::Sender<Order>,
}

/// Starts both links, to be ended by `stop`; they find the broker when they can.
///
/// While `held_back` is true, nothing is taken. `capacity`: deliveries that are unsettled at most, the prefetch. `max_wait`: what has not begun
/// after so long is given back.
#[must_use]
pub fn connect(
    broker: &Broker,
    capacity: u16,
    max_wait: Duration,
    held_back: watch::Receiver<bool>,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> (RabbitMqSource, RabbitMqSink, Arc<Stats>) {
    let stats = Arc::new(Stats::default());
    let (consume_set, consume) = Link::new();
    let (publish_set, publish) = Link::new();
    let (intake_in, intake) = mpsc::channel(16);
    // Each delivery comes to at most two messages, and to one settlement.
    let (orders_in, orders) = mpsc::channel(usize::from(capacity) * 2 + 16);
    let (settling, settlements) = mpsc::channel(usize::from(capacity) + 16);
    let (settling_ends, all_settled) = oneshot::channel();
    let (trouble, drain) = (Arc::new(Notify::new()), CancellationToken::new());
    let vouched = Arc::new(Vouched::default());
    let consumer = Consumer {
        broker: broker.clone(),
        prefetch: capacity,
        intake: intake_in,
        link: consume_set,
        stats: Arc::clone(&stats),
        settling: settling.downgrade(),
        trouble: Arc::clone(&trouble),
        vouched: Arc::clone(&vouched),
        drain: drain.clone(),
        stop: stop.clone(),
    };
    tracker.spawn(consumer.run());
    // What lingers must not be what the service would be busy with: small shares of the prefetch.
    let share = |of: u16| usize::from(broker.class_prefetch(capacity) / of).max(1);
    let publisher =
        Publisher::new(broker.clone(), orders, publish_set, Arc::clone(&stats), stop.clone(), share(32));
    tracker.spawn(publisher.run());
    let settler = Settler {
        settlements,
        linger: broker.ack_linger(),
        enough: share(8),
        limit: broker.write_limit(),
        trouble,
        stats: Arc::clone(&stats),
        stop: stop.clone(),
    };
    tracker.spawn(async move {
        settler.run().await;
        drop(settling_ends);
    });
    let source = RabbitMqSource {
        intake,
        settling,
        held: HashMap::new(),
        sequence: 0,
        max_message_bytes: broker.max_message_bytes.get(),
        max_wait,
        publish,
        consume,
        drain,
        vouched,
        held_back,
        all_settled,
        stats: Arc::clone(&stats),
    };
    (source, RabbitMqSink { orders: orders_in }, stats)
}

impl RabbitMqSource {
    /// The consuming link.
    #[must_use]
    pub fn consume_link(&self) -> Link {
        self.consume.clone()
    }

    /// The publishing link.
    #[must_use]
    pub fn publish_link(&self) -> Link {
        self.publish.clone()
    }

    /// Returns once every settlement is on its way, or `limit` has passed. Deliveries that are not
    /// settled by then are the broker's again.
    pub async fn settled(self, limit: Duration) {
        let Self { settling, all_settled, .. } = self;
        drop(settling);
        let _ = tokio::time::timeout(limit, all_settled).await;
    }

    async fn send_settlement(&self, handle: Handle, settlement: Settlement) {
        // There is room for every delivery; it is closed only at the very end.
        let _ = self.settling.send((handle, settlement)).await;
    }

    fn delivery(&mut self, intake: Intake) -> Delivery {
        let Intake { delivery, envelope, arrived, tags } = intake;
        let sequence = self.sequence;
        self.sequence += 1;
        let redelivered = delivery.redelivered || envelope.handed_over > 0;
        if redelivered {
            self.stats.redelivered.fetch_add(1, Ordering::Relaxed);
        }
        let limit = self.max_message_bytes;
        let body = if delivery.data.len() > limit {
            Err(BodyError::TooLong { limit, setting: "rabbitmq.max_message_mb" })
        } else {
            Ok(delivery.data)
        };
        self.held
            .insert(sequence, Handle { acker: delivery.acker, tag: delivery.delivery_tag, tags, done: None });
        self.stats.held().insert(sequence, arrived);
        Delivery {
            sequence,
            origin: format!("{}#{}", envelope.class, delivery.delivery_tag),
            body,
            arrived,
            attempt: attempt_of(&delivery.properties),
            redelivered,
            envelope: Some(Arc::new(envelope)),
        }
    }
}

impl Source for RabbitMqSource {
    async fn next(&mut self) -> Option<Result<Delivery, TransportError>> {
        loop {
            self.publish.until_ready().await;
            // Where nobody holds it back any more, nobody can let it go: it is the end.
            self.held_back.wait_for(|held_back| !held_back).await.ok()?;
            // To be given back, it must not have to wait: that could lose it.
            let room = self.settling.reserve().await.ok()?;
            let intake = tokio::select! {
                intake = self.intake.recv() => intake?,
                () = self.publish.changed() => continue,
                _ = self.held_back.changed() => continue,
            };
            if !intake.delivery.acker.usable() {
                // Its channel is gone: the broker hands it over again.
                continue;
            }
            if intake.arrived.elapsed() > self.max_wait {
                room.send((intake.into_handle(), Settlement::Requeue));
                continue;
            }
            drop(room);
            return Some(Ok(self.delivery(intake)));
        }
    }

    async fn settle(&mut self, delivery: Delivery, settlement: Settlement) -> Ending {
        self.stats.held().remove(&delivery.sequence);
        let Some(mut handle) = self.held.remove(&delivery.sequence) else { return Ending::Now(false) };
        let (done, told) = oneshot::channel();
        handle.done = Some(done);
        self.send_settlement(handle, settlement).await;
        Ending::Later(told)
    }

    fn vouch(&mut self, delivery: &Delivery) {
        if let Some(envelope) = &delivery.envelope {
            self.vouched.add(&envelope.class);
        }
    }

    async fn drain(&mut self) {
        self.drain.cancel();
        while let Ok(intake) = self.intake.try_recv() {
            self.send_settlement(intake.into_handle(), Settlement::Requeue).await;
        }
    }
}

impl Sink for RabbitMqSink {
    async fn deliver(&mut self, outgoing: Outgoing) -> Result<Receipt, TransportError> {
        let failed = |reason: String| TransportError::Write { name: "the outbox".to_owned(), reason };
        let message = message(outgoing).map_err(|error| failed(error.to_string()))?;
        let (done, receipt) = oneshot::channel();
        let order = Order { message, done };
        self.orders.send(order).await.map_err(|_| failed("the publishing task is gone".to_owned()))?;
        Ok(Receipt::Later(receipt))
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        // Each message has its receipt.
        Ok(())
    }
}
