//! The publishing link: an outbox, and the one task that empties it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Event, PublisherConfirm};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, BrokerError, Pauses, RPC_LIMIT, Role, STABLE, bounded};
use super::endpoint::Stats;
use super::link::{LinkEvent, LinkSetter};
use super::properties::Message;
use super::topology::{apply, class_items, common_items};

/// How long the broker may take to confirm, while it does not say that it is blocked.
const CONFIRM_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at what only time brings about.
const TICK: Duration = Duration::from_millis(500);
/// Before a message that the broker refused is tried again.
const REFUSED_DELAY: Duration = Duration::from_secs(1);

/// A message to publish, and who wants to know that the broker has it. Dropped, it was given up.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) message: Message,
    pub(super) done: oneshot::Sender<()>,
}

struct Entry {
    order: Order,
    /// How far it has come on the connection that there is now, and when.
    out: Option<(Out, Instant)>,
    /// Connections that were lost while it was out.
    losses: u32,
}

/// How far a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    /// It is being written to the connection.
    Writing,
    /// It is written; the broker has to confirm it.
    Written,
}

/// Most bytes that are handed over for writing together: lapin holds a copy of each.
const WRITING_BYTES: usize = 1 << 20;

/// After so many, a message is sent alone and after all others: it may be one that the broker never
/// takes, and ends the connection for.
const MAX_LOSSES: u32 = 3;

/// After so long on one connection, it is sent all the same: where there is always another to send, it
/// would wait until the broker takes its delivery back. Counted for each connection, so that the others
/// are sent first on one that it ends.
const LAST_LIMIT: Duration = Duration::from_secs(10);

/// What the next step of a message came to.
enum Step {
    Written(PublisherConfirm),
    Confirmed(Box<Confirmation>),
}

type Steps = FuturesUnordered<BoxFuture<'static, (u64, lapin::Result<Step>)>>;

pub(super) struct Publisher {
    pub(super) broker: Broker,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) link: LinkSetter,
    pub(super) stats: Arc<Stats>,
    pub(super) stop: CancellationToken,
    outbox: BTreeMap<u64, Entry>,
    /// Entries to send, in order.
    queue: VecDeque<u64>,
    /// Refused ones, and when they are tried again.
    delayed: VecDeque<(Instant, u64)>,
    next: u64,
    /// So many messages do not wait for others to go with them.
    enough: usize,
    /// When what waits is sent in any case.
    leaves: Option<tokio::time::Instant>,
}

impl Publisher {
    pub(super) fn new(
        broker: Broker,
        orders: mpsc::Receiver<Order>,
        link: LinkSetter,
        stats: Arc<Stats>,
        stop: CancellationToken,
        enough: usize,
    ) -> Self {
        let (outbox, queue, delayed) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
        Self { broker, orders, link, stats, stop, outbox, queue, delayed, next: 0, enough, leaves: None }
    }

    /// Works until it is stopped; what is in the outbox then was never confirmed.
    pub(super) async fn run(mut self) {
        let mut pauses = Pauses::new(STABLE);
        while !self.stop.is_cancelled() {
            let begun = Instant::now();
            let stop = self.stop.clone();
            let Err(error) = self.session().await else { return };
            tracing::warn!(%error, outbox = self.outbox.len(), "the publishing link is lost");
            self.link.tell(LinkEvent::Lost(error.to_string()));
            self.stats.publish_losses.fetch_add(1, Ordering::Relaxed);
            if let Some(limit) = error.size_limit() {
                self.drop_longer(limit);
            }
            // Whether the broker has what was not confirmed, nobody knows: it is sent again.
            for entry in self.outbox.values_mut() {
                entry.losses += u32::from(entry.out.take().is_some());
            }
            self.queue = self.outbox.keys().copied().collect();
            self.delayed.clear();
            let pause = pauses.after(begun.elapsed());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Gives up what this broker never takes; whoever made it hears so, and makes no more of it.
    fn drop_longer(&mut self, limit: usize) {
        tracing::warn!(
            limit,
            "the broker takes no longer messages: lower rabbitmq.max_message_mb, or raise its limit"
        );
        self.broker.max_message_bytes.lower(limit);
        self.outbox.retain(|_, entry| entry.order.message.body.len() <= limit);
        self.stats.unconfirmed.store(self.outbox.len() as u64, Ordering::Relaxed);
    }

    async fn session(&mut self) -> Result<(), BrokerError> {
        let stop = self.stop.clone();
        let connection = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            connection = self.broker.connect(Role::Publish) => connection?,
        };
        let mut events = pin!(connection.events_listener());
        let settings = &self.broker.settings;
        apply(&connection, &common_items(settings), settings.topology).await?;
        for class in &settings.classes {
            match apply(&connection, &class_items(settings, class), settings.topology).await {
                // The consuming link says so; the results of other classes still go out.
                Err(error) if error.is_refusal() => tracing::debug!(%error, class, "a class is left out"),
                done => done?,
            }
        }
        let channel = bounded("open a channel", RPC_LIMIT, connection.create_channel()).await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        bounded("ask for confirms", RPC_LIMIT, select).await?;
        // Copies for those who asked are sent beside, so that nothing waits for them.
        let copies = bounded("open a channel", RPC_LIMIT, connection.create_channel()).await?;
        self.link.tell(LinkEvent::Connected);
        // One future for each message that is out.
        let mut steps = Steps::new();
        let mut writing_bytes = 0;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // While one that must reach a queue is out, no other is: lapin can mix up whose returned
        // message it is. Nor beside one that may end the connection.
        let mut mandatory_out = false;
        let begun = Instant::now();
        loop {
            let window = usize::from(self.broker.settings.confirm_window);
            let room = steps.len() < window && writing_bytes < WRITING_BYTES;
            let lingers = self.lingers();
            let open = room && !lingers && !mandatory_out && !self.link.state().is_blocked();
            let send = if open { self.pick(steps.is_empty(), begun.elapsed() > LAST_LIMIT) } else { None };
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    let _ = bounded("close", RPC_LIMIT, connection.close(200, "done".into())).await;
                    return Ok(());
                }
                Some((id, step)) = steps.next(), if !steps.is_empty() => {
                    match step.map_err(|source| BrokerError::Call { what: "publish".into(), source })? {
                        Step::Written(confirm) => {
                            if let Some(entry) = self.outbox.get_mut(&id) {
                                entry.out = Some((Out::Written, Instant::now()));
                                writing_bytes -= entry.order.message.body.len();
                            }
                            steps.push(async move { (id, confirm.await.map(Box::new).map(Step::Confirmed)) }.boxed());
                        }
                        Step::Confirmed(confirmation) => {
                            mandatory_out = false;
                            self.confirmed(id, *confirmation, &copies)?;
                        }
                    }
                }
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => self.link.tell(LinkEvent::Blocked(reason)),
                    Some(Event::ConnectionUnblocked) => {
                        self.link.tell(LinkEvent::Unblocked);
                        // Nothing was confirmed while it was blocked.
                        for entry in self.outbox.values_mut() {
                            entry.out = entry.out.map(|(out, _)| (out, Instant::now()));
                        }
                    }
                    // Of one channel: its confirms fail, and it is looked at with each tick.
                    Some(Event::Error(source)) if source.is_amqp_soft_error() => {}
                    Some(Event::Error(source)) => {
                        return Err(BrokerError::Call { what: "publishing link".into(), source });
                    }
                    Some(_) => {}
                    None => return Err(BrokerError::Ended("the publishing link ended".into())),
                },
                _ = tick.tick() => self.ticked(&channel)?,
                () = std::future::ready(()), if send.is_some() => {
                    let Some(id) = send.and_then(|at| self.queue.remove(at)) else { continue };
                    let Some(entry) = self.outbox.get_mut(&id) else { continue };
                    let message = &entry.order.message;
                    mandatory_out = message.mandatory || entry.losses >= MAX_LOSSES;
                    writing_bytes += message.body.len();
                    steps.push(publish(channel.clone(), id, message.clone()).boxed());
                    entry.out = Some((Out::Writing, Instant::now()));
                }
                () = tokio::time::sleep_until(self.leaves.unwrap_or_else(tokio::time::Instant::now)), if lingers => {}
                order = self.orders.recv(), if self.queue.len() < window => match order {
                    Some(order) => {
                        self.next += 1;
                        self.outbox.insert(self.next, Entry { order, out: None, losses: 0 });
                        self.queue.push_back(self.next);
                        self.stats.unconfirmed.store(self.outbox.len() as u64, Ordering::Relaxed);
                    }
                    // Nobody can order any more: what is left is still published.
                    None if self.outbox.is_empty() => {
                        let _ = bounded("close", RPC_LIMIT, connection.close(200, "done".into())).await;
                        return Ok(());
                    }
                    None => tokio::time::sleep(TICK).await,
                },
            }
        }
    }

    /// Whether what waits should wait for others to go with it.
    fn lingers(&mut self) -> bool {
        if self.queue.is_empty() || self.orders.is_closed() {
            self.leaves = None;
            return false;
        }
        let now = tokio::time::Instant::now();
        let leaves = *self.leaves.get_or_insert_with(|| now + self.broker.linger());
        // No more of them are taken than the window has room for.
        let enough = self.enough.min(self.broker.settings.confirm_window.into());
        let goes = self.queue.len() >= enough || leaves <= now;
        if goes {
            // So does all that comes before the queue is empty.
            self.leaves = Some(now);
        }
        !goes
    }

    /// The place in the queue of what is sent next.
    fn pick(&self, idle: bool, overdue: bool) -> Option<usize> {
        let queue = self.queue.iter().map(|id| {
            let entry = self.outbox.get(id);
            entry.map_or((false, false), |entry| (entry.losses >= MAX_LOSSES, entry.order.message.mandatory))
        });
        pick(queue, idle, overdue)
    }

    fn confirmed(
        &mut self,
        id: u64,
        confirmation: Confirmation,
        copies: &Channel,
    ) -> Result<(), BrokerError> {
        match confirmation {
            Confirmation::Ack(None) => {
                self.stats.confirmed.fetch_add(1, Ordering::Relaxed);
                self.link.tell(LinkEvent::Accepted);
                if let Some(Entry { order, .. }) = self.outbox.remove(&id) {
                    self.stats.unconfirmed.store(self.outbox.len() as u64, Ordering::Relaxed);
                    send_copy(copies, &order.message);
                    // Whoever waited may have given up.
                    let _ = order.done.send(());
                }
                Ok(())
            }
            Confirmation::Ack(Some(returned)) => Err(BrokerError::Ended(format!(
                "no queue took a message with the key {:?}: what is missing is declared again",
                returned.delivery.routing_key.as_str()
            ))),
            Confirmation::Nack(_) => {
                self.stats.nacked.fetch_add(1, Ordering::Relaxed);
                self.link.tell(LinkEvent::Refused("a queue is full, or has lost its majority".into()));
                if let Some(entry) = self.outbox.get_mut(&id) {
                    entry.out = None;
                }
                self.delayed.push_back((Instant::now() + REFUSED_DELAY, id));
                Ok(())
            }
            Confirmation::NotRequested => {
                Err(BrokerError::Ended("the channel does not confirm what is published".into()))
            }
        }
    }

    fn ticked(&mut self, channel: &Channel) -> Result<(), BrokerError> {
        if !channel.status().connected() {
            return Err(BrokerError::Ended("the publishing channel is closed".into()));
        }
        let now = Instant::now();
        while self.delayed.front().is_some_and(|(at, _)| *at <= now) {
            self.queue.extend(self.delayed.pop_front().map(|(_, id)| id));
        }
        if self.link.state().is_blocked() {
            return Ok(());
        }
        let limits =
            [("publish", Out::Writing, self.broker.write_limit()), ("confirm", Out::Written, CONFIRM_LIMIT)];
        for (what, out, limit) in limits {
            let late =
                |entry: &Entry| entry.out.is_some_and(|(now_at, since)| now_at == out && now - since > limit);
            if self.outbox.values().any(late) {
                return Err(BrokerError::Timeout { what: what.into(), limit });
            }
        }
        Ok(())
    }
}

/// The place of what is sent next, of messages of which some are to be sent `last` or are mandatory; these
/// go alone. `idle`: nothing is out; `overdue`: the last have waited long enough.
fn pick(queue: impl Iterator<Item = (bool, bool)> + Clone, idle: bool, overdue: bool) -> Option<usize> {
    let place = |wanted: bool| queue.clone().position(|(last, _)| last == wanted);
    let (sound, last) = (place(false), place(true));
    let at = if overdue { last.or(sound) } else { sound.or(last) }?;
    let alone = queue.clone().nth(at).is_some_and(|(last, mandatory)| last || mandatory);
    (idle || !alone).then_some(at)
}

/// Hands a message over; it is in line once this was polled, and done once it is written.
async fn publish(channel: Channel, id: u64, message: Message) -> (u64, lapin::Result<Step>) {
    let Message { exchange, key, properties, body, mandatory, reply_to: _ } = message;
    let options = BasicPublishOptions { mandatory, immediate: false };
    let written = channel.basic_publish(exchange, key, options, &body, properties).await;
    (id, written.map(Step::Written))
}

/// One try, of which nobody hears: whoever wants a copy for certain binds a queue to the results.
fn send_copy(channel: &Channel, message: &Message) {
    let Some(queue) = message.reply_to.clone() else { return };
    let properties: BasicProperties = message.properties.clone();
    let options = BasicPublishOptions::default();
    let publish = channel.basic_publish("".into(), queue, options, &message.body, properties);
    // The frames are queued at the first poll; nothing waits for the rest.
    drop(publish.now_or_never());
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// `.`: a sound message, `m`: a mandatory one, `L`: one to be sent last.
    #[rstest]
    #[case("", [None, None, None, None])]
    #[case("..", [Some(0); 4])]
    #[case("m.", [None, Some(0), None, Some(0)])]
    #[case("L.", [Some(1), Some(1), None, Some(0)])]
    #[case(".L", [Some(0), Some(0), None, Some(1)])]
    #[case("Lm", [None, Some(1), None, Some(0)])]
    #[case("LL", [None, Some(0), None, Some(0)])]
    fn what_is_sent_next(#[case] queue: &str, #[case] places: [Option<usize>; 4]) {
        let queue = queue.chars().map(|message| (message == 'L', message == 'm'));
        let cases = [(false, false), (true, false), (false, true), (true, true)];
        assert_eq!(cases.map(|(idle, overdue)| pick(queue.clone(), idle, overdue)), places);
    }
}
