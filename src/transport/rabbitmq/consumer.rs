//! The consuming link: one task that keeps consumers on the work queues.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::stream::{BoxStream, SelectAll, StreamExt as _};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Event, message::Delivery};
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, BrokerError, Pauses, RPC_LIMIT, Role, STABLE, bounded, short};
use super::endpoint::Stats;
use super::link::{LinkEvent, LinkSetter};
use super::properties::envelope;
use super::ramp::{Ramp, Rest};
use super::settle::{Handle, Settled, Tags};
use super::topology::{Upkeep, apply, class_items, work_queue};
use crate::config::TopologyMode;
use crate::transport::{Envelope, Settlement};

/// Between two looks at whether the link is still there.
const TICK: Duration = Duration::from_millis(500);

/// Between two looks at whether what must be at the broker is still there.
const UPKEEP: Duration = Duration::from_secs(2);

/// Before a class whose queues were refused is tried again.
const SET_UP_AGAIN: Duration = Duration::from_secs(5);

/// A delivery with what came with it.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) delivery: Delivery,
    pub(super) envelope: Envelope,
    pub(super) arrived: Instant,
    /// Its channel's.
    pub(super) tags: Arc<Mutex<Tags>>,
}

impl Intake {
    /// What it takes to settle it; the rest is let go.
    pub(super) fn into_handle(self) -> Handle {
        Handle { tag: self.delivery.delivery_tag, acker: self.delivery.acker, tags: self.tags, done: None }
    }
}

/// What a consumer's stream yields: which class and which of its consumers, and a delivery; the end is an item
/// of its own.
type Item = ((usize, u64), Option<lapin::Result<Delivery>>);

/// The consumers of one class. The prefetch is a consumer's for life: more is taken by one more of them,
/// which gives nothing back.
struct ClassConsumer {
    class: String,
    channel: Channel,
    tags: Arc<Mutex<Tags>>,
    /// Those that there are.
    numbers: Range<u64>,
    ramp: Ramp,
    /// Deliveries to earlier ones, which came along with a suspect.
    aside: VecDeque<Delivery>,
}

impl ClassConsumer {
    fn tag(&self, number: u64) -> String {
        format!("{}-{number}", self.class)
    }

    /// One more of them.
    async fn add(
        &mut self,
        index: usize,
        prefetch: u16,
        streams: &mut SelectAll<BoxStream<'static, Item>>,
    ) -> Result<(), BrokerError> {
        if prefetch == 0 {
            return Ok(());
        }
        let number = self.numbers.end;
        let qos = self.channel.basic_qos(prefetch, BasicQosOptions::default());
        bounded("set the prefetch", RPC_LIMIT, qos).await?;
        let queue = work_queue(&self.class);
        let what = format!("consume {queue}");
        let (queue, tag) = (short("a queue's name", &queue)?, short("a consumer's tag", &self.tag(number))?);
        let options = BasicConsumeOptions::default();
        let consume = self.channel.basic_consume(queue, tag, options, FieldTable::default());
        let stream = bounded(&what, RPC_LIMIT, consume).await?;
        self.numbers.end += 1;
        let which = (index, number);
        let items = stream.map(move |delivery| (which, Some(delivery)));
        streams.push(items.chain(futures::stream::once(async move { (which, None) })).boxed());
        Ok(())
    }

    /// What they have taken stays taken.
    async fn cancel(&mut self) -> Result<(), BrokerError> {
        for number in self.numbers.clone() {
            let tag = short("a consumer's tag", &self.tag(number))?;
            let cancel = self.channel.basic_cancel(tag, BasicCancelOptions::default());
            bounded("cancel a consumer", RPC_LIMIT, cancel).await?;
        }
        self.numbers.start = self.numbers.end;
        Ok(())
    }

    /// A delivery to be handed on.
    async fn take(
        &mut self,
        index: usize,
        delivery: Delivery,
        streams: &mut SelectAll<BoxStream<'static, Item>>,
    ) -> Result<Intake, BrokerError> {
        let envelope = envelope(&self.class, &delivery);
        if !envelope.is_suspect() {
            let more = self.ramp.sound();
            self.add(index, more, streams).await?;
        } else if self.ramp.suspect(Instant::now()) {
            self.cancel().await?;
            self.add(index, self.ramp.size(), streams).await?;
        }
        Ok(Intake { delivery, envelope, arrived: Instant::now(), tags: Arc::clone(&self.tags) })
    }
}

/// Classes whose suspect did no harm; the others stay careful.
#[derive(Debug, Default)]
pub(super) struct Vouched {
    classes: Mutex<BTreeSet<String>>,
    news: Notify,
}

impl Vouched {
    pub(super) fn add(&self, class: &str) {
        self.classes.lock().unwrap_or_else(PoisonError::into_inner).insert(class.to_owned());
        self.news.notify_one();
    }

    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.classes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns once there is one.
    async fn some(&self) -> BTreeSet<String> {
        loop {
            let classes = self.take();
            if !classes.is_empty() {
                return classes;
            }
            self.news.notified().await;
        }
    }
}

/// What the broker refuses of single classes.
#[derive(Default)]
struct Refused {
    /// When their consumers were to be started.
    at_set_up: Vec<String>,
    /// At the last look.
    since: Vec<String>,
    /// What was told of it.
    said: String,
}

impl Refused {
    /// Each reason once.
    fn reasons(&self) -> String {
        let since = self.since.iter().filter(|reason| !self.at_set_up.contains(reason));
        self.at_set_up.iter().chain(since).map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

pub(super) struct Consumer {
    pub(super) broker: Broker,
    pub(super) prefetch: u16,
    pub(super) intake: mpsc::Sender<Intake>,
    pub(super) link: LinkSetter,
    pub(super) stats: Arc<Stats>,
    /// Where deliveries are given back; closed when the service ends.
    pub(super) settling: mpsc::WeakSender<Settled>,
    /// An acknowledgement did not work: the link must be rebuilt.
    pub(super) trouble: Arc<Notify>,
    /// The suspect that was taken did no harm: others may be taken beside it.
    pub(super) vouched: Arc<Vouched>,
    /// Take nothing new.
    pub(super) drain: CancellationToken,
    pub(super) stop: CancellationToken,
}

impl Consumer {
    /// Works until it is stopped.
    pub(super) async fn run(self) {
        let mut pauses = Pauses::new(STABLE);
        while !self.stop.is_cancelled() {
            let begun = Instant::now();
            let Err(error) = self.session().await else { return };
            tracing::warn!(%error, "the consuming link is lost");
            self.link.tell(LinkEvent::Lost(error.to_string()));
            self.stats.consume_losses.fetch_add(1, Ordering::Relaxed);
            let pause = pauses.after(begun.elapsed());
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn session(&self) -> Result<(), BrokerError> {
        let connection = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            connection = self.broker.connect(Role::Consume) => connection?,
        };
        let mut events = pin!(connection.events_listener());
        // What was said of an earlier connection is not about this one.
        let _ = self.trouble.notified().now_or_never();
        self.vouched.take();
        let settings = &self.broker.settings;
        let mut upkeep = Upkeep::new(&connection, settings);
        upkeep.common().await?;
        if settings.topology == TopologyMode::Check {
            self.tell_differences(&connection).await;
        }
        let mut consumers: Vec<Option<ClassConsumer>> = settings.classes.iter().map(|_| None).collect();
        let mut streams: SelectAll<BoxStream<'static, Item>> = SelectAll::new();
        let mut refused = Refused::default();
        if !self.drain.is_cancelled() {
            refused.at_set_up = self.set_up(&connection, &mut consumers, &mut streams).await?;
        }
        self.link.tell(LinkEvent::Connected);
        self.say(&mut refused);
        let looks = futures::stream::unfold(upkeep, async |mut upkeep| {
            tokio::time::sleep(UPKEEP).await;
            Some((upkeep.all_classes().await, upkeep))
        });
        let mut looks = pin!(looks);
        // The last look took too long.
        let mut slow = false;
        let mut tried = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting: Option<Intake> = None;
        let mut draining = self.drain.is_cancelled();
        loop {
            // What was kept aside comes first.
            let takes =
                |consumer: &ClassConsumer| consumer.ramp.rest() == Rest::Take && !consumer.aside.is_empty();
            let again = consumers.iter().position(|consumer| consumer.as_ref().is_some_and(takes));
            let again = again.filter(|_| waiting.is_none() && !draining);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    let _ = bounded("close", RPC_LIMIT, connection.close(200, "done".into())).await;
                    return Ok(());
                }
                () = self.drain.cancelled(), if !draining => {
                    draining = true;
                    waiting = None;
                    for consumer in consumers.iter_mut().flatten() {
                        consumer.cancel().await?;
                        consumer.aside.clear();
                    }
                }
                classes = self.vouched.some(), if !draining => {
                    for (index, consumer) in consumers.iter_mut().enumerate() {
                        if let Some(consumer) = consumer
                            && classes.contains(&consumer.class)
                        {
                            let more = consumer.ramp.vouched();
                            consumer.add(index, more, &mut streams).await?;
                        }
                    }
                }
                () = self.trouble.notified() => {
                    return Err(BrokerError::Ended("an acknowledgement could not be sent".into()));
                }
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => self.link.tell(LinkEvent::Blocked(reason)),
                    Some(Event::ConnectionUnblocked) => self.link.tell(LinkEvent::Unblocked),
                    // Of one channel: whoever uses it sees it, too.
                    Some(Event::Error(source)) if source.is_amqp_soft_error() => {}
                    Some(Event::Error(source)) => {
                        return Err(BrokerError::Call { what: "consuming link".into(), source });
                    }
                    Some(_) => {}
                    None => return Err(BrokerError::Ended("the consuming link ended".into())),
                },
                _ = tick.tick() => {
                    let mut set_up = consumers.iter().flatten();
                    let dead = set_up.any(|consumer| !consumer.channel.status().connected());
                    if dead || !connection.status().connected() {
                        return Err(BrokerError::Ended("the consuming link is closed".into()));
                    }
                    for consumer in consumers.iter_mut().flatten() {
                        if consumer.ramp.is_late(Instant::now()) {
                            self.give_back(consumer).await;
                        }
                    }
                    let missing = consumers.iter().any(Option::is_none);
                    if missing && !draining && tried.elapsed() > SET_UP_AGAIN {
                        tried = Instant::now();
                        refused.at_set_up = self.set_up(&connection, &mut consumers, &mut streams).await?;
                        self.say(&mut refused);
                    }
                }
                // What ends is no longer looked after: losing the link would only undo work.
                Some(looked) = looks.next(), if !draining => {
                    refused.since = match looked {
                        // A broker that is slow for once still works: losing the link would make it do more.
                        Err(error @ BrokerError::Timeout { .. }) if !slow => {
                            slow = true;
                            vec![error.to_string()]
                        }
                        looked => {
                            slow = false;
                            looked?
                        }
                    };
                    self.say(&mut refused);
                }
                room = self.intake.reserve(), if waiting.is_some() => match (room, waiting.take()) {
                    (Ok(room), Some(intake)) => room.send(intake),
                    // Nobody takes deliveries any more: the service ends.
                    _ => self.stop.cancelled().await,
                },
                () = std::future::ready(()), if again.is_some() => {
                    let Some(index) = again else { continue };
                    let Some(Some(consumer)) = consumers.get_mut(index) else { continue };
                    if let Some(delivery) = consumer.aside.pop_front() {
                        waiting = Some(consumer.take(index, delivery, &mut streams).await?);
                    }
                }
                item = streams.next(), if waiting.is_none() && !streams.is_empty() => match item {
                    // What was delivered meanwhile is given back when the connection is closed.
                    _ if draining => {}
                    None => {}
                    Some((_, Some(Err(source)))) => {
                        return Err(BrokerError::Call { what: "consume".into(), source });
                    }
                    Some(((index, number), item)) => {
                        let Some(Some(consumer)) = consumers.get_mut(index) else { continue };
                        let earlier = !consumer.numbers.contains(&number);
                        match item {
                            Some(Ok(delivery)) if earlier && consumer.ramp.rest() != Rest::Take => {
                                consumer.aside.push_back(delivery);
                                if consumer.ramp.rest() == Rest::GiveBack {
                                    self.give_back(consumer).await;
                                }
                            }
                            Some(Ok(delivery)) => {
                                waiting = Some(consumer.take(index, delivery, &mut streams).await?);
                            }
                            None if !earlier => {
                                let queue = work_queue(&consumer.class);
                                return Err(BrokerError::Ended(format!("the broker ended the consumer of {queue}")));
                            }
                            Some(Err(_)) | None => {}
                        }
                    }
                },
            }
        }
    }

    /// Starts the consumers that are not there yet. A class whose queues the broker refuses is left
    /// out, and the answer is why; the others go on.
    async fn set_up(
        &self,
        connection: &Connection,
        consumers: &mut [Option<ClassConsumer>],
        streams: &mut SelectAll<BoxStream<'static, Item>>,
    ) -> Result<Vec<String>, BrokerError> {
        let settings = &self.broker.settings;
        let mut refusals = Vec::new();
        for (index, (class, consumer)) in settings.classes.iter().zip(consumers).enumerate() {
            if consumer.is_some() {
                continue;
            }
            let begin = async {
                apply(connection, &class_items(settings, class), settings.topology).await?;
                let channel = bounded("open a channel", RPC_LIMIT, connection.create_channel()).await?;
                let mut begun = ClassConsumer {
                    class: class.clone(),
                    channel,
                    tags: Arc::default(),
                    numbers: 0..0,
                    ramp: Ramp::new(self.broker.class_prefetch(self.prefetch)),
                    aside: VecDeque::new(),
                };
                begun.add(index, begun.ramp.size(), streams).await?;
                Ok::<_, BrokerError>(begun)
            };
            match begin.await {
                Ok(begun) => *consumer = Some(begun),
                Err(error) if error.is_refusal() => refusals.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(refusals)
    }

    /// Tells what is refused, where that has changed.
    fn say(&self, refused: &mut Refused) {
        let reasons = refused.reasons();
        if reasons == refused.said {
            return;
        }
        if reasons.is_empty() {
            self.link.tell(LinkEvent::Accepted);
        } else {
            tracing::warn!(
                reasons,
                "a class of input is not consumed, or lacks something, or the broker is slow"
            );
            self.link.tell(LinkEvent::Refused(reasons.clone()));
        }
        refused.said = reasons;
    }

    /// Nothing but a line in the log: `check` is for queues that somebody else has made their way.
    async fn tell_differences(&self, connection: &Connection) {
        match Upkeep::new(connection, &self.broker.settings).differences().await {
            Ok(differences) => {
                for difference in differences {
                    tracing::warn!(difference, "a queue has other arguments, which stay in force");
                }
            }
            Err(error) => tracing::warn!(%error, "the queues' arguments could not be compared"),
        }
    }

    /// Gives back what a class has kept aside.
    async fn give_back(&self, consumer: &mut ClassConsumer) {
        let Some(settling) = self.settling.upgrade() else { return };
        for delivery in consumer.aside.drain(..) {
            let tags = Arc::clone(&consumer.tags);
            let handle = Handle { tag: delivery.delivery_tag, acker: delivery.acker, tags, done: None };
            let _ = settling.send((handle, Settlement::Requeue)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_vouched_for_one_by_one() {
        let vouched = Vouched::default();
        assert!(vouched.some().now_or_never().is_none());
        vouched.add("a");
        vouched.add("a");
        vouched.add("b");
        let both = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        assert_eq!(vouched.some().now_or_never(), Some(both));
        assert!(vouched.some().now_or_never().is_none());
    }
}
