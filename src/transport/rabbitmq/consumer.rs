//! The consuming link: one task that keeps consumers on the work queues.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::stream::{BoxStream, SelectAll, StreamExt as _};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Event, message::Delivery};
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, BrokerError, RPC_LIMIT, Role, bounded, short};
use super::endpoint::Stats;
use super::link::{LinkEvent, LinkSetter};
use super::topology::{apply, items, work_queue};
use crate::util::retry::Retry;

const RETRY_INITIAL: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Between two looks at whether the link is still there.
const TICK: Duration = Duration::from_millis(500);

/// A delivery with its class.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) class: Arc<str>,
    pub(super) delivery: Delivery,
    pub(super) arrived: Instant,
}

/// What a consumer's stream yields; the end is an item of its own.
type Item = (Arc<str>, Option<lapin::Result<Delivery>>);

pub(super) struct Consumer {
    pub(super) broker: Broker,
    pub(super) prefetch: u16,
    pub(super) intake: mpsc::Sender<Intake>,
    pub(super) link: LinkSetter,
    pub(super) stats: Arc<Stats>,
    /// An acknowledgement did not work: the link must be rebuilt.
    pub(super) trouble: Arc<Notify>,
    /// Take nothing new.
    pub(super) drain: CancellationToken,
    pub(super) stop: CancellationToken,
}

impl Consumer {
    /// Works until it is stopped.
    pub(super) async fn run(self) {
        let mut retry = Retry::new(RETRY_INITIAL, RETRY_MAX);
        while !self.stop.is_cancelled() {
            let begun = Instant::now();
            let Err(error) = self.session().await else { return };
            tracing::warn!(%error, "the consuming link is lost");
            self.link.tell(LinkEvent::Lost(error.to_string()));
            self.stats.consume_losses.fetch_add(1, Ordering::Relaxed);
            if begun.elapsed() > RETRY_MAX {
                retry.reset();
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(retry.next_delay()) => {}
            }
        }
    }

    async fn session(&self) -> Result<(), BrokerError> {
        let connection = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            connection = self.broker.connect(Role::Consume) => connection?,
        };
        let mut events = pin!(connection.events_listener());
        let settings = &self.broker.settings;
        apply(&connection, &items(settings), settings.topology).await?;
        let mut channels = Vec::new();
        let mut streams: SelectAll<BoxStream<'static, Item>> = SelectAll::new();
        if !self.drain.is_cancelled() {
            for class in &settings.classes {
                let channel = bounded("open a channel", RPC_LIMIT, connection.create_channel()).await?;
                streams.push(self.consume(&channel, class).await?);
                channels.push((channel, short("a consumer's tag", class)?));
            }
        }
        self.link.tell(LinkEvent::Connected);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting: Option<Intake> = None;
        let mut draining = self.drain.is_cancelled();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    let _ = bounded("close", RPC_LIMIT, connection.close(200, "done".into())).await;
                    return Ok(());
                }
                () = self.drain.cancelled(), if !draining => {
                    draining = true;
                    waiting = None;
                    for (channel, tag) in &channels {
                        let cancel = channel.basic_cancel(tag.clone(), BasicCancelOptions::default());
                        bounded("cancel a consumer", RPC_LIMIT, cancel).await?;
                    }
                }
                () = self.trouble.notified() => {
                    return Err(BrokerError::Ended("an acknowledgement could not be sent".into()));
                }
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => self.link.tell(LinkEvent::Blocked(reason)),
                    Some(Event::ConnectionUnblocked) => self.link.tell(LinkEvent::Unblocked),
                    Some(Event::Error(source)) => {
                        return Err(BrokerError::Call { what: "consuming link".into(), source });
                    }
                    Some(_) => {}
                    None => return Err(BrokerError::Ended("the consuming link ended".into())),
                },
                _ = tick.tick() => {
                    let dead = channels.iter().any(|(channel, _)| !channel.status().connected());
                    if dead || !connection.status().connected() {
                        return Err(BrokerError::Ended("the consuming link is closed".into()));
                    }
                }
                room = self.intake.reserve(), if waiting.is_some() => match (room, waiting.take()) {
                    (Ok(room), Some(intake)) => room.send(intake),
                    // Nobody takes deliveries any more: the service ends.
                    _ => self.stop.cancelled().await,
                },
                item = streams.next(), if waiting.is_none() && !streams.is_empty() => match item {
                    // Given back when the connection is closed.
                    Some((_, Some(Ok(_)))) if draining => {}
                    Some((class, Some(Ok(delivery)))) => {
                        waiting = Some(Intake { class, delivery, arrived: Instant::now() });
                    }
                    Some((class, Some(Err(source)))) => {
                        return Err(BrokerError::Call { what: format!("consume {}", work_queue(&class)), source });
                    }
                    Some((_, None)) | None if draining => {}
                    Some((class, None)) => {
                        let queue = work_queue(&class);
                        return Err(BrokerError::Ended(format!("the broker ended the consumer of {queue}")));
                    }
                    None => return Err(BrokerError::Ended("every consumer ended".into())),
                },
            }
        }
    }

    async fn consume(&self, channel: &Channel, class: &str) -> Result<BoxStream<'static, Item>, BrokerError> {
        let classes = u16::try_from(self.broker.settings.classes.len()).unwrap_or(u16::MAX).max(1);
        let prefetch = (self.prefetch / classes).max(1);
        let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
        bounded("set the prefetch", RPC_LIMIT, qos).await?;
        let queue = short("a queue's name", &work_queue(class))?;
        let tag = short("a consumer's tag", class)?;
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(queue, tag, options, FieldTable::default());
        let stream = bounded(&format!("consume {}", work_queue(class)), RPC_LIMIT, consume).await?;
        let class: Arc<str> = class.into();
        let end = Arc::clone(&class);
        let items = stream.map(move |delivery| (Arc::clone(&class), Some(delivery)));
        Ok(items.chain(futures::stream::once(async move { (end, None) })).boxed())
    }
}
