//! Results as a client reads them: from a queue of its own.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::stream::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Acker, Channel, Connection, Consumer, Event};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::broker::{Broker, BrokerError, PAUSE_MAX, Pauses, RPC_LIMIT, Role, bounded, short};
use super::topology::{Argument, Item, NEVER, RESULTS, apply, items};
use crate::config::TopologyMode;

/// Between two looks at whether the link is still there.
const TICK: Duration = Duration::from_millis(500);
/// Messages taken and not yet acknowledged.
const PREFETCH: u16 = 128;
const NOT_FOUND: u16 = 404;

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapSettings {
    /// A durable queue, made where there is none; `None`: one that ends with the connection.
    pub queue: Option<String>,
    /// The routing keys.
    pub keys: Vec<String>,
}

/// What a tap yields.
#[derive(Debug)]
pub enum TapEvent {
    /// A message.
    Message(Tapped),
    /// The link is lost; it is being rebuilt.
    Lost(String),
    /// The link is there again.
    Back,
}

/// A message with the way to acknowledge it.
#[derive(Debug)]
pub struct Tapped {
    /// The message.
    pub body: Vec<u8>,
    /// The key it was published with.
    pub key: String,
    acker: Acker,
    limit: Duration,
}

impl Tapped {
    /// Acknowledges this and everything before it on the same link. Where the link is gone, the broker
    /// hands it over again.
    pub async fn acknowledge(&self) {
        let acked = self.acker.ack(BasicAckOptions { multiple: true });
        match bounded("acknowledge", self.limit, acked).await {
            Ok(true) => {}
            Ok(false) => tracing::debug!("an acknowledgement came too late"),
            Err(error) => tracing::warn!(%error, "results could not be acknowledged: they come again"),
        }
    }
}

/// One connection with its consumer.
struct Session {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    queue: ShortString,
}

/// Starts to read; returns once the queue takes messages, with its name. It is ended by `stop`, and
/// rebuilt whenever its link is lost.
///
/// # Errors
/// The broker cannot be reached, or the queue cannot be used.
pub async fn tap(
    broker: &Broker,
    settings: TapSettings,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(mpsc::Receiver<TapEvent>, String), BrokerError> {
    let first = open(broker, &settings).await?;
    let name = first.queue.as_str().to_owned();
    let (events, received) = mpsc::channel(usize::from(PREFETCH));
    tracker.spawn(run(broker.clone(), settings, first, events, stop.clone()));
    Ok((received, name))
}

async fn run(
    broker: Broker,
    settings: TapSettings,
    first: Session,
    events: mpsc::Sender<TapEvent>,
    stop: CancellationToken,
) {
    let work = async {
        let mut pauses = Pauses::new(PAUSE_MAX);
        let mut session = first;
        loop {
            let begun = Instant::now();
            let Err(error) = read(session, &broker, &events, &stop).await else { return };
            let mut pause = pauses.after(begun.elapsed());
            tracing::warn!(%error, "the link is lost");
            if events.send(TapEvent::Lost(error.to_string())).await.is_err() {
                return;
            }
            session = loop {
                tokio::time::sleep(pause).await;
                match open(&broker, &settings).await {
                    Ok(session) => break session,
                    Err(error) => tracing::warn!(%error, "no link yet"),
                }
                pause = pauses.next();
            };
            if events.send(TapEvent::Back).await.is_err() {
                return;
            }
        }
    };
    // A session sees the end itself, and says goodbye: this is for the time between two of them.
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(RPC_LIMIT).await;
    };
    tokio::select! {
        () = work => {}
        () = late => {}
    }
}

async fn open(broker: &Broker, settings: &TapSettings) -> Result<Session, BrokerError> {
    let connection = broker.connect(Role::Consume).await?;
    // Which classes of input there are does not matter here.
    let mut ours = broker.settings.clone();
    ours.classes = Vec::new();
    apply(&connection, &items(&ours), ours.topology).await?;
    let queue = match &settings.queue {
        Some(name) => durable(&connection, name).await?,
        None => ShortString::default(),
    };
    let channel = bounded("open a channel", RPC_LIMIT, connection.create_channel()).await?;
    let queue = if settings.queue.is_some() {
        queue
    } else {
        let options = QueueDeclareOptions::exclusive().auto_delete();
        let declare = channel.queue_declare(queue, options, FieldTable::default());
        bounded("declare a queue of our own", RPC_LIMIT, declare).await?.name().clone()
    };
    for key in &settings.keys {
        let what = format!("bind {queue} to {RESULTS} with the key {key:?}");
        let (key, options) = (short("a routing key", key)?, QueueBindOptions::default());
        let bind = channel.queue_bind(queue.clone(), RESULTS.into(), key, options, FieldTable::default());
        bounded(&what, RPC_LIMIT, bind).await?;
    }
    let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
    bounded("set the prefetch", RPC_LIMIT, qos).await?;
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let consume = channel.basic_consume(queue.clone(), ShortString::default(), options, table);
    let consumer = bounded(&format!("consume {queue}"), RPC_LIMIT, consume).await?;
    Ok(Session { connection, channel, consumer, queue })
}

/// A queue that is there is used as it is.
async fn durable(connection: &Connection, name: &str) -> Result<ShortString, BrokerError> {
    let queue = short("a queue's name", name)?;
    let look = bounded("open a channel", RPC_LIMIT, connection.create_channel()).await?;
    let passive = QueueDeclareOptions::default().passive();
    let found = look.queue_declare(queue.clone(), passive, FieldTable::default());
    match bounded(&format!("look for the queue {name}"), RPC_LIMIT, found).await {
        Ok(_) => {
            bounded("close a channel", RPC_LIMIT, look.close(200, "done".into())).await?;
            return Ok(queue);
        }
        // It closed the channel, too.
        Err(error) if error.code() == Some(NOT_FOUND) => {}
        Err(error) => return Err(error),
    }
    let item =
        Item::Queue { name: name.to_owned(), arguments: vec![("x-delivery-limit", Argument::Number(NEVER))] };
    apply(connection, &[item], TopologyMode::Declare).await?;
    Ok(queue)
}

/// Hands messages on until the link is lost, or it is told to stop.
async fn read(
    session: Session,
    broker: &Broker,
    events: &mpsc::Sender<TapEvent>,
    stop: &CancellationToken,
) -> Result<(), BrokerError> {
    let Session { connection, channel, mut consumer, queue } = session;
    let mut news = pin!(connection.events_listener());
    let limit = broker.write_limit();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                let _ = bounded("close", RPC_LIMIT, connection.close(200, "done".into())).await;
                return Ok(());
            }
            event = news.next() => match event {
                Some(Event::Error(source)) => {
                    return Err(BrokerError::Call { what: "the link".into(), source });
                }
                Some(_) => {}
                None => return Err(BrokerError::Ended("the link ended".into())),
            },
            _ = tick.tick() => {
                if !channel.status().connected() || !connection.status().connected() {
                    return Err(BrokerError::Ended("the link is closed".into()));
                }
            }
            room = events.reserve(), if waiting.is_some() => match (room, waiting.take()) {
                (Ok(room), Some(tapped)) => room.send(TapEvent::Message(tapped)),
                // Nobody reads any more.
                _ => return Ok(()),
            },
            delivery = consumer.next(), if waiting.is_none() => match delivery {
                Some(Ok(delivery)) => {
                    let key = delivery.routing_key.as_str().to_owned();
                    waiting = Some(Tapped { body: delivery.data, key, acker: delivery.acker, limit });
                }
                Some(Err(source)) => {
                    return Err(BrokerError::Call { what: format!("consume {queue}"), source });
                }
                None => return Err(BrokerError::Ended(format!("the broker ended the consumer of {queue}"))),
            },
        }
    }
}
